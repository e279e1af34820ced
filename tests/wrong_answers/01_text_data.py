"""Plausible wrong answers to chapter 1's exercises; each check must reject them."""

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
}
