"""How a text is cut before it is merged, and what special tokens and halves of
characters in it become. Built in chapters/02_bpe.ipynb.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

import regex

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"


def need(fulfilled: object, message: str) -> None:
    """ValueError with `message` unless `fulfilled`."""
    if not fulfilled:
        raise ValueError(message)


SPANS = re.compile(
    r"[^\S\x1c-\x1f]*+(?:[A-Za-z]++(?=[\s,.;:!?])|[\S\x1c-\x1f]++)|\s+"
)


DIGITS = {r"\p{N}", r"\p{N}+"}
CHARACTER_CLASS = re.compile(r"(\\p\{\w+\}|\[[^]]+\])\+?")


def isolating(pattern: str) -> regex.Pattern:
    """Its `findall` gives what `pattern` matches and, in one piece, each gap."""
    try:
        compiled = regex.compile(rf"{pattern}|(?:(?!{pattern})(?s:.))+")
    except regex.error as error:
        raise ValueError(f"{pattern=} is not a pattern: {error}") from None
    need(not compiled.groups, f"{pattern=} has a group: write (?:...) for (...)")
    empty = "" in compiled.findall(f"{pattern} a1!")
    need(not empty, f"{pattern=} matches an empty string: write + for *")
    return compiled


def cut_in_turn(text: str, patterns: list[regex.Pattern]) -> list[str]:
    """`text` cut by the first pattern, each piece by the second, and so on."""
    pieces = [text]
    for pattern in patterns:
        pieces = [part for piece in pieces for part in pattern.findall(piece)]
    return pieces


def cutter(patterns: list[regex.Pattern]) -> Callable[[str], list[str]]:
    """`cut_in_turn` by these patterns, without a detour where there is only one."""
    if len(patterns) == 1:
        return patterns[0].findall
    return partial(cut_in_turn, patterns=patterns)


def cutters(pattern: str | Sequence[str]) -> tuple[Callable, Callable]:
    """Two functions: one cuts a text into spans, the other a span into pre-tokens.

    Of several patterns each cuts the pieces of the one before. SPANS cut only where
    GPT-2's pattern cuts too, after digits or not. All other spans are what the first
    pattern leaves that is more than a class of characters.
    """
    patterns, n = [pattern] if isinstance(pattern, str) else [*pattern], 1
    need(patterns, f"{pattern=} has no pattern")
    compiled = [isolating(one) for one in patterns]
    last = patterns[-1].replace("++", "+").replace(r"|\s+$", "")
    if last == GPT2_PATTERN and DIGITS.issuperset(patterns[:-1]):
        return SPANS.findall, cutter(compiled)
    while n < len(patterns) and CHARACTER_CLASS.fullmatch(patterns[n - 1]):
        n += 1
    return cutter(compiled[:n]), cutter(compiled[n:])


def valid_text(name: str, text: str) -> str:
    """`text`, with U+FFFD for half characters (lone surrogates), as in tiktoken."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str, got {type(text).__name__}")
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def special_pattern(names: Iterable[str]) -> regex.Pattern:
    """Finds special tokens, the longest where several fit; no text holds "\\ud800"."""
    longest_first = sorted(names, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)) or "\ud800")


def count_pretokens(texts: Iterable[str], pattern: str | Sequence[str] = GPT2_PATTERN,
                    special_tokens: Iterable[str] = ()) -> Counter[bytes]:
    """How often each pre-token occurs, as UTF-8. Special tokens cut the text and go.

    For a large corpus, count its parts in several processes and add the counts up.
    """
    (spans_of, pieces_of), cut = cutters(pattern), special_pattern(special_tokens).split
    parts = (part for text in texts for part in cut(valid_text("text", text)))
    spans, counts = Counter(chain.from_iterable(map(spans_of, parts))), Counter()
    for span, n in spans.items():
        for piece in pieces_of(span):
            counts[piece.encode("utf-8")] += n
    return counts
