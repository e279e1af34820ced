"""Started in this folder, plain `pytest` runs everything, as it does in the root."""

import os
from pathlib import Path

import pytest

# Two workers share the cores: a thread that waits for work must not spin meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(ROOT / "tests"), str(ROOT / "chapters")]
