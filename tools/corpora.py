"""Corpora of any size and kind, cut into parts: what tools/prepare.py reads.

A corpus is files, folders of files, or a data set of the Hugging Face hub. The readers
are datatrove's, with two exceptions. Of text and of JSON lines datatrove gives a whole
file to one task, and passes over what it cannot read. Here a large file is cut by
position into parts for many tasks, and damage ends the run with a sentence.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import (
    HuggingFaceDatasetReader,
    ParquetReader,
    WarcReader,
)

END = "<|endoftext|>"
MARK = END.encode()
KINDS = (".txt", ".jsonl", ".parquet", ".warc", ".warc.gz")
HUB = "hub:"
MOST_PARTS = 500  # every one has a file open while duplicates are sought


class Part(NamedTuple):
    """What one task reads: the bytes start .. end - 1 of a file that can be cut, all of
    another file, or piece number `start` of the `end` pieces of a hub data set."""

    source: str
    start: int = 0
    end: int = 0
    marked: bool = False  # a text with END marks


def files_of(names: list[str]) -> list[Path]:
    """The files that are named, and those of a known kind in the folders named."""
    files = []
    for path in map(Path, names):
        inside = sorted(p for p in path.rglob("*") if p.name.endswith(KINDS))
        files += inside if path.is_dir() else [path]
    for path in files:
        if not path.name.endswith(KINDS):
            raise ValueError(f"corpus {path} is none of {', '.join(KINDS)}")
        if not path.stat().st_size:
            raise ValueError(f"corpus {path} is empty")
    if not files:
        raise ValueError(f"corpus {names[0]} holds no file of {', '.join(KINDS)}")
    return [path.resolve() for path in files]


def parts_of(names: list[str], part_bytes: int) -> list[Part]:
    """The corpus in parts, which depend on it and on `part_bytes` alone."""
    if names[0].startswith(HUB):
        return hub_parts(names)
    files = files_of(names)
    total = sum(path.stat().st_size for path in files)
    step, parts = max(part_bytes, total // MOST_PARTS + 1), []
    for path in files:
        if path.suffix in (".txt", ".jsonl"):
            size = path.stat().st_size
            marked = path.suffix == ".txt" and has_marks(path)
            cuts = range(0, size, step)
            parts += [Part(str(path), i, min(i + step, size), marked) for i in cuts]
        else:
            parts.append(Part(str(path)))
    return parts


def read(parts: list[Part], _, rank: int, world_size: int) -> Iterator[Document]:
    """datatrove's first step: the documents of part number `rank`."""
    part = parts[rank]
    path = Path(part.source)
    if part.source.startswith(HUB):
        yield from hub_documents(part)
    elif path.suffix == ".txt":
        yield from map(document, text_documents(path, *part[1:]))
    elif path.suffix == ".jsonl":
        yield from map(document, json_documents(path, part.start, part.end))
    else:
        try:
            yield from file_documents(path)
        except Exception as error:  # of many libraries
            raise ValueError(f"{path} cannot be read: {error}") from None


def document(text: str) -> Document:
    return Document(text, id="")


# ------------------------------------------------------------- what datatrove reads


def file_documents(path: Path) -> Iterator[Document]:
    """The rows of a parquet file, or the text of a WARC file's web pages.

    Each page is extracted alone, so that its text does not depend on other pages.
    """
    folder = str(path.parent)
    if path.suffix == ".parquet":
        yield from ParquetReader(folder, adapter=strict).read_files_shard([path.name])
    else:
        pages = WarcReader(folder).read_files_shard([path.name])
        yield from Trafilatura(timeout=60, deduplicate=False)(pages)


def strict(reader, row: dict, path: str, number: int | str) -> dict:
    """A row as datatrove wants it; a row without text ends the run."""
    text = row.get("text")
    if not isinstance(text, str):
        raise ValueError(f'row {number}: "text" is {text!r}')
    return {"text": text, "id": ""}


def hub_source(name: str) -> tuple[str, dict]:
    """Data set and options of hub:OWNER/NAME[:CONFIGURATION]@COMMIT."""
    name, _, commit = name.removeprefix(HUB).partition("@")
    dataset, _, config = name.partition(":")
    return dataset, {"name": config or None, "revision": commit, "split": "train"}


def hub_parts(names: list[str]) -> list[Part]:
    """The files of the data set's training split."""
    import datasets

    if len(names) > 1:
        raise ValueError(f"corpus {names[0]} must be the only one")
    dataset, options = hub_source(names[0])
    n = datasets.load_dataset(dataset, streaming=True, **options).num_shards
    return [Part(names[0], i, n) for i in range(n)]


def hub_documents(part: Part) -> Iterator[Document]:
    dataset, options = hub_source(part.source)
    reader = HuggingFaceDatasetReader(dataset, options, streaming=True, adapter=strict)
    yield from reader.run(rank=part.start, world_size=part.end)


# -------------------------------------------------------- text and JSON, by position


def lines_between(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """Position and bytes of the lines that begin at `start` or later."""
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        elif file.read(3) != codecs.BOM_UTF8:  # Windows programs write it
            file.seek(0)
        position = file.tell()
        for line in file:
            yield position, line
            position += len(line)


def has_marks(path: Path) -> bool:
    """Whether MARK is in the file; read in blocks, up to the first."""
    tail = b""
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            if MARK in tail + block:
                return True
            tail = (tail + block)[1 - len(MARK) :]
    return False


def decoded(path: Path, position: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = position + error.start
        raise ValueError(f"{path} is not UTF-8 at byte {at}") from None


def json_documents(path: Path, start: int, end: int) -> Iterator[str]:
    """The documents whose line begins in start .. end - 1."""
    for position, line in lines_between(path, start):
        if position >= end:
            return
        line = line.removeprefix(codecs.BOM_UTF8)  # where files were put together
        if not line.strip():
            continue
        try:
            text = json.loads(decoded(path, position, line))["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ValueError(f'{path}: no JSON with a "text" at byte {position}')
        yield from text.split(END)


def text_documents(path: Path, start: int, end: int, marked: bool) -> Iterator[str]:
    """The documents from the first separator after `start` to that after `end`.

    Separators are the marks if the file has any, else blank lines.
    """
    document, first, inside = [], 0, start == 0
    for position, line in lines_between(path, start):
        *before, rest = line.split(MARK) if marked else cut_if_blank(line)
        at = position
        for piece in before:  # each is followed by a separator
            first = first if document else at
            if inside:
                yield decoded(path, first, b"".join([*document, piece])).strip()
            document = []
            if position >= end:
                return
            inside, at = True, at + len(piece) + len(MARK)
        first = first if document else at
        if inside and rest:
            document.append(rest)
    if document:
        yield decoded(path, first, b"".join(document)).strip()


def cut_if_blank(line: bytes) -> list[bytes]:
    """What lies before and after the separator, in a file without marks."""
    return [line] if line.strip() else [b"", b""]
