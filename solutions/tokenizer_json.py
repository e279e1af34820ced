"""Hugging Face's tokenizer.json for byte-level BPE, written and read exactly.

A file that asks for something else is refused by name. Built in chapters/02_bpe.ipynb.
"""

import json
import re
from pathlib import Path
from typing import Any, Protocol

import regex

from .pretokenization import GPT2_PATTERN, require

__all__ = ["read_tokenizer", "show", "unshow", "write_tokenizer"]

SHOW = {b: chr(256 + i) for i, b in enumerate([*range(33), *range(127, 161), 173])}
UNSHOW = dict.fromkeys(SHOW, "\uffff") | {ord(c): b for b, c in SHOW.items()}


def show(token: bytes) -> str:
    """A token in GPT-2's printable alphabet, one character for each byte."""
    return token.decode("latin-1").translate(SHOW)


def unshow(shown: str) -> bytes:
    """The token that `show` shows. ValueError for characters outside the alphabet."""
    return shown.translate(UNSHOW).encode("latin-1")


def is_shown(name: str) -> bool:
    """Whether `name` is also how some other text is shown, as "Ġ" is for a space."""
    try:
        return unshow(name).decode("utf-8") != name
    except ValueError:
        return False


def supported(settings: dict[str, Any], **values: object) -> None:
    """ValueError unless each of the `settings` named is missing or as in `values`."""
    for name, value in values.items():
        require(settings.get(name, value) == value, f"{name}={settings.get(name)!r}")


def shared_pattern(pattern: str) -> str:
    """`pattern`, if Oniguruma, Hugging Face's engine, reads it as `regex` does.

    ValueError, with the signs, for what it may read otherwise: ^ and $ but for
    \\s++$; && and brackets within [...]; {1,3}+; letters as escapes but for \\p \\P \\r
    \\n \\s \\t \\d \\S \\D (spelled_out replaces \\w and \\W); groups other than (?:,
    (?i:, (?> and those that look ahead or behind; ff fi fl ss st under (?i). The two
    may know different versions of Unicode, so a few new characters may differ.
    """
    whole = r"(?s)\\s\+\+\$|\\[pP]\{\^?\w+\}|\\.|\[(?:\\.|[^]\\[])++\]"
    bare = regex.sub(whole, "", pattern)
    odd = regex.findall(r"\\[^\WpPrnstdSD]|&&", pattern)
    odd += regex.findall(r"\}\+|[][^$]|\(\?(?!i?:|<?[=!]|>).", bare)
    if "(?i" in pattern:  # there one letter, such as a ligature, may match these two
        odd += regex.findall(r"(?i)ff|fi|fl|ss|st", bare)
    require(not odd, f"{pattern=}: Hugging Face's engine reads {odd} otherwise")
    return pattern


WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}"  # what regex's \w matches


def spelled_out(pattern: str) -> str:
    """`pattern` with classes for what Oniguruma reads otherwise: \\w, \\W, (?s:.).

    {1,3}+ becomes {1,3}, which Oniguruma would repeat; that cuts the same where it
    ends an alternative, as in GPT-4's pattern."""
    pattern = pattern.replace("(?s:.)", r"[\s\S]")
    pattern = regex.sub(r"(\{\d+,\d+\})\+", r"\1", pattern)
    parts = regex.split(r"(\[(?:\\.|[^]\\])*+\]|\\.)", pattern)
    words = {r"\w": f"[{WORD}]", r"\W": f"[^{WORD}]"}
    for i, part in enumerate(parts):
        if part.startswith("["):
            inner = regex.findall(r"\\.|[^\\]", part)
            parts[i] = "".join(WORD if one == r"\w" else one for one in inner)
        else:
            parts[i] = words.get(part, part)
    return "".join(parts)


def patterns_of(pre_tokenizer: dict[str, Any]) -> list[str]:
    """The patterns of a file's Splits, Digits and ByteLevel. ValueError for others."""
    require(pre_tokenizer, f"{pre_tokenizer=}")
    *steps, level = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    supported(level, type="ByteLevel", add_prefix_space=False)
    patterns = []
    for step in steps:
        if step["type"] == "Digits":
            patterns.append(r"\p{N}" if step["individual_digits"] else r"\p{N}+")
            continue
        supported(step, type="Split", behavior="Isolated", invert=False)
        [(kind, pattern)] = step["pattern"].items()
        pattern = pattern if kind == "Regex" else re.escape(pattern)
        patterns.append(shared_pattern(pattern))
    if level.get("use_regex", True):
        patterns.append(GPT2_PATTERN)
    require(patterns, "use_regex=False without a Split")
    return patterns


def added_ids(added: list[dict[str, Any]], vocab: dict[str, int]) -> dict[str, int]:
    """The ids of added tokens. ValueError where `tokenizers` would treat them apart.

    added: the file's list, a dict for each token. vocab: of the model, name -> id.
    """
    ids: dict[str, int] = {}
    flags = dict.fromkeys(["lstrip", "rstrip", "single_word"], False)
    for token in added:
        supported(token, **flags, normalized=added[0].get("normalized"))
        name, free = token["content"], max([len(vocab) - 1, *ids.values()]) + 1
        known = token["id"] == vocab.get(name, free) and not is_shown(name)
        require(known, f"added_tokens: {name!r} with the id {token['id']}")
        ids[name] = token["id"]
    return ids


UNUSED = dict.fromkeys(
    ["normalizer", "padding", "truncation", "dropout", "continuing_subword_prefix",
     "end_of_word_suffix"]
)


def read_tokenizer(
    path: str | Path, *, add_special_tokens: bool = True
) -> dict[str, Any]:
    """A tokenizer.json as arguments of BPETokenizer.

    ValueError if it asks for more, and KeyError, TypeError or AttributeError if it is
    no such file: BPETokenizer.load makes a ValueError of all of them.
    """
    whole = json.loads(Path(path).read_text("utf-8"))
    model, patterns = whole["model"], patterns_of(whole["pre_tokenizer"])
    supported(model, type="BPE")
    supported(whole, **UNUSED)
    supported({name: model.get(name) or None for name in UNUSED}, **UNUSED)
    last = whole.get("post_processor") or {"type": "ByteLevel"}
    require(not add_special_tokens or last["type"] == "ByteLevel",
            f"post_processor={last['type']!r}: add_special_tokens=False leaves it out")
    special = added_ids(whole["added_tokens"], model["vocab"])
    ids = (model["vocab"] | special).items()
    vocab = {i: t.encode() if t in special else unshow(t) for t, i in ids}
    require(len(vocab) == len(ids), "vocab has two tokens for one id")
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    return {"merges": [tuple(map(unshow, pair)) for pair in merges], "vocab": vocab,
            "pattern": patterns if len(patterns) > 1 else patterns[0],
            "special_tokens": special,
            "ignore_merges": bool(model.get("ignore_merges"))}


class Tokenizer(Protocol):
    """What is written of a tokenizer: BPETokenizer has these attributes."""

    merges: list[tuple[bytes, bytes]]
    vocab: dict[int, bytes]
    special_tokens: dict[str, int]
    pattern: str | tuple[str, ...]
    ignore_merges: bool


def write_tokenizer(path: str | Path, tokenizer: Tokenizer) -> None:
    """Write a BPETokenizer as tokenizer.json: `tokenizers` gives the same ids.

    The file gets its name when it is complete. ValueError for a pattern that Hugging
    Face's engine reads otherwise, and for special tokens that look like others.
    """
    vocab = tokenizer.vocab
    own = {i: name for name, i in tokenizer.special_tokens.items()}
    shown = {own.get(i) or show(token): i for i, token in sorted(vocab.items())}
    unclear = len(shown) < len(vocab) or any(map(is_shown, own.values()))
    require(not unclear, f"special_tokens: rename one of {own}")
    no = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    added = [{"id": i, "content": s, "special": True} | no for i, s in own.items()]
    steps = []
    pattern = tokenizer.pattern
    for one in [pattern] if isinstance(pattern, str) else pattern:
        plain = shared_pattern(spelled_out(one))
        steps.append({"type": "Split", "pattern": {"Regex": plain},
                      "behavior": "Isolated", "invert": False})
    level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False,
             "type": "ByteLevel"}
    cuts = {"type": "Sequence", "pretokenizers": [*steps, level]}
    model = {"type": "BPE", "vocab": shown, "ignore_merges": tokenizer.ignore_merges,
             "merges": [[show(a), show(b)] for a, b in tokenizer.merges]}
    whole = {"version": "1.0", "added_tokens": added, "decoder": level,
             "pre_tokenizer": cuts, "model": model}
    new = Path(f"{path}.new")  # renamed when complete, so that nothing is lost
    new.write_text(json.dumps(whole, ensure_ascii=False, indent=1), "utf-8")
    new.replace(path)
