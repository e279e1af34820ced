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
    "1.3": [
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
    "1.4": [
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
    "1.5": [
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
}
