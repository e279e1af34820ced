"""Make the runs behind the comparisons of chapters 3 and 5, for data/studies/.

    python tools/study_parts.py positions   # five ways to encode positions
    python tools/study_parts.py blocks      # shortcuts and norms, removed or moved
    python tools/study_parts.py modern      # what came after GPT-2, one by one

Every contender gets its own learning rate. Rates a factor of 2 apart are tried with
seed 0 until the best is no longer at an edge, judged on the tales of `choose`. Then the
contender runs with seeds 1, 2 and 3 and is judged on other held-out tales. A study uses
one thread, so several may run side by side. A study that was stopped resumes.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from study import CONTEXT, VOCAB, Table, Text

from solutions.attention import CausalSelfAttention, causal_mask
from solutions.gpt import GPT, Block, GPTConfig
from solutions.pretraining import TrainConfig, evaluate, train
from solutions.text_data import CharTokenizer, windows

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Contender:
    """build(seed): an untrained model. learn(model, rate, seed): trains it. judge(
    model, part): loss on the held-out tales of `part`, "choose" or "judge"."""

    build: Callable[[int], GPT]
    learn: Callable[[GPT, float, int], None]
    judge: Callable[[GPT, str], float]

    def run(self, rate: float, seed: int) -> GPT:
        model = self.build(seed)
        self.learn(model, rate, seed)
        return model

    def loss(self, rate: float, seed: int, part: str) -> float:
        """The loss after a run; infinite if `train` stopped, as the run diverged."""
        try:
            return self.judge(self.run(rate, seed), part)
        except ValueError as error:
            if "no gradient since is a number" not in str(error):
                raise
            return math.inf

    def tuned(self, start: float) -> dict[float, float]:
        """Rate -> loss with seed 0; tries rates until the best is not at an edge."""
        tried, todo = {}, [start, start / 2, start * 2]
        while todo:
            rate = todo.pop(0)
            tried[rate] = self.loss(rate, 0, "choose")
            if not todo:
                best = min(tried, key=tried.get)
                todo = [r for r in (best / 2, best * 2) if r not in tried]
        return tried


def by_width(model: GPT) -> GPT:
    """Scale the initialization 0.02, which is for width 768, to the model's width."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_((768 / model.config.d_model) ** 0.5 if p.ndim == 2 else 1.0)
    return model


def learner(tokens: np.ndarray, *, steps: int, batch: int, context: int) -> Callable:
    """AdamW, warm-up over a twentieth of the steps, cosine to a tenth of the rate."""

    def learn(model: GPT, rate: float, seed: int) -> None:
        config = TrainConfig(
            steps=steps, batch_size=batch, context_length=context, max_lr=rate,
            warmup_steps=steps // 20, seed=seed, eval_every=steps, min_lr=rate / 10,
        )  # fmt: skip
        train(model, tokens, tokens[: context + 1], config, progress=False)

    return learn


def compete(table: Table, name: str, contender: Contender, start: float) -> None:
    """Add a row with tuning 1 per rate tried, then one per seed at the best rate."""
    mine = [r for r in table.rows if r[table.keys[0]] == name and r["tuning"] == "1"]
    tried = {float(r["rate"]): float(r[table.columns[-1]]) for r in mine}
    n = sum(p.numel() for p in contender.build(0).parameters())
    if not tried:
        tried = contender.tuned(start)
        for rate, loss in sorted(tried.items()):
            table.add(name, 0, rate, 1, n, f"{loss:.4f}")
    best = min(tried, key=tried.get)
    for seed in SEEDS:
        if not table.has(name, seed, best, 0):
            loss = contender.loss(best, seed, "judge")
            table.add(name, seed, best, 0, n, f"{loss:.4f}")


# ------------------------------------------------------------------------- positions


class AlibiAttention(CausalSelfAttention):
    """A penalty on each score that grows with the distance (Press et al. 2021)."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T, H = q.shape[2], self.n_heads
        slopes = 2.0 ** (-8 * torch.arange(1, H + 1) / H)  # (H,)
        position = torch.arange(T)
        distance = position[:, None] - position  # (T, T), of query and key
        bias = -slopes[:, None, None] * distance  # (H, T, T)
        bias = bias.masked_fill(~causal_mask(T), -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, bias)


KINDS = ("learned", "sinusoidal", "rotary", "alibi", "none")
SHORT, LONG = 64, 256  # positions in training, and in evaluation
GROUPS = ((0, 15), (16, 31), (32, 63), (64, 95), (96, 127), (128, 191), (192, 255))


def positions_model(kind: str, seed: int) -> GPT:
    """Three blocks of width 96; learned positions beyond SHORT stay untrained."""
    positions = "none" if kind == "alibi" else kind
    config = GPTConfig(VOCAB, LONG, 96, 3, 4, bias=False, positions=positions)
    model = by_width(GPT(config, generator=torch.Generator().manual_seed(seed)))
    for block in model.blocks if kind == "alibi" else ():
        penalized = AlibiAttention(96, 4, bias=False)
        penalized.load_state_dict(block.attention.state_dict())
        block.attention = penalized
    return model


@torch.no_grad()
def losses_by_position(model: GPT, tokens: np.ndarray) -> Tensor:
    """Mean nats per token at each position of windows of LONG tokens: (LONG,)."""
    model.eval()
    x, y = windows(tokens, LONG)  # (N, LONG) each
    whole = (y >= 0).all(1)  # the last window may be padded
    x, y = x[whole], y[whole]
    losses = []
    for ids, targets in zip(x.split(16), y.split(16)):
        logits = model(ids)  # (B, LONG, V)
        losses.append(F.cross_entropy(logits.mT, targets, reduction="none"))
    return torch.cat(losses).mean(0)


def study_positions() -> None:
    text = Text()
    keys = ["positions", "seed", "rate", "first", "last"]
    table = Table("positions", keys, ["loss"], "study_parts.py")
    learn = learner(text.train, steps=400, batch=32, context=SHORT)

    def judge(model: GPT, part: str) -> float:
        return evaluate(model, text.tokens[part], context_length=SHORT)

    for kind in KINDS:
        contender = Contender(partial(positions_model, kind), learn, judge)
        done = {r["seed"] for r in table.rows if r["positions"] == kind}
        missing = [seed for seed in SEEDS if str(seed) not in done]
        tried = contender.tuned(8e-3) if missing else {}
        print(kind, {r: round(loss, 4) for r, loss in sorted(tried.items())})
        for seed in missing:
            rate = min(tried, key=tried.get)
            model = contender.run(rate, seed)
            by_position = losses_by_position(model, text.tokens["judge"])
            for first, last in GROUPS:
                loss = by_position[first : last + 1].mean().item()
                table.add(kind, seed, rate, first, last, f"{loss:.4f}")


# ---------------------------------------------------------------------------- blocks


class Arranged(Block):
    """A block in another arrangement of the same parts; `kind` names it."""

    def __init__(self, config: GPTConfig, kind: str) -> None:
        super().__init__(config)
        self.kind = kind

    def forward(self, x: Tensor, cache=None, start: int = 0) -> Tensor:
        if self.kind == "post-norm":
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.feed_forward(x))
        if self.kind == "no norm":
            x = x + self.attention(x)
            return x + self.feed_forward(x)
        if self.kind == "no shortcut":
            return self.feed_forward(self.norm2(self.attention(self.norm1(x))))
        return super().forward(x)


ARRANGEMENTS = ("pre-norm", "post-norm", "no norm", "no shortcut")


def arranged_model(kind: str, vocab_size: int, seed: int) -> GPT:
    """Ten blocks of width 32 for windows of 32 characters, initialized by width."""
    config = GPTConfig(vocab_size, 32, d_model=32, n_layers=10, n_heads=4)
    model = GPT(config, generator=torch.Generator().manual_seed(seed))
    for i, block in enumerate(model.blocks):
        other = Arranged(config, kind)
        other.load_state_dict(block.state_dict())
        model.blocks[i] = other
    if kind == "post-norm":
        model.norm = nn.Identity()  # its last block already ends with a norm
    return by_width(model)


def study_blocks() -> None:
    text = Text()
    together = {part: "\n\n".join(docs) for part, docs in text.parts.items()}
    learned = text.tokenizer.decode(text.train.tolist())
    characters = CharTokenizer.from_text(learned + "".join(together.values()))
    tokens = np.array(characters.encode(learned), dtype=np.uint16)
    held = {p: np.array(characters.encode(t)) for p, t in together.items()}
    keys = ["arrangement", "seed", "rate", "tuning"]
    table = Table("blocks", keys, ["weights", "loss"], "study_parts.py")
    learn = learner(tokens, steps=1000, batch=16, context=32)
    for kind in ARRANGEMENTS:
        build = partial(arranged_model, kind, characters.vocab_size)
        contender = Contender(build, learn, lambda m, part: evaluate(m, held[part]))
        compete(table, kind, contender, 4e-3)


# ---------------------------------------------------------------------------- modern


SWIGLU = {"mlp": "swiglu", "d_mlp": 256}  # 3 matrices of 256 are 2 of 384
CHANGES = {  # d_mlp: chosen to keep the number of weights
    "GPT-2": {},
    "RMSNorm": {"norm": "rms"},
    "SwiGLU": SWIGLU,
    "rotary": {"positions": "rotary", "d_mlp": 400},
    "grouped queries": {"n_kv_heads": 2, "d_mlp": 432},
    "QK-norm": {"qk_norm": True},
    "no biases": {"bias": False},
    "all of them": {
        "norm": "rms", "mlp": "swiglu", "d_mlp": 302, "positions": "rotary",
        "n_kv_heads": 2, "qk_norm": True, "bias": False,
    },
}  # fmt: skip


def modern_model(change: dict, seed: int) -> GPT:
    """Four blocks of width 96."""
    config = GPTConfig(VOCAB, CONTEXT, 96, 4, 4, **change)
    return by_width(GPT(config, generator=torch.Generator().manual_seed(seed)))


def study_modern() -> None:
    text = Text()
    keys = ["change", "seed", "rate", "tuning"]
    table = Table("modern", keys, ["weights", "bits"], "study_parts.py")
    learn = learner(text.train, steps=250, batch=16, context=CONTEXT)
    for name, change in CHANGES.items():
        contender = Contender(partial(modern_model, change), learn, text.bits)
        compete(table, name, contender, 8e-3)


STUDIES = {
    "positions": study_positions, "blocks": study_blocks, "modern": study_modern,
}  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("study", choices=STUDIES)
    torch.set_num_threads(1)
    STUDIES[p.parse_args().study]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
