"""What a new token costs, compared with Hugging Face's generate and with the memory.

Both sides have the same weights, decode greedily in float32 with a cache, and take
turns in one process. A token at batch 1 has to read every weight once, so the memory's
speed sets a limit, which is measured too. The report also shows a token early and late
in the context, our bfloat16, and the time that the drawing itself takes.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
from steps import kind, ratios, take_turns
from torch import Tensor, nn

from solutions.generation import (
    choose,
    from_pretrained,
    generate,
    save_pretrained,
    stream,
)
from solutions.gpt import GPT, GPTConfig

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "tiny": GPTConfig(101, 64, 16, 1, 2),  # to try it out
    "124M": GPTConfig.gpt2("124M"),
}
PEER = "Hugging Face"
DRAWING = {
    "greedy": {"temperature": 0},
    "top-k 50": {"top_k": 50},
    "top-p 0.9": {"top_p": 0.9},
    "top-k 50, top-p 0.9": {"top_k": 50, "top_p": 0.9},
}


def add_generate(commands) -> None:
    p = commands.add_parser("generate", help="new tokens against Hugging Face's")
    p.add_argument("--size", default="124M", choices=SIZES)
    p.add_argument("--prompt", type=int, default=32, help="tokens in the prompt")
    p.add_argument("--new", type=int, default=64, help="tokens generated")
    p.add_argument("--shipped", metavar="FOLDER",
                   default=str(ROOT / "data" / "tale-gpt"))  # fmt: skip
    p.add_argument("--shipped-new", type=int, default=100)
    p.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    p.add_argument("--positions", type=int, nargs=2, default=[10, 1000])
    p.add_argument("--megabytes", type=int, default=400,
                   help="to read for the memory's speed")  # fmt: skip
    p.add_argument("--vocabulary", type=int, default=50_257, help="to draw from")
    p.add_argument("--rounds", type=int, default=7)


# ------------------------------------------------------------------------ both sides


def our_generate(model: GPT, ids: Tensor, n: int) -> Callable[[], Tensor]:
    return lambda: generate(model, ids, n, temperature=0)


def hugging_face_generate(model, ids: Tensor, n: int) -> Callable[[], Tensor]:
    """Greedy, cached, and exactly n tokens, because no token ends the text."""
    model.generation_config.eos_token_id = None
    model.generation_config.max_length = None  # or each call warns that n decides
    seen = torch.ones_like(ids)
    return lambda: model.generate(
        ids, attention_mask=seen, max_new_tokens=n, min_new_tokens=n, do_sample=False,
        use_cache=True, pad_token_id=0,
    )  # fmt: skip


def load_both(folder: str | Path):
    """The model in a folder, in float32: ours, and Hugging Face's."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).float()


def random_weights(config: GPTConfig):
    """An untrained model, the same on both sides."""
    model = GPT(config, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        return load_both(folder)


def variants(model: GPT) -> dict[str, GPT]:
    """Name -> our model; float32 comes first. bfloat16 has half the bytes per token."""
    return {"ours": model, "ours, bfloat16": copy.deepcopy(model).bfloat16()}


def contest(name: str, both, batch: int, prompt: int, new: int, args) -> dict:
    """Print the speed of all sides; seconds of each, round by round."""
    model, peer = both
    dice, shape = torch.Generator().manual_seed(2), (batch, prompt)
    ids = torch.randint(model.config.vocab_size, shape, generator=dice)  # (B, T)
    works = {PEER: hugging_face_generate(peer, ids, new)}
    for variant, own in variants(model).items():
        works[variant] = our_generate(own, ids, new)
    theirs, ours = works[PEER]()[:, prompt:], works["ours"]()[:, prompt:]
    same = (theirs == ours).long().cumprod(1).sum().item()  # before they differ
    print(f"{name}, batch {batch}: {new} tokens after {prompt}; "
          f"{same} of {batch * new} equal before the first that differs")  # fmt: skip
    took = take_turns(works, args.rounds, 1)
    for variant, times in took.items():
        r, speed = ratios(took, variant, PEER), batch * new / statistics.median(times)
        print(f"  {variant:16} {speed:10,.1f} tokens/s  x {statistics.median(r):.2f} "
              f"({r[0]:.2f} .. {r[-1]:.2f})", flush=True)  # fmt: skip
    return took


def against_peer(took: dict[str, list[float]], variant: str = "ours") -> float:
    return statistics.median(ratios(took, variant, PEER))


# ------------------------------------------------------------------------ the limits


def read_bandwidth(megabytes: int, rounds: int = 7) -> float:
    """Bytes per second that a sum over a large buffer reads at best, on all threads."""
    buffer = torch.ones(megabytes * 10**6 // 4)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        buffer.sum()
        times.append(time.perf_counter() - start)
    return buffer.numel() * buffer.element_size() / min(times)


def bytes_per_token(model: nn.Module) -> int:
    """Bytes of the weights that a new token reads: all but the table rows it skips."""
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    total = sum(sizes.values()) - sizes.get("positions.weight", 0)
    if not model.config.tie_embeddings:  # a tied table is read as the output layer
        total -= sizes["tokens.weight"]
    return total


def step_times(model: GPT, position: int, n: int = 8) -> list[float]:
    """Seconds of each of n new tokens, the first at `position`."""
    tokens = stream(model, [1] * (position - 1), n + 1, temperature=0)
    next(tokens)  # reads the prompt
    times = []
    for _ in range(n):
        start = time.perf_counter()
        next(tokens)
        times.append(time.perf_counter() - start)
    return times


def late_over_early(model: GPT, positions: list[int], rounds: int) -> list[float]:
    """Median seconds of a token at each position; the positions take turns."""
    took = [[], []]
    for _ in range(rounds):
        for i, position in enumerate(positions):
            took[i] += step_times(model, position)
    return [statistics.median(times) for times in took]


def report_limits(model: GPT, args, seconds: float) -> list[str]:
    """seconds: per token in float32 at batch 1, the prompt's share included."""
    bandwidth, size = read_bandwidth(args.megabytes), bytes_per_token(model)
    limit = size / bandwidth
    early, late = late_over_early(model, args.positions, args.rounds)
    near, far = args.positions
    print(f"memory: {bandwidth / 1e9:.1f} GB/s read; a token reads {size / 1e6:,.1f} MB"
          f" of weights, so it takes {limit * 1e3:.3g} ms at least")  # fmt: skip
    print(f"  of the limit: {limit / seconds:.2f} with the prompt's pass, "
          f"{limit / early:.2f} at position {near}")  # fmt: skip
    print(f"  a token at position {near}: {early * 1e3:.3g} ms, at {far:,}: "
          f"{late * 1e3:.3g} ms, x {late / early:.2f}")  # fmt: skip
    lines = [f"GENERATE_OF_LIMIT {limit / seconds:.3f}"]
    return [*lines, f"GENERATE_LATE_OVER_EARLY {late / early:.3f}"]


def report_drawing(vocabulary: int, rounds: int) -> None:
    """Time from logits to a token, one row, as in `generate`; the median of many."""
    dice = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(1, vocabulary, generator=dice)

    ids = torch.zeros(1, 1, dtype=torch.int64)

    def step(settings: dict) -> Callable[[], Tensor]:
        return lambda: choose(logits, ids, generator=dice, **settings)

    works = {name: step(settings) for name, settings in DRAWING.items()}
    took = take_turns(works, 10 * rounds, 1)
    print(f"from {vocabulary:,} logits to a token:")
    for name, times in took.items():
        print(f"  {name:20} {statistics.median(times) * 1e3:8.3f} ms", flush=True)


def check(args, shipped: GPT) -> None:
    """ValueError for what does not fit into a context, before any work."""
    C = SIZES[args.size].context_length
    needed = max(args.prompt + args.new, max(args.positions) + 9)
    if min(args.positions) < 2 or needed > C:
        raise ValueError(
            f"--prompt, --new and --positions need a context of {needed}, and a "
            f"position is at least 2; the model of --size {args.size} has {C}"
        )
    C = shipped.config.context_length
    if args.prompt + args.shipped_new > C:
        raise ValueError(f"--prompt and --shipped-new go beyond the {C} of --shipped")


def bench_generate(args) -> None:
    """Compare our speed with Hugging Face's and the limit; time the drawing."""
    shipped = load_both(args.shipped)
    check(args, shipped[0])
    print(f"{torch.get_num_threads()} threads, {kind()}; greedy, float32, cached")
    lines, both = [], random_weights(SIZES[args.size])
    contests = [
        (args.size, both, args.new),
        ("shipped", shipped, args.shipped_new),
    ]
    for name, models, new in contests:
        for batch in args.batches:
            took = contest(name, models, batch, args.prompt, new, args)
            lines.append(f"GENERATE_{name.upper()}_{batch} {against_peer(took):.3f}")
            if name == args.size and batch == args.batches[0]:
                first = took
    seconds = statistics.median(first["ours"]) / (args.new * args.batches[0])
    lines += report_limits(both[0], args, seconds)
    report_drawing(args.vocabulary, args.rounds)
    print("\n".join([*lines, f"GENERATE {against_peer(first):.3f}"]), flush=True)
