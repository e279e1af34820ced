"""Make a copy of a chapter to write the code yourself.

    python tools/blank.py chapters/04_attention.ipynb my_attention.ipynb

In the cells that belong to a module, every function keeps its signature and docstring
and loses its body. The proofs around them stay, and when they pass, your code is right.
Put the copy into chapters/, or start it there, so that it finds its files.
"""

import argparse
import ast
import sys
from pathlib import Path

import nbformat


def blanked(source: str) -> str:
    """`source` with `raise NotImplementedError` for the body of every function."""
    lines = source.splitlines()
    top = ast.parse(source).body
    inside = [n for c in top if isinstance(c, ast.ClassDef) for n in c.body]
    functions = [n for n in top + inside if isinstance(n, ast.FunctionDef)]
    for node in sorted(functions, key=lambda n: n.lineno, reverse=True):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body:
            indent = " " * body[0].col_offset
            lines[body[0].lineno - 1 : node.end_lineno] = [
                f"{indent}raise NotImplementedError"
            ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter", type=Path)
    parser.add_argument("copy", type=Path, help="the notebook to write")
    args = parser.parse_args()
    if args.copy.exists():
        print(
            f"blank: {args.copy} exists; your work is not overwritten", file=sys.stderr
        )
        return 2
    notebook = nbformat.read(args.chapter, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if cell.source.startswith("# solutions/"):
                cell.source = blanked(cell.source)
    nbformat.write(notebook, args.copy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
