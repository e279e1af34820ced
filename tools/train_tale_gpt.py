"""Train the model of data/tale-gpt for an hour: chapter 6's recipe in GPT-2's shape.

    python tools/train_tale_gpt.py --out data/runs/tale-gpt

The model has GPT-2's blocks, so every program that reads a GPT-2 can read it. From
chapter 6 come Muon, outputs that start at zero, averaged weights, and bfloat16 where
the processor has it. Each pass reads the documents in a new order, cut into windows at
other positions. The first seven tenths of the steps learn from all three texts, the
rest from the tales alone. A tenth of the tales is held out, as in chapter 6, and the
averaged weights that predict it best are kept. If the run is killed, the same command
resumes it from its last checkpoint.
"""

import argparse
import copy
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np
import torch
from torch import Tensor

from solutions.bpe import BPETokenizer, train_bpe
from solutions.checkpoint import (
    has_checkpoint,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from solutions.generation import save_pretrained
from solutions.gpt import GPT, GPTConfig
from solutions.linear import use_onednn
from solutions.optimization import Muon, muon_groups
from solutions.pretraining import bits_per_byte, cross_entropy, evaluate
from solutions.text_data import (
    clean_text,
    load_text,
    split_documents,
    train_val_split,
    windows,
)

DATA = Path(__file__).resolve().parent.parent / "data"
END = "<|endoftext|>"
SIZES = {"context_length": 256, "d_model": 160, "n_layers": 8, "n_heads": 5}
VOCAB, BATCH, DROPOUT = 2048, 16, 0.1
RATE, MUON_RATE, DECAY = 0.004, 0.03, 0.2  # decay of the matrices that Muon moves
WARMUP = 0.02  # share of the steps; after it the rates fall linearly to 0
KEEP = 0.995  # of the average of the weights, at each step
ALL_TEXTS = 0.7  # share of the steps that learn from all three texts
EVERY = 250  # steps from one evaluation and checkpoint to the next


def documents_of(name: str) -> list[str]:
    return split_documents(clean_text(load_text(DATA / name)))


def held_out_split(seed: int = 1) -> tuple[list[str], list[str]]:
    """The tales to learn from, and the tenth that chapter 6 holds out."""
    draw = torch.Generator().manual_seed(seed)
    return train_val_split(documents_of("tales.txt"), 0.1, generator=draw)


def initialize(model: GPT) -> None:
    """What reads the residual stream starts by width; what writes to it, at 0."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("qkv.weight", "up.weight")):
                p.mul_(0.5 * p.shape[1] ** -0.5 / 0.02)
            elif name.endswith(("out.weight", "down.weight")):
                p.zero_()


def passes(parts: list[list], seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One batch per step. parts: ids by document, of the tales and of other texts."""
    made = 0
    for number in itertools.count():
        draw = torch.Generator().manual_seed(1000 * seed + number)
        alone = made >= ALL_TEXTS * steps
        chosen = parts[0] if alone else [*parts[0], *parts[1]]
        order = torch.randperm(len(chosen), generator=draw).tolist()
        tokens = np.concatenate([chosen[i] for i in order])
        start = int(torch.randint(SIZES["context_length"], (1,), generator=draw))
        x, y = windows(tokens[start:], SIZES["context_length"])
        mixed = torch.randperm(len(x), generator=draw)
        for rows in mixed[: len(x) // BATCH * BATCH].split(BATCH):
            yield x[rows], y[rows]
            made += 1


def rate_at(done: float) -> float:
    """Share of the highest rate: up over WARMUP, then linearly down."""
    return min((done + 0.001) / WARMUP, (1 - done) / (1 - WARMUP))


class Training:
    """A model, the running average of its weights, and how to resume at any step."""

    def __init__(self, steps: int, seed: int, tokenizer: BPETokenizer) -> None:
        self.steps, self.seed, self.step = steps, seed, 0
        config = GPTConfig(tokenizer.n_vocab, **SIZES, dropout=DROPOUT)
        self.model = GPT(config, generator=torch.Generator().manual_seed(seed))
        initialize(self.model)
        for block in self.model.blocks:
            block.attention.dropout = 0.0  # on a CPU it takes as long as all the rest
        self.average = copy.deepcopy(self.model)
        self.half = torch.cpu.get_capabilities().get("avx512_bf16", False)
        if not self.half:
            use_onednn(self.model)
        groups = muon_groups(self.model, DECAY, lr_scale=MUON_RATE / RATE)
        kind = torch.bfloat16 if self.half else torch.float32
        self.optimizer = Muon(groups, eps=1e-10, dtype=kind)

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # for dropout
        for group in self.optimizer.param_groups:
            scale = group.get("lr_scale", 1.0)
            group["lr"] = RATE * scale * rate_at(self.step / self.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            logits = self.model(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        keep = min(KEEP, self.step / (self.step + 10))
        with torch.no_grad():
            pairs = [list(m.parameters()) for m in (self.average, self.model)]
            torch._foreach_lerp_(*pairs, 1 - keep)
        return loss.detach()

    def save(self, folder: Path, best: float) -> None:
        average = dict(self.average.named_parameters())
        average = {name: p.detach() for name, p in average.items()}
        where, kept = folder / "checkpoint", {"average": average, "best": best}
        save_checkpoint(where, self.model, self.optimizer, self.step, **kept)

    def go_on(self, folder: Path) -> float:
        """Load the state of a checkpoint, if there is one; the best value so far."""
        if not has_checkpoint(folder / "checkpoint"):
            return math.inf
        saved = read_checkpoint(folder / "checkpoint")
        self.step = restore(saved, self.model, self.optimizer)
        with torch.no_grad():
            for name, p in self.average.named_parameters():
                p.copy_(saved["extra"]["average"][name])
        return saved["extra"]["best"]


def run(out: Path, steps: int, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    train_docs, val_docs = held_out_split()
    vocabulary = out / "tokenizer.json"
    if not vocabulary.exists():
        train_bpe(train_docs, VOCAB, special_tokens=[END]).save(vocabulary)
    tokenizer = BPETokenizer.load(vocabulary)
    end = tokenizer.special_tokens[END]
    others = documents_of("rich_tales.txt") + documents_of("long_tales.txt")
    parts = [
        [np.array([end, *tokenizer.encode(d)]) for d in docs]
        for docs in (train_docs, others)
    ]
    val = [i for d in val_docs for i in [*tokenizer.encode(d), end]]
    n_bytes = sum(len(d.encode("utf-8")) for d in val_docs)
    n_bytes -= len(tokenizer.decode_bytes(val[:1]))  # nothing predicts the first token
    training = Training(steps, seed, tokenizer)
    best = training.go_on(out)
    batches = itertools.islice(passes(parts, seed, steps), training.step, None)
    losses, began = [], time.perf_counter()
    while training.step < steps:
        losses.append(training.advance(*next(batches)))
        if training.step % EVERY and training.step < steps:
            continue
        nats = evaluate(training.average, val)
        bits = bits_per_byte(nats, len(val) - 1, n_bytes)
        if bits < best:
            best = bits
            half = copy.deepcopy(training.average).to(torch.bfloat16)
            save_pretrained(half, out, tokenizer)
        loss = torch.stack(losses).mean().item()
        row = {"step": training.step, "loss": round(loss, 4), "bits": round(bits, 4)}
        row["seconds"] = round(time.perf_counter() - began)
        with (out / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps(row), file=log)
        print(row, flush=True)
        losses = []
        training.save(out, best)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="the folder to write")
    p.add_argument("--steps", type=int, default=8_000, help="of 4,096 tokens each")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.steps < 1:
        message = f"--steps {args.steps} must be at least 1"
        print(f"train_tale_gpt: {message}", file=sys.stderr)
        return 2
    run(args.out, args.steps, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
