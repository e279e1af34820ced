"""Text data: from a pile of text to batches of token ids.

Reading and cleaning, documents, duplicates, the split, character tokens, n-gram
baselines, batches, token files larger than memory.
Built in chapters/01_text_data.ipynb.
"""

import itertools
import operator
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_text(path: str | os.PathLike) -> str:
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
        raise ValueError(
            f"path={str(path)!r} is not UTF-8: byte 0x{data[error.start]:02x} at "
            f"offset {error.start}; convert the file to UTF-8 first"
        ) from None


def _require_text(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}")
    if not text:
        raise ValueError(f"{name}='' is empty; give at least one character")


_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean_text(text: str) -> str:
    """One spelling for what looks alike: line breaks, control characters, NFC.

    Every kind of line break becomes "\\n"; control characters other than tab and
    newline, byte order marks and lone surrogates go; the rest is put into Unicode's
    composed form NFC (Unicode Standard Annex 15). Cleaning twice equals cleaning once.
    """
    _require_text("text", text)
    text = _CONTROL.sub("", _LINE_BREAKS.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def split_documents(text: str) -> list[str]:
    """The documents of a text, without white space around them.

    Marks <|endoftext|> separate them; blank lines are then part of a document. In a
    text without such a mark, blank lines separate them.
    """
    _require_text("text", text)
    if "<|endoftext|>" in text:
        parts = text.split("<|endoftext|>")
    else:
        parts = re.split(r"\n[^\S\n]*\n", text)
    return [part.strip() for part in parts if part.strip()]


def _require_at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be an integer")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


def shingles(text: str, size: int = 9) -> np.ndarray:
    """The set of all runs of `size` characters, as 64-bit numbers: sorted (n,) uint64.

    Case and the kind and amount of white space do not count. Nine characters is the
    size that Leskovec, Rajaraman and Ullman give for long documents (Mining of Massive
    Datasets, section 3.2). The number is the run read as a polynomial modulo 2**64.
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

    a, b: sorted arrays without repeats, as `shingles` gives them.
    """
    if not (len(a) and len(b)):
        raise ValueError(f"a, b have {len(a)} and {len(b)} shingles; give at least one")
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def minhash(numbers: np.ndarray, n_hashes: int = 120) -> np.ndarray:
    """Signature (n_hashes,) uint64: P(two sets agree at one position) = Jaccard.

    Each position holds the smallest value of one hash function on the set (Broder
    1997). The functions are fixed: x -> (a x + b) mod 2**64, its upper half.
    """
    _require_at_least("n_hashes", n_hashes, 1)
    if not len(numbers):
        raise ValueError("numbers is empty; give at least one shingle")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**63, (2, n_hashes, 1), dtype=np.uint64)
    blocks = np.array_split(numbers, len(numbers) // 4096 + 1)  # bounds the memory
    smallest = [((2 * a + 1) * block + b >> 32).min(axis=1) for block in blocks]
    return np.min(smallest, axis=0)


def rows_per_band(threshold: float, n_hashes: int = 120) -> int:
    """The most rows in a band with which few pairs at `threshold` are missed: < 0.1%.

    A pair of Jaccard s agrees in all r rows of a band with probability s**r, and in no
    band of n/r with probability (1 - s**r)**(n/r). More rows, fewer pairs to compare.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    _require_at_least("n_hashes", n_hashes, 1)
    divisors = [r for r in range(1, n_hashes + 1) if n_hashes % r == 0]
    good = [r for r in divisors if (1 - threshold**r) ** (n_hashes // r) < 1e-3]
    if not good:
        raise ValueError(f"threshold={threshold} is too low for {n_hashes} hashes")
    return max(good)


def _require_not_one_text(documents) -> None:
    if isinstance(documents, (str, bytes)):
        raise TypeError("documents is one text; give a list of them (split_documents)")


def deduplicate(documents: Iterable[str], *, threshold: float = 0.8) -> list[str]:
    """The documents without those that repeat, or nearly repeat, an earlier kept one.

    One goes when its shingles' Jaccard with a kept one is >= threshold. Banded MinHash
    finds candidates: two strangers of Jaccard s are compared with probability about
    (120 / rows) s**rows, that is 24 s**5 at threshold 0.8. So time grows with the
    number of documents up to about a million, and with its square far beyond. An exact
    comparison decides, so none below the threshold is dropped. A pair at the threshold
    is missed less than once in 1,000 times (see rows_per_band).
    """
    _require_not_one_text(documents)
    rows = rows_per_band(threshold)
    kept, hashes, buckets = [], [], {}
    for document in documents:
        numbers = shingles(document)
        own = minhash(numbers)
        labels = [hash((i, *b)) for i, b in enumerate(own.reshape(-1, rows).tolist())]
        met = {j for label in labels for j in buckets.get(label, ())}
        # Equal hashes estimate Jaccard; 0.25 is more than five standard errors.
        near = [j for j in met if (own == hashes[j]).mean() > threshold - 0.25]
        if not any(jaccard(numbers, shingles(kept[j])) >= threshold for j in near):
            for label in labels:
                buckets.setdefault(label, []).append(len(kept))
            kept.append(document)
            hashes.append(own.astype(np.uint32))
    return kept


def train_val_split(
    documents: list[str], val_fraction: float, *, generator: torch.Generator
) -> tuple[list[str], list[str]]:
    """Whole documents to one side or the other, drawn by `generator`; order is kept.

    The validation side gets round(val_fraction * n) documents, but at least one, and
    leaves at least one. Deduplicate first: a copy across the split is leakage.
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
        self._ids = {c: i for i, c in enumerate(self.characters)}

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose vocabulary is the set of characters of `text`."""
        _require_text("text", text)
        return cls(text)

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """ValueError for a character outside the vocabulary: which one, and where."""
        try:
            return [self._ids[c] for c in text]
        except KeyError as error:
            c = error.args[0]
            raise ValueError(
                f"text has {c!r} at position {text.index(c)}, which the vocabulary of "
                f"{self.vocab_size} characters lacks; build it from more text"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """ValueError for an id outside 0 .. vocab_size - 1."""
        ids = [operator.index(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"ids has {i}, outside 0..{self.vocab_size - 1}")
        return "".join(self.characters[i] for i in ids)


def unigram_probabilities(tokens, vocab_size: int, *, k: float = 1.0) -> Tensor:
    """How often each token occurs, add-k smoothed: (V,) float64, sums to 1."""
    ids = _checked_ids(tokens, vocab_size, k)
    counts = np.bincount(ids, minlength=vocab_size) + k
    return torch.from_numpy(counts / counts.sum())


def bigram_probabilities(tokens, vocab_size: int, *, k: float = 1.0) -> Tensor:
    """How often each token follows each, add-k smoothed: (V, V) float64, rows sum to 1.

    Row a holds P(next | current = a) = (count(a, next) + k) / (count(a) + k V). The
    table takes 8 V**2 bytes, so this is for small vocabularies.
    """
    ids = _checked_ids(tokens, vocab_size, k)
    pairs = ids[:-1] * vocab_size + ids[1:]
    counts = np.bincount(pairs, minlength=vocab_size**2).reshape(vocab_size, -1) + k
    return torch.from_numpy(counts / counts.sum(axis=1, keepdims=True))


def _checked_ids(tokens, vocab_size: int, k: float) -> np.ndarray:
    _require_at_least("vocab_size", vocab_size, 1)
    if not 0 < k < float("inf"):
        raise ValueError(f"k={k} must be above 0, or what is unseen gets probability 0")
    ids = np.asarray(tokens)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"tokens has shape {ids.shape}; give a row of at least 2 ids")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"tokens holds {ids.dtype}; give integer ids")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError(
            f"tokens spans ids {ids.min()}..{ids.max()}, outside 0..{vocab_size - 1}"
        )
    return ids.astype(np.int64)


def _require_window(tokens, context_length: int) -> None:
    _require_at_least("context_length", context_length, 1)
    if len(tokens) < context_length + 1:
        raise ValueError(
            f"tokens has {len(tokens)} ids, too few for one window of "
            f"context_length={context_length} and its targets; give at least "
            f"{context_length + 1} ids or shorten the context"
        )


def _take(tokens, starts: np.ndarray, context_length: int) -> Tensor:
    """The windows that begin at `starts`, (B, T + 1) int64; nothing else is read."""
    if isinstance(tokens, Sequence):  # a list, a range
        picked = np.array([tokens[i : i + context_length + 1] for i in starts.tolist()])
    else:  # an array, a token file
        places = starts.reshape(-1, 1) + np.arange(context_length + 1)  # (B, T + 1)
        picked = np.asarray(tokens[places])
    if picked.ndim != 2 or picked.dtype.kind not in "iu":
        shape, kind = picked.shape[2:], picked.dtype
        raise TypeError(f"tokens must be one row of integers, got {kind} {shape or ''}")
    return torch.from_numpy(picked.astype(np.int64))


def get_batch(
    tokens,
    batch_size: int,
    context_length: int,
    *,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> tuple[Tensor, Tensor]:
    """Windows from random places: inputs x and targets y, (B, T) int64 each.

    y[b, t] is the token that follows x[b, t]. `tokens` is (n,): a list, an array or a
    token file; only the windows drawn are read from it. Of `world` processes that share
    a batch (chapter 6), each draws the same places and reads every world-th of them,
    beginning with number `rank`: B is then batch_size / world.
    """
    _require_at_least("batch_size", batch_size, 1)
    _require_window(tokens, context_length)
    n_starts = len(tokens) - context_length
    starts = torch.randint(n_starts, (batch_size,), generator=generator)[rank::world]
    picked = _take(tokens, starts.numpy(), context_length).to(device)  # (B, T + 1)
    return picked[:, :-1], picked[:, 1:]


def windows(tokens, context_length: int) -> tuple[Tensor, Tensor]:
    """The whole text in order: x and y, (N, T) int64, where each target counts once.

    The windows lie end to end. The last one is moved back so that it fits; its targets
    that an earlier window already holds are -100, which cross entropy leaves out.
    """
    _require_window(tokens, context_length)
    n_targets = len(tokens) - 1
    starts = np.arange(0, n_targets, context_length)
    starts[-1] = n_targets - context_length
    picked = _take(tokens, starts, context_length)  # (N, T + 1)
    x, y = picked[:, :-1], picked[:, 1:].clone()
    y[-1, : -n_targets % context_length] = -100  # as many as it was moved back
    return x, y


def write_tokens(path: str | os.PathLike, ids: Iterable[int]) -> int:
    """Stream token ids to a NumPy file (.npy) and return how many there were.

    Ids are stored as uint16, or as uint32 when one is above 65,535. Memory use does not
    grow with their number. The file appears under its name only when it is complete.
    ValueError for no ids at all and for ids outside 0 .. 2**32 - 1.
    """
    raw, part = Path(f"{path}.raw"), Path(f"{path}.part")
    try:
        count, largest = _write_raw(raw, ids)
        if not count:
            raise ValueError("ids is empty; give at least one token id")
        dtype = "<u2" if largest < 2**16 else "<u4"
        wide = np.memmap(raw, dtype="<u4", mode="r")
        stored = np.lib.format.open_memmap(part, "w+", dtype, (count,))
        stored[:] = wide
        stored.flush()
        del wide, stored  # Windows cannot rename or remove a file that is mapped
        os.replace(part, path)
    finally:
        raw.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return count


def _write_raw(path: Path, ids: Iterable[int]) -> tuple[int, int]:
    """All ids as uint32, without a header; their number and the largest."""
    ids, count, largest = map(operator.index, ids), 0, 0
    with open(path, "wb") as file:
        while block := list(itertools.islice(ids, 1 << 20)):
            low, high = min(block), max(block)
            if low < 0 or high >= 2**32:
                bad = low if low < 0 else high
                raise ValueError(f"ids has {bad}, outside 0..{2**32 - 1}")
            file.write(np.array(block, dtype="<u4").tobytes())
            count, largest = count + len(block), max(largest, high)
    return count, largest


def read_tokens(path: str | os.PathLike) -> np.ndarray:
    """Open a token file: (n,) uint16 or uint32, memory-mapped: nothing is read yet.

    ValueError for anything else, such as an archive (.npz) or ids without NumPy's
    header (nanoGPT's train.bin), which np.fromfile reads and write_tokens converts.
    """
    with open(path, "rb") as file:
        start = file.read(len(np.lib.format.MAGIC_PREFIX))
    if start != np.lib.format.MAGIC_PREFIX:
        raise ValueError(
            f"path={str(path)!r} is not a token file (.npy): it begins with {start!r}; "
            "write it with write_tokens (ids in a raw file: read np.fromfile first)"
        )
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(
            f"path={str(path)!r} is not a token file: it is cut off, or holds no "
            "numbers; write it again with write_tokens"
        ) from None
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(
            f"path={str(path)!r} holds {tokens.dtype} of shape {tokens.shape}, not "
            "one row of uint16 or uint32; write it with write_tokens"
        )
    return tokens
