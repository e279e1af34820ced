"""The GPT: attention and a feed-forward network, stacked around a residual stream.

GPT-2's architecture (Radford et al. 2019): pre-norm blocks, learned positions, tanh
GELU, output tied to the token embedding. Built in chapters/05_gpt.ipynb.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import CausalSelfAttention
from .embeddings import LearnedPositions, TokenEmbedding, rotate


def _require_size(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be an int")
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1")


def _require_width(x: Tensor, d_model: int) -> None:
    if x.ndim == 0 or x.shape[-1] != d_model:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but its last dimension must be "
            f"d_model={d_model}"
        )


class LayerNorm(nn.Module):
    """Each vector to mean 0 and variance 1, then a learned scale and shift.

    (..., D) -> (..., D), over the last dimension (Ba, Kiros, Hinton 2016). ValueError
    for vectors of another size.
    """

    def __init__(self, d_model: int, *, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        _require_size("d_model", d_model)
        if not eps > 0:
            raise ValueError(f"eps={eps} must be above 0")
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.eps = eps  # keeps the division finite when all features are equal

    def forward(self, x: Tensor) -> Tensor:
        _require_width(x, len(self.weight))
        # One pass over the memory; the chapter writes the six steps out and compares.
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def gelu(x: Tensor) -> Tensor:
    """x times the chance that a standard normal number is below x, in the tanh form.

    x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), any shape: the approximation that
    GPT-2 uses (Hendrycks and Gimpel 2016, section 2). TypeError for integers.
    """
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, but must be floating-point: x.float()")
    return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Each position thinks for itself: (..., D) -> (..., 4 D) -> GELU -> (..., D).

    kind: "gelu", or "relu2" for the square of ReLU in its place (So et al. 2021).
    """

    def __init__(self, d_model: int, *, bias: bool = True, kind: str = "gelu") -> None:
        super().__init__()
        _require_size("d_model", d_model)
        self.kind = kind
        self.up = nn.Linear(d_model, 4 * d_model, bias=bias)
        self.down = nn.Linear(4 * d_model, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        _require_width(x, self.up.in_features)
        hidden = self.up(x)  # (..., 4 D)
        hidden = gelu(hidden) if self.kind == "gelu" else F.relu(hidden).square()
        return self.down(hidden)  # (..., D)


_POSITIONS, _MLPS = ("learned", "rotary"), ("gelu", "relu2")


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT. ValueError or TypeError names the field that is wrong."""

    vocab_size: int
    context_length: int
    d_model: int
    n_layers: int
    n_heads: int
    dropout: float = 0.0
    bias: bool = True
    tie_embeddings: bool = True
    positions: str = "learned"  # or "rotary"
    rope_base: float = 10_000.0
    qk_norm: bool = False
    mlp: str = "gelu"  # or "relu2"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "d_model", "n_layers", "n_heads"):
            _require_size(name, getattr(self, name))
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model={self.d_model} is not divisible by n_heads={self.n_heads}"
            )
        if not isinstance(self.dropout, int | float):
            raise TypeError(f"dropout={self.dropout!r} must be a number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        for name in ("bias", "tie_embeddings", "qk_norm"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r} must be True or False")
        for name, kinds in (("positions", _POSITIONS), ("mlp", _MLPS)):
            value = getattr(self, name)
            if value not in kinds:
                raise ValueError(f"{name}={value!r} must be one of {kinds}")
        if not self.rope_base > 0:
            raise ValueError(f"rope_base={self.rope_base} must be above 0")
        if self.positions == "rotary" and self.d_model // self.n_heads % 2:
            d = self.d_model // self.n_heads
            raise ValueError(f"d_model / n_heads = {d} must be even to be rotated")

    @classmethod
    def gpt2(cls, size: str) -> "GPTConfig":
        """One of GPT-2's four sizes: "124M", "355M", "774M" or "1558M"."""
        sizes = {"124M": (768, 12, 12), "355M": (1024, 24, 16)}
        sizes |= {"774M": (1280, 36, 20), "1558M": (1600, 48, 25)}
        if size not in sizes:
            raise ValueError(f"size={size!r} must be one of {', '.join(sizes)}")
        d_model, n_layers, n_heads = sizes[size]
        return cls(50_257, 1024, d_model, n_layers, n_heads)


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the residual stream
    and adds to it: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        D, bias, dropout = config.d_model, config.bias, config.dropout
        self.norm1 = LayerNorm(D, bias=bias)
        turn = partial(rotate, base=config.rope_base)
        self.attention = CausalSelfAttention(
            D, config.n_heads, dropout=dropout, bias=bias, qk_norm=config.qk_norm,
            rotate=turn if config.positions == "rotary" else None,
        )  # fmt: skip
        self.norm2 = LayerNorm(D, bias=bias)
        self.feed_forward = FeedForward(D, bias=bias, kind=config.mlp)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache=None, start: int = 0) -> Tensor:
        y = self.attention(self.norm1(x), cache, start)
        x = x + self.dropout(y)  # (B, T, D)
        return x + self.dropout(self.feed_forward(self.norm2(x)))  # (B, T, D)


@torch.no_grad()
def initialise_weights(
    model: nn.Module, n_layers: int, *, generator: torch.Generator | None = None
) -> None:
    """Draw first weights in place, as GPT-2 does (Radford et al. 2019, section 2.3).

    Matrices normal(0, 0.02); those that write to the residual stream smaller by
    sqrt(2 n_layers), as there are 2 n_layers writes: depth does not make it grow.
    Biases 0; the scales of norms stay as they are. ValueError for n_layers below 1.
    """
    _require_size("n_layers", n_layers)
    writers = ("attention.out.weight", "feed_forward.down.weight")
    for name, p in model.named_parameters():
        if p.ndim == 2:
            scale = math.sqrt(2 * n_layers) if name.endswith(writers) else 1.0
            p.normal_(0.0, 0.02 / scale, generator=generator)
        elif name.endswith("bias"):
            p.zero_()


def _require_ids(ids: Tensor) -> None:
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(
            f"ids has shape {tuple(ids.shape)}, but must be (B, T) with T at least 1"
        )


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V): a score for each possible next token, everywhere.

    generator: draws the initial weights, see initialise_weights.
    """

    def __init__(
        self, config: GPTConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.tokens = TokenEmbedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.positions = LearnedPositions(config.context_length, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = LayerNorm(config.d_model, bias=config.bias)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.tokens.weight
        initialise_weights(self, config.n_layers, generator=generator)

    def forward(self, ids: Tensor, cache=None) -> Tensor:
        """cache: the past of earlier calls (chapter 7's KVCache), `ids` the new tokens.
        ValueError for an id outside the vocabulary, or too many for the context."""
        _require_ids(ids)
        T, start = ids.shape[1], cache.length if cache is not None else 0
        x = self.tokens(ids)  # (B, T, D)
        if self.config.positions == "learned":
            x = x + self.positions(T, start)
        elif start + T > self.config.context_length:
            C = self.config.context_length
            raise ValueError(f"{T} tokens after {start} exceed context_length={C}")
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            layer = cache.layers[i] if cache is not None else None
            x = block(x, layer, start) if start else block(x, layer)  # (B, T, D)
        return self.head(self.norm(x))  # (B, T, V)

    def n_parameters(self, *, embeddings: bool = True) -> int:
        """How many numbers training adjusts; a tied head counts once. embeddings=False
        leaves out the token and position tables (Kaplan et al. 2020, section 2.1)."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        learned = self.config.positions == "learned"
        total -= self.positions.weight.numel() if learned else 0
        return total - self.tokens.weight.numel()

    def flops_per_token(self) -> int:
        """Operations of a forward pass at full context, a multiply-add as two: matrix
        products, the masked half of attention included. Training takes 3 times that."""
        c = self.config
        products = 12 * c.d_model**2  # qkv 3, out 1, up 4, down 4
        attention = 2 * c.context_length * c.d_model  # q k^T and weights v
        return 2 * (c.n_layers * (products + attention) + c.vocab_size * c.d_model)
