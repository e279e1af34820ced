"""Measure the course's code against public peers, as ratios, in one process.

    python tools/bench.py bpe data/corpora/shakespeare.jsonl --vocab-size 4096 16384
    python tools/bench.py dedup
    python tools/bench.py model --nanogpt ../nanoGPT    # forward and backward
    python tools/bench.py step --nanogpt ../nanoGPT     # a training step
    python tools/bench.py generate                      # new tokens, with a cache
    python tools/bench.py ladder                        # what made it fast
    python tools/bench.py train --text shakespeare.txt  # learning, in equal time
    python tools/bench.py speedrun --recipe mine.py     # the public challenge
    python tools/bench.py page                          # a model in a browser

Both sides take turns for several rounds, and the report gives the median with the
smallest and the largest ratio, because machines are noisy and ratios less so. Every
report ends with a line NAME RATIO. For models, steps and generation this is a ratio of
speeds, ours over theirs (LADDER: last rung over first; PAGE: tokens per second over 20,
which is faster than anybody reads). For all others it is a ratio of
times or of bits per byte, where lower is better.

Exit status: 0 done, 2 an error, explained in one line.
"""

import argparse
import importlib.util
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from decoding_bench import add_generate, bench_generate  # noqa: E402
from forwards import bench_model  # noqa: E402
from page_bench import add_page, bench_page  # noqa: E402
from race import bench_speedrun, bench_train  # noqa: E402
from steps import SIZES, bench_ladder, bench_step  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = p.add_subparsers(dest="what", required=True, metavar="what")
    for add in (add_texts, add_steps, add_generate, add_races, add_page):
        add(commands)
    return p.parse_args()


def add_texts(commands) -> None:
    corpus = str(ROOT / "data" / "tales.txt")
    p = commands.add_parser("bpe", help="train_bpe and encoding against the peers'")
    p.add_argument("corpus", nargs="?", default=corpus)
    p.add_argument("--vocab-size", type=int, nargs="+", default=[4096])
    p.add_argument("--mb", type=float, help="repeat the corpus up to this size")
    p.add_argument("--perturb", type=float, default=0.0,
                   help="share of the words to replace in repetitions")  # fmt: skip
    p.add_argument("--processes", type=int, default=1,
                   help="processes that count train_bpe's pre-tokens")  # fmt: skip
    p.add_argument("--rounds", type=int, default=5)
    p = commands.add_parser("dedup", help="deduplicate against datasketch")
    p.add_argument("corpus", nargs="?", default=corpus)
    p.add_argument("--documents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    p.add_argument("--rounds", type=int, default=3)


def add_steps(commands) -> None:
    nanogpt = {"metavar": "PATH", "help": "the folder of a clone of nanoGPT"}
    p = commands.add_parser("model", help="a pass against nanoGPT's and Hugging Face's")
    p.add_argument("--nanogpt", **nanogpt)
    p.add_argument("--sizes", nargs="+", default=["1M", "10M", "124M"], choices=SIZES)
    p.add_argument("--rounds", type=int, default=15)
    p = commands.add_parser("step", help="a training step against nanoGPT's")
    p.add_argument("--nanogpt", **nanogpt)
    p.add_argument("--sizes", nargs="+", default=["1M", "10M", "124M"], choices=SIZES)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32",
                   help="bf16: also run ours in bfloat16")  # fmt: skip
    p.add_argument("--compile", action="store_true", help="also run ours compiled")
    p = commands.add_parser("ladder", help="a training step, rung by rung")
    p.add_argument("--nanogpt", **nanogpt)
    p.add_argument("--sizes", nargs="+", default=["1M", "10M"], choices=SIZES)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--csv", default=str(ROOT / "data" / "studies" / "ladder.csv"))


def add_races(commands) -> None:
    p = commands.add_parser("train", help="the course's recipe against the plain one")
    p.add_argument("--text", required=True, metavar="FILE")
    p.add_argument("--steps", type=int, default=2000, help="of the plain recipe")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p = commands.add_parser("speedrun", help="the public challenge, on the tales")
    p.add_argument("--text", metavar="FILE", default=str(ROOT / "data" / "tales.txt"))
    p.add_argument("--recipe", metavar="FILE", help="your own; see tools/race.py")
    p.add_argument("--seconds", type=float, default=300.0)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])


def documents_of(path: str, mb: float | None = None, share: float = 0) -> list[str]:
    """The documents of a .jsonl or .txt file, repeated up to `mb` megabytes if given.

    In repetitions, a `share` of the words is replaced by words drawn from all of them.
    """
    text = Path(path).read_text("utf-8")
    if path.endswith(".jsonl"):
        documents = [json.loads(line)["text"] for line in text.split("\n") if line]
    else:
        documents = text.split("\n\n")
    if mb is None:
        return documents
    draw, words = random.Random(0), " ".join(documents).split()
    size, repeated = 0, []
    while size < mb * 1e6:
        for document in documents:
            parts = document.split(" ")
            for _ in range(int(share * len(parts))):
                parts[draw.randrange(len(parts))] = draw.choice(words)
            repeated.append(" ".join(parts))
            size += len(repeated[-1].encode("utf-8"))
    return repeated


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, rounds: int, ours: Callable, peer: Callable) -> float:
    """Print our time, the peer's, and ours / peer's; return the median ratio."""
    times = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name:60} ours {a:8.3f} s  peer {b:8.3f} s  ratio "
        f"{statistics.median(ratios):5.2f}  ({ratios[0]:.2f} .. {ratios[-1]:.2f})",
        flush=True,
    )
    return statistics.median(ratios)


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


def count_part(documents: list[str]) -> Counter[bytes]:
    from solutions.bpe import count_pretokens

    return count_pretokens(documents)


def our_training(documents: list[str], vocab_size: int, processes: int) -> Callable:
    """train_bpe, in one process or with its pre-tokens counted in several."""
    from solutions import bpe

    def train():
        if processes == 1:
            return bpe.train_bpe(documents, vocab_size)
        parts = [documents[i::processes] for i in range(processes)]
        with ProcessPoolExecutor(processes) as pool:
            counts = sum(pool.map(count_part, parts), Counter())
        return bpe.BPETokenizer(bpe.learn_merges(counts, vocab_size - 256))

    return train


def bench_bpe(args: argparse.Namespace) -> None:
    import regex

    from solutions import bpe

    documents = documents_of(args.corpus, args.mb, args.perturb)
    size = sum(len(d.encode("utf-8")) for d in documents) / 1e6
    print(f"{args.corpus}: {len(documents):,} documents, {size:.1f} MB")
    training = {}
    for vocab_size in args.vocab_size:
        training[vocab_size] = compare(
            f"train {vocab_size:,} tokens / tokenizers' trainer",
            args.rounds,
            our_training(documents, vocab_size, args.processes),
            hugging_face_training(documents, vocab_size),
        )
    find = regex.compile(bpe.GPT2_PATTERN).findall
    compare(
        "  the regex on all the text / all that the peer does",
        args.rounds,
        lambda: [find(d) for d in documents],
        hugging_face_training(documents, args.vocab_size[0]),
    )
    compare(
        "  count_pretokens / all that the peer does",
        args.rounds,
        lambda: bpe.count_pretokens(documents),
        hugging_face_training(documents, args.vocab_size[0]),
    )
    for vocab_size in args.vocab_size:
        bench_encoding(args, documents, vocab_size)
    print(f"BPE {training[max(training)]:.3f}", flush=True)


def bench_encoding(args: argparse.Namespace, documents: list[str], size: int) -> None:
    """Compare encode_ordinary in three situations with tiktoken, which has no cache."""
    from solutions import bpe

    trained = bpe.train_bpe(documents, size)
    peer = trained.to_tiktoken("bench")
    text, split = "\n\n".join(documents), len(documents) * 4 // 5
    seen, new = "\n\n".join(documents[:split]), "\n\n".join(documents[split:])
    assert trained.encode_ordinary(text) == peer.encode_ordinary(text)
    after_seen = [bpe.BPETokenizer(trained.merges) for _ in range(args.rounds)]
    for tokenizer in after_seen:
        tokenizer.encode_ordinary(seen)
    for name, ours, what in [
        ("a new tokenizer", lambda: bpe.BPETokenizer(trained.merges), text),
        ("the last fifth, having read the others", after_seen.pop, new),
        ("the same text once more", lambda: trained, text),
    ]:
        compare(
            f"encode, {size:,} tokens: {name}",
            args.rounds,
            lambda ours=ours, what=what: ours().encode_ordinary(what),
            lambda what=what: peer.encode_ordinary(what),
        )


def with_copies(sentences: list[str], n: int, draw: random.Random) -> list[str]:
    """n documents of eight sentences; every tenth is followed by an edited copy."""
    made = [". ".join(draw.choices(sentences, k=8)) for _ in range(n)]
    for i in range(0, n - 1, 10):
        words = made[i].split(" ")
        words[draw.randrange(len(words))] = "changed"
        made[i + 1] = " ".join(words)
    return made


def datasketch_deduplication(texts: list[str]) -> None:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=0.8, num_perm=120)
    for i, text in enumerate(texts):
        signature = MinHash(num_perm=120)
        t = " ".join(text.lower().split())
        signature.update_batch([t[j : j + 9].encode() for j in range(len(t) - 8)])
        if not index.query(signature):
            index.insert(i, signature)


def bench_dedup(args: argparse.Namespace) -> None:
    """Compare deduplicate with datasketch's MinHash LSH; show how its time grows."""
    if importlib.util.find_spec("datasketch") is None:  # before minutes of work
        remedy = "python -m pip install -r tests/requirements.txt"
        raise ValueError(f"the package datasketch is not installed: {remedy}")
    from solutions.text_data import deduplicate

    draw = random.Random(0)
    sentences = " ".join(documents_of(args.corpus)).replace('"', "").split(". ")
    compared = {}
    for n in args.documents:
        texts = with_copies(sentences, n, draw)
        took = seconds(lambda t=texts: deduplicate(t))
        print(f"deduplicate {n:>7,} texts: {took:8.2f} s, {took / n * 1e3:.2f} ms each")
        if n <= 10_000:
            compared[n] = compare(
                f"deduplicate {n:,} / datasketch",
                args.rounds,
                lambda t=texts: deduplicate(t),
                lambda t=texts: datasketch_deduplication(t),
            )
    if compared:
        print(f"DEDUP {compared[max(compared)]:.3f}", flush=True)


BENCHES = {
    "bpe": bench_bpe, "dedup": bench_dedup, "step": bench_step, "ladder": bench_ladder,
    "train": bench_train, "speedrun": bench_speedrun, "model": bench_model,
    "generate": bench_generate, "page": bench_page,
}  # fmt: skip


def main() -> int:
    args = options()
    try:
        BENCHES[args.what](args)
    except (ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
