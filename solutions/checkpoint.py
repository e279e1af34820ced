"""Checkpoints: all that a run's future depends on, in a file that cannot run code.

Tensors as safetensors, everything else as JSON; written beside the last one, forced
onto the disk, then renamed. Built in chapters/06_pretraining.ipynb.
"""

import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = [
    "CHECKPOINT_FILE", "CheckpointFolder", "History", "PREVIOUS_FILE", "TrainState",
    "check_same_run", "differences", "has_checkpoint", "load_checkpoint", "model_sizes",
    "plain_model", "rank_and_world", "read_checkpoint", "restore", "save_checkpoint",
]  # fmt: skip

CHECKPOINT_FILE = "checkpoint.safetensors"
PREVIOUS_FILE = "previous.safetensors"  # the one before, in case of damage


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile and DistributedDataParallel."""
    if hasattr(model, "_orig_mod"):
        return plain_model(model.get_submodule("_orig_mod"))
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return plain_model(model.module)
    return model


def model_sizes(model: nn.Module) -> dict:
    """The fields of a model's `config` dataclass; none if it has no such thing."""
    sizes = getattr(plain_model(model), "config", None)
    return asdict(sizes) if is_dataclass(sizes) and not isinstance(sizes, type) else {}


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (a tied one once) and buffers by name."""
    model = plain_model(model)
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` with its tensors moved to `tensors`, and its types written down.

    A tensor becomes {"$tensor": its name there}, a tuple {"$tuple": [...]}, and a dict
    with other keys than plain strings {"$dict": [[key, value], ...]}. ValueError for
    what is neither a tensor nor JSON.
    """
    if isinstance(value, Tensor):
        name = f"other.{len(tensors)}"
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, tuple):
        return {"$tuple": [_to_json(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_to_json(v, tensors) for v in value]
    if isinstance(value, dict):
        pairs = [[k, _to_json(v, tensors)] for k, v in value.items()]
        plain = all(isinstance(k, str) and k[:1] != "$" for k in value)
        return dict(pairs) if plain else {"$dict": pairs}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"extra: {value!r} is no tensor, nor JSON")


def _from_json(text: str, tensors: dict[str, Tensor]) -> Any:
    """What _to_json took apart: tensors back in their positions, types as they were.
    KeyError if one is missing, ValueError (json's) for text that is no JSON."""

    def rebuild(found: dict) -> Any:  # for each {...}, the innermost first
        if "$tensor" in found:
            return tensors[found["$tensor"]]
        if "$tuple" in found:
            return tuple(found["$tuple"])
        return dict(found["$dict"]) if "$dict" in found else found

    return json.loads(text, object_hook=rebuild)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, no two sharing memory, as safetensors requires."""
    seen, result = set(), {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return result


def save_checkpoint(
    path: str | Path, model: nn.Module, optimizer: Optimizer, step: int, **extra: Any
) -> None:
    """Write everything that a run needs to continue into the folder `path`.

    Weights, the model's sizes, optimizer state, step and `extra`: tensors, and lists,
    tuples and dicts of what JSON can hold. The file is complete and on the disk before
    it gets its name, and the one before it, if whole, is kept as PREVIOUS_FILE, so that
    a whole checkpoint is there whenever a run is killed. OSError if it cannot be
    written.

    The file names a weight "model." and its name in the model. All the rest, a dict of
    "step", "config", "optimizer" and "extra", is JSON text: "values" in the metadata.
    """
    tensors = {f"model.{name}": t for name, t in _named_tensors(model).items()}
    values = {"step": step, "config": model_sizes(model), "extra": extra}
    values["optimizer"] = optimizer.state_dict()
    text = json.dumps(_to_json(values, tensors))
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    part, current = folder / f"{CHECKPOINT_FILE}.part", folder / CHECKPOINT_FILE
    try:
        save_file(_apart(tensors), part, {"values": text})
        _force_to_disk(part)
        if _is_whole(current):
            current.replace(folder / PREVIOUS_FILE)
        part.replace(current)
        _force_to_disk(folder)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"path={str(path)!r}: step {step} could not be saved ({error}); "
            "an earlier checkpoint there is kept"
        ) from None


def _is_whole(file: Path) -> bool:
    """Whether there is a file with a readable header that gives its true length."""
    try:
        with safe_open(file, "pt") as opened:
            return "values" in (opened.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _force_to_disk(path: Path) -> None:
    """Return once a file, or a folder's names, is on disk and not only in memory."""
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def has_checkpoint(path: str | Path) -> bool:
    """Whether the folder `path` holds a checkpoint, readable or not."""
    names = (CHECKPOINT_FILE, PREVIOUS_FILE)
    return any((Path(path) / name).exists() for name in names)


def read_checkpoint(path: str | Path) -> dict:
    """{"model": {name: tensor}, "config", "step", "optimizer", "extra"}.

    It cannot run code. A damaged file is passed over, with a warning, if the checkpoint
    before it is whole. ValueError if there is none, or no whole one.
    """
    if not has_checkpoint(path):
        raise ValueError(f"path={str(path)!r} holds no {CHECKPOINT_FILE}")
    try:
        return _read(Path(path) / CHECKPOINT_FILE)
    except ValueError as error:
        previous = Path(path) / PREVIOUS_FILE
        if not previous.exists():
            raise
        saved = _read(previous)
        warnings.warn(f"{error}; going on from step {saved['step']} in {previous.name}")
        return saved


def _read(file: Path) -> dict:
    """read_checkpoint for one file: ValueError unless it is a whole checkpoint."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            values = _from_json(opened.metadata()["values"], tensors)
        weights = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
        others = {k: values[k] for k in ("step", "config", "optimizer", "extra")}
        return others | {"model": weights}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path={str(file)!r} is not a checkpoint: {error}") from None


def differences(there: dict, here: dict) -> str:
    """"n_heads 2 there, 4 here": the entries of both that are not equal; "" if none."""
    both = [k for k in there if k in here and there[k] != here[k]]
    return "; ".join(f"{k} {there[k]} there, {here[k]} here" for k in both)


def restore(saved: dict, model: nn.Module, optimizer: Optimizer | None = None, *,
            path: str | Path = "") -> int:  # fmt: skip
    """load_checkpoint for what read_checkpoint has read already, `saved`.

    path: where that was, for the messages.
    """
    own, what = _named_tensors(model), f"path={str(path)!r} is of another model"
    there, here = ({(n, *t.shape) for n, t in w.items()} for w in (saved["model"], own))
    if there != here:
        names = sorted(there ^ here)[:2]
        raise ValueError(f"{what}; names and shapes that differ: {names}")
    sizes = model_sizes(model)
    sizes.pop("dropout", None)
    differing = differences(saved["config"], sizes)
    if differing:
        raise ValueError(f"{what}: {differing}")
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])  # checks before it changes
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved["model"][name])
    return saved["step"]


def load_checkpoint(path: str | Path, model: nn.Module,
                    optimizer: Optimizer | None = None) -> int:  # fmt: skip
    """Fill `model`, and `optimizer` if given, from a checkpoint; returns its step.

    ValueError, before anything is changed, for a model with other names, shapes or
    sizes (its dropout may differ) and for an optimizer with other parameter groups.
    """
    return restore(read_checkpoint(path), model, optimizer, path=path)


def rank_and_world() -> tuple[int, int]:
    """Which of how many processes this is: 0 of 1 unless several were started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@dataclass
class History:
    """What a run leaves behind; losses in nats per token."""

    train_loss: list[float] = field(default_factory=list)  # one per step
    grad_norm: list[float] = field(default_factory=list)  # per step, before clipping
    val_steps: list[int] = field(default_factory=list)  # steps done at each evaluation
    val_loss: list[float] = field(default_factory=list)  # one per evaluation
    skipped: list[int] = field(default_factory=list)  # steps without a finite gradient

    def add(self, losses: list[float], norms: list[float]) -> None:
        """Append steps. ValueError, which names the first of them and its loss, if the
        last ten, or all so far, had no finite gradient: such a run will not recover."""
        start = len(self.train_loss)
        self.train_loss += losses
        self.grad_norm += norms
        self.skipped += [start + i for i, n in enumerate(norms) if not math.isfinite(n)]
        n = min(len(self.train_loss), 10)
        if len(self.skipped) >= n and self.skipped[-n] == len(self.train_loss) - n:
            loss, step = self.train_loss[self.skipped[-n]], self.skipped[-n]
            raise ValueError(
                f"the loss is {loss} at step {step} and no gradient since is a number: "
                "lower max_lr or look at the data; the last checkpoint is from before"
            )


@dataclass
class TrainState:
    """All that a run's future depends on: what a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: Any  # the TrainConfig, or another dataclass with `seed` and `steps`
    batches: torch.Generator  # draws the next batch
    history: History = field(default_factory=History)
    step: int = 0  # steps done
    pending: list[tuple] = field(default_factory=list)  # (loss, norm) not yet read

    def extra(self) -> dict:
        """What goes into a checkpoint besides weights and optimizer: the config as
        "run", the "history", both as dicts, the state of "batches", and "dropout", a
        list of what _dropout_state gives in each process. All processes call it, since
        each draws its own dropout and has a random state to keep."""
        states = [_dropout_state(self.model)] * rank_and_world()[1]
        if len(states) > 1:
            dist.all_gather_object(states, states[0])
        return {
            "run": asdict(self.config), "history": asdict(self.history),
            "batches": self.batches.get_state(), "dropout": states,
        }  # fmt: skip

    def go_on_from(self, extra: dict, step: int) -> None:
        """Put back what `extra` gave, and go on after `step` steps."""
        self.batches.set_state(extra["batches"])
        self.history, self.step = History(**extra["history"]), step
        _restore_dropout(self.model, extra["dropout"], self.config.seed + step)


def _dropout_source(device: torch.device) -> Any:
    """The module that keeps the state of PyTorch's own random numbers on a device."""
    return torch if device.type == "cpu" else torch.get_device_module(device)


def _dropout_state(model: nn.Module) -> dict:
    """{"device": "cpu" or another type, "state"}: what dropout draws next."""
    device = next(model.parameters()).device
    return {"device": device.type, "state": _dropout_source(device).get_rng_state()}


def _restore_dropout(model: nn.Module, states: list[dict], seed: int) -> None:
    """Give this process its stream again: states[rank], as _dropout_state made it. A
    new process, or one on another kind of device, gets a new stream from `seed`, with a
    warning if dropout will show the difference."""
    (rank, _), device = rank_and_world(), next(model.parameters()).device
    if rank < len(states) and states[rank]["device"] == device.type:
        _dropout_source(device).set_rng_state(states[rank]["state"])
        return
    fresh = torch.Generator(device).manual_seed(seed * 1_000_003 + rank)
    _dropout_source(device).set_rng_state(fresh.get_state())
    if any(m.p > 0 for m in model.modules() if isinstance(m, nn.Dropout)):
        warnings.warn("dropout goes on with new random numbers: other device or rank")


class CheckpointFolder:
    """Where `train` keeps a run of one process, or of several with equal weights.

    path: a folder; None keeps nothing. All processes call the methods; process 0 alone
    reads and writes, so the folder need not be visible to the others.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = path

    def save(self, state: TrainState) -> None:
        """Write a checkpoint from which `load` goes on exactly."""
        if self.path is not None:
            self._write(self.path, state, state.extra())

    def save_best(self, state: TrainState) -> None:
        """The weights of the lowest held-out loss so far, in the folder best/."""
        if self.path is not None:
            loss = state.history.val_loss[-1]
            self._write(Path(self.path) / "best", state, {"val_loss": loss})

    def _write(self, path: str | Path, state: TrainState, extra: dict) -> None:
        """save_checkpoint in process 0; the others return at once."""
        if rank_and_world()[0] == 0:
            save_checkpoint(path, state.model, state.optimizer, state.step, **extra)

    def load(self, state: TrainState) -> int:
        """Restore `state` from the checkpoint there, if any; returns the steps done.
        Process 0 reads it and sends it, or the error, to the others."""
        found = [self._read()]
        if rank_and_world()[1] > 1:
            dist.broadcast_object_list(found)
        saved = found[0]
        if isinstance(saved, Exception):
            raise saved
        if saved is not None:
            check_same_run(saved, state, str(self.path))
            restore(saved, state.model, state.optimizer, path=str(self.path))
            state.go_on_from(saved["extra"], saved["step"])
        return state.step

    def _read(self) -> dict | Exception | None:
        """In process 0, what the folder holds, None if nothing. An error is returned,
        since it goes to the others too; they get None here."""
        if self.path is None or rank_and_world()[0] or not has_checkpoint(self.path):
            return None
        try:
            return read_checkpoint(self.path)
        except ValueError as error:
            return error


_MAY_CHANGE = {"steps", "warmup_steps", "accumulation_steps", "compile", "eval_every"}
_MAY_CHANGE |= {"checkpoint_every", "log_every", "keep_best"}


def check_same_run(saved: dict, state: TrainState, path: str | Path) -> None:
    """ValueError unless `saved` is an earlier part of this run, or of a longer one.

    saved: from read_checkpoint, and written by `train`. Settings must be equal, except
    those in _MAY_CHANGE, and so must the model's config, with its dropout.
    """
    where, run = f"checkpoint={str(path)!r}", saved["extra"].get("run")
    if run is None:
        raise ValueError(f"{where} holds no run of `train`; use another folder")
    there = {k: v for k, v in run.items() if k not in _MAY_CHANGE} | saved["config"]
    other = differences(there, asdict(state.config) | model_sizes(state.model))
    if other:
        raise ValueError(
            f"{where} was made with another config ({other}): use another folder"
        )
    if saved["step"] > state.config.steps:
        done, steps = saved["step"], state.config.steps
        raise ValueError(f"{where} has done {done} steps already, more than {steps=}")
