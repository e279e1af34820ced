"""Train a GPT on a corpus, from a text file to a model folder.

    python tools/pretrain.py data/tales.txt --out data/runs/tales
    torchrun --nproc-per-node 2 tools/pretrain.py data/tales.txt --out data/runs/tales

The recipe is chapter 6's: clean, deduplicate, split, train a tokenizer, train a GPT. A
corpus that is larger than memory goes through tools/prepare.py first, and the folder
that it writes is then the corpus here. Ctrl-C finishes the step, saves and ends, and so
does SIGTERM. However a run was stopped, the same command resumes it from its last
checkpoint, and with more --steps it makes a finished run longer. From the first
checkpoint on, the folder holds the model in the format of chapter 7 and a log
(log.jsonl, drawn by tools/plot_run.py), and at the end also a card, README.md.

Exit status: 0 done, 2 an error, explained in one line; 130 after Ctrl-C, 143 after
SIGTERM.
"""

import argparse
import gc
import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import numpy as np
import torch
import torch.distributed as dist

from solutions.bpe import BPETokenizer, train_bpe
from solutions.checkpoint import TrainState, rank_and_world
from solutions.generation import generate
from solutions.gpt import GPT, GPTConfig
from solutions.pretraining import TrainConfig, bits_per_byte, evaluate, train
from solutions.text_data import (
    bigram_probabilities,
    clean_text,
    deduplicate,
    load_text,
    split_documents,
    train_val_split,
    unigram_probabilities,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from runs import (  # noqa: E402
    ModelFolder,
    RunFolder,
    ShardedFolder,
    Stopping,
    Watch,
    gather,
    is_sharded,
    on_first,
    peak,
    shard,
    start_processes,
    together,
    write_whole,
)
from shards import open_tokens  # noqa: E402

END = "<|endoftext|>"
WARMUP_STEPS = 50  # at most; in a short run, a tenth of the steps
BASELINE_TOKENS = 5_000_000  # for unigrams and bigrams, at most
BIGRAM_VOCABULARY = 4096  # their table takes 8 bytes times the square of it
RECORD = "run.json"  # marks a folder as this tool's, and says how its run began


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "corpus",
        help=f"a UTF-8 text file, with {END} marks between documents, as in "
        "TinyStories, or blank lines if there are no such marks; or a folder that "
        "tools/prepare.py has written (its tokenizer and split are then used)",
    )
    p.add_argument("--out", required=True, help="the model folder to write")
    what_to_train(p.add_argument_group("model"), p.add_argument_group("recipe"))
    how_to_run(p.add_argument_group("how it runs"))
    args = p.parse_args()
    if args.init_scale is None:
        args.init_scale = round(math.sqrt(768 / max(args.d_model, 1)), 3)
    return args


def what_to_train(model, recipe) -> None:
    model.add_argument("--vocab-size", type=int, default=1024)
    model.add_argument("--context-length", type=int, default=256)
    model.add_argument("--d-model", type=int, default=128)
    model.add_argument("--layers", type=int, default=4)
    model.add_argument("--heads", type=int, default=4)
    model.add_argument(
        "--init-scale",
        type=float,
        help="factor on GPT-2's initial weights (0.02); default sqrt(768 / d_model)",
    )
    model.add_argument("--dropout", type=float, default=0.1)
    recipe.add_argument("--steps", type=int, default=3000)
    recipe.add_argument("--batch-size", type=int, default=16)
    recipe.add_argument("--lr", type=float, default=3e-3)
    recipe.add_argument("--weight-decay", type=float, default=0.1)
    recipe.add_argument("--val-fraction", type=float, default=0.1)
    recipe.add_argument(
        "--val-tokens",
        type=int,
        default=200_000,
        help="evaluate on so many held-out tokens, the first ones, if there are more",
    )
    recipe.add_argument("--seed", type=int, default=1)


def how_to_run(p) -> None:
    p.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto",
        help="auto: cuda if there is one, else cpu; mps (Apple) only when asked for",
    )  # fmt: skip
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--compile", action="store_true", help="faster; needs a compiler")
    p.add_argument(
        "--accumulation", type=int, default=1, help="pieces of a batch, to save memory"
    )
    p.add_argument(
        "--shard", action="store_true",
        help="divide the weights among the processes too (FSDP2); under torchrun",
    )  # fmt: skip
    p.add_argument("--minutes", type=float, help="save and stop after so many")
    p.add_argument("--log-every", type=int, default=10)
    p.add_argument("--eval-every", type=int, help="default: 15 times per run")
    p.add_argument("--checkpoint-every", type=int, default=200)
    p.add_argument(
        "--keep-best", action="store_true",
        help="also keep the model with the lowest held-out loss, in best/",
    )  # fmt: skip
    p.add_argument(
        "--sample-tokens", type=int, default=40, help="shown at evaluations; 0: none"
    )
    p.add_argument("--tensorboard", action="store_true", help="also write its files")
    p.add_argument("--half", action="store_true", help="store the weights in 16 bits")


# ------------------------------------------------------------ what cannot work is said


def check(args: argparse.Namespace) -> TrainConfig:
    """How the run trains; ValueError, before any work, for options that cannot work."""
    world = rank_and_world()[1]
    GPTConfig(
        max(args.vocab_size, 1), args.context_length, args.d_model, args.layers,
        args.heads, dropout=args.dropout,
    )  # fmt: skip
    ways = [
        (args.vocab_size > 256, f"vocab_size={args.vocab_size} must be at least 257"),
        (
            0 < args.val_fraction < 1,
            f"val_fraction={args.val_fraction} must be above 0 and below 1",
        ),
        (0 < args.init_scale < math.inf, f"--init-scale {args.init_scale} must be > 0"),
        (args.sample_tokens >= 0, f"--sample-tokens {args.sample_tokens} must be >= 0"),
        (args.minutes is None or args.minutes > 0, "--minutes must be above 0"),
        (
            not args.shard or dist.is_initialized(),
            "--shard needs torchrun, as torchrun --nproc-per-node 2 tools/pretrain.py",
        ),
        (
            not args.compile or has_compiler(),
            "--compile needs a compiler for C++ (g++ or clang++), and there is none",
        ),
        (
            args.batch_size % (world * max(args.accumulation, 1)) == 0,
            f"batch_size={args.batch_size}: no multiple of {world} processes "
            f"x --accumulation {args.accumulation}",
        ),
    ]
    for good, message in ways:
        if not good:
            raise ValueError(message)
    return recipe(args)


def has_compiler() -> bool:
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "gcc", "cl")
    return any(name and shutil.which(name) for name in names)


def recipe(args: argparse.Namespace) -> TrainConfig:
    every = max(1, args.steps // 15) if args.eval_every is None else args.eval_every
    return TrainConfig(
        steps=args.steps, batch_size=args.batch_size, max_lr=args.lr,
        warmup_steps=min(WARMUP_STEPS, args.steps // 10), min_lr=args.lr / 10,
        weight_decay=args.weight_decay, seed=args.seed, precision=args.precision,
        compile=args.compile, accumulation_steps=args.accumulation,
        keep_best=args.keep_best, log_every=args.log_every, eval_every=every,
        checkpoint_every=args.checkpoint_every,
    )  # fmt: skip


# What a resumed run cannot change; the library checks the other options.
FIXED = (
    "vocab_size", "context_length", "d_model", "layers", "heads", "init_scale",
    "dropout", "batch_size", "lr", "weight_decay", "val_fraction", "val_tokens",
    "precision", "shard", "seed",
)  # fmt: skip


def claim(args: argparse.Namespace) -> dict | None:
    """How the run in --out began, or None for a new one. ValueError, before any work,
    for a folder with files that this tool did not write, or with another run's."""
    if not args.out.strip():
        raise ValueError("--out is empty; name the folder to write")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {args.out} is a file; name a folder")
    above = next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise ValueError(f"--out {args.out} cannot be written: no right to, in {above}")
    names = sorted(p.name for p in out.iterdir()) if out.exists() else []
    files = [n for n in names if not n.startswith(".") and not n.endswith(".part")]
    begun = read_record(out / RECORD)
    if files and begun is None:
        some = ", ".join(files[:3])
        raise ValueError(
            f"--out {args.out} holds files of others ({some}); name a new folder"
        )
    if begun is not None:
        refuse_changed_options(args, begun["options"])
    return begun


def read_record(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text("utf-8"))
        ours = record["tool"] == "tools/pretrain.py" and record["tokens"]
        return record if ours and isinstance(record["options"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse_changed_options(args: argparse.Namespace, begun: dict) -> None:
    changed = []
    for name in FIXED:
        before, now = begun.get(name, getattr(args, name)), getattr(args, name)
        if before != now:
            changed.append(f"--{name.replace('_', '-')} {before}, not {now}")
    if changed:
        raise ValueError(
            f"{args.out} was begun with another config: {', '.join(changed)}; "
            "use that, or use another --out"
        )


def fingerprint(tokens) -> list:
    """Tells corpora apart without reading all of a large one, by the number of tokens
    and a hash of the first and last million and of 64 stretches between."""
    n, seen = len(tokens), hashlib.sha256()
    places = [(0, 1_000_000), (max(0, n - 1_000_000), n)]
    places += [(n * i // 64, n * i // 64 + 1024) for i in range(64)]
    for start, end in places:
        seen.update(np.asarray(tokens[start:end]).astype("<u4").tobytes())
    return [n, seen.hexdigest()[:32]]


def record(args: argparse.Namespace, begun: dict | None, tokens: list) -> None:
    """Record how the run began; ValueError if it began with another corpus."""
    prints = [fingerprint(t) for t in tokens]
    if begun is not None:
        if begun["tokens"] != prints:
            raise ValueError(
                f"{args.out} was begun with another corpus; use another --out"
            )
        return
    Path(args.out).mkdir(parents=True, exist_ok=True)
    began = {"tool": "tools/pretrain.py", "tokens": prints}
    began["options"] = {name: getattr(args, name) for name in FIXED}
    write_whole(Path(args.out) / RECORD, json.dumps(began, indent=1) + "\n")


# ------------------------------------------------------------------------- the corpus


def split_corpus(path: str, fraction: float, seed: int) -> tuple[list[str], list[str]]:
    documents = deduplicate(split_documents(clean_text(load_text(path))))
    generator = torch.Generator().manual_seed(seed)
    return train_val_split(documents, fraction, generator=generator)


def encode_documents(tokenizer: BPETokenizer, documents: list[str]) -> np.ndarray:
    """All documents as ids, with the end-of-text id after each."""
    end = [tokenizer.special_tokens[END]]
    return np.array([i for d in documents for i in tokenizer.encode_ordinary(d) + end])


def encode_together(tokenizer: BPETokenizer, documents: list[str]) -> np.ndarray:
    """encode_documents, with the work divided among the processes."""
    rank, world = rank_and_world()
    own = [encode_documents(tokenizer, [d]) for d in documents[rank::world]]
    parts = gather(own)
    rows = [parts[i % world][i // world] for i in range(len(documents))]
    return np.concatenate(rows)


class Corpus:
    """The tokenizer, the tokens to train and to evaluate on, and a description."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.name, self.documents = Path(args.corpus).resolve().name, ""
        folder = Path(args.corpus)
        if on_first(folder.is_dir):
            together(lambda: self._open(folder))
        else:
            self._read(args)
        self.val = self.val[: args.val_tokens]
        for side, tokens in (("training", self.train), ("held-out", self.val)):
            if len(tokens) <= args.context_length:
                raise ValueError(
                    f"context_length={args.context_length} is too long for the "
                    f"{len(tokens):,} {side} tokens of {args.corpus}"
                )

    def _open(self, folder: Path) -> None:
        self.tokenizer = BPETokenizer.load(folder / "tokenizer.json")
        if END not in self.tokenizer.special_tokens:
            raise ValueError(f"{folder / 'tokenizer.json'} has no {END}")
        self.train, self.val = (open_tokens(folder, side) for side in ("train", "val"))

    def _read(self, args: argparse.Namespace) -> None:
        """Process 0 reads the text and trains the tokenizer; all of them encode."""

        def learn():
            sides = split_corpus(args.corpus, args.val_fraction, args.seed)
            tokenizer = train_bpe(sides[0], args.vocab_size, special_tokens=[END])
            return sides, tokenizer.merges

        sides, merges = on_first(learn)
        self.tokenizer = BPETokenizer(merges, special_tokens=[END])
        self.train, self.val = (encode_together(self.tokenizer, s) for s in sides)
        self.documents = f"{len(sides[0]):,} + {len(sides[1]):,} documents, "

    def __str__(self) -> str:
        n, m = len(self.train), len(self.val)
        return f"{self.name}: {self.documents}{n:,} tokens to train on, {m:,} held out"


def baselines(train_tokens, val_tokens, vocab_size: int) -> dict[str, float]:
    """What a model should beat: guessing and counting, in nats per held-out token."""
    ids = np.asarray(train_tokens[:BASELINE_TOKENS])
    held_out = torch.from_numpy(np.asarray(val_tokens).astype(np.int64))
    losses = {"uniform": math.log(vocab_size)}
    p = unigram_probabilities(ids, vocab_size)  # (V,)
    losses["unigram"] = -p[held_out[1:]].log().mean().item()
    if vocab_size <= BIGRAM_VOCABULARY:
        p = bigram_probabilities(ids, vocab_size, k=0.1)  # (V, V)
        losses["bigram"] = -p[held_out[:-1], held_out[1:]].log().mean().item()
    return {name: round(loss, 4) for name, loss in losses.items()}


# ------------------------------------------------------------------- what is left over


def held_out_bits(model: GPT, tokens: np.ndarray, tokenizer: BPETokenizer) -> float:
    """Bits per byte of held-out tokens; end-of-text tokens count as no byte of text.

    Nothing predicts the first token, so its bytes do not count either.
    """
    n_bytes = np.zeros(tokenizer.n_vocab, dtype=np.int64)
    for i, token in tokenizer.vocab.items():
        n_bytes[i] = 0 if i in tokenizer.special_tokens.values() else len(token)
    total = int(n_bytes[tokens[1:]].sum())
    return bits_per_byte(evaluate(model, tokens), len(tokens) - 1, total)


def card(args, model: GPT, config: TrainConfig, bits: float, samples: list[str]) -> str:
    """README.md of the model folder."""
    shown = "\n\n".join(f"### Sample {i}\n\n{s}" for i, s in enumerate(samples, 1))
    return f"""# {Path(args.out).resolve().name}

A GPT with {model.n_parameters():,} parameters, trained on `{Path(args.corpus).name}`.
License: that of the text it was trained on (for `data/tales.txt`: CC0 1.0).

- Size: `{json.dumps(asdict(model.config))}`
- Recipe: `{json.dumps(asdict(config))}`,
  initial matrices times {args.init_scale} (seed {args.seed}), by `tools/pretrain.py`
- Held-out documents: **{bits:.3f} bits per byte**
- Tokenizer: byte-level BPE, {model.config.vocab_size:,} tokens; `{END}` ends a document

It knows nothing but the kind of text it has seen. It writes in that manner, loses the
thread after a few sentences, and serves to learn how such a model works.

## Three unselected samples

Seeds 1, 2 and 3, temperature 0.8, top-p 0.95, no prompt, at most 200 tokens.

{shown}
"""


def sample(model: GPT, tokenizer: BPETokenizer, seed: int, length: int) -> str:
    """A text that the model writes from the beginning."""
    end = tokenizer.special_tokens[END]
    rows = generate(
        model, [[end]], length, temperature=0.8, top_p=0.95, stop_ids=[end],
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return tokenizer.decode(rows[0][1:])


# --------------------------------------------------------------------------- the run


def build(args, vocab_size: int, device: torch.device) -> GPT:
    """The model with its initial weights, equal in all processes."""
    sizes = GPTConfig(
        vocab_size, args.context_length, args.d_model, args.layers, args.heads,
        dropout=args.dropout,
    )  # fmt: skip
    model = GPT(sizes, generator=torch.Generator().manual_seed(args.seed)).to(device)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(args.init_scale if p.ndim == 2 else 1.0)
    if args.shard:
        shard(model, device)
    return model


def describe(args, corpus: Corpus, model: GPT, device: torch.device) -> dict:
    """Print what is trained on what, and return it for the log; in process 0."""
    world, threads = rank_and_world()[1], torch.get_num_threads()
    flops, known_from = peak(device, args.precision)
    name = f"{threads} threads" if device.type == "cpu" else device.type
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    losses = baselines(corpus.train, corpus.val, model.config.vocab_size)
    shown = ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
    shown = shown.replace("uniform", "all tokens alike (ln V)")
    print(
        f"corpus   {corpus}\n"
        f"model    {model.n_parameters():,} parameters, {args.layers} layers, "
        f"vocabulary {model.config.vocab_size:,}, context {args.context_length}\n"
        f"device   {device.type} ({name}), {world} process{'es' * (world > 1)}; "
        f"MFU is against {flops / 1e12:.3g} Tflop/s each, from {known_from}\n"
        f"to beat  {shown} nats per held-out token",
        flush=True,
    )
    about = {"corpus": corpus.name, "parameters": model.n_parameters()}
    about |= {"device": f"{device.type} ({name})", "processes": world}
    about |= {"peak_flops": flops * world}
    return about | {"baselines": losses, "tokens_per_step": tokens_per_step(args)}


def tokens_per_step(args: argparse.Namespace) -> int:
    return args.batch_size * args.context_length


def tensorboard_writer(args: argparse.Namespace):
    """None without --tensorboard. ValueError when its package is missing."""
    if not args.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "--tensorboard needs the package tensorboard: "
            "python -m pip install tensorboard"
        ) from None
    return SummaryWriter


def make_watch(args, corpus: Corpus, model: GPT, models: ModelFolder, about: dict):
    def speak() -> str:
        if not args.sample_tokens:
            return ""
        # A sharded model cannot speak in one process, so its last saved weights do.
        speaker = models.twin if is_sharded(model) else model
        text = sample(speaker, corpus.tokenizer, 1, args.sample_tokens)
        shown = (c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        return "".join(shown)  # a terminal obeys control characters

    return Watch(
        Path(args.out) / "log.jsonl", tokens=tokens_per_step(args),
        flops=3 * model.flops_per_token(), peak=about["peak_flops"], speak=speak,
    )  # fmt: skip


def beginning(args, watch: Watch, about: dict, writer):
    """What to do once the first step of the run is known; in process 0."""

    def begun(state: TrainState, steps_before: int) -> None:
        if state.step:
            print(f"going on after step {state.step:,}", flush=True)
        if steps_before != args.steps:
            print(
                f"made for {steps_before:,} steps, now for {args.steps:,}: from here "
                f"on, the learning rate follows the schedule of {args.steps:,} steps",
                flush=True,
            )
        watch.begin(state.step, args.steps, about)
        if writer is not None:
            place = Path(args.out) / "tensorboard"
            watch.events = writer(str(place), purge_step=state.step)

    return begun


def run(args: argparse.Namespace) -> int:
    device = start_processes(args.device)
    config, begun = check(args), on_first(lambda: claim(args))
    writer = tensorboard_writer(args)
    corpus = Corpus(args)
    model = build(args, corpus.tokenizer.n_vocab, device)
    on_first(lambda: record(args, begun, [corpus.train, corpus.val]))
    models = ModelFolder(
        Path(args.out), model.config, corpus.tokenizer, half=args.half
    )
    about = on_first(lambda: describe(args, corpus, model, device))
    watch = make_watch(args, corpus, model, models, about)
    kind = ShardedFolder if args.shard else RunFolder
    begin = beginning(args, watch, about, writer)
    store = kind(Path(args.out) / "checkpoint", models, begin)
    store.saved = watch.resume_clock
    torch.manual_seed(args.seed + 1_000_003 * rank_and_world()[0])  # own dropout each
    try:
        with Stopping(args.minutes) as stop:
            train(
                model, corpus.train, corpus.val, config, checkpoint=store,
                progress=False, report=watch, stop=stop,
            )  # fmt: skip
    finally:
        watch.close()
    if store.state.step < args.steps:
        return stopped(args, store.state.step, stop)
    models.write(model)
    on_first(lambda: finish(args, corpus, config, models, device))
    return 0


def stopped(args: argparse.Namespace, step: int, stop: Stopping) -> int:
    if rank_and_world()[0] == 0:
        print(
            f"stopped after step {step:,} of {args.steps:,}, and saved; "
            f"the same command goes on from there: {same_command()}",
            flush=True,
        )
    return 128 + stop.signal if stop.signal is not None else 0


def same_command() -> str:
    own = shlex.join(sys.argv)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"python {own}"
    here, world = os.environ["LOCAL_WORLD_SIZE"], os.environ["WORLD_SIZE"]
    return f"torchrun {'--nproc-per-node ' + here if here == world else '...'} {own}"


def finish(args, corpus: Corpus, config, models: ModelFolder, device) -> None:
    """Measure the model in the folder and write its card; in process 0."""
    model = models.twin if args.shard else models.twin.to(device)
    bits = held_out_bits(model, corpus.val, corpus.tokenizer)
    texts = [sample(model, corpus.tokenizer, seed, 200) for seed in (1, 2, 3)]
    write_whole(Path(args.out) / "README.md", card(args, model, config, bits, texts))
    n = len(corpus.val)
    print(f"{args.out}: {bits:.3f} bits per byte on {n:,} held-out tokens", flush=True)


def fault(error: Exception) -> str | None:
    """A sentence for a RuntimeError that is not the program's fault, else None."""
    full = isinstance(error, torch.OutOfMemoryError)
    if full or "can't allocate memory" in str(error):
        return "out of memory: lower --batch-size, or raise --accumulation"
    lost = ("Connection closed by peer", "Connection reset", "Broken pipe", "timed out")
    if rank_and_world()[1] > 1 and any(words in str(error) for words in lost):
        return "another process has ended; the same command goes on from the last save"
    return None


def main() -> int:
    args, alone = options(), not dist.is_initialized()
    if hasattr(sys.stdout, "reconfigure"):  # a sample may contain any character
        sys.stdout.reconfigure(errors="replace")
    status = guarded(args)
    if alone and dist.is_initialized():
        gc.collect()  # a group that a sharded model still holds aborts at exit
        if status == 0 or dist.get_backend() == "gloo":  # nccl may wait for the lost
            dist.destroy_process_group()
    return status


def guarded(args: argparse.Namespace) -> int:
    """run(args), with a sentence for each thing that can go wrong."""
    try:
        return run(args)
    except KeyboardInterrupt:
        say("stopped at once; the same command goes on from the last save")
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        if rank_and_world()[0] == 0 or not dist.is_initialized():
            say(str(error))
        return 2
    except RuntimeError as error:
        sentence = fault(error)
        if sentence is None:
            raise
        say(sentence)
        return 1


def say(sentence: str) -> None:
    print(f"pretrain: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
