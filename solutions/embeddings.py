"""Embeddings: a vector for every token, and three ways to encode its position.

Token lookup, learned positions (GPT-2), sinusoids (the Transformer), rotations (RoPE).
Built in chapters/03_embeddings.ipynb.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "LearnedPositions", "TokenEmbedding", "nearest_tokens", "require_rope_scaling",
    "rotate", "sinusoidal_positions",
]  # fmt: skip


def _require_positive(**sizes: int) -> None:
    """TypeError unless every size is an int, ValueError for one below 1; by name."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name}={size!r} must be an int")
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def _require_even(name: str, size: int) -> None:
    """ValueError, which says `name`, for a size that is odd or below 2."""
    if size < 2 or size % 2:
        raise ValueError(
            f"{name}={size} must be even and at least 2: features are taken in pairs"
        )


class TokenEmbedding(nn.Module):
    """A table with one row per token: ids (...) integers -> vectors (..., D).

    The same numbers as one-hot vectors times `weight` (V, D), without the product.
    Rows start as normal(0, 1), drawn by `generator`. TypeError for ids that are not
    int64 or int32, ValueError for an id outside 0 .. V - 1 (on a GPU, where checking
    would cost time, the lookup's own error comes instead).

    It can be built and called on the device "meta", which keeps shapes and no numbers,
    and compiled by torch.compile as one graph. So `forward` may not read the value of
    an id, not even to check it, before the lookup has failed.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_positive(vocab_size=vocab_size, d_model=d_model)
        start = torch.randn(vocab_size, d_model, generator=generator)
        self.weight = nn.Parameter(start)  # (V, D)

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of `ids`: (...) -> (..., D)."""
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int64 or int32, got {ids.dtype}")
        try:
            return F.embedding(ids, self.weight)  # (..., D)
        except IndexError:
            low, high = ids.min().item(), ids.max().item()
            raise ValueError(
                f"ids spans {low}..{high}, outside 0..{len(self.weight) - 1}: "
                "was the text encoded with another tokenizer?"
            ) from None


def nearest_tokens(
    weight: Tensor, token_id: int, k: int = 5
) -> list[tuple[int, float]]:
    """The k other tokens whose vectors point most nearly the same way.

    weight: (V, D) -> [(id, cosine similarity)], the most similar first, ties by
    lower id. A row of zeros has similarity 0 to all. ValueError for a token_id outside
    0 .. V - 1, a k outside 1 .. V - 1, and a weight that is not a table.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, but must be (V, D)")
    n = len(weight)
    if not 0 <= token_id < n:
        raise ValueError(f"token_id={token_id} is outside 0..{n - 1}")
    if not 1 <= k < n:
        raise ValueError(f"k={k} must be at least 1 and below the {n} tokens")
    weight = weight.detach()
    cosine = F.cosine_similarity(weight, weight[token_id : token_id + 1])  # (V,)
    cosine[token_id] = -torch.inf  # last, so that it is not its own neighbor
    values, ids = cosine.sort(descending=True, stable=True)
    return list(zip(ids[:k].tolist(), values[:k].tolist(), strict=True))


class LearnedPositions(nn.Module):
    """A trained vector for each position, as in GPT-2: length T -> (T, D).

    The first vector is that of position `start`. ValueError beyond `context_length`,
    because there is no vector for a position that training never saw. Rows start as
    normal(0, 1), drawn by `generator`.
    """

    def __init__(
        self,
        context_length: int,
        d_model: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_positive(context_length=context_length, d_model=d_model)
        first = torch.randn(context_length, d_model, generator=generator)
        self.weight = nn.Parameter(first)  # (T_max, D)

    def forward(self, length: int, start: int = 0) -> Tensor:
        """The vectors of positions start .. start + length - 1: (length, D)."""
        if length < 0 or start < 0 or start + length > len(self.weight):
            raise ValueError(
                f"length={length} from start={start} does not fit into "
                f"context_length={len(self.weight)}; give fewer tokens"
            )
        return self.weight[start : start + length]  # (T, D)


def _angles(positions: Tensor, speeds: Tensor) -> Tensor:
    """(T,) positions, (d/2,) radians per position -> (T, d/2) angles in radians."""
    return positions[:, None].to(speeds.dtype) * speeds


def _speeds(
    dim: int, base: float, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """(dim / 2,) radians per position, base**(-2i / dim): from 1 to nearly 1 / base."""
    return base ** (-torch.arange(0, dim, 2, dtype=dtype, device=device) / dim)


def sinusoidal_positions(context_length: int, d_model: int) -> Tensor:
    """Fixed vectors of sines and cosines (Vaswani et al. 2017, section 3.5): (T, D).

    Columns 2i and 2i + 1 hold sin and cos of position / 10000**(2i / d_model), so that
    a step of k positions is the same rotation everywhere. float32; TypeError for sizes
    that are no ints, ValueError for a size below 1 and an odd d_model.
    """
    _require_positive(context_length=context_length, d_model=d_model)
    _require_even("d_model", d_model)
    speeds = _speeds(d_model, 10_000.0, torch.float64)  # (D/2,)
    angles = _angles(torch.arange(context_length), speeds)  # (T, D/2)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2).float()  # (T, D)


def rotate(
    x: Tensor,
    positions: Tensor,
    *,
    base: float = 10_000.0,
    scaling: tuple[float, float, float, int] | None = None,
) -> Tensor:
    """Rotary positions (Su et al. 2021): turn each pair of features by its position.

    x: (..., T, d_head) queries or keys; positions: (T,) -> (..., T, d_head). Features
    2i and 2i + 1 are turned by positions * base**(-2i / d_head) radians. Lengths stay
    the same, and the dot product of two turned vectors depends only on their distance.

    scaling: (factor, low, high, length), as in Llama 3.1's code, for contexts longer
    than the `length` that was trained on. A pair that makes fewer than `low` turns in
    that length turns `factor` times more slowly, one that makes more than `high` turns
    keeps its speed, and in between the change is gradual. ValueError for an odd d_head,
    a base of 0 or less, and shapes that do not fit; TypeError for integer x. In 16 bits
    far positions would blur: angles are float32 at least, the result is of x's dtype.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if x.ndim < 2 or positions.shape != x.shape[-2:-1]:
        raise ValueError(
            f"positions of shape {tuple(positions.shape)} and x of shape "
            f"{tuple(x.shape)} do not fit: give (T,) and (..., T, d_head)"
        )
    _require_even("x: its last dimension", x.shape[-1])
    if not base > 0:
        raise ValueError(f"base={base} must be above 0; the paper's is 10000")
    dtype = torch.promote_types(x.dtype, torch.float32)  # 16 bits blur far positions
    speeds = _speeds(x.shape[-1], base, dtype, x.device)  # (d/2,)
    if scaling is not None:
        require_rope_scaling(scaling)
        speeds = _stretched(speeds, scaling)
    angles = _angles(positions, speeds)  # (T, d/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]  # (..., T, d/2) each
    turned = [even * cos - odd * sin, even * sin + odd * cos]
    return torch.stack(turned, dim=-1).flatten(-2)  # (..., T, d_head)


def require_rope_scaling(scaling: Sequence[float]) -> None:
    """ValueError unless `scaling` is (factor, low, high, length), as for `rotate`.

    Four numbers: factor and length at least 1, and low above 0 and below high.
    """
    if len(scaling) != 4 or not all(isinstance(n, int | float) for n in scaling):
        raise ValueError(f"scaling={scaling} must be four numbers")
    factor, low, high, length = scaling
    if not (factor >= 1 and 0 < low < high and length >= 1):
        raise ValueError(
            f"scaling={scaling} must be a factor of at least 1, two numbers of turns, "
            "the lower first, and the length that was trained on"
        )


def _stretched(speeds: Tensor, scaling: tuple[float, float, float, int]) -> Tensor:
    """`speeds` (d/2,) in radians per position, the slow ones slower; see `rotate`."""
    factor, low, high, length = scaling
    turns = length * speeds / (2 * math.pi)  # of each pair within the trained length
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1: fast, stays as it is
    return speeds * (kept + (1 - kept) / factor)
