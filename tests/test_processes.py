"""Two processes train as one: the tool, DistributedDataParallel, FSDP and torchrun.

Two worker processes, started once, do many short runs of tools/pretrain.py; the tests
compare what these left behind with runs of this process.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import solutions.generation
import solutions.pretraining
from solutions.checkpoint import read_checkpoint
from solutions.generation import from_pretrained

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "pretrain.py"
sys.path.insert(0, str(ROOT / "tools"))
from runs import read_log  # noqa: E402

SIZES = (
    "--vocab-size 280 --context-length 16 --d-model 16 --layers 2 --heads 2 --steps 50 "
    "--batch-size 8 --sample-tokens 0 --eval-every 25 --log-every 5 --val-tokens 400 "
    "--init-scale 2.5"
).split()
LOSSES, WEIGHTS = 1e-5, 1e-4
PIECES = ["--accumulation", "2", "--dropout", "0"]

# Runs the tool once for each entry of a list; "stop" raises a signal at a batch.
WORKER = """
import contextlib, gc, io, json, os, runpy, signal, sys, torch
import torch.distributed as dist
import solutions.generation as G, solutions.pretraining as P
torch.set_num_threads(1)
G.generate = lambda model, ids, *more, **settings: ids  # no samples: saves time
tool, plan = sys.argv[1:]
dist.init_process_group("gloo")
rank, real = dist.get_rank(), P.get_batch
def run(stop, arguments):
    calls = []
    def get_batch(*args, **kwargs):
        calls.append(1)
        if len(calls) == stop and rank == 1:  # one process is asked: both must stop
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **kwargs)
    P.get_batch, sys.argv = get_batch, [tool, *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = runpy.run_path(tool)["main"]()
    return [status, said.getvalue()]
results = [run(*entry) for entry in json.loads(plan)]
with open(f"{sys.argv[-1]}.{rank}", "w") as file:
    json.dump(results, file)
gc.collect()  # FSDP's threads may otherwise end after what they belong to,
dist.barrier()
dist.destroy_process_group()
os._exit(0)  # which aborts the process on its way out
"""


def surroundings(**more: str) -> dict:
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    names = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more
    if loopback:
        names["GLOO_SOCKET_IFNAME"] = loopback
    if sys.platform == "win32":
        names["USE_LIBUV"] = "0"
    return os.environ | names


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def two_processes(plan: list) -> list[list]:
    """Results of both processes for a list of (batch to stop at, arguments)."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, "-c", WORKER, str(TOOL), json.dumps(plan)]
    started = []
    for rank in ("0", "1"):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"} | meeting
        started.append(subprocess.Popen(
            command, env=surroundings(**ranks), stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [p.returncode for p in started] == [0, 0], "\n".join(errors)
    last = plan[-1][1][-1]
    return [json.loads(Path(f"{last}.{rank}").read_text("utf-8")) for rank in (0, 1)]


@contextlib.contextmanager
def one_of_one(monkeypatch):
    """As under `torchrun --nproc-per-node 1`, in this process."""
    names = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in (surroundings() | names).items():
        monkeypatch.setenv(name, value)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def train_here(monkeypatch, *arguments, stop: int | None = None) -> int:
    """The tool in this process, alone; SIGTERM at the batch `stop`."""
    real, calls = solutions.pretraining.get_batch, []

    def get_batch(*args, **kwargs):
        calls.append(1)
        if len(calls) == stop:
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(solutions.pretraining, "get_batch", get_batch)
        patch.setattr(solutions.generation, "generate", lambda model, ids, *n, **k: ids)
        patch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        return runpy.run_path(str(TOOL))["main"]()


def weights(out: Path) -> torch.Tensor:
    parameters = from_pretrained(out).parameters()
    return torch.cat([p.detach().flatten() for p in parameters])


def losses(out: Path) -> list[float]:
    rows = read_log(out / "log.jsonl")
    both = [r.get("train_loss", r.get("val_loss")) for r in rows if "corpus" not in r]
    assert len(both) == 13  # ten means of five steps each, three evaluations
    return both


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs by name: what two processes did, and what one did before and after."""
    folder, patch = tmp_path_factory.mktemp("runs"), pytest.MonkeyPatch()
    tales = (ROOT / "data" / "tales.txt").read_text("utf-8").split("\n\n")[:24]
    (folder / "c.txt").write_text("\n\n".join(tales), "utf-8")

    def options(name: str, *more: str) -> list[str]:
        return [str(folder / "c.txt"), *SIZES, *more, "--out", str(folder / name)]

    plain, drop = ["--dropout", "0"], ["--dropout", "0.3"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train_here(patch, *options("alone", *PIECES)) == 0
    assert train_here(patch, *options("one to two", *plain), stop=25) == 143
    with one_of_one(patch):
        arguments = options("sharded one to two", *plain, "--shard")
        assert train_here(patch, *arguments, stop=25) == 143
    plan = [
        (None, options("averaged", *plain)),
        (None, options("sharded", *plain, "--shard")),
        (None, options("one to two", *plain)),
        (None, options("sharded one to two", *plain, "--shard")),
        (21, options("two to one", *plain)),
        (21, options("sharded two to one", *plain, "--shard")),
        (None, options("noise", *drop)),
        (21, options("noise stopped", *drop)),
        (None, options("noise stopped", *drop)),
        (21, options("sharded noise", *drop, "--shard")),
        (None, options("sharded noise", *drop, "--shard")),
        (None, options("sharded noise unbroken", *drop, "--shard")),
        (None, options("refused", "--batch-size", "9")),
        (None, options("noise", *drop, "--lr", "1")),
        (None, ["no.txt", *SIZES, "--out", str(folder / "missing")]),
    ]
    results = two_processes(plan)
    assert train_here(patch, *options("two to one", *plain)) == 0
    with one_of_one(patch):
        assert train_here(patch, *options("sharded two to one", *plain, "--shard")) == 0
    torch.set_num_threads(threads)
    names = [Path(arguments[-1]).name for _, arguments in plan]
    text = json.dumps([[n, *r] for n, r in zip(names, zip(*results))])
    (folder / "results.json").write_text(text, "utf-8")
    patch.undo()
    return folder


def results(folder: Path, name: str) -> list:
    """[status, what was said] of each process, for each run of that name."""
    rows = json.loads((folder / "results.json").read_text("utf-8"))
    return [row[1:] for row in rows if row[0] == name]


@pytest.mark.parametrize(
    "name",
    [
        "averaged", "sharded", "one to two", "sharded one to two", "two to one",
        "sharded two to one",
    ],
)  # fmt: skip
def test_two_processes_end_where_one_does_with_the_batch_in_two_pieces(folder, name):
    assert losses(folder / name) == pytest.approx(losses(folder / "alone"), rel=LOSSES)
    one, two = weights(folder / "alone"), weights(folder / name)
    torch.testing.assert_close(two, one, rtol=0, atol=WEIGHTS)


def test_the_runs_went_the_way_their_names_say(folder):
    stopped = {"two to one", "sharded two to one"}
    for name, text in [("averaged", "2 processes"), ("sharded", "2 processes"),
                       ("one to two", "going on after step 25"),
                       ("sharded one to two", "going on after step 25")]:  # fmt: skip
        ((first, second),) = results(folder, name)
        assert first[0] == second[0] == 0 and text in first[1]
        assert second[1] == ""  # process 0 alone speaks
    for name in stopped:
        ((first, second),) = results(folder, name)
        assert "stopped after step 25 of 50" in first[1]
        assert second == [143, ""]
    assert list((folder / "sharded" / "checkpoint").glob("step-*/*.distcp"))
    assert not list((folder / "averaged" / "checkpoint").glob("step-*"))


@pytest.mark.parametrize("name, whole", [
    ("noise stopped", "noise"), ("sharded noise", "sharded noise unbroken"),
])  # fmt: skip
def test_each_process_draws_its_own_dropout_and_gets_it_back(folder, name, whole):
    first, second = results(folder, name)
    assert "stopped after step 25" in first[0][1]
    assert "going on after step 25" in second[0][1]
    one, other = (folder / n / "model.safetensors" for n in (name, whole))
    assert one.read_bytes() == other.read_bytes()
    place = folder / whole / "checkpoint"
    if whole != "noise":
        place = place / json.loads((place / "latest.json").read_text("utf-8"))[0]
    states = [d["state"] for d in read_checkpoint(place)["extra"]["dropout"]]
    assert len(states) == 2 and not torch.equal(*states)


def test_a_sharded_checkpoint_that_is_damaged_gives_way_to_the_one_before(
    folder, monkeypatch, tmp_path
):
    out = tmp_path / "m"
    arguments = [folder / "c.txt", *SIZES, "--dropout", "0.1", "--shard",
                 "--checkpoint-every", "20", "--out"]  # fmt: skip
    with one_of_one(monkeypatch):
        assert train_here(monkeypatch, *arguments, tmp_path / "whole") == 0
        assert train_here(monkeypatch, *arguments, out) == 0
        assert sorted(p.name for p in (out / "checkpoint").iterdir()) == [
            "latest.json", "step-00000040", "step-00000050",
        ]  # fmt: skip
        (damaged,) = (out / "checkpoint" / "step-00000050").glob("*.distcp")
        damaged.write_bytes(damaged.read_bytes()[:1000])
        with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
            assert train_here(monkeypatch, *arguments, out) == 0
    one, other = (p / "model.safetensors" for p in (out, tmp_path / "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_an_error_of_process_0_ends_all_and_is_said_once(folder):
    for name, words in [("refused", "batch_size=9: no multiple of 2 processes"),
                        ("missing", "no.txt")]:  # fmt: skip
        ((first, second),) = results(folder, name)
        assert first[0] == second[0] == 2 and words in first[1] and second[1] == ""
    first, second = results(folder, "noise")[1]
    assert first[0] == second[0] == 2 and "--lr 0.003, not 1.0" in first[1]


DIES_ONCE = """
import os, runpy, signal, sys, torch
import solutions.pretraining as P
torch.set_num_threads(1)
real, calls = P.get_batch, []
def get_batch(*args, **kwargs):
    calls.append(1)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and len(calls) == 33 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
P.get_batch, sys.argv = get_batch, sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_torchrun_brings_a_killed_worker_back(folder, tmp_path):
    script, out = tmp_path / "worker.py", tmp_path / "model"
    script.write_text(DIES_ONCE, "utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", "2", "--max-restarts", "1", script]  # fmt: skip
    arguments = [TOOL, folder / "c.txt", *SIZES, "--dropout", "0.3",
                 "--checkpoint-every", "10", "--out", out]  # fmt: skip
    result = subprocess.run(
        [*map(str, torchrun), *map(str, arguments)],
        env=surroundings(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "going on after step 30" in result.stdout
    ended = (out / "model.safetensors").read_bytes()
    assert ended == (folder / "noise" / "model.safetensors").read_bytes()
    assert losses(out) == losses(folder / "noise")
