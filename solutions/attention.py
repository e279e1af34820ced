"""Attention: every token looks at those before it, and never at the future.

The arithmetic as pure functions, multi-head causal self-attention as a module with a
cache, and the recurrent network that came before it. Built in
chapters/04_attention.ipynb.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "CausalSelfAttention", "LayerCache", "RMSNorm", "RNNLanguageModel", "attention",
    "attention_weights", "causal_mask", "new_linear", "softmax",
]  # fmt: skip


def _require_positive(**sizes: int) -> None:
    """TypeError unless every size is an int, ValueError for one below 1; by name."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name}={size!r} must be an int")
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def _require_dropout(dropout: float) -> None:
    """ValueError unless `dropout` is a share of at least 0 and below 1."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1")


@torch.no_grad()
def new_linear(
    n_in: int, n_out: int, *, bias: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Linear:  # fmt: skip
    """nn.Linear with PyTorch's initialization, drawn by `generator`.

    Weights and biases are uniform between -1 / sqrt(n_in) and 1 / sqrt(n_in). Nothing
    is drawn from the global generator: the layer is made empty, then filled.
    """
    layer = nn.Linear(n_in, n_out, bias=bias, device="meta")  # draws nothing
    layer.to_empty(device=torch.get_default_device())
    for p in layer.parameters():
        p.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


class RNNLanguageModel(nn.Module):
    """A recurrent network that reads one token after another: ids (B, T) -> (B, T, V).

    h_t = tanh(W_e e_t + W_h h_{t-1} + b) (Elman 1990; `from_input` is W_e with b,
    `from_past` is W_h, which needs no second bias): the whole context must pass
    through one vector of d_model numbers, and no step can start before the previous one
    has ended. Initial weights are drawn by `generator`. TypeError for ids that are not
    integers, ValueError for another shape or for ids outside 0 .. V - 1 (on a GPU the
    lookup's own error comes instead).
    """

    def __init__(
        self, vocab_size: int, d_model: int, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _require_positive(vocab_size=vocab_size, d_model=d_model)
        table = torch.randn(vocab_size, d_model, generator=generator)  # (V, D)
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.from_input = new_linear(d_model, d_model, generator=generator)
        self.from_past = new_linear(d_model, d_model, bias=False, generator=generator)
        self.head = new_linear(d_model, vocab_size, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each position, from ids (B, T)."""
        inputs = self.from_input(self._embed(ids))  # (B, T, D), all positions at once
        h = torch.zeros_like(inputs[:, 0])  # (B, D)
        states = []
        for x in inputs.unbind(1):  # T times (B, D), one step after another
            h = torch.tanh(x + self.from_past(h))
            states.append(h)
        return self.head(torch.stack(states, dim=1))  # (B, T, D) -> (B, T, V)

    def _embed(self, ids: Tensor) -> Tensor:
        """The vectors (B, T, D) of ids (B, T). TypeError, ValueError: see the class."""
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int64 or int32, got {ids.dtype}")
        if ids.ndim != 2 or not ids.numel():
            raise ValueError(
                f"ids has shape {tuple(ids.shape)}, but must be (B, T), not empty"
            )
        try:
            return self.embedding(ids)  # (B, T, D)
        except IndexError:
            low, high = ids.min().item(), ids.max().item()
            last = self.embedding.num_embeddings - 1
            raise ValueError(f"ids spans {low}..{high}, outside 0..{last}") from None


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, for inputs of any size: same shape, sums to 1.

    Subtracting the largest input changes nothing but keeps exp from overflowing. An
    input of -inf gets exactly 0; if all along `dim` are -inf, the result is nan.
    """
    x = x - x.amax(dim, keepdim=True)
    exp = x.exp()
    return exp / exp.sum(dim, keepdim=True)


def causal_mask(
    n_queries: int, n_keys: int | None = None, *,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """(n_queries, n_keys) bool, True where a query may look: at itself and the past.

    With more keys than queries, the queries come last, and the last one sees all keys.
    n_keys: None for as many as queries. TypeError for what is no int, ValueError for a
    number below 1 and for fewer keys than queries.
    """
    n_keys = n_queries if n_keys is None else n_keys
    _require_positive(n_queries=n_queries, n_keys=n_keys)
    if n_keys < n_queries:
        raise ValueError(
            f"n_keys={n_keys} is fewer than n_queries={n_queries}; each query needs "
            "at least its own key"
        )
    everything = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return everything.tril(n_keys - n_queries)


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """q k^T / sqrt(d), -inf where the mask is False: (..., T_q, T_k)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T_q, T_k)
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _check_mask(mask: Tensor, q: Tensor, k: Tensor) -> None:
    """TypeError or ValueError for a mask that does not fit or hides every key."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True = may look), got {mask.dtype}")
    outer = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    size = (*outer, q.shape[-2], k.shape[-2])
    try:
        mask.expand(size)
    except RuntimeError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but the scores have {size}: a row "
            "for each query, a column for each key"
        ) from None
    if not mask.any(-1).all():
        raise ValueError("mask has a row of only False: that query may look nowhere")


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each query looks at each key: softmax(q k^T / sqrt(d)).

    q: (..., T_q, d), k: (..., T_k, d) -> (..., T_q, T_k), rows sum to 1.
    mask: bool, broadcast to (..., T_q, T_k), True where a query may look. ValueError
    for a query that may look nowhere and for sizes that do not fit, TypeError for a
    mask that is not bool.
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"q has {q.shape[-1]} features and k has {k.shape[-1]}; a query can only "
            "be compared with keys of its own size"
        )
    if mask is not None:
        _check_mask(mask, q, k)
    return softmax(_scores(q, k, mask), dim=-1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> Tensor:
    """Weighted average of values, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017).

    q: (..., T_q, d), k: (..., T_k, d), v: (..., T_k, d_v) -> (..., T_q, d_v).
    mask: see attention_weights. dropout: share of the weights set to 0, the rest
    scaled up; it is applied whenever it is not 0. ValueError and TypeError: as for
    attention_weights, and for another number of values than keys.
    """
    _require_dropout(dropout)
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"k has {k.shape[-2]} positions, v has {v.shape[-2]}; a key needs a value"
        )
    weights = attention_weights(q, k, mask)  # (..., T_q, T_k)
    return F.dropout(weights, dropout) @ v  # (..., T_q, d_v)


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps), times a learned scale: (..., d) -> (..., d).

    PyTorch's module (Zhang and Sennrich 2019), with the scale in the dtype of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) with mean square 1, then scaled: (..., d), of x's dtype."""
        y = F.rms_norm(x, self.normalized_shape, None, self.eps)
        return y * self.weight.to(x.dtype)


class LayerCache:
    """The keys and values that one layer has computed so far, in memory set aside.

    keys, values: (B, H_kv, S, d) each, with room for S positions.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0  # positions stored

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, H_kv, T, d) new keys and values; returns all of them so far.

        ValueError if there is no room for them; then nothing is stored.
        """
        end = self.length + k.shape[2]
        if k.shape[0] != self.keys.shape[0] or end > self.keys.shape[2]:
            raise ValueError(f"the cache has no room for {len(k)} rows of {end} tokens")
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention: (B, T, D) -> (B, T, D).

    One matrix makes queries, keys, and values of all heads, d_head features each
    (D / n_heads unless given); each head attends on its own; one more matrix mixes
    them. With n_kv_heads below n_heads, groups of heads share keys and values (Ainslie
    et al. 2023). qk_norm brings queries and keys to mean square 1 (RMSNorm with
    norm_eps); rotate(x, positions) turns them, for rotary positions. fused=True uses
    PyTorch's scaled_dot_product_attention (on a CPU with dropout it is not fused, and
    slower), fused=False the arithmetic of `attention`: same numbers. Initial weights
    are drawn by `generator`; dropout draws from PyTorch's global one. TypeError for
    sizes that are no ints, ValueError for sizes below 1 or that do not divide, and for
    a dropout outside 0 .. 1.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, n_kv_heads: int | None = None,
        d_head: int | None = None, dropout: float = 0.0, bias: bool = True,
        fused: bool = True, qk_norm: bool = False, norm_eps: float = 1e-6,
        rotate: Callable[[Tensor, Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _require_positive(d_model=d_model, n_heads=n_heads)
        _require_dropout(dropout)
        if d_head is None and d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not divisible by n_heads={n_heads}")
        d = d_model // n_heads if d_head is None else d_head
        kv = n_heads if n_kv_heads is None else n_kv_heads
        _require_positive(n_kv_heads=kv, d_head=d)
        if n_heads % kv:
            raise ValueError(f"n_heads={n_heads} is not divisible by n_kv_heads={kv}")
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, kv, d
        self.dropout, self.fused, self.rotate = dropout, fused, rotate
        width = (n_heads + 2 * kv) * d
        self.qkv = new_linear(d_model, width, bias=bias, generator=generator)
        self.out = new_linear(n_heads * d, d_model, bias=bias, generator=generator)
        self.q_norm = RMSNorm(d, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(d, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, start: int = 0
    ) -> Tensor:
        """Mix the tokens of x (B, T, D) with those before them: (B, T, D).

        cache: keys and values of the `start` tokens before x; those of x are appended.
        ValueError if it has no room for them, and for another shape of x.
        """
        q, k, v = self.split_heads(x)  # (B, H, T, d), twice (B, H_kv, T, d)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotate is not None:
            positions = torch.arange(start, start + x.shape[1], device=x.device)
            q, k = self.rotate(q, positions), self.rotate(k, positions)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H_kv, S, d)
        y = self._attend(q, k, v)  # (B, H, T, d)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, H d) -> (B, T, D)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> queries (B, H, T, d), keys and values (B, H_kv, T, d) each.

        ValueError for another shape and for T = 0.
        """
        D = self.qkv.in_features
        if x.ndim != 3 or x.shape[-1] != D or x.shape[1] < 1:
            raise ValueError(f"x has shape {tuple(x.shape)}, but must be (B, T, {D})")
        heads = self.qkv(x).unflatten(-1, (-1, self.d_head))  # (B, T, H + 2 H_kv, d)
        sizes = [self.n_heads, self.n_kv_heads, self.n_kv_heads]
        return heads.transpose(1, 2).split(sizes, dim=1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of all heads, in the fastest way: (B, H, T, d).

        q: (B, H, T, d); k, v: (B, H_kv, S, d), S >= T, the last T of them at q's own
        positions. Dropout only in training.
        """
        T, S, shared = q.shape[2], k.shape[2], self.n_kv_heads < self.n_heads
        dropout = self.dropout if self.training else 0.0
        if not self.fused:
            return self._written_out(q, k, v, dropout)
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and T == S <= 512:
            return self._in_two_products(q, k, v, dropout)
        mask = None
        if 1 < T < S:  # several new queries after cached keys; one alone sees every key
            mask = causal_mask(T, S, device=q.device)
        return F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=T == S, enable_gqa=shared
        )

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """The same by softmax, mask and products, as in `attention`: (B, H, T, d)."""
        mask = causal_mask(q.shape[2], k.shape[2], device=q.device)
        q = q.unflatten(1, (self.n_kv_heads, -1))  # (B, H_kv, H / H_kv, T, d)
        k, v = k.unsqueeze(2), v.unsqueeze(2)  # (B, H_kv, 1, S, d) each
        weights = softmax(_scores(q, k, mask), dim=-1)
        return (F.dropout(weights, dropout) @ v).flatten(1, 2)  # (B, H, T, d)

    def _in_two_products(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float
    ) -> Tensor:
        """The same for whole windows, S = T, in bfloat16: a CPU's kernel is slow."""
        B, H, T, d = q.shape
        k, v = (t.repeat_interleave(H // self.n_kv_heads, dim=1) for t in (k, v))
        hidden = torch.zeros(T, T, dtype=q.dtype, device=q.device)
        hidden.masked_fill_(~causal_mask(T, device=q.device), -torch.inf)
        q, k, v = (t.reshape(B * H, T, d) for t in (q, k, v))
        scores = torch.baddbmm(hidden, q, k.mT, alpha=d**-0.5)  # (B H, T, T)
        weights = F.dropout(scores.softmax(-1), dropout).to(v.dtype)
        return torch.bmm(weights, v).view(B, H, T, d)
