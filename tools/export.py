"""Write solutions/*.py from the chapters.

A code cell whose first line is `# solutions/<name>.py` belongs to that module. The
module is those cells in order, without that line, two blank lines between them; the one
rewrite is `from solutions.x import y` -> `from .x import y`. With --check nothing is
written, and the exit status is 1 if a module differs from its chapter.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"# solutions/(\w+\.py)\n")


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
        name: re.sub(r"^from solutions\.", "from .", "\n\n\n".join(cells), flags=re.M)
        + "\n"
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
