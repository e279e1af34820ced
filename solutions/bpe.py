"""Byte-pair encoding: from text to token ids and back, exactly.

Training, encoding and decoding as GPT-2 does them, without torch. Text is never
normalised: every byte that goes in comes out. Built in chapters/02_bpe.ipynb.

The idea is Gage's (1994); for words, Sennrich et al. (2016); for bytes, Radford et al.
(2019, section 2.2). Argument names and the rule for special tokens are tiktoken's.
"""

import heapq
import json
import operator
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import regex
from tqdm import tqdm

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"
BYTES = [bytes([b]) for b in range(256)]


def need(fulfilled: object, message: str) -> None:
    """ValueError with `message` unless `fulfilled`."""
    if not fulfilled:
        raise ValueError(message)


def pairs(word: str) -> Iterator[str]:
    """The neighbours in a word of one character per token: "abc" -> "ab", "bc"."""
    return map(str.__add__, word, word[1:])


SPANS = re.compile(
    r"[^\S\x1c-\x1f]*+(?:[A-Za-z]++(?=[\s,.;:!?])|[\S\x1c-\x1f]++)|\s+"
)


def cutters(pattern: str) -> tuple[Callable, Callable]:
    """Two functions: one cuts a text into spans, the other a span into pre-tokens.

    A character that `pattern` leaves out is a pre-token of its own. SPANS cut only
    where GPT-2's pattern cuts too. With any other pattern a span is a pre-token.
    """
    try:
        compiled = regex.compile(rf"{pattern}|(?s:.)")
    except regex.error as error:
        raise ValueError(f"{pattern=} is not a pattern: {error}") from None
    need(not compiled.groups, f"{pattern=} has a group: write (?:...) for (...)")
    if pattern.replace("++", "+").replace(r"|\s+$", "") == GPT2_PATTERN:
        return SPANS.findall, compiled.findall
    return compiled.findall, lambda span: [span]


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


def count_pretokens(texts: Iterable[str], pattern: str = GPT2_PATTERN,
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


class PairTable:
    """Words as strings of one character per token, and how often each pair is in them.

    counts: pair -> occurrences, overlapping ones too ("aaa" has two of "aa").
    where: pair -> index of a word for each place in which it stands, or once stood.
    """

    def __init__(self, counts: dict[bytes, int]) -> None:
        self.words = [word.decode("latin-1") for word in counts]
        self.freqs = list(counts.values())
        self.counts, self.where = defaultdict(int), defaultdict(list)
        for i, word in enumerate(self.words):
            for pair in pairs(word):
                self.where[pair].append(i)
        for pair, places in self.where.items():
            self.counts[pair] = self.total(places)

    def total(self, places: list[int]) -> int:
        """How often the pair of these `places` occurs."""
        return sum(map(self.freqs.__getitem__, places))


def merge_pair(table: PairTable, pair: str, new: str) -> list[str]:
    """Put `new` for `pair` in each word, from the left; returns the pairs of `new`."""
    (a, b), before, after = pair, defaultdict(list), defaultdict(list)
    for i in {*table.where.pop(pair)}:
        parts = table.words[i].split(pair)
        table.words[i] = new.join(parts)
        if len(parts) == 2:  # most often; what follows would do the same, but slower
            before[parts[0][-1:]].append(i)
            after[parts[1][:1]].append(i)
            continue
        for k in range(1, len(parts)):
            before[parts[k - 1][-1:] or new * (k > 1)].append(i)
            after[parts[k][:1] or a * (k + 1 < len(parts))].append(i)
    moves = [(left + a, left + new, before[left]) for left in before if left]
    moves += [(b + right, new + right, after[right]) for right in after if right]
    for old, fresh, places in moves:
        n = table.total(places)
        table.counts[old] -= n
        table.counts[fresh] += n
        table.where[fresh] = places
    del table.counts[pair]
    return [fresh for _, fresh, _ in moves]


INVERTED = bytes(range(255, -1, -1))


def descending(token: bytes) -> str:
    """A string that sorts the other way round: greater bytes first, longer first."""
    return token.translate(INVERTED).decode("latin-1") + "\u0100"


def learn_merges(counts: dict, n_merges: int, *, progress: bool = False) -> list[tuple]:
    """The first merges of the words in `counts`, or all that there are.

    Each step takes the most frequent pair, of equals the greatest pair of bytes.
    """
    table, merges, tokens = PairTable(counts), [], [*BYTES]
    order = [descending(token) for token in tokens]

    def entry(pair: str) -> tuple[int, str, str]:
        return -table.counts[pair], order[ord(pair[0])] + order[ord(pair[1])], pair

    heap = sorted(entry(pair) for pair in table.counts)
    for _ in tqdm(range(n_merges), unit="merge", disable=not progress):
        while heap and table.counts[heap[0][2]] != -heap[0][0]:  # an outdated entry
            heapq.heapreplace(heap, entry(heap[0][2]))
        if not heap or heap[0][0] == 0:
            break
        pair = heapq.heappop(heap)[2]
        merges.append((tokens[ord(pair[0])], tokens[ord(pair[1])]))
        tokens.append(b"".join(merges[-1]))
        order.append(descending(tokens[-1]))
        for made in merge_pair(table, pair, chr(len(tokens) - 1)):
            heapq.heappush(heap, entry(made))
    return merges


def merge_word(word: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """`word` in tokens: join the neighbours of lowest rank, leftmost first, to the end.

    ranks: what two neighbours make together -> rank of that merge.
    """
    if len(word) > 200:
        return merge_long_word(word, ranks)
    get, never, tokens = ranks.get, len(ranks), [BYTES[b] for b in word]
    found = [get(a + b, never) for a, b in zip(tokens, tokens[1:])]
    while found and (lowest := min(found)) < never:
        i = found.index(lowest)
        tokens[i] += tokens.pop(i + 1)
        del found[i]
        if i > 0:
            found[i - 1] = get(tokens[i - 1] + tokens[i], never)
        if i < len(found):
            found[i] = get(tokens[i] + tokens[i + 1], never)
    return tokens


def merge_long_word(word: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The same as merge_word for a long `word`: n log n steps for n bytes.

    A token begins at place i and ends at after[i]. Joins wait in a heap, as one number
    rank * n + place; those that are no longer possible are skipped.
    """
    n = len(word)
    before, after = [*range(-1, n)], [*range(1, n + 1), 0]
    heap = sorted(ranks[p] * n + i for i in range(n - 1) if (p := word[i:i+2]) in ranks)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j, end = after[i], after[after[i]]
        if ranks.get(word[i:end]) == rank:
            after[i], after[j], before[end] = end, j, i
            for left in (before[i], i):
                if (found := ranks.get(word[left : after[after[left]]])) is not None:
                    heapq.heappush(heap, found * n + left)
    return [word[i : after[i]] for i in range(n) if after[i] > i]


class ByteBPE:
    """Bytes to token ids, by merges in the order they were learnt, and back.

    merges: pairs of byte strings, each part a byte or made by an earlier merge. As in
    tiktoken, neighbours that together make a token join, whichever pair made it first.
    vocab: id -> bytes; None is bytes 0-255, then the merges in order.
    """

    def __init__(self, merges: list[tuple], vocab: dict | None = None) -> None:
        self.merges = [tuple(pair) for pair in merges]
        self._ranks = dict.fromkeys(BYTES)
        for rank, pair in enumerate(self.merges):
            known = len(pair) == 2 and {*pair} <= self._ranks.keys()
            need(known, f"merges[{rank}]={pair}: parts must be bytes or earlier merges")
            self._ranks.setdefault(b"".join(pair), rank)
        self.vocab = dict(enumerate(self._ranks) if vocab is None else vocab)
        self._id_of = {token: i for i, token in self.vocab.items()}
        need(len(self._id_of) == len(self.vocab), "vocab has two ids for one token")
        need(not (lost := {*self._ranks} - {*self._id_of}), f"vocab lacks {lost}")

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of one pre-token; one that is a token needs no merges, as in tiktoken."""
        whole = data in self._ranks
        tokens = [data] if whole else merge_word(data, self._ranks)
        return [self._id_of[token] for token in tokens]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for. ValueError for an id that does not exist."""
        ids = [*map(operator.index, ids)]
        odd = {*sorted({*ids}.difference(self.vocab))[:3]}
        need(not odd, f"ids has {odd}, not in vocab")
        return b"".join([self.vocab[i] for i in ids])

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`; what is no UTF-8 becomes U+FFFD (see bytes.decode)."""
        return self.decode_bytes(ids).decode("utf-8", errors)


class TextBPE(ByteBPE):
    """ByteBPE for text, which a pattern cuts into pre-tokens.

    merges, vocab: see ByteBPE. pattern: what `regex.findall` cuts with. special_tokens:
    one that is in `vocab` keeps its id; another gets the next free one.
    """

    def __init__(self, merges: list[tuple], *, special_tokens: Iterable[str] = (),
                 pattern: str = GPT2_PATTERN, vocab: dict[int, bytes] | None = None):
        super().__init__(merges, vocab)
        self.pattern, (self._spans, self._pieces) = pattern, cutters(pattern)
        self._cache, self.special_tokens, names = {}, {}, [*special_tokens]
        need(all(names) and special_tokens != "".join(names),
             f"{special_tokens=} must be a list of names, such as ['<|endoftext|>']")
        for name in names:
            token = name.encode("utf-8")
            need(token not in self._ranks, f"special_tokens: text can make {name!r}")
            i = self._id_of.setdefault(token, max(self.vocab) + 1)
            self.vocab[i], self.special_tokens[name] = token, i
        self.n_vocab = max(self.vocab) + 1  # ids are below it, though some may be free

    def _encode(self, spans: list[str], limit: int = 1 << 17) -> list[int]:
        """Ids of spans or pre-tokens; a cache remembers about `limit` of them."""
        ids, get = [], self._cache.get
        for span in spans:
            ids += get(span) or self._remember(span, limit)
        return ids

    def _remember(self, span: str, limit: int) -> list[int]:
        """Ids of a span that is not yet in the cache; a short one is put there."""
        pieces = self._pieces(span)
        if len(pieces) > 1:
            ids = self._encode(pieces, limit)
        else:
            ids = self.encode_bytes(span.encode("utf-8"))
        if len(self._cache) >= limit:
            self._cache.clear()
        if len(span) <= 200:
            self._cache[span] = tuple(ids)  # takes less memory than a list
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text` with special tokens read as ordinary text."""
        return self._encode(self._spans(valid_text("text", text)))


class SpecialBPE(TextBPE):
    """TextBPE in which text writes no special token unless the caller allows it."""

    def _sorted_out(self, names: Iterable[str]) -> tuple[set[str], set[str]]:
        """The special tokens that are allowed, and all others."""
        every = {*self.special_tokens}
        allowed = every if names == "all" else {*names}
        need(allowed <= every, f"allowed_special={names} must be 'all' or of {every}")
        return allowed, every - allowed

    def _encode_start(self, text: str, allowed: set, refused: set, more: bool) -> tuple:
        """Ids of `text`, or of what no `more` text could change; how far they reach."""
        bad = [name for name in refused if name in text]
        need(not bad, f"text has {bad}: set allowed_special, or disallowed_special=()")
        longest = max(map(len, self.special_tokens), default=1)
        sure = max(0, len(text) - longest + 1) if more else len(text)
        ids, start, limit = [], 0, 1024 if more else 1 << 17
        for special in special_pattern(allowed).finditer(text):
            if special.start() < sure:
                spans = self._spans(text[start : special.start()])
                ids += self._encode(spans, limit)
                ids.append(self.special_tokens[special[0]])
                start = special.end()
        spans = self._spans(text[start:sure])[: -3 if more else None]
        return ids + self._encode(spans, limit), start + sum(map(len, spans))

    def encode(self, text: str, *, allowed_special: Iterable[str] = frozenset(),
               disallowed_special: Iterable[str] = "all") -> list[int]:
        """Ids of `text`. A special token in it is a ValueError unless it is allowed.

        allowed_special: those that become their id; "all" for every one.
        disallowed_special: those that raise; "all" for every one not allowed. One that
        is neither is read as ordinary text.
        """
        allowed, others = self._sorted_out(allowed_special)
        refused = others if disallowed_special == "all" else {*disallowed_special}
        return self._encode_start(valid_text("text", text), allowed, refused, False)[0]

    def encode_iterable(self, chunks: Iterable[str], *,
                        allowed_special: Iterable[str] = frozenset()) -> Iterator[int]:
        """Yields what encode gives for the joined chunks, in constant memory.

        Exact for the patterns of GPT-2 to GPT-4o, and others in which more text changes
        at most the last three pre-tokens; surrogates must not be cut in two.
        """
        (allowed, refused), buffer, kept = self._sorted_out(allowed_special), "", 0
        for chunk in chunks:
            for start in range(0, len(chunk), 8192):
                buffer += valid_text("chunks", chunk[start : start + 8192])
                if len(buffer) >= max(8192, 2 * kept):
                    ids, end = self._encode_start(buffer, allowed, refused, True)
                    yield from ids
                    buffer = buffer[end:]
                    kept = len(buffer)
        yield from self._encode_start(buffer, allowed, refused, False)[0]


SHOW = {b: chr(256 + i) for i, b in enumerate([*range(33), *range(127, 161), 173])}
UNSHOW = dict.fromkeys(SHOW, "\uffff") | {ord(c): b for b, c in SHOW.items()}


def show(token: bytes) -> str:
    """A token in GPT-2's printable alphabet, one character for each byte."""
    return token.decode("latin-1").translate(SHOW)


def unshow(shown: str) -> bytes:
    """The token that `show` shows. ValueError for characters outside the alphabet."""
    return shown.translate(UNSHOW).encode("latin-1")


def merges_of(ranks: dict[bytes, int]) -> list[tuple]:
    """The merges behind a table of ranks: what earlier merges leave of each token."""
    merges, known = [], {}
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.get):
        merges.append(tuple(merge_word(token, known)))
        known[token] = len(known)
    return merges


def pattern_of(pre_tokenizer: dict) -> str:
    """The pattern in a tokenizer.json. ValueError if it asks for more than one cut."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [[s["type"], s.get("behavior"), s.get("invert"),
              s.get("use_regex", s["type"] == "ByteLevel")] for s in steps]
    split, level = ["Split", "Isolated", False, False], ["ByteLevel", None, None]
    known = kinds in ([[*level, True]], [split, [*level, False]])
    need(known and not steps[-1].get("add_prefix_space"), f"{pre_tokenizer=}")
    return steps[0].get("pattern", {"Regex": GPT2_PATTERN})["Regex"]


class BPETokenizer(SpecialBPE):
    """Byte-level BPE with files and tiktoken; arguments as for TextBPE."""

    def save(self, path: str | Path) -> None:
        """Write Hugging Face's tokenizer.json: `tokenizers` gives these ids from it."""
        own = {i: name for name, i in self.special_tokens.items()}
        vocab = {own.get(i) or show(t): i for i, t in sorted(self.vocab.items())}
        need(len(vocab) == len(self.vocab), f"special_tokens: rename one of {own}")
        merges = [[show(a), show(b)] for a, b in self.merges]
        no = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
        added = [{"id": i, "content": s, "special": True} | no for i, s in own.items()]
        # Hugging Face's regular expressions read {1,3}+ as a repeated {1,3}
        regular = regex.sub(r"(\{\d+,\d+\})\+", r"\1", self.pattern)
        split = {"type": "Split", "behavior": "Isolated", "invert": False}
        split["pattern"] = {"Regex": regular}
        level = dict.fromkeys(["add_prefix_space", "trim_offsets", "use_regex"], False)
        level["type"] = "ByteLevel"
        whole = {"version": "1.0", "added_tokens": added, "decoder": level,
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
                 "model": {"type": "BPE", "vocab": vocab, "merges": merges}}
        new = Path(f"{path}.new")  # renamed when complete, so that nothing is lost
        new.write_text(json.dumps(whole, ensure_ascii=False, indent=1), "utf-8")
        new.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read a tokenizer.json of byte-level BPE, cut by GPT-2's or one own pattern.

        What it asks for besides is refused; a post_processor is not applied.
        """
        try:
            whole = json.loads(Path(path).read_text("utf-8"))
            model, pattern = whole["model"], pattern_of(whole["pre_tokenizer"])
            other = whole.get("normalizer") or model.get("end_of_word_suffix")
            need(model["type"] == "BPE" and not other, f"{model['type']} with {other}")
            special = {token["content"]: token["id"] for token in whole["added_tokens"]}
            ids = (model["vocab"] | special).items()
            vocab = {i: t.encode() if t in special else unshow(t) for t, i in ids}
            pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
            merges = [tuple(map(unshow, pair)) for pair in pairs]
            return cls(merges, special_tokens=special, pattern=pattern, vocab=vocab)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"path={path} is no byte-level BPE: {error!r}") from None

    def to_tiktoken(self, name: str):
        """The same tokenizer as a tiktoken.Encoding, which is written in Rust."""
        from tiktoken import Encoding
        ranks = {token: self._id_of[token] for token in self._ranks}
        learnt = [*ranks.values()][256:]
        need(learnt == sorted(learnt), "vocab: ids must follow the order of merges")
        return Encoding(name, pat_str=self.pattern, mergeable_ranks=ranks,
                        special_tokens=self.special_tokens)

    @classmethod
    def from_tiktoken(cls, encoding) -> "BPETokenizer":
        """A tokenizer with the ids of a tiktoken.Encoding; merges are found again."""
        ranks, special = encoding._mergeable_ranks, encoding._special_tokens
        ids = ranks | {name.encode("utf-8"): i for name, i in special.items()}
        return cls(merges_of(ranks), special_tokens=special, pattern=encoding._pat_str,
                   vocab={i: token for token, i in ids.items()})


def train_bpe(text: str | Iterable[str], vocab_size: int, *,
              special_tokens: Iterable[str] = (), pattern: str = GPT2_PATTERN,
              progress: bool = False) -> BPETokenizer:
    """Learn a tokenizer of `vocab_size` tokens: 256 bytes, merges, special tokens.

    `text` is one text or an iterable of texts. No merge goes beyond a pre-token of
    `pattern` or over a special token. Ties go to the greatest pair of byte strings. A
    text with too few pairs gives a smaller vocabulary: see `n_vocab`.
    """
    empty = BPETokenizer([], special_tokens=special_tokens, pattern=pattern)
    special_tokens, least = [*empty.special_tokens], empty.n_vocab
    need(least <= vocab_size <= 10**6, f"{vocab_size=} must be {least} to 10**6")
    texts = [text] if isinstance(text, str) else text
    counts = count_pretokens(texts, pattern, special_tokens)
    need(counts, "text is empty; give at least one character to learn from")
    merges = learn_merges(counts, vocab_size - least, progress=progress)
    return BPETokenizer(merges, special_tokens=special_tokens, pattern=pattern)
