"""The course as git holds it: what was added or committed last, not the files.

A learner's chapters change while they are worked through: Jupyter saves notes of its
own, cells run again, exercises are solved. None of that may fail a test. So the checks
that are meant for whoever changes the course look at what git holds. Where there is no
git these tests are skipped, but not in CI.
"""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def held() -> Path:
    """A folder with chapters/, solutions/ and tools/ as they stand in git's index."""
    folder = tempfile.mkdtemp(prefix="held-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        copy_index(ROOT, Path(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"git cannot say what it holds: {error}", allow_module_level=True)
    return Path(folder)


def copy_index(repository: Path, folder: Path) -> None:
    git = ["git", "-C", str(repository)]
    listing = [*git, "ls-files", "-z", "--", "chapters", "solutions", "tools"]
    names = subprocess.run(listing, capture_output=True, check=True).stdout
    copying = [*git, "checkout-index", "-z", "--stdin", f"--prefix={folder}/"]
    subprocess.run(copying, input=names, capture_output=True, check=True)
