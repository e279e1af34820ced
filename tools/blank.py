"""Make an empty copy of the library, or of a chapter, to write the code yourself.

    python tools/blank.py mine                     # the library: a package without bodies
    pytest tests --package mine                    # what of it is right, wrong, to do
    python tools/blank.py chapters/04_attention.ipynb chapters/my_attention.ipynb

Every function keeps its signature and its docstring and loses its body. The library's
copy says what each constructor sets, and is tested by the tests that guard solutions/.
In a chapter's copy the proofs around the functions stay, with the outputs to expect:
when they pass, your code is right. Keep that copy in chapters/, beside its files.
"""

import argparse
import ast
import shutil
import sys
from pathlib import Path

import nbformat
from learner import ROOT, is_private, own_body

HOW = '''"""Your package: write the bodies, in any order.

    pytest tests --package {name}

says what is right, wrong and to do. To try your code by hand, start Python with

    COURSE_PACKAGE={name} python

and import it as the course does: `from solutions.attention import softmax` is yours,
and what you have not written is the course's (tools/learner.py).
"""
'''


def attributes(node: ast.FunctionDef, lines: list[str]) -> list[str]:
    """What a constructor puts on `self`, in order, with the comments behind it."""
    found = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.setdefault(ast.unparse(inner), inner.lineno)
        elif isinstance(inner, ast.Call) and "register_buffer" in ast.unparse(inner.func):
            found[f"self.{inner.args[0].value}"] = inner.lineno
    names = [name for name in sorted(found, key=found.get) if name.startswith("self.")]
    comments = {name: lines[found[name] - 1].partition("  # ")[2] for name in names}
    return [f"{name}: {comments[name]}" if comments[name] else name for name in names]


def stub(node: ast.FunctionDef, name: str, source: list[str]) -> list[str]:
    """The lines that stand in for the body of `node`."""
    indent = " " * own_body(node)[0].col_offset
    lines = [f"{indent}# Your turn."]
    if any(is_private(part) for part in name.split(".")):
        lines = [f"{indent}# Provided by the course; you may write your own."]
    if node.name == "__init__" and (listed := attributes(node, source)):
        lines = [f"{indent}# Your turn. It sets:"]
        lines += [f"{indent}#     {attribute}" for attribute in listed]
    return [*lines, f'{indent}raise NotImplementedError("not written yet: {name}")']


def blanked(source: str) -> str:
    """`source` with `raise NotImplementedError` for the body of every function."""
    lines = source.splitlines()
    functions = []
    for node in ast.parse(source).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for one in inner:
            if isinstance(one, ast.FunctionDef) and own_body(one):
                functions.append((one, f"{owner}{one.name}"))
    for node, name in reversed(functions):
        start = own_body(node)[0].lineno - 1
        if own_body(node) != node.body:  # comments below the docstring go as well
            start = node.body[0].end_lineno
        lines[start : node.end_lineno] = stub(node, name, source.splitlines())
    return "\n".join(lines) + ("\n" if source.endswith("\n") else "")


def blank_package(folder: Path) -> None:
    """Write the package; complete or not at all."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for path in sorted((ROOT / "solutions").glob("*.py")):
        source = path.read_text("utf-8")
        if path.stem == "__init__":
            source = HOW.format(name=folder.name)
        else:
            source = blanked(source)
        (part / path.name).write_text(source, "utf-8")
    part.rename(folder)


def blank_chapter(chapter: Path, copy: Path) -> None:
    """Write a chapter's copy; outputs stay, so that one sees what to expect."""
    notebook = nbformat.read(chapter, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("# solutions/"):
            cell.source = blanked(cell.source)
    nbformat.write(notebook, copy)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a new folder, or a chapter")
    parser.add_argument("copy", type=Path, nargs="?", help="the notebook to write")
    args = parser.parse_args()
    target = args.copy or args.source
    if args.copy is None and args.source.suffix == ".ipynb":
        parser.error(f"copy: name the notebook to write from {args.source}")
    if target.exists():
        print(f"blank: {target} exists; your work is not overwritten", file=sys.stderr)
        return 2
    if args.copy:
        blank_chapter(args.source, args.copy)
    else:
        blank_package(args.source)
        print(f"Wrote {args.source}. Try: pytest tests --package {args.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
