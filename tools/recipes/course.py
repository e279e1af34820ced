"""The course's recipe: what chapter 6 found, made of the parts that the course built.

It has byte pairs, rotary positions, QK-norm, squared ReLU, outputs that start at zero,
Muon, every window of the text once per pass, averaged weights, and bfloat16 where the
processor has it. See tools/race.py for what a recipe is; to make your own, copy this
file and change it.
"""

import copy
from collections.abc import Callable, Iterator

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
from torch import Tensor, nn

from solutions.bpe import BPETokenizer, train_bpe
from solutions.gpt import GPT, GPTConfig, LayerNorm
from solutions.linear import use_onednn
from solutions.optimization import Muon, muon_groups
from solutions.pretraining import cross_entropy
from solutions.text_data import windows

VOCAB, CONTEXT, BATCH = 697, 96, 32
RATE, MUON_RATE, DECAY = 0.008, 0.05, 0.2  # decay of the matrices that Muon moves
WARMUP = 0.04  # share of the time; after it the rates fall linearly to 0
KEEP = 0.98  # of the average of the weights, at each step


def build(text: str, seed: int) -> tuple[BPETokenizer, GPT]:
    tokenizer = train_bpe(text, VOCAB)
    config = GPTConfig(
        tokenizer.n_vocab, CONTEXT, d_model=192, n_layers=4, n_heads=6, bias=False,
        tie_embeddings=False, positions="rotary", qk_norm=True, mlp="relu2",
    )  # fmt: skip
    model = GPT(config, generator=torch.Generator().manual_seed(seed))
    # Normalized, a token's vector is as long as what the blocks add to it.
    model.tokens = nn.Sequential(model.tokens, LayerNorm(192, bias=False))
    initialize(model)
    return tokenizer, model


@torch.no_grad()
def initialize(model: GPT) -> None:
    """What reads the residual stream starts by width; what writes to it, at 0."""
    for name, p in model.named_parameters():
        if name.endswith(("qkv.weight", "up.weight")):
            p.mul_(0.5 * p.shape[1] ** -0.5 / 0.02)
        elif name.endswith(("out.weight", "down.weight", "head.weight")):
            p.zero_()
        elif name.endswith("q_norm.weight"):
            p.fill_(1.5)  # scores of unit vectors alone would leave attention flat
        p.requires_grad_(p.ndim > 1)  # learned scales gain nothing and take 3% longer


def shuffled(tokens, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of windows in random order, cut at other positions in each pass."""
    while True:
        start = int(torch.randint(CONTEXT, (1,), generator=draw))
        x, y = windows(tokens[start:], CONTEXT)
        order = torch.randperm(len(x), generator=draw)
        for rows in order[: max(1, len(x) // BATCH) * BATCH].split(BATCH):
            yield x[rows], y[rows]


def make_step(model: GPT, tokens, seed: int) -> Callable[[float], Tensor]:
    """Train a twin; `model` becomes the running average of the twin's weights."""
    twin = copy.deepcopy(model)
    half = torch.cpu.get_capabilities().get("avx512_bf16", False)
    if not half:
        use_onednn(twin)
    groups = muon_groups(twin, DECAY, lr_scale=MUON_RATE / RATE)
    optimizer = Muon(groups, eps=1e-10, dtype=torch.bfloat16 if half else torch.float32)
    batches = shuffled(tokens, torch.Generator().manual_seed(seed))
    average, weights = list(model.parameters()), list(twin.parameters())

    def step(done: float) -> Tensor:
        rate = RATE * min((done + 0.002) / WARMUP, (1 - done) / (1 - WARMUP))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        x, y = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = twin(x)  # (B, T, V)
        loss = cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - KEEP)
        return loss.detach()

    return step
