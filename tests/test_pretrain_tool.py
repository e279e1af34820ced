"""tools/pretrain.py in one process: a corpus becomes a model, whatever happens."""

import json
import math
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import solutions.checkpoint
import solutions.pretraining
from solutions.bpe import BPETokenizer
from solutions.generation import from_pretrained
from solutions.gpt import GPT, GPTConfig
from solutions.text_data import get_batch, windows, write_tokens

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
sys.path.insert(0, str(ROOT / "tools"))
from runs import PEAKS, peak, read_log, rows_until  # noqa: E402
from shards import TokenShards, open_tokens  # noqa: E402

TINY = (
    "--vocab-size 300 --context-length 32 --d-model 16 --layers 1 --heads 2 "
    "--steps 6 --sample-tokens 5"
).split()
KEPT = ("model.safetensors", "config.json", "tokenizer.json", "README.md")


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs tools/<name>.py in this process: (exit status, stdout, stderr)."""

    def run(name: str, *args) -> tuple[int, str, str]:
        path = str(ROOT / "tools" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(path, run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    tales = (ROOT / "data" / "tales.txt").read_text("utf-8").split("\n\n")[:30]
    path = tmp_path_factory.mktemp("corpus") / "few.txt"
    path.write_text("\n\n".join(tales), "utf-8")
    return path


@pytest.fixture
def unbroken(tool, corpus, tmp_path):
    out = tmp_path / "unbroken" / "model"
    assert tool("pretrain", corpus, "--out", out, *TINY, *OFTEN)[0] == 0
    return contents(out)


OFTEN = ["--checkpoint-every", "2", "--eval-every", "3", "--log-every", "1"]


def contents(out: Path) -> dict:
    """The model and its card, and the losses that the log holds."""
    files = {name: (out / name).read_bytes() for name in KEPT}
    rows = [r for r in read_log(out / "log.jsonl") if "corpus" not in r]
    names = ("step", "train_loss", "val_loss", "grad_norm", "sample")
    return files | {"log": [{k: r[k] for k in names if k in r} for r in rows]}


def one_line(said: str) -> str:
    """What the tool says about a fault: a single line beside the progress bar."""
    lines = [line for line in said.splitlines() if line.startswith("pretrain: ")]
    assert len(lines) == 1 and "Traceback" not in said, said
    return lines[0]


def at_step(monkeypatch, step: int, do, name: str = "get_batch") -> None:
    """Have `do()` run before the call number `step`, from 0, of a part of `train`."""
    real, calls = getattr(solutions.pretraining, name), []

    def patched(*args, **kwargs):
        calls.append(1)
        if len(calls) == step + 1:
            do()
        return real(*args, **kwargs)

    monkeypatch.setattr(solutions.pretraining, name, patched)


# --- one run ------------------------------------------------------------------------


def test_a_corpus_becomes_a_folder_and_the_same_command_changes_nothing(
    tool, corpus, tmp_path
):
    out = tmp_path / "model"
    status, said, _ = tool("pretrain", corpus, "--out", out, *TINY)
    assert status == 0
    stated = float(re.search(r"([\d.]+) bits per byte", said)[1])
    card = (out / "README.md").read_text("utf-8")
    assert f"**{stated:.3f} bits per byte**" in card and card.count("### Sample") == 3
    assert from_pretrained(out).config.d_model == 16
    assert BPETokenizer.load(out / "tokenizer.json").n_vocab == 300
    before = contents(out)
    (out / "model.safetensors").unlink()
    status, _, progress = tool("pretrain", corpus, "--out", out, *TINY)
    assert status == 0 and contents(out) == before
    assert "6/6" in progress  # the bar started where the run had ended


def test_it_says_at_the_start_what_a_loss_is_worth(tool, corpus, tmp_path):
    out = tmp_path / "model"
    _, said, _ = tool("pretrain", corpus, "--out", out, *TINY)
    tokenizer = BPETokenizer.load(out / "tokenizer.json")
    pretrain = runpy.run_path(str(ROOT / "tools" / "pretrain.py"))
    sides = pretrain["split_corpus"](corpus, 0.1, 1)
    train, val = (pretrain["encode_documents"](tokenizer, s).tolist() for s in sides)
    counts, pairs = np.ones(300), np.full((300, 300), 0.1)
    for a, b in zip(train, [*train[1:], None]):
        counts[a] += 1
        if b is not None:
            pairs[a, b] += 1
    unigram = -np.mean([math.log(counts[t] / counts.sum()) for t in val[1:]])
    bigram = -np.mean(
        [math.log(pairs[a, b] / pairs[a].sum()) for a, b in zip(val, val[1:])]
    )
    expected = f"(ln V) {math.log(300):.2f}, unigram {unigram:.2f}, bigram {bigram:.2f}"
    assert expected in said
    assert f"few.txt: {len(sides[0])} + {len(sides[1])} documents" in said
    assert f"{len(train):,} tokens to train on, {len(val):,} held out" in said
    assert f"{from_pretrained(out).n_parameters():,} parameters" in said
    assert "1 process;" in said and "Tflop/s" in said
    first = read_log(out / "log.jsonl")[0]
    assert first["baselines"]["bigram"] == pytest.approx(bigram, abs=1e-3)


def test_a_run_shows_how_it_goes_and_writes_it_down(tool, corpus, tmp_path, unbroken):
    out = tmp_path / "unbroken" / "model"
    rows = read_log(out / "log.jsonl")
    assert [r["step"] for r in rows if "val_loss" in r] == [0, 3, 6]
    assert all("sample" in r for r in rows if "val_loss" in r)
    steps = [r for r in rows if "train_loss" in r]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]
    model = from_pretrained(out)
    for row in steps:
        flops = row["tokens_per_s"] * 3 * model.flops_per_token()
        assert row["mfu"] == pytest.approx(flops / rows[0]["peak_flops"], abs=1e-3)
        assert row["grad_norm"] > 0 and row["lr"] > 0 and row["skipped"] == 0
    assert [r["seconds"] for r in steps] == sorted(r["seconds"] for r in steps)
    status, _, _ = tool("plot_run", out, out, "--out", tmp_path / "plot.png")
    assert status == 0 and (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    status, _, said = tool("plot_run", corpus, "--out", tmp_path / "plot.png")
    assert status == 2 and "is not a log" in said
    said = tool("pretrain", corpus, "--out", tmp_path / "b", *TINY, *OFTEN)[1]
    line = next(line for line in said.splitlines() if line.startswith("step 3: "))
    kind = r"step 3: loss [\d.]+, held out ([\d.]+), [\d,]+ tokens/s, MFU \d+%, .* left"
    stated = float(re.fullmatch(kind, line)[1])
    assert stated == pytest.approx(rows[5]["val_loss"], rel=1e-3)


def test_pretrain_reads_what_prepare_has_written_in_one_file_or_many(
    tool, corpus, tmp_path
):
    folders = [tmp_path / "whole", tmp_path / "cut"]
    sizes = ["--vocab-size", 300, "--workers", 1, "--val-fraction", 0.2]
    assert tool("prepare", corpus, "--out", folders[0], *sizes)[0] == 0
    cut = ["--tokens-per-shard", 700]
    assert tool("prepare", corpus, "--out", folders[1], *sizes, *cut)[0] == 0
    shards = sorted(folders[1].glob("train-*.npy"))
    assert len(shards) > 5 and not (folders[1] / "train.npy").exists()
    assert [len(np.load(s)) for s in shards[:-1]] == [700] * (len(shards) - 1)
    saids, outs = [], [tmp_path / "a", tmp_path / "b"]
    for folder, out in zip(folders, outs):
        arguments = ["--val-tokens", 1000, *TINY]
        status, said, _ = tool("pretrain", folder, "--out", out, *arguments)
        assert status == 0 and "on 1,000 held-out tokens" in said
        saids.append(said)
    weights = [(out / "model.safetensors").read_bytes() for out in outs]
    assert weights[0] == weights[1]
    bits = float(re.search(r"([\d.]+) bits per byte", saids[1])[1])
    assert bits == pytest.approx(bits_per_byte_by_hand(folders[0], outs[0]), abs=2e-3)
    shards[3].unlink()
    status, _, said = tool("pretrain", folders[1], "--out", tmp_path / "c", *TINY)
    assert status == 2 and "lacks train-00003.npy" in one_line(said)


def test_the_first_tokens_bytes_do_not_count_as_nothing_predicts_it():
    pretrain = runpy.run_path(str(ROOT / "tools" / "pretrain.py"))
    merges = [(b"a", b"a"), (b"aa", b"aa"), (b"aaaa", b"aaaa")]
    tokenizer = BPETokenizer(merges, special_tokens=[END])
    end = tokenizer.special_tokens[END]
    model = GPT(GPTConfig(tokenizer.n_vocab, 2, 8, 1, 1))
    with torch.no_grad():
        model.tokens.weight.zero_()  # so that every token costs log2(V) bits
    each = math.log2(tokenizer.n_vocab)
    cases = [(258, [98, 98], 2), (98, [258, end], 8), (end, [98, end], 1)]
    for first, rest, n_bytes in cases:
        tokens = np.array([first, *rest])
        bits = pretrain["held_out_bits"](model, tokens, tokenizer)
        assert bits == pytest.approx(len(rest) * each / n_bytes, rel=1e-5)


def test_end_of_text_marks_separate_stories_of_many_paragraphs(tool, corpus, tmp_path):
    tales = corpus.read_text("utf-8").split("\n\n")
    stories = [tale.replace(". ", ".\n\n", 1) for tale in tales]
    path, out = tmp_path / "stories.txt", tmp_path / "m"
    path.write_text(f"\n{END}\n".join(stories), "utf-8")
    status, said, _ = tool("pretrain", path, "--out", out, *TINY)
    n = len(stories)
    assert status == 0 and f"stories.txt: {n - n // 10} + {n // 10} documents" in said
    pretrain = runpy.run_path(str(ROOT / "tools" / "pretrain.py"))
    sides = pretrain["split_corpus"](path, 0.1, 1)
    assert sorted(sides[0] + sides[1]) == sorted(stories)


def bits_per_byte_by_hand(prepared: Path, out: Path) -> float:
    tokenizer = BPETokenizer.load(prepared / "tokenizer.json")
    assert BPETokenizer.load(out / "tokenizer.json").merges == tokenizer.merges
    model, tokens = from_pretrained(out), np.load(prepared / "val.npy")[:1000]
    predicted = tokenizer.decode_bytes(int(i) for i in tokens[1:])
    text = predicted.replace(END.encode(), b"")
    losses = []
    for start in range(0, 999, 32):  # every token once, given those of its window
        window = torch.tensor(tokens[start : start + 33].astype(np.int64))
        with torch.no_grad():
            logits = model(window[None, :-1])[0]
        losses.append(
            torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum")
        )
    return sum(losses).item() / np.log(2) / len(text)


def test_the_best_model_is_kept_when_asked_for(tool, corpus, tmp_path):
    out = tmp_path / "m"
    high = ["--lr", "0.3", "--steps", "30", "--eval-every", "5", "--keep-best"]
    assert tool("pretrain", corpus, "--out", out, *TINY, *high)[0] == 0
    rows = [r for r in read_log(out / "log.jsonl") if "val_loss" in r]
    tokens = corpus_tokens(corpus, out)
    measured = solutions.pretraining.evaluate(from_pretrained(out / "best"), tokens)
    assert measured == pytest.approx(min(r["val_loss"] for r in rows), abs=1e-4)
    status, said, _ = tool("generate", "", "--model", out / "best", "--length", 3)
    assert status == 0


def corpus_tokens(corpus: Path, out: Path) -> np.ndarray:
    pretrain = runpy.run_path(str(ROOT / "tools" / "pretrain.py"))
    tokenizer = BPETokenizer.load(out / "tokenizer.json")
    _, held_out = pretrain["split_corpus"](corpus, 0.1, 1)
    return pretrain["encode_documents"](tokenizer, held_out)


class Writer:
    """Stands for torch.utils.tensorboard."""

    def __init__(self, place: str, purge_step: int) -> None:
        Path(place).mkdir(exist_ok=True)
        self.seen = {}
        Writer.last, self.purge_step = self, purge_step

    def add_scalar(self, name, value, step) -> None:
        self.seen.setdefault(name, []).append((step, value))

    def add_text(self, name, value, step) -> None:
        self.seen.setdefault(name, []).append((step, value))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_the_same_figures_or_is_missed(
    tool, corpus, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = [corpus, "--out", tmp_path / "m", *TINY, *OFTEN, "--tensorboard"]
    status, _, said = tool("pretrain", *arguments)
    assert status == 2 and "pip install tensorboard" in one_line(said)
    assert not (tmp_path / "m").exists()
    fake = type(sys)("fake")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    assert tool("pretrain", *arguments)[0] == 0
    rows = [r for r in read_log(tmp_path / "m" / "log.jsonl") if "val_loss" in r]
    assert Writer.last.seen["val_loss"] == [(r["step"], r["val_loss"]) for r in rows]
    assert len(Writer.last.seen["train_loss"]) == 6 and Writer.last.closed


# --- stopping and going on ----------------------------------------------------------


@pytest.mark.parametrize("number, expected", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_the_same_command_ends_as_an_unbroken_run(
    tool, corpus, tmp_path, monkeypatch, unbroken, number, expected
):
    out = tmp_path / "model"
    arguments = [corpus, "--out", out, *TINY, *OFTEN]
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: signal.raise_signal(getattr(signal, number)))
        status, said, noise = tool("pretrain", *arguments)
    assert status == expected and "Traceback" not in noise
    last = said.splitlines()[-1]
    assert last.startswith("stopped after step 5 of 6, and saved; the same command")
    command = ["python", ROOT / "tools" / "pretrain.py", *arguments]
    assert last.endswith(": " + " ".join(map(str, command)))
    assert tool("generate", "A", "--model", out, "--length", 3)[0] == 0
    status, said, _ = tool("pretrain", *arguments)
    assert status == 0 and "going on after step 5" in said
    assert contents(out) == unbroken


def test_a_second_ctrl_c_stops_at_once_and_nothing_is_lost(
    tool, corpus, tmp_path, monkeypatch, unbroken
):
    out, before = tmp_path / "model", signal.getsignal(signal.SIGINT)

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 4, twice)
        status, _, said = tool("pretrain", corpus, "--out", out, *TINY, *OFTEN)
    assert status == 130 and "at once" in one_line(said)
    assert signal.getsignal(signal.SIGINT) is before
    status, said, _ = tool("pretrain", corpus, "--out", out, *TINY, *OFTEN)
    assert "going on after step 4" in said and contents(out) == unbroken


def test_a_run_can_be_given_minutes(tool, corpus, tmp_path):
    out, steps = tmp_path / "m", ["--steps", "100000", "--minutes", "0.01"]
    status, said, _ = tool("pretrain", corpus, "--out", out, *TINY, *steps)
    assert status == 0 and "stopped after step" in said.splitlines()[-1]


def test_a_finished_run_can_be_made_longer(tool, corpus, tmp_path):
    out = tmp_path / "model"
    assert tool("pretrain", corpus, "--out", out, *TINY, *OFTEN)[0] == 0
    longer = [*TINY, *OFTEN, "--steps", "20", "--accumulation", "2"]
    status, said, _ = tool("pretrain", corpus, "--out", out, *longer)
    assert status == 0 and "made for 6 steps, now for 20: from here on" in said
    rows = [r for r in read_log(out / "log.jsonl") if "train_loss" in r]
    assert [r["step"] for r in rows] == list(range(1, 21))
    plan = solutions.pretraining.TrainConfig(steps=20, max_lr=3e-3, min_lr=3e-4)
    assert rows[10]["lr"] == pytest.approx(plan.learning_rate(10))
    status, _, said = tool("pretrain", corpus, "--out", out, *TINY)
    assert status == 2 and "20 steps already, more than steps=6" in one_line(said)


LIFE = """
import os, runpy, signal, sys, torch
import solutions.checkpoint as C, solutions.pretraining as P
threads, where = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(threads)
def die(): os.kill(os.getpid(), signal.SIGKILL)
calls, save, score = [], C.save_file, P.evaluate
def save_file(tensors, path, metadata):
    calls.append(1)
    if where == "saving" and len(calls) == 2:
        save(tensors, path, metadata)
        with open(path, "r+b") as file: file.truncate(5000)  # half of it is there
        die()
    save(tensors, path, metadata)
def evaluate(*args, **kwargs):
    if where == "evaluating" and calls: die()
    return score(*args, **kwargs)
C.save_file, P.evaluate, sys.argv = save_file, evaluate, sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_kill_9_while_saving_and_while_evaluating_leaves_no_trace(
    tool, corpus, tmp_path, unbroken
):
    out = tmp_path / "model"
    arguments = [corpus, "--out", out, *TINY, *OFTEN]
    command = [sys.executable, "-c", LIFE, torch.get_num_threads()]
    for where, step in (("saving", 2), ("evaluating", 6)):
        life = [*command, where, ROOT / "tools" / "pretrain.py", *arguments]
        died = subprocess.run([*map(str, life)], capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        saved = solutions.checkpoint.read_checkpoint(out / "checkpoint")["step"]
        assert saved == step
        left = (out / "checkpoint" / "checkpoint.safetensors.part").exists()
        assert left == (where == "saving")  # the half that never gets the name
    status, said, _ = tool("pretrain", *arguments)
    assert status == 0 and "going on after step 6" in said
    assert contents(out) == unbroken


def test_rows_that_will_be_written_again_are_dropped():
    rows = [{"step": 0, "val_loss": 1}, {"step": 2, "train_loss": 1},
            {"step": 2, "val_loss": 1}, {"step": 4, "train_loss": 1}]  # fmt: skip
    assert rows_until(rows, 2) == rows[:2]
    assert rows_until(rows, 4) == rows


def test_a_row_that_was_cut_off_does_not_count(tmp_path):
    (tmp_path / "log").write_text('{"step": 1}\n{"step": 2}\n{"ste', "utf-8")
    assert read_log(tmp_path / "log") == [{"step": 1}, {"step": 2}]


# --- faults -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        (["--d-model", "15"], "n_heads=2"),
        (["--vocab-size", "100"], "vocab_size=100"),
        (["--val-fraction", "2"], "val_fraction=2.0"),
        (["--context-length", "90000"], "context_length=90000"),
        (["--val-tokens", "20"], "20 held-out tokens"),
        (["--steps", "0"], "steps=0"),
        (["--eval-every", "0"], "eval_every=0"),
        (["--batch-size", "6", "--accumulation", "4"], "batch_size=6"),
        (["--shard"], "--shard needs torchrun"),
        (["--minutes", "-1"], "--minutes"),
        (["--init-scale", "nan"], "--init-scale nan"),
        (["--sample-tokens", "-1"], "--sample-tokens -1"),
        (["--dropout", "1"], "dropout=1.0"),
        pytest.param(
            ["--device", "mps"], "--device mps: PyTorch sees no such device",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is"),
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tool, corpus, tmp_path, change, message
):
    out = tmp_path / "model"
    status, _, said = tool("pretrain", corpus, "--out", out, *TINY, *change)
    assert status == 2 and message in one_line(said) and not out.exists()


def test_a_corpus_that_is_missing_or_too_small_is_named(tool, tmp_path):
    out = tmp_path / "m"
    status, _, said = tool("pretrain", tmp_path / "none.txt", "--out", out, *TINY)
    assert status == 2 and "none.txt" in one_line(said)
    (tmp_path / "one.txt").write_text("a single document", "utf-8")
    status, _, said = tool("pretrain", tmp_path / "one.txt", "--out", out, *TINY)
    assert status == 2 and "give at least 2" in one_line(said) and not out.exists()


@pytest.mark.parametrize("name", ["README.md", "config.json", "notes.txt"])
def test_a_folder_with_files_of_others_is_left_alone(
    tool, corpus, tmp_path, monkeypatch, name
):
    (tmp_path / name).write_text("mine", "utf-8")
    monkeypatch.chdir(tmp_path)
    for out in (".", tmp_path):
        status, _, said = tool("pretrain", corpus, "--out", out, *TINY)
        assert status == 2 and name in one_line(said)
    for out in ("", "  "):
        status, _, said = tool("pretrain", corpus, "--out", out, *TINY)
        assert status == 2 and "--out is empty" in one_line(said)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text("utf-8") == "mine"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tool, corpus, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("x", "utf-8")
    for out in ("file", "file/model"):
        status, _, said = tool("pretrain", corpus, "--out", tmp_path / out, *TINY)
        assert status == 2 and str(tmp_path / out) in one_line(said)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as root may write all
    status, _, said = tool("pretrain", corpus, "--out", tmp_path / "m", *TINY)
    assert status == 2 and "cannot be written" in one_line(said)


@pytest.mark.parametrize(
    "change, message",
    [
        (["--dropout", "0.5"], "--dropout 0.1, not 0.5"),
        (["--init-scale", "1"], "--init-scale 6.928, not 1.0"),
        (["--lr", "0.1", "--heads", "1"], "--heads 2, not 1, --lr 0.003, not 0.1"),
        (["other"], "another corpus"),
    ],
)
def test_what_another_run_began_is_left_as_it_is(
    tool, corpus, tmp_path, change, message
):
    out, other = tmp_path / "model", tmp_path / "other.txt"
    assert tool("pretrain", corpus, "--out", out, *TINY)[0] == 0
    kept = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    if change == ["other"]:
        text, change = corpus.read_text("utf-8"), []
        other.write_text(text.replace("the", "thy"), "utf-8")
    else:
        other = corpus
    status, _, said = tool("pretrain", other, "--out", out, *TINY, *change)
    assert status == 2 and message in one_line(said)
    assert "use another --out" in one_line(said) and "{" not in said
    assert kept == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def no_room(*args):
    raise SafetensorError("Error while serializing: I/O error: No space left (28)")


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    tool, corpus, tmp_path, monkeypatch, unbroken
):
    out = tmp_path / "model"
    arguments = [corpus, "--out", out, *TINY, *OFTEN]
    real = solutions.checkpoint.save_file
    for broken, step in (("save_file", 2), ("save_pretrained", 4)):
        calls = []

        def sometimes(*args):
            calls.append(1)
            if len(calls) == 2:
                if broken == "save_file":
                    no_room()
                (out / "model.safetensors.part").write_bytes(b"half")
                raise OSError(28, "No space left on device")
            return (real if broken == "save_file" else save_pretrained)(*args)

        place = {"save_file": "solutions.checkpoint", "save_pretrained": "runs"}[broken]
        save_pretrained = solutions.generation.save_pretrained
        with monkeypatch.context() as patch:
            patch.setattr(f"{place}.{broken}", sometimes)
            status, _, said = tool("pretrain", *arguments)
        assert status == 2 and "No space left" in one_line(said)
        saved = solutions.checkpoint.read_checkpoint(out / "checkpoint")["step"]
        assert saved == {"save_file": 2, "save_pretrained": 6}[broken]
        assert not list(out.rglob("*.part"))
    status, _, _ = tool("pretrain", *arguments)
    assert status == 0 and contents(out) == unbroken


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    tool, corpus, tmp_path, unbroken
):
    out = tmp_path / "model"
    arguments = [corpus, "--out", out, *TINY, *OFTEN]
    assert tool("pretrain", *arguments)[0] == 0
    last = out / "checkpoint" / "checkpoint.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.warns(UserWarning, match="going on from step 4"):
        status, said, _ = tool("pretrain", *arguments)
    assert status == 0 and contents(out) == unbroken
    for file in (out / "checkpoint").iterdir():
        file.write_bytes(b"something else")
    status, _, said = tool("pretrain", *arguments)
    assert status == 2 and "is not a checkpoint" in one_line(said)
    assert contents(out) == unbroken


def poisoned(monkeypatch, steps: set[int]) -> None:
    """Have the loss be nan at some steps."""
    real, calls = solutions.pretraining.cross_entropy, []

    def cross_entropy(logits, targets):
        calls.append(1)
        loss = real(logits, targets)
        return loss * math.nan if len(calls) - 1 in steps else loss

    monkeypatch.setattr(solutions.pretraining, "cross_entropy", cross_entropy)


def test_steps_without_a_finite_gradient_are_skipped_and_counted(
    tool, corpus, tmp_path, monkeypatch
):
    poisoned(monkeypatch, {3, 4})
    out = tmp_path / "m"
    status, said, _ = tool("pretrain", corpus, "--out", out, *TINY, *OFTEN)
    assert status == 0 and "2 steps skipped" in said
    rows = [r for r in read_log(out / "log.jsonl") if "train_loss" in r]
    assert [r["skipped"] for r in rows] == [0, 0, 0, 1, 2, 2]
    assert rows[3]["train_loss"] is None and rows[5]["train_loss"] > 0


def test_a_loss_that_stays_no_number_ends_the_run_and_keeps_the_last_good_state(
    tool, corpus, tmp_path, monkeypatch
):
    poisoned(monkeypatch, set(range(3, 99)))
    out, more = tmp_path / "m", ["--steps", "30"]
    arguments = [corpus, "--out", out, *TINY, *OFTEN, *more]
    status, _, said = tool("pretrain", *arguments)
    assert status == 2 and "the loss is nan at step 3" in one_line(said)
    saved = solutions.checkpoint.read_checkpoint(out / "checkpoint")
    assert all(t.isfinite().all() for t in saved["model"].values())


# --- token files larger than memory -------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    ids = np.random.default_rng(0).integers(0, 70_000, 1000)
    cuts = [0, 1, 300, 301, 640, 1000]  # some of a single token
    for i, (start, end) in enumerate(zip(cuts, cuts[1:])):
        write_tokens(tmp_path / f"train-{i:05}.npy", ids[start:end].tolist())
    return tmp_path, ids


def test_shards_are_one_long_row(shards):
    folder, ids = shards
    row = open_tokens(folder, "train")
    assert isinstance(row, TokenShards) and len(row) == 1000
    assert {f.dtype.str for f in row.files} == {"<u2", "<u4"}  # as they come
    for a, b in [(0, 1000), (0, 1), (1, 300), (299, 302), (500, 400), (990, 2000)]:
        assert row[a:b].tolist() == ids[a:b].tolist()
    assert row[-7:].tolist() == ids[-7:].tolist()
    assert row[::9].tolist() == ids[::9].tolist()
    places = np.random.default_rng(1).integers(-1000, 1000, (5, 7, 3))
    assert np.array_equal(row[places], ids[places]) and row[640] == ids[640]
    with pytest.raises(IndexError, match="outside 0..999"):
        row[np.array([1000])]
    with pytest.raises(TypeError, match="float64"):
        row[np.array([0.5])]


@pytest.mark.parametrize("rank, world", [(0, 1), (0, 3), (2, 3)])
def test_batches_and_windows_of_shards_are_those_of_the_row(shards, rank, world):
    folder, ids = shards
    row = open_tokens(folder, "train")
    for context in (1, 8, 400):
        pairs = []
        for tokens in (ids, row):
            draw = torch.Generator().manual_seed(3)
            share = {"generator": draw, "rank": rank, "world": world}
            pairs.append(get_batch(tokens, 6, context, **share))
            pairs.append(windows(tokens, context))
        for one, other in zip(pairs[:2], pairs[2:]):
            assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_what_is_missing_among_shards_is_named(shards):
    folder, _ = shards
    about = folder / "prepare.json"
    about.write_text(json.dumps({"tokens": {"train": 1360}}), "utf-8")
    with pytest.raises(ValueError, match="holds 1,000 tokens.*says 1,360"):
        open_tokens(folder, "train")
    write_tokens(folder / "train.npy", [1, 2])
    with pytest.raises(ValueError, match="both train.npy and train-00000.npy"):
        open_tokens(folder, "train")
    (folder / "train-00001.npy").unlink()
    (folder / "train.npy").unlink()
    with pytest.raises(ValueError, match="lacks train-00001.npy"):
        open_tokens(folder, "train")
    with pytest.raises(OSError, match="val.npy"):
        open_tokens(folder, "val")


# --- how fast a device can be -------------------------------------------------------


@pytest.mark.parametrize(
    "name, known",
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
    ],
)  # fmt: skip
def test_a_gpus_peak_is_found_by_its_name(monkeypatch, name, known):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    found = [peak(torch.device("cuda"), kind)[0] / 1e12 for kind in ("bf16", "fp32")]
    assert found == pytest.approx(PEAKS[known])


def test_a_processors_peak_is_measured():
    flops, how = peak(torch.device("cpu"), "fp32")
    assert 1e8 < flops < 1e14 and "product" in how
