"""Fetch someone else's model into a folder from which this course's GPT speaks.

    python tools/fetch_model.py gpt2
    python tools/fetch_model.py smollm2-135m
    python tools/fetch_model.py OWNER/NAME [--revision REVISION]

It fetches any open model of the Hugging Face hub that has GPT-2's, Llama's or Qwen3's
architecture and safetensors. Before it fetches weights, it makes sure that
solutions/pretrained.py can read the model's config.json. It checks sizes and hashes.
The folder is data/models/NAME, or NAME@REVISION, and appears only when it is complete.
An interrupted download stays in NAME.part, and the same command resumes it there. If
something prevents the result, one sentence says what, and the exit status is 2.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import solutions  # noqa: F401  before torch, so that its idle threads sleep

from downloads import Failure, brief
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
HUB = "https://huggingface.co"
MODELS = {  # name: (model of the hub, commit)
    "gpt2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "smollm2-135m": (
        "HuggingFaceTB/SmolLM2-135M",
        "93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
    ),
}
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX, RECORD = f"{WEIGHTS}.index.json", "source.json"
BESIDE = {  # also fetched, if the model has them
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt", "generation_config.json", "README.md", "LICENSE",
}  # fmt: skip
ATTEMPTS, PAUSE = 3, 1.0  # at one download; seconds between them


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, sha256: str, origin: str) -> None:
    """Remove `path`, which came from `origin`, and fail, if it has another SHA-256."""
    if (found := digest(path)) != sha256:
        path.unlink()
        raise Failure(f"{origin} gave a file of SHA-256 {found}, not {sha256}: removed")


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Write what `url` gives to `path`, which appears only when complete and right.

    With `sha256` a right file is not fetched again, and the part that an earlier run
    left is continued (RFC 9110, section 14: range requests), which pooch cannot do, and
    weights are many. Without it nothing would prove that old and new bytes belong
    together, so each run starts anew.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if sha256 is None:
        part.unlink(missing_ok=True)
    elif path.exists() and digest(path) == sha256:
        return
    for attempt in range(1, ATTEMPTS + 1):
        try:
            continue_download(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            code = error.code if isinstance(error, HTTPError) else 500
            if code == 416:  # no such range: the part is no beginning of this file
                part.unlink(missing_ok=True)
            if attempt == ATTEMPTS or (code < 500 and code != 416):
                raise Failure(f"{url} cannot be fetched: {brief(error)}") from None
            time.sleep(PAUSE)
    if sha256 is not None:
        check_digest(part, sha256, url)
    os.replace(part, path)


def continue_download(url: str, part: Path) -> None:
    """Append to `part` the bytes of `url` that it lacks; OSError if they end early."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=30) as response:
        if response.status != 206:  # not the rest, but all of it
            have = 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        bar = tqdm(initial=have, total=total, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if have else "wb") as file, bar:
            while chunk := response.read(1 << 16):
                have += file.write(chunk)
                bar.update(len(chunk))
    if total not in (None, have):
        raise OSError(f"the connection ended after {have} of {total} bytes")


class Remote:
    """A model of the hub at one commit: its files, and their sizes and hashes."""

    def __init__(self, model: str, revision: str | None, endpoint: str) -> None:
        self.model, self.endpoint = model, endpoint
        info = ask(model, revision, endpoint)
        self.commit = info.sha
        self.files = {file.rfilename: file for file in info.siblings}

    def fetch(self, name: str, folder: Path) -> Path:
        """Fetch and check one file; a correct one in `folder` is not fetched again."""
        if name not in self.files:
            raise Failure(f"{self.model} lacks {name}: choose a model that has it")
        file, path = self.files[name], folder / name
        url = f"{self.endpoint}/{self.model}/resolve/{self.commit}/{name}"
        if file.lfs is not None:  # a large file, listed with its SHA-256
            download(url, path, file.lfs.sha256)
        elif not is_listed(path, file):
            download(url, path)
            if not is_listed(path, file):
                path.unlink()
                raise Failure(f"{url} gave another file than the hub lists: removed")
        return path

    def size(self, names: set[str]) -> int:
        """Bytes of these files."""
        return sum(self.files[name].size or 0 for name in names if name in self.files)


def ask(model: str, revision: str | None, endpoint: str):
    """What the hub knows about an open model, with sizes and hashes of its files."""
    from huggingface_hub import HfApi, errors

    try:
        api = HfApi(endpoint=endpoint, token=False)
        options = {"revision": revision, "files_metadata": True, "timeout": 30}
        info = api.model_info(model, **options)
    except errors.RevisionNotFoundError:
        raise Failure(f"{model} has no revision {revision!r}: leave it out") from None
    except errors.RepositoryNotFoundError:
        place = f"{endpoint} has no open model {model}: check the spelling"
        raise Failure(place) from None
    except Exception as error:  # the client passes on the errors of many libraries
        raise Failure(
            f"{endpoint} cannot be asked for {model} ({brief(error)}): try again with "
            "a network, name a mirror with --endpoint, or copy a folder of the model "
            "from elsewhere and give it to tools/generate.py --model"
        ) from None
    if info.gated:
        raise Failure(
            f"{model} is given only to those who sign in at {HUB}/{model}: fetch it "
            "with the command `hf download`, this tool fetches open models"
        )
    return info


def is_listed(path: Path, file) -> bool:
    """Whether `path` holds the small file that the hub lists, by its size and by the
    hash that git gives its content."""
    if not path.exists():
        return False
    data = path.read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return file.size in (None, len(data)) and file.blob_id in (None, found)


def check_config(path: Path, model: str) -> None:
    """Fail unless solutions/pretrained.py can represent all that `path` says."""
    from solutions.pretrained import read_config

    try:
        read_config(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise Failure(f"{model} is no model for this course: {error}") from None


def weight_names(remote: Remote, folder: Path) -> set[str]:
    """The files of weights, which are one or those that an index names."""
    if WEIGHTS in remote.files:
        return {WEIGHTS}
    if INDEX not in remote.files:
        raise Failure(
            f"{remote.model} has no {WEIGHTS}, and other formats can run code: choose "
            "a model that has it"
        )
    index = json.loads(remote.fetch(INDEX, folder).read_text("utf-8"))
    names = set(index["weight_map"].values())
    if not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise Failure(f"{remote.model}: {INDEX} names files that are no safetensors")
    return names


def require_room(needed: int, folder: Path) -> None:
    """Fail before the start if the disk cannot hold `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Failure(
            f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in "
            f"{folder}: make room, or name another disk with --out"
        )


def fetch(remote: Remote, final: Path) -> None:
    """Make the folder `final`; it is called NAME.part until it is complete."""
    part = final.with_name(f"{final.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    check_config(remote.fetch(CONFIG, part), remote.model)
    weights = weight_names(remote, part)
    there = sum(file.stat().st_size for file in part.iterdir())
    require_room(remote.size(weights) - there, part)
    for name in sorted(BESIDE & set(remote.files)):
        remote.fetch(name, part)
    for name in sorted(weights):
        remote.fetch(name, part)
    record = {"source": f"{HUB}/{remote.model}", "revision": remote.commit}
    kept = {CONFIG, INDEX, *BESIDE, *weights}
    for file in part.iterdir():
        if file.name not in kept:  # of another revision, begun earlier
            file.unlink()
    record["files"] = {file.name: digest(file) for file in sorted(part.iterdir())}
    (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    os.replace(part, final)


def is_there(final: Path, model: str) -> bool:
    """Whether the folder is complete and holds this model; Failure if it is another."""
    if not final.exists():
        return False
    try:
        record = json.loads((final / RECORD).read_text("utf-8"))
        source, files = record["source"], record["files"]
    except (OSError, ValueError, LookupError, TypeError):
        source, files = None, {}
    if source != f"{HUB}/{model}":
        raise Failure(f"{final} is there and not {model}: name another --out")
    for name, sha256 in files.items():
        if not (final / name).exists() or digest(final / name) != sha256:
            raise Failure(f"{final / name} is damaged: remove {final} and repeat this")
    return True


def report(final: Path) -> None:
    """Say how to let the model speak, or why its tokenizer cannot be read."""
    from solutions.bpe import BPETokenizer

    path = final / TOKENIZER
    try:
        BPETokenizer.load(path)
    except (ValueError, OSError) as error:
        reason = f"BPETokenizer cannot read {shown(path)}: {brief(error)[:200]}"
        print("the weights load, with solutions/pretrained.py's from_pretrained;")
        print(f"tools/generate.py cannot speak from them, as chapter 2's {reason}")
        return
    command = 'python tools/generate.py "The old house" --model'
    print(f"let it speak: {command} {shown(final)}")


def shown(path: Path) -> Path:
    """The path as it is typed from the folder of the course, if it is inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ", ".join(MODELS)
    parser.add_argument("model", help=f"{names}, or OWNER/NAME of the hub")
    parser.add_argument("--revision", help="branch, tag or commit; has its own folder")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "models")
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    parser.add_argument("--endpoint", default=endpoint, help="a mirror of the hub")
    args = parser.parse_args(argv)
    if args.model not in MODELS and not re.fullmatch(
        r"\w[\w.-]*/\w[\w.-]*", args.model
    ):
        parser.error(f"{args.model!r} is none of {names}, and no OWNER/NAME of the hub")
    if args.revision and not re.fullmatch(r"\w[\w./-]*", args.revision):
        parser.error(f"--revision {args.revision!r} is no branch, tag or commit")
    if not re.match("https?://", args.endpoint):
        parser.error(
            f"--endpoint {args.endpoint!r} must begin with https:// or http://"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    model, revision = MODELS.get(args.model, (args.model, None))
    name = args.model.split("/")[-1]
    if args.revision:
        revision = args.revision
        name += "@" + revision.replace("/", "-")
    final = (args.out / name).resolve()
    try:
        if not is_there(final, model):
            remote = Remote(model, revision, args.endpoint.rstrip("/"))
            print(f"{model} at {remote.commit}")
            fetch(remote, final)
        size = sum(file.stat().st_size for file in final.iterdir())
        print(f"{shown(final)}: {size / 1e6:,.1f} MB, all as the hub lists them")
        report(final)
    except (Failure, OSError) as error:
        print(f"fetch_model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fetch_model: stopped; repeat the command to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
