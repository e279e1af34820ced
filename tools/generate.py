"""Let a trained model continue a text, and print each token as it is drawn.

    python tools/generate.py "There was a"
    python tools/generate.py --file beginning.txt --seed 7
    echo "One winter" | python tools/generate.py
    python tools/generate.py --interactive
    python tools/generate.py --json --number 10 > tales.jsonl
    python tools/generate.py "There was a" --model data/runs/NAME   # even unfinished

The text goes to standard output, everything else to standard error. The same seed and
settings tell the same story again. --model is a folder with config.json,
model.safetensors and tokenizer.json, a run of tools/pretrain.py, or a checkpoint of
`train` with its tokenizer.json beside it.

Exit status: 0 done, 2 an error, explained in one line; 130 after Ctrl-C, 141 when
whoever read the output has closed it.
"""

import argparse
import codecs
import contextlib
import errno
import json
import os
import secrets
import signal
import sys
import warnings
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
SEEDS = range(-(2**63), 2**64)  # what torch.Generator.manual_seed takes
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Without a prompt, it reads standard input or tells a new story.",
    )
    p.add_argument("prompt", nargs="?", help="how the text begins")
    p.add_argument("--file", help="read the prompt from it; - means standard input")
    p.add_argument(
        "--interactive",
        action="store_true",
        help="ask for one prompt after another; an empty line ends",
    )
    p.add_argument("--json", action="store_true", help="a JSON object per text")
    p.add_argument(
        "--number", type=int, default=1, help="how many texts, each with its own seed"
    )
    p.add_argument("--length", type=int, default=400, help="at most so many tokens")
    add_settings(p)
    p.add_argument("--seed", type=int, help="of the first text; the next has seed + 1")
    p.add_argument("--model", default=str(ROOT / "data" / "tale-gpt"), help="a folder")
    return p.parse_args()


def add_settings(p: argparse.ArgumentParser) -> None:
    """How a token is drawn; chapter 7 explains each."""
    p.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    p.add_argument("--top-k", type=int, help="draw from the k likeliest tokens only")
    p.add_argument(
        "--top-p",
        type=float,
        help="draw from the fewest tokens that reach p together",
    )
    p.add_argument(
        "--min-p",
        type=float,
        default=0.1,
        help="drop tokens below this share of the likeliest one's probability",
    )
    p.add_argument(
        "--repetition-penalty",
        type=float,
        help="above 1: tokens that have already occurred become less likely",
    )
    p.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute in 16 bits, with half the bytes; faster for large models",
    )


def check(args: argparse.Namespace) -> None:
    """ValueError for options that cannot work, before anything is loaded."""
    last = None if args.seed is None else args.seed + args.number - 1
    given = [args.prompt is not None, args.file is not None, args.interactive]
    ways = [
        (args.length >= 0, f"--length {args.length} must be at least 0"),
        (args.number >= 1, f"--number {args.number} must be at least 1"),
        (
            last is None or args.seed in SEEDS and last in SEEDS,
            f"--seed {args.seed} is out of range: seeds are from -2**63 to 2**64 - 1, "
            "and each of the --number texts takes one",
        ),
        (
            sum(given) <= 1,
            "a prompt, --file and --interactive exclude each other: give one of them",
        ),
    ]
    for good, message in ways:
        if not good:
            raise ValueError(message)


# ------------------------------------------------------------------- in and out


class Closed(Exception):
    """Nobody reads our output any longer."""


def tell(text: str) -> None:
    """A line on standard error."""
    if sys.stderr is not None:
        write(text + "\n", sys.stderr)


def write(text: str, stream=None) -> None:
    """Write at once. Raises Closed if the other end of a pipe is closed."""
    stream = sys.stdout if stream is None else stream
    try:
        print(text, end="", file=stream, flush=True)
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EINVAL):  # EINVAL: Windows says it so
            raise Closed from None
        raise OSError(f"the text could not be written: {error.strerror}") from None


def show(text: str) -> None:
    """Write a part of a text, without control characters, which a terminal obeys."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    write(text)


def from_bytes(data: bytes, name: str) -> str:
    """The prompt in a file, without the line break at its end."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 at byte {error.start}: convert it to UTF-8 first"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def find_prompt(args: argparse.Namespace) -> str:
    """From the argument, the file, or standard input if that is not a terminal."""
    if args.prompt is not None:
        return args.prompt
    if args.file not in (None, "-"):
        try:
            return from_bytes(Path(args.file).read_bytes(), args.file)
        except OSError as error:
            raise ValueError(
                f"--file {args.file}: {error.strerror}; give a text file"
            ) from None
    # Python has no sys.stdin at all where a program was started without one.
    if sys.stdin is None or (args.file is None and sys.stdin.isatty()):
        return ""
    return from_bytes(sys.stdin.buffer.read(), "standard input")


def ask():
    """Yield one prompt after another, until an empty line or the end."""
    if sys.stdin is None:
        return
    asking = sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
    if asking:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  arrow keys work in input()
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8")
    while True:
        try:
            line = input("> " if asking else "")
        except EOFError:
            if asking:
                write("\n")
            return
        if not line.strip():
            return
        yield line


# -------------------------------------------------------------------- the model


def load(folder: Path):
    """(model, tokenizer) of a model folder or of an unfinished run.

    ValueError with a remedy for a folder that holds neither.
    """
    from solutions.bpe import BPETokenizer
    from solutions.checkpoint import has_checkpoint
    from solutions.generation import from_pretrained

    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"--model {folder} {kind}: give the folder of a model, such as "
            "data/tale-gpt, or one that tools/pretrain.py or tools/fetch_model.py wrote"
        )
    weights = any(folder.glob("model*.safetensors"))
    whole = weights and (folder / "config.json").exists()
    places = [p for p in (folder, folder / "checkpoint") if has_checkpoint(p)]
    if not whole and not places:
        raise ValueError(f"--model {folder}: {what_is_missing(folder)}")
    file = find_tokenizer(folder, also_above=not whole)
    tokenizer = BPETokenizer.load(file)
    model = from_pretrained(folder) if whole else from_checkpoint(places[0])
    if tokenizer.n_vocab > model.config.vocab_size:
        raise ValueError(
            f"{file} has {tokenizer.n_vocab:,} tokens, the model's vocabulary only "
            f"{model.config.vocab_size:,}: they do not belong together"
        )
    return model, tokenizer


def find_tokenizer(folder: Path, also_above: bool) -> Path:
    """tokenizer.json of a folder; a run's checkpoint/ and best/ may share the run's."""
    for place in (folder, folder.parent) if also_above else (folder,):
        if (place / "tokenizer.json").exists():
            return place / "tokenizer.json"
    raise ValueError(
        f"--model {folder} has no tokenizer.json: save the tokenizer that the model "
        'was trained with there, tokenizer.save("tokenizer.json")'
    )


def what_is_missing(folder: Path) -> str:
    """Why no model can speak from a folder, and what to do."""
    if (folder / "run.json").exists() or (folder / "checkpoint").is_dir():
        return "this run has saved nothing yet; wait for its first checkpoint"
    if (folder / "latest.json").exists():
        return "a sharded run's checkpoint; give the run's folder, the one above"
    if list(folder.glob("train*.npy")) and (folder / "tokenizer.json").exists():
        return "a prepared corpus, no model; tools/pretrain.py trains one on it"
    if any((folder / name).exists() for name in ("pytorch_model.bin", "model.ckpt")):
        return "no model.safetensors; save the model anew in that format"
    if (folder / "config.json").exists():
        return "config.json is there, but no model.safetensors; fetch the whole folder"
    return "no model.safetensors, nor a run's checkpoint; give a folder that has one"


def from_checkpoint(place: Path):
    """The GPT in a checkpoint of `train`, in evaluation mode."""
    from solutions.checkpoint import read_checkpoint, restore
    from solutions.gpt import GPT, GPTConfig

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        saved = read_checkpoint(place)
    for warning in said:
        tell(str(warning.message))
    try:
        model = GPT(GPTConfig(**saved["config"]))
        restore(saved, model, path=place)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{place} is a checkpoint, but not of this course's GPT ({error}): give "
            "another folder"
        ) from None
    tell(f"unfinished run, after step {saved['step']:,}")
    return model.eval()


# --------------------------------------------------------------------- speaking


class Speaker:
    """A model, its tokenizer and settings, which turn a prompt into texts."""

    def __init__(self, args: argparse.Namespace) -> None:
        tell(f"loading {args.model} ...")
        self.args, (self.model, self.tokenizer) = args, load(Path(args.model))
        if args.bfloat16:
            self.model.bfloat16()
        end = self.tokenizer.special_tokens.get(END)
        # In training, this token preceded every story.
        self.stop_ids = [] if end is None else [end]
        self.settings = {name: getattr(args, name) for name in SETTINGS}
        self.seed = secrets.randbelow(2**31) if args.seed is None else args.seed
        self.told = args.seed is None or args.number > 1 or args.interactive
        list(self.tokens([0], 0, 0))  # a bad setting is reported here

    def tokens(self, ids: list[int], length: int, seed: int):
        """The ids that follow, one at a time, without the one that ends the text."""
        import torch

        from solutions.generation import stream

        return stream(
            self.model, ids, length, stop_ids=self.stop_ids,
            n_vocab=self.tokenizer.n_vocab,
            generator=torch.Generator().manual_seed(seed), **self.settings,
        )  # fmt: skip

    def encode(self, prompt: str) -> list[int]:
        """A prompt as ids. Special tokens' names in it are ordinary text."""
        ids = self.stop_ids + self.tokenizer.encode_ordinary(prompt)
        C = self.model.config.context_length
        if not ids:
            raise ValueError(f"the prompt is empty and the tokenizer has no {END}: "
                             "give a word to begin with")  # fmt: skip
        if len(ids) > C:
            raise ValueError(f"the prompt takes {len(ids):,} tokens, more than the "
                             f"model's context_length={C:,}: shorten it")  # fmt: skip
        return ids

    def speak(self, prompt: str) -> None:
        """--number texts that begin with the prompt, each with the next seed."""
        from solutions.pretokenization import valid_text

        prompt = valid_text("prompt", prompt)
        ids = self.encode(prompt)
        for i in range(self.args.number):
            if self.seed not in SEEDS:
                raise ValueError(f"no seed is left after {self.seed - 1}: give another")
            if self.told:
                tell(f"seed {self.seed}")
            if i and not self.args.json:
                write("\n")
            one = self.as_json if self.args.json else self.as_text
            one(prompt, ids)
            self.seed += 1

    def pieces(self, ids: list[int]):
        """The text that follows, token by token; bytes wait for whole characters."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in self.tokens(ids, self.args.length, self.seed):
            # A vocabulary may have gaps, ids that stand for nothing.
            yield decoder.decode(self.tokenizer.vocab.get(token, b""))
        yield decoder.decode(b"", final=True)

    def as_text(self, prompt: str, ids: list[int]) -> None:
        show(prompt)
        for piece in self.pieces(ids):
            show(piece)
        write("\n")

    def as_json(self, prompt: str, ids: list[int]) -> None:
        """text: what follows the prompt; tokens: how many tokens that is."""
        pieces = list(self.pieces(ids))
        n, length = len(pieces) - 1, self.args.length
        row = {"prompt": prompt, "text": "".join(pieces), "tokens": n}
        row |= {"seed": self.seed, "stopped": "end" if n < length else "length"}
        row |= {"model": self.args.model}
        write(json.dumps(row | {"settings": self.settings | {"length": length}}) + "\n")


def run(args: argparse.Namespace) -> None:
    check(args)
    # Torch takes a second to load, but --help and a typing error answer at once.
    prompt = None if args.interactive else find_prompt(args)
    speaker = Speaker(args)
    if not args.interactive:
        speaker.speak(prompt)
        return
    for prompt in ask():
        try:
            speaker.speak(prompt)
        except ValueError as error:  # the next prompt may be better
            tell(f"generate: {error}")


def interrupted(number: int, frame) -> None:
    """Ctrl-C ends at once, because all text is written and nothing is left to do."""
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\n")
    os._exit(128 + number)


def let_go() -> None:
    """Drop what cannot be written, so that the interpreter, which tries once more at
    its end, does not complain about it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main() -> int:
    args = options()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a sample may contain any character
            stream.reconfigure(errors="replace")
    status = 0
    try:
        run(args)
    except Closed:
        status = 141
    except (ValueError, OSError) as error:
        status = 2
        with contextlib.suppress(Closed, OSError):
            tell(f"generate: {' '.join(str(error).split())}")
    let_go()
    return status


if __name__ == "__main__":
    sys.exit(main())
