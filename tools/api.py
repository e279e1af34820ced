"""Write solutions/README.md, which lists what each module offers and needs.

The page is made of names in `__all__`, signatures and docstrings. With --check nothing
is written, and the exit status is 1 if the page is out of date.
"""

import ast
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "solutions" / "README.md"
MODULES = {path.stem: ast.parse(path.read_text("utf-8"))
           for path in PAGE.parent.glob("*.py") if path.stem != "__init__"}  # fmt: skip
HEAD = """# The library

What every module offers, chapter by chapter. The docstrings say more: shapes, units,
errors and sources. "Also" are constants, types, and names from other modules. This page
is written by `tools/api.py` of the course.
"""


def needs(name: str) -> tuple[list[str], set[str]]:
    """The modules and the packages without which a module cannot be imported."""
    siblings, packages = [], set()
    for node in MODULES[name].body:
        if isinstance(node, ast.ImportFrom) and node.level:
            more, theirs = needs(node.module)
            siblings += [one for one in [*more, node.module] if one not in siblings]
            packages |= theirs
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            whole = getattr(node, "module", node.names[0].name)
            packages.add(whole.split(".")[0])
    return siblings, packages - sys.stdlib_module_names


def named(node: ast.AST) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    return {one.name: one for one in node.body if hasattr(one, "name")}


def first_sentence(node: ast.AST) -> str:
    """Of a docstring, as Markdown for a table."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    parts = re.split(r"(?<=[.!?]) (?=[A-Z])", text)[0].split("`")
    parts[::2] = [re.sub(r"([*_<\\\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """`f(x, *, k=1)`, without types; of a class, how to make one."""
    if isinstance(node, ast.ClassDef) and "__init__" in named(node):
        return node.name + signature(named(node)["__init__"]).removeprefix("__init__")
    if "property" in map(ast.unparse, node.decorator_list):
        return node.name
    if isinstance(node, ast.FunctionDef):
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        given = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
        return f"{node.name}({given})"
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    values = [f"={ast.unparse(one.value)}" if one.value else "" for one in fields]
    given = ", ".join(f.target.id + v for f, v in zip(fields, values, strict=True))
    given = re.sub(r"field\(default_factory=(\w+)\)", r"\1()", given)
    return f"{node.name}({given})" if node.decorator_list else node.name  # a dataclass


def rows(name: str, public: list[str]) -> list[str]:
    """A line for each public name defined here, and for each of its public methods."""
    known, found = named(MODULES[name]), []
    for node in [known[one] for one in public if one in known]:
        found.append(f"| `{signature(node)}` | {first_sentence(node)} |")
        methods = named(node) if isinstance(node, ast.ClassDef) else {}
        for inner, method in methods.items():
            if inner[0] != "_" and ast.get_docstring(method):
                found.append(f"| `.{signature(method)}` | {first_sentence(method)} |")
    others = [f"`{one}`" for one in public if one not in known]
    return [*found, f"\nAlso: {', '.join(others)}."] if others else found


def section(name: str) -> str:
    tree, (siblings, packages) = MODULES[name], needs(name)
    beside = [f"`{one}.py`" for one in siblings] + sorted(packages)
    needed = f"Chapter {chapter(name)}. Needs {', '.join(beside)}"
    later = {node.module for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and node not in tree.body}  # fmt: skip
    if later:
        needed += f" (some functions: {', '.join(sorted(later))})"
    lines = [f"\n## `{name}`\n", first_sentence(tree), f"\n{needed}.\n"]
    listed = re.search(r"^__all__ = (.*)", ast.unparse(tree), re.M)[1]
    public = ast.literal_eval(listed)
    head = ["| name | what it is |", "|---|---|"]
    return "\n".join([*lines, *head, *rows(name, public), ""])


def chapter(name: str) -> int:
    return int(re.search(r"chapters/0(\d)", ast.get_docstring(MODULES[name]))[1])


def main() -> int:
    order = sorted(MODULES, key=lambda name: (chapter(name), len(needs(name)[0]), name))
    page = HEAD + "".join(map(section, order))
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text("utf-8") != page)
    PAGE.write_text(page, "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
