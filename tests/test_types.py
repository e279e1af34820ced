"""The annotations in solutions/ are true, as mypy sees it (settings: pyproject.toml)."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: see tests/requirements.txt")

ROOT = Path(__file__).resolve().parent.parent


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    """Its cache in .mypy_cache makes all but the first run quick."""
    command = [sys.executable, "-m", "mypy", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_annotations_of_the_library_are_true():
    result = mypy()
    assert result.returncode == 0, result.stdout + result.stderr


WRONG = [  # what text_data says, a wrong annotation for it, and mypy's answer
    ("b: np.ndarray) -> float:", "b: np.ndarray) -> str:", "return value type"),
    ("documents: list[str], val", "documents: int, val", '"int"'),
    ("size: int = 9) -> np", "size=9) -> np", "missing a type annotation"),
]


def test_a_wrong_annotation_is_noticed(tmp_path):
    source = (ROOT / "solutions" / "text_data.py").read_text("utf-8")
    copies = [tmp_path / f"copy{i}.py" for i in range(len(WRONG))]
    for copy, (right, wrong, _) in zip(copies, WRONG, strict=True):
        assert source.count(right) == 1
        copy.write_text(source.replace(right, wrong), "utf-8")
    said = mypy(*map(str, copies)).stdout.splitlines()
    for copy, (_, _, problem) in zip(copies, WRONG, strict=True):
        assert any(copy.name in line and problem in line for line in said), said


def test_whoever_installs_the_library_gets_its_types():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["solutions"]
    assert (ROOT / "solutions" / "py.typed").read_bytes() == b""
