"""Generation: from a trained model to text.

Sampling from the next-token distribution, batches of prompts, texts beyond the context,
streaming. It deals in token ids and knows nothing of text. Built in
chapters/07_generation.ipynb.
"""

import itertools
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .decoding import (  # noqa: F401
    Decoder, KVCache, PlainDecoder, can_decode, evaluating,
)
from .gpt import GPT
from .pretrained import (  # noqa: F401
    from_pretrained, load_gpt2, save_pretrained, unwrapped,
)

__all__ = [
    "KVCache", "choose", "draw", "from_pretrained", "generate", "keep_min_p",
    "keep_top_k", "keep_top_p", "load_gpt2", "next_token_distribution",
    "penalize_repeats", "read_again", "save_pretrained", "stream", "window_start",
]  # fmt: skip


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """The k likeliest of (..., V), scaled to sum to 1; elsewhere 0 (Fan et al. 2018).

    Those that tie with the k-th stay as well. A k above V keeps all.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"top_k={k!r} must be an int of at least 1, or None for all")
    kth = probs.topk(min(k, probs.shape[-1]), dim=-1).values[..., -1:]  # (..., 1)
    kept = probs.masked_fill(probs < kth, 0.0)
    return kept / kept.sum(-1, keepdim=True)


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """The fewest of (..., V) that together reach p, scaled to sum to 1; elsewhere 0.

    At least one stays. Among equal ones torch.sort decides, as in transformers. p = 1
    changes nothing (nucleus sampling, Holtzman et al. 2020).
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p} must be above 0 and at most 1, or None for all")
    if p == 1:
        return probs
    ordered, order = probs.sort(dim=-1)  # the likeliest last
    upto = ordered.cumsum(-1)  # the sum of it and all that are less likely
    upto[..., -1] = math.inf
    kept = ordered.masked_fill(upto <= 1 - p, 0.0)
    probs = torch.zeros_like(probs).scatter(-1, order, kept)
    return probs / probs.sum(-1, keepdim=True)


def keep_min_p(probs: Tensor, share: float) -> Tensor:
    """Those of (..., V) that reach `share` times the likeliest of their row, scaled to
    sum to 1; elsewhere 0 (min-p, Nguyen et al. 2024)."""
    if not 0 <= share <= 1:
        raise ValueError(f"min_p={share} must be from 0 to 1, or None for all")
    kept = probs.masked_fill(probs < share * probs.amax(-1, keepdim=True), 0.0)
    return kept / kept.sum(-1, keepdim=True)


def penalize_repeats(
    logits: Tensor, ids: Tensor | list[list[int]], penalty: float
) -> Tensor:
    """Logits (B, V), lowered once for each token of the row in `ids`, (B, T) or lists.

    Positive ones are divided by the penalty, negative ones multiplied (Keskar et al.
    2019, section 4.1). A penalty of 1 changes nothing; ValueError unless it is above 0.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"repetition_penalty={penalty} must be a number above 0")
    ids = torch.as_tensor(ids, device=logits.device)
    said = logits.gather(-1, ids)  # (B, T)
    said = torch.where(said < 0, said * penalty, said / penalty)
    return logits.scatter(-1, ids, said)


def next_token_distribution(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None,
) -> Tensor:  # fmt: skip
    """Logits (..., V) -> the probabilities (..., V) to draw the next token from, fp32.

    temperature divides the logits: below 1 sharper, above 1 flatter, 0 greedy (of equal
    logits the smallest id). Then top_k, top_p, min_p cut off the tail: see keep_top_k,
    keep_top_p and keep_min_p. ValueError for a setting out of range and for logits that
    hold NaN.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be a number, at least 0")
    logits = logits.float()
    highest, best = logits.max(-1, keepdim=True)  # (..., 1)
    _require_finite(highest)
    # Subtracting first keeps tiny temperatures from overflowing.
    scaled = (logits - highest) / max(temperature, torch.finfo(torch.float32).tiny)
    probs = scaled.softmax(-1)
    if temperature == 0:
        probs = torch.zeros_like(probs).scatter(-1, best, 1.0)
    if top_k is not None:
        probs = keep_top_k(probs, top_k)
    if top_p is not None:
        probs = keep_top_p(probs, top_p)
    return keep_min_p(probs, min_p) if min_p is not None else probs


def _require_finite(highest: Tensor) -> None:
    """highest: the largest logit of each row. ValueError unless all are numbers."""
    if not math.isfinite(highest.sum()):  # the sum is finite only if all are
        raise ValueError("logits holds NaN, infinity, or a row of only -infinity")


def draw(probs: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One index per row, each with its probability: (..., V) -> (...) int64.

    A uniform number, in float64 and one per row, picks a point on a stick on which each
    token has a stretch as long as its probability. Rows need not sum to 1; ValueError
    where nothing can be drawn.
    """
    edges = probs.cpu() if probs.device.type == "mps" else probs  # no float64 there
    edges = edges.double().cumsum(-1)  # (..., V), right ends of the stretches
    length = edges[..., -1:]  # (..., 1)
    if not ((probs >= 0).all() and (length > 0).all() and length.isfinite().all()):
        raise ValueError("probs must be at least 0, and in each row some above 0")
    device = generator.device if generator is not None else "cpu"
    point = torch.empty(length.shape, dtype=torch.float64, device=device)
    point = point.uniform_(generator=generator).to(edges.device)
    found = torch.searchsorted(edges, point * length, right=True).squeeze(-1)
    return found.to(probs.device)


def choose(
    logits: Tensor, ids: Tensor, *, generator: torch.Generator | None = None,
    temperature: float = 1.0, repetition_penalty: float | None = None,
    n_vocab: int | None = None, **cuts: Any,
) -> Tensor:  # fmt: skip
    """The next token of each row: logits (B, V), the texts so far (B, T) -> (B,).

    Greedy is an argmax and draws nothing from the generator. cuts: top_k, top_p, min_p.
    """
    logits = logits[..., :n_vocab]
    if repetition_penalty is not None:
        logits = penalize_repeats(logits, ids, repetition_penalty)
    if temperature == 0:
        highest, best = logits.max(-1)  # of equal ones the smallest id
        _require_finite(highest)
        return best
    probs = next_token_distribution(logits, temperature=temperature, **cuts)
    return draw(probs, generator=generator)


def window_start(length: int, context_length: int) -> int:
    """Where the part of a text begins that the model sees when it continues it.

    A text that outgrows the context loses its oldest half context at once, so that a
    cache serves for the next half context instead of moving at every token.
    """
    half = max(1, context_length // 2)
    return max(0, math.ceil((length - context_length) / half) * half)


@torch.no_grad()
def read_again(model: GPT, texts: list[Tensor]) -> Tensor:
    """Logits of the token after each text, (T,) each of any length: (B, V).

    Without a cache and without dropout; afterward the model is in its mode again.
    """
    longest = max(map(len, texts))
    padded = [F.pad(text, (0, longest - len(text))) for text in texts]
    ids = torch.stack(padded).to(model.tokens.weight.device)  # (B, T)
    with evaluating(model):
        if min(map(len, texts)) == longest:
            return model(ids, last_only=True)[:, -1]
        logits = model(ids)  # (B, T, V)
    return torch.stack([row[len(t) - 1] for row, t in zip(logits, texts)])


class _Texts:
    """Prompts and what has been added to each; `add` makes every text one longer.

    n: how many tokens there is to be room for. cached: with a decoder, where one fits.
    """

    def __init__(self, model: GPT, prompts: list[Tensor], n: int, cached: bool) -> None:
        self.model, self.context = model, model.config.context_length
        self.lengths = [len(prompt) for prompt in prompts]
        longest = max(self.lengths) + n
        # Room still unwritten holds the first token, which a penalty has seen anyway.
        rows = [F.pad(p, (0, longest - len(p)), value=p[0].item()) for p in prompts]
        self.ids = torch.stack(rows).to(model.tokens.weight.device)  # (B, longest)
        self.starts: list[int] | None = None  # what the decoder holds begins there
        self.decoder: Decoder | PlainDecoder | None = None
        size = len(rows), min(self.context, longest)
        if cached and can_decode(model):
            self.decoder = Decoder(model, *size)
        elif cached and len(set(self.lengths)) == 1:
            self.decoder = PlainDecoder(model, *size)

    def logits(self) -> Tensor:
        """Scores of each text's next token, (B, V), from what the model may see."""
        starts = [window_start(n, self.context) for n in self.lengths]
        if self.decoder is not None and starts == self.starts:
            return self.decoder.step(self.last)
        self.starts = starts
        rows = zip(self.ids, starts, self.lengths, strict=True)
        seen = [row[start:end] for row, start, end in rows]
        if self.decoder is not None:
            return self.decoder.read(seen)
        return read_again(self.model, seen)

    def add(self, tokens: Tensor) -> None:
        """Append one token to each text, (B,)."""
        self.last, end = tokens, self.lengths
        if min(end) == max(end):
            self.ids[:, end[0]] = tokens
        else:
            self.ids[range(len(end)), end] = tokens
        self.lengths = [n + 1 for n in end]


def _columns(
    model: GPT, prompts: list[Tensor], n: int, use_cache: bool, settings: dict
) -> Iterator[Tensor]:
    """The next token of every text, (B,), n times; each is computed when asked for.

    settings: what `choose` takes besides logits and ids.
    """
    with torch.inference_mode():
        texts = _Texts(model, prompts, n, use_cache)
    for _ in range(n):
        with torch.inference_mode():  # not around the yield: it would reach the caller
            longest = max(texts.lengths)
            tokens = choose(texts.logits(), texts.ids[:, :longest], **settings)
            texts.add(tokens)
        yield tokens


def _check_ids(name: str, ids: Collection[int], V: int) -> None:
    """ValueError with the first of `ids` that is no integer in 0..V-1."""
    bad = [token for token in ids if token not in range(V)]
    if bad:
        raise ValueError(f"{name} holds {bad[0]!r}, but ids are integers in 0..{V - 1}")


def _checked(
    model: GPT, ids: Tensor | list, n: int, stop_ids: Collection[int], settings: dict
) -> list[Tensor]:
    """The prompts as int64 tensors (T,) on the CPU; ValueError or TypeError, naming the
    argument of `generate` that is wrong."""
    V, C = model.config.vocab_size, model.config.context_length
    rows = [torch.as_tensor(prompt).cpu() for prompt in ids]
    if not rows:
        raise ValueError("ids is empty; give at least one prompt")
    _check_settings(V, **settings)
    n_vocab = settings.get("n_vocab") or V  # checked: not 0
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise TypeError(f"ids[{i}] must be a list of ids; wrap a single one: [ids]")
        if not 1 <= len(row) <= C:
            raise ValueError(f"ids[{i}]: {len(row)} tokens, not 1..context_length={C}")
        _check_ids(f"ids[{i}]", row.tolist(), n_vocab)
    if not isinstance(n, int) or n < 0:
        raise ValueError(f"max_new_tokens={n!r} must be an int, 0 or more")
    if not isinstance(stop_ids, Collection):
        raise TypeError(f"{stop_ids=} must be a collection, as [{stop_ids!r}]")
    _check_ids("stop_ids", stop_ids, V)
    return [row.long() for row in rows]


def _check_settings(
    V: int, *, generator: torch.Generator | None = None, n_vocab: int | None = None,
    repetition_penalty: float | None = None, **settings: Any,
) -> None:  # fmt: skip
    """TypeError or ValueError for a setting that `choose` could not use."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"{generator=} must be a torch.Generator or None")
    if n_vocab is not None and n_vocab not in range(1, V + 1):
        raise ValueError(f"{n_vocab=} must be in 1..vocab_size={V}, or None for all")
    some = torch.zeros(1, 1)  # a bad setting fails here
    penalty = 1.0 if repetition_penalty is None else repetition_penalty
    penalize_repeats(some, [[0]], penalty)
    next_token_distribution(some, **settings)


def generate(
    model: GPT, ids: Tensor | list[list[int]], max_new_tokens: int, *,
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    min_p: float | None = None, repetition_penalty: float | None = None,
    n_vocab: int | None = None, stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None, use_cache: bool = True,
) -> Tensor | list[list[int]]:  # fmt: skip
    """Continue prompts by up to `max_new_tokens` tokens each.

    ids: (B, T) int64, or a list of prompts of any lengths. Returns prompts and
    continuations: a tensor (B, T + max_new_tokens) for a tensor without stop_ids, else
    a list of lists. A row ends before a stop id, which is left out. The cache changes
    the speed, not the tokens; for texts beyond context_length see window_start.

    temperature, top_k, top_p, min_p: see next_token_distribution. repetition_penalty:
    see penalize_repeats. n_vocab: ids from there on, which only pad the vocabulary, are
    never drawn. ValueError or TypeError for an empty prompt, one above context_length,
    ids that do not exist, and settings out of range.
    """
    settings = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "n_vocab": n_vocab,
        "generator": generator,
    }  # fmt: skip
    model = unwrapped(model)
    prompts = _checked(model, ids, max_new_tokens, stop_ids, settings)
    columns = _columns(model, prompts, max_new_tokens, use_cache, settings)
    if isinstance(ids, Tensor) and not stop_ids:
        new = [column.to(ids.device) for column in columns]
        return torch.cat([ids.long(), *(column[:, None] for column in new)], dim=1)
    rows = [prompt.tolist() for prompt in prompts]
    running = set(range(len(rows)))
    for column in columns:
        for i, token in enumerate(column.tolist()):
            if token in stop_ids:
                running.discard(i)
            if i in running:
                rows[i].append(token)
        if not running:
            break
    return rows


def stream(
    model: GPT, ids: Tensor | list[int], max_new_tokens: int, *,
    stop_ids: Collection[int] = (), use_cache: bool = True, **settings: Any,
) -> Iterator[int]:  # fmt: skip
    """Yield the continuation of one prompt, (T,) or (1, T), as its tokens are drawn.

    settings: those of generate. Tokens and errors are generate's, too; errors come
    before the first token.
    """
    model = unwrapped(model)
    rows = [ids] if not isinstance(ids, Tensor) or ids.ndim == 1 else ids
    prompts = _checked(model, rows, max_new_tokens, stop_ids, settings)
    if len(prompts) > 1:
        raise ValueError(f"ids holds {len(prompts)} prompts; stream takes one")
    columns = _columns(model, prompts, max_new_tokens, use_cache, settings)
    tokens = (int(column) for column in columns)
    return itertools.takewhile(lambda token: token not in stop_ids, tokens)
