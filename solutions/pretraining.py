"""Pretraining: loss, optimizer, schedule and the loop that turns text into weights.

Cross entropy, evaluation, a step that never waits, and a loop that shows its progress,
survives being killed and runs on many processes. See chapters/06_pretraining.ipynb.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from tqdm import tqdm

from .checkpoint import CheckpointFolder, History, TrainState, load_checkpoint
from .checkpoint import plain_model, rank_and_world, read_checkpoint
from .checkpoint import save_checkpoint
from .linear import use_onednn
from .optimization import AdamW, clip_gradients
from .optimization import cosine_schedule, parameter_groups
from .text_data import Tokens, get_batch, windows

# What the other modules of this chapter define can be imported from here as well.
__all__ = [
    "AdamW", "CheckpointFolder", "History", "TrainConfig", "TrainState",
    "average_gradients", "bits_per_byte", "clip_gradients", "cosine_schedule",
    "cross_entropy", "evaluate", "load_checkpoint", "parameter_groups", "perplexity",
    "read_checkpoint", "save_checkpoint", "token_losses", "train", "training_step",
]  # fmt: skip


def _require(holds: bool, message: str) -> None:
    """ValueError with this message unless what must hold does."""
    if not holds:
        raise ValueError(message)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) of each token, in nats: (..., V), (...) int64 -> (...) fp32.

    p is the softmax of the logits, in fp32, without overflow. A target of -100 does not
    count and gets 0. ValueError for shapes that do not fit and, on a CPU, for ids
    outside 0 .. V-1.
    """
    *shape, V = logits.shape
    if list(targets.shape) != shape:
        raise ValueError(
            f"targets has shape {list(targets.shape)}, but the logits need {shape}"
        )
    ignored = targets == -100
    indices = targets.masked_fill(ignored, 0).unsqueeze(-1)  # (..., 1)
    log_p = logits.float().log_softmax(-1)  # (..., V)
    try:
        chosen = log_p.gather(-1, indices).squeeze(-1)  # (...)
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"targets has ids outside 0..{V - 1}: {error}") from None
    return -chosen.masked_fill(ignored, 0.0)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log p(target), in nats per token: (..., V), (...) int64 -> scalar.

    See token_losses. If all targets are -100 there is nothing to count: nan.
    """
    return token_losses(logits, targets).sum() / (targets != -100).sum()


def perplexity(loss: float) -> float:
    """exp(loss in nats per token): how many tokens the model seems to choose among."""
    _require(loss >= 0, f"loss={loss} must be at least 0: nats per token")
    return math.exp(loss) if loss < 709 else math.inf  # e^710 is too large


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Nats per token -> bits per byte of the text: comparable between tokenizers.

    n_tokens: tokens predicted; n_bytes: the UTF-8 bytes of the text they stand for.
    """
    _require(min(n_tokens, n_bytes) >= 1, f"{n_tokens=}, {n_bytes=} must be at least 1")
    return loss * n_tokens / (n_bytes * math.log(2))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context: products inside it are in bfloat16 if precision is "bf16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def evaluate(
    model: nn.Module, tokens: Tokens, *, batch_size: int = 32,
    context_length: int | None = None, precision: str = "fp32", shared: bool = False,
) -> float:  # fmt: skip
    """Mean loss in nats per token over all of `tokens` but the first, each once.

    context_length: the window; None is the model's own. precision: "fp32" or "bf16" for
    the products, as in training. shared: every process of a group calls this, takes its
    part of the windows, and all get the same answer. Dropout is off while it runs.
    """
    _require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    rank, world = rank_and_world() if shared else (0, 1)
    device, training, sums = next(model.parameters()).device, model.training, []
    x, y = windows(tokens, _window(model, context_length))  # (N, T) each
    mine = torch.arange(rank, -(-len(x) // world) * world, world)  # equally many each
    extra, mine = mine >= len(x), mine.clamp(max=len(x) - 1)
    x, y = x[mine], y[mine].masked_fill(extra.unsqueeze(1), -100)
    model.eval()
    try:
        for xb, yb in zip(x.split(batch_size), y.split(batch_size), strict=True):
            with _autocast(device, precision):
                logits = model(xb.to(device))  # (B, T, V)
            sums.append(token_losses(logits, yb.to(device)).sum())
    finally:
        model.train(training)
    total = torch.stack(sums).sum()
    if world > 1:
        dist.all_reduce(total)
    return total.item() / (len(tokens) - 1)


def _window(model: nn.Module, context_length: int | None) -> int:
    """context_length, or the model's own for None; ValueError if it has no config."""
    if context_length is not None:
        return context_length
    config = getattr(plain_model(model), "config", None)
    if config is None:
        raise ValueError("context_length=None: the model has none")
    return config.context_length


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `batch_size` counts all windows of a step, over all processes
    and accumulation steps; `seed` draws the batches; `precision`: "fp32" or "bf16"."""

    steps: int = 1000
    batch_size: int = 32
    context_length: int | None = None  # None: the model's own
    max_lr: float = 1e-3
    min_lr: float | None = None  # None: a tenth of max_lr
    warmup_steps: int | None = None  # None: a tenth of the steps, at most 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_norm: float = 1.0  # math.inf: no clipping
    accumulation_steps: int = 1
    eval_every: int = 100
    checkpoint_every: int = 500
    log_every: int = 10  # how often the losses are read back from the device
    keep_best: bool = False  # also keep the weights of the lowest held-out loss
    precision: str = "fp32"
    compile: bool = False  # torch.compile: slow to start, then faster
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError or TypeError for a setting that no run can have, by its name."""
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is None and name in ("context_length", "warmup_steps"):
                continue
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r} must be a whole number")
            _require(int(value) >= least, f"{name}={value} must be at least {least}")
            object.__setattr__(self, name, int(value))  # NumPy's integers become int
        betas, decay, kind = self.betas, self.weight_decay, self.precision
        _require(self.max_norm > 0, f"max_norm={self.max_norm} must be above 0")
        _require(0 <= min(betas) <= max(betas) < 1, f"betas={betas} must be in [0, 1)")
        _require(0 <= decay < math.inf, f"weight_decay={decay} must be at least 0")
        B, n = self.batch_size, self.accumulation_steps
        _require(B % n == 0, f"batch_size={B}: no multiple of accumulation_steps={n}")
        _require(kind in ("fp32", "bf16"), f"precision={kind!r}: use 'fp32' or 'bf16'")
        self.learning_rate(0)  # checks the schedule

    def learning_rate(self, step: int) -> float:
        """The cosine schedule of this run."""
        default = min(100, self.steps // 10)
        warmup = default if self.warmup_steps is None else self.warmup_steps
        low = self.max_lr / 10 if self.min_lr is None else self.min_lr
        return cosine_schedule(
            step, max_lr=self.max_lr, min_lr=low, warmup_steps=warmup,
            total_steps=self.steps,
        )  # fmt: skip


_WHOLE = {  # the least value of each
    "steps": 1, "batch_size": 1, "context_length": 1, "warmup_steps": 0,
    "accumulation_steps": 1, "eval_every": 1, "checkpoint_every": 1, "log_every": 1,
    "seed": 0,
}  # fmt: skip


def training_step(
    model: nn.Module, optimizer: Optimizer, batch: tuple[Tensor, Tensor], step: int,
    config: TrainConfig,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One optimizer step on this process's share of a batch, (B / world, T) each.

    Returns the mean loss of the share and the length of the whole gradient as scalar
    tensors: nothing in here waits for the device. `model` may be wrapped by
    DistributedDataParallel or sharded by FSDP, which average the gradients. It is
    switched to training mode, and its gradients are cleared after the step.
    """
    device, n = next(model.parameters()).device, config.accumulation_steps
    total = torch.zeros((), device=device)
    x, y = (part.to(device, non_blocking=True) for part in batch)
    model.train()
    for i, (xb, yb) in enumerate(zip(x.chunk(n), y.chunk(n), strict=True)):
        with _averaging(model, when=i == n - 1):
            with _autocast(device, config.precision):
                logits = model(xb)  # (B / world / n, T, V)
            loss = cross_entropy(logits, yb) / n
            loss.backward()  # adds to the gradients already there
        total += loss.detach()
    norm = clip_gradients(model.parameters(), config.max_norm)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate(step) * group.get("lr_scale", 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total, norm


def _averaging(model: nn.Module, *, when: bool) -> contextlib.AbstractContextManager:
    """A context for the passes of one piece of a batch. Gradients travel between
    processes only `when` it is the last."""
    fsdp_sync = getattr(model, "set_requires_gradient_sync", None)
    ddp_no_sync = getattr(model, "no_sync", contextlib.nullcontext)
    if fsdp_sync is not None:
        fsdp_sync(when)
    return contextlib.nullcontext() if when else ddp_no_sync()


def train(
    model: nn.Module, train_tokens: Tokens, val_tokens: Tokens, config: TrainConfig, *,
    optimizer: Optimizer | None = None,
    checkpoint: str | Path | CheckpointFolder | None = None, progress: bool = True,
    report: Callable[[dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> History:  # fmt: skip
    """Train `model` in place on random windows of `train_tokens`; returns the losses.

    optimizer: any; None is PyTorch's fused AdamW on parameter_groups. A group's
    "lr_scale", if it has one, multiplies the schedule for that group.
    checkpoint: a folder; if it holds an earlier part of the same run, the run goes on
    from there and ends where an unbroken one would. It may also be a CheckpointFolder
    of a subclass, which keeps runs in its own way.
    report: gets a dict every log_every steps ("step", "train_loss", "grad_norm", "lr",
    "skipped") and after each evaluation ("step", "val_loss"); process 0 only.
    stop: asked after each step; once it says True the run is saved, and ends early.
    Under torchrun each process takes its share of every batch, and process 0 alone
    reads and writes. ValueError when the loss stays nan or infinite.
    """
    T, (rank, world) = _window(model, config.context_length), rank_and_world()
    state, report = _begin(model, config, optimizer), report if rank == 0 else None
    if checkpoint is None or isinstance(checkpoint, (str, Path)):
        checkpoint = CheckpointFolder(checkpoint)
    first, net = checkpoint.load(state), _prepared(model, config)
    next_batch = partial(get_batch, train_tokens, config.batch_size, T)
    with tqdm(total=config.steps, initial=first, disable=not progress or rank) as bar:
        for step in range(first, config.steps + 1):
            saving, evaluating, end = _due(state, first, stop)
            if saving or evaluating or step % config.log_every == 0:
                _read_back(state, bar, report)
            if saving:
                checkpoint.save(state)
            if evaluating:
                _hold_out(state, val_tokens, T, checkpoint, report)
            if end:
                break
            batch = next_batch(generator=state.batches, rank=rank, world=world)
            result = training_step(net, state.optimizer, batch, step, config)
            state.pending.append(result)
            state.step += 1
            bar.update()
    return state.history


def _begin(model: nn.Module, config: TrainConfig,
           optimizer: Optimizer | None) -> TrainState:  # fmt: skip
    """A run before its first step; without an optimizer, PyTorch's fused AdamW.
    ValueError if a batch cannot be cut evenly for all processes and pieces."""
    B, n, (_, world) = config.batch_size, config.accumulation_steps, rank_and_world()
    _require(B % (world * n) == 0, f"batch_size={B}: no multiple of {world} x {n}")
    if optimizer is None:
        groups = parameter_groups(model, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, betas=config.betas, fused=True)
    optimizer.zero_grad()  # of what was tried before the run
    batches = torch.Generator().manual_seed(config.seed)
    return TrainState(model, optimizer, config, batches)


def _prepared(model: nn.Module, config: TrainConfig) -> nn.Module:
    """The model as the steps call it: fast or compiled, averaging; same weights."""
    device, (_, world) = next(model.parameters()).device, rank_and_world()
    sharded = hasattr(model, "set_requires_gradient_sync")
    if device.type == "cpu" and config.precision == "fp32" and not config.compile:
        use_onednn(model)
    if config.compile:
        model = torch.compile(model)  # type: ignore[assignment]  # a module, too
    return DistributedDataParallel(model) if world > 1 and not sharded else model


def _due(state: TrainState, first: int,
         stop: Callable[[], bool] | None) -> tuple[bool, bool, bool]:  # fmt: skip
    """Before the next step: whether to save, to evaluate, to end. first: the steps done
    when this call of `train` began."""
    step, config = state.step, state.config
    last = step == config.steps
    end = last or _told_to_stop(stop, state)
    saving = step > first and (end or step % config.checkpoint_every == 0)
    return saving, last or not end and step % config.eval_every == 0, end


def _told_to_stop(stop: Callable[[], bool] | None, state: TrainState) -> bool:
    """Whether to end early; several processes ask each other, every log_every steps."""
    if stop is None or rank_and_world()[1] == 1:
        return stop is not None and stop()
    if state.step % state.config.log_every:
        return False
    asked = torch.tensor(float(stop()), device=next(state.model.parameters()).device)
    dist.all_reduce(asked)
    return asked.item() > 0


def _read_back(state: TrainState, bar: tqdm, report: Callable | None) -> None:
    """Move the losses of the last steps from the device into the history, and give
    their row to `report` unless it is None. ValueError: see History.add."""
    if not state.pending:
        return
    rows = torch.stack([torch.stack(pair) for pair in state.pending])  # (k, 2)
    state.pending.clear()
    if rank_and_world()[1] > 1:  # norms are equal in all processes, losses are not
        dist.all_reduce(rows)
        rows /= dist.get_world_size()
    losses, norms = rows.T.tolist()  # here, and only here, we wait for the device
    state.history.add(losses, norms)
    bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
    if report is not None:
        row = {"step": state.step, "train_loss": sum(losses) / len(losses)}
        row |= {"grad_norm": norms[-1], "skipped": len(state.history.skipped)}
        report(row | {"lr": state.config.learning_rate(state.step - 1)})


def _hold_out(state: TrainState, tokens: Tokens, T: int, store: CheckpointFolder,
              report: Callable[[dict], None] | None) -> None:  # fmt: skip
    """Evaluate on held-out tokens; keep the best weights if the run asks for it."""
    config, history = state.config, state.history
    loss = evaluate(
        state.model, tokens, context_length=T, precision=config.precision, shared=True
    )
    history.val_steps.append(state.step)
    history.val_loss.append(loss)
    if config.keep_best and loss == min(history.val_loss):
        store.save_best(state)
    if report is not None:
        report({"step": state.step, "val_loss": loss})


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over all processes, the plain way, with one
    message per parameter. DistributedDataParallel sends fewer messages, and earlier.

    The processes must hold equal shares of the batch. Then this is the whole batch's
    gradient, and equal weights stay equal.
    """
    for p in model.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)  # the sum over the processes, in each of them
            p.grad /= dist.get_world_size()
