"""Pretraining: loss, optimizer, schedule and the loop that turns text into weights.

Cross entropy, AdamW, warm-up and cosine, clipping, checkpoints that resume exactly, and
the same loop on many processes. Built in chapters/06_pretraining.ipynb.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from .text_data import get_batch, windows


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log p(target), in nats per token: (..., V), (...) int64 -> scalar.

    p is the softmax of the logits, in fp32, without overflow. Targets of -100 do not
    count. ValueError for shapes that do not fit and for ids outside 0 .. V-1.
    """
    shape, (*axes, V) = list(targets.shape), logits.shape
    _require(shape == axes, f"targets has shape {shape}, but the logits need {axes}")
    counted = targets != -100
    _require(counted.any(), "targets are all -100: give at least one token to count")
    low, high = targets[counted].aminmax()
    _require(0 <= low <= high < V, f"targets has {low}..{high}, outside 0..{V - 1}")
    log_p = logits.float().log_softmax(-1)  # (..., V)
    chosen = log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # (...)
    return -chosen[counted].mean()


def perplexity(loss: float) -> float:
    """exp(loss in nats per token): among how many tokens the model seems to choose."""
    _require(loss >= 0, f"loss={loss} must be at least 0: nats per token")
    return math.exp(loss) if loss < 709 else math.inf  # e^710 is no float


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Nats per token -> bits per byte of the text: comparable between tokenizers.

    n_tokens: tokens predicted; n_bytes: the UTF-8 bytes of the text they stand for.
    """
    _require(min(n_tokens, n_bytes) >= 1, f"{n_tokens=}, {n_bytes=} must be at least 1")
    return loss * n_tokens / (n_bytes * math.log(2))


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Each weight moves by about lr: the mean gradient over the root of the mean squared
    gradient, both corrected for starting at 0. Decay shrinks it by lr * weight_decay.
    """

    def __init__(
        self, params: Iterable, lr: float = 1e-3, betas: tuple = (0.9, 0.95),
        eps: float = 1e-8, weight_decay: float = 0.1,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        for name, value in defaults.items():
            _require(0 <= value < math.inf, f"{name}={value} must be at least 0")
        _require(0 <= min(betas) <= max(betas) < 1, f"betas={betas} must be in [0, 1)")
        super().__init__(params, defaults | {"betas": betas})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, self.state[p], **group)

    def _move(self, p, state, *, lr, betas, eps, weight_decay, **_) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        correct1, correct2 = (1 - beta ** state["step"] for beta in betas)
        state["mean"].lerp_(p.grad, 1 - betas[0])
        state["square"].mul_(betas[1]).addcmul_(p.grad, p.grad, value=1 - betas[1])
        p.mul_(1 - lr * weight_decay)
        root = (state["square"] / correct2).sqrt_().add_(eps)
        p.addcdiv_(state["mean"], root, value=-lr / correct1)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay, vectors (biases, norms) do not: two groups for an optimizer."""
    _require(weight_decay >= 0, f"weight_decay={weight_decay} must be at least 0")
    params = [p for p in model.parameters() if p.requires_grad]
    matrices = {"params": [p for p in params if p.ndim >= 2]}
    vectors = {"params": [p for p in params if p.ndim < 2]}
    return [matrices | {"weight_decay": weight_decay}, vectors | {"weight_decay": 0.0}]


def cosine_schedule(
    step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """Learning rate at `step` (from 0): up in a line, then down along half a cosine.

    It is max_lr at warmup_steps and min_lr from total_steps on (Loshchilov and Hutter
    2017, equation 5, without restarts).
    """
    ordered, fits = 0 <= min_lr <= max_lr < math.inf, 0 <= warmup_steps < total_steps
    _require(ordered, f"min_lr={min_lr} must be from 0 to max_lr={max_lr}")
    _require(fits, f"warmup_steps={warmup_steps} must be in 0..{total_steps - 1}")
    _require(step >= 0, f"step={step} must be at least 0")
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Shorten all gradients together to length max_norm; returns the length before.

    ValueError when there are no gradients, or when their length is not a number.
    """
    _require(max_norm > 0, f"max_norm={max_norm} must be above 0")
    grads = [p.grad for p in parameters if p.grad is not None]
    _require(grads, "parameters have no gradients: call loss.backward() first")
    norm = torch.stack([g.norm() for g in grads]).norm().item()
    _require(math.isfinite(norm), f"parameters: gradients of length {norm}; lower lr")
    for g in grads:
        g.mul_(max_norm / max(norm, max_norm))  # 1 for what is short enough
    return norm


@torch.no_grad()
def evaluate(
    model: nn.Module, tokens, *, batch_size: int = 32, context_length: int | None = None
) -> float:
    """Mean loss in nats per token over all of `tokens` but the first, each once.

    context_length: the window; None is the model's own. Dropout is off meanwhile.
    """
    _require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    device, mode, total = next(model.parameters()).device, model.training, 0.0
    x, y = windows(tokens, _window(model, context_length))  # (N, T) each
    model.eval()
    for xb, yb in zip(x.split(batch_size), y.split(batch_size)):
        n = (yb != -100).sum().item()
        total += n * cross_entropy(model(xb.to(device)), yb.to(device)).item()
    model.train(mode)
    return total / (len(tokens) - 1)


def _window(model: nn.Module, context_length: int | None) -> int:
    known = context_length is not None or hasattr(model, "config")
    _require(known, "context_length=None, but the model has none of its own: give one")
    return model.config.context_length if context_length is None else context_length


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `batch_size` counts all windows of a step, over all processes
    and accumulation steps; `seed` draws the batches; `precision`: "fp32" or "bf16"."""

    steps: int = 1000
    batch_size: int = 32
    context_length: int | None = None  # None: the model's own
    max_lr: float = 1e-3
    min_lr: float = 1e-4
    warmup_steps: int | None = None  # None: a tenth of the steps, at most 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_norm: float = 1.0
    accumulation_steps: int = 1
    eval_every: int = 100
    checkpoint_every: int = 500
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = "steps batch_size accumulation_steps eval_every checkpoint_every"
        for name in counts.split():
            value = getattr(self, name)
            _require(value >= 1, f"{name}={value} must be at least 1")
        B, n, kind = self.batch_size, self.accumulation_steps, self.precision
        _require(B % n == 0, f"batch_size={B}: no multiple of accumulation_steps={n}")
        _require(kind in ("fp32", "bf16"), f"precision={kind!r}: use 'fp32' or 'bf16'")
        self.learning_rate(0)  # checks the schedule

    def learning_rate(self, step: int) -> float:
        """The cosine schedule of this run."""
        default = min(100, self.steps // 10)
        warmup = default if self.warmup_steps is None else self.warmup_steps
        steps = {"warmup_steps": warmup, "total_steps": self.steps}
        return cosine_schedule(step, max_lr=self.max_lr, min_lr=self.min_lr, **steps)


@dataclass
class History:
    """What a run leaves behind; losses in nats per token."""

    train_loss: list[float] = field(default_factory=list)  # one a step
    grad_norm: list[float] = field(default_factory=list)  # one a step, before clipping
    val_steps: list[int] = field(default_factory=list)  # steps done at each evaluation
    val_loss: list[float] = field(default_factory=list)  # one an evaluation


def _rank_and_world() -> tuple[int, int]:
    """Which of how many processes this is: 0 of 1 unless several were started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def training_step(model, optimizer, batch, step, config, history) -> float:
    """One optimizer step on this process's share of `batch`; returns the mean loss."""
    device, (rank, world) = next(model.parameters()).device, _rank_and_world()
    B, n, total = config.batch_size, config.accumulation_steps, 0.0
    _require(B % (world * n) == 0, f"batch_size={B}: no multiple of {world} x {n}")
    x, y = (part[rank::world].to(device) for part in batch)  # (B / world, T)
    model.train()
    for xb, yb in zip(x.chunk(n), y.chunk(n)):
        with torch.autocast(device.type, torch.bfloat16, config.precision == "bf16"):
            loss = cross_entropy(model(xb), yb) / n
        loss.backward()  # adds to the gradients that are there
        total += loss.item()
    total = average_gradients(model, total) if world > 1 else total
    _require(math.isfinite(total), f"the loss is {total} at step {step}: lower max_lr")
    history.train_loss.append(total)
    history.grad_norm.append(clip_gradients(model.parameters(), config.max_norm))
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate(step)
    optimizer.step()
    optimizer.zero_grad()
    return total


def train(
    model: nn.Module, train_tokens, val_tokens, config: TrainConfig, *,
    checkpoint: str | Path | None = None, progress: bool = True,
) -> History:  # fmt: skip
    """Train `model` in place on random windows of `train_tokens`; returns the losses.

    checkpoint: a folder; if it holds an earlier part of the same run, the run goes on
    from there and ends where an unbroken one does. Under torchrun each process takes
    its share of every batch. ValueError when the loss is no longer a number.
    """
    T, (rank, _) = _window(model, config.context_length), _rank_and_world()
    optimizer = AdamW(parameter_groups(model, config.weight_decay), betas=config.betas)
    batches = torch.Generator().manual_seed(config.seed)
    history, first, last = History(), 0, config.steps
    if checkpoint is not None and (Path(checkpoint) / CHECKPOINT_FILE).exists():
        first = _resume(checkpoint, model, optimizer, config, batches, history)
    quiet = not progress or rank > 0
    with tqdm(total=last, initial=first, disable=quiet, mininterval=1) as bar:
        for step in range(first, last + 1):
            due = step > first and (step % config.checkpoint_every == 0 or step == last)
            if due and checkpoint is not None and rank == 0:
                _save(checkpoint, model, optimizer, step, config, batches, history)
            if step % config.eval_every == 0 or step == last:
                history.val_steps.append(step)
                history.val_loss.append(evaluate(model, val_tokens, context_length=T))
            if step < last:
                batch = get_batch(train_tokens, config.batch_size, T, generator=batches)
                loss = training_step(model, optimizer, batch, step, config, history)
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                bar.update()
    return history


CHECKPOINT_FILE = "checkpoint.safetensors"


def save_checkpoint(
    path: str | Path, model: nn.Module, optimizer, step: int, **extra
) -> None:
    """Write all that a run needs to go on into the folder `path`, replacing the last.

    One safetensors file: weights, optimizer state, step and `extra` (tensors, and what
    JSON can hold). It is written under another name and then renamed, so a killed run
    leaves the old checkpoint or the new one, never half of one.
    """
    tensors = {f"model.{name}": t for name, t in _named_tensors(model).items()}

    def by_name(value) -> dict[str, str]:  # what JSON cannot hold
        _require(isinstance(value, Tensor), f"extra: {value!r} is no tensor, nor JSON")
        tensors[name := f"other.{len(tensors)}"] = value
        return {"$tensor": name}

    values = {"step": step, "optimizer": optimizer.state_dict(), "extra": extra}
    metadata = {"values": json.dumps(values, default=by_name)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    Path(path).mkdir(parents=True, exist_ok=True)
    part = Path(path) / f"{CHECKPOINT_FILE}.part"
    save_file(tensors, part, metadata)
    part.replace(Path(path) / CHECKPOINT_FILE)


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (a tied one once) and buffers by name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def read_checkpoint(path: str | Path) -> dict:
    """{"model": {name: tensor}, "step", "optimizer", "extra"}; it cannot run code."""
    file = Path(path) / CHECKPOINT_FILE
    _require(file.exists(), f"path={str(path)!r} holds no {CHECKPOINT_FILE}")
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            text = opened.metadata()["values"]
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"path={str(file)!r} is not a checkpoint: {error}") from None
    weights = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
    plug_in = lambda d: tensors[d["$tensor"]] if "$tensor" in d else d  # noqa: E731
    return json.loads(text, object_hook=plug_in) | {"model": weights}


def load_checkpoint(path: str | Path, model: nn.Module, optimizer=None) -> int:
    """Fill `model`, and `optimizer` if given, from a checkpoint; returns its step.

    ValueError, before anything is changed, when the weights have other names or shapes.
    """
    saved, own = read_checkpoint(path), _named_tensors(model)
    there, here = ({(n, *t.shape) for n, t in w.items()} for w in (saved["model"], own))
    what = f"path={str(path)!r} is of another model; names and shapes that differ:"
    _require(there == here, f"{what} {sorted(there ^ here)[:2]}")
    if optimizer is not None:
        state = {int(i): values for i, values in saved["optimizer"]["state"].items()}
        optimizer.load_state_dict(saved["optimizer"] | {"state": state})
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved["model"][name])
    return saved["step"]


def _save(path, model, optimizer, step, config, batches, history) -> None:
    """A checkpoint that also holds what the next batches and dropouts depend on."""
    run = {"config": asdict(config), "history": asdict(history)}
    run |= {"batches": batches.get_state(), "dropout": _dropout(model).get_rng_state()}
    save_checkpoint(path, model, optimizer, step, **run)


def _resume(path, model, optimizer, config, batches, history) -> int:
    """Put a run back to where `_save` was called; returns the steps already done."""
    extra, now = read_checkpoint(path)["extra"], json.dumps(asdict(config))
    then = json.dumps(extra.get("config"))
    what = f"checkpoint={str(path)!r} was made with another config"
    _require(then == now, f"{what}: use that ({then}), or another folder")
    batches.set_state(extra["batches"])
    _dropout(model).set_rng_state(extra["dropout"])
    vars(history).update(extra["history"])
    return load_checkpoint(path, model, optimizer)


def _dropout(model: nn.Module):
    """Where the model's device keeps the state of PyTorch's own random numbers."""
    device = next(model.parameters()).device
    return torch if device.type == "cpu" else torch.get_device_module(device)


def average_gradients(model: nn.Module, loss: float) -> float:
    """Replace each gradient by its mean over all processes; returns the mean loss.

    The processes must hold equal shares of the batch: then this is the whole batch's
    gradient, and equal weights stay equal.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    mean = torch.tensor(loss, device=gradients[0].device)
    for tensor in [*gradients, mean]:
        dist.all_reduce(tensor)  # the sum over the processes, in each of them
        tensor /= dist.get_world_size()
    return mean.item()
