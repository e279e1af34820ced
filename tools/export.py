"""Write solutions/*.py from the chapters.

A code cell whose first line is `# solutions/<name>.py` belongs to that module. The
module consists of those cells in order, without that line and with two blank lines
between them. There are three rewrites. `from solutions.x import y` becomes
`from .x import y`. A function under `@method_of(SomeClass)` moves, without that line,
to the end of the class. And a module whose cells set no `__all__` gets one, below its
imports. With --check nothing is written, and the exit status is 1 if a module differs
from its chapter.
"""

import argparse
import ast
import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"# solutions/(\w+\.py)\n")
METHOD = re.compile(r"@method_of\((\w+)\)\n")


def joined(cells: list[str]) -> str:
    """The cells as one source, with methods in the classes that they belong to."""
    source = ""
    for cell in cells:
        if METHOD.match(cell):
            for part in re.split(r"\n+(?=@method_of)", cell):
                source = grown(source, METHOD.match(part)[1], METHOD.sub("", part, 1))
        else:
            source += ("\n\n\n" if source else "") + cell
    return source + "\n"


def grown(source: str, name: str, method: str) -> str:
    """`source` with one more method at the end of the class `name`."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            lines[node.end_lineno :] = [
                "", textwrap.indent(method, "    "), *lines[node.end_lineno :]
            ]  # fmt: skip
            return "\n".join(lines)
    raise SystemExit(f"@method_of({name}): no earlier cell of the module has the class")


def public_names(tree: ast.Module) -> list[str]:
    """What a module defines without an underscore, and imports only to hand it on."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names |= {alias.name for alias in node.names} - used
    return sorted(name for name in names if name.isidentifier() and name[0] != "_")


def listed(source: str) -> str:
    """`source` with `__all__`, unless it has one."""
    tree, end = ast.parse(source), 0
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return source
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_text(node):
            end = node.end_lineno
    names = ", ".join(f'"{name}"' for name in public_names(tree))
    indent = {"initial_indent": "    ", "subsequent_indent": "    "}
    block = ["__all__ = [", *textwrap.wrap(f"{names},", 88, **indent), "]  # fmt: skip"]
    block = ["", *block] if end else [*block, ""]
    lines = source.split("\n")
    return "\n".join(lines[:end] + block + lines[end:])


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def exported(chapter: Path) -> dict[str, str]:
    """Module name -> source, for the modules that `chapter` holds cells of."""
    modules: dict[str, list[str]] = {}
    for cell in json.loads(chapter.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        marker = MARKER.match(source)
        if cell["cell_type"] == "code" and marker:
            body = source[marker.end() :].strip("\n")
            modules.setdefault(marker[1], []).append(body)
    found = {}
    for name, cells in modules.items():
        own = re.sub(r"^( *)from solutions\.", r"\1from .", joined(cells), flags=re.M)
        found[name] = listed(own)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    check, status = parser.parse_args().check, 0
    for chapter in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")):
        for name, source in exported(chapter).items():
            path = ROOT / "solutions" / name
            if path.exists() and path.read_text("utf-8") == source:
                continue
            if check:
                print(f"solutions/{name} differs from chapters/{chapter.name}")
                status = 1
            else:
                path.write_text(source, "utf-8", newline="\n")
                print(f"wrote solutions/{name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
