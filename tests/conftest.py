"""Started in this folder, plain `pytest` runs everything, as it does in the root.

`pytest tests --package mine` tests a learner's package instead (package.py).
"""

import os
from pathlib import Path

import solutions  # before torch, so that its idle threads sleep

import package
import pytest

ROOT = Path(__file__).resolve().parent.parent


# What a user may have set for other work; the tests say what they need themselves.
FOREIGN = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "DATASETS_", "PIP_", "TORCH_")


def pytest_configure(config):
    solutions.testing = False  # see tools/learner.py
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(ROOT / "tests"), str(ROOT / "chapters")]


def pytest_addoption(parser):
    package.add_option(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.option.package:
        return package.main(config)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from not_written_is_skipped())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from not_written_is_skipped())


def not_written_is_skipped():
    """In a learner's package, a test that meets a blank function is skipped."""
    if "COURSE_TESTED" not in os.environ:
        return (yield)
    solutions.testing = True
    try:
        return (yield)
    except Exception as error:
        package.skip_if_not_written(error)
        raise
    finally:
        solutions.testing = False
