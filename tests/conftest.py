"""Started in this folder, plain `pytest` runs everything, as it does in the root."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(ROOT / "tests"), str(ROOT / "chapters")]
