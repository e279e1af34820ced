"""What the tools that fetch share: downloads by pooch, and the hub's commits."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pooch

RETRIES = 2  # of a download that fails


class Failure(ValueError):
    """What prevents the result, in one sentence."""


def brief(error: Exception) -> str:
    """The first sentence of an error's message, or its type where it has none."""
    first = re.split(r"\n|\. ", str(error).strip())[0]
    return first.rstrip(".:") or type(error).__name__


def by_pip(requirement: str, path: str, _) -> None:
    """A downloader for pooch: pip, which knows the user's index and proxy."""
    options = "--no-deps --only-binary=:all: --retries 1 --quiet --dest".split()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", requirement, *options]
        done = subprocess.run([*command, folder], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().split("\n")[-1]
            text = f"pip cannot fetch {requirement} (is there a network?): {reason}"
            raise OSError(text)
        shutil.move(next(Path(folder).iterdir()), path)


def download(url: str, path: Path, sha256: str | None, downloader=None) -> Path:
    """The file of `url`, which appears only when complete and right; a right one is not
    fetched again. Without `sha256` nothing would prove one right: each run fetches."""
    if sha256 is None:
        path.unlink(missing_ok=True)
    known = {path.name: sha256 and f"sha256:{sha256}"}
    http = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 16, timeout=30)
    pooch.get_logger().setLevel("ERROR")
    store = pooch.create(path.parent, "", registry=known, urls={path.name: url},
                         retry_if_failed=0 if downloader else RETRIES)  # fmt: skip
    try:
        return Path(store.fetch(path.name, downloader=downloader or http))
    except (ValueError, OSError) as error:
        raise Failure(f"{url} cannot be fetched: {brief(error)}") from None


def resolve(dataset: str, revision: str) -> str:
    """The commit that a branch, tag or commit of a hub data set stands for now."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(dataset, revision=revision, timeout=30).sha
    except Exception as error:  # the client passes on errors of many libraries
        raise Failure(f"the hub cannot give {dataset}: {brief(error)}") from None
