"""Under pytest, chapters run without a network; plain `pytest` runs everything."""

import os
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import pytest

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = str(ROOT / "tests" / "offline")  # its sitecustomize.py says what is refused


def pytest_configure(config):
    """Plain `pytest` runs the whole course here too, as it does in the root."""
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(ROOT / "tests"), str(ROOT / "chapters")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A chapter's kernel starts here and inherits the environment."""
    before = os.environ.get("PYTHONPATH")
    paths = [OFFLINE] + ([before] if before else [])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        return (yield)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
