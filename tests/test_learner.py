"""A learner's own package: blank, half written, wrong, finished."""

import ast
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import package
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from learner import merged, own_body, to_write  # noqa: E402

FEW = "look_up or row or rotat or nearest or neighbor or length"  # of the tests
MODULES = sorted(p for p in (ROOT / "solutions").glob("*.py") if p.stem != "__init__")
FORWARD = """
import os, sys
def logits(folder):
    for name in [name for name in sys.modules if name.startswith("solutions")]:
        del sys.modules[name]
    os.environ["COURSE_PACKAGE"] = folder
    if not folder:
        del os.environ["COURSE_PACKAGE"]
    import solutions, torch
    from solutions.gpt import GPT, GPTConfig
    model = GPT(GPTConfig(50, 8, 16, 2, 2), generator=torch.Generator().manual_seed(1))
    sys.meta_path = [f for f in sys.meta_path if type(f).__name__ != "Finder"]
    return model(torch.arange(16).view(2, 8)).double().sum().item()
print(*map(logits, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner") / "mine"
    run(["tools/blank.py", str(folder)])
    return folder


def run(command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    return to_write(ast.parse(path.read_text("utf-8")))


def write(folder: Path, module: str, chosen) -> list[str]:
    """Put the finished body of each function that is `chosen` into `folder`."""
    path, given = folder / f"{module}.py", ROOT / "solutions" / f"{module}.py"
    source, bodies = path.read_text("utf-8"), given.read_text("utf-8").splitlines()
    theirs, names = functions(given), []
    for name, node in reversed(functions(path).items()):
        if not chosen(name):
            continue
        body = own_body(theirs[name])
        lines = source.splitlines()
        start, end = own_body(node)[0].lineno - 1, node.end_lineno
        lines[start:end] = bodies[body[0].lineno - 1 : theirs[name].end_lineno]
        source = "\n".join(lines) + "\n"
        names.append(name)
    path.write_text(source, "utf-8")
    return names


def score_of(folder: Path, name: str) -> tuple[int, str, list[int]]:
    """Status, what is printed, and right, wrong, to do for one file of tests."""
    command = [f"tests/test_{name}.py", "--package", str(folder), "-k", FEW]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command], cwd=ROOT, capture_output=True, text=True
    )
    row = re.search(rf"^{name} +\S+ +(\d+) +(\d+) +(\d+)$", done.stdout, re.M)
    assert row, done.stdout + done.stderr
    return done.returncode, done.stdout, [int(n) for n in row.groups()]


def test_a_blank_package_keeps_signatures_and_docstrings_and_no_body(blank):
    for path in MODULES:
        theirs, mine = functions(path), functions(blank / path.name)
        assert theirs.keys() == mine.keys()
        for name, node in theirs.items():
            assert ast.unparse(mine[name].args) == ast.unparse(node.args)
            assert ast.get_docstring(mine[name]) == ast.get_docstring(node)
            assert [type(n) for n in own_body(mine[name])] == [ast.Raise]
            assert f"not written yet: {name}" in ast.unparse(mine[name])


def test_a_constructor_says_what_it_sets(blank):
    source = (blank / "attention.py").read_text("utf-8")
    assert re.search(r"# Your turn. It sets:\n(?: +#     self.*\n)*.*self\.qkv\b", source)


def test_work_is_not_overwritten(blank):
    before = (blank / "gpt.py").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "tools/blank.py", str(blank)], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 2 and b"exists" in done.stderr
    assert (blank / "gpt.py").read_text("utf-8") == before


def test_whatever_is_written_is_what_runs_and_the_rest_is_finished_code(blank, tmp_path):
    """Nothing written, three random halves, and a function that is wrong."""
    folders = [blank]
    for seed in range(3):
        folders.append(tmp_path / f"half{seed}")
        shutil.copytree(blank, folders[-1])
        rng = random.Random(seed)
        for module in ("embeddings", "attention", "gpt"):
            assert write(folders[-1], module, lambda _, rng=rng: rng.random() < 0.5)
    folders.append(tmp_path / "wrong")
    shutil.copytree(blank, folders[-1])
    path = folders[-1] / "gpt.py"
    source = path.read_text("utf-8")
    stub = re.compile(r' +# Your turn\.\n.*not written yet: gelu"\)\n')
    assert len(stub.findall(source)) == 1
    path.write_text(stub.sub("    return 0 * x\n", source), "utf-8")
    expected, *same, wrong = run(["-c", FORWARD, "", *map(str, folders)]).split()
    assert same == [expected] * 4 and wrong != expected


def test_what_is_right_what_is_wrong_and_what_is_to_do(blank, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(blank, folder)
    names = write(folder, "embeddings", lambda name: name.startswith(("rot", "Tok")))
    assert len(names) >= 3
    path = folder / "embeddings.py"
    source = path.read_text("utf-8")
    right = "F.embedding(ids, self.weight)"
    assert source.count(right) == 1
    path.write_text(source.replace(right, f"{right}.flip(-1)"), "utf-8")
    status, printed, counts = score_of(folder, "embeddings")
    assert status == 1 and counts[0] > 4 and counts[1] >= 2 and counts[2] > 4
    assert re.search(rf"^embeddings +{len(names)}/", printed, re.M)
    assert "Wrong in embeddings:" in printed
    assert f"Write next: nearest_tokens in {path}:" in printed
    assert "solutions/" not in printed


def test_of_a_written_module_nothing_is_given_by_the_course(blank, tmp_path):
    """All that the tests guard can be written: the finished module, as a learner's."""
    folder = tmp_path / "mine"
    shutil.copytree(blank, folder)
    for path in MODULES:
        names = write(folder, path.stem, lambda name: True)
        assert set(names) == set(functions(path))
        written = functions(folder / path.name)
        for name, node in functions(path).items():
            assert ast.unparse(written[name]) == ast.unparse(node)


def test_a_package_older_than_an_update_gets_the_imports_and_constants_it_lacks():
    own = ast.parse("from math import pi\nA = 1\ndef f():\n    return A\n")
    given = "from math import e\nA, B = 2, 3\nA = 2\nB = A + e\ndef g():\n    return B\n"
    space = {}
    for node in merged(own, ast.parse(given), strict=False):
        exec(compile(ast.Module([node], []), "mine", "exec"), space)
    assert space["f"]() == 1 and space["g"]() == 1 + space["e"] and "pi" in space


def test_a_chapter_runs_on_it(blank, tmp_path, monkeypatch):
    """The opening of chapter 4, and then whose functions it has."""
    folder = tmp_path / "mine"
    shutil.copytree(blank, folder)
    write(folder, "embeddings", lambda name: name.startswith("TokenEmbedding"))
    chapter = nbformat.read(ROOT / "chapters/04_attention.ipynb", as_version=4)
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    ask = "import solutions.embeddings as e\nprint(e.__file__)\n"
    ask += "print(e.rotate(torch.ones(1, 2), torch.zeros(1)).tolist())  # still blank"
    chapter.cells = [code[0], nbformat.v4.new_code_cell(ask)]
    monkeypatch.setenv("COURSE_PACKAGE", str(folder))
    client = NotebookClient(chapter, resources={"metadata": {"path": ROOT / "chapters"}})
    file, turned = client.execute().cells[1].outputs[0].text.splitlines()
    assert Path(file) == folder / "embeddings.py" and turned == "[[1.0, 1.0]]"


def test_the_failures_of_one_test_are_told_once():
    wrong = [("a fact[1]", "x"), ("another", "y"), ("a fact[2]", "z")]
    told = [("a fact[1] and 1 more of its cases", "x"), ("another", "y")]
    assert package.by_fact(wrong) == told


def test_a_package_that_is_not_there_is_named():
    for command in ["-c", "import solutions"], ["-m", "pytest", "--package", "no", "tests"]:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
            env=os.environ | ({"COURSE_PACKAGE": "no"} if "-c" in command else {}),
        )  # fmt: skip
        assert done.returncode and "tools/blank.py" in done.stderr + done.stdout
