"""nanoGPT's public recipe for a tiny GPT on a CPU, with which others are compared.

It has characters, 4 layers of width 128, windows of 64 drawn at random, and AdamW with
a warm-up and a cosine; it is 2,000 steps long. It uses PyTorch's own functions, with
their speed. See tools/race.py for what a recipe is.
"""

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
import torch.nn.functional as F

from solutions.gpt import GPT, GPTConfig
from solutions.optimization import cosine_schedule, parameter_groups
from solutions.text_data import CharTokenizer, get_batch

BATCH, STEPS = 12, 2000


def build(text: str, seed: int) -> tuple[CharTokenizer, GPT]:
    tokenizer = CharTokenizer.from_text(text)
    config = GPTConfig(
        tokenizer.vocab_size, context_length=64, d_model=128, n_layers=4, n_heads=4,
        bias=False,
    )  # fmt: skip
    return tokenizer, GPT(config, generator=torch.Generator().manual_seed(seed))


def make_step(model: GPT, tokens, seed: int):
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), betas=(0.9, 0.99))
    draw, T = torch.Generator().manual_seed(seed), model.config.context_length

    def step(done: float) -> None:
        rate = cosine_schedule(
            int(done * STEPS), max_lr=1e-3, min_lr=1e-4, warmup_steps=100,
            total_steps=STEPS,
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, y = get_batch(tokens, BATCH, T, generator=draw)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
