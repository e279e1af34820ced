"""Grading: one student's crash or endless loop leaves the others' results alone."""

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

import package
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import grade  # noqa: E402

ENDLESS = """
import pathlib, subprocess, sys
report, beat = map(pathlib.Path, sys.argv[1:])
report.write_text('[{"module": "bpe", "written": 1, "functions": 2, "right": 3,'
                  ' "wrong": 0, "to do": 4}, {"module": "gpt", "written": 0,'
                  ' "functions": 2, "right": null, "wrong": null, "to do": null}]')
child = "import sys, time\\nwhile True: open(sys.argv[1], 'a').write('x'); time.sleep(.05)"
subprocess.run([sys.executable, "-c", child, beat])
"""


def test_a_class_is_graded_by_one_command(tmp_path):
    """ben's module ends Python, clara's is no Python."""
    ben, clara = folders = [tmp_path / name / "mine" for name in ("ben", "clara")]
    command = [sys.executable, "tools/blank.py", str(ben)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    shutil.copytree(ben, clara)
    (ben / "bpe.py").write_text("import os\nos._exit(3)\n")
    (clara / "bpe.py").write_text("x = 1\ndef broken(:\n")
    shutil.copy(ROOT / "solutions" / "gpt.py", clara)
    out = tmp_path / "grades"
    command = [sys.executable, "tools/grade.py", str(tmp_path / "*" / "mine")]
    command += ["--out", str(out), "--only", "bpe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ben", "clara", "Wrote"]
    assert all("wrong in bpe" in line for line in lines[:2])
    with (out / "grades.csv").open(encoding="utf-8", newline="") as opened:
        table = list(csv.DictReader(opened))
    rows = {(row["student"], row["module"]): row for row in table}
    assert len(rows) == len(table) == 2 * sum(map(len, package.TESTS.values()))
    for student in ("ben", "clara"):
        row = rows[student, "bpe"]
        assert [row[kind] for kind in ("right", "wrong", "to do")] == ["0", "1", "0"]
    whole = rows["clara", "gpt"]
    assert whole["written"] == whole["functions"] > rows["ben", "gpt"]["written"] == "0"
    assert whole["right"] == whole["wrong"] == ""
    assert "SyntaxError" in (out / "clara.txt").read_text("utf-8")


def test_what_never_ends_is_stopped_with_all_that_it_started(tmp_path, monkeypatch):
    beat = tmp_path / "beat"

    def endless(folder, report, only):
        return [sys.executable, "-c", ENDLESS, str(report), str(beat)]

    monkeypatch.setattr(grade, "command", endless)
    rows = grade.graded(tmp_path, [], tmp_path / "printed", 3)
    assert [row["right"] for row in rows] == [3, None]
    assert "time limit" in grade.summary("dora", rows)
    assert "Stopped after 0.05 minutes" in (tmp_path / "printed").read_text("utf-8")
    size = beat.stat().st_size
    assert size > 0
    time.sleep(0.5)  # ten beats
    assert beat.stat().st_size == size


def test_a_student_without_any_result_has_a_row(tmp_path, monkeypatch):
    nothing = [sys.executable, "-c", "raise SystemExit('no memory')"]
    monkeypatch.setattr(grade, "command", lambda *_: nothing)
    [row] = grade.graded(tmp_path, [], tmp_path / "printed", 60)
    assert (
        row["note"] == "no result" and "no memory" in (tmp_path / "printed").read_text()
    )
    grade.write_csv(tmp_path / "grades.csv", {"emil": [row]})
    assert "emil,,,,,,,no result" in (tmp_path / "grades.csv").read_text("utf-8")


@pytest.mark.parametrize("folders, names", [
    (["in/anna/mine", "in/ben/mine"], ["anna", "ben"]),
    (["in/anna", "in/ben"], ["anna", "ben"]),
    (["a/anna/x", "b/anna/y"], ["a-anna-x", "b-anna-y"]),
    (["in/anna", "in/anna/mine"], ["anna", "anna-mine"]),
    (["in/anna/mine"], ["anna"]),
    (["in/emil"], ["emil"]),
])  # fmt: skip
def test_students_are_named_by_what_differs(folders, names, tmp_path):
    found = grade.students([tmp_path / folder for folder in folders])
    assert list(found) == names
    assert list(found.values()) == [(tmp_path / f).resolve() for f in folders]


def test_what_is_no_folder_is_named():
    command = [sys.executable, "tools/grade.py", "no-such-folder"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no-such-folder: no such folder" in done.stderr


@pytest.mark.parametrize("command, missing", [
    ("grade.py handed_in", "pytest"), ("bench.py dedup", "datasketch"),
])  # fmt: skip
def test_a_reader_without_the_tests_packages_is_told_what_to_install(command, missing):
    name, *args = command.split()
    script = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; "
        f"sys.argv = [{name!r}, *{args}]; sys.path.insert(0, 'tools'); "
        f"runpy.run_path('tools/{name}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode and len(done.stderr.splitlines()) == 1, done.stderr
    assert missing in done.stderr and "-r tests/requirements.txt" in done.stderr
