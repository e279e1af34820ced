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
import torch.nn.functional as F
from torch import Tensor, nn


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


def rotary(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn feature i together with feature i + d / 2, by the position times a speed.

    x: (..., T, d), positions: (T,) -> (..., T, d). Pair i has the speed
    base ** (-2 i / d), in radians per position.
    """
    d = x.shape[-1]
    speeds = base ** (-torch.arange(0, d, 2) / d)  # (d/2,)
    angles = positions[:, None] * speeds  # (T, d/2)
    angles = angles.repeat_interleave(2, dim=-1)  # (T, d), one for each feature
    first, second = x.chunk(2, dim=-1)  # (..., T, d/2) each
    partners = torch.cat([-second, first], dim=-1)  # (..., T, d)
    return x * angles.cos() + partners * angles.sin()


# Chapter 4


def attend_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention for texts of equal length: (..., T, d) each -> (..., T, d)."""
    T, d = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(d)  # (..., T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = scores.masked_fill(future, -torch.inf)
    weights = torch.softmax(scores, dim=1)
    return weights @ v  # (..., T, d)


def attend_last(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, in which the queries are those of the last T_q positions.

    q: (..., T_q, d), k, v: (..., T_k, d) -> (..., T_q, d).
    """
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    query_at = torch.arange(n_keys - n_queries + 1, n_keys + 1)  # (T_q,)
    key_at = torch.arange(n_keys)  # (T_k,)
    future = key_at > query_at[:, None]  # (T_q, T_k)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(future, -torch.inf)
    return torch.softmax(scores, dim=-1) @ v


def attend_in_heads(x: Tensor, qkv: nn.Linear, out: nn.Linear, n_heads: int) -> Tensor:
    """Causal self-attention with several heads: (B, T, D) -> (B, T, D).

    qkv makes the queries, keys, and values of all heads, and out mixes the results.
    """
    B, T, D = x.shape
    heads = qkv(x).view(B, T, 3 * n_heads, D // n_heads).transpose(1, 2)
    q, k, v = heads.chunk(3, dim=1)  # (B, H, T, d) each
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(D // n_heads)  # (B, H, T, T)
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    y = weights @ v  # (B, H, T, d)
    y = y.contiguous().view(B, T, D)
    return out(y)


# Chapter 5


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give `model` a copy of each number in `weights`, and leave all else as it is.

    weights: the `state_dict()` of a model of the same sizes; ValueError for another.
    """
    own = model.state_dict()
    if own.keys() != weights.keys():
        names = sorted(own.keys() ^ weights.keys())
        raise ValueError(f"weights is of another model; names that differ: {names}")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise ValueError(f"weights has {name} of shape {tuple(value.shape)}")
        path, _, last = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, last, nn.Parameter(value.detach().clone()))


# Chapter 6


def window_loss(model: nn.Module, windows: Tensor, pad: int = -1) -> Tensor:
    """Mean loss, in nats, of predicting each token from those before it: a scalar.

    windows: (B, T + 1) ids. Short texts are filled up with `pad` at their end, which
    is no token to predict.
    """
    inputs = windows[:, :-1]  # (B, T)
    targets = inputs.clone()  # (B, T)
    targets[targets == pad] = -100  # cross_entropy leaves these out
    logits = model(inputs.clamp(min=0))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def held_out_loss(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 8) -> float:
    """Mean loss, in nats per token, on (N, T) inputs and targets, without dropout.

    The model is left as it was found, in training mode or not.
    """
    before, total = model.training, 0.0
    model.training = False
    with torch.no_grad():
        for xb, yb in zip(x.split(batch_size), y.split(batch_size), strict=True):
            logits = model(xb).flatten(0, 1)  # (B T, V)
            total += F.cross_entropy(logits, yb.flatten(), reduction="sum").item()
    model.train(before)
    return total / y.numel()


def train_in_pieces(
    model: nn.Module, optimizer, pieces: list[tuple[Tensor, Tensor]], n: int
) -> list[float]:  # fmt: skip
    """One step for every n pieces, as if the n were one batch; returns the losses.

    pieces: inputs and targets of equal size, (B, T) each. A loss is in nats per token,
    and there is one for each step.
    """
    losses = [0.0] * (len(pieces) // n)
    for i, (x, y) in enumerate(pieces):
        if i % n == n - 1:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / n
        loss.backward()
        losses[i // n] += loss.item()
        if (i + 1) % n == 0:
            optimizer.step()
    return losses


def train_part(
    model: nn.Module, optimizer, tokens: Tensor, steps: int, *, done: int = 0,
    seed: int = 0, max_lr: float = 4e-3,
) -> list[float]:  # fmt: skip
    """Do `steps` more steps of a run, after `done` others; returns their losses.

    Weights and optimizer come as they were left. The batch of a step depends on the
    seed and on the step, so that a run in parts equals one that was not interrupted.
    """
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = max_lr * min(1.0, (done + step + 1) / 20)  # warm-up
        draws = torch.Generator().manual_seed(1_000_003 * seed + step)
        starts = torch.randint(len(tokens) - 32, (8, 1), generator=draws)
        batch = tokens[starts + torch.arange(33)]  # (B, T + 1)
        logits = model(batch[:, :-1])  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


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
