"""From a corpus of any size to token files: clean, deduplicate, split, encode.

    python tools/prepare.py data/corpora/shakespeare.jsonl --out data/prepared/s

The corpus is text or JSON lines with a "text" each. A text's documents lie between
<|endoftext|> marks, as in TinyStories, or, in a text without any, between blank lines.
In JSON lines such a mark ends a document too.
The work is cut into shards by place in the file, so memory does not grow with the
corpus, and the result does not depend on the number of workers. Every finished piece is
a file that appears whole under its name: started again after a crash, the tool does
only the rest. Result: tokenizer.json, train.npy, val.npy (for chapter 1's read_tokens;
with --tokens-per-shard several files each, which tools/shards.py reads as one row) and
prepare.json. tools/pretrain.py takes the folder as its corpus.
"""

import argparse
import codecs
import json
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from solutions.bpe import (
    GPT2_PATTERN,
    BPETokenizer,
    count_pretokens,
    learn_merges,
)
from solutions.text_data import (
    clean_text,
    jaccard,
    minhash,
    read_tokens,
    rows_per_band,
    shingles,
    write_tokens,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from shards import TokenShards, shard_name  # noqa: E402

END = "<|endoftext|>"
MARK = END.encode()


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("corpus", type=Path, help="a .txt file, documents between "
                   f"{END} marks or, without any, blank lines; or a .jsonl file, "
                   'a document in the "text" of each line')  # fmt: skip
    p.add_argument("--out", type=Path, required=True, help="the folder to write")
    p.add_argument("--vocab-size", type=int, default=4096)
    p.add_argument("--threshold", type=float, default=0.8, help="of near duplicates")
    p.add_argument("--val-fraction", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=1, help="of the split")
    p.add_argument("--shard-mb", type=float, default=8.0)
    p.add_argument(
        "--tokenizer-mb", type=float, default=100.0, help="text it learns from"
    )
    p.add_argument(
        "--tokens-per-shard", type=int, default=0, help="cut the token files; 0: do not"
    )
    p.add_argument("--workers", type=int, default=os.cpu_count())
    args = p.parse_args()
    checks = [
        ("shard-mb", args.shard_mb > 0, "above 0"),
        ("tokenizer-mb", args.tokenizer_mb > 0, "above 0"),
        ("tokens-per-shard", args.tokens_per_shard >= 0, "at least 0"),
        ("workers", args.workers >= 1, "at least 1"),
        ("val-fraction", 0 < args.val_fraction < 1, "above 0 and below 1"),
        ("threshold", 0 < args.threshold <= 1, "above 0 and at most 1"),
        ("vocab-size", 256 < args.vocab_size <= 10**6, "257 to 1000000"),
    ]
    for name, good, right in checks:
        if not good:
            value = getattr(args, name.replace("-", "_"))
            raise ValueError(f"--{name} {value} must be {right}")
    return args


# ------------------------------------------------------------------ reading by place


def lines_between(path: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Place and bytes of the lines that begin at `start` or later; the caller stops."""
    with open(path, "rb") as file:
        file.seek(max(start - 1, 0))
        if start:
            file.readline()
        place = file.tell()
        for line in file:
            yield place, line
            place += len(line)


def has_marks(path: Path) -> bool:
    """Whether MARK is in the file; read in blocks, up to the first."""
    tail = b""
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            if MARK in tail + block:
                return True
            tail = (tail + block)[1 - len(MARK) :]
    return False


def decoded(path: Path, place: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {place + error.start}") from None


def json_documents(path: Path, start: int, end: int) -> Iterator[str]:
    """The documents whose line begins in start .. end - 1."""
    for place, line in lines_between(path, start, end):
        if place >= end:
            return
        line = line.removeprefix(codecs.BOM_UTF8)  # Windows programs write it
        if not line.strip():
            continue
        try:
            text = json.loads(decoded(path, place, line))["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ValueError(f'{path}: no JSON with a "text" at byte {place}')
        yield from text.split(END)


def text_documents(path: Path, start: int, end: int, marked: bool) -> Iterator[str]:
    """The documents from the first separator after `start` to that after `end`.

    Separators are the marks if the file has any, else blank lines.
    """
    document, first, inside = [], 0, start == 0
    for place, line in lines_between(path, start, end):
        *before, rest = line.split(MARK) if marked else cut_if_blank(line)
        at = place
        for piece in before:  # each is followed by a separator
            first = first if document else at
            if inside:
                yield decoded(path, first, b"".join([*document, piece])).strip()
            document = []
            if place >= end:
                return
            inside, at = True, at + len(piece) + len(MARK)
        first = first if document else at
        if inside and rest:
            document.append(rest)
    if document:
        yield decoded(path, first, b"".join(document)).strip()


def cut_if_blank(line: bytes) -> list[bytes]:
    """What lies before and after the separator, in a file without marks."""
    return [line] if line.strip() else [b"", b""]


# ---------------------------------------------------------------------------- stages


def whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file, then give it its name."""
    part = path.with_name(f"{path.stem}.part{os.getpid()}{path.suffix}")
    write(part)
    os.replace(part, path)


def clean_shard(
    corpus: Path, marked: bool, work: Path, threshold: float, shard: tuple
) -> None:
    """Stage 1: one shard's documents, cleaned, with the keys that find duplicates."""
    i, start, end = shard
    if (work / f"keys-{i:06}.npy").exists():
        return
    if corpus.suffix == ".jsonl":
        raw = json_documents(corpus, start, end)
    else:
        raw = text_documents(corpus, start, end, marked)
    documents = [c for d in raw if d and (c := clean_text(d).strip())]
    rows = rows_per_band(threshold)
    keys = np.zeros((len(documents), 120 // rows), dtype=np.uint64)
    weights = np.random.default_rng(1).integers(1, 2**63, rows, dtype=np.uint64) * 2 + 1
    for n, document in enumerate(documents):
        bands = minhash(shingles(document)).astype(np.uint64).reshape(-1, rows)
        keys[n] = (bands * weights).sum(axis=1)
    lines = [json.dumps(d, ensure_ascii=False).encode() + b"\n" for d in documents]
    starts = np.cumsum([0, *map(len, lines)])
    whole(work / f"clean-{i:06}.jsonl", lambda p: p.write_bytes(b"".join(lines)))
    whole(work / f"starts-{i:06}.npy", lambda p: np.save(p, starts))
    whole(work / f"keys-{i:06}.npy", lambda p: np.save(p, keys))


def shard_documents(work: Path, i: int) -> list[str]:
    with open(work / f"clean-{i:06}.jsonl", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def one_document(work: Path, i: int, n: int) -> str:
    """The shard's document n, found by its place: the others are not read."""
    place = np.load(work / f"starts-{i:06}.npy", mmap_mode="r")[n]
    with open(work / f"clean-{i:06}.jsonl", "rb") as file:
        file.seek(place)
        return json.loads(file.readline())


def candidates(work: Path, n_shards: int) -> np.ndarray:
    """Pairs (earlier, later) of documents sharing a band: (n, 2) int64, sorted.

    One band at a time, and of it one part of the key space at a time, so that about a
    million keys are in memory. In a crowd of equal keys each document meets the first
    and the one before it.
    """
    files = [work / f"keys-{i:06}.npy" for i in range(n_shards)]
    sizes = [len(np.load(f, mmap_mode="r")) for f in files]
    first = np.cumsum([0, *sizes])
    parts = np.uint64(1 + first[-1] // 1_000_000)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    n_bands = np.load(files[0], mmap_mode="r").shape[1]
    for band in range(n_bands):
        for part in range(int(parts)):
            keys, places = [], []
            for file, start in zip(files, first):
                column = np.load(file, mmap_mode="r")[:, band]
                chosen = np.flatnonzero(column % parts == part)
                keys.append(column[chosen])
                places.append(chosen + start)
            pairs.append(equal_pairs(np.concatenate(keys), np.concatenate(places)))
        pairs = [np.unique(np.concatenate(pairs), axis=0)]
    return pairs[0]


def equal_pairs(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each key that comes again: (place before, place) and (first place, place)."""
    order = np.lexsort((places, keys))
    keys, places = keys[order], places[order]
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    firsts = np.maximum.accumulate(
        np.where(np.r_[True, keys[1:] != keys[:-1]], np.arange(len(keys)), 0)
    )
    before = np.stack([places[again - 1], places[again]], axis=1)
    return np.concatenate(
        [before, np.stack([places[firsts[again]], places[again]], axis=1)]
    )


def verify_shard(work: Path, threshold: float, first: list[int], task: tuple) -> None:
    """Stage 2: which candidates are alike, of those whose later one is in the shard."""
    i, pairs = task
    path = work / f"alike-{i:06}.npy"
    if path.exists():
        return
    alike, own = [], shard_documents(work, i) if len(pairs) else []
    last, y = -1, None
    for a, b in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if b != last:
            last, y = b, shingles(own[b - first[i]])
        shard = int(np.searchsorted(first, a, side="right")) - 1
        x = shingles(one_document(work, shard, a - first[shard]))
        if jaccard(x, y) >= threshold:
            alike.append((a, b))
    array = np.array(alike, dtype=np.int64).reshape(-1, 2)
    whole(path, lambda p: np.save(p, array))


def dropped(pairs: np.ndarray) -> np.ndarray:
    """The documents that are like an earlier kept one, from pairs that are alike."""
    gone: set[int] = set()
    for a, b in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if a not in gone:
            gone.add(b)
    return np.array(sorted(gone), dtype=np.int64)


def kept_documents(work: Path, first: list[int], args, i: int) -> dict[str, list[str]]:
    """The shard's documents that stay, by side; seed and place decide the side."""
    documents, gone = shard_documents(work, i), np.load(work / "dropped.npy")
    bits = np.random.PCG64(args.seed)
    sides = np.random.Generator(bits.advance(first[i])).random(len(documents))
    kept = {"train": [], "val": []}
    inside = gone[np.searchsorted(gone, first[i]) : np.searchsorted(gone, first[i + 1])]
    out = set((inside - first[i]).tolist())
    for n, document in enumerate(documents):
        if n not in out:
            kept["val" if sides[n] < args.val_fraction else "train"].append(document)
    return kept


def count_shard(work: Path, first: list[int], args, i: int) -> Counter:
    """Stage 3: how often each pre-token occurs in the shard's training documents."""
    return count_pretokens(kept_documents(work, first, args, i)["train"], GPT2_PATTERN)


# A worker keeps its tokenizer, whose cache is warm after the first shard.
load_tokenizer = lru_cache(maxsize=1)(BPETokenizer.load)


def encode_shard(
    work: Path, first: list[int], args, tokenizer_file: Path, i: int
) -> None:
    """Stage 4: the shard's tokens, the end-of-text id after each document."""
    done = work / f"encoded-{i:06}.json"
    if done.exists():
        return
    tokenizer = load_tokenizer(tokenizer_file)
    end, counts = [tokenizer.special_tokens[END]], {}
    for side, documents in kept_documents(work, first, args, i).items():
        ids = (t for d in documents for t in tokenizer.encode_ordinary(d) + end)
        path = work / f"{side}-{i:06}.npy"
        counts[side] = [len(documents), write_tokens(path, ids) if documents else 0]
    whole(done, lambda p: p.write_text(json.dumps(counts), "utf-8"))


# --------------------------------------------------------------------------- the run


def each(pool, work: Callable, tasks: Sequence, name: str) -> Iterator:
    """Results of `work` on every task, in their order, with a bar; no pool: here."""
    results = pool.imap(work, tasks) if pool else map(work, tasks)
    return iter(tqdm(results, name, total=len(tasks), unit="shard"))


def train_tokenizer(work: Path, first: list[int], args, pool) -> Path:
    path = work / "tokenizer.json"
    if not path.exists():
        n_shards = len(first) - 1
        wanted = max(1, int(args.tokenizer_mb / args.shard_mb))
        chosen = sorted({int(i) for i in np.linspace(0, n_shards - 1, wanted)})
        count = partial(count_shard, work, first, args)
        counts: Counter = Counter()
        for one in each(pool, count, chosen, "count"):
            counts.update(one)
        if not counts:
            raise ValueError(f"corpus {args.corpus}: no training document is left")
        merges = learn_merges(counts, args.vocab_size - 257, progress=True)
        BPETokenizer(merges, special_tokens=[END]).save(path)
    return path


def join(work: Path, out: Path, side: str, n_shards: int, limit: int) -> int:
    """Token files of all the shards' files, of at most `limit` tokens each, or one file
    if that is 0; returns the number of tokens."""
    files = [work / f"{side}-{i:06}.npy" for i in range(n_shards)]
    files = [f for f in files if f.exists()]
    if not files:
        raise ValueError(
            f"no document fell to the side {side!r}; change --val-fraction"
        )
    tokens = TokenShards([read_tokens(f) for f in files])
    total = len(tokens)
    for i, start in enumerate(range(0, total, limit or total)):
        end = min(start + (limit or total), total)
        name = shard_name(side, i) if limit else f"{side}.npy"
        whole(out / name, partial(copy_tokens, tokens, start, end))
    return total


def copy_tokens(tokens: TokenShards, start: int, end: int, path: Path) -> None:
    """Write tokens[start:end] as a token file, a piece at a time."""
    about = {"descr": tokens.dtype.str, "fortran_order": False, "shape": (end - start,)}
    with open(path, "wb") as file:  # a memory map would hold the whole file
        np.lib.format.write_array_header_1_0(file, about)
        for place in range(start, end, 1 << 22):
            file.write(tokens[place : min(place + (1 << 22), end)].tobytes())


def settings(args) -> dict:
    """What the result depends on: all options but the number of workers."""
    stat = args.corpus.stat()
    chosen = {k: v for k, v in vars(args).items() if k not in ("workers", "out")}
    if not args.tokens_per_shard:  # so that it was before there was such an option
        del chosen["tokens_per_shard"]
    return chosen | {"corpus": str(args.corpus), "size": stat.st_size}


def run(args: argparse.Namespace) -> None:
    size, step = args.corpus.stat().st_size, int(args.shard_mb * 1e6)
    if not size:
        raise ValueError(f"corpus {args.corpus} is empty")
    work = args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    record = work / "settings.json"
    if record.exists() and json.loads(record.read_text("utf-8")) != settings(args):
        raise ValueError(f"{args.out} was begun with other settings; use another --out")
    whole(record, lambda p: p.write_text(json.dumps(settings(args)), "utf-8"))
    shards = [(i, s, min(s + step, size)) for i, s in enumerate(range(0, size, step))]
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers) if args.workers > 1 else nullcontext() as pool:
        first = deduplicate_shards(args, work, shards, pool)
        tokenizer_file = train_tokenizer(work, first, args, pool)
        encode = partial(encode_shard, work, first, args, tokenizer_file)
        list(each(pool, encode, range(len(shards)), "encode"))
    finish(args, work, first, size)


def deduplicate_shards(args, work: Path, shards: list, pool) -> list[int]:
    """Stages 1 and 2; returns the number of each shard's first document, and all."""
    marked = args.corpus.suffix != ".jsonl" and has_marks(args.corpus)
    clean = partial(clean_shard, args.corpus, marked, work, args.threshold)
    list(each(pool, clean, shards, "clean"))
    files = [work / f"keys-{i:06}.npy" for i in range(len(shards))]
    first = np.cumsum([0, *(len(np.load(f, mmap_mode="r")) for f in files)]).tolist()
    if not (work / "dropped.npy").exists():
        pairs = candidates(work, len(shards))
        owner = np.searchsorted(first, pairs[:, 1], side="right") - 1
        tasks = [(i, pairs[owner == i]) for i in range(len(shards))]
        verify = partial(verify_shard, work, args.threshold, first)
        list(each(pool, verify, tasks, "compare"))
        alike = [np.load(work / f"alike-{i:06}.npy") for i in range(len(shards))]
        whole(
            work / "dropped.npy", lambda p: np.save(p, dropped(np.concatenate(alike)))
        )
    return first


def finish(args, work: Path, first: list[int], size: int) -> None:
    """Join the shards, write what was done, remove the intermediate files."""
    n_shards = len(first) - 1
    limit, tokens = args.tokens_per_shard, {}
    for side in ("train", "val"):
        tokens[side] = join(work, args.out, side, n_shards, limit)
    shutil.copyfile(work / "tokenizer.json", args.out / "tokenizer.json")
    gone = len(np.load(work / "dropped.npy"))
    summary = {
        "documents": first[-1],
        "duplicates": gone,
        "bytes": size,
        "tokens": tokens,
    }
    text = json.dumps(settings(args) | summary, indent=1, default=str) + "\n"
    whole(args.out / "prepare.json", lambda p: p.write_text(text, "utf-8"))
    shutil.rmtree(work)
    print(
        f"{args.out}: {first[-1]:,} documents, {gone:,} duplicates dropped, "
        f"{tokens['train']:,} + {tokens['val']:,} tokens"
    )


def main() -> int:
    try:
        args = options()
        if (args.out / "prepare.json").exists():
            done = json.loads((args.out / "prepare.json").read_text("utf-8"))
            if not settings(args).items() <= done.items():
                raise ValueError(
                    f"{args.out} holds another corpus, or one prepared with other "
                    "settings; use another --out"
                )
            print(f"{args.out} is complete; remove it to prepare it again")
            return 0
        run(args)
    except (ValueError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
