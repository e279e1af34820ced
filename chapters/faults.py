"""Broken code for the exercises "Find the fault": each function has one faulty line.

A chapter shows the source, runs it, and shows what goes wrong. The reader names the
line and what should stand there, and `mended` makes the function that would then run.
"""

import inspect
import math
import textwrap
from collections.abc import Callable

import torch
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


# Chapter 2


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


# Chapter 6


# Chapter 7
