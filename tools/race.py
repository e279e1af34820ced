"""Race training recipes: on any text, or on the tales, where everyone may enter.

A recipe is a Python file with two functions:

    build(text, seed) -> (tokenizer, model)
        text: the training text. tokenizer: encode(text) -> list of ids, and decode(ids)
        -> text, which must give back exactly what was encoded. model: ids (B, T) ->
        logits (B, T, V), with model.config.context_length, the longest T.
    make_step(model, tokens, seed) -> step
        tokens: the training text's ids, a NumPy array. step(done) makes one training
        step; done is the share of the time that has passed, from 0 to below 1.

The clock runs while steps are made. Two minutes for building are free, and any more is
taken off the time. Then the whole held-out text is scored, in windows of context_length
tokens, end to end, each token once, given those before it in its window.
"""

import contextlib
import importlib.util
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np
import torch
from torch import nn

from solutions.pretraining import bits_per_byte, evaluate
from solutions.text_data import (
    clean_text,
    load_text,
    split_documents,
    train_val_split,
)

RECIPES = Path(__file__).resolve().parent / "recipes"
END = "\x03"  # the control character "end of text": clean_text leaves none in a text
FREE = 120.0  # seconds that building may take


@dataclass(frozen=True)
class Corpus:
    """A text to learn from and one to be judged on, of n_bytes bytes in UTF-8."""

    train: str
    held_out: str
    n_bytes: int


def split_file(path: str | Path) -> Corpus:
    """The first nine tenths of a file's characters to learn from, the rest held out."""
    text = load_text(path)
    cut = len(text) * 9 // 10
    return Corpus(text[:cut], text[cut:], len(text[cut:].encode("utf-8")))


def split_tales(path: str | Path) -> Corpus:
    """A tenth of a file's documents held out, as in chapter 6; END after each document.

    END has to be predicted like any character, but counts as no byte of the text.
    """
    documents = split_documents(clean_text(load_text(path)))
    generator = torch.Generator().manual_seed(1)
    learn, judge = train_val_split(documents, 0.1, generator=generator)
    n_bytes = sum(len(d.encode("utf-8")) for d in judge)
    return Corpus(*("".join(d + END for d in part) for part in (learn, judge)), n_bytes)


def load_recipe(path: str | Path) -> ModuleType:
    """The functions of a recipe's file; ValueError if one is missing."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; give a recipe, such as {RECIPES.name}/"
                         "course.py")  # fmt: skip
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    recipe = importlib.util.module_from_spec(spec)
    with code_of(path.stem):
        spec.loader.exec_module(recipe)
    for name in ("build", "make_step"):
        if not callable(getattr(recipe, name, None)):
            raise ValueError(f"{path} has no function {name}; see tools/race.py")
    return recipe


@contextlib.contextmanager
def code_of(name: str):
    """A ValueError in here is the recipe's, so its author gets the whole traceback."""
    try:
        yield
    except ValueError as error:
        raise RuntimeError(f"the recipe {name} went wrong") from error


def encode_held_out(tokenizer, corpus: Corpus) -> list[int]:
    """Ids of the held-out text, after the last id of the training text.

    ValueError for a tokenizer whose decode does not give the text back.
    """
    try:
        ids = list(tokenizer.encode(corpus.held_out))
        same = tokenizer.decode(ids) == corpus.held_out
    except ValueError as error:
        raise ValueError(f"the tokenizer fails on the held-out text: {error}") from None
    if not same:
        raise ValueError("the tokenizer does not give the held-out text back: decode("
                         "encode(text)) differs from text")  # fmt: skip
    return [*tokenizer.encode(corpus.train[-1:])[-1:], *ids]


@torch.no_grad()
def check_model(model: nn.Module, ids: list[int]) -> None:
    """ValueError if logits depend on later ids, on other rows or on earlier calls."""
    T = model.config.context_length
    if len(ids) < 2 * T:
        raise ValueError(f"{len(ids)} held-out tokens are too few for {T=}: give more")
    model.eval()
    x = torch.tensor(ids[: 2 * T]).view(2, T)
    other = (x + 1) % (x.max() + 1)
    before = model(x)  # (2, T, V)
    if before.shape[:2] != x.shape or before.ndim != 3:
        raise ValueError(f"the model makes logits of shape {tuple(before.shape)} for "
                         f"{tuple(x.shape)} ids, not (B, T, V)")  # fmt: skip
    unit = 1e-3 * before.abs().max().clamp(min=1e-3)
    if (model(x) - before).abs().gt(unit).any():
        raise ValueError("the same ids get other logits the second time")
    for t in {min(1, T - 1), T // 2, T - 1, T}:
        changed = torch.stack([torch.cat([x[0, :t], other[0, t:]]), other[1]])
        if (model(changed)[0, :t] - before[0, :t]).abs().gt(unit).any():
            what = f"the ids after it change (from {t} on)" if t < T else "others do"
            raise ValueError(f"a row's logits change when {what}: a prediction may "
                             "only use the ids before it in its row")  # fmt: skip


@dataclass
class Score:
    """One recipe's results, an entry per seed."""

    bits: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def mean(self) -> float:
        return statistics.mean(self.bits)


def run_steps(
    step: Callable[[float], object], seconds: float = math.inf, steps: int | None = None
) -> tuple[int, float]:
    """Call step(done) until the time or the steps are over; (steps, seconds)."""
    start, made, passed = time.perf_counter(), 0, 0.0
    while made < steps if steps else passed < seconds:
        step(made / steps if steps else passed / seconds)
        made += 1
        passed = time.perf_counter() - start
    return made, passed


def run_recipe(
    name: str, recipe: ModuleType, corpus: Corpus, seed: int,
    seconds: float = math.inf, steps: int | None = None,
) -> tuple[float, int, float]:  # fmt: skip
    """Build, train and score; (bits per byte, steps, seconds)."""
    start = time.perf_counter()
    torch.manual_seed(seed)  # for recipes without generators of their own
    with code_of(name):
        tokenizer, model = recipe.build(corpus.train, seed)
    ids = encode_held_out(tokenizer, corpus)
    check_model(model, ids)
    with code_of(name):
        tokens = np.array(tokenizer.encode(corpus.train))
        step = recipe.make_step(model, tokens, seed)
    built = time.perf_counter() - start
    seconds -= max(0.0, built - FREE)
    if seconds <= 0:
        raise ValueError(f"building took {built:.0f} s, and no time is left")
    model.train()
    with code_of(name):
        made, passed = run_steps(step, seconds, steps)
    late = passed - seconds
    if late > max(2.0, 0.02 * seconds):
        raise ValueError(f"the last step ended {late:.1f} s after the time was out; "
                         "make steps shorter")  # fmt: skip
    check_model(model, ids)
    loss = evaluate(model, ids)
    return bits_per_byte(loss, len(ids) - 1, corpus.n_bytes), made, passed


def race(
    corpus: Corpus, recipes: dict[str, ModuleType], seeds: list[int],
    seconds: float | None = None, steps: int = 2000,
) -> dict[str, Score]:  # fmt: skip
    """Run all for `seconds`; if None, the first for `steps`, the others as long."""
    print(f"{len(corpus.train):,} characters to learn from, {corpus.n_bytes:,} bytes "
          f"held out; {machine()}")  # fmt: skip
    print(f"{'seed':>4}  {'recipe':12} {'steps':>7} {'seconds':>8}  bits per byte")
    scores = {name: Score() for name in recipes}
    for seed in seeds:
        allowed = seconds
        for name, recipe in recipes.items():
            limit = {"steps": steps} if allowed is None else {"seconds": allowed}
            try:
                bits, made, passed = run_recipe(name, recipe, corpus, seed, **limit)
            except ValueError as error:
                raise ValueError(f"recipe {name}: {error}") from None
            allowed = passed if allowed is None else allowed
            score = scores[name]
            score.bits.append(bits)
            score.steps.append(made)
            score.seconds.append(passed)
            row = f"{seed:4}  {name:12} {made:7,} {passed:8.1f}  {bits:.4f}"
            print(row, flush=True)
    return scores


def machine() -> str:
    """What the seconds depend on."""
    kind = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{kind}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def show_table(scores: dict[str, Score]) -> None:
    """A row per recipe, as in the README's table."""
    first = next(iter(scores))
    print(f"\n| recipe | bits per byte, mean (lowest .. highest) | over {first} | steps "
          "| processor |\n|---|---|---|---|---|")  # fmt: skip
    for name, s in scores.items():
        bits = f"{s.mean():.3f} ({min(s.bits):.3f} .. {max(s.bits):.3f})"
        ratio = s.mean() / scores[first].mean()
        steps = statistics.median(s.steps)
        print(f"| {name} | {bits} | {ratio:.3f} | {steps:,.0f} | {machine()} |")
    print()


def show_ratio(title: str, scores: dict[str, Score]) -> None:
    """Print the last recipe's mean over the first's; the result is the last line."""
    names = list(scores)
    first, last = scores[names[0]], scores[names[-1]]
    ratios = [b / a for a, b in zip(first.bits, last.bits, strict=True)]
    print(f"{names[-1]} / {names[0]}: {min(ratios):.3f} .. {max(ratios):.3f}")
    print(f"{title} {last.mean() / first.mean():.3f}", flush=True)


def bench_train(args) -> None:
    """Run the plain recipe for its steps, then the course's for as many seconds."""
    recipes = {n: load_recipe(RECIPES / f"{n}.py") for n in ("plain", "course")}
    scores = race(split_file(args.text), recipes, args.seeds, steps=args.steps)
    show_table(scores)
    show_ratio("TRAIN", scores)


def bench_speedrun(args) -> None:
    """The public challenge on the tales: plain, course and the reader's own recipe."""
    recipes = {n: load_recipe(RECIPES / f"{n}.py") for n in ("plain", "course")}
    if args.recipe:
        own = Path(args.recipe)
        recipes[own.stem if own.stem not in recipes else "own"] = load_recipe(own)
    corpus = split_tales(args.text)
    scores = race(corpus, recipes, args.seeds, seconds=args.seconds)
    show_table(scores)
    show_ratio("SPEEDRUN", scores)
