"""Run the tests on the packages of many students: a line for each, and a CSV.

    python tools/grade.py handed_in/* --out grades
    python tools/grade.py handed_in/* --only embeddings attention

A folder is a package as `python tools/blank.py mine` makes it. For each one this runs
`pytest tests --package FOLDER` in a process of its own, so one that crashes or never
ends does not stop the others. grades/grades.csv has a row for each student and module,
and grades/<student>.txt is what the student would have seen. It runs other people's
code, so use an account in which that code can do no harm.
"""

import argparse
import csv
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

try:
    from package import TESTS  # noqa: E402
except ModuleNotFoundError as error:
    sys.exit(f"grade: {error}; python -m pip install -r tests/requirements.txt")

COUNTS = ("written", "functions", "right", "wrong", "to do")
COLUMNS = ("student", "module", *COUNTS, "note")


def command(folder: Path, report: Path, only: list[str]) -> list[str]:
    tests = [f"tests/test_{name}.py" for name in only] or ["tests"]
    options = ["--package", str(folder), "--package-report", str(report)]
    lean = ["-o", "addopts=", "-p", "no:nbval", "-p", "no:xdist"]  # quick to start
    return [sys.executable, "-m", "pytest", *lean, *tests, *options]


def stop(process: subprocess.Popen) -> None:
    """End a process and all that it has started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        ending = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(ending, capture_output=True)
    process.wait()


def run(what: list[str], printed: Path, seconds: float) -> bool:
    """Whether `what` ended by itself within that time. Its output goes to a file."""
    with printed.open("wb") as output:
        process = subprocess.Popen(
            what, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            stop(process)
            output.write(f"\nStopped after {seconds / 60:g} minutes.\n".encode())
            return False
        except BaseException:
            stop(process)
            raise
    return True


def graded(folder: Path, only: list[str], printed: Path, seconds: float) -> list[dict]:
    """The rows of one student: module, COUNTS and a note on what went wrong."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        ended = run(command(folder.resolve(), report, only), printed, seconds)
        rows = json.loads(report.read_text("utf-8")) if report.exists() else []
    if not rows:
        note = "no result" if ended else "time limit"
        return [{"module": "", **dict.fromkeys(COUNTS), "note": note}]
    tested = sum(row["right"] is not None for row in rows)
    note = "" if ended else f"time limit; results of {tested} modules"
    return [row | {"note": note} for row in rows]


def summary(student: str, rows: list[dict]) -> str:
    """One line: the sums, and where something is wrong."""
    total = {kind: sum(row[kind] or 0 for row in rows) for kind in COUNTS}
    line = f"{student:24} written {total['written']:3} of {total['functions']:3}   "
    line += "   ".join(f"{kind} {total[kind]:4}" for kind in COUNTS[2:])
    wrong = [row["module"] for row in rows if row["wrong"]]
    line += f"   wrong in {', '.join(wrong)}" if wrong else ""
    return line + (f"   ({rows[0]['note']})" if rows[0]["note"] else "")


def write_csv(file: Path, grades: dict[str, list[dict]]) -> None:
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        for student, rows in grades.items():
            writer.writerows({"student": student} | row for row in rows)
    new.replace(file)


def students(folders: list[Path]) -> dict[str, Path]:
    """Name -> folder. A name is where the paths differ: anna for handed_in/anna/mine."""
    paths = [folder.resolve() for folder in folders]
    same = {path.name for path in paths} == {"mine"}
    names = [list((path.parent if same else path).parts) for path in paths]
    for end in (0, -1):
        while min(map(len, names)) > 1 and len({name[end] for name in names}) == 1:
            for name in names:
                name.pop(end)
    return dict(zip(map("-".join, names), paths, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("grades"), help="a folder")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME",
                        choices=TESTS, help=f"only tests of {', '.join(TESTS)}")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=20.0, help="for each student")
    args = parser.parse_args()
    # Not every shell replaces handed_in/* by what is there.
    found = [
        name for given in args.folders for name in sorted(glob.glob(given)) or [given]
    ]
    folders = [Path(name) for name in found]
    for folder in folders:
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder")
    args.out.mkdir(parents=True, exist_ok=True)
    grades = {}
    for student, folder in students(folders).items():
        printed = args.out / f"{student}.txt"
        grades[student] = graded(folder, args.only, printed, 60 * args.minutes)
        print(summary(student, grades[student]), flush=True)
        write_csv(args.out / "grades.csv", grades)
    print(f"Wrote {args.out / 'grades.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
