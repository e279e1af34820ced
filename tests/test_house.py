"""The rules of the house: one source for every module, tidy chapters, few arrows."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from held import copy_index, held
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((held() / "chapters").glob("[0-9][0-9]_*.ipynb"))
MODULES = sorted(p for p in (ROOT / "solutions").glob("*.py") if p.stem != "__init__")
EACH_CHAPTER = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
EACH_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)

ARROWS = {
    "text_data": set(),
    "pretokenization": set(),
    "tokenizer_json": {"pretokenization"},
    "bpe": {"pretokenization", "tokenizer_json"},
    "embeddings": set(),
    "attention": set(),
    "gpt": {"embeddings", "attention"},
    "pretraining": {"text_data", "optimization", "linear", "checkpoint"},
    "generation": {"gpt", "decoding", "pretrained"},
    "optimization": set(),
    "linear": set(),
    "checkpoint": set(),
    "decoding": {"attention", "embeddings", "gpt", "linear"},
    "pretrained": {"gpt"},
}
PARTS = {  # of chapters 2, 6 and 7, beside `bpe`, `pretraining` and `generation`
    "pretokenization", "tokenizer_json", "optimization", "linear", "checkpoint",
    "decoding", "pretrained",
}  # fmt: skip


def code_cells(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [c for c in cells if c.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def run_tool(root: Path, name: str, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "tools" / name), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


@pytest.fixture
def copy(tmp_path):
    """A course of one tiny chapter, with the tools."""
    for folder in ("tools", "chapters", "solutions"):
        (tmp_path / folder).mkdir()
    for tool in ("export.py", "tidy.py", "blank.py", "learner.py"):
        source = (ROOT / "tools" / tool).read_text("utf-8")
        (tmp_path / "tools" / tool).write_text(source, "utf-8")
    cells = [
        nbformat.v4.new_code_cell(
            "# solutions/a.py\nfrom solutions.b import c\n\nX = 1"
        ),
        nbformat.v4.new_code_cell("print(X)"),
        nbformat.v4.new_code_cell(
            '# solutions/a.py\ndef f(x):\n    """x."""\n    return x'
        ),
    ]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells), tmp_path / "chapters/01_a.ipynb"
    )
    return tmp_path


def test_there_are_seven_chapters_with_a_module_and_a_test_each():
    names = [p.stem[3:] for p in CHAPTERS]
    assert [p.stem[:2] for p in CHAPTERS] == [f"0{i}" for i in range(1, 8)]
    assert names == [name for name in ARROWS if name not in PARTS]
    assert {p.stem for p in MODULES} == set(ARROWS)
    assert all((ROOT / "tests" / f"test_{name}.py").exists() for name in names)


def test_every_module_is_what_its_chapter_exports():
    result = run_tool(held(), "export.py", "--check")
    assert result.returncode == 0, result.stdout


def test_every_chapter_is_tidy():
    result = run_tool(held(), "tidy.py", "--check")
    assert result.returncode == 0, result.stdout


def test_what_a_learner_does_to_a_chapter_is_not_what_git_holds(copy, tmp_path):
    def git(*args):
        name = ["-c", "user.name=a", "-c", "user.email=b"]
        subprocess.run(["git", "-C", str(copy), *name, *args], check=True)

    git("init", "--quiet")
    git("add", "-A")
    chapter = copy / "chapters" / "01_a.ipynb"
    before = chapter.read_bytes()
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells[1].source = "print('solved')"
    notebook.metadata = {"kernelspec": {"name": "mine", "display_name": "Mine"}}
    nbformat.write(notebook, chapter)
    copy_index(copy, tmp_path / "before")
    assert (tmp_path / "before" / "chapters" / "01_a.ipynb").read_bytes() == before
    git("add", "-A")
    copy_index(copy, tmp_path / "after")
    after = (tmp_path / "after" / "chapters" / "01_a.ipynb").read_bytes()
    assert after == chapter.read_bytes() != before


def test_export_joins_marked_cells_and_sees_drift(copy):
    assert run_tool(copy, "export.py", "--check").returncode == 1
    assert run_tool(copy, "export.py").returncode == 0
    module = copy / "solutions" / "a.py"
    expected = (
        'from .b import c\n\n__all__ = [\n    "X", "c", "f",\n]  # fmt: skip\n\n'
        'X = 1\n\n\ndef f(x):\n    """x."""\n    return x\n'
    )
    assert module.read_text("utf-8") == expected
    assert run_tool(copy, "export.py", "--check").returncode == 0
    module.write_text(expected + "# edited by hand\n", "utf-8")
    assert run_tool(copy, "export.py", "--check").returncode == 1


def test_export_writes_methods_into_their_classes(copy):
    path = copy / "chapters/01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    sources = [
        '# solutions/a.py\nclass A:\n    """A."""\n\n    x = 1\n\n\ndef f():\n    return 2',
        "from exercise import method_of",
        "# solutions/a.py\n@method_of(A)\ndef m(self):\n    return f()\n\n\n"
        "@method_of(A)\n@property\ndef p(self):\n    return self.x",
        "assert (A().m(), A().p) == (2, 1)",
    ]
    notebook.cells = [nbformat.v4.new_code_cell(s) for s in sources]
    nbformat.write(notebook, path)
    assert run_tool(copy, "export.py").returncode == 0
    expected = (
        '__all__ = [\n    "A", "f",\n]  # fmt: skip\n\n'
        'class A:\n    """A."""\n\n    x = 1\n\n    def m(self):\n        return f()\n\n'
        "    @property\n    def p(self):\n        return self.x\n\n\n"
        "def f():\n    return 2\n"
    )
    assert (copy / "solutions" / "a.py").read_text("utf-8") == expected
    sys.path.insert(0, str(ROOT / "chapters"))
    cells = {}
    for source in sources:  # as in the notebook, where the class grows
        exec(source, cells)
    notebook.cells[2].source = notebook.cells[2].source.replace("(A)", "(B)")
    nbformat.write(notebook, path)
    result = run_tool(copy, "export.py")
    assert result.returncode == 1 and "method_of(B)" in result.stderr


def test_export_lists_what_is_public_unless_the_chapter_does(copy):
    path = copy / "chapters/01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = (
        '# solutions/a.py\n"""Text."""\n\nimport math\n\nfrom solutions.b import c, d\n'
        "\n_X: int = d\nY: int = 1"
    )
    nbformat.write(notebook, path)
    assert run_tool(copy, "export.py").returncode == 0
    source = (copy / "solutions" / "a.py").read_text("utf-8")
    head = '"""Text."""\n\nimport math\n\nfrom .b import c, d\n\n__all__ = [\n    '
    assert source.startswith(head + '"Y", "c", "f",\n]  # fmt: skip\n\n_X: int = d\n')
    notebook.cells[0].source = '# solutions/a.py\n__all__ = ["f"]\nY = 1'
    nbformat.write(notebook, path)
    assert run_tool(copy, "export.py").returncode == 0
    source = (copy / "solutions" / "a.py").read_text("utf-8")
    assert source.startswith('__all__ = ["f"]\nY = 1\n\n\ndef f(x):')


def test_tidy_keeps_outputs_tags_and_ids_and_drops_the_rest(copy):
    path = copy / "chapters" / "01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    ids = [c.id for c in notebook.cells]
    cell = notebook.cells[1]
    cell.execution_count = 17
    cell.metadata = {"tags": ["slow"], "execution": {"iopub.status.busy": "2020"}}
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="1"),
        nbformat.v4.new_output("stream", name="stdout", text="2\n"),
        nbformat.v4.new_output("stream", name="stderr", text="\r 0%\r50%"),
        nbformat.v4.new_output("stream", name="stderr", text="\r100%\nend\r\n"),
        nbformat.v4.new_output(
            "error",
            ename="E",
            evalue="e",
            traceback=[
                "Cell In[2], line 1",
                "\x1b[31mFile /home/me/x.py:3, in f()",
                "E: e",
            ],
        ),
    ]
    nbformat.write(notebook, path)
    assert run_tool(copy, "tidy.py", "--check").returncode == 1
    assert run_tool(copy, "tidy.py").returncode == 0
    assert run_tool(copy, "tidy.py", "--check").returncode == 0
    tidied = nbformat.read(path, as_version=4)
    assert [c.id for c in tidied.cells] == ids
    assert [c.execution_count for c in tidied.cells] == [1, 2, 3]
    assert tidied.cells[1].metadata == {"tags": ["slow"]}
    stream, bar, error = tidied.cells[1].outputs
    assert stream.text == "12\n" and bar.text == "100%\nend\r\n"
    assert error.traceback == ["Cell In[2], line 1", "E: e"]


def test_tidy_keeps_a_figures_size_description_and_rare_colors():
    noise = [Image.effect_noise((300, 200), 9) for _ in range(3)]
    picture = Image.merge("RGB", noise)  # thousands of grays, and one line of blues
    for i in range(256):
        picture.putpixel((i, 9), (0, 0, i))
    stored = BytesIO()
    picture.convert("RGBA").save(stored, "png", dpi=(200, 200))
    png = b64encode(stored.getvalue()).decode("ascii")
    size = {"image/png": {"width": 150, "height": 100}}
    output = nbformat.v4.new_output("display_data", {"image/png": png}, metadata=size)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("plot()")])
    cell = notebook.cells[0]
    cell.metadata = {"alt": "Blues.", "collapsed": True}
    cell.outputs = [output]
    tidy = runpy.run_path(str(ROOT / "tools" / "tidy.py"))["tidy"]
    tidy(notebook)
    assert cell.metadata == {"alt": "Blues."} and cell.outputs[0].metadata == size
    png = cell.outputs[0].data["image/png"]
    small = Image.open(BytesIO(b64decode(png)))
    assert small.mode == "P" and small.size == picture.size
    assert round(small.info["dpi"][0]) == 200
    difference = ImageChops.difference(small.convert("RGB"), picture)
    assert max(high for _, high in difference.getextrema()) <= 16
    tidy(notebook)
    assert cell.outputs[0].data["image/png"] == png


def test_blank_empties_the_functions_and_keeps_what_they_promise(copy):
    out = copy / "blank.ipynb"
    assert run_tool(copy, "blank.py", "chapters/01_a.ipynb", str(out)).returncode == 0
    source = nbformat.read(out, as_version=4).cells[2].source
    assert '"""x."""' in source and "NotImplementedError" in source
    assert "return x" not in source
    again = run_tool(copy, "blank.py", "chapters/01_a.ipynb", str(out))
    assert again.returncode == 2 and "exists" in again.stderr


@EACH_MODULE
def test_arrows_point_to_the_few_modules_of_the_table(path):
    tree = ast.parse(path.read_text("utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert {n.module for n in imports if n.level} == ARROWS[path.stem]
    absolute = [n.module for n in imports if not n.level]
    absolute += [
        a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    ]
    assert not [name for name in absolute if name.startswith("solutions")]
    without_torch = {"pretokenization", "tokenizer_json", "bpe"}
    assert path.stem not in without_torch or not {"torch"} & {
        n.split(".")[0] for n in absolute
    }


def code_lines(node: ast.AST, source: list[str]) -> set[int]:
    """Line numbers of `node` that hold code.

    Docstrings, comments, blank lines and the list of names in `__all__` are none.
    """
    end = getattr(node, "end_lineno", len(source))
    lines = set(range(getattr(node, "lineno", 1), end + 1))
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            if ast.get_docstring(inner) is not None:
                text = inner.body[0]
                lines -= set(range(text.lineno, text.end_lineno + 1))
        if isinstance(inner, ast.Assign) and ast.unparse(inner.targets[0]) == "__all__":
            lines -= set(range(inner.lineno, inner.end_lineno + 1))
    return {
        n for n in lines if source[n - 1].strip() and source[n - 1].strip()[0] != "#"
    }


@EACH_MODULE
def test_modules_functions_and_lines_are_short(path):
    text = path.read_text("utf-8")
    source, tree = text.splitlines(), ast.parse(text)
    assert len(code_lines(tree, source)) <= 250
    assert max(map(len, source)) <= 88
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert len(code_lines(node, source)) <= 30, node.name


@EACH_MODULE
def test_public_names_say_what_they_do(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            assert node.returns is not None, node.name


def public_names(path: Path) -> list[str]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} has no __all__")


def imported_names(source: str, package: str = "solutions.") -> set[tuple[str, str]]:
    """(module, name) for each `from solutions.module import name` in a source."""
    statement = re.compile(
        rf"^[ >]*from {re.escape(package)}(\w+) import (\([^)]*\)|.+)", re.M
    )
    return {
        (module, name)
        for module, names in statement.findall(source)
        for name in re.findall(r"\w+", re.sub(r" as \w+|#.*", "", names))
    }


def test_whatever_is_imported_from_a_module_is_public_there():
    tools = [p.read_text("utf-8") for p in sorted((ROOT / "tools").rglob("*.py"))]
    tests = [p.read_text("utf-8") for p in sorted((ROOT / "tests").rglob("*.py"))]
    cells = [c.source for path in CHAPTERS for c in code_cells(path)]
    used = set().union(*map(imported_names, [*tools, *tests, *cells]))
    siblings = [imported_names(p.read_text("utf-8"), ".") for p in MODULES]
    used = {(m, n) for m, n in used.union(*siblings) if n[0] != "_"}
    public = {(p.stem, name) for p in MODULES for name in public_names(p)}
    assert len(used) > 80 and used <= public, sorted(used - public)


def test_the_modules_of_the_chapters_offer_what_their_parts_define():
    """So that `from solutions.generation import KVCache` is no accident."""
    names = {path.stem: set(public_names(path)) for path in MODULES}
    assert {"GPT2_PATTERN", "count_pretokens"} <= names["bpe"]
    assert {"KVCache", "from_pretrained", "save_pretrained"} <= names["generation"]
    assert {"AdamW", "cosine_schedule", "load_checkpoint"} <= names["pretraining"]
    assert not {"pairs", "index_pairs", "BYTES"} & names["bpe"]


def test_the_page_of_the_library_is_up_to_date_and_names_all_that_is_public(tmp_path):
    assert run_tool(held(), "api.py", "--check").returncode == 0, "run tools/api.py"
    page = (ROOT / "solutions" / "README.md").read_text("utf-8")
    for part in page.split("\n## `")[1:]:
        names = public_names(ROOT / "solutions" / f"{part.split('`')[0]}.py")
        assert all(re.search(rf"`{name}[`(]", part) for name in names), names
    assert "| `CharTokenizer(characters)` | One id for each character that" in page
    assert "Needs `pretokenization.py`, regex, tqdm (some functions: tiktoken, " in page
    for folder in ("tools", "solutions"):
        shutil.copytree(held() / folder, tmp_path / folder)
    module = tmp_path / "solutions" / "attention.py"
    module.write_text(module.read_text("utf-8").replace("(x: Tensor, dim:", "(y, dim:"))
    assert run_tool(tmp_path, "api.py", "--check").returncode == 1


@EACH_MODULE
def test_modules_do_not_print_plot_download_seed_or_look_at_the_clock(path):
    tree = ast.parse(path.read_text("utf-8"))
    called = {n.func.id for n in ast.walk(tree)
              if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
    assert not called & {"print", "input", "exec", "eval", "open_url"}
    roots = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import)
             for a in n.names}  # fmt: skip
    roots |= {(n.module or "").split(".")[0] for n in ast.walk(tree)
              if isinstance(n, ast.ImportFrom)}  # fmt: skip
    refused = {"matplotlib", "time", "random", "urllib", "requests", "pickle", "socket"}
    assert not roots & refused
    attributes = {
        ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }
    assert not attributes & {"torch.manual_seed", "os.environ", "np.random.seed"}


LEAVES = ["text_data", "pretokenization", "embeddings", "attention"]


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_module_works_alone_in_a_strange_folder(name, tmp_path):
    source = (ROOT / "solutions" / f"{name}.py").read_text("utf-8")
    (tmp_path / f"{name}.py").write_text(source, "utf-8")
    use = {
        "text_data": "assert m.split_documents('a\\n\\nb') == ['a', 'b']",
        "pretokenization": "assert m.count_pretokens(['a a']) == {b'a': 1, b' a': 1}",
        "embeddings": "assert m.sinusoidal_positions(4, 6).shape == (4, 6)",
        "attention": "assert m.causal_mask(2).tolist() == [[1, 0], [1, 1]]",
    }[name]
    script = f"import sys; sys.path.insert(0, '.'); import {name} as m; {use}"
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)


def test_the_files_of_chapter_2_work_alone_without_torch(tmp_path):
    """Two train, encode, decode and go to tiktoken; a third reads and writes files."""
    target = tmp_path / "anything"
    target.mkdir()
    script = (
        "import sys; sys.path.insert(0, '.'); from anything import bpe; "
        "t = bpe.train_bpe('aab', 257); assert t.decode(t.encode('aa')) == 'aa'; "
        "assert bpe.BPETokenizer.from_tiktoken(t.to_tiktoken('t')).merges == t.merges; "
        "assert not {'torch', 'solutions'} & {*sys.modules}"
    )
    files = (
        "; t.save('t.json'); assert bpe.BPETokenizer.load('t.json').merges == t.merges"
    )
    for names, code in [
        (["pretokenization", "bpe"], script),
        (["tokenizer_json"], script + files),
    ]:
        for name in names:
            source = (ROOT / "solutions" / f"{name}.py").read_text("utf-8")
            (target / f"{name}.py").write_text(source, "utf-8")
        subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_the_copied_folder_works_under_any_name(tmp_path):
    target = tmp_path / "anything"
    target.mkdir()
    for path in (ROOT / "solutions").glob("*.py"):
        (target / path.name).write_text(path.read_text("utf-8"), "utf-8")
    script = (
        "import sys; sys.path.insert(0, '.'); import torch; "
        "from anything import gpt, generation, pretraining, text_data, bpe; "
        "m = gpt.GPT(gpt.GPTConfig(300, 16, 8, 1, 2)); "
        "c = pretraining.TrainConfig(steps=2, batch_size=2, warmup_steps=1); "
        "pretraining.train(m, range(99), range(99), c, progress=False); "
        "assert generation.generate(m, torch.zeros(1, 1).long(), 5).shape == (1, 6); "
        "assert 'solutions' not in sys.modules"
    )
    environment = os.environ | {"COURSE_PACKAGE": "mine"}  # means nothing to a copy
    command = [sys.executable, "-I", "-c", script]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


@EACH_CHAPTER
def test_every_code_cell_was_run_once_and_in_order(path):
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert cell.source.strip(), "an empty code cell"
        assert "nbval-skip" not in tags(cell)
        failed = [o for o in cell.outputs if o.output_type == "error"]
        assert bool(failed) == ("raises-exception" in tags(cell))


@EACH_CHAPTER
def test_few_cells_escape_comparison_and_each_is_asserted_after(path):
    cells = code_cells(path)
    loose = [i for i, c in enumerate(cells) if "nbval-ignore-output" in tags(c)]
    assert len(loose) <= 0.15 * len(cells)
    for i, cell in enumerate(cells):
        errors = [o for o in cell.outputs if o.get("name") == "stderr"]
        assert not errors or i in loose, cell.source


@EACH_CHAPTER
def test_cells_are_short_enough_to_read(path):
    for i, cell in enumerate(code_cells(path)):
        lines = cell.source.splitlines()
        assert max(map(len, lines)) <= 88, max(lines, key=len)
        whole_class = any(line.startswith("class ") for line in lines)
        limit = 62 if whole_class or lines[0].startswith("# solutions/") else 25
        limit = 30 if i == 0 else limit  # the set-up: imports
        assert len(lines) <= limit, f"{len(lines)} lines: {lines[0]}"


@EACH_CHAPTER
def test_a_chapter_has_the_shape_of_a_chapter(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    without_code = re.sub(r"```.*?```", "", prose, flags=re.S)
    assert cells[0].source.startswith("# ")
    assert len(re.findall(r"^# ", without_code, re.M)) == 1
    assert len(re.findall(r"^## ", without_code, re.M)) >= 4
    figures = [o for c in code_cells(path) for o in c.outputs
               if "image/png" in o.get("data", {})]  # fmt: skip
    assert len(figures) >= 3
    assert not re.search(r"!\[[^\]]*\]\(|<img|<script|<table", prose)


@EACH_CHAPTER
def test_a_chapter_imports_only_earlier_chapters(path):
    names = list(ARROWS)
    earlier = set(names[: names.index(path.stem[3:])])
    if path.stem in ("06_pretraining", "07_generation"):
        earlier |= PARTS | {path.stem[3:]}  # its own files, and what two processes run
    for cell in code_cells(path):
        used = set(re.findall(r"^\s*from solutions\.(\w+) import", cell.source, re.M))
        assert used <= earlier, used - earlier
        assert not re.search(
            r"^\s*import solutions\.|get_encoding\(", cell.source, re.M
        )


TITLES = [
    "Text data", "Byte-pair encoding", "Embeddings", "Attention", "The GPT block",
    "Pretraining", "Generation",
]  # fmt: skip


@pytest.mark.parametrize("i", range(7), ids=[path.stem for path in CHAPTERS])
def test_a_chapter_is_numbered_and_leads_to_its_neighbors(i):
    links = ["[All chapters](../README.md)"]
    for j, form in [(i - 1, "← {}"), (i + 1, "{} →")]:
        if j in range(7):
            title = form.format(f"Chapter {j + 1}: {TITLES[j]}")
            links.insert(0 if j < i else 2, f"[{title}]({CHAPTERS[j].name})")
    way = " · ".join(links)
    prose = [
        c.source
        for c in nbformat.read(CHAPTERS[i], as_version=4).cells
        if c.cell_type == "markdown"
    ]
    assert prose[0].startswith(f"# Chapter {i + 1}: {TITLES[i]}\n\n{way}\n")
    assert prose[-1].endswith(f"\n\n{way}")


@EACH_CHAPTER
def test_a_chapter_lists_its_sections(path):
    prose = [
        c.source
        for c in nbformat.read(path, as_version=4).cells
        if c.cell_type == "markdown"
    ]
    listed = re.search(r"\n\n\*\*In this chapter:\*\*\s(.*)$", prose[0], re.S)[1]
    links = re.findall(r"\[([^]]+)\]\(#([^ )]+)\)", listed)
    without_code = re.sub(r"```.*?```", "", "\n".join(prose), flags=re.S)
    headings = re.findall(r"^## (.+?)\s*$", without_code, re.M)
    assert [name for name, _ in links] == headings
    assert [way for _, way in links] == [name.replace(" ", "-") for name in headings]


@EACH_CHAPTER
def test_no_line_of_a_paragraph_begins_like_a_list(path):
    """A line that begins with "2024." is shown as an item of a list."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"```.*?```", "", cell.source, flags=re.S)
        numbers = [int(n) for n in re.findall(r"^\s*(\d+)[.)](?:\s|$)", prose, re.M)]
        for before, number in zip([0, *numbers], numbers):
            assert number in (1, before + 1), f"a line begins with {number}."


FIRST_IMPORT = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            assert os.environ.get("OMP_WAIT_POLICY") == "PASSIVE", "torch came first"
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.path.insert(0, "chapters")
"""


def run_watched(script: str) -> subprocess.CompletedProcess:
    names = os.environ.items()
    environment = {k: v for k, v in names if k != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", FIRST_IMPORT + script + "\nos._exit(3)"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=ROOT
    )


@EACH_CHAPTER
def test_a_chapters_threads_sleep_while_they_wait(path):
    result = run_watched(code_cells(path)[0].source)
    assert result.returncode == 0, result.stderr or "the chapter does not import torch"


@pytest.mark.parametrize(
    "command",
    [
        "pretrain data/tales.txt --out x", "generate Hello", "check_tales data/tales.txt",
        "prepare data/tales.txt --out x", "bench dedup", "judge data/tale-gpt",
        "train_tale_gpt --out x",
    ],
)  # fmt: skip
def test_a_tools_threads_sleep_while_they_wait(command):
    name, *args = command.split()
    result = run_watched(
        f"import runpy; sys.argv = ['{name}', *{args}]; "
        f"runpy.run_path('tools/{name}.py', run_name='__main__')"
    )
    assert result.returncode == 0, result.stderr or "the tool does not import torch"


def test_a_chapter_cannot_reach_the_network():
    script = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "for address in [('192.0.2.1', 80), ('example.com', 443)]:\n"
        "    try: socket.create_connection(address, timeout=5)\n"
        "    except OSError as error: assert 'no network' in str(error), error\n"
        "    else: raise SystemExit('connected')\n"
    )
    path = os.pathsep.join(
        [str(ROOT / "tests/offline"), os.environ.get("PYTHONPATH", "")]
    )
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_readme_and_ci_run_the_same_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    install = "python -m pip install -r"
    read = f"{install} requirements.txt && jupyter lab chapters/01_text_data.ipynb"
    test = f"{install} tests/requirements.txt && pytest"
    assert f"\n{read}\n" in readme and f"\n{test}\n" in readme
    assert (ROOT / ".ci" / "run").read_text("utf-8").endswith(f"\n{test}\n")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert f"- run: {test}\n" in workflow
    for word in ("ubuntu", "macos", "windows", "3.11", "3.12", "3.13"):
        assert word in workflow


def test_requirements_are_pinned():
    course, tests = (
        [line for line in path.read_text("utf-8").splitlines() if line[:1] != "#"]
        for path in (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
    )
    assert course.pop() == "-e ." and tests.pop(0) == "-r ../requirements.txt"
    names = [*course, *tests]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in names), names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in project["optional-dependencies"].values():
        assert {*extra} <= {*tests}


def imported(source: str) -> set[str]:
    """The packages that Python code imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.split(".")[0] for name in found}


def test_requirements_hold_all_that_chapters_and_modules_import():
    """So a learner installs no more than requirements.txt."""
    sources = [cell.source for path in CHAPTERS for cell in code_cells(path)]
    sources += [path.read_text("utf-8") for path in MODULES]
    names = set().union(*map(imported, sources))
    ours = {"solutions", "exercise", "faults"}
    pinned = (ROOT / "requirements.txt").read_text("utf-8")
    installed = {*re.findall(r"^(\w+)==", pinned, re.M)}
    assert {"torch", "transformers"} < names  # they were found
    assert names - ours - sys.stdlib_module_names <= installed


def test_the_top_level_holds_what_the_design_names():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    rooms = {"chapters", "solutions", "data", "tests", "tools", ".ci", ".github"}
    files = {"README.md", "requirements.txt", "pyproject.toml", ".gitignore", "LICENSE"}
    about = {"CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"}
    assert top <= rooms | files | about | {".gitattributes", ".devcontainer"}


def test_notebooks_are_small_enough_to_review():
    for path in CHAPTERS:
        assert path.stat().st_size < 2_000_000, path.name
        json.loads(path.read_text("utf-8"))
