"""Judge a model of tales by what it predicts and by what it writes; write its card.

    python tools/judge.py data/tale-gpt
    python tools/judge.py data/tale-gpt --samples samples.json   # for readers, then
    python tools/judge.py data/tale-gpt --samples samples.json \\
        --verdicts anna.csv ben.csv --card

Prediction is measured in bits per byte on the held-out tales of chapter 6's split.
Writing is measured on unselected samples (seeds 1, 2, 3 ...) and compared with as many
held-out tales, which cannot be copies. For both, the report gives the longest run of
tokens that also occurs in the training text, distinct-3 (chapter 7), and the share of
words that occur nowhere in that text. --samples writes the samples to a file, or reads
them from it if it exists. Readers judge them in a CSV file with the columns seed,
grammatical (1 if every sentence is, else 0) and thread (1 if the story keeps its
thread), and, if several share one file, reader. --card writes all of this to README.md
in the model's folder.

Exit status: 0 done, 2 an error, explained in one line; 130 after Ctrl-C.
"""

import argparse
import csv
import hashlib
import itertools
import json
import re
import statistics
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
from tqdm import tqdm

from solutions.bpe import BPETokenizer
from solutions.generation import from_pretrained, generate
from solutions.gpt import GPT
from solutions.pretraining import bits_per_byte, evaluate
from solutions.text_data import (
    clean_text,
    load_text,
    split_documents,
    train_val_split,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from check_tales import words_of  # noqa: E402
from runs import write_whole  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
SPLIT_SEED, HELD_OUT = 1, 0.1  # chapter 6's
TEMPERATURE, MIN_P = 0.7, 0.1
SHOWN = 10  # samples on the card
QUESTIONS = ("grammatical", "thread")


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", help="a model folder")
    p.add_argument("--data", default=str(ROOT / "data"), help="folder of the tales")
    p.add_argument("--number", type=int, default=100, help="samples: seeds 1, 2, ...")
    p.add_argument("--length", type=int, default=250, help="tokens per sample, at most")
    p.add_argument("--samples", metavar="FILE", help="JSON file, written or read")
    p.add_argument("--verdicts", metavar="FILE", nargs="+", help="CSV, from readers")
    p.add_argument("--card", action="store_true", help="write the folder's README.md")
    p.add_argument("--recipe", metavar="TEXT", help="for the card: how it was trained; "
                   "by default from the folder's train.json or run.json")  # fmt: skip
    return p.parse_args()


# -------------------------------------------------------------------------- the texts


@dataclass
class Tales:
    """Documents that a model may have learned from, and some that it cannot know."""

    training: list[str]
    held_out: list[str]


def documents_of(path: Path) -> list[str]:
    return split_documents(clean_text(load_text(path)))


def read_tales(folder: Path) -> Tales:
    """Nine tenths of the plain tales and both other texts; the last tenth apart."""
    split = torch.Generator().manual_seed(SPLIT_SEED)
    tales = documents_of(folder / "tales.txt")
    training, held_out = train_val_split(tales, HELD_OUT, generator=split)
    for name in ("rich_tales.txt", "long_tales.txt"):
        training = training + documents_of(folder / name)
    return Tales(training, held_out)


def held_out_bits(model: GPT, tokenizer: BPETokenizer, documents: list[str]) -> dict:
    """Bits per byte, and the counts behind them.

    The documents' tokens, each with an end-of-text token after it, form one sequence,
    cut into windows of the model's context. The first token is not predicted, so its
    bytes do not count. Each end-of-text token is predicted, but counts as no byte.
    """
    end = tokenizer.special_tokens[END]
    ids = [i for d in documents for i in [*tokenizer.encode_ordinary(d), end]]
    n_bytes = sum(len(d.encode("utf-8")) for d in documents)
    predicted_bytes = n_bytes - len(tokenizer.decode_bytes(ids[:1]))
    bits = bits_per_byte(evaluate(model, ids), len(ids) - 1, predicted_bytes)
    return {"bits": bits, "tokens": len(ids), "bytes": n_bytes, "tales": len(documents)}


# ------------------------------------------------------------------------ the samples


def fingerprint(folder: Path) -> str:
    """Changes when the weights or the tokenizer do."""
    seen = hashlib.sha256()
    for path in sorted(folder.glob("model*.safetensors")) + [folder / "tokenizer.json"]:
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def write_samples(model: GPT, tokenizer: BPETokenizer, args) -> list[dict]:
    """A text per seed from 1 on, {"seed", "text", "ended"}; ended: by its own token."""
    end, samples = tokenizer.special_tokens[END], []
    for seed in tqdm(range(1, args.number + 1), unit="sample", disable=None):
        ids = generate(
            model, [[end]], args.length, temperature=TEMPERATURE, min_p=MIN_P,
            stop_ids=[end], n_vocab=tokenizer.n_vocab,
            generator=torch.Generator().manual_seed(seed),
        )[0][1:]  # fmt: skip
        text = tokenizer.decode(ids)
        samples.append({"seed": seed, "text": text, "ended": len(ids) < args.length})
    return samples


def samples_of(model: GPT, tokenizer: BPETokenizer, args) -> list[dict]:
    """Read from --samples if that file exists and fits the model; else written now."""
    about = {"weights": fingerprint(Path(args.model)), "temperature": TEMPERATURE}
    about |= {"min_p": MIN_P, "length": args.length, "number": args.number}
    path = Path(args.samples) if args.samples else None
    if path is not None and path.exists():
        return read_samples(path, about)
    if args.verdicts:
        raise ValueError(
            f"--samples {args.samples}: --verdicts needs the file that was read, made "
            "by an earlier call with --samples"
        )
    samples = write_samples(model, tokenizer, args)
    if path is not None:
        whole = json.dumps(about | {"samples": samples}, ensure_ascii=False, indent=1)
        write_whole(path, whole + "\n")
    return samples


def read_samples(path: Path, about: dict) -> list[dict]:
    try:
        whole = json.loads(path.read_text("utf-8"))
        samples = whole["samples"]
        there = {name: whole[name] for name in about}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"--samples {path} is there, but no file of samples: name another"
        ) from None
    for name, value in about.items():
        if there[name] != value:
            raise ValueError(
                f"--samples {path} is of {name} {there[name]}, not {value}: use it "
                "with the model and options that made it, or name another file"
            )
    return samples


class Copies:
    """Finds the longest run of tokens that also occurs in the training text."""

    def __init__(self, documents: list[list[int]], end: int) -> None:
        # In strings with one character per id, Python's own search does the work.
        self.text = "".join(map(chr, [i for d in documents for i in [*d, end]]))

    def longest(self, ids: list[int]) -> tuple[int, int]:
        """(start, length) of the first of the longest runs of `ids`."""
        text, start, length = "".join(map(chr, ids)), 0, 0
        for i in range(len(text)):
            while i + length < len(text) and text[i : i + length + 1] in self.text:
                start, length = i, length + 1
        return start, length


def distinct(ids: list[int], n: int = 3) -> float:
    """The share of distinct runs among all runs of n tokens: 1 if none repeats."""
    runs = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


class Judge:
    """Measures texts against the training text, in the tokens of one tokenizer."""

    def __init__(self, tokenizer: BPETokenizer, training: list[str]) -> None:
        self.encode, self.tokenizer = tokenizer.encode_ordinary, tokenizer
        documents = [self.encode(d) for d in training]
        self.copies = Copies(documents, tokenizer.special_tokens[END])
        self.known = {word for d in training for word in words_of(d)}

    def measure(self, texts: list[str], whole: list[bool]) -> dict:
        """Measure texts, some of which are not whole: their last word may be cut off,
        so it does not count."""
        rows, runs, words = [self.encode(text) for text in texts], [], []
        for ids, text, ends in zip(rows, texts, whole, strict=True):
            start, length = self.copies.longest(ids)
            runs.append(ids[start : start + length])
            found = words_of(text)
            words += found if ends or not re.search(r"[a-zA-Z']$", text) else found[:-1]
        lengths = [len(run) for run in runs]
        most = lengths.index(max(lengths))
        unknown = [word for word in words if word not in self.known]
        return {
            "texts": len(texts), "mean": statistics.mean(lengths),
            "median": statistics.median(lengths), "longest": max(lengths),
            "where": most, "copied": self.tokenizer.decode(runs[most]),
            "distinct": statistics.mean(map(distinct, rows)),
            "new_words": len(unknown) / max(1, len(words)),
            "examples": list(dict.fromkeys(unknown))[:8],
        }  # fmt: skip

    def measure_samples(self, samples: list[dict]) -> dict:
        return self.measure([s["text"] for s in samples], [s["ended"] for s in samples])

    def measure_tales(self, tales: list[str], number: int, length: int) -> dict:
        """Measure the first `number` tales, cut off where a sample would be."""
        rows = [self.encode(tale) for tale in tales[:number]]
        texts = [self.tokenizer.decode(ids[:length]) for ids in rows]
        return self.measure(texts, [len(ids) <= length for ids in rows])


# ----------------------------------------------------------------------- the verdicts


def read_verdicts(paths: list[str], number: int) -> dict[str, dict[int, tuple]]:
    """Reader -> seed -> (grammatical, thread), each 0 or 1.

    Without a column `reader`, a file comes from one reader, and rows that repeat a seed
    come from further readers.
    """
    readers = defaultdict(dict)
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"--verdicts {path} is no CSV file: {error}") from None
        if not rows or not {"seed", *QUESTIONS} <= rows[0].keys():
            raise ValueError(f"--verdicts {path} needs rows of seed,grammatical,thread")
        seen = defaultdict(int)
        for line, row in enumerate(rows, 2):
            seed, verdict = parse(row, f"--verdicts {path}, line {line}", number)
            seen[seed] += 1
            reader = row.get("reader") or f"{path} {seen[seed]}"
            if seed in readers[reader]:
                raise ValueError(
                    f"--verdicts {path}, line {line}: {reader} has judged seed {seed} "
                    "already; keep one of the rows"
                )
            readers[reader][seed] = verdict
    return dict(readers)


def parse(row: dict, where: str, number: int) -> tuple[int, tuple[int, int]]:
    seed, answers = row["seed"] or "", [(row[q] or "").strip() for q in QUESTIONS]
    if not seed.strip().isdecimal() or not 1 <= int(seed) <= number:
        raise ValueError(f"{where}: seed {seed!r} must be one of 1 to {number}")
    if not set(answers) <= {"0", "1"}:
        raise ValueError(f"{where}: {answers} must be 0 or 1, as {QUESTIONS}")
    return int(seed), (int(answers[0]), int(answers[1]))


def agreement(verdicts: list[list[int]]) -> float | None:
    """The share of equal ones among all pairs of answers to the same sample."""
    pairs = [
        a == b for answers in verdicts for a, b in itertools.combinations(answers, 2)
    ]
    return statistics.mean(pairs) if pairs else None


def weigh(readers: dict[str, dict[int, tuple]]) -> dict:
    """Shares of the samples; where readers differ, a sample counts as their mean."""
    seeds = sorted({seed for verdicts in readers.values() for seed in verdicts})
    found = {"readers": len(readers), "read": len(seeds)}
    for k, question in enumerate(QUESTIONS):
        answers = [[v[s][k] for v in readers.values() if s in v] for s in seeds]
        found[question] = statistics.mean(map(statistics.mean, answers))
        found[f"{question}_agreement"] = agreement(answers)
    return found


# --------------------------------------------------------------------------- the card


def find_recipe(args) -> str:
    """How the model was trained, as a line of the card."""
    if args.recipe:
        return args.recipe
    for name in ("train.json", "run.json"):
        path = Path(args.model) / name
        if path.exists():
            try:
                recipe = json.loads(path.read_text("utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON: {error}") from None
            if name == "run.json":  # the rest of it is for resuming a run
                recipe = {"tool": recipe["tool"]} | recipe["options"]
            return f"`{json.dumps(recipe)}` (`{name}`)"
    raise ValueError(
        f"{args.model} has no train.json: say --recipe TEXT, how the model was trained"
    )


def check_readme(path: Path) -> None:
    """ValueError for a README.md that is not a model's card."""
    if path.exists() and "bits per byte**" not in path.read_text("utf-8", "replace"):
        raise ValueError(f"{path} is no model's card: move it away, then --card writes")


def percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def predicted(held: dict, context_length: int) -> str:
    return f"""Held-out tales: **{held["bits"]:.3f} bits per byte**

These are the tales of `data/tales.txt` that chapter 6 holds out, a tenth of them
(seed {SPLIT_SEED}): {held["tales"]:,} tales, {held["bytes"]:,} bytes. They make
{held["tokens"]:,} tokens, with `{END}` after each tale, and are read in windows
of {context_length}. The first token is not predicted, so its bytes do not count. Each
`{END}` is predicted and counted like any token, but not as a byte, so the sum
of all losses is divided by the bytes of the tales alone."""


def written(own: dict, tales: dict, args) -> str:
    """What the texts show without a reader."""
    rows = [
        ("longest run of tokens also in the training text, mean", "mean", ".1f"),
        ("the same, median", "median", ".1f"),
        ("the same, longest of all", "longest", "d"),
        ("distinct-3, the share of distinct runs of three tokens", "distinct", ".3f"),
        ("words that occur nowhere in the training text", "new_words", ".2%"),
    ]
    table = [
        f"| {what} | {own[name]:{form}} | {tales[name]:{form}} |"
        for what, name, form in rows
    ]
    words = ", ".join(own["examples"]) or "none"
    return "\n".join([
        f"The table compares {own['texts']} unselected samples (seeds 1 to "
        f"{own['texts']}, temperature {TEMPERATURE}, min-p {MIN_P},",
        f"no prompt, at most {args.length} tokens) with {tales['texts']} held-out "
        "tales, cut at the same length.",
        "", "| | samples | held-out tales |", "|---|---|---|", *table, "",
        f"The longest run that a sample shares with the training text (seed "
        f"{own['where'] + 1}): `{' '.join(own['copied'].split())}`",
        "",
        f"New words in the samples: {words}.",
        "The training text is `tales.txt` without the held-out tales, plus "
        "`rich_tales.txt` and `long_tales.txt`.",
    ])  # fmt: skip


def judged(found: dict | None, number: int) -> str:
    """What readers say about the same samples."""
    if found is None:
        return "No reader has judged these samples."
    n, whole = found["readers"], found["read"] == number
    which = f"All {number}" if whole else f"{found['read']} of these {number}"
    text = (
        f"{which} samples were read by {n} "
        f"reader{'s' * (n > 1)}. Every sentence is grammatical in "
        f"**{percent(found['grammatical'])}**, and the story keeps its thread in "
        f"**{percent(found['thread'])}**."
    )
    agreed = [found[f"{question}_agreement"] for question in QUESTIONS]
    if None not in agreed:
        text += (
            f" Two readers of one sample agree on its grammar in {percent(agreed[0])}"
            f" of the cases, on its thread in {percent(agreed[1])}; where they differ, "
            "a sample counts by the share of its readers who said yes."
        )
    return text


def card(model: GPT, facts: str, samples: list[dict], args, recipe: str) -> str:
    """README.md of the model folder."""
    folder, sizes = Path(args.model).resolve(), json.dumps(asdict(model.config))
    n_bytes = sum(p.stat().st_size for p in folder.glob("model*.safetensors"))
    texts = [f"### Sample {s['seed']}\n\n{s['text']}" for s in samples[:SHOWN]]
    shown = "\n\n".join(texts)
    return f"""# {folder.name}

A GPT with {model.n_parameters():,} parameters that tells short tales in plain English.
License: CC0 1.0, like the text that it was trained on.

{facts}

It knows nothing but the kind of text it has seen, and it writes in that manner. It does
not know what is true, and it follows no instructions. Its purpose is to show how such a
model works.

## How it was made

- Size: `{sizes}`; the weights take {n_bytes:,} bytes
- Recipe: {recipe}
- Tokenizer: byte-level BPE, {model.config.vocab_size:,} tokens; `{END}` ends a tale

## Ten unselected samples

These are the first of the samples above, seeds 1 to {SHOWN}, unedited.

{shown}
"""


def check(args: argparse.Namespace, tokenizer: BPETokenizer) -> None:
    """ValueError for options that cannot work, before anything is measured."""
    if args.number < SHOWN:
        raise ValueError(f"--number {args.number} must be at least {SHOWN}")
    if args.length < 1:
        raise ValueError(f"--length {args.length} must be at least 1")
    if END not in tokenizer.special_tokens:
        raise ValueError(f"{args.model}: its tokenizer has no {END} to begin with")
    if args.verdicts and not args.samples:
        raise ValueError("--verdicts: say with --samples FILE what was read")


def run(args: argparse.Namespace) -> None:
    folder = Path(args.model)
    model = from_pretrained(folder)
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    check(args, tokenizer)
    recipe = find_recipe(args) if args.card else ""
    if args.card:
        check_readme(folder / "README.md")
    found = None
    if args.verdicts:
        found = weigh(read_verdicts(args.verdicts, args.number))
    tales = read_tales(Path(args.data))
    samples = samples_of(model, tokenizer, args)
    held = held_out_bits(model, tokenizer, tales.held_out)
    judge = Judge(tokenizer, tales.training)
    own = judge.measure_samples(samples)
    others = judge.measure_tales(tales.held_out, args.number, args.length)
    parts = ["## How well it predicts", predicted(held, model.config.context_length)]
    parts += ["## What it writes", written(own, others, args)]
    facts = "\n\n".join([*parts, judged(found, args.number)])
    print(facts, flush=True)
    if args.card:
        text = card(model, facts, samples, args, recipe)
        write_whole(folder / "README.md", text)
        print(f"\nwritten: {folder / 'README.md'}")


def main() -> int:
    args = options()
    if hasattr(sys.stdout, "reconfigure"):  # a sample may contain any character
        sys.stdout.reconfigure(errors="replace")
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
