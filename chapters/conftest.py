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
    """A chapter's kernel starts here and inherits the environment.

    Its torch gets this worker's share of the cores. Two kernels with two threads each on
    two cores would wait for each other most of the time.
    """
    paths = [OFFLINE, *filter(None, [os.environ.get("PYTHONPATH")])]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    share = max(1, (os.cpu_count() or 1) // workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
            patch.setenv("OMP_NUM_THREADS", str(share))
        return (yield)
