"""Byte-pair encoding: from text to token ids and back, exactly.

Training, encoding and decoding as GPT-2 does them, without torch. Text is never
normalised: every byte that goes in comes out. Built in chapters/02_bpe.ipynb.

The idea is Gage's (1994); for words, Sennrich et al. (2016); for bytes, Radford et al.
(2019, section 2.2). Argument names and the rule for special tokens are tiktoken's.
"""

import heapq
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from .pretokenization import (
    GPT2_PATTERN,
    count_pretokens,
    cutters,
    need,
    special_pattern,
    valid_text,
)
from .tokenizer_json import read_tokenizer, write_tokenizer

BYTES = [bytes([b]) for b in range(256)]


def pairs(word: str) -> Iterator[str]:
    """The neighbours in a word of one character per token: "abc" -> "ab", "bc"."""
    return map(str.__add__, word, word[1:])


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


def merge_word(word: bytes, ranks: dict[tuple, int]) -> list[bytes]:
    """`word` in tokens: join the pair of lowest rank, leftmost first, to the end.

    ranks: pair of tokens -> rank of that merge.
    """
    if len(word) > 200:
        return merge_long_word(word, ranks)
    get, never, tokens = ranks.get, 10**9, [BYTES[b] for b in word]
    found = [get(pair, never) for pair in pairwise(tokens)]
    while found and (lowest := min(found)) < never:
        i = found.index(lowest)
        tokens[i] += tokens.pop(i + 1)
        del found[i]
        if i > 0:
            found[i - 1] = get((tokens[i - 1], tokens[i]), never)
        if i < len(found):
            found[i] = get((tokens[i], tokens[i + 1]), never)
    return tokens


def merge_long_word(word: bytes, ranks: dict[tuple, int]) -> list[bytes]:
    """The same as merge_word for a long `word`: n log n steps for n bytes.

    A token begins at place i and ends at after[i]. Joins wait in a heap, as one number
    rank * n + place; those that are no longer possible are skipped.
    """
    n, neighbors = len(word), pairwise(BYTES[b] for b in word)
    before, after = [*range(-1, n)], [*range(1, n + 1), 0]
    heap = sorted(ranks[p] * n + i for i, p in enumerate(neighbors) if p in ranks)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j, end = after[i], after[after[i]]
        if ranks.get((word[i:j], word[j:end])) == rank:
            after[i], after[j], before[end] = end, j, i
            for a, b in ((before[i], i), (i, end)):
                if (found := ranks.get((word[a:b], word[b : after[b]]))) is not None:
                    heapq.heappush(heap, found * n + a)
    return [word[i : after[i]] for i in range(n) if after[i] > i]


class ByteBPE:
    """Bytes to token ids, by merges in the order they were learnt, and back.

    merges: pairs of byte strings, each part a byte or made by a merge. vocab: id ->
    bytes; None is bytes 0-255, then the merges in order. ignore_merges: a pre-token
    in `vocab` is one token even if merges do not lead there, as in tiktoken.
    """

    def __init__(self, merges: list[tuple], vocab: dict | None = None, *,
                 ignore_merges: bool = True) -> None:
        self.merges = [tuple(pair) for pair in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        pairs = [pair for pair in self.merges if [*map(type, pair)] == [bytes, bytes]]
        self._tokens = dict.fromkeys([*BYTES, *map(b"".join, pairs)])
        for rank, pair in enumerate(self.merges):
            known = len(pair) == 2 and self._tokens.keys() >= {*pair}
            need(known, f"merges[{rank}]={pair}: parts must be bytes or made by merges")
        self.vocab = dict(enumerate(self._tokens) if vocab is None else vocab)
        self._id_of = {token: i for i, token in self.vocab.items()}
        need(len(self._id_of) == len(self.vocab), "vocab has two ids for one token")
        need(not (lost := {*self._tokens} - {*self._id_of}), f"vocab lacks {lost}")
        self.ignore_merges = ignore_merges
        self._whole = {*self._id_of} if ignore_merges else set()

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of one pre-token: one if it is taken whole, or what the merges make."""
        tokens = [data] if data in self._whole else merge_word(data, self._ranks)
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

    merges, vocab, ignore_merges: see ByteBPE. pattern: what `regex` finds, and what
    lies between, are the pre-tokens; of several patterns each cuts the pieces of the
    one before. special_tokens: one in `vocab` keeps its id; others get the next free.
    """

    def __init__(self, merges: list[tuple], *, special_tokens: Iterable[str] = (),
                 pattern: str | Sequence[str] = GPT2_PATTERN,
                 vocab: dict[int, bytes] | None = None, ignore_merges: bool = True):
        super().__init__(merges, vocab, ignore_merges=ignore_merges)
        self.pattern = pattern if isinstance(pattern, str) else tuple(pattern)
        self._spans, self._pieces = cutters(self.pattern)
        self._cache, self.special_tokens, names = {}, {}, [*special_tokens]
        need(all(names) and special_tokens != "".join(names),
             f"{special_tokens=} must be a list of names, such as ['<|endoftext|>']")
        for name in names:
            token = name.encode("utf-8")
            need(token not in self._tokens, f"special_tokens: text can make {name!r}")
            self._whole.discard(token)
            i = self._id_of.setdefault(token, max(self.vocab) + 1)
            self.vocab[i], self.special_tokens[name] = token, i
        self.n_vocab = max(self.vocab) + 1  # ids are below it, though some may be free

    def _encode(self, spans: list[str | bytes], limit: int = 1 << 17) -> list[int]:
        """Ids of spans, or of pre-tokens as bytes; a cache holds about `limit`."""
        ids, get = [], self._cache.get
        for span in spans:
            ids += get(span) or self._remember(span, limit)
        return ids

    def _remember(self, span: str | bytes, limit: int) -> list[int]:
        """Ids of a span that is not yet in the cache; a short one is put there."""
        pieces = [span]
        if isinstance(span, str):
            pieces = [piece.encode("utf-8") for piece in self._pieces(span)]
        if len(pieces) > 1:
            ids = self._encode(pieces, limit)
        else:
            ids = self.encode_bytes(pieces[0])
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

        Constant but for a longer span, which is held. Exact for the patterns of GPT-2
        to GPT-4o, and others in which more text changes at most the last three spans.
        """
        (allowed, refused), buffer, kept = self._sorted_out(allowed_special), "", 0
        half = ""  # a surrogate at the end of a slice whose other half may follow
        for chunk in chunks:
            if not isinstance(chunk, str):
                raise TypeError(f"chunks must be str, got {type(chunk).__name__}")
            for start in range(0, len(chunk), 8192):
                part = half + chunk[start : start + 8192]
                half = part[-1] if "\ud800" <= part[-1] <= "\udbff" else ""
                buffer += valid_text("chunks", part.removesuffix(half))
                if len(buffer) >= max(8192, 2 * kept):
                    ids, end = self._encode_start(buffer, allowed, refused, True)
                    yield from ids
                    buffer = buffer[end:]
                    kept = len(buffer)
        buffer += valid_text("chunks", half)
        yield from self._encode_start(buffer, allowed, refused, False)[0]


def merges_of(ranks: dict[bytes, int]) -> list[tuple]:
    """The merges behind a table of ranks: what earlier merges leave of each token."""
    merges, known = [], {}
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.get):
        merges.append(tuple(merge_word(token, known)))
        known[merges[-1]] = len(known)
    return merges


class BPETokenizer(SpecialBPE):
    """Byte-level BPE with files and tiktoken; arguments as for TextBPE."""

    def save(self, path: str | Path) -> None:
        """Write Hugging Face's tokenizer.json: `tokenizers` gives these ids from it."""
        write_tokenizer(path, merges=self.merges, vocab=self.vocab,
                        special_tokens=self.special_tokens, pattern=self.pattern,
                        ignore_merges=self.ignore_merges)

    @classmethod
    def load(cls, path: str | Path, *,
             add_special_tokens: bool = True) -> "BPETokenizer":
        """Read a tokenizer.json of byte-level BPE, cut by Split, Digits and ByteLevel.

        The ids are those of `tokenizers`; a file that asks for more is a ValueError.
        add_special_tokens: False leaves out what a post_processor adds to each text.
        """
        try:
            return cls(**read_tokenizer(path, add_special_tokens=add_special_tokens))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"path={path} is no byte-level BPE: {error!r}") from None

    def to_tiktoken(self, name: str):
        """The same tokenizer as a tiktoken.Encoding, which is written in Rust."""
        from tiktoken import Encoding
        need(isinstance(self.pattern, str), f"{self.pattern=}: tiktoken takes only one")
        ranks = {token: self._id_of[token] for token in self._tokens}
        need(merges_of(ranks) == self.merges and self._whole <= ranks.keys(),
             "vocab must be the tokens that merges make, one each, in their order")
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
              special_tokens: Iterable[str] = (),
              pattern: str | Sequence[str] = GPT2_PATTERN,
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
