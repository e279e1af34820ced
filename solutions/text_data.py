"""Text data: from a pile of text to batches of token ids.

Five jobs, in this order: read and clean; split; count; find duplicates; serve batches
and token files. Built in chapters/01_text_data.ipynb.
"""

import itertools
import operator
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CharTokenizer", "Tokens", "bigram_probabilities", "clean_text", "deduplicate",
    "get_batch", "jaccard", "load_text", "minhash", "read_tokens", "rows_per_band",
    "shingles", "split_documents", "train_val_split", "unigram_probabilities",
    "windows", "write_tokens",
]  # fmt: skip

Tokens = Sequence[int] | np.ndarray  # a row of ids: a list, an array, a token file


def _require_text(name: str, text: str) -> None:
    """TypeError unless `text` is a str, ValueError if it is empty; both say `name`."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}")
    if not text:
        raise ValueError(f"{name}='' is empty; give at least one character")


def _require_at_least(name: str, value: int, least: int) -> None:
    """TypeError unless `value` is an integer, ValueError below `least`; by name."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be an integer")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


def load_text(path: str | os.PathLike[str]) -> str:
    """Read a whole UTF-8 file, strictly: no byte is dropped or replaced.

    Raises ValueError for an empty file, and for bytes that are not UTF-8, naming the
    file and the offset of the first bad byte. Line ends are left as they are.
    """
    data = Path(path).read_bytes()
    if not data:
        raise ValueError(f"path={str(path)!r} is an empty file; give a file with text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ValueError(f"path={str(path)!r} is not UTF-8: {at}; convert it") from None


_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean_text(text: str) -> str:
    """One spelling for what looks alike: line breaks, control characters, NFC.

    Every kind of line break becomes "\\n"; control characters other than tab and
    newline, byte order marks and lone surrogates go; the rest is put into Unicode's
    composed form NFC (Unicode Standard Annex 15). Cleaning twice equals cleaning once.
    TypeError for what is no str, ValueError for an empty one.
    """
    _require_text("text", text)
    text = _CONTROL.sub("", _LINE_BREAKS.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def split_documents(text: str) -> list[str]:
    """The documents of a text, without white space around them.

    Marks <|endoftext|> separate them; blank lines are then part of a document. In a
    text without such a mark, blank lines separate them. TypeError for what is no str,
    ValueError for an empty one.
    """
    _require_text("text", text)
    if "<|endoftext|>" in text:
        parts = text.split("<|endoftext|>")
    else:
        parts = re.split(r"\n[^\S\n]*\n", text)
    return [part.strip() for part in parts if part.strip()]


def _require_not_one_text(documents: Iterable[str]) -> None:
    """TypeError for one text, which would count as documents of one character each."""
    if isinstance(documents, (str, bytes)):
        raise TypeError("documents is one text; give a list of them (split_documents)")


def train_val_split(
    documents: list[str], val_fraction: float, *, generator: torch.Generator
) -> tuple[list[str], list[str]]:
    """Whole documents to one side or the other, drawn by `generator`; order is kept.

    The validation side gets round(val_fraction * n) documents, but at least one, and
    leaves at least one. Deduplicate first: a copy across the split is leakage.
    ValueError for fewer than two documents and a val_fraction outside 0 .. 1, TypeError
    for one text.
    """
    _require_not_one_text(documents)
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must be above 0 and below 1")
    n = len(documents)
    if n < 2:
        raise ValueError(f"documents: {n} cannot be split in two; give at least 2")
    n_val = min(max(round(val_fraction * n), 1), n - 1)
    chosen = set(torch.randperm(n, generator=generator)[:n_val].tolist())
    train = [d for i, d in enumerate(documents) if i not in chosen]
    return train, [documents[i] for i in sorted(chosen)]


class CharTokenizer:
    """One id for each character that occurs in a text, in code point order."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self.vocab_size = len(self.characters)
        self._ids = {c: i for i, c in enumerate(self.characters)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose vocabulary is the set of characters of `text`.

        TypeError for what is no str, ValueError for an empty one.
        """
        _require_text("text", text)
        return cls(text)

    def encode(self, text: str) -> list[int]:
        """The ids of the characters.

        ValueError for one outside the vocabulary: which one, and where.
        """
        try:
            return [self._ids[c] for c in text]
        except KeyError as error:
            c = error.args[0]
            raise ValueError(
                f"text has {c!r} at position {text.index(c)}, which the vocabulary of "
                f"{self.vocab_size} characters lacks; build it from more text"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. ValueError for an id outside 0 .. vocab_size - 1."""
        ids = [operator.index(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"ids has {i}, outside 0..{self.vocab_size - 1}")
        return "".join(self.characters[i] for i in ids)


def _require_ids(tokens: Tokens, vocab_size: int) -> np.ndarray:
    """`tokens` as (n,) int64: at least two ids, all of them below vocab_size.

    ValueError for fewer, for another shape and for ids outside, TypeError for what are
    no integers.
    """
    _require_at_least("vocab_size", vocab_size, 1)
    ids = np.asarray(tokens)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"tokens has shape {ids.shape}; give a row of at least 2 ids")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"tokens holds {ids.dtype}; give integer ids")
    low, high = ids.min(), ids.max()
    if low < 0 or high >= vocab_size:
        raise ValueError(f"tokens spans ids {low}..{high}, outside 0..{vocab_size - 1}")
    return ids.astype(np.int64)


def _smoothed(counts: np.ndarray, k: float) -> Tensor:
    """Counts as probabilities that sum to 1 along the last axis, add-k smoothed.

    ValueError unless k is above 0 and finite.
    """
    if not 0 < k < float("inf"):
        raise ValueError(f"k={k} must be above 0, or what is unseen gets probability 0")
    counts = counts + k
    return torch.from_numpy(counts / counts.sum(axis=-1, keepdims=True))


def unigram_probabilities(tokens: Tokens, vocab_size: int, *, k: float = 1.0) -> Tensor:
    """How often each token occurs, add-k smoothed: (V,) float64, sums to 1.

    ValueError for fewer than two tokens, an id outside 0 .. V - 1 and k of 0 or less,
    TypeError for tokens that are no integers.
    """
    ids = _require_ids(tokens, vocab_size)
    return _smoothed(np.bincount(ids, minlength=vocab_size), k)


def bigram_probabilities(tokens: Tokens, vocab_size: int, *, k: float = 1.0) -> Tensor:
    """How often each token follows each, add-k smoothed: (V, V) float64, rows sum to 1.

    Row a holds P(next | current = a) = (count(a, next) + k) / (count(a) + k V). The
    table takes 8 V**2 bytes, so this is for small vocabularies. Errors: as for
    unigram_probabilities.
    """
    ids = _require_ids(tokens, vocab_size)
    pairs = ids[:-1] * vocab_size + ids[1:]
    counts = np.bincount(pairs, minlength=vocab_size**2)
    return _smoothed(counts.reshape(vocab_size, vocab_size), k)


def shingles(text: str, size: int = 9) -> np.ndarray:
    """The set of all runs of `size` characters, as 64-bit numbers: sorted (n,) uint64.

    Case and the kind and amount of white space do not count. Nine characters is the
    size that Leskovec, Rajaraman and Ullman give for long documents (Mining of Massive
    Datasets, section 3.2). The number is the run read as a polynomial modulo 2**64. A
    text shorter than `size` is filled up with spaces. ValueError for an empty text and
    a size below 1, TypeError for a text that is no str and a size that is no integer.
    """
    _require_text("text", text)
    _require_at_least("size", size, 1)
    text = " ".join(text.lower().split()).ljust(size)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    n = len(codes) - size + 1
    numbers = np.zeros(n, dtype=np.uint64)
    for i in range(size):
        numbers = numbers * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + n]
    return np.unique(numbers)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Shared shingles over all shingles, |A and B| / |A or B|: 0 unlike, 1 the same.

    a, b: sorted arrays without repeats, as `shingles` gives them. ValueError for an
    empty one.
    """
    if not (len(a) and len(b)):
        raise ValueError(f"a, b have {len(a)} and {len(b)} shingles; give at least one")
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def minhash(numbers: np.ndarray, n_hashes: int = 120) -> np.ndarray:
    """Signature (n_hashes,) uint64: P(two sets agree at one position) = Jaccard.

    Each position holds the smallest value of one hash function on the set (Broder
    1997). The functions are fixed: x -> (a x + b) mod 2**64, its upper half.
    numbers: (n,) uint64, as `shingles` gives them. ValueError for none of them, and for
    n_hashes below 1.
    """
    _require_at_least("n_hashes", n_hashes, 1)
    _require_at_least("len(numbers)", len(numbers), 1)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**63, (2, n_hashes, 1), dtype=np.uint64)
    odd = 2 * a + 1
    blocks = np.array_split(numbers, len(numbers) // 4096 + 1)  # bounds the memory
    smallest = [((odd * block + b) >> 32).min(axis=1) for block in blocks]
    return np.min(smallest, axis=0)


def rows_per_band(threshold: float, n_hashes: int = 120) -> int:
    """The most rows in a band with which few pairs at `threshold` are missed: < 0.1%.

    A pair of Jaccard s agrees in all r rows of a band with probability s**r, and in no
    band of n/r with probability (1 - s**r)**(n/r). More rows, fewer pairs to compare.
    ValueError for a threshold outside 0 .. 1, or so low that no rows are enough.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    for rows in range(n_hashes, 0, -1):
        missed = (1 - threshold**rows) ** (n_hashes // rows)
        if n_hashes % rows == 0 and missed < 1e-3:
            return rows
    raise ValueError(f"threshold={threshold} is too low for {n_hashes} hashes")


def deduplicate(documents: Iterable[str], *, threshold: float = 0.8) -> list[str]:
    """The documents without those that repeat, or nearly repeat, an earlier kept one.

    One goes when its shingles' Jaccard with a kept one is >= threshold. Banded MinHash
    finds candidates: two strangers of Jaccard s are compared with probability about
    (120 / rows) s**rows, that is 24 s**5 at threshold 0.8. So time grows with the
    number of documents up to about a million, and with its square far beyond. An exact
    comparison decides, so none below the threshold is dropped. A pair at the threshold
    is missed less than once in 1,000 times (see rows_per_band). ValueError for an empty
    document and for a threshold that rows_per_band refuses, TypeError for one text.
    """
    _require_not_one_text(documents)
    rows = rows_per_band(threshold)
    kept: list[str] = []
    signatures: list[np.ndarray] = []
    buckets: dict[int, list[int]] = {}  # label -> indices into kept
    for document in documents:
        numbers = shingles(document)
        own = minhash(numbers)
        bands = own.reshape(-1, rows).tolist()
        labels = [hash((i, *band)) for i, band in enumerate(bands)]
        met = {j for label in labels for j in buckets.get(label, ())}
        # Equal hashes estimate Jaccard; 0.25 is more than five standard errors.
        near = [j for j in met if (own == signatures[j]).mean() > threshold - 0.25]
        if not any(jaccard(numbers, shingles(kept[j])) >= threshold for j in near):
            for label in labels:
                buckets.setdefault(label, []).append(len(kept))
            kept.append(document)
            signatures.append(own.astype(np.uint32))
    return kept


def _require_window(tokens: Tokens, context_length: int) -> None:
    """ValueError unless `tokens` holds a window of context_length ids and a target."""
    _require_at_least("context_length", context_length, 1)
    if len(tokens) < context_length + 1:
        raise ValueError(
            f"tokens has {len(tokens)} ids, too few: give at least "
            f"{context_length + 1} ids or shorten context_length={context_length}"
        )


def _take(tokens: Tokens, starts: np.ndarray, context_length: int) -> Tensor:
    """The windows that begin at `starts`, (B, T + 1) int64; nothing else is read.

    starts: (B,) integers. TypeError for tokens that are no row of integers.
    """
    if isinstance(tokens, Sequence):  # a list, a range
        picked = np.array([tokens[i : i + context_length + 1] for i in starts.tolist()])
    else:  # an array, a token file
        positions = starts.reshape(-1, 1) + np.arange(context_length + 1)  # (B, T + 1)
        picked = np.asarray(tokens[positions])
    if picked.ndim != 2 or picked.dtype.kind not in "iu":
        raise TypeError(f"tokens must be one row of integers, got {picked.dtype}")
    return torch.from_numpy(picked.astype(np.int64))


def get_batch(
    tokens: Tokens,
    batch_size: int,
    context_length: int,
    *,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> tuple[Tensor, Tensor]:
    """Windows from random positions: inputs x and targets y, (B, T) int64 each.

    y[b, t] is the token that follows x[b, t]. `tokens` is (n,): a list, an array or a
    token file; only the windows drawn are read from it. Of `world` processes that share
    a batch (chapter 6), each draws the same starts and reads every world-th of them,
    beginning with number `rank`: B is then batch_size / world. ValueError for a
    batch_size or context_length below 1 and for fewer than context_length + 1 tokens,
    TypeError for tokens that are no row of integers.
    """
    _require_at_least("batch_size", batch_size, 1)
    _require_window(tokens, context_length)
    n_starts = len(tokens) - context_length
    starts = torch.randint(n_starts, (batch_size,), generator=generator)[rank::world]
    picked = _take(tokens, starts.numpy(), context_length).to(device)  # (B, T + 1)
    return picked[:, :-1], picked[:, 1:]


def windows(tokens: Tokens, context_length: int) -> tuple[Tensor, Tensor]:
    """The whole text in order: x and y, (N, T) int64, where each target counts once.

    The windows lie end to end. The last one is moved back so that it fits; its targets
    that an earlier window already holds are -100, which cross entropy leaves out.
    Errors: as for get_batch.
    """
    _require_window(tokens, context_length)
    n_targets = len(tokens) - 1
    starts = np.arange(0, n_targets, context_length)
    moved_back = starts[-1] + context_length - n_targets
    starts[-1] -= moved_back
    picked = _take(tokens, starts, context_length)  # (N, T + 1)
    x, y = picked[:, :-1], picked[:, 1:].clone()
    y[-1, :moved_back] = -100
    return x, y


_HEADER = 128  # bytes: where the ids of an .npy file begin
_BLOCK = 1 << 20  # ids


def write_tokens(path: str | os.PathLike[str], ids: Iterable[int]) -> int:
    """Stream token ids to a NumPy file (.npy) and return how many there were.

    Ids are stored as uint16, or as uint32 when one is above 65,535. Memory use does not
    grow with their number. The file appears under its name only when it is complete.
    ValueError for no ids at all and for ids outside 0 .. 2**32 - 1, TypeError for what
    is no integer.
    """
    part = Path(f"{path}.part")
    try:
        with open(part, "wb+") as file:
            count, dtype = _write_blocks(file, map(operator.index, ids))
            if not count:
                raise ValueError("ids is empty; give at least one token id")
            header = {"descr": dtype, "fortran_order": False, "shape": (count,)}
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it has its name
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write_blocks(file: BinaryIO, ids: Iterator[int]) -> tuple[int, str]:
    """Write the ids behind room for a header; returns their number and their type.

    file: open for reading and writing ("wb+"). ids: an iterator, read block by block.
    """
    count = 0
    dtype = "<u2"
    file.seek(_HEADER)
    while block := list(itertools.islice(ids, _BLOCK)):
        low, high = min(block), max(block)
        if low < 0 or high >= 2**32:
            raise ValueError(f"ids spans {low}..{high}, outside 0..{2**32 - 1}")
        if high >= 2**16 and dtype == "<u2":
            _widen(file, count)
            dtype = "<u4"
        file.write(np.array(block, dtype=dtype).tobytes())
        count += len(block)
    return count, dtype


def _widen(file: BinaryIO, count: int) -> None:
    """Give the first `count` ids four bytes instead of two, from the back.

    file: as in _write_blocks. It is left at the end of the ids.
    """
    for start in reversed(range(0, count, _BLOCK)):
        file.seek(_HEADER + 2 * start)
        narrow = np.frombuffer(file.read(2 * _BLOCK), dtype="<u2")
        file.seek(_HEADER + 4 * start)
        file.write(narrow.astype("<u4").tobytes())
    file.seek(_HEADER + 4 * count)


def read_tokens(path: str | os.PathLike[str]) -> np.ndarray:
    """Open a token file: (n,) uint16 or uint32, memory-mapped: nothing is read yet.

    ValueError for anything else, such as a file that is cut off, an archive (.npz), or
    ids without NumPy's header (nanoGPT's train.bin), which np.fromfile reads.
    """
    remedy = "write it with write_tokens (raw ids: read np.fromfile first)"
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
    except ValueError:
        raise ValueError(f"path={str(path)!r} is not a token file; {remedy}") from None
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        held = f"{tokens.dtype} of shape {tokens.shape}"
        raise ValueError(f"path={str(path)!r} holds {held}, not a row of ids; {remedy}")
    return tokens
