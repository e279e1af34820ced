"""Generation: from a trained model to text, and to and from the world's file format.

GPT-2's folder format in and out, sampling from the next-token distribution, the cache
of keys and values, batches of prompts, streaming. It deals in token ids and knows
nothing of text. Built in chapters/07_generation.ipynb.
"""

import itertools
import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from .attention import LayerCache
from .gpt import GPT, GPTConfig


NAMES = {  # ours -> GPT-2's, replaced in this order
    "blocks.": "h.", "norm1": "ln_1", "norm2": "ln_2", "norm.": "ln_f.",
    "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj",
    "tokens.": "wte.", "positions.": "wpe.", "head.": "lm_head.",
}  # fmt: skip


def gpt2_name(name: str) -> str:
    """What GPT-2 calls a parameter of ours: blocks.3.norm1.bias -> h.3.ln_1.bias."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def turned(name: str, value: Tensor) -> Tensor:
    """From our layout to GPT-2's, or back: matrices of the blocks are transposed."""
    return value.T if name.startswith("blocks.") and value.ndim == 2 else value


FIELDS = {  # our sizes -> config.json's
    "vocab_size": "vocab_size", "context_length": "n_positions",
    "d_model": "n_embd", "n_layers": "n_layer", "n_heads": "n_head",
}  # fmt: skip
FIXED = {  # what config.json may say of things that this model has no switch for
    "model_type": ["gpt2"], "activation_function": ["gelu_new", "gelu_pytorch_tanh"],
    "layer_norm_epsilon": [1e-5], "scale_attn_weights": [True],
    "scale_attn_by_inverse_layer_idx": [False], "add_cross_attention": [False],
}  # fmt: skip


def _read_config(raw: dict) -> GPTConfig:
    for field, allowed in FIXED.items():
        if raw.get(field, allowed[0]) not in allowed:
            raise ValueError(f"{field}={raw[field]!r}, but must be {allowed[0]!r}")
    sizes = {ours: raw[theirs] for ours, theirs in FIELDS.items()}
    tied, bias = raw.get("tie_word_embeddings", True), raw.get("bias", True)
    dropout = raw.get("resid_pdrop", 0.1)
    return GPTConfig(**sizes, dropout=dropout, bias=bias, tie_embeddings=tied)


@torch.no_grad()
def _fill(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Copy GPT-2's tensors into the model; each must be there, fit, and find its place.

    OpenAI's own files lack the prefix "transformer." of later ones.
    """
    tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    for name, p in model.named_parameters():
        key, ours = gpt2_name(name), tuple(turned(name, p).shape)
        theirs = tuple(tensors[key].shape) if key in tensors else "none"
        if ours != theirs:
            raise ValueError(f"{key} has shape {theirs}, but config.json says {ours}")
        p.copy_(turned(name, tensors.pop(key)))
    # No weights: the masks in older files, and a head that is stored though it is tied.
    known = (".attn.bias", ".attn.masked_bias", "lm_head.weight")
    left = [name for name, t in tensors.items() if t.any() and not name.endswith(known)]
    if left:
        raise ValueError(f"config.json leaves no place for {', '.join(left)}")


def load_gpt2(path: str | Path) -> GPT:
    """A model from a Hugging Face GPT-2 folder: config.json and model.safetensors.

    The weights become fp32, on the CPU; the model is in evaluation mode. ValueError,
    naming what is wrong, for a folder that lacks a file, for damaged ones, for another
    architecture and for other names or shapes.
    """
    wrong = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)
    try:
        config = _read_config(json.loads(Path(path, "config.json").read_text("utf-8")))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = GPT(config).float()  # the weights it draws are overwritten
        _fill(model, load_file(Path(path, "model.safetensors")))
    except wrong as error:
        raise ValueError(f"{path=!s}: {type(error).__name__}: {error}") from None
    return model.eval()


def from_pretrained(path: str | Path) -> GPT:
    """The model that save_pretrained wrote, or another GPT-2 folder (see load_gpt2)."""
    return load_gpt2(path)


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """The k likeliest of (..., V), scaled to sum to 1; elsewhere 0 (Fan et al. 2018).

    Of equal ones the smaller ids stay. A k above V keeps all.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"top_k={k!r} must be an int of at least 1, or None for all")
    order = probs.argsort(dim=-1, descending=True, stable=True)
    probs = probs.scatter(-1, order[..., k:], 0.0)
    return probs / probs.sum(-1, keepdim=True)


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """The fewest of (..., V) that reach p together, scaled to sum to 1; elsewhere 0.

    At least one stays; p = 1 changes nothing (nucleus sampling, Holtzman et al. 2020).
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p} must be above 0 and at most 1, or None for all")
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # what the likelier ones add up to
    kept = ordered.masked_fill((before >= p) & (p < 1), 0.0)
    probs = torch.zeros_like(probs).scatter(-1, order, kept)
    return probs / probs.sum(-1, keepdim=True)


def next_token_distribution(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:  # fmt: skip
    """Logits (..., V) -> the probabilities (..., V) to draw the next token from, fp32.

    temperature divides the logits: below 1 sharper, above 1 flatter, 0 greedy (of equal
    logits the smallest id). Then top_k, then top_p cut off the tail: see keep_top_k and
    keep_top_p. ValueError for a setting out of range and for logits that hold NaN.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be a number, at least 0")
    highest, best = logits.float().max(-1, keepdim=True)  # (..., 1)
    if not highest.isfinite().all():
        raise ValueError("logits holds NaN, infinity, or a row of only -infinity")
    # Subtracting first keeps tiny temperatures from overflowing.
    scaled = (logits - highest) / max(temperature, torch.finfo(torch.float32).tiny)
    probs = scaled.softmax(-1)
    if temperature == 0:
        probs = torch.zeros_like(probs).scatter(-1, best, 1.0)
    if top_k is not None:
        probs = keep_top_k(probs, top_k)
    return keep_top_p(probs, top_p) if top_p is not None else probs


def draw(probs: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One index a row, each with its probability: (..., V) -> (...) int64, on the CPU.

    A uniform number picks a point on a stick on which each token has a stretch as long
    as its probability. Rows need not sum to 1; ValueError where nothing can be drawn.
    """
    edges = probs.cpu().double().cumsum(-1)  # (..., V), right ends of the stretches
    length = edges[..., -1:]  # (..., 1)
    if not ((probs >= 0).all() and (length > 0).all() and length.isfinite().all()):
        raise ValueError("probs must be at least 0, and in each row some above 0")
    device = generator.device if generator is not None else "cpu"
    point = torch.empty_like(length, device=device).uniform_(generator=generator)
    return torch.searchsorted(edges, point.cpu() * length, right=True).squeeze(-1)


class KVCache:
    """What every layer remembers of the text so far, so that it is read only once.

    Holds 2 * n_layers * batch_size * max_length * kv_heads * head_width numbers of
    type `dtype`. `start`: the place in the text of the first position stored.
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
        memory = torch.zeros(shape, device=device, dtype=dtype)
        self.start, self.layers = 0, [LayerCache(k, v) for k, v in memory]

    @property
    def length(self) -> int:
        """How many positions are stored."""
        return self.layers[0].length

    def restart(self, start: int) -> None:
        """Forget all, and begin again with the position `start` of the text."""
        self.start = start
        for layer in self.layers:
            layer.length = 0


def window_start(length: int, context_length: int) -> int:
    """Where the part of a text begins that the model sees when it continues it.

    A text that outgrows the context loses its oldest half context at once, so that a
    cache can be kept for the next half context instead of moving at every token.
    """
    half = max(1, context_length // 2)
    return max(0, math.ceil((length - context_length) / half) * half)


def _next_logits(model: GPT, ids: Tensor, cache: KVCache | None) -> Tensor:
    """Scores of the token after `ids`, (B, t) -> (B, V).

    With a cache only what it does not hold yet is read. It must be the same text as
    before, grown; when the window moves, the cache starts again.
    """
    start = window_start(ids.shape[1], model.config.context_length)
    if cache is not None and start != cache.start:
        cache.restart(start)
    start += cache.length if cache is not None else 0
    was_training = model.training
    model.eval()
    try:
        new = ids[:, start:].to(model.tokens.weight.device)
        return model(new, cache, last_only=True)[:, -1]  # (B, V)
    finally:
        model.train(was_training)


@torch.no_grad()
def _columns(
    model: GPT, prompts: list[Tensor], n: int, use_cache: bool, generator, settings
) -> Iterator[list[int | None]]:
    """A new token for each row, again and again; None for a row inside its prompt.

    Ends when the row with the longest prompt has `n` new tokens.
    """
    total, weight = max(map(len, prompts)) + n, model.tokens.weight
    # -1 marks the places still to be written: (B, total)
    ids = torch.stack([F.pad(row, (0, total - len(row)), value=-1) for row in prompts])
    room = (len(prompts), min(model.config.context_length, total))
    kind = {"device": weight.device, "dtype": weight.dtype}
    cache = KVCache(model.config, *room, **kind) if use_cache else None
    for t in range(min(map(len, prompts)), total):
        logits = _next_logits(model, ids[:, :t], cache)  # (B, V)
        probs = next_token_distribution(logits, **settings)
        drawn = draw(probs, generator=generator)  # (B,)
        inside = ids[:, t] >= 0
        ids[:, t] = torch.where(inside, ids[:, t], drawn)
        yield [None if i else token for i, token in zip(inside, drawn.tolist())]


def _check_ids(name: str, ids: Collection[int], V: int) -> None:
    bad = [token for token in ids if token not in range(V)]
    if bad:
        raise ValueError(f"{name} holds {bad[0]!r}, but ids are integers in 0..{V - 1}")


def _checked(model: GPT, ids, n: int, stop_ids, generator, settings) -> list[Tensor]:
    """The prompts as int64 tensors, or an error that says what is wrong with what."""
    V, C = model.config.vocab_size, model.config.context_length
    rows = [torch.as_tensor(prompt).cpu() for prompt in ids]
    if not rows:
        raise ValueError("ids is empty; give at least one prompt")
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise TypeError(f"ids[{i}] must be a list of ids; wrap a single one: [ids]")
        if not 1 <= len(row) <= C:
            raise ValueError(f"ids[{i}]: {len(row)} tokens, not 1..context_length={C}")
        _check_ids(f"ids[{i}]", row.tolist(), V)
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"max_new_tokens={n!r} must be an int, 0 or more")
    if not isinstance(stop_ids, Collection):
        raise TypeError(f"{stop_ids=} must be a collection, as [{stop_ids!r}]")
    _check_ids("stop_ids", stop_ids, V)
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"{generator=} must be a torch.Generator or None")
    next_token_distribution(torch.zeros(1), **settings)  # a bad setting fails here
    return [row.long() for row in rows]


def generate(
    model: GPT, ids: Tensor | list[list[int]], max_new_tokens: int, *,
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    stop_ids: Collection[int] = (), generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Tensor | list[list[int]]:  # fmt: skip
    """Continue prompts by up to `max_new_tokens` tokens each.

    ids: (B, T) int64, or a list of prompts of any lengths. Returns prompts and
    continuations: a tensor (B, T + max_new_tokens) for a tensor without stop_ids, else
    a list of lists. A row ends before a stop id, which is left out. The cache changes
    the speed, not the tokens; for texts beyond context_length see window_start.
    ValueError or TypeError for an empty prompt, one above context_length, ids that do
    not exist, and settings out of range (see next_token_distribution).
    """
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    prompts = _checked(model, ids, max_new_tokens, stop_ids, generator, settings)
    columns = _columns(model, prompts, max_new_tokens, use_cache, generator, settings)
    rows = [prompt.tolist() for prompt in prompts]
    ends = [len(row) + max_new_tokens for row in rows]
    running = set(range(len(rows))) if max_new_tokens else set()
    while running:
        for i, token in enumerate(next(columns)):
            if i in running and token is not None:
                if token not in stop_ids:
                    rows[i].append(token)
                if token in stop_ids or len(rows[i]) == ends[i]:
                    running.remove(i)
    as_tensor = isinstance(ids, Tensor) and not stop_ids
    return torch.tensor(rows, device=ids.device) if as_tensor else rows


def stream(
    model: GPT, ids: Tensor | list[int], max_new_tokens: int, *,
    stop_ids: Collection[int] = (), generator: torch.Generator | None = None,
    use_cache: bool = True, **settings,
) -> Iterator[int]:  # fmt: skip
    """Yield the continuation of one prompt, (T,) or (1, T), as its tokens are drawn.

    settings: temperature, top_k, top_p. Tokens and errors are those of generate; errors
    come before the first token.
    """
    ids = [ids] if not isinstance(ids, Tensor) or ids.ndim == 1 else ids
    prompts = _checked(model, ids, max_new_tokens, stop_ids, generator, settings)
    if len(prompts) > 1:
        raise ValueError(f"ids holds {len(prompts)} prompts; stream takes one")
    columns = _columns(model, prompts, max_new_tokens, use_cache, generator, settings)
    return itertools.takewhile(lambda t: t not in stop_ids, (t for (t,) in columns))


def _gpt2_tensors(model: GPT) -> dict[str, Tensor]:
    """The model's numbers under GPT-2's names; missing biases as 0, as it has them."""
    tensors = {}
    for name, p in model.named_parameters():
        prefix = "" if name == "head.weight" else "transformer."
        tensors[prefix + gpt2_name(name)] = turned(name, p.detach().cpu()).contiguous()
        if not model.config.bias and name.startswith(("blocks.", "norm.")):
            bias = gpt2_name(name.removesuffix("weight") + "bias")
            tensors[prefix + bias] = torch.zeros(len(p), dtype=p.dtype)
    return tensors


def save_pretrained(model: GPT, path: str | Path, tokenizer=None) -> None:
    """Write the folder that Hugging Face's GPT2LMHeadModel.from_pretrained reads.

    config.json, model.safetensors in the model's own dtype and, with a tokenizer
    (chapter 2's, or any with n_vocab, special_tokens and save), tokenizer.json.
    """
    c, folder = model.config, Path(path)
    sizes = (c.vocab_size, c.context_length, c.d_model, c.n_layers, c.n_heads)
    if c != GPTConfig(*sizes, c.dropout, c.bias, c.tie_embeddings):
        raise ValueError(f"model: GPT-2's format has no place for {c}")
    if tokenizer is not None and tokenizer.n_vocab > c.vocab_size:
        raise ValueError(f"tokenizer: {tokenizer.n_vocab} tokens, not {c.vocab_size}")
    folder.mkdir(parents=True, exist_ok=True)
    end_id = tokenizer and tokenizer.special_tokens.get("<|endoftext|>")
    raw = {"architectures": ["GPT2LMHeadModel"]}
    raw |= {field: allowed[0] for field, allowed in FIXED.items()}
    raw |= {theirs: getattr(c, ours) for ours, theirs in FIELDS.items()}
    raw |= dict.fromkeys(["resid_pdrop", "attn_pdrop", "embd_pdrop"], c.dropout)
    raw |= {"tie_word_embeddings": c.tie_embeddings, "bias": c.bias}
    raw |= dict.fromkeys(["bos_token_id", "eos_token_id"], end_id)
    files = {"config.json": (json.dumps(raw, indent=2) + "\n").encode()}
    files["model.safetensors"] = save(_gpt2_tensors(model), metadata={"format": "pt"})
    for name, data in files.items():  # a half-written file never has the name
        (folder / f"{name}.part").write_bytes(data)
        (folder / f"{name}.part").replace(folder / name)
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
