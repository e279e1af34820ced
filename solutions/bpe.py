"""Byte-pair encoding: from text to token ids and back, exactly.

Training, encoding and decoding as GPT-2 does them, without torch. Text is never
normalized: every byte that goes in comes out. Built in chapters/02_bpe.ipynb.

The idea is Gage's (1994); for words, Sennrich et al. (2016); for bytes, Radford et al.
(2019, section 2.2). Argument names and the rule for special tokens are tiktoken's.
"""

import heapq
import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from .pretokenization import (GPT2_PATTERN, count_pretokens, cutting_stages,
    pretokenize, require, special_pattern, valid_parts, valid_text)  # fmt: skip

if TYPE_CHECKING:  # it need not be installed
    from tiktoken import Encoding

__all__ = ["BPETokenizer", "GPT2_PATTERN", "count_pretokens", "learn_merges",
           "merge_long_word", "merge_word", "merges_of", "train_bpe"]  # fmt: skip

BYTES = [bytes([b]) for b in range(256)]
Index = dict[str, list[int]]  # a pair -> the indices of the pre-tokens that hold it


def pairs(word: str) -> Iterator[str]:
    """The neighbors in a string of one character per token: "abc" -> "ab", "bc"."""
    return map(str.__add__, word, word[1:])


def index_pairs(words: list[str], freqs: list[int]) -> tuple[Counter[str], Index]:
    """How often each pair occurs, and the indices of the pre-tokens that hold it.

    words: pre-tokens, one character per token. freqs: how often each of them occurs.
    """
    totals: Counter[str] = Counter()
    where = defaultdict(list)
    for i, word in enumerate(words):
        for pair in pairs(word):
            totals[pair] += freqs[i]
            where[pair].append(i)
    return totals, where


def replace_pair(words: list[str], indices: list[int], pair: str, new: str) -> Index:
    """Put `new` for `pair` in these pre-tokens; returns where pairs of it are.

    words: is changed. indices: of the pre-tokens to look at. new: one character.
    """
    made = defaultdict(list)
    for i in set(indices):
        words[i] = words[i].replace(pair, new)
        for left, right in pairwise(words[i]):
            if left == new or right == new:
                made[left + right].append(i)
    return made


INVERTED = bytes(range(255, -1, -1))


def descending(token: bytes) -> str:
    """A key that sorts the other way round: greater bytes first, longer ones first."""
    return token.translate(INVERTED).decode("latin-1") + "\u0100"


def learn_merges(counts: dict[bytes, int], n_merges: int, *,
                 progress: bool = False) -> list[tuple[bytes, bytes]]:
    """The first merges of the pre-tokens in `counts`, or all that there are.

    Each step takes the most frequent pair, of equals the greatest pair of bytes.
    counts: see count_pretokens. progress: show a bar.
    """
    words = [word.decode("latin-1") for word in counts]
    freqs = list(counts.values())
    totals, where = index_pairs(words, freqs)
    tokens = list(BYTES)
    merges = []

    def entry(pair: str) -> tuple[int, str, str, str]:
        """What the heap sorts by: frequent pairs first, of equals the greatest."""
        first, second = tokens[ord(pair[0])], tokens[ord(pair[1])]
        return -totals[pair], descending(first), descending(second), pair

    heap = sorted(entry(pair) for pair in totals)
    for _ in tqdm(range(n_merges), unit="merge", disable=not progress):
        while heap and totals[heap[0][3]] != -heap[0][0]:  # an outdated entry
            heapq.heapreplace(heap, entry(heap[0][3]))
        if not heap or heap[0][0] == 0:
            break
        pair = heapq.heappop(heap)[3]
        new = chr(len(tokens))
        merges.append((tokens[ord(pair[0])], tokens[ord(pair[1])]))
        tokens.append(b"".join(merges[-1]))
        for made, indices in replace_pair(words, where.pop(pair), pair, new).items():
            left = pair[1] if made[0] == new else made[0]
            right = pair[0] if made[1] == new else made[1]
            totals[made] = sum(freqs[i] for i in indices)
            totals[left + right] -= totals[made]  # the pair that stood there before
            where[made] = indices
            heapq.heappush(heap, entry(made))
        del totals[pair]
    return merges


def merge_word(word: bytes, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """A pre-token's tokens: join the pair of lowest rank, leftmost first, to the end.

    ranks: pair of tokens -> rank of that merge.
    """
    if len(word) > 200:
        return merge_long_word(word, ranks)
    tokens = [BYTES[b] for b in word]
    never = float("inf")
    found = [ranks.get(pair, never) for pair in pairwise(tokens)]
    while found and min(found) < never:
        i = found.index(min(found))
        tokens[i] += tokens.pop(i + 1)
        del found[i]
        if i > 0:
            found[i - 1] = ranks.get((tokens[i - 1], tokens[i]), never)
        if i < len(found):
            found[i] = ranks.get((tokens[i], tokens[i + 1]), never)
    return tokens


def tokens_of(merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The bytes, then what each merge makes, each once. ValueError for a bad merge."""
    for rank, pair in enumerate(merges):
        if len(pair) != 2 or not all(isinstance(part, bytes) for part in pair):
            raise ValueError(f"merges[{rank}]={pair} must be two byte strings (bytes)")
    tokens = dict.fromkeys([*BYTES, *map(b"".join, merges)])
    for rank, pair in enumerate(merges):
        if pair[0] not in tokens or pair[1] not in tokens:
            raise ValueError(f"merges[{rank}]={pair} has a part that no merge makes")
    return list(tokens)


class BPETokenizer:
    """Text to token ids and back, by merges in the order they were learned.

    merges: pairs of byte strings, each part a byte or made by a merge. pattern: what
    `regex` finds, and what lies between, are the pre-tokens; of several patterns each
    cuts the pieces of the one before. vocab: id -> bytes; None is bytes 0-255, then
    the merges in order. special_tokens: one in `vocab` keeps its id; others get the
    next free. ignore_merges: a pre-token in `vocab` is one token even if no merges
    lead there, as in tiktoken. ValueError for merges, a pattern, a vocab or special
    tokens that do not fit together; TypeError for a pattern that is no str.
    """

    def __init__(self, merges: list[tuple[bytes, bytes]], *,
                 special_tokens: Iterable[str] = (), ignore_merges: bool = True,
                 pattern: str | Sequence[str] = GPT2_PATTERN,
                 vocab: dict[int, bytes] | None = None) -> None:
        self._spans, self._pieces = cutting_stages(pattern)  # both lists of patterns
        self._tokens = tokens_of(merges)  # all that text can make
        self.merges = [(first, second) for first, second in merges]
        self.pattern = pattern if isinstance(pattern, str) else tuple(pattern)
        self.ignore_merges = ignore_merges
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}  # of pairs
        self.vocab = dict(enumerate(self._tokens)) if vocab is None else dict(vocab)
        self._id_of = {token: i for i, token in self.vocab.items()}  # token -> id
        self._cache: dict[str, tuple[int, ...]] = {}  # span -> ids
        require(len(self._id_of) == len(self.vocab), "vocab has two ids for one token")
        lost = [token for token in self._tokens if token not in self._id_of]
        require(not lost, f"vocab lacks {lost[:3]}")
        self._whole = set(self._id_of) if ignore_merges else set()  # taken as they are
        self.special_tokens = self._add_special_tokens(special_tokens)
        self.n_vocab = max(self.vocab) + 1  # ids are below it, though some may be free

    def _add_special_tokens(self, names: Iterable[str]) -> dict[str, int]:
        """Ids of the special tokens, each in `vocab` already or put there now.

        ValueError for what is no list of names, and for a name that is a merge's token.
        """
        names = names if isinstance(names, str) else list(names)
        if isinstance(names, str) or not all(n and isinstance(n, str) for n in names):
            raise ValueError(f"special_tokens={names!r} must be a list of names")
        ids = {}
        for name in names:
            token = name.encode("utf-8")
            known = token in self._tokens
            require(not known, f"special_tokens: text can make {name!r}")
            ids[name] = self._id_of.setdefault(token, max(self.vocab) + 1)
            self.vocab[ids[name]] = token
            self._whole.discard(token)
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of one pre-token: one if it is taken whole, or what the merges make."""
        tokens = [data] if data in self._whole else merge_word(data, self._ranks)
        return [self._id_of[token] for token in tokens]

    def _encode(self, spans: list[str]) -> list[int]:
        """Ids of spans. A cache holds those of short ones."""
        ids: list[int] = []
        known = self._cache
        for span in spans:
            ids += known.get(span) or self._remember(span)
        return ids

    def _remember(self, span: str) -> tuple[int, ...]:
        """Ids of a span that is not yet in the cache; a short one is put there."""
        pieces = pretokenize(span, self._pieces)
        ids = tuple(i for piece in pieces for i in self.encode_bytes(piece.encode()))
        if len(self._cache) >= 1 << 17:
            self._cache.clear()
        if len(span) <= 200:
            self._cache[span] = ids
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, a str, with special tokens read as ordinary text."""
        return self._encode(pretokenize(valid_text("text", text), self._spans))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for. ValueError for an id that does not exist."""
        ids = [operator.index(i) for i in ids]
        odd = sorted(set(ids).difference(self.vocab))[:3]
        require(not odd, f"ids has {odd}, not in vocab")
        return b"".join([self.vocab[i] for i in ids])

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`; what is no UTF-8 becomes U+FFFD (see bytes.decode).

        errors: "strict" raises UnicodeDecodeError instead, "ignore" leaves it out.
        ValueError for an id that does not exist.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def _allowed_and_others(self, allowed: Iterable[str]) -> tuple[set[str], set[str]]:
        """The special tokens that are allowed, and all the others.

        allowed: names, or "all". ValueError for a name that is no special token.
        """
        every = set(self.special_tokens)
        chosen = every if allowed == "all" else set(allowed)
        if not chosen <= every:
            raise ValueError(f"allowed_special={allowed} must be 'all' or of {every}")
        return chosen, every - chosen

    def _encode_start(self, text: str, allowed: set, refused: set, more: bool) -> tuple:
        """(ids of `text`, or of what no `more` text could change; how far they reach).

        allowed: special tokens that become their id. refused: ValueError if one is in
        `text`. more: whether text may follow; the ids then end before the last spans.
        The second result counts characters.
        """
        for name in refused:
            if name in text:
                raise ValueError(f"text has {name!r}: allow it by allowed_special, or "
                                 "read it as text by disallowed_special=()")
        ids, start, end = [], 0, len(text)
        if more:  # the last characters may begin a special token
            end = max(0, end + 1 - max(map(len, self.special_tokens), default=1))
        for special in special_pattern(allowed).finditer(text):
            if special.start() < end:
                ids += self.encode_ordinary(text[start : special.start()])
                ids.append(self.special_tokens[special[0]])
                start = special.end()
        spans = pretokenize(text[start:end], self._spans)
        if more:  # the last spans may grow
            spans = spans[:-3]
        return ids + self._encode(spans), start + sum(map(len, spans))

    def encode(self, text: str, *, allowed_special: Iterable[str] = frozenset(),
               disallowed_special: Iterable[str] = "all") -> list[int]:
        """Ids of `text`. A special token in it is a ValueError unless it is allowed.

        allowed_special: those that become their id; "all" for every one.
        disallowed_special: those that raise; "all" for every one not allowed. One that
        is neither is read as ordinary text. TypeError for a text that is no str.
        """
        allowed, refused = self._allowed_and_others(allowed_special)
        if disallowed_special != "all":
            refused = set(disallowed_special)
        return self._encode_start(valid_text("text", text), allowed, refused, False)[0]

    def encode_iterable(self, chunks: Iterable[str], *,
                        allowed_special: Iterable[str] = frozenset()) -> Iterator[int]:
        """Yields what encode gives for the joined chunks, in constant memory.

        It holds 16,000 characters, or twice the longest span if that is more. Exact for
        the patterns of GPT-2 to GPT-4o, and others in which more text changes at most
        the last three spans. ValueError for a special token that is not allowed,
        TypeError for a chunk that is no str.
        """
        allowed, refused = self._allowed_and_others(allowed_special)
        buffer, kept = "", 0
        for part in valid_parts(chunks):
            buffer += part
            if len(buffer) >= max(8192, 2 * kept):
                ids, end = self._encode_start(buffer, allowed, refused, True)
                yield from ids
                buffer = buffer[end:]
                kept = len(buffer)
                if len(self._cache) > 1024:
                    self._cache.clear()
        yield from self._encode_start(buffer, allowed, refused, False)[0]

    def save(self, path: str | Path) -> None:
        """Write Hugging Face's tokenizer.json: `tokenizers` gives these ids from it.

        ValueError for what that file cannot say exactly; see write_tokenizer.
        """
        from .tokenizer_json import write_tokenizer

        write_tokenizer(path, self)

    @classmethod
    def load(cls, path: str | Path, *,
             add_special_tokens: bool = True) -> "BPETokenizer":
        """Read a tokenizer.json of byte-level BPE, cut by Split, Digits and ByteLevel.

        The ids are those of `tokenizers`. add_special_tokens: False leaves out what a
        post_processor adds to each text. A file that asks for more, or is damaged, is a
        ValueError that names the path and the error behind it.
        """
        from .tokenizer_json import read_tokenizer

        try:
            return cls(**read_tokenizer(path, add_special_tokens=add_special_tokens))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"path={path} is no byte-level BPE: {error!r}") from None

    def to_tiktoken(self, name: str) -> "Encoding":
        """The same tokenizer as a tiktoken.Encoding, which is written in Rust.

        ValueError for several patterns, or if `merges_of` gives other merges.
        """
        from tiktoken import Encoding

        if not isinstance(self.pattern, str):
            raise ValueError(f"pattern={self.pattern}: tiktoken takes only one")
        ranks = {token: self._id_of[token] for token in self._tokens}
        if merges_of(ranks) != self.merges or not self._whole <= ranks.keys():
            raise ValueError("vocab must be the tokens that merges make, in order")
        return Encoding(name, pat_str=self.pattern, mergeable_ranks=ranks,
                        special_tokens=self.special_tokens)

    @classmethod
    def from_tiktoken(cls, encoding: "Encoding") -> "BPETokenizer":
        """A tokenizer with the ids of a tiktoken.Encoding; merges are found again.

        ValueError for an encoding whose tokens no merges make; see merges_of.
        """
        ranks, special = encoding._mergeable_ranks, encoding._special_tokens
        ids = ranks | {name.encode("utf-8"): i for name, i in special.items()}
        return cls(merges_of(ranks), special_tokens=special, pattern=encoding._pat_str,
                   vocab={i: token for token, i in ids.items()})


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges behind a table of ranks: what earlier merges leave of each token.

    ranks: the vocabulary, token -> number in the order of learning. ValueError for a
    token of which earlier merges leave more than two parts: then no merge makes it.
    """
    known: dict[tuple[bytes, bytes], int] = {}
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.__getitem__):
        parts = merge_word(token, known)
        require(len(parts) == 2, f"vocab: {token!r} has no two parts of lower rank")
        known[parts[0], parts[1]] = len(known)
    return list(known)


def train_bpe(text: str | Iterable[str], vocab_size: int, *,
              special_tokens: Iterable[str] = (),
              pattern: str | Sequence[str] = GPT2_PATTERN,
              progress: bool = False) -> BPETokenizer:
    """Learn a tokenizer of `vocab_size` tokens: 256 bytes, merges, special tokens.

    `text` is one text or an iterable of texts. No merge goes beyond a pre-token of
    `pattern` or over a special token. Ties go to the greatest pair of byte strings. A
    text with too few pairs gives a smaller vocabulary: see `n_vocab`. ValueError for an
    empty text, a bad pattern, or a vocab_size that is too small or above 10**6;
    TypeError for what is no text, and a vocab_size that is no int.
    """
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool):
        raise TypeError(f"{vocab_size=} must be an int")
    empty = BPETokenizer([], special_tokens=special_tokens, pattern=pattern)
    if not empty.n_vocab <= vocab_size <= 10**6:
        raise ValueError(f"{vocab_size=} must be {empty.n_vocab} to 10**6")
    counts = count_pretokens(text, pattern, empty.special_tokens)
    require(counts, "text is empty; give at least one character to learn from")
    merges = learn_merges(counts, vocab_size - empty.n_vocab, progress=progress)
    return BPETokenizer(merges, special_tokens=empty.special_tokens, pattern=pattern)


def merge_long_word(word: bytes, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """The same as merge_word for a long pre-token: n log n steps for n bytes.

    A token begins at position i and ends at after[i]. Joins wait in a heap as pairs
    of rank and position; those that are no longer possible are skipped.
    """
    n, neighbors = len(word), pairwise(BYTES[b] for b in word)
    before, after = [*range(-1, n)], [*range(1, n + 1), 0]
    heap = sorted((ranks[p], i) for i, p in enumerate(neighbors) if p in ranks)
    while heap:
        rank, i = heapq.heappop(heap)
        j, end = after[i], after[after[i]]
        if ranks.get((word[i:j], word[j:end])) == rank:
            after[i], after[j], before[end] = end, j, i
            for a, b in ((before[i], i), (i, end)):
                pair = (word[a:b], word[b : after[b]])
                if pair in ranks:
                    heapq.heappush(heap, (ranks[pair], a))
    return [word[i : after[i]] for i in range(n) if after[i] > i]
