"""Check that a file of tales is what data/README.md says about it.

    python tools/check_tales.py data/tales.txt

It prints a line per rule, with the figure found and its limit. If a rule is broken, it
prints up to ten examples for each such rule, and the exit status is 1. A tale is a
document, and blank lines separate documents. A word is a run of letters and
apostrophes, in lower case.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable

import solutions  # noqa: F401  before torch, so that its idle threads sleep
from solutions.text_data import deduplicate, load_text, split_documents

WORDS = 50, 190  # the shortest and the longest tale
COMMONEST, SHARE = 1500, 0.99  # so many words make up at least this share
ONCE = 0.001  # the share of the text in words that only one tale has
SENTENCE_WORDS, SENTENCE_SHARE = 8, 0.01  # so long a sentence is in few tales
OPENING_WORDS, OPENING_SHARE = 5, 0.005  # few tales begin alike
ALIKE = 0.4  # chapter 1's estimate of the Jaccard similarity


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def sentences_of(tale: str) -> set[str]:
    """The distinct sentences of a tale, without quotation marks around them."""
    parts = re.split(r'(?<=[.!?])["\s]+', tale)
    return {" ".join(part.strip('" ').split()) for part in parts}


def share(counts: Counter, tales: int) -> float:
    """The share of the tales that contain the most common one."""
    return max(counts.values(), default=0) / tales


def too_common(counts: Counter, limit: float) -> list[str]:
    return [f"{n} tales: {text!r}" for text, n in counts.most_common(10) if n > limit]


def rules(tales: list[str]) -> Iterable[tuple[str, str, list[str]]]:
    """(rule, figure, what breaks it) for each rule."""
    n = len(tales)
    lengths = [len(tale.split()) for tale in tales]
    low, high = WORDS
    yield (
        f"a tale has {low} to {high} words",
        f"{min(lengths)} to {max(lengths)}",
        [tale[:60] for tale, k in zip(tales, lengths) if not low <= k <= high],
    )
    odd = [tale for tale in tales if re.search(r"[^ -~\n]", tale)]
    yield "printable ASCII only", f"{len(odd)} with others", [t[:60] for t in odd]
    # A speech may go over a line break, so quotation marks are paired within a tale.
    left_open = [tale for tale in tales if tale.count('"') % 2]
    figure = f"{len(left_open)} left open"
    yield "quotation marks are closed", figure, [t[:60] for t in left_open]

    used = Counter(word for tale in tales for word in words_of(tale))
    standing = Counter(word for tale in tales for word in set(words_of(tale)))
    total = used.total()
    covered = sum(k for _, k in used.most_common(COMMONEST)) / total
    rule = f"the {COMMONEST:,} commonest words make up at least {SHARE:.0%}"
    yield rule, f"{covered:.2%}", [] if covered >= SHARE else [f"{covered:.2%}"]
    once = [word for word, k in standing.items() if k == 1]
    part = sum(used[word] for word in once) / total
    rule = f"words of one tale only make up at most {ONCE:.1%}"
    yield rule, f"{part:.3%}", sorted(once) if part > ONCE else []

    sentences = Counter(
        sentence
        for tale in tales
        for sentence in sentences_of(tale)
        if len(sentence.split()) >= SENTENCE_WORDS
    )
    yield (
        f"a sentence of {SENTENCE_WORDS} words or more is in at most "
        f"{SENTENCE_SHARE:.1%} of the tales",
        f"{share(sentences, n):.2%}",
        too_common(sentences, SENTENCE_SHARE * n),
    )
    openings = Counter(" ".join(tale.split()[:OPENING_WORDS]) for tale in tales)
    yield (
        f"{OPENING_WORDS} words open at most {OPENING_SHARE:.1%} of the tales",
        f"{share(openings, n):.2%}",
        too_common(openings, OPENING_SHARE * n),
    )
    kept = set(deduplicate(tales, threshold=ALIKE))
    alike = [tale[:60] for tale in tales if tale not in kept]
    alike += [f"twice: {t[:60]}" for t, k in Counter(tales).items() if k > 1]
    yield f"no two are more alike than {ALIKE}", f"{len(alike)} are", alike


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="UTF-8 text, blank lines between tales")
    try:
        text = load_text(parser.parse_args().file)
    except (OSError, ValueError) as error:
        print(f"check_tales: {error}", file=sys.stderr)
        return 2
    tales, broken = split_documents(text), 0
    if not tales:
        print("check_tales: the file holds no tale", file=sys.stderr)
        return 2
    print(f"{len(tales):,} tales, {len(text.encode('utf-8')):,} bytes")
    for rule, figure, examples in rules(tales):
        print(f"{'BROKEN' if examples else 'held':6}  {rule}: {figure}")
        for example in examples[:10]:
            print(f"        {example}")
        broken += bool(examples)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
