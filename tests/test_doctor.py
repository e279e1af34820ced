"""The doctor finds what is wrong, and names a remedy."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import doctor  # noqa: E402


def test_one_line_per_check_and_ready_at_the_end():
    done = subprocess.run(
        [sys.executable, "tools/doctor.py"], cwd=ROOT, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    names = [line[6:].split(":")[0] for line in lines if line[:4] in ("ok  ", "note", "MEND")]
    assert names == list(doctor.CHECKS), done.stdout + done.stderr
    assert done.returncode == any(line.startswith("MEND") for line in lines)
    assert lines[-1].startswith("Ready") == (done.returncode == 0)


@pytest.mark.parametrize("version, state", [
    ((3, 10), "MEND"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "MEND"),
])  # fmt: skip
def test_the_version_of_python(version, state):
    assert doctor.python(version)[0] == state


def test_packages_that_are_missing_or_of_another_version():
    wanted = doctor.pinned("-r x.txt\nno-such-package==1.0\nnumpy==0.1\n-e .\n")
    assert wanted == {"no-such-package": "1.0", "numpy": "0.1"}
    state, found, remedy = doctor.packages(wanted)
    assert state == "MEND" and "no-such-package" in found
    assert "numpy" not in found and remedy.endswith(" requirements.txt")
    state, found, _ = doctor.packages({"numpy": "0.1"})
    assert state == "note" and "numpy" in found and "tested with 0.1" in found
    assert len(doctor.listed("requirements.txt")) > 10


def test_packages_for_the_tests_may_be_missing_while_one_only_reads():
    state, found, remedy = doctor.for_tests({"no-such-package": "1.0"})
    assert state == "note" and "no-such-package" in found
    assert "-r tests/requirements.txt" in remedy
    state, found, _ = doctor.for_tests({"pytest": "0.1"})
    assert state == "note" and "tested with 0.1" in found
    tests = doctor.listed("tests/requirements.txt").keys()
    assert {"pytest", "nbval", "hypothesis"} <= tests
    assert not tests & doctor.listed("requirements.txt").keys()


def test_a_folder_that_cannot_be_written_to(monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refused)
    state, found, remedy = doctor.writing()
    assert state == "MEND" and "chapters/" in found and remedy


def test_another_kernel_or_none(monkeypatch):
    spec = '{"kernelspecs": {"python3": {"spec": {"argv": ["%s"]}}}}'
    for printed in (spec % "/usr/bin/env", "{}", "no json"):
        done = subprocess.CompletedProcess([], 0, printed, "")
        monkeypatch.setattr(doctor.subprocess, "run", lambda *a, d=done, **k: d)
        state, _, remedy = doctor.kernel()
        assert state == "MEND" and "ipykernel install" in remedy
    done = subprocess.CompletedProcess([], 0, spec % sys.executable, "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: done)
    assert doctor.kernel()[0] == "ok"


def test_a_course_that_is_not_this_one(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    state, found, remedy = doctor.course()
    assert state == "MEND" and "solutions" in found and "pip install" in remedy


def test_too_little_disk_is_told():
    assert doctor.disk(1e9)[0] == "MEND" and doctor.disk(0)[0] == "ok"


def test_without_torch_the_doctor_still_speaks(monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args):
        if name == "torch":
            raise ImportError
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert doctor.threads()[0] == doctor.accelerator()[0] == "MEND"
