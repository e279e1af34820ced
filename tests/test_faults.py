"""Find the fault: every broken function has one exercise, and mending works."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from held import held
from test_exercises import CHAPTERS, exercises, outcome

FAULTS = held() / "chapters" / "faults.py"
HEADING = re.compile(r"^# Chapter (\d)$", re.M)


def broken(source: str) -> dict[str, int]:
    """Public function of faults.py -> the chapter whose heading stands above it."""
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        above = HEADING.findall("\n".join(lines[: node.lineno - 1]))
        if above and not node.name.startswith("_"):
            found[node.name] = int(above[-1])
    return found


@cache
def code_of(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")


def users(name: str) -> list[tuple[Path, str]]:
    """(chapter, number) of each exercise whose check uses the broken function."""
    return [
        (path, number)
        for path in CHAPTERS
        for number, parts in exercises(path).items()
        if re.search(rf"\bfaults\.{name}\b", parts["check"])
    ]


BROKEN = broken(FAULTS.read_text("utf-8"))
EACH = pytest.mark.parametrize("name", BROKEN)


@pytest.fixture(scope="module")
def faults():
    """The module as git holds it."""
    specification = importlib.util.spec_from_file_location("held_faults", FAULTS)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_headings_say_to_which_chapter_a_function_belongs():
    source = (
        "def mended(): ...\n# Chapter 1\ndef a(): ...\n# Chapter 2\ndef _b(): ...\n"
    )
    assert broken(source) == {"a": 1}
    assert HEADING.findall(FAULTS.read_text("utf-8")) == list("1234567")


@EACH
def test_a_broken_function_says_what_it_should_do(name, faults):
    assert getattr(faults, name).__doc__


@EACH
def test_its_chapter_shows_it(name):
    shown = f"inspect.getsource(faults.{name})"
    assert [p for p in CHAPTERS if shown in code_of(p)] == [CHAPTERS[BROKEN[name] - 1]]


@EACH
def test_one_exercise_uses_it_and_takes_no_mending_that_changes_nothing(name, capsys):
    [(path, number)] = users(name)
    assert path == CHAPTERS[BROKEN[name] - 1]
    parts = exercises(path)[number]
    function = re.search(r"^def (\w+)", parts["stub"], re.M)[1]
    assert function in parts["answer"]
    answer = f"{parts['answer']}\n\n_old, _new = {function}()\n"
    same = f"{answer}\ndef {function}():\n    return _old, _old\n"
    result, said = outcome(path, same, parts["check"], capsys)
    assert result == "wrong" and len(said) > len(f"Exercise {number}: not right yet. ")
    strange = f"def {function}():\n    return 'no such line', 'x = 1'\n"
    result, said = outcome(path, strange, parts["check"], capsys)
    assert result == "wrong" and f"is not a line of {name}" in said


FACTOR = 3


def halved(x: float) -> float:
    """Half of x."""
    if x < 0:
        return x
    y = x / FACTOR
    return y + 0


def doubled(x: float) -> float:
    """Twice x."""
    x = x + 1
    x = x + 1
    return x


def test_mending_replaces_one_line_and_leaves_the_function_alone(faults):
    mended = faults.mended(halved, "y = x / FACTOR", "y = x / 2")
    assert mended(4) == 2 and halved(3) == 1
    assert faults.mended(halved, "  y = x / FACTOR ", "\ty = FACTOR")(4) == 3


def test_one_line_may_become_several(faults):
    lines = "if x > 1:\n    y = x / 2\nelse:\n    y = 0"
    mended = faults.mended(halved, "y = x / FACTOR", lines)
    assert mended(4) == 2 and mended(1) == 0
    assert faults.mended(halved, "return x", "y = 1\nreturn y")(-4) == 1


@pytest.mark.parametrize("function, old, new, message", [
    (halved, "y = x / 3", "y = x / 2", "'y = x / 3' is not a line of halved; copy it"),
    (halved, "x / FACTOR", "x / 2", "is not a line of halved"),
    (halved, "", "y = x / 2", "is not a line of halved"),
    (doubled, "x = x + 1", "x = 2 * x", "'x = x + 1' stands in doubled twice"),
    (halved, "y = x / FACTOR", "y = x / (2", "'y = x / (2' is not Python"),
    (halved, "y = x / FACTOR", "half of x", "'half of x' is not Python"),
    (halved, "if x < 0:", "if x <= 0", "'if x <= 0' is not Python"),
])  # fmt: skip
def test_what_cannot_be_mended_is_named(faults, function, old, new, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        faults.mended(function, old, new)
