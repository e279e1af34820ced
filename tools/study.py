"""Long runs behind figures of chapters 2 and 6: each writes one CSV to data/studies/.

    python tools/study.py rates          # the learning rate of each model and budget
    python tools/study.py compare        # RNN, LSTM and GPT at equal tokens
    python tools/study.py scaling        # sizes and budgets of compute
    python tools/study.py sweep          # learning rate and batch size
    python tools/study.py reasons        # short runs without one thing each
    python tools/study.py ablation       # the recipe without one thing each
    python tools/study.py vocabularies   # bytes, and BPE of five sizes (chapter 2)
    python tools/study.py times          # seconds per step; on an idle machine

Each run uses one thread, so several may run side by side. Only `times` reads the clock,
with two threads. A study that was stopped resumes, because rows that are in its CSV are
not run again. Learning rates are chosen on one part of the held-out tales and judged on
another.
"""

import argparse
import csv
import itertools
import platform
import statistics
import sys
import time
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np
import torch
from torch import Tensor, nn

from solutions.bpe import BPETokenizer, train_bpe
from solutions.gpt import GPT, GPTConfig
from solutions.optimization import Muon, muon_groups
from solutions.pretraining import TrainConfig, bits_per_byte, evaluate, train
from solutions.text_data import (
    clean_text,
    load_text,
    split_documents,
    train_val_split,
)

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "studies"
END, VOCAB, CONTEXT, BATCH = "<|endoftext|>", 1024, 128, 16
RECIPE = "GPT (recipe)"
BUDGETS = (250_000, 1_000_000, 4_000_000)  # tokens
VOCABULARIES = (256, 512, 1024, 2048, 4096, 8192)  # and END
WINDOW = 384  # bytes in a window of study_vocabularies


class RecurrentModel(nn.Module):
    """Embedding, PyTorch's recurrent layer, output layer: ids (B, T) -> logits."""

    def __init__(self, layer: type[nn.Module], width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.layer = layer(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.layer(self.embedding(ids))  # (B, T, D)
        return self.head(states)  # (B, T, V)


def gpt(
    d_model: int, n_layers: int, n_heads: int, seed: int, *, by_width: bool = True
) -> GPT:
    """A GPT with initialization by width: GPT-2's 0.02 at 768, more below."""
    config = GPTConfig(VOCAB, CONTEXT, d_model, n_layers, n_heads, bias=False)
    model = GPT(config, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_((768 / d_model) ** 0.5 if by_width and p.ndim == 2 else 1.0)
    return model


def recipe_gpt(seed: int, *, zero: bool = True, **fields) -> GPT:
    """The GPT of the recipe that chapter 6 arrives at, and that Muon trains.

    fields: of GPTConfig, to be different; zero=False: nothing starts at zero.
    """
    recipe = {"positions": "rotary", "qk_norm": True, "mlp": "relu2"}
    recipe |= {"tie_embeddings": False, "vocab_size": VOCAB, "d_model": 128}
    recipe |= {"context_length": CONTEXT, "n_layers": 4, "n_heads": 4} | fields
    config = GPTConfig(bias=False, **recipe)
    model = GPT(config, generator=torch.Generator().manual_seed(seed))
    writers = ["out.weight", "down.weight"]
    writers += [] if config.tie_embeddings else ["head.weight"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if zero and name.endswith(tuple(writers)):
                p.zero_()
            elif p.ndim == 2:
                p.mul_((768 / config.d_model) ** 0.5)
    return model


def new_model(name: str, seed: int) -> nn.Module:
    """One of four models, each with about a million weights."""
    torch.manual_seed(seed)
    if name == "GPT":
        return gpt(128, 4, 4, seed)
    if name == RECIPE:
        return recipe_gpt(seed)
    layer, width = {"RNN": (nn.RNN, 376), "LSTM": (nn.LSTM, 256)}[name]
    return RecurrentModel(layer, width)


class Text:
    """The tales as tokens: to learn from, to choose by, to judge by."""

    context = CONTEXT  # tokens in a window

    def __init__(self) -> None:
        documents = split_documents(clean_text(load_text(ROOT / "data" / "tales.txt")))
        learn, held_out = train_val_split(
            documents, 0.1, generator=torch.Generator().manual_seed(1)
        )
        self.tokenizer = train_bpe(learn, VOCAB, special_tokens=[END])
        self.train = self.encode(learn)
        self.parts = {"judge": held_out[:150], "choose": held_out[150:300]}
        self.tokens = {name: self.encode(docs) for name, docs in self.parts.items()}

    def encode(self, documents: list[str]) -> np.ndarray:
        end = [self.tokenizer.special_tokens[END]]
        rows = [self.tokenizer.encode_ordinary(d) + end for d in documents]
        return np.array([i for row in rows for i in row])

    def bits(self, model: nn.Module, part: str) -> float:
        """Bits per byte on the held-out tales of `part`, in windows of `context`."""
        tokens = self.tokens[part]
        n_bytes = sum(len(d.encode("utf-8")) for d in self.parts[part])
        loss = evaluate(model, tokens, context_length=self.context)
        return bits_per_byte(loss, len(tokens) - 1, n_bytes)


class RicherText(Text):
    """The two richer texts: more words, so that 8,192 tokens can be learned from them.

    `cut` makes tokens of them and sets `context` to as many as WINDOW bytes take.
    """

    def __init__(self) -> None:
        texts = [load_text(ROOT / "data" / f"{n}_tales.txt") for n in ("rich", "long")]
        documents = [d for text in texts for d in split_documents(clean_text(text))]
        self.learn, held_out = train_val_split(
            documents, 0.1, generator=torch.Generator().manual_seed(1)
        )
        self.parts = {"judge": held_out}
        self.merges = train_bpe(self.learn, max(VOCABULARIES)).merges
        self.n_bytes = sum(len(d.encode("utf-8")) for d in self.learn)

    def cut(self, size: int) -> None:
        """Into 256 bytes and the first merges, `size` tokens, and END between tales."""
        merges = self.merges[: size - 256]
        self.tokenizer = BPETokenizer(merges, special_tokens=[END])
        self.train = self.encode(self.learn)
        self.tokens = {"judge": self.encode(self.parts["judge"])}
        self.context = round(WINDOW * len(self.train) / self.n_bytes)


def run(text: Text, model: nn.Module, rate: float, tokens: int, seed: int, *,
        batch: int = BATCH, muon: bool = False, decay: float = 0.1,
        scale: float = 2.0) -> None:  # fmt: skip
    """Train `model` on so many tokens: warm-up over a twentieth, cosine to a tenth."""
    steps, optimizer = max(1, round(tokens / (batch * text.context))), None
    if muon:
        optimizer = Muon(muon_groups(model, decay, lr_scale=scale))
    config = TrainConfig(
        steps=steps, batch_size=batch, context_length=text.context, max_lr=rate,
        warmup_steps=steps // 20, seed=seed, eval_every=steps,
    )  # fmt: skip
    train(
        model, text.train, text.tokens["judge"][: text.context + 1], config,
        optimizer=optimizer, progress=False,
    )  # fmt: skip


class Table:
    """A CSV that grows row by row and knows which rows it has."""

    def __init__(
        self, name: str, keys: list[str], values: list[str], tool: str = "study.py"
    ) -> None:
        self.path, self.keys, self.columns = FOLDER / f"{name}.csv", keys, keys + values
        FOLDER.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            machine = f"{platform.machine()}, PyTorch {torch.__version__}"
            head = f"# python tools/{tool} {name}; CPU ({machine}); seeds as listed\n"
            self.path.write_text(head + ",".join(self.columns) + "\n", "utf-8")
        self.rows = self.read()

    def read(self) -> list[dict]:
        lines = self.path.read_text("utf-8").splitlines()
        return list(csv.DictReader(line for line in lines if line[:1] != "#"))

    def has(self, *keys) -> bool:
        row = [str(k) for k in keys]
        return any([r[k] for k in self.keys] == row for r in self.rows)

    def add(self, *values) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(",".join(str(v) for v in values) + "\n")
        self.rows = self.read()
        print(self.path.name, *values, flush=True)


RATES = {
    "RNN": (2e-3, 4e-3, 8e-3, 1.6e-2),
    "LSTM": (4e-3, 8e-3, 1.6e-2, 3.2e-2),
    "GPT": (2e-3, 4e-3, 8e-3, 1.6e-2),
    RECIPE: (5e-3, 1e-2, 2e-2),
}


def study_rates(text: Text) -> None:
    """Try the rates of each model at the two smaller budgets, judged on `choose`."""
    table = Table("rates", ["model", "tokens", "rate", "seed"], ["bits_choose"])
    for tokens, name in itertools.product(BUDGETS[:2], RATES):
        for rate in RATES[name]:
            if not table.has(name, tokens, rate, 0):
                model = new_model(name, 0)
                run(text, model, rate, tokens, 0, muon=name == RECIPE)
                bits = f"{text.bits(model, 'choose'):.4f}"
                table.add(name, tokens, rate, 0, bits)


def best_rate(name: str, tokens: int) -> float:
    """The best rate of study_rates at this budget, or at the largest that it tried."""
    rows = [r for r in Table("rates", [], []).read() if r["model"] == name]
    tried = min(tokens, BUDGETS[1])
    rows = [r for r in rows if int(r["tokens"]) == tried]
    return float(min(rows, key=lambda r: float(r["bits_choose"]))["rate"])


def study_compare(
    text: Text, budgets: list[int], seeds: list[int], models: list[str]
) -> None:
    """Run each model, budget and seed."""
    table = Table("compare", ["model", "tokens", "seed"], ["rate", "weights", "bits"])
    for tokens, seed, name in itertools.product(budgets, seeds, models):
        if not table.has(name, tokens, seed):
            model, rate = new_model(name, seed), best_rate(name, tokens)
            run(text, model, rate, tokens, seed, muon=name == RECIPE)
            n = sum(p.numel() for p in model.parameters())
            bits = f"{text.bits(model, 'judge'):.4f}"
            table.add(name, tokens, seed, rate, n, bits)


SIZES = (  # width, layers, heads
    (16, 1, 2), (32, 1, 2), (48, 2, 4), (64, 3, 4), (96, 4, 4), (144, 5, 4), (208, 6, 4)
)  # fmt: skip
COMPUTE = {5e11: SIZES, 2e12: SIZES[1:], 8e12: SIZES[2:]}  # operations: sizes


def study_scaling(text: Text, seeds: list[int]) -> None:
    """Run five to seven sizes at each of three budgets; rates fall with the width."""
    keys = ["d_model", "n_layers", "compute", "seed"]
    table = Table("scaling", keys, ["weights", "tokens", "rate", "bits"])
    runs = [(c, size) for c, sizes in COMPUTE.items() for size in sizes]
    for seed, (compute, (d, layers, heads)) in itertools.product(seeds, runs):
        if table.has(d, layers, compute, seed):
            continue
        model = gpt(d, layers, heads, seed)
        tokens = round(compute / (3 * model.flops_per_token()))
        rate = min(8e-3 * 96 / d, 1.6e-2)
        run(text, model, rate, tokens, seed)
        bits = f"{text.bits(model, 'judge'):.4f}"
        table.add(d, layers, compute, seed, model.n_parameters(), tokens, rate, bits)


def study_sweep(text: Text) -> None:
    """Run learning rates and batch sizes at 500,000 tokens."""
    table = Table("sweep", ["batch", "rate", "seed"], ["bits"])
    rates = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    for batch, rate in itertools.product((4, 16, 64), rates):
        if not table.has(batch, rate, 1):
            model = gpt(64, 3, 4, 1)
            run(text, model, rate, 500_000, 1, batch=batch)
            table.add(batch, rate, 1, f"{text.bits(model, 'judge'):.4f}")


REASONS = {  # name: what is different from the first
    "as it should be": {},
    "rate 30 times lower": {"max_lr": 8e-3 / 30},
    "rate 8 times higher": {"max_lr": 6.4e-2},
    "no warm-up": {"warmup_steps": 0},
    "rate x 2": {"max_lr": 1.6e-2},
    "rate x 2 without warm-up": {"max_lr": 1.6e-2, "warmup_steps": 0},
    "constant rate": {"min_lr": 8e-3},
    "no clipping": {"max_norm": float("inf")},
    "1% of the text damaged": {"damaged": True},
    "1% damaged without clipping": {"damaged": True, "max_norm": float("inf")},
    "beta1 = 0": {"betas": (0.0, 0.95)},
    "beta1 = 0.99": {"betas": (0.99, 0.95)},
    "beta2 = 0.5": {"betas": (0.9, 0.5)},
    "beta2 = 0.999": {"betas": (0.9, 0.999)},
    "no decay": {"weight_decay": 0.0},
    "decay x 100": {"weight_decay": 10.0},
    "batch of 1 (as many tokens)": {"batch_size": 1, "steps": 4800, "max_lr": 2e-3},
    "batch of 128 (as many tokens)": {"batch_size": 128, "steps": 38, "max_lr": 1.6e-2},
    "initial matrices of 0.02": {"by_width": False},
}


def study_reasons(text: Text) -> None:
    """Run a small GPT for 300 steps of 16 windows of 64 tokens, with three seeds."""
    table = Table("reasons", ["change", "seed"], ["bits", "longest_gradient"])
    damaged = text.train.copy()
    draw = np.random.default_rng(0)
    for start in draw.integers(0, len(damaged) - 64, len(damaged) // 6400):
        damaged[start : start + 64] = draw.integers(0, VOCAB)  # one token, 64 times
    for seed, (name, change) in itertools.product((1, 2, 3), REASONS.items()):
        if table.has(name, seed):
            continue
        change = {"steps": 300, "batch_size": 16, "max_lr": 8e-3} | change
        tokens = damaged if change.pop("damaged", False) else text.train
        model = gpt(64, 3, 4, seed, by_width=change.pop("by_width", True))
        change = {"warmup_steps": change["steps"] // 20} | change
        config = TrainConfig(context_length=64, seed=seed, eval_every=10**6, **change)
        some = text.tokens["judge"][:129]
        history = train(model, tokens, some, config, progress=False)
        bits = f"{text.bits(model, 'judge'):.4f}"
        table.add(name, seed, bits, f"{max(history.grad_norm):.1f}")


ABLATION = {  # the recipe, and what is different in it
    "the recipe": {},
    "AdamW for the matrices too": {"muon": False, "rate": 4e-3},
    "learned positions": {"positions": "learned"},
    "no QK-norm": {"qk_norm": False},
    "GELU": {"mlp": "gelu"},
    "output layer tied": {"tie_embeddings": True},
    "nothing starts at zero": {"zero": False},
    "Muon at half the rate": {"scale": 1.0},
    "Muon at twice the rate": {"scale": 4.0},
    "no decay": {"decay": 0.0},
    "decay x 4": {"decay": 0.4},
    "batches half as large": {"batch": 8},
    "none of it (GPT-2's recipe)": {
        "muon": False, "rate": 4e-3, "positions": "learned", "qk_norm": False,
        "mlp": "gelu", "tie_embeddings": True, "zero": False,
    },
}  # fmt: skip
OF_THE_RUN = ("muon", "rate", "decay", "scale", "batch")


def study_ablation(text: Text, seeds: list[int]) -> None:
    """Run the recipe, each time with one thing changed, on 400,000 tokens."""
    table = Table("ablation", ["change", "seed"], ["bits"])
    for seed, (name, change) in itertools.product(seeds, ABLATION.items()):
        if table.has(name, seed):
            continue
        options = {"muon": True, "rate": 1e-2}
        options |= {k: v for k, v in change.items() if k in OF_THE_RUN}
        fields = {k: v for k, v in change.items() if k not in OF_THE_RUN}
        model, rate = recipe_gpt(seed, **fields), options.pop("rate")
        run(text, model, rate, 400_000, seed, **options)
        table.add(name, seed, f"{text.bits(model, 'judge'):.4f}")


def study_vocabularies(seeds: list[int]) -> None:
    """The recipe's GPT, narrower, on text cut in six ways, after one pass and three.

    Equal for all: the bytes read, in how many steps, the bytes in a window and the
    four blocks. Not equal: tokens, compute, and the rows of embedding and output.
    """
    keys, values = ["vocabulary", "passes", "seed"], ["weights", "context", "tokens"]
    table = Table("vocabularies", keys, [*values, "compute", "bits"])
    text = RicherText()
    for seed, passes, size in itertools.product(seeds, (1, 3), VOCABULARIES):
        if table.has(size, passes, seed):
            continue
        text.cut(size)
        model = recipe_gpt(
            seed, vocab_size=size + 1, context_length=text.context, d_model=96
        )
        steps = round(passes * text.n_bytes / (BATCH * WINDOW))
        tokens = steps * BATCH * text.context
        run(text, model, 1e-2, tokens, seed, muon=True)
        compute = f"{3 * model.flops_per_token() * tokens:.3e}"
        weights, bits = model.n_parameters(), f"{text.bits(model, 'judge'):.4f}"
        table.add(size, passes, seed, weights, text.context, tokens, compute, bits)


def study_times(text: Text) -> None:
    """Time a step of 16 windows of 128 tokens on two threads, median of 15."""
    torch.set_num_threads(2)
    table = Table("times", ["model"], ["milliseconds"])
    for name in RATES:
        model, took = new_model(name, 1), []
        for _ in range(16):
            start = time.perf_counter()
            run(text, model, 1e-3, 10 * BATCH * CONTEXT, 1, muon=name == RECIPE)
            took.append((time.perf_counter() - start) / 10 * 1e3)
        table.add(name, f"{statistics.median(took[1:]):.1f}")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["rates", "compare", "scaling", "sweep", "reasons", "ablation"]
    p.add_argument("study", choices=[*names, "vocabularies", "times"])
    p.add_argument("--budgets", type=int, nargs="+", default=BUDGETS, help="tokens")
    p.add_argument("--models", nargs="+", choices=RATES, default=list(RATES))
    p.add_argument("--seeds", type=int, nargs="+")
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.study == "vocabularies":
        study_vocabularies(args.seeds or [1, 2])
        return 0
    text = Text()
    if args.study == "compare":
        study_compare(text, args.budgets, args.seeds or [1, 2, 3], args.models)
    elif args.study == "scaling":
        study_scaling(text, args.seeds or [1])
    elif args.study == "ablation":
        study_ablation(text, args.seeds or [1, 2, 3])
    else:
        studies = {"rates": study_rates, "sweep": study_sweep, "reasons": study_reasons}
        (studies | {"times": study_times})[args.study](text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
