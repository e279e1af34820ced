"""Say whether this computer is ready for the course: one line per check, with a remedy.

    python tools/doctor.py

Exit status 1 if something must be mended, 0 otherwise ("note" is only good to know).
It needs nothing but Python itself, so that it can also say what is not installed.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALL = "python -m pip install -r requirements.txt"
INSTALL_TESTS = "python -m pip install -r tests/requirements.txt"
Finding = tuple[str, str, str]  # ok | note | MEND, what was found, the remedy or ""


def python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    found = ".".join(map(str, version))
    if (3, 11) <= version <= (3, 13):
        return "ok", f"version {found}", ""
    return "MEND", f"version {found}", "use Python 3.11, 3.12 or 3.13"


def environment() -> Finding:
    if sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ:
        return "ok", f"a virtual environment, {sys.prefix}", ""
    remedy = "make a virtual environment so that other projects keep their packages"
    return "note", f"no virtual environment: {sys.prefix}", remedy


def pinned(requirements: str) -> dict[str, str]:
    """Package -> version, from the text of requirements.txt."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", requirements, re.M))


def listed(file: str) -> dict[str, str]:
    return pinned((ROOT / file).read_text("utf-8"))


def differences(wanted: dict[str, str]) -> tuple[list[str], list[str]]:
    """What of `wanted` is not installed, and what is there in another version."""
    missing, other = [], []
    for name, version in wanted.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found != version:
            other.append(f"{name} {found} (tested with {version})")
    return missing, other


def packages(wanted: dict[str, str] | None = None) -> Finding:
    wanted = wanted or listed("requirements.txt")
    missing, other = differences(wanted)
    if missing:
        return "MEND", f"not installed: {', '.join(missing)}", INSTALL
    if other:
        return "note", "; ".join(other), f"{INSTALL} if something fails"
    return "ok", f"all {len(wanted)} are installed", ""


def for_tests(wanted: dict[str, str] | None = None) -> Finding:
    """What only the tests need, your own package's tests included."""
    wanted = wanted or listed("tests/requirements.txt")
    missing, other = differences(wanted)
    if missing:
        remedy = f"{INSTALL_TESTS} before you run tests or check code of your own"
        return "note", f"not installed: {', '.join(missing)}", remedy
    if other:
        return "note", "; ".join(other), f"{INSTALL_TESTS} if something fails"
    return "ok", f"all {len(wanted)} packages are installed", ""


def course() -> Finding:
    """Whether `import solutions` gives this course's folder, from anywhere."""
    script = "import solutions; print(solutions.__file__)"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True
        )
    if done.returncode:
        return "MEND", "`import solutions` fails", INSTALL
    found = Path(done.stdout.strip()).resolve().parent
    if found != ROOT / "solutions":
        return "MEND", f"`import solutions` is {found}", "python -m pip install -e ."
    return "ok", f"`import solutions` is {found}", ""


def kernel() -> Finding:
    """Whether Jupyter's kernel `python3` runs this Python."""
    remedy = "python -m ipykernel install --sys-prefix"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        specs = json.loads(done.stdout)["kernelspecs"]
        program = shutil.which(specs["python3"]["spec"]["argv"][0])
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return "MEND", "no kernel python3", remedy
    if program and Path(program).resolve() == Path(sys.executable).resolve():
        return "ok", f"python3 runs {program}", ""
    return "MEND", f"python3 runs {program}, not {sys.executable}", remedy


def writing(folders: tuple[str, ...] = ("chapters", "data")) -> Finding:
    for name in folders:
        try:
            with tempfile.TemporaryFile(dir=ROOT / name):
                pass
        except OSError as error:
            remedy = "copy the course to a folder of your own"
            return "MEND", f"{name}/ cannot be written to: {error.strerror}", remedy
    return "ok", f"{', '.join(f'{name}/' for name in folders)} can be written to", ""


def disk(least: float = 1.0) -> Finding:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free >= least:
        return "ok", f"{free:.1f} GB free", ""
    return "MEND", f"{free:.1f} GB free", f"the course needs about {least:.0f} GB"


def threads() -> Finding:
    try:
        import torch
    except ImportError:
        return "MEND", "torch cannot be imported", INSTALL
    used, cores = torch.get_num_threads(), os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked and used < cores // 2:
        remedy = "unset OMP_NUM_THREADS unless you want it so"
        return "note", f"torch uses {used} of {cores} (OMP_NUM_THREADS={asked})", remedy
    return "ok", f"torch uses {used}; the computer has {cores}", ""


def accelerator() -> Finding:
    try:
        import torch
    except ImportError:
        return "MEND", "torch cannot be imported", INSTALL
    if torch.cuda.is_available():
        return "ok", torch.cuda.get_device_name(0), ""
    if shutil.which("nvidia-smi"):
        remedy = f"torch {torch.__version__} cannot use it: take a build for CUDA (README)"
        return "note", "there is an NVIDIA card", remedy
    if torch.backends.mps.is_available():
        return "ok", "Apple's GPU; tools/pretrain.py uses it with --device mps", ""
    return "ok", "none; the course needs none", ""


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python, "environment": environment, "packages": packages,
    "tests": for_tests, "course": course, "kernel": kernel, "writing": writing,
    "disk": disk, "threads": threads, "GPU": accelerator,
}  # fmt: skip


def report(checks: dict[str, Callable[[], Finding]]) -> Iterator[tuple[str, str]]:
    """(ok | note | MEND, the line to print) for each check."""
    for name, check in checks.items():
        state, found, remedy = check()
        yield state, f"{state:4}  {name}: {found}" + (f"; {remedy}" if remedy else "")


def main() -> int:
    states = []
    for state, line in report(CHECKS):
        print(line, flush=True)
        states.append(state)
    if "MEND" in states:
        return 1
    print("Ready: jupyter lab chapters/01_text_data.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
