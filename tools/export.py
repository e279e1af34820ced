"""Write solutions/*.py from the chapters.

A code cell whose first line is `# solutions/<name>.py` belongs to that module. The
module consists of those cells in order, without that line and with two blank lines
between them. There are two rewrites. `from solutions.x import y` becomes
`from .x import y`, and a function under `@method_of(SomeClass)` moves, without that
line, to the end of the class. With --check nothing is written, and the exit status is 1
if a module differs from its chapter.
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


def exported(chapter: Path) -> dict[str, str]:
    """Module name -> source, for the modules that `chapter` holds cells of."""
    modules: dict[str, list[str]] = {}
    for cell in json.loads(chapter.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        marker = MARKER.match(source)
        if cell["cell_type"] == "code" and marker:
            body = source[marker.end() :].strip("\n")
            modules.setdefault(marker[1], []).append(body)
    return {
        name: re.sub(r"^( *)from solutions\.", r"\1from .", joined(cells), flags=re.M)
        for name, cells in modules.items()
    }


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
