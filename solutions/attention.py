"""Attention: every token looks at those before it, and never at the future.

The arithmetic as pure functions, multi-head causal self-attention as a module, and the
recurrent network that was there before. Built in chapters/04_attention.ipynb.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name}={size!r} must be an int")
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def _require_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1")


class RNNLanguageModel(nn.Module):
    """A recurrent network that reads one token after another: ids (B, T) -> (B, T, V).

    h_t = tanh(W_e e_t + W_h h_{t-1} + b) (Elman 1990): the whole past must pass through
    one vector of d_model numbers, and no step can start before the last has ended.
    TypeError for ids that are not integers, ValueError for another shape or for ids
    outside 0 .. V - 1 (on a GPU the look-up's own error comes instead).
    """

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        _require_positive(vocab_size=vocab_size, d_model=d_model)
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.from_input = nn.Linear(d_model, d_model)
        self.from_past = nn.Linear(d_model, d_model, bias=False)
        self.head = nn.Linear(d_model, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        self._check(ids)
        inputs = self.from_input(self._embed(ids))  # (B, T, D), all places at once
        h = torch.zeros_like(inputs[:, 0])  # (B, D)
        states = []
        for x in inputs.unbind(1):  # T times (B, D), one step after another
            h = torch.tanh(x + self.from_past(h))
            states.append(h)
        return self.head(torch.stack(states, dim=1))  # (B, T, D) -> (B, T, V)

    def _check(self, ids: Tensor) -> None:
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int64 or int32, got {ids.dtype}")
        if ids.ndim != 2 or not ids.numel():
            raise ValueError(
                f"ids has shape {tuple(ids.shape)}, but must be (B, T), not empty"
            )

    def _embed(self, ids: Tensor) -> Tensor:
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


def causal_mask(n_queries: int, n_keys: int | None = None) -> Tensor:
    """(n_queries, n_keys) bool, True where a query may look: at itself and the past.

    With more keys than queries the queries are the last ones: the last sees all keys.
    """
    n_keys = n_queries if n_keys is None else n_keys
    _require_positive(n_queries=n_queries, n_keys=n_keys)
    if n_keys < n_queries:
        raise ValueError(
            f"n_keys={n_keys} is fewer than n_queries={n_queries}; each query needs "
            "at least its own key"
        )
    everything = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return everything.tril(n_keys - n_queries)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each query looks at each key: softmax(q k^T / sqrt(d)).

    q: (..., T_q, d), k: (..., T_k, d) -> (..., T_q, T_k), rows sum to 1.
    mask: bool, broadcast to (..., T_q, T_k), True where a query may look; a query that
    may look nowhere is a ValueError.
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"q has {q.shape[-1]} features and k has {k.shape[-1]}; a query can only "
            "be compared with keys of its own size"
        )
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T_q, T_k)
    if mask is not None:
        scores = scores.masked_fill(~_checked_mask(mask, scores), -torch.inf)
    return softmax(scores, dim=-1)


def _checked_mask(mask: Tensor, scores: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True = may look), got {mask.dtype}")
    try:
        mask = mask.expand(scores.shape)
    except RuntimeError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but the scores have "
            f"{tuple(scores.shape)}: a row for each query, a column for each key"
        ) from None
    if not mask.any(-1).all():
        raise ValueError("mask has a row of only False: that query may look nowhere")
    return mask


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> Tensor:
    """Weighted average of values, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017).

    q: (..., T_q, d), k: (..., T_k, d), v: (..., T_k, d_v) -> (..., T_q, d_v).
    mask: see attention_weights. dropout: share of the weights set to 0, the rest
    scaled up; it is applied whenever it is not 0.
    """
    _require_dropout(dropout)
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"k has {k.shape[-2]} places and v has {v.shape[-2]}; a key needs a value"
        )
    weights = attention_weights(q, k, mask)  # (..., T_q, T_k)
    return F.dropout(weights, dropout) @ v  # (..., T_q, d_v)


def _in_two_products(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention of whole windows, (B, H, T, d) each, without the kernel."""
    B, H, T, d = q.shape
    hidden = torch.zeros(T, T, dtype=q.dtype, device=q.device)
    hidden.masked_fill_(~causal_mask(T, T).to(q.device), -torch.inf)
    q, k, v = (t.reshape(B * H, T, d) for t in (q, k, v))
    scores = torch.baddbmm(hidden, q, k.mT, alpha=d**-0.5)  # (B H, T, T)
    weights = F.dropout(scores.softmax(-1), dropout).to(v.dtype)
    return torch.bmm(weights, v).view(B, H, T, d)


class RMSNorm(nn.RMSNorm):
    """PyTorch's, with its scale in the dtype of x: (..., d) -> (..., d)."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x, self.normalized_shape, None, self.eps)
        return y * self.weight.to(x.dtype)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention: (B, T, D) -> (B, T, D).

    One matrix makes queries, keys and values of all heads; each head attends on its own
    D / n_heads features; one more matrix mixes the heads. fused=True uses PyTorch's
    scaled_dot_product_attention (on a CPU with dropout it is not fused, and slower),
    fused=False this module's `attention`: same numbers. qk_norm scales queries and keys
    to mean square 1; rotate is chapter 3's, for rotary positions.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True,
        fused: bool = True, qk_norm: bool = False, rotate: Callable | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        _require_positive(d_model=d_model, n_heads=n_heads)
        _require_dropout(dropout)
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not divisible by n_heads={n_heads}")
        self.n_heads, self.dropout, self.fused = n_heads, dropout, fused
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)
        self.rotate, d = rotate, d_model // n_heads
        self.q_norm = RMSNorm(d, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(d, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, cache=None, start: int = 0) -> Tensor:
        """cache: None, or a layer's store of the past, whose append(k, v) takes the new
        keys and values and returns all so far (B, H, S, d); start: tokens before x."""
        q, k, v = self.split_heads(x)  # (B, H, T, d) each
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotate is not None:
            at = torch.arange(start, start + x.shape[1], device=x.device)
            q, k = self.rotate(q, at), self.rotate(k, at)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, d)
        dropout = self.dropout if self.training else 0.0
        y = (self._fused if self.fused else self._written_out)(q, k, v, dropout)
        return self.out(y.transpose(1, 2).reshape(x.shape))  # (B, H, T, d) -> (B, T, D)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads: (B, T, D) -> (B, H, T, d) each."""
        D = self.qkv.in_features
        if x.ndim != 3 or x.shape[-1] != D or x.shape[1] < 1:
            raise ValueError(f"x has shape {tuple(x.shape)}, but must be (B, T, {D})")
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.n_heads, D // self.n_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, T, 3, H, d) -> (3, B, H, T, d)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        mask = causal_mask(q.shape[2], k.shape[2]).to(q.device)
        return attention(q, k, v, mask, dropout=dropout)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        T, S, mask = q.shape[2], k.shape[2], None
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and T == S <= 512:
            return _in_two_products(q, k, v, dropout)
        if 1 < T < S:  # several new queries after a past; a single one sees every key
            mask = causal_mask(T, S).to(q.device)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=T == S
        )
