"""Every exercise is open as stored, takes its own answer, and rejects wrong ones."""

import os
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from held import held

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CHAPTERS = sorted((held() / "chapters").glob("[0-9][0-9]_*.ipynb"))
CHECK = re.compile(r'^with exercise\("(\d+\.\d+)"\)', re.M)
ANSWER = re.compile(r"<details>\s*<summary>Answer.*?```python\n(.*?)```", re.S)


def exercises(path: Path) -> dict[str, dict[str, str]]:
    """Number -> text, stub, check and answer, as they stand in the chapter."""
    cells, found = nbformat.read(path, as_version=4).cells, {}
    for i, cell in enumerate(cells):
        match = CHECK.search(cell.source) if cell.cell_type == "code" else None
        if match:
            later = "\n".join(c.source for c in cells[i + 1 : i + 3])
            answer = ANSWER.search(later)
            found[match[1]] = {
                "text": cells[i - 2].source,
                "stub": cells[i - 1].source,
                "check": cell.source,
                "answer": answer[1] if answer else "",
            }
    return found


def wrong_answers(path: Path) -> dict[str, list[str]]:
    file = ROOT / "tests" / "wrong_answers" / f"{path.stem}.py"
    return runpy.run_path(str(file))["WRONG"] if file.exists() else {}


@cache
def prelude(path: Path):
    """Compiled set-up cell and module cells of a chapter: what an exercise may use."""
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    marked = [c.source for c in code[1:] if c.source.startswith("# solutions/")]
    return compile("\n\n".join([code[0].source, *marked]), path.name, "exec")


def outcome(path: Path, answer: str, check: str, capsys) -> tuple[str, str]:
    """What `check` says of `answer`: (right | wrong | open, the printed line)."""
    namespace = {"__name__": "exercise_test"}
    before, sys.path[:0] = Path.cwd(), [str(ROOT / "chapters")]
    os.chdir(ROOT / "chapters")
    try:
        exec(prelude(path), namespace)
        exec(answer, namespace)
        capsys.readouterr()
        exec(check.replace("):", ") as _outcome:", 1), namespace)
    finally:
        os.chdir(before)
        sys.path.remove(str(ROOT / "chapters"))
    return namespace["_outcome"].outcome, capsys.readouterr().out


CASES = [(path, n, e) for path in CHAPTERS for n, e in exercises(path).items()]
EACH = pytest.mark.parametrize(
    "path, number, parts", CASES, ids=[f"{p.stem}-{n}" for p, n, _ in CASES]
)


@EACH
def test_the_stored_exercise_is_open(path, number, parts, capsys):
    assert "raise NotImplementedError" in parts["stub"]
    assert outcome(path, parts["stub"], parts["check"], capsys)[0] == "open"


@EACH
def test_the_answer_under_the_exercise_is_right(path, number, parts, capsys):
    assert parts["answer"], f"exercise {number} has no answer in a <details> cell"
    result, said = outcome(path, parts["answer"], parts["check"], capsys)
    assert result == "right", said


@EACH
def test_wrong_answers_are_rejected_with_a_reason(path, number, parts, capsys):
    wrong = wrong_answers(path).get(number, [])
    assert len(wrong) >= 3, f"give wrong answers for {number} in tests/wrong_answers"
    for answer in wrong:
        result, said = outcome(path, answer, parts["check"], capsys)
        assert result == "wrong", f"accepted a wrong answer:\n{answer}"
        assert len(said) > len(f"Exercise {number}: not right yet. "), said


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_exercises_and_no_orphaned_wrong_answers(path):
    numbers = exercises(path).keys()
    assert len(numbers) >= 6
    assert wrong_answers(path).keys() == numbers


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_exercise_says_how_long_it_takes_and_the_readme_adds_up(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    parts = re.split(r"^### Exercise \d+\.\d+", prose, flags=re.M)[1:]
    minutes = [re.findall(r"\*About (\d+) minutes\.\*", part) for part in parts]
    assert [len(found) for found in minutes] == [1] * len(exercises(path))
    total = sum(int(found[0]) for found in minutes)
    row = re.search(rf"^\| \[.*{path.name}.*$", README.read_text("utf-8"), re.M)[0]
    assert f"| {len(minutes)}, {total} min |" in row, (len(minutes), total)


@EACH
def test_an_exercise_has_two_hints_one_inside_the_other(path, number, parts, capsys):
    hints = re.findall(r"<summary>[^<]*[Hh]int", parts["text"])
    assert len(hints) >= 2 and "</details>\n</details>" in parts["text"]
