"""Started in this folder, plain `pytest` runs everything, as it does in the root."""

import os
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import pytest

ROOT = Path(__file__).resolve().parent.parent


# What a user may have set for other work; the tests say what they need themselves.
FOREIGN = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "DATASETS_", "PIP_", "TORCH_")


def pytest_configure(config):
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(ROOT / "tests"), str(ROOT / "chapters")]
