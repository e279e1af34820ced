"""One new token for each text of a batch: the cache of keys and values, and a decoder.

The decoder computes what `GPT.forward` computes, for a single new position, in as few
operations as it takes. Built in chapters/07_generation.ipynb.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import CausalSelfAttention, LayerCache, RMSNorm
from .embeddings import LearnedPositions, TokenEmbedding, rotate
from .gpt import GPT, Block, FeedForward, GPTConfig, LayerNorm
from .linear import OneDNNLinear

__all__ = ["Decoder", "KVCache", "LARGE", "PlainDecoder", "can_decode", "evaluating",
           "product"]  # fmt: skip


class KVCache:
    """What every layer remembers of the text so far, so that it is read only once.

    memory: (n_layers, 2, B, H_kv, S, d) of type `dtype`, with room for S = max_length
    positions. layers: a LayerCache for each. length: how many positions are stored.
    ValueError for sizes below 1 and a max_length beyond the context.
    """

    def __init__(
        self, config: GPTConfig, batch_size: int, max_length: int, *,
        device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        C = config.context_length
        if batch_size < 1 or not 1 <= max_length <= C:
            raise ValueError(f"{batch_size=} must be >= 1 and {max_length=} in 1..{C}")
        H, d = config.kv_heads, config.head_width
        shape = (config.n_layers, 2, batch_size, H, max_length, d)
        self.memory = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = [LayerCache(k, v) for k, v in self.memory]

    @property
    def length(self) -> int:
        """How many positions are stored, the same for every layer."""
        return self.layers[0].length

    def restart(self) -> None:
        """Forget everything; the memory is reused."""
        for layer in self.layers:
            layer.length = 0


ONEDNN = (  # whether fp32 products can be oneDNN's, as in chapter 6
    hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
)
LARGE = 300_000  # multiplications from which oneDNN, and a second thread, pay


def product(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """x -> x W^T + b for a few rows x (B, n), by the fastest way available.

    F.linear is right everywhere; oneDNN's product is faster for large fp32 weights.
    """
    weight = linear.weight.detach()
    bias = None if linear.bias is None else linear.bias.detach()
    fp32_on_cpu = weight.dtype == torch.float32 and weight.device.type == "cpu"
    if ONEDNN and fp32_on_cpu and weight.numel() >= LARGE:
        multiply = torch.ops.mkldnn._linear_pointwise
        return lambda x: multiply(x, weight, bias, "none", [], "")
    return partial(F.linear, weight=weight, bias=bias)


def normalization(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A norm of chapter 5 as a function of (..., n), without the module around it; for
    nn.Identity, a function that changes nothing."""
    if isinstance(norm, LayerNorm):
        bias = None if norm.bias is None else norm.bias.detach()
        weight = norm.weight.detach()
        return lambda x: F.layer_norm(x, weight.shape, weight, bias, norm.eps)
    if isinstance(norm, RMSNorm):
        weight = norm.weight.detach()
        return lambda x: F.rms_norm(x, weight.shape, weight, norm.eps)
    return lambda x: x  # nn.Identity: no norm on queries and keys


def feed_forward(network: FeedForward) -> Callable[[Tensor], Tensor]:
    """Chapter 5's feed-forward network as a function of (B, D)."""
    up, down = product(network.up), product(network.down)
    if network.kind == "gelu":
        return lambda x: down(F.gelu(up(x), approximate="tanh"))
    if network.kind == "relu2":
        return lambda x: down(F.relu(up(x)).square())
    gate = product(network.gate)
    return lambda x: down(F.silu(gate(x)) * up(x))


@dataclass
class Layer:
    """The steps of one block, each a function of (B, ...), and its part of the cache.

    memory: (2, B, H_kv, S, d), keys and values.
    """

    norm1: Callable
    qkv: Callable
    q_norm: Callable
    k_norm: Callable
    out: Callable
    norm2: Callable
    feed_forward: Callable
    memory: Tensor

    @classmethod
    def of(cls, block: Block, memory: Tensor) -> "Layer":
        """The parts of a block of chapter 5."""
        a = block.attention
        return cls(
            normalization(block.norm1), product(a.qkv), normalization(a.q_norm),
            normalization(a.k_norm), product(a.out), normalization(block.norm2),
            feed_forward(block.feed_forward), memory,
        )  # fmt: skip


KNOWN = (
    GPT, Block, CausalSelfAttention, FeedForward, LayerNorm, RMSNorm, TokenEmbedding,
    LearnedPositions, nn.Linear, OneDNNLinear, nn.Dropout, nn.Identity, nn.ModuleList,
)  # fmt: skip


def can_decode(model: nn.Module) -> bool:
    """Whether a Decoder computes what the model does: its parts are all the course's.

    It is a GPT, and every part of it is of a type in KNOWN, has no forward hooks and no
    `forward` set on itself. A subclass is not: it may compute something else.
    """
    return type(model) is GPT and all(
        type(part) in KNOWN
        and not (part._forward_hooks or part._forward_pre_hooks)
        and "forward" not in vars(part)
        for part in model.modules()
    )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterward the mode that the model was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class PlainDecoder:
    """Texts of one length that grow by one token at a time, by `model(ids, cache)`.

    For a model with parts of its own. Its methods are those of Decoder.
    """

    def __init__(self, model: GPT, batch_size: int, max_length: int) -> None:
        table = model.tokens.weight
        self.model = model
        self.cache = KVCache(
            model.config, batch_size, max_length, device=table.device, dtype=table.dtype
        )

    @torch.no_grad()
    def read(self, texts: list[Tensor]) -> Tensor:
        """Start over with these texts, (T,) each and of one length: the logits after
        each, (B, V), without dropout."""
        self.cache.restart()
        ids = torch.stack(texts).to(self.cache.memory.device)  # (B, T)
        with evaluating(self.model):
            return self.model(ids, self.cache, last_only=True)[:, -1]  # (B, V)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """One more token for each row, (B,): the logits after it, (B, V), without
        dropout. ValueError if the cache is full."""
        with evaluating(self.model):
            return self.model(tokens[:, None], self.cache, last_only=True)[:, -1]


class Decoder:
    """Texts, one per row, that grow by one token at a time, each with its own length.

    It equals `model(ids, cache)` up to rounding, without dropout, and holds the
    model's own weights, not copies. `lengths`: how many tokens each row holds.
    TypeError for a model that can_decode refuses.
    """

    def __init__(self, model: GPT, batch_size: int, max_length: int) -> None:
        if not can_decode(model):
            raise TypeError("model must be a GPT of chapter 5 with its own parts; for "
                            "any other, call model(ids, cache)")  # fmt: skip
        self.model, self.config = model, model.config
        self.table = model.tokens.weight.detach()  # (V, D)
        device, dtype = self.table.device, self.table.dtype
        self.cache = KVCache(
            model.config, batch_size, max_length, device=device, dtype=dtype
        )
        blocks = [block for block in model.blocks if isinstance(block, Block)]
        pairs = zip(blocks, self.cache.memory, strict=True)
        self.layers = [Layer.of(block, memory) for block, memory in pairs]
        self.norm, self.head = normalization(model.norm), product(model.head)
        widest = max(p.numel() for p in model.blocks.parameters())
        # For less work, waking a second thread takes longer than it saves.
        self.one_thread = batch_size * widest < LARGE and self.table.is_cpu
        self.rows = torch.arange(batch_size, device=device)  # (B,)
        self.slots = torch.arange(max_length, device=device)  # (S,)
        self.lengths = [0] * batch_size  # how many tokens each row holds
        self.vectors, self.angles = self._positions()  # to add, to turn; or None

    def _positions(self) -> tuple[Tensor | None, Tensor | None]:
        """Vectors to add, (S, D), or rotations of feature pairs, (S, d/2) complex."""
        kind, d = self.config.positions, self.config.head_width
        if kind == "learned":
            return self.model.positions.weight.detach(), None
        if kind == "sinusoidal":
            return self.model.waves.to(self.table.dtype), None
        if kind == "none":
            return None, None
        ones = torch.tensor([1.0, 0.0], device=self.table.device).repeat(d // 2)
        ones = ones.expand(len(self.slots), d)  # pairs of length 1, not yet turned
        base, scaling = self.config.rope_base, self.config.rope_scaling
        turned = rotate(ones, self.slots, base=base, scaling=scaling)  # (S, d)
        return None, torch.view_as_complex(turned.unflatten(-1, (-1, 2)).contiguous())

    @torch.no_grad()
    def read(self, texts: list[Tensor]) -> Tensor:
        """Start over with these texts, (T,) each: the logits after each, (B, V).

        All are read at once. Short ones are padded on the right, where no token looks,
        and what is stored for the padding is overwritten as the row grows. ValueError
        for a text longer than max_length.
        """
        device, longest = self.table.device, max(map(len, texts))
        padded = [F.pad(text, (0, longest - len(text))) for text in texts]
        ids = torch.stack(padded).to(device)  # (B, T)
        self.cache.restart()
        with evaluating(self.model):
            logits = self.model(ids, self.cache, last_only=True)[:, -1]  # (B, V)
        self.lengths = [len(text) for text in texts]
        if min(self.lengths) == longest:
            return logits
        self.lengths = [n - 1 for n in self.lengths]  # read each one's last token again
        return self.step(torch.stack([text[-1] for text in texts]).to(device))

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """One more token for each row, (B,): the logits after it, (B, V).

        ValueError if a row holds max_length tokens already; then nothing is stored.
        """
        last = max(self.lengths)
        if last == len(self.slots):
            raise ValueError(f"max_length={last}: the cache has no room for more")
        at: int | Tensor = last
        span = 0
        if min(self.lengths) < last:
            at = torch.tensor(self.lengths).to(self.table.device, non_blocking=True)
            span = last + 1
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1 if self.one_thread else threads)
            logits = self.forward(tokens, at, span)
        finally:
            torch.set_num_threads(threads)
        self.lengths = [n + 1 for n in self.lengths]
        for layer in self.cache.layers:
            layer.length = last + 1
        return logits

    def forward(self, tokens: Tensor, at: int | Tensor, span: int = 0) -> Tensor:
        """tokens (B,) at position `at`, the same for all or (B,) -> logits (B, V).

        With a tensor, attention covers the first `span` positions, and a mask hides all
        beyond a row's own; span = max_length gives every call the same shapes.
        """
        x = F.embedding(tokens, self.table)  # (B, D)
        if self.vectors is not None:
            x = x + self.vectors[at]
        turn, mask = None, None
        if self.angles is not None:
            turn = self.angles[at].view(-1, 1, 1, self.angles.shape[1])
        if isinstance(at, Tensor):
            mask = (self.slots[:span] <= at[:, None])[:, None, None]  # (B, 1, 1, span)
        for layer in self.layers:
            x = x + layer.out(self._attend(layer, layer.norm1(x), at, turn, mask))
            x = x + layer.feed_forward(layer.norm2(x))  # (B, D)
        return self.head(self.norm(x))

    def _attend(
        self, layer: Layer, x: Tensor, at: int | Tensor, turn: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Heads of the new token over all stored ones: (B, D) -> (B, H d).

        at: its position, an int or (B,). turn: its rotation, complex (1 or B, 1, 1,
        d/2), or None. mask: as `forward` makes it, or None where `at` is an int.
        """
        c, B = self.config, len(x)
        H, shared, d = c.n_heads, c.kv_heads, c.head_width
        heads = layer.qkv(x).view(B, H + 2 * shared, 1, d)
        q, k = heads[:, :H], heads[:, H : H + shared]
        new = heads[:, H:].view(B, 2, shared, d)  # keys, then values
        if c.qk_norm or turn is not None:
            q, k = layer.q_norm(q), layer.k_norm(k)
            q, k = (t if turn is None else turned(t, turn) for t in (q, k))
            new = torch.stack([k.squeeze(2), new[:, 1]], dim=1)
        if mask is None:
            layer.memory[..., at, :] = new.transpose(0, 1)
            keys, values = layer.memory[..., : at + 1, :].unbind()
        else:
            layer.memory[:, self.rows, :, at] = new
            keys, values = layer.memory[..., : mask.shape[-1], :].unbind()
        y = F.scaled_dot_product_attention(
            q, keys, values, mask, enable_gqa=shared < H
        )  # (B, H, 1, d)
        return y.flatten(1)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate pairs of features, taken as complex numbers: (B, H, 1, d) -> the same.

    turn: a rotation for each pair, complex of length 1, (1 or B, 1, 1, d/2).
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
