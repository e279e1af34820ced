"""How a text is cut before it is merged, and what special tokens and halves of
characters in it become. Built in chapters/02_bpe.ipynb.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

import regex

__all__ = [
    "GPT2_PATTERN", "Pattern", "SPAN", "compile_pattern", "count_pretokens",
    "cutting_stages", "pretokenize", "require", "special_pattern", "valid_parts",
    "valid_text",
]  # fmt: skip

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"
Pattern: TypeAlias = re.Pattern | regex.Pattern


def require(fulfilled: object, message: str) -> None:
    """ValueError with `message` unless `fulfilled` is true (or not empty)."""
    if not fulfilled:
        raise ValueError(message)


def compile_pattern(pattern: str) -> regex.Pattern:
    """`findall` of it gives what `pattern` matches and, in one piece each, the gaps.

    ValueError for what is no pattern, has a group or matches an empty string.
    """
    try:
        compiled = regex.compile(rf"{pattern}|(?:(?!{pattern})(?s:.))+")
    except regex.error as error:
        raise ValueError(f"{pattern=} is not a pattern: {error}") from None
    require(not compiled.groups, f"{pattern=} has a group: write (?:...) for (...)")
    never_empty = "" not in compiled.findall(f"{pattern} a1!")
    require(never_empty, f"{pattern=} matches an empty string: write + for *")
    return compiled


def pretokenize(text: str, patterns: Sequence[Pattern]) -> list[str]:
    """Pre-tokens: `text` cut by the first pattern, its pieces by the second, ..."""
    pieces = [text]
    for pattern in patterns:
        pieces = list(chain.from_iterable(map(pattern.findall, pieces)))
    return pieces


# Cuts only where GPT-2's pattern cuts too, and needs no `regex`, which is slower.
SPAN = re.compile(r"[^\S\x1c-\x1f]*+(?:[A-Za-z]++(?=[\s,.;:!?])|[\S\x1c-\x1f]++)|\s+")


def cutting_stages(
    pattern: str | Sequence[str],
) -> tuple[list[Pattern], list[Pattern]]:
    """Patterns that cut text into spans, and patterns that cut a span into pre-tokens.

    With GPT-2's pattern, after digits or not, SPAN finds the spans. With any other a
    span is a pre-token. TypeError unless `pattern` is a str or a sequence of them,
    ValueError for one that compile_pattern refuses.
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    if not (isinstance(patterns, Sequence) and patterns):
        raise TypeError(f"{pattern=} must be a str or a list of them")
    compiled: list[Pattern] = [compile_pattern(one) for one in patterns]
    *earlier, last = [one.replace("++", "+").replace(r"|\s+$", "") for one in patterns]
    if last == GPT2_PATTERN and {r"\p{N}", r"\p{N}+"}.issuperset(earlier):
        return [SPAN], compiled
    return compiled, []


def valid_text(name: str, text: str) -> str:
    """`text`, with U+FFFD for half characters (lone surrogates), as in tiktoken.

    TypeError, which says `name`, for what is no str.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str, got {type(text).__name__}")
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def special_pattern(names: Iterable[str]) -> regex.Pattern:
    """Finds special tokens, the longest where several fit; no text holds "\\ud800"."""
    longest_first = sorted(names, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)) or "\ud800")


def count_pretokens(text: str | Iterable[str],
                    pattern: str | Sequence[str] = GPT2_PATTERN,
                    special_tokens: Iterable[str] = ()) -> Counter[bytes]:
    """How often each pre-token occurs, as UTF-8. Special tokens cut the text and go.

    For a large corpus, count its parts in several processes and add the counts up.
    TypeError for what is no text, ValueError for a bad pattern (see compile_pattern).
    """
    if isinstance(text, bytes) or not isinstance(text, Iterable):
        kind = type(text).__name__
        raise TypeError(f"text must be str or an iterable of str, got {kind}")
    span_patterns, piece_patterns = cutting_stages(pattern)
    special = special_pattern(special_tokens)
    spans: Counter[str] = Counter()
    counts: Counter[bytes] = Counter()
    for one in [text] if isinstance(text, str) else text:
        for part in special.split(valid_text("text", one)):
            spans.update(pretokenize(part, span_patterns))
    for span, n in spans.items():
        for piece in pretokenize(span, piece_patterns):
            counts[piece.encode("utf-8")] += n
    return counts


def valid_parts(chunks: Iterable[str], size: int = 8192) -> Iterator[str]:
    """The chunks in parts of about `size` characters, none of which ends in a half.

    A half is the first of the two surrogates that make a character. Lone ones become
    U+FFFD, as in valid_text. TypeError for a chunk that is no str.
    """
    half = ""  # a surrogate whose other half may follow
    for chunk in chunks:
        if not isinstance(chunk, str):
            raise TypeError(f"chunks must be str, got {type(chunk).__name__}")
        for start in range(0, len(chunk), size):
            part = half + chunk[start : start + size]
            half = part[-1] if "\ud800" <= part[-1] <= "\udbff" else ""
            yield valid_text("chunks", part.removesuffix(half))
    yield valid_text("chunks", half)
