"""Run everything on your own package: what you have written, and the rest finished.

`python tools/blank.py mine` makes the package, a copy of solutions/ without bodies. With
the environment variable COURSE_PACKAGE=mine, `import solutions.attention` then gives
mine/attention.py, in chapters, tests and tools alike. What is still blank there is taken
from solutions/, so chapters can be rebuilt in any order: a blank function one by one, a
class as a whole until no public method of it is blank.

`pytest tests --package mine` also sets COURSE_TESTED to the modules under test. In those
a class is yours method by method, and a blank function that a test calls says "not
written yet". What is private, with an underscore before its name, need not be written.
"""

import ast
import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


def own_body(node: Function) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    return node.body[1:] if ast.get_docstring(node) is not None else node.body


def is_blank(node: ast.AST) -> bool:
    """A function that does nothing but raise NotImplementedError."""
    if not isinstance(node, Function):
        return False
    body = own_body(node)
    return bool(body) and (
        isinstance(body[0], ast.Raise)
        and "NotImplementedError" in ast.unparse(body[0])
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def members(tree: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    """Name -> function or class that stands directly in `tree`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def to_write(tree: ast.Module) -> dict[str, Function]:
    """"softmax" or "Block.forward" -> each public function that makes up a module."""
    found = {}
    for name, node in members(tree).items():
        if is_private(name):
            continue
        if isinstance(node, Function):
            found[name] = node
            continue
        for inner, method in members(node).items():
            written = isinstance(method, Function) and own_body(method)
            if written and not is_private(inner):
                found[f"{name}.{inner}"] = method
    return found


def guarded(given: Function, name: str) -> Function:
    """`given`, which says "not written yet" when a test calls it."""
    first = given.body.index(own_body(given)[0])
    check = ast.parse(f"_not_written_yet({name!r})").body
    for node in ast.walk(check[0]):
        ast.copy_location(node, given.body[first])
    given.body[first:first] = check
    return given


def placed(node: ast.stmt, line: int) -> ast.stmt:
    """`node`, which tracebacks then show at `line` of the learner's file."""
    for inner in ast.walk(node):
        if hasattr(inner, "lineno"):
            inner.lineno = inner.end_lineno = line
            inner.col_offset = inner.end_col_offset = 0
    return node


def completed(own: ast.ClassDef, given: ast.ClassDef) -> ast.ClassDef:
    """`own` with the methods of `given` that are blank or missing, public ones guarded."""
    theirs = {n: m for n, m in members(given).items() if isinstance(m, Function)}
    lines = {n: node.lineno for n, node in members(own).items()}
    kept = [n for n in own.body if not (is_blank(n) and n.name in theirs)]
    present = {getattr(node, "name", None) for node in kept}
    for name, node in theirs.items():
        if name not in present:
            full = f"{own.name}.{name}"
            node = node if is_private(name) else guarded(node, full)
            kept.append(placed(node, lines.get(name, own.lineno)))
    own.body = kept
    return own


def whole(own: ast.ClassDef, given: ast.ClassDef) -> bool:
    """Whether every public method of `given` is written in `own`."""
    mine = members(own)
    return all(
        is_private(name) or (name in mine and not is_blank(mine[name]))
        for name in members(given)
    )


def merged(own: ast.Module, given: ast.Module, strict: bool) -> list[ast.stmt]:
    """The statements of `own`, with those of `given` for what is blank or missing.

    strict: what is taken from `given` is guarded, and classes are `own` ones. A package
    made before an update may lack imports and constants, which come from `given`, too.
    """
    imports = [n for n in given.body if isinstance(n, ast.Import | ast.ImportFrom)]
    theirs, chosen = members(given), [placed(node, 1) for node in imports]
    lines = {name: node.lineno for name, node in members(own).items()}
    missing = [name for name in theirs if name not in lines]
    nodes = [*own.body, *(theirs[name] for name in missing)]
    for node in nodes:
        name = getattr(node, "name", None)
        if name not in theirs:
            chosen.append(node)
        elif isinstance(node, ast.ClassDef) and name not in missing:
            mine = whole(node, theirs[name])
            usable = mine or (strict and not is_private(name))
            if usable:
                chosen.append(completed(node, theirs[name]))
            else:
                chosen.append(placed(theirs[name], node.lineno))
        elif is_blank(node) or name in missing:
            guard = strict and not is_private(name) and isinstance(node, Function)
            finished = guarded(theirs[name], name) if guard else theirs[name]
            chosen.append(placed(finished, lines.get(name, 1)))
        else:
            chosen.append(node)
    said = constants(own)
    new = [node for name, node in constants(given).items() if name not in said]
    return chosen + [placed(node, 1) for node in new]


def constants(tree: ast.Module) -> dict[str, ast.stmt]:
    """Name -> the statement that assigns to it, at the top level of `tree`."""
    return {
        target.id: node
        for node in tree.body if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip


def not_written_yet(name: str) -> None:
    """NotImplementedError, but for while tests are only being collected."""
    if getattr(sys.modules["solutions"], "testing", True):
        raise NotImplementedError(f"not written yet: {name}")


class Loader(importlib.abc.Loader):
    """Executes a module of the learner's package, completed from solutions/."""

    def __init__(self, own: Path, given: Path, strict: bool) -> None:
        self.own, self.given, self.strict = own, given, strict

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.own)
        module.__dict__["_not_written_yet"] = not_written_yet
        given = ast.parse(self.given.read_text("utf-8"), str(self.given))
        own = ast.parse(self.own.read_text("utf-8"), str(self.own))
        for node in merged(own, given, self.strict):
            code = compile(ast.Module([node], []), str(self.own), "exec")
            exec(code, module.__dict__)


class Finder(importlib.abc.MetaPathFinder):
    """Finds `solutions.<name>` in the learner's folder first."""

    def __init__(self, folder: Path, tested: set[str]) -> None:
        self.folder, self.tested = folder, tested

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        own = self.folder / f"{name}.py"
        if package != "solutions" or not name or not own.exists():
            return None
        given = ROOT / "solutions" / own.name
        loader = Loader(own, given if given.exists() else own, name in self.tested)
        return importlib.util.spec_from_file_location(fullname, own, loader=loader)


def use(folder: str | os.PathLike, tested: str = "") -> None:
    """From now on `import solutions.x` gives x of `folder`, completed.

    folder: absolute, or relative to the course. tested: names with commas between them.
    """
    path = ROOT / folder
    if not path.is_dir():
        raise FileNotFoundError(
            f"COURSE_PACKAGE={str(folder)!r}: no folder {path}; "
            "`python tools/blank.py mine` makes one"
        )
    sys.meta_path.insert(0, Finder(path, set(tested.split(","))))
