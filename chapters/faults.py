"""Broken code for the exercises "Find the fault": each function has one faulty line.

A chapter shows the source, runs it, and shows what goes wrong. The reader names the
line and what should stand there, and `mended` makes the function that would then run.
"""

import inspect
import math
import re
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator

import torch


def mended(function: Callable, old: str, new: str) -> Callable:
    """`function` with `new` for its line `old`; spaces around the lines do not count.

    AssertionError if `old` is not exactly one line of it, or `new` is no Python.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    found = [i for i, line in enumerate(lines) if line.strip() == old.strip()]
    assert found, f"{old.strip()!r} is not a line of {function.__name__}; copy it whole"
    assert len(found) == 1, f"{old.strip()!r} stands in {function.__name__} twice"
    first = lines[found[0]]
    indent = first[: len(first) - len(first.lstrip())]
    lines[found[0]] = textwrap.indent(textwrap.dedent(new.strip("\n")).strip(), indent)
    namespace = dict(function.__globals__)
    try:
        exec("\n".join(lines), namespace)
    except SyntaxError as error:
        raise AssertionError(f"{new.strip()!r} is not Python: {error.msg}") from None
    return namespace[function.__name__]


# Chapter 1


def split_into_pieces(
    documents: list[str], val_fraction: float, size: int = 200, step: int = 100
) -> tuple[list[str], list[str]]:
    """(training, validation): pieces of `size` characters, one every `step`.

    About `val_fraction` of the documents are for validation. The side of a document
    depends on its hash, not on chance, so it stays the same when others are added.
    """
    train, val = [], []
    for document in documents:
        for start in range(0, len(document), step):
            piece = document[start : start + size]
            number = zlib.crc32(piece.encode("utf-8"))  # 0 .. 2**32 - 1
            side = val if number < val_fraction * 2**32 else train
            side.append(piece)
    return train, val


# Chapter 2


def encode_chunks(tokenizer, chunks: Iterable[str]) -> Iterator[int]:
    """Yields the ids of the joined `chunks`, which may end anywhere, even in a word.

    All that has been read is encoded up to the last single space, and the rest waits.
    tokenizer: a BPETokenizer with GPT-2's pattern.
    """
    kept = ""
    for chunk in chunks:
        kept += chunk
        spaces = [found.start() for found in re.finditer(r"(?<=\S) (?=\S)", kept)]
        if spaces:
            end = spaces[-1] + 1
            yield from tokenizer.encode_ordinary(kept[:end])
            kept = kept[end:]
    yield from tokenizer.encode_ordinary(kept)


# Chapter 3


# Chapter 4


# Chapter 5


# Chapter 6


# Chapter 7


def continue_greedily(model, ids: list[int], n: int, cache) -> list[int]:
    """`ids` and the n likeliest tokens after them, one by one; each is read only once.

    model(ids (1, T), cache) -> logits (1, T, V). cache: a KVCache of chapter 7, still
    empty, with room for len(ids) + n positions.
    """
    text, new = list(ids), list(ids)
    while len(text) < len(ids) + n:
        logits = model(torch.tensor([new]), cache)[0, -1]  # (V,)
        text.append(logits.argmax().item())
        new = text[cache.length - 1 :]  # what the cache does not hold yet
    return text


def text_score(model, tokenizer, text: str) -> float:
    """Bits per byte of one text, of which each token is predicted from those before it.

    model(ids (1, T)) -> logits (1, T, V). The first token is predicted from the
    tokenizer's <|endoftext|>, which is not part of the text.
    """
    ids = [tokenizer.special_tokens["<|endoftext|>"], *tokenizer.encode(text)]
    log_p = model(torch.tensor([ids]))[0].log_softmax(-1)  # (T, V)
    nats = -log_p[range(len(ids) - 1), ids[1:]].sum().item()
    sizes = [len(tokenizer.decode([token]).encode("utf-8")) for token in ids[1:]]
    return nats / math.log(2) / sum(sizes)
