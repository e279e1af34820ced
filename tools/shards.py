"""Token files larger than memory: several of them read as one long row.

tools/prepare.py writes train.npy, or with --tokens-per-shard train-00000.npy,
train-00001.npy and so on; so for val. Chapter 1's get_batch and windows take what
open_tokens returns, and read from disk only the windows that they need.
"""

import json
import operator
import re
from collections.abc import Sequence
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np

from solutions.text_data import read_tokens


class TokenShards:
    """Token files, one after another, as one row of ids; nothing is read before it is
    asked for, by a slice or by an array of positions of any shape."""

    ndim = 1

    def __init__(self, files: Sequence[np.ndarray]) -> None:
        if not files:
            raise ValueError("files is empty; give at least one token file")
        self.files = list(files)
        self.ends = np.cumsum([len(file) for file in self.files])
        self.dtype = np.result_type(*self.files)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self)))
        positions = np.asarray(index)
        if positions.dtype.kind not in "iu":
            raise TypeError(f"index holds {positions.dtype}; give integers")
        positions = np.where(positions < 0, positions + len(self), positions)
        if positions.size and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"index is outside 0..{len(self) - 1}")
        result = np.empty(positions.shape, dtype=self.dtype)
        owners = np.searchsorted(self.ends, positions, side="right")
        for i in np.unique(owners):
            here = owners == i
            result[here] = self.files[i][positions[here] - self._start(i)]
        return result[()] if result.ndim == 0 else result

    def _start(self, i: int) -> int:
        return int(self.ends[i]) - len(self.files[i])

    def _slice(self, start: int, stop: int, step: int) -> np.ndarray:
        if step != 1:
            return self[np.arange(start, stop, step)]
        parts = [np.empty(0, dtype=self.dtype)]
        for i, file in enumerate(self.files):
            low, high = start - self._start(i), stop - self._start(i)
            if low < len(file) and high > 0:
                parts.append(np.asarray(file[max(low, 0) : max(high, 0)]))
        return np.concatenate(parts).astype(self.dtype, copy=False)


def shard_name(side: str, i: int) -> str:
    """train-00012.npy"""
    return f"{side}-{operator.index(i):05}.npy"


def open_tokens(folder: str | Path, side: str) -> np.ndarray | TokenShards:
    """The tokens of one side, "train" or "val", of a folder of tools/prepare.py.

    ValueError when a shard is missing, or there are fewer or more tokens than its
    prepare.json says; FileNotFoundError for a folder without either kind of file.
    """
    folder = Path(folder)
    whole, pattern = folder / f"{side}.npy", re.compile(rf"{side}-\d{{5}}\.npy")
    names = sorted(p.name for p in folder.iterdir() if pattern.fullmatch(p.name))
    if not names:
        tokens = read_tokens(whole)  # an error names the file
    elif whole.exists():
        raise ValueError(f"{folder} holds both {whole.name} and {names[0]}: remove one")
    else:
        for i, name in enumerate(names):
            if name != shard_name(side, i):
                raise ValueError(f"{folder} lacks {shard_name(side, i)}")
        tokens = TokenShards([read_tokens(folder / name) for name in names])
    _check_number(folder, side, len(tokens))
    return tokens


def _check_number(folder: Path, side: str, n: int) -> None:
    about = folder / "prepare.json"
    if not about.exists():
        return
    stated = json.loads(about.read_text("utf-8")).get("tokens", {}).get(side, n)
    if stated != n:
        raise ValueError(
            f"{folder} holds {n:,} tokens for {side!r}, but its prepare.json says "
            f"{stated:,}: a file is missing or was changed"
        )
