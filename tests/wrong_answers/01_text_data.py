"""Plausible wrong answers to chapter 1's exercises; each check must reject them."""

NUMBER = 'number = zlib.crc32(piece.encode("utf-8"))  # 0 .. 2**32 - 1'
SIDE = "side = val if number < val_fraction * 2**32 else train"


def fault(old: str, new: str) -> str:
    """An answer to exercise 1.10 that puts `new` for the line `old`."""
    return f"def fault_1_10():\n    return {old!r}, {new!r}"


KNESER_NEY = """
def kneser_ney(text, n, V, d):
    counts = [{} for _ in range(n)]
    for i in range(n - 1, len(text)):
        counts[n - 1].setdefault(text[i - n + 1 : i], Counter())[text[i]] += 1
    for m in range(n - 1):
        found = {text[i : i + m + 2] for i in range(len(text) - m - 1)}
        for s in found:
            counts[m].setdefault(s[1:-1], Counter())[s[-1]] += 1
    def guess(before, c):
        p = 1 / V
        for m in range(n):
            after = counts[m].get(before[len(before) - m :])
            if after:
                p = (max(after[c] - d, 0) + d * len(after) * p) / after.total()
        return p
    return guess
"""


def kneser_ney(old: str, new: str) -> str:
    """The right answer to exercise 1.11 with `new` for `old`."""
    assert old in KNESER_NEY
    return KNESER_NEY.replace(old, new)


WRONG = {
    "1.1": [
        # bytes, not characters
        "def count_characters(data: bytes) -> int:\n    return len(data)",
        # only the ASCII characters
        "def count_characters(data: bytes) -> int:\n"
        "    return sum(byte < 0x80 for byte in data)",
        # one off at the lower end: 0x80 taken for a first byte
        "def count_characters(data: bytes) -> int:\n"
        "    return sum(not 0x80 < byte <= 0xBF for byte in data)",
        # one off at the upper end: 0xBF taken for a first byte
        "def count_characters(data: bytes) -> int:\n"
        "    return sum(not 0x80 <= byte < 0xBF for byte in data)",
        # decoded, strictly or not
        "def count_characters(data: bytes) -> int:\n    return len(data.decode())",
        "def count_characters(data: bytes) -> int:\n    return len(str(data, 'utf-8'))",
        "def count_characters(data: bytes) -> int:\n"
        "    return len(data.decode('utf-8', 'replace'))",
        "def count_characters(data: bytes) -> int:\n"
        "    return len(data.decode('utf-8', 'ignore'))",
        # the first bytes of two-byte characters are forgotten
        "def count_characters(data: bytes) -> int:\n"
        "    return sum(byte < 0x80 or byte >= 0xE0 for byte in data)",
    ],
    "1.2": [
        # the first documents instead of random ones
        "def random_split(documents, n_val, generator):\n"
        "    return documents[n_val:], documents[:n_val]",
        # the two sides exchanged
        "def random_split(documents, n_val, generator):\n"
        "    order = torch.randperm(len(documents), generator=generator).tolist()\n"
        "    chosen = set(order[:n_val])\n"
        "    train = [d for i, d in enumerate(documents) if i not in chosen]\n"
        "    return [d for i, d in enumerate(documents) if i in chosen], train",
        # the order of the file is lost
        "def random_split(documents, n_val, generator):\n"
        "    order = torch.randperm(len(documents), generator=generator).tolist()\n"
        "    mixed = [documents[i] for i in order]\n"
        "    return mixed[n_val:], mixed[:n_val]",
        # not repeatable: the generator is not used
        "def random_split(documents, n_val, generator):\n"
        "    chosen = set(random.sample(range(len(documents)), n_val))\n"
        "    train = [d for i, d in enumerate(documents) if i not in chosen]\n"
        "    return train, [d for i, d in enumerate(documents) if i in chosen]",
        # drawn with repeats, so sometimes too few
        "def random_split(documents, n_val, generator):\n"
        "    n = len(documents)\n"
        "    chosen = set(torch.randint(n, (n_val,), generator=generator).tolist())\n"
        "    train = [d for i, d in enumerate(documents) if i not in chosen]\n"
        "    return train, [d for i, d in enumerate(documents) if i in chosen]",
        # texts instead of positions
        "def random_split(documents, n_val, generator):\n"
        "    order = torch.randperm(len(documents), generator=generator).tolist()\n"
        "    val = [documents[i] for i in sorted(order[:n_val])]\n"
        "    return [d for d in documents if d not in val], val",
        # the last documents can never be drawn
        "def random_split(documents, n_val, generator):\n"
        "    n = len(documents)\n"
        "    order = torch.randperm(n - 1, generator=generator).tolist()\n"
        "    chosen = set(order[:n_val])\n"
        "    train = [d for i, d in enumerate(documents) if i not in chosen]\n"
        "    return train, [d for i, d in enumerate(documents) if i in chosen]",
        # the caller's list is changed
        "def random_split(documents, n_val, generator):\n"
        "    order = torch.randperm(len(documents), generator=generator).tolist()\n"
        "    val = [documents[i] for i in sorted(order[:n_val])]\n"
        "    for d in val:\n"
        "        documents.remove(d)\n"
        "    return documents, val",
    ],
    "1.3": [
        # columns and rows exchanged
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.full((vocab_size, vocab_size), k, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[b, a] += 1\n"
        "    return table / table.sum(dim=1, keepdim=True)",
        # divided by columns
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.full((vocab_size, vocab_size), k, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    return table / table.sum(dim=0, keepdim=True)",
        # the whole table sums to 1
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.full((vocab_size, vocab_size), k, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    return table / table.sum()",
        # count(a) includes the last token, which nothing follows
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.full((vocab_size, vocab_size), k, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    count = torch.tensor([ids.count(a) for a in range(vocab_size)])\n"
        "    return table / (count + k * vocab_size)[:, None]",
        # not smoothed
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    return table / table.sum(dim=1, keepdim=True).clamp(min=1)",
        # k is always 1
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.ones(vocab_size, vocab_size, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    return table / table.sum(dim=1, keepdim=True)",
        # k V forgotten below
        "def bigram_table(ids, vocab_size, k):\n"
        "    table = torch.full((vocab_size, vocab_size), k, dtype=torch.float64)\n"
        "    for a, b in itertools.pairwise(ids):\n"
        "        table[a, b] += 1\n"
        "    return table / (table - k).sum(dim=1, keepdim=True).clamp(min=1)",
    ],
    "1.4": [
        # the unigram added to columns
        "def mix(bigram, unigram, weight):\n"
        "    return weight * bigram + (1 - weight) * unigram[:, None]",
        # the weights exchanged
        "def mix(bigram, unigram, weight):\n"
        "    return (1 - weight) * bigram + weight * unigram",
        # not a mean at all
        "def mix(bigram, unigram, weight):\n    return weight * bigram + unigram",
        # geometric instead of arithmetic, normalized
        "def mix(bigram, unigram, weight):\n"
        "    table = bigram**weight * unigram ** (1 - weight)\n"
        "    return table / table.sum(dim=1, keepdim=True)",
    ],
    "1.5": [
        # words, not runs of words
        "def leaked(train, val, n_words=13):\n"
        "    seen = set(' '.join(train).lower().split())\n"
        "    return [i for i, d in enumerate(val)\n"
        "            if len(seen & set(d.lower().split())) >= n_words]",
        # runs across two documents
        "def runs(d, n):\n"
        "    w = d.lower().split()\n"
        "    return {tuple(w[i : i + n]) for i in range(len(w) - n + 1)}\n"
        "def leaked(train, val, n_words=13):\n"
        "    seen = runs(' '.join(train), n_words)\n"
        "    return [i for i, d in enumerate(val) if runs(d, n_words) & seen]",
        # the last run forgotten
        "def runs(d, n):\n"
        "    w = d.lower().split()\n"
        "    return {tuple(w[i : i + n]) for i in range(len(w) - n)}\n"
        "def leaked(train, val, n_words=13):\n"
        "    seen = set().union(*(runs(d, n_words) for d in train))\n"
        "    return [i for i, d in enumerate(val) if runs(d, n_words) & seen]",
        # capitals count
        "def runs(d, n):\n"
        "    w = d.split()\n"
        "    return {tuple(w[i : i + n]) for i in range(len(w) - n + 1)}\n"
        "def leaked(train, val, n_words=13):\n"
        "    seen = set().union(*(runs(d, n_words) for d in train))\n"
        "    return [i for i, d in enumerate(val) if runs(d, n_words) & seen]",
        # letters in a row instead of words in a row
        "def leaked(train, val, n_words=13):\n"
        "    seen = [' '.join(d.lower().split()) for d in train]\n"
        "    out = []\n"
        "    for i, d in enumerate(val):\n"
        "        w = d.lower().split()\n"
        "        runs = [' '.join(w[j : j + n_words])\n"
        "                for j in range(len(w) - n_words + 1)]\n"
        "        if any(r in d2 for r in runs for d2 in seen):\n"
        "            out.append(i)\n"
        "    return out",
        # the documents instead of their indices
        "def runs(d, n):\n"
        "    w = d.lower().split()\n"
        "    return {tuple(w[i : i + n]) for i in range(len(w) - n + 1)}\n"
        "def leaked(train, val, n_words=13):\n"
        "    seen = set().union(*(runs(d, n_words) for d in train))\n"
        "    return [d for d in val if runs(d, n_words) & seen]",
    ],
    "1.6": [
        # Jaccard
        "def containment(a, b):\n    return jaccard(a, b)",
        # divided by the wrong length
        "def containment(a, b):\n    return len(np.intersect1d(a, b)) / len(b)",
        # made symmetric
        "def containment(a, b):\n"
        "    return len(np.intersect1d(a, b)) / min(len(a), len(b))",
        # all or nothing
        "def containment(a, b):\n    return float(np.isin(a, b).all())",
    ],
    "1.7": [
        # targets not shifted
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    n, T = len(tokens) - context_length, context_length\n"
        "    s = torch.randint(n, (batch_size,), generator=generator).tolist()\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, x.clone()",
        # the last window is never drawn
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    n, T = len(tokens) - context_length - 1, context_length\n"
        "    s = torch.randint(n, (batch_size,), generator=generator).tolist()\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, torch.tensor([tokens[i + 1 : i + 1 + T] for i in s])",
        # one start too many: a window without its last target
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    n, T = len(tokens) - context_length + 1, context_length\n"
        "    s = torch.randint(n, (batch_size,), generator=generator).tolist()\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, torch.tensor([tokens[i + 1 : i + 1 + T] for i in s])",
        # only windows that lie end to end
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    n = (len(tokens) - 1) // T\n"
        "    s = torch.randint(n, (batch_size,), generator=generator) * T\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, torch.tensor([tokens[i + 1 : i + 1 + T] for i in s])",
        # not repeatable: the generator is not used
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    n, T = len(tokens) - context_length, context_length\n"
        "    s = torch.randint(n, (batch_size,)).tolist()\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, torch.tensor([tokens[i + 1 : i + 1 + T] for i in s])",
        # the windows follow one another from one random start
        "def random_batch(tokens, batch_size, context_length, generator):\n"
        "    n, T = len(tokens) - context_length, context_length\n"
        "    first = torch.randint(n, (1,), generator=generator).item()\n"
        "    s = [(first + b) % n for b in range(batch_size)]\n"
        "    x = torch.tensor([tokens[i : i + T] for i in s])\n"
        "    return x, torch.tensor([tokens[i + 1 : i + 1 + T] for i in s])",
    ],
    "1.8": [
        # nothing skipped: targets count twice
        "def overlapping(tokens, context_length, stride):\n"
        "    p = torch.tensor(tokens).unfold(0, context_length + 1, stride)\n"
        "    return p[:, :-1], p[:, 1:].clone()",
        # the first window loses targets too
        "def overlapping(tokens, context_length, stride):\n"
        "    p = torch.tensor(tokens).unfold(0, context_length + 1, stride)\n"
        "    x, y = p[:, :-1], p[:, 1:].clone()\n"
        "    y[:, : context_length - stride] = -100\n"
        "    return x, y",
        # `stride` targets skipped instead of all but `stride`
        "def overlapping(tokens, context_length, stride):\n"
        "    p = torch.tensor(tokens).unfold(0, context_length + 1, stride)\n"
        "    x, y = p[:, :-1], p[:, 1:].clone()\n"
        "    y[1:, :stride] = -100\n"
        "    return x, y",
        # targets not shifted
        "def overlapping(tokens, context_length, stride):\n"
        "    x = torch.tensor(tokens[:-1]).unfold(0, context_length, stride)\n"
        "    y = x.clone()\n"
        "    y[1:, : context_length - stride] = -100\n"
        "    return x, y",
    ],
    "1.9": [
        # not shuffled
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    order = torch.arange((len(tokens) - 1) // T)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in part])\n"
        "           for part in order.split(batch_size)]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # the last, smaller batch is lost
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    order = torch.randperm((len(tokens) - 1) // T, generator=generator)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in part])\n"
        "           for part in order.split(batch_size) if len(part) == batch_size]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # drawn with replacement
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    n = (len(tokens) - 1) // T\n"
        "    order = torch.randint(n, (n,), generator=generator)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in part])\n"
        "           for part in order.split(batch_size)]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # the last window forgotten when the tokens fit exactly
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    n = (len(tokens) - 2) // T\n"
        "    order = torch.randperm(n, generator=generator)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in part])\n"
        "           for part in order.split(batch_size)]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # the batches are shuffled, not the windows
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    n = (len(tokens) - 1) // T\n"
        "    parts = torch.arange(n).split(batch_size)\n"
        "    order = torch.randperm(len(parts), generator=generator)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in parts[i]])\n"
        "           for i in order]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # the windows overlap: one starts at each token
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    order = torch.randperm(len(tokens) - T, generator=generator)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w : w + T + 1] for w in part])\n"
        "           for part in order.split(batch_size)]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
        # not the same order for the same seed
        "def epoch(tokens, batch_size, context_length, generator):\n"
        "    T = context_length\n"
        "    order = torch.randperm((len(tokens) - 1) // T)\n"
        "    row = torch.tensor(tokens)\n"
        "    cut = [torch.stack([row[w * T : w * T + T + 1] for w in part])\n"
        "           for part in order.split(batch_size)]\n"
        "    return [(p[:, :-1], p[:, 1:]) for p in cut]",
    ],
    "1.10": [
        # no overlap, but still pieces of one document on both sides
        fault(
            "for start in range(0, len(document), step):",
            "for start in range(0, len(document), size):",
        ),
        # the sides exchanged
        fault(SIDE, "side = train if number < val_fraction * 2**32 else val"),
        # chance instead of a hash, but still one for each piece
        fault(NUMBER, "number = random.randrange(2**32)"),
        # one side for each position in a document
        fault(NUMBER, "number = zlib.crc32(str(start).encode())"),
        # the beginning is not enough: all documents that begin alike go together
        fault(NUMBER, "number = zlib.crc32(document[:1].encode())"),
        # a share of each document, its end
        fault(NUMBER, "number = (1 - start / len(document)) * 2**32"),
        # Python's own hash of the length: all of one length go together
        fault(NUMBER, "number = hash(len(document))"),
        # every second piece is lost
        fault(
            "for start in range(0, len(document), step):",
            "for start in range(0, len(document), 2 * step):",
        ),
        # no line of the function
        fault("number = zlib.crc32(piece)", "number = zlib.crc32(document.encode())"),
        # no Python
        fault(NUMBER, "number = zlib.crc32(document.encode()"),
    ],
    "1.11": [
        # plain counts for shorter runs, too
        kneser_ney("{text[i : i + m + 2] for", "[text[i : i + m + 2] for").replace(
            "- m - 1)}", "- m - 1)]"
        ),
        # plain counts for all but the empty run
        kneser_ney(
            "for s in found:",
            "for s in found if m == 0 else [\n"
            "                text[i : i + m + 2] for i in range(len(text) - m - 1)]:",
        ),
        # different characters behind, not in front
        kneser_ney("s[1:-1], Counter())[s[-1]]", "s[1:-1], Counter())[s[0]]"),
        # all occurrences give up d, not only different characters
        kneser_ney("d * len(after) * p", "d * after.total() * p"),
        # what is given up is not handed out
        kneser_ney(" + d * len(after) * p", ""),
        # below 0
        kneser_ney("max(after[c] - d, 0)", "(after[c] - d)"),
        # what was seen gets nothing of what is handed out
        kneser_ney("+ d * len(after) * p", "+ (0 if after[c] else d * len(after) * p)"),
        # a run that never occurred starts again from 1 / V
        kneser_ney(
            "return p\n", "else:\n                p = 1 / V\n        return p\n"
        ),
        # continuation counts for the longest runs as well
        kneser_ney("[text[i]] += 1", "[text[i]] = 1"),
        # the shorter model is left out
        kneser_ney(
            "range(n):\n            after", "range(n - 1, n):\n            after"
        ),
        # d is always 0.75
        kneser_ney("p = 1 / V", "p, d = 1 / V, 0.75"),
    ],
}
