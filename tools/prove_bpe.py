"""Prove that solutions/bpe.py gives the ids of tiktoken's GPT-2, on very many strings.

    python tools/prove_bpe.py                        # 120,000 strings, a few minutes
    python tools/prove_bpe.py book.txt --each 100000

A third of the strings comes from hypothesis (any Unicode, even lone surrogates), a
third is put together from pieces that are hard to cut, and a third is cut at random
from the tales and the files given. For each string, encode_ordinary and encode (with
special tokens allowed) give tiktoken's ids, the ids decode to the string, and
encode_iterable gives them for the string in random chunks. tests/test_bpe.py does the
same with fewer strings. Exit status: 1 at the first difference, 2 if GPT-2's merges
cannot be loaded (set TIKTOKEN_CACHE_DIR, or connect to a network). hypothesis is in
tests/requirements.txt.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
PIECES = [
    *"aBxé日1!/.,\n\t🦊ſǄʰ\u0301\u200d\u00a0\u3000\x00\x1c\x85\u2028", " ", "  ", "'",
    "'s", "'re", "'LL", "'d", "\r\n", "\n\n", "123", "e\u0301", "<|", "|>", END, " the",
    "don't", "👩\u200d👧", "語の", "नि", "한글", "العربية",
]  # fmt: skip


def odd_strings(rng: random.Random, n: int) -> Iterator[str]:
    for _ in range(n):
        yield "".join(rng.choices(PIECES, k=rng.randint(0, 40)))


def cut_strings(rng: random.Random, n: int, files: list[Path]) -> Iterator[str]:
    texts = [path.read_text("utf-8") for path in files]
    for _ in range(n):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        yield text[start : start + int(10 ** rng.uniform(0, 3.5))]


def check(text: str, theirs, ours, rng: random.Random) -> None:
    """AssertionError unless ours and theirs agree on `text` in every way."""
    plain = theirs.encode_ordinary(text)
    marked = theirs.encode(text, allowed_special="all")
    assert ours.encode_ordinary(text) == plain, f"encode_ordinary: {text!a}"
    assert ours.encode(text, allowed_special="all") == marked, f"encode: {text!a}"
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert ours.decode(plain) == ours.decode(marked) == text, f"decode: {text!a}"
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 5)))
        chunks = [text[i:j] for i, j in pairwise([0, *cuts, None])]
        stream = list(ours.encode_iterable(chunks, allowed_special="all"))
        assert stream == marked, f"encode_iterable: {chunks!a}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="more texts to cut from")
    parser.add_argument("--each", type=int, default=40_000, help="strings of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import tiktoken
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st
    from tqdm import tqdm

    from solutions.bpe import BPETokenizer

    try:
        theirs = tiktoken.get_encoding("gpt2")
    except Exception as error:
        print(f"GPT-2's merges cannot be had: {error}", file=sys.stderr)
        return 2
    ours, rng = BPETokenizer.from_tiktoken(theirs), random.Random(args.seed)
    done = 0

    @seed(args.seed)
    @settings(max_examples=args.each, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(st.text(st.characters(), max_size=100))
    def any_text(text: str) -> None:
        nonlocal done
        check(text, theirs, ours, rng)
        done += 1

    files = [ROOT / "data" / "tales.txt", *args.files]
    try:
        strings = chain(odd_strings(rng, args.each), cut_strings(rng, args.each, files))
        for text in tqdm(strings, total=2 * args.each):
            check(text, theirs, ours, rng)
            done += 1
        any_text()
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{done:,} strings: ids equal tiktoken's, each decodes, each streams")
    return 0


if __name__ == "__main__":
    sys.exit(main())
