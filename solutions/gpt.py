"""The GPT: attention and a feed-forward network, stacked around a residual stream.

GPT-2's architecture (Radford et al. 2019): pre-norm blocks, learned positions, tanh
GELU, output tied to the token embedding. The choices of later models are fields of
GPTConfig. Built in chapters/05_gpt.ipynb.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import CausalSelfAttention, LayerCache, RMSNorm, new_linear
from .embeddings import LearnedPositions, TokenEmbedding, rotate
from .embeddings import require_rope_scaling, sinusoidal_positions

__all__ = [
    "Block", "Cache", "FeedForward", "GPT", "GPTConfig", "KINDS", "LayerNorm", "MLPS",
    "gelu", "initialize_weights",
]  # fmt: skip


def _require_size(name: str, value: int) -> None:
    """A size called `name`: TypeError unless it is an int (True is not), ValueError
    below 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be an int")
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1")


def _require_width(x: Tensor, d_model: int) -> None:
    """ValueError unless x is (..., d_model)."""
    if x.ndim == 0 or x.shape[-1] != d_model:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but its last dimension must be "
            f"d_model={d_model}"
        )


class LayerNorm(nn.Module):
    """Bring each vector to mean 0 and variance 1, then apply a learned scale and shift.

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
        # One pass over memory; the chapter writes out the six steps and compares.
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def gelu(x: Tensor) -> Tensor:
    """x times the chance that a standard normal number is below x, in the tanh form.

    x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), any shape: the approximation that
    GPT-2 uses (Hendrycks and Gimpel 2016, section 2). TypeError for integers.
    """
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, but must be floating-point: x.float()")
    return F.gelu(x, approximate="tanh")


MLPS = ("gelu", "swiglu", "relu2")


class FeedForward(nn.Module):
    """Each position by itself: (..., D) -> (..., d_mlp) -> activation -> (..., D).

    d_mlp: 4 D unless given. kind: "gelu"; "relu2", the square of ReLU (So et al. 2021);
    or "swiglu", SiLU(gate) * up, with a third matrix (Shazeer 2020). `generator` draws
    the initial weights.
    """

    def __init__(
        self, d_model: int, *, d_mlp: int | None = None, bias: bool = True,
        kind: str = "gelu", generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        width = 4 * d_model if d_mlp is None else d_mlp
        _require_size("d_model", d_model)
        _require_size("d_mlp", width)
        if kind not in MLPS:
            raise ValueError(f"kind={kind!r} must be one of {MLPS}")
        self.kind = kind
        self.up = new_linear(d_model, width, bias=bias, generator=generator)
        if kind == "swiglu":
            self.gate = new_linear(d_model, width, bias=bias, generator=generator)
        self.down = new_linear(width, d_model, bias=bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        _require_width(x, self.up.in_features)
        hidden = self.up(x)  # (..., d_mlp)
        if self.kind == "gelu":
            hidden = gelu(hidden)
        elif self.kind == "relu2":
            hidden = F.relu(hidden).square()
        else:
            hidden = F.silu(self.gate(x)) * hidden
        return self.down(hidden)  # (..., D)


KINDS = {  # what a field of GPTConfig may say
    "norm": ("layer", "rms"),
    "mlp": MLPS,
    "positions": ("learned", "sinusoidal", "rotary", "none"),
}


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT. ValueError or TypeError names the field that is wrong.

    Left at None: n_kv_heads is n_heads, d_head is d_model / n_heads, d_mlp is
    4 d_model. rope_scaling is `scaling` of chapter 3's `rotate`, kept as a tuple. Sizes
    are ints, not True, and what is bool is True or False, not 1.
    """

    vocab_size: int
    context_length: int
    d_model: int
    n_layers: int
    n_heads: int
    dropout: float = 0.0
    bias: bool = True
    tie_embeddings: bool = True
    # What later models chose instead:
    n_kv_heads: int | None = None
    d_head: int | None = None
    norm: str = "layer"
    norm_eps: float = 1e-5
    mlp: str = "gelu"
    d_mlp: int | None = None
    positions: str = "learned"
    rope_base: float = 10_000.0
    rope_scaling: tuple[float, float, float, int] | None = None
    qk_norm: bool = False

    def __post_init__(self) -> None:
        """Check each field by itself, then `_check_heads`."""
        for name in ("vocab_size", "context_length", "d_model", "n_layers", "n_heads"):
            _require_size(name, getattr(self, name))
        for name in ("n_kv_heads", "d_head", "d_mlp"):
            if getattr(self, name) is not None:
                _require_size(name, getattr(self, name))
        for name in ("dropout", "norm_eps", "rope_base"):
            if not isinstance(getattr(self, name), int | float):
                raise TypeError(f"{name}={getattr(self, name)!r} must be a number")
        for name in ("bias", "tie_embeddings", "qk_norm"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r} must be True or False")
        for name, kinds in KINDS.items():
            value = getattr(self, name)
            if value not in kinds:
                raise ValueError(f"{name}={value!r} must be one of {kinds}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        for name in ("norm_eps", "rope_base"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        self._check_heads()

    def _check_heads(self) -> None:
        """ValueError for heads that do not divide, and odd widths where pairs turn."""
        D, H, shared = self.d_model, self.n_heads, self.kv_heads
        if self.d_head is None and D % H:
            raise ValueError(f"d_model={D} is not divisible by n_heads={H}")
        if H % shared:
            raise ValueError(f"n_heads={H} is not divisible by n_kv_heads={shared}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"d_head={self.head_width} must be even to be rotated")
        if self.positions == "sinusoidal" and D % 2:
            raise ValueError(f"d_model={D} must be even for sinusoids")
        if self.rope_scaling is not None:
            object.__setattr__(self, "rope_scaling", tuple(self.rope_scaling))
            require_rope_scaling(self.rope_scaling)

    @property
    def kv_heads(self) -> int:
        """Heads with keys and values of their own."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def mlp_width(self) -> int:
        """Features between the matrices of the feed-forward network."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp

    @classmethod
    def gpt2(cls, size: str) -> "GPTConfig":
        """One of GPT-2's four sizes: "124M", "355M", "774M" or "1558M".

        They have 12, 16, 20 and 25 heads, of 64 features each.
        """
        sizes = {"124M": (768, 12, 12), "355M": (1024, 24, 16)}
        sizes |= {"774M": (1280, 36, 20), "1558M": (1600, 48, 25)}
        if size not in sizes:
            raise ValueError(f"size={size!r} must be one of {', '.join(sizes)}")
        d_model, n_layers, n_heads = sizes[size]
        return cls(50_257, 1024, d_model, n_layers, n_heads)


def _new_norm(config: GPTConfig) -> nn.Module:
    """(..., D) -> (..., D): what `config.norm` names, with `norm_eps`; RMSNorm has no
    bias."""
    if config.norm == "rms":
        return RMSNorm(config.d_model, eps=config.norm_eps)
    return LayerNorm(config.d_model, bias=config.bias, eps=config.norm_eps)


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normalized copy of the residual stream
    and adds to it: (B, T, D) -> (B, T, D)."""

    def __init__(
        self, config: GPTConfig, *, fused: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        c = config
        turn = partial(rotate, base=c.rope_base, scaling=c.rope_scaling)
        self.norm1 = _new_norm(c)
        self.attention = CausalSelfAttention(
            c.d_model, c.n_heads, n_kv_heads=c.n_kv_heads, d_head=c.d_head,
            dropout=c.dropout, bias=c.bias, fused=fused, qk_norm=c.qk_norm,
            norm_eps=c.norm_eps, rotate=turn if c.positions == "rotary" else None,
            generator=generator,
        )  # fmt: skip
        self.norm2 = _new_norm(c)
        self.feed_forward = FeedForward(
            c.d_model, d_mlp=c.d_mlp, bias=c.bias, kind=c.mlp, generator=generator
        )
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, start: int = 0
    ) -> Tensor:
        """cache: the attention's memory of the `start` tokens before x."""
        y = self.attention(self.norm1(x), cache, start)
        x = x + self.dropout(y)  # (B, T, D)
        return x + self.dropout(self.feed_forward(self.norm2(x)))  # (B, T, D)


@torch.no_grad()
def initialize_weights(
    model: nn.Module, n_layers: int, *, generator: torch.Generator | None = None
) -> None:
    """Set all weights in place, as GPT-2 starts (Radford et al. 2019, section 2.3).

    Matrices and tables are normal(0, 0.02), drawn by `generator`. Those that write to
    the residual stream are smaller by sqrt(2 n_layers), since there are 2 n_layers
    writes, so that depth does not make it grow. Biases are 0, the scales of norms 1.
    ValueError for n_layers below 1.
    """
    _require_size("n_layers", n_layers)
    writers = ("attention.out.weight", "feed_forward.down.weight")
    for name, p in model.named_parameters():
        if p.ndim == 2:
            scale = math.sqrt(2 * n_layers) if name.endswith(writers) else 1.0
            p.normal_(0.0, 0.02 / scale, generator=generator)
        else:
            p.fill_(0.0 if name.endswith("bias") else 1.0)


class Cache(Protocol):
    """What `GPT.forward` needs of a memory; chapter 7's KVCache is one."""

    layers: Sequence[LayerCache]  # one for each block

    @property
    def length(self) -> int:
        """How many tokens it holds."""


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V): a score for each next token, at every position.

    generator draws the initial weights (see initialize_weights). fused: see
    CausalSelfAttention. Dropout falls on the sum of the embeddings, inside attention,
    and on what each layer of a block adds. Sinusoids are the buffer `waves` (T, D),
    not saved, and as large as the tokens' vectors at the start: root mean square 0.02.
    """

    def __init__(
        self, config: GPTConfig, *, generator: torch.Generator | None = None,
        fused: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = c = config
        device = torch.get_default_device()
        with torch.device("meta"):  # shapes only: each number is set once, below
            self.tokens = TokenEmbedding(c.vocab_size, c.d_model)
            if c.positions == "learned":
                self.positions = LearnedPositions(c.context_length, c.d_model)
            self.dropout = nn.Dropout(c.dropout)
            blocks = [Block(c, fused=fused) for _ in range(c.n_layers)]
            self.blocks = nn.ModuleList(blocks)
            self.norm = _new_norm(c)
            self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        self.to_empty(device=device)
        if c.tie_embeddings:
            self.head.weight = self.tokens.weight
        if c.positions == "sinusoidal":  # as large as the tokens' vectors at the start
            waves = sinusoidal_positions(c.context_length, c.d_model)  # (T_max, D)
            self.waves = nn.Buffer(0.02 * 2**0.5 * waves, persistent=False)
        initialize_weights(self, c.n_layers, generator=generator)

    def forward(
        self, ids: Tensor, cache: Cache | None = None, *, last_only: bool = False
    ) -> Tensor:
        """cache: memory of earlier calls; `ids` are the tokens after them. last_only:
        the scores after the last token alone, (B, 1, V). ValueError for an id outside
        the vocabulary, or for more ids than fit into the context."""
        start = 0 if cache is None else cache.length
        x = self.dropout(self._embed(ids, start))  # (B, T, D)
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layers[i]
            x = block(x, layer, start) if start else block(x, layer)  # (B, T, D)
        if last_only:
            x = x[:, -1:]  # (B, 1, D)
        return self.head(self.norm(x))  # (B, T, V)

    def _embed(self, ids: Tensor, start: int) -> Tensor:
        """Vectors of tokens that follow `start` others: (B, T) -> (B, T, D).

        ValueError for another shape, no tokens, or more than the context holds.
        """
        shape = tuple(ids.shape)
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"ids has shape {shape}, but must be (B, T), T at least 1")
        T, C = shape[1], self.config.context_length
        if start + T > C:
            raise ValueError(f"{T} tokens after {start} exceed context_length={C}")
        x = self.tokens(ids)  # (B, T, D)
        if self.config.positions == "learned":
            x = x + self.positions(T, start)
        elif self.config.positions == "sinusoidal":
            x = x + self.waves[start : start + T]
        return x

    def n_parameters(self, *, embeddings: bool = True) -> int:
        """How many numbers training adjusts; a tied output layer counts once.
        embeddings=False leaves out the token and position tables (Kaplan et al. 2020,
        section 2.1)."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        if self.config.positions == "learned":
            total -= self.positions.weight.numel()
        return total - self.tokens.weight.numel()

    def flops_per_token(self) -> int:
        """FLOPs per token of a forward pass at full context, those of all matrix
        products. A multiply-add counts as two, and the masked half of attention counts
        too. Training takes 3 times as many."""
        c = self.config
        d, matrices = c.head_width, 3 if c.mlp == "swiglu" else 2
        products = c.d_model * (2 * c.n_heads + 2 * c.kv_heads) * d  # qkv and out
        products += matrices * c.d_model * c.mlp_width  # up, down, gate
        attention = 2 * c.context_length * c.n_heads * d  # q k^T and weights v
        return 2 * (c.n_layers * (products + attention) + c.vocab_size * c.d_model)
