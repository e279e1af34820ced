"""Measure the course's code against public peers, in one process, as ratios of times.

    python tools/bench.py bpe data/corpora/shakespeare.jsonl --vocab-size 4096 16384
    python tools/bench.py dedup

Each figure is the median of several rounds in which both sides take turns, with the
smallest and the largest ratio beside it: machines are noisy, ratios less so.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("what", choices=["bpe", "dedup"])
    p.add_argument("corpus", nargs="?", default=str(ROOT / "data" / "tales.txt"))
    p.add_argument("--vocab-size", type=int, nargs="+", default=[4096])
    p.add_argument("--mb", type=float, help="repeat the corpus up to this size")
    p.add_argument("--documents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    p.add_argument("--rounds", type=int, default=5)
    return p.parse_args()


def documents_of(path: str, mb: float | None = None) -> list[str]:
    """The documents of a .jsonl or .txt file, repeated to `mb` megabytes if asked."""
    text = Path(path).read_text("utf-8")
    if path.endswith(".jsonl"):
        documents = [json.loads(line)["text"] for line in text.splitlines()]
    else:
        documents = text.split("\n\n")
    if mb is None:
        return documents
    size, repeated = 0, []
    while size < mb * 1e6:
        for document in documents:
            repeated.append(document)
            size += len(document.encode("utf-8"))
    return repeated


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, rounds: int, ours: Callable, peer: Callable) -> None:
    """Print our time, the peer's, and ours / peer's over `rounds` rounds."""
    times = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name:46} ours {a:8.3f} s  peer {b:8.3f} s  ratio "
        f"{statistics.median(ratios):5.2f}  ({ratios[0]:.2f} .. {ratios[-1]:.2f})",
        flush=True,
    )


def hugging_face_training(documents: list[str], vocab_size: int) -> Callable:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def train():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(documents, trainer)

    return train


def bench_bpe(args: argparse.Namespace) -> None:
    import regex

    from solutions import bpe

    documents = documents_of(args.corpus, args.mb)
    size = sum(len(d.encode("utf-8")) for d in documents) / 1e6
    print(f"{args.corpus}: {len(documents):,} documents, {size:.1f} MB")
    for vocab_size in args.vocab_size:
        compare(
            f"train_bpe {vocab_size} / tokenizers' trainer",
            args.rounds,
            lambda v=vocab_size: bpe.train_bpe(documents, v),
            hugging_face_training(documents, vocab_size),
        )
    find = regex.compile(bpe.GPT2_PATTERN).findall
    compare(
        "  the regex alone / tokenizers' trainer",
        args.rounds,
        lambda: [find(d) for d in documents],
        hugging_face_training(documents, args.vocab_size[0]),
    )
    bench_encoding(args, documents, bpe)


def bench_encoding(args: argparse.Namespace, documents: list[str], bpe) -> None:
    trained = bpe.train_bpe(documents, args.vocab_size[0])
    peer = trained.to_tiktoken("bench")
    text = "\n\n".join(documents)
    assert trained.encode_ordinary(text) == peer.encode_ordinary(text)

    def cold():
        fresh = bpe.BPETokenizer(trained.merges)
        fresh.encode_ordinary(text)

    compare(
        "encode_ordinary, empty cache / tiktoken",
        args.rounds,
        cold,
        lambda: peer.encode_ordinary(text),
    )
    compare(
        "encode_ordinary, again / tiktoken",
        args.rounds,
        lambda: trained.encode_ordinary(text),
        lambda: peer.encode_ordinary(text),
    )


def bench_dedup(args: argparse.Namespace) -> None:
    """deduplicate against datasketch's MinHash LSH, and how its time grows."""
    import random

    from datasketch import MinHash, MinHashLSH

    from solutions.text_data import deduplicate

    draw = random.Random(0)
    sentences = " ".join(documents_of(args.corpus)).replace('"', "").split(". ")

    def documents(n: int) -> list[str]:
        made = [". ".join(draw.choices(sentences, k=8)) for _ in range(n)]
        for i in range(0, n - 1, 10):  # every tenth has an edited copy after it
            words = made[i].split(" ")
            words[draw.randrange(len(words))] = "changed"
            made[i + 1] = " ".join(words)
        return made

    def peer(texts: list[str]) -> None:
        index = MinHashLSH(threshold=0.8, num_perm=120)
        for i, text in enumerate(texts):
            signature = MinHash(num_perm=120)
            t = " ".join(text.lower().split())
            signature.update_batch([t[j : j + 9].encode() for j in range(len(t) - 8)])
            if not index.query(signature):
                index.insert(i, signature)

    for n in args.documents:
        texts = documents(n)
        took = seconds(lambda t=texts: deduplicate(t))
        print(f"deduplicate {n:>7,} texts: {took:8.2f} s, {took / n * 1e3:.2f} ms each")
        if n <= 10_000:
            compare(
                f"deduplicate {n:,} / datasketch",
                min(args.rounds, 3),
                lambda t=texts: deduplicate(t),
                lambda t=texts: peer(t),
            )


def main() -> int:
    args = options()
    {"bpe": bench_bpe, "dedup": bench_dedup}[args.what](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
