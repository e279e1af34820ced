"""What one training step costs, compared with nanoGPT's, and rung by rung.

Contenders take turns in one process, so a busy moment hits them all. The first round
does not count.
"""

import contextlib
import csv
import importlib.util
import io
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
from torch import Tensor

from solutions.gpt import GPT, GPTConfig
from solutions.linear import use_onednn
from solutions.optimization import AdamW, clip_gradients, parameter_groups
from solutions.pretraining import (
    TrainConfig,
    _prepared,
    cross_entropy,
    training_step,
)

CSV = Path(__file__).resolve().parent.parent / "data" / "studies" / "ladder.csv"
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Size:
    """An architecture, the windows per step, and the steps per turn."""

    model: GPTConfig
    batch: int
    turn: int

    def new_model(self) -> GPT:
        return GPT(self.model, generator=torch.Generator().manual_seed(1))

    def new_batch(self) -> Batch:
        shape = (self.batch, self.model.context_length + 1)
        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(self.model.vocab_size, shape, generator=draw)
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


SIZES = {
    "tiny": Size(GPTConfig(65, 8, 16, 1, 2, bias=False), 2, 1),  # to try it out
    "1M": Size(GPTConfig(65, 64, 128, 4, 4, bias=False), 12, 10),
    "10M": Size(GPTConfig(1024, 128, 320, 8, 8, bias=False), 8, 2),
    "124M": Size(GPTConfig(50_257, 256, 768, 12, 12, bias=False), 2, 1),
}


def take_turns(
    contenders: dict[str, Callable[[], object]], rounds: int, turn: int
) -> dict[str, list[float]]:
    """Seconds per step of each contender, one entry per round."""
    took = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(turn):
                step()
            took[name].append((time.perf_counter() - start) / turn)
    return {name: times[1:] for name, times in took.items()}


def our_step(size: Size, batch: Batch, precision: str, compiled: bool) -> Callable:
    """A step as `train` makes it, with its model, optimizer and training_step."""
    config = TrainConfig(batch_size=size.batch, precision=precision, compile=compiled)
    model = size.new_model()
    groups = parameter_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=config.betas, fused=True)
    model = _prepared(model, config)
    return lambda: training_step(model, optimizer, batch, 0, config)


def load_nanogpt(path: str | None):
    """nanoGPT's model.py as a module; ValueError if it is not there."""
    file = Path(path or ".") / "model.py"
    if path is None or not file.is_file():
        place = "--nanogpt is missing" if path is None else f"{path} has no model.py"
        raise ValueError(f"{place}: give the folder of a clone of nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def nanogpt_model(size: Size, nanogpt):
    """nanoGPT's model of the same shape, without its printed lines."""
    c = size.model
    with contextlib.redirect_stdout(io.StringIO()):
        return nanogpt.GPT(nanogpt.GPTConfig(
            block_size=c.context_length, vocab_size=c.vocab_size, n_layer=c.n_layers,
            n_head=c.n_heads, n_embd=c.d_model, dropout=0.0, bias=False,
        ))  # fmt: skip


def nanogpt_step(size: Size, batch: Batch, nanogpt) -> Callable:
    """The body of the loop of nanoGPT's train.py, with its model and optimizer."""
    model = nanogpt_model(size, nanogpt)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    x, y = batch

    def step() -> None:
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def variants(precision: str, compiled: bool) -> dict[str, tuple[str, bool]]:
    """Suffix of the row's name -> precision, compiled or not; fp32 comes first."""
    rows = {"": ("fp32", False)}
    if precision == "bf16":
        rows["_BF16"] = ("bf16", False)
    if compiled:
        rows["_COMPILED"] = ("fp32", True)
    if precision == "bf16" and compiled:
        rows["_BF16_COMPILED"] = ("bf16", True)
    return rows


def bench_step(args) -> None:
    """Compare a training step of ours with nanoGPT's: same shape, batch and machine."""
    nanogpt, lines = load_nanogpt(args.nanogpt), []
    if args.compile and not can_compile():
        raise ValueError("--compile: torch.compile finds no compiler here")
    rows = variants(args.precision, args.compile)
    print(f"{torch.get_num_threads()} threads, {kind()}")
    for name in args.sizes:
        size = SIZES[name]
        batch = size.new_batch()
        contenders = {"nanoGPT": nanogpt_step(size, batch, nanogpt)}
        for suffix, row in rows.items():
            contenders["ours" + suffix.lower()] = our_step(size, batch, *row)
        took = take_turns(contenders, args.rounds, size.turn)
        show(name, size, took)
        for suffix in rows:
            ratio = statistics.median(ratios(took, "ours" + suffix.lower()))
            lines.append(f"STEP_{name.upper()}{suffix} {ratio:.3f}")
    print("\n".join(lines), flush=True)


def ratios(
    took: dict[str, list[float]], name: str, over: str = "nanoGPT"
) -> list[float]:
    """Speed of `name` over that of `over`, round by round, sorted."""
    return sorted(b / a for a, b in zip(took[name], took[over], strict=True))


def show(title: str, size: Size, took: dict[str, list[float]]) -> None:
    tokens = size.batch * size.model.context_length
    first = next(iter(took))
    weights = size.new_model().n_parameters()
    print(f"{title}: {weights:,} weights, {tokens:,} tokens a step")
    for name, times in took.items():
        seconds, r = statistics.median(times), ratios(took, name, first)
        speed = f"{seconds * 1e3:9.1f} ms {tokens / seconds:10,.0f} tokens/s"
        spread = f"x {statistics.median(r):.2f} ({r[0]:.2f} .. {r[-1]:.2f})"
        print(f"  {name:30} {speed}  {spread}", flush=True)


def kind() -> str:
    """What the results depend on."""
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}), PyTorch {torch.__version__}"


def can_compile() -> bool:
    """Whether torch.compile finds a compiler here."""
    try:
        return bool(torch.compile(lambda x: x * 2 + 1)(torch.ones(8))[0] == 3)
    except Exception:  # whatever the compilers report
        return False


def plain_adamw(params: list[Tensor], state: dict, lr: float, decay: float) -> None:
    """AdamW as chapter 6 first writes it, one tensor at a time."""
    with torch.no_grad():
        for p in params:
            kept = state.setdefault(p, [0, torch.zeros_like(p), torch.zeros_like(p)])
            kept[0] += 1
            kept[1] = 0.9 * kept[1] + 0.1 * p.grad
            kept[2] = 0.95 * kept[2] + 0.05 * p.grad**2
            mean = kept[1] / (1 - 0.9 ** kept[0])
            square = kept[2] / (1 - 0.95 ** kept[0])
            p.mul_(1 - lr * decay).sub_(lr * mean / (square.sqrt() + 1e-8))
            p.grad = None


def plain_step(model: GPT, state: dict, batch: Batch) -> float:
    """A step that checks every number: ids, loss and the gradient's length."""
    x, y = batch
    V = model.config.vocab_size
    if not 0 <= x.min().item() <= x.max().item() < V:
        raise ValueError(f"ids outside 0..{V - 1}")
    loss = cross_entropy(model(x), y)
    loss.backward()
    norm = clip_gradients(model.parameters(), 1.0)
    if not (loss.isfinite().item() and norm.isfinite().item()):
        raise ValueError("the loss is not finite")
    plain_adamw(list(model.parameters()), state, 1e-3, 0.1)
    return loss.item()


def plain_rung(size: Size, batch: Batch, *, fused_attention: bool) -> Callable:
    model, state = size.new_model(), {}
    for block in model.blocks:
        block.attention.fused = fused_attention
    return lambda: plain_step(model, state, batch)


def rung(
    size: Size, batch: Batch, *, own: bool = False, onednn: bool = False
) -> Callable:
    """training_step in fp32, uncompiled, with our AdamW or PyTorch's fused one."""
    model, config = size.new_model(), TrainConfig(batch_size=size.batch)
    groups = parameter_groups(model, config.weight_decay)
    if own:
        optimizer = AdamW(groups, betas=config.betas)
    else:
        optimizer = torch.optim.AdamW(groups, betas=config.betas, fused=True)
    if onednn:
        use_onednn(model)
    return lambda: training_step(model, optimizer, batch, 0, config)


def rungs(size: Size, batch: Batch, *, compiled: bool) -> dict[str, Callable]:
    """Name -> one step; each keeps the changes before it, unless its name says no."""
    made = {
        "as first written": plain_rung(size, batch, fused_attention=False),
        "fused attention": plain_rung(size, batch, fused_attention=True),
        "AdamW on lists, nothing read": rung(size, batch, own=True),
        "fused AdamW": rung(size, batch),
        "products by oneDNN": rung(size, batch, onednn=True),
        "bfloat16 instead": our_step(size, batch, "bf16", False),
    }
    if compiled:
        made["float32, compiled"] = our_step(size, batch, "fp32", True)
        made["bfloat16, compiled"] = our_step(size, batch, "bf16", True)
    return made


def bench_ladder(args) -> None:
    """Measure all rungs from the plain loop on; write data/studies/ladder.csv."""
    nanogpt = load_nanogpt(args.nanogpt) if args.nanogpt else None
    compiled, rows, lines = can_compile(), [], []
    print(f"{torch.get_num_threads()} threads, {kind()}"
          + ("" if compiled else "; no compiler for torch.compile"))  # fmt: skip
    for name in args.sizes:
        size = SIZES[name]
        batch = size.new_batch()
        steps = rungs(size, batch, compiled=compiled)
        if nanogpt:
            steps["nanoGPT"] = nanogpt_step(size, batch, nanogpt)
        took = take_turns(steps, args.rounds, size.turn)
        show(name, size, took)
        medians = {rung: statistics.median(times) for rung, times in took.items()}
        tokens = size.batch * size.model.context_length
        rows += [(name, r, f"{t * 1e3:.2f}", f"{tokens / t:.0f}")
                 for r, t in medians.items()]  # fmt: skip
        best = min(t for r, t in medians.items() if r != "nanoGPT")
        lines.append(f"LADDER_{name.upper()} {medians['as first written'] / best:.2f}")
    write_ladder(Path(args.csv), rows, args.rounds)
    print("\n".join(lines), flush=True)


def write_ladder(path: Path, rows: list[tuple], rounds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(f"# python tools/bench.py ladder --rounds {rounds}; median; "
                   f"{torch.get_num_threads()} threads; {kind()}\n")  # fmt: skip
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["size", "rung", "milliseconds", "tokens_per_second"])
        table.writerows(rows)
