"""What a long run needs around `train`: processes, checkpoints, a log, a display.

These are the parts of tools/pretrain.py that know nothing about corpora and options.
"""

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from solutions.checkpoint import (
    CheckpointFolder,
    TrainState,
    check_same_run,
    has_checkpoint,
    rank_and_world,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from solutions.generation import save_pretrained
from solutions.gpt import GPT
from solutions.linear import use_onednn

# ------------------------------------------------------------------------- processes


def start_processes(wanted: str) -> torch.device:
    """The device of this process, which joins the others if there are several."""
    cuda = wanted == "cuda" or wanted == "auto" and torch.cuda.is_available()
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no such device here")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: PyTorch sees no such device here")
    if "RANK" not in os.environ:
        return torch.device("cuda" if cuda else wanted if wanted == "mps" else "cpu")
    if wanted == "mps":
        raise ValueError("--device mps is for one process: start it without torchrun")
    local = int(os.environ.get("LOCAL_RANK", 0))
    if cuda:
        if local >= torch.cuda.device_count():
            n = torch.cuda.device_count()
            raise ValueError(f"more processes than GPUs on this machine, which has {n}")
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        if sys.platform == "win32":  # PyTorch's builds for Windows have no libuv
            os.environ.setdefault("USE_LIBUV", "0")
        join("nccl" if cuda else "gloo", timedelta(minutes=30))
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def join(backend: str, limit: timedelta) -> None:
    """init_process_group, also for a worker that torchrun has restarted.

    On one machine, torchrun gives all lives of a group the same store, in which a new
    life would find the addresses of the one before. So each life gets its own part.
    """
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if life is None or os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend, timeout=limit)
        return
    store, rank, world = next(dist.rendezvous("env://", timeout=limit))
    own = dist.PrefixStore(f"life-{life}", store)
    dist.init_process_group(
        backend, store=own, rank=rank, world_size=world, timeout=limit
    )


def gather(value) -> list:
    """The values of all processes, in each of them."""
    world = rank_and_world()[1]
    values = [value] * world
    if world > 1:
        dist.all_gather_object(values, value)
    return values


def together(work: Callable):
    """Run `work()` in every process; an error in one is raised in all."""
    result, error = None, None
    try:
        result = work()
    except (ValueError, OSError) as problem:
        error = problem
    for problem in gather(error):
        if problem is not None:
            raise problem
    return result


def on_first(work: Callable):
    """What `work()` returns or raises in process 0, in all processes."""
    rank, world = rank_and_world()
    found = [None, None]
    if rank == 0:
        try:
            found[0] = work()
        except (ValueError, OSError) as problem:
            found[1] = problem
    if world > 1:
        dist.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


class Stopping:
    """Asks a run to stop after Ctrl-C or SIGTERM; a second signal stops it at once.

    Also asks after `minutes`. `signal` is the number of the signal that came, or None.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.signal, self.before = None, {}
        minutes = math.inf if minutes is None else minutes
        self.deadline = time.monotonic() + 60 * minutes

    def __call__(self) -> bool:
        return self.signal is not None or time.monotonic() > self.deadline

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *problem) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        if rank_and_world()[0] == 0:
            say = "finishing the step and saving; once more stops at once"
            os.write(2, f"\n{say}\n".encode())  # print is not safe in here


# ------------------------------------------------------------------------------ files


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole, or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class ModelFolder:
    """The model in process 0 as others read it; it also speaks for an unfinished run.

    All processes call `write`, because each holds a part of a sharded model.
    """

    def __init__(self, path: Path, config, tokenizer, *, half: bool) -> None:
        self.path, self.tokenizer, self.half = path, tokenizer, half
        self.twin = None
        if rank_and_world()[0] == 0:
            self.twin = GPT(config, generator=torch.Generator()).eval()

    def write(self, model: nn.Module, path: Path | None = None) -> None:
        """Write config.json, the weights and tokenizer.json to `path` or the folder."""
        weights = self._weights(model)
        on_first(lambda: self._write(weights, path or self.path))

    def _weights(self, model: nn.Module) -> dict:
        if not is_sharded(model):
            return model.state_dict()
        from torch.distributed.checkpoint import state_dict as states

        options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
        return states.get_model_state_dict(model, options=options)

    def _write(self, weights: dict, path: Path) -> None:
        self.twin.load_state_dict(weights)
        if self.half:
            self.twin.half()
        try:
            save_pretrained(self.twin, path, self.tokenizer)
        except OSError:
            for part in path.glob("*.part"):
                part.unlink(missing_ok=True)
            raise
        finally:
            self.twin.float()


# What may change when a run resumes: it follows --steps or changes only rounding.
MAY_CHANGE = ("warmup_steps", "accumulation_steps", "compile")


def check_run(saved: dict, state: TrainState, path: Path) -> None:
    """ValueError unless `saved` is from an earlier part of this run."""
    extra, now = saved["extra"], {n: getattr(state.config, n) for n in MAY_CHANGE}
    if "run" in extra:
        extra = extra | {"run": extra["run"] | now}
    check_same_run(saved | {"extra": extra}, state, path)


class RunFolder(CheckpointFolder):
    """Checkpoints, and the model folder, which is written at each of them.

    begun: called once with the state, as soon as the first step of the run is known.
    """

    def __init__(self, path: Path, models: ModelFolder, begun: Callable) -> None:
        super().__init__(path)
        self.models, self.begun, self.state = models, begun, None
        self.saved = lambda: None  # called after each save

    def load(self, state: TrainState) -> int:
        self.state = state
        saved = on_first(self._found)
        if saved is not None:
            check_run(saved, state, self.path)
            restore(saved, state.model, state.optimizer, path=self.path)
            state.go_on_from(saved["extra"], saved["step"])
        self._start(state, saved)
        return state.step

    def _found(self) -> dict | None:
        return read_checkpoint(self.path) if has_checkpoint(self.path) else None

    def _start(self, state: TrainState, saved: dict | None) -> None:
        steps = state.config.steps if saved is None else saved["extra"]["run"]["steps"]
        on_first(lambda: self.begun(state, steps))

    def save(self, state: TrainState) -> None:
        extra = state.extra()
        whole = (self.path, state.model, state.optimizer, state.step)
        on_first(lambda: save_checkpoint(*whole, **extra))
        self.models.write(state.model)
        self.saved()

    def save_best(self, state: TrainState) -> None:
        self.models.write(state.model, self.models.path / "best")


# --------------------------------------------------------------------------- sharding


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP holds this model's weights."""
    return hasattr(model, "set_requires_gradient_sync")


def shard(model: GPT, device: torch.device) -> None:
    """Divide the weights among all processes (FSDP2), block by block, then the rest.

    The tied table is one parameter of the last group, and stays one.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


class _Nothing(nn.Module):
    """A model without weights, because a sharded run keeps its tensors elsewhere."""

    def __init__(self, config) -> None:
        super().__init__()
        self.config = config

    def state_dict(self, *args, **kwargs) -> dict:
        return {}


class ShardedFolder(RunFolder):
    """Checkpoints of a sharded run; each process writes its part (PyTorch's DCP).

    There is a folder for each, and latest.json names the last whole one and the one
    before it. All processes must see the folder, and their number may change. Unlike
    train's own, such a checkpoint holds pickles, so read none from a stranger.
    """

    def save(self, state: TrainState) -> None:
        from torch.distributed import checkpoint as dcp

        name, extra, tensors = f"step-{state.step:08}", state.extra(), _tensors(state)
        on_first(lambda: self._make_room(name))
        together(lambda: _checked(dcp.save, tensors, checkpoint_id=self.path / name))
        on_first(lambda: self._finish(name, state, extra))
        self.models.write(state.model)
        self.saved()

    def _make_room(self, name: str) -> None:
        shutil.rmtree(self.path / name, ignore_errors=True)  # a run killed here left it
        (self.path / name).mkdir(parents=True)

    def _finish(self, name: str, state: TrainState, extra: dict) -> None:
        """Add what is not in the weights, name the new checkpoint, drop the oldest."""
        rest = _Nothing(state.model.config)
        save_checkpoint(self.path / name, rest, rest, state.step, **extra)
        names = [name, *(n for n in self._names() if n != name)][:2]
        write_whole(self.path / "latest.json", json.dumps(names))
        for old in self.path.glob("step-*"):
            if old.name not in names:
                shutil.rmtree(old, ignore_errors=True)

    def _names(self) -> list[str]:
        """The last whole checkpoint and the one before it, if there are any."""
        latest = self.path / "latest.json"
        return json.loads(latest.read_text("utf-8")) if latest.exists() else []

    def load(self, state: TrainState) -> int:
        names, saved = on_first(self._names), None
        for name in names:
            try:
                saved = self._fill(state, self.path / name)
                break
            except OSError as error:
                if name == names[-1]:
                    raise
                warnings.warn(f"{error}; going on from the checkpoint before it")
        self.state = state
        if saved is not None:
            state.go_on_from(saved["extra"], saved["step"])
        self._start(state, saved)
        return state.step

    def _fill(self, state: TrainState, place: Path) -> dict:
        """OSError for a damaged checkpoint, ValueError for one of another run."""
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import set_state_dict

        saved = on_first(lambda: _checked(read_checkpoint, place))
        check_run(saved, state, self.path)
        parts = _tensors(state)
        together(lambda: _checked(dcp.load, parts, checkpoint_id=place))
        set_state_dict(
            state.model, state.optimizer,
            model_state_dict=parts["model"], optim_state_dict=parts["optimizer"],
        )  # fmt: skip
        return saved


def _tensors(state: TrainState) -> dict:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = get_state_dict(state.model, state.optimizer)
    return {"model": model, "optimizer": optimizer}


def _checked(work: Callable, *args, **kwargs):
    """Run work(...), and turn its many kinds of errors about files into OSError."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        return work(*args, **kwargs)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        place = kwargs.get("checkpoint_id")
        text = " ".join(str(cause).split())
        raise OSError(f"checkpoint {place}: {text or type(cause).__name__}") from None
    except ValueError as error:
        raise OSError(str(error)) from None


# ----------------------------------------------------------------------------- speed

# Peaks of dense products in Tflop/s, (bf16 with fp32 sums, fp32), from NVIDIA's data
# sheets (A100, H100, H200, L4, L40S) and white papers (GA102, AD102). A name must
# contain all words. Where bf16 is quoted "with sparsity", this is half of that.
PEAKS = {
    "A100": (312.0, 19.5),
    "H100 PCIe": (756.0, 51.0),
    "H100": (989.0, 67.0),
    "H200": (989.0, 67.0),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "RTX 3090": (71.0, 35.6),
    "RTX 4090": (165.0, 82.6),
}


def peak(device: torch.device, precision: str) -> tuple[float, str]:
    """The device's peak in flops per second, and how we know it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, (bf16, fp32) in PEAKS.items():
            if all(word in name.replace("-", " ").split() for word in known.split()):
                return 1e12 * (bf16 if precision == "bf16" else fp32), "its data sheet"
    return measured_peak(device, precision), "a large matrix product"


@torch.no_grad()
def measured_peak(device: torch.device, precision: str, size: int = 1024) -> float:
    """Flops per second of the fastest of several matrix products, size^3 each."""
    layers = nn.Sequential(nn.Linear(size, size, bias=False)).to(device)
    x, times = torch.ones(size, size, device=device), []
    for kind in ("PyTorch's own", "oneDNN's"):
        if kind == "oneDNN's" and not (device.type == "cpu" and use_onednn(layers)):
            break
        for _ in range(4):
            _wait_for(device)
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
                layers(x)
            _wait_for(device)
            times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


# ------------------------------------------------------------------------ the display


def read_log(path: Path) -> list[dict]:
    """The rows of a log, without a last line that was cut off in the middle."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def rows_until(rows: list[dict], step: int) -> list[dict]:
    """The rows that a run resumed after `step` steps will not write again."""
    kept = []
    for row in rows:
        again = row["step"] >= step if "val_loss" in row else row["step"] > step
        if not again:
            kept.append(row)
    return kept


def only_finite(row: dict) -> dict:
    """JSON has no NaN and no infinity, so null replaces them."""
    bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    return row | dict.fromkeys(bad)


class Watch:
    """Shows a run and writes its log; it is `train`'s report, in process 0.

    tokens: per step; flops: to train on one token; peak: of all devices together.
    speak: () -> a sample of text; events: a TensorBoard writer, or None.
    """

    def __init__(
        self, log: Path, *, tokens: int, flops: float, peak: float,
        speak: Callable[[], str], events=None,
    ) -> None:  # fmt: skip
        self.log, self.tokens, self.flops, self.peak = log, tokens, flops, peak
        self.speak, self.events, self.val_loss = speak, events, None
        self.bar = self.file = None

    def begin(self, first: int, steps: int, about: dict) -> None:
        """Continue the log after `first` steps; a new log begins with `about`."""
        rows = rows_until(read_log(self.log), first) if first else []
        rows = [{"step": 0} | about, *(row for row in rows if "corpus" not in row)]
        write_whole(self.log, "".join(json.dumps(row) + "\n" for row in rows))
        self.file = open(self.log, "a", encoding="utf-8", newline="\n")
        self.seconds = max(row.get("seconds", 0.0) for row in rows)
        pause = 0.5 if sys.stderr.isatty() else 30.0  # a file gets few lines
        self.bar = tqdm(total=steps, initial=first, mininterval=pause, unit="step")
        self.first = self.step = first
        self.begun = self.mark = time.monotonic()

    def resume_clock(self) -> None:
        """Time between steps, such as that of a save, does not count as theirs."""
        self.mark = time.monotonic()

    def __call__(self, row: dict) -> None:
        row = self._timed(row) if "train_loss" in row else self._evaluated(row)
        self.file.write(json.dumps(only_finite(row)) + "\n")
        self.file.flush()  # a process that is killed then loses nothing
        if self.events is not None:
            for name in row.keys() - {"step", "sample"}:
                self.events.add_scalar(name, row[name], row["step"])
            if row.get("sample"):
                self.events.add_text("sample", row["sample"], row["step"])
        self.resume_clock()

    def _timed(self, row: dict) -> dict:
        took, done = time.monotonic() - self.mark, row["step"] - self.step
        speed = done * self.tokens / max(took, 1e-9)
        self.seconds, self.step = self.seconds + took, row["step"]
        row |= {"tokens_per_s": round(speed, 1), "seconds": round(self.seconds, 3)}
        row["mfu"] = round(speed * self.flops / self.peak, 4)
        self.last = row
        self.bar.set_postfix_str(self._words(), refresh=False)
        self.bar.update(row["step"] - self.bar.n)
        return row

    def _evaluated(self, row: dict) -> dict:
        self.val_loss, sample = row["val_loss"], self.speak()
        shown = f"step {row['step']:,}: held out {self.val_loss:.4f}"
        if self.step > self.first:
            shown = f"step {row['step']:,}: {self._words()}, {self._left()}"
        self._say(shown + "".join(f"\n    | {line}" for line in sample.splitlines()))
        return row | {"seconds": round(self.seconds, 3)} | (
            {"sample": sample} if sample else {}
        )

    def _say(self, text: str) -> None:
        if sys.stderr.isatty():  # the bar must make room
            self.bar.write(text, file=sys.stdout)
        else:
            print(text)
        sys.stdout.flush()

    def _words(self) -> str:
        row = self.last
        words = [f"loss {row['train_loss']:.4f}"]
        if self.val_loss is not None:
            words.append(f"held out {self.val_loss:.4f}")
        words.append(f"{row['tokens_per_s']:,.0f} tokens/s, MFU {row['mfu']:.0%}")
        if row["skipped"]:
            words.append(f"{row['skipped']} steps skipped")
        return ", ".join(words)

    def _left(self) -> str:
        each = (time.monotonic() - self.begun) / (self.step - self.first)
        return f"{duration(each * (self.bar.total - self.step))} left"

    def close(self) -> None:
        for opened in (self.bar, self.file, self.events):
            if opened is not None:
                opened.close()


def duration(seconds: float) -> str:
    """"3 h 20 min", "12 min", "40 s"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
