"""Break the library in many small ways, and see whether its tests notice.

    python tools/mutate.py attention gpt --each 30 --out mutants.csv

Each mutant is a module with one change: another comparison, sign, constant or bound, a
condition that is always or never true, a statement left out. The tests of its file run
on it until one fails. What survives is either a change that no one can observe, or a
gap in the tests. Rows that are in the CSV already are not run again.
"""

import argparse
import ast
import copy
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from package import TESTS  # noqa: E402

FIELDS = ["module", "line", "before", "after", "outcome", "seconds"]
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
REQUIRE = ("require", "_require")  # (condition, message)
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "len"}


def mutations(node: ast.AST) -> Iterator[ast.AST]:
    """Changed copies of one node, without its children's own changes."""
    new = copy.deepcopy(node)
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        if type(node.op) in SWAPS:
            new.op = SWAPS[type(node.op)]()
            yield new
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new.ops[0] = SWAPS[type(node.ops[0])]()
        yield new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield new.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        new.value = not node.value
        yield new
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        new.value = node.value + 1
        yield new
    elif isinstance(node, ast.Name) and node.id in NAMES:
        new.id = NAMES[node.id]
        yield new
    elif isinstance(node, (ast.If, ast.IfExp)):
        for value in (True, False):
            changed = copy.deepcopy(node)
            changed.test = ast.copy_location(ast.Constant(value), node.test)
            yield changed
    elif isinstance(node, (ast.AugAssign, ast.Expr)) and not is_text(node):
        yield ast.copy_location(ast.Pass(), node)


def is_text(node: ast.AST) -> bool:
    """A docstring, or `...`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def left_alone(tree: ast.Module) -> set[int]:
    """ids of the nodes that hold no behavior: annotations and messages of errors."""
    skipped = set()
    for node in ast.walk(tree):
        parts = []
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            parts = [node.annotation]
        elif isinstance(node, ast.FunctionDef):
            parts = [node.returns]
        elif isinstance(node, ast.Raise):
            parts = [node]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in REQUIRE:
            parts = node.args[1:]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts = [node]
        for part in parts:
            if part is not None:
                skipped.update(id(inner) for inner in ast.walk(part))
    return skipped


def mutants(source: str) -> list[tuple[int, str, str, str]]:
    """(line, before, after, the whole module) for every change there is."""
    tree, found = ast.parse(source), []
    skipped = left_alone(tree)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            for i, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or id(node) in skipped:
                    continue
                for new in mutations(node):
                    old = value[i] if isinstance(value, list) else value
                    put(parent, field, i, new)
                    before, after = first_line(old), first_line(new)
                    found.append((old.lineno, before, after, ast.unparse(tree)))
                    put(parent, field, i, old)
    return found


def put(parent: ast.AST, field: str, i: int, node: ast.AST) -> None:
    if isinstance(getattr(parent, field), list):
        getattr(parent, field)[i] = node
    else:
        setattr(parent, field, node)


def first_line(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0]


def outcome(test: str, folder: Path, limit: float) -> tuple[str, float]:
    """killed | survived | timeout, and the seconds it took."""
    command = [sys.executable, "-m", "pytest", f"tests/test_{test}.py", "-x", "-q"]
    command += ["-o", "addopts=", "-p", "no:cacheprovider"]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, timeout=limit,
            env=os.environ | {"COURSE_PACKAGE": str(folder)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timeout", time.monotonic() - start
    return ("killed" if done.returncode else "survived"), time.monotonic() - start


def run(module: str, args: argparse.Namespace, done: set[tuple], writer) -> None:
    test = next(name for name, modules in TESTS.items() if module in modules)
    source = (ROOT / "solutions" / f"{module}.py").read_text("utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{module}.py"
        path.write_text(source, "utf-8")
        state, seconds = outcome(test, Path(temporary), 3600)
        if state != "survived":
            raise SystemExit(f"mutate: tests/test_{test}.py fails without any change")
        chosen = mutants(source)
        random.Random(args.seed).shuffle(chosen)
        for line, before, after, changed in chosen[: args.each]:
            if (module, str(line), before, after) in done:
                continue
            path.write_text(changed, "utf-8")
            state, took = outcome(test, Path(temporary), 60 + 5 * seconds)
            writer(module, line, before, after, state, f"{took:.1f}")
            print(f"{state:8} {module}:{line}: {before} -> {after}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", choices=sum(TESTS.values(), []))
    parser.add_argument("--each", type=int, default=20, help="mutants per module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"))
    args = parser.parse_args()
    rows = []
    if args.out.exists():
        with open(args.out, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(r["module"], r["line"], r["before"], r["after"]) for r in rows}
    with open(args.out, "a", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        if not rows:
            out.writerow(FIELDS)

        def writer(*row) -> None:
            rows.append(dict(zip(FIELDS, map(str, row), strict=True)))
            out.writerow(row)
            file.flush()

        for module in args.modules:
            run(module, args, done, writer)
    killed = sum(row["outcome"] != "survived" for row in rows)
    print(f"{killed} of {len(rows)} mutants are noticed: {killed / max(len(rows), 1):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
