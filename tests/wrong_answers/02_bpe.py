"""Wrong answers that people give to chapter 2's exercises; checks must reject them."""

# Exercise 2.9 asks for three functions, and each wrong answer has one that is wrong.
BEST_CUT = """
def best_cut(piece: str, p: dict[str, float]) -> list[str]:
    best = [(1.0, [])]  # for the first j characters: the product, the tokens
    for j in range(1, len(piece) + 1):
        ways = [(0.0, [])]
        for i, (product, tokens) in enumerate(best):
            token = piece[i:j]
            if token in p:
                ways.append((product * p[token], [*tokens, token]))
        best.append(max(ways, key=lambda way: way[0]))
    return best[-1][1]
"""
EM_STEP = """
def em_step(counts: dict[str, int], p: dict[str, float]) -> dict[str, float]:
    used = dict.fromkeys(p, 0.0)
    for piece, n in counts.items():
        end = len(piece)
        found = [(i, j) for j in range(end + 1) for i in range(j) if piece[i:j] in p]
        forward, backward = [1.0] + [0.0] * end, [0.0] * end + [1.0]
        for i, j in found:  # by their ends
            forward[j] += forward[i] * p[piece[i:j]]
        for i, j in sorted(found, reverse=True):  # the last beginnings first
            backward[i] += p[piece[i:j]] * backward[j]
        for i, j in found:
            share = forward[i] * p[piece[i:j]] * backward[j] / forward[end]
            used[piece[i:j]] += n * share
    total = sum(used.values())
    return {token: n / total for token, n in used.items()}
"""
TRAIN_UNIGRAM = """
def train_unigram(counts: dict[str, int], size: int) -> dict[str, float]:
    seen = Counter()
    for piece, n in counts.items():
        for j in range(len(piece) + 1):
            for i in range(j):
                seen[piece[i:j]] += n
    p = {token: n / seen.total() for token, n in seen.items()}
    while True:
        p = em_step(counts, em_step(counts, p))
        n_drop = min(len(p) - size, max(1, len(p) // 5))
        if n_drop <= 0:
            return p
        for token in sorted((t for t in p if len(t) > 1), key=p.get)[:n_drop]:
            del p[token]
        p = {token: max(q, 1e-6) for token, q in p.items()}
"""

WRONG = {
    "2.1": [
        # compares the bytes they make, not the pair
        """
def merge(tokens, pair):
    merged = []
    for token in tokens:
        if merged and merged[-1] + token == pair[0] + pair[1]:
            merged[-1] += token
        else:
            merged.append(token)
    return merged
""",
        # overlapping positions are used twice
        """
def merge(tokens, pair):
    merged = [a + b for a, b in pairwise(tokens) if (a, b) == pair]
    rest = [t for t in tokens if t not in pair]
    return rest + merged
""",
        # from the right
        """
def merge(tokens, pair):
    merged, i = [], len(tokens) - 1
    while i >= 0:
        if i > 0 and (tokens[i - 1], tokens[i]) == pair:
            merged.insert(0, tokens[i - 1] + tokens[i])
            i -= 2
        else:
            merged.insert(0, tokens[i])
            i -= 1
    return merged
""",
        # forgets the last token
        """
def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            merged.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged
""",
        # only the first position
        """
def merge(tokens, pair):
    for i, two in enumerate(pairwise(tokens)):
        if two == pair:
            return tokens[:i] + [pair[0] + pair[1]] + tokens[i + 2:]
    return list(tokens)
""",
        # changes the list that it is given
        """
def merge(tokens, pair):
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i : i + 2] = [pair[0] + pair[1]]
        i += 1
    return tokens
""",
    ],
    "2.2": [
        # every string counts once
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in pairwise(tokens):
                totals[pair] += 1
        if not totals:
            break
        best = max(totals, key=lambda pair: (totals[pair], pair))
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # ties go to the pair that was met first
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in pairwise(tokens):
                totals[pair] += n
        if not totals:
            break
        best = max(totals, key=totals.get)
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # a pair counts once in each string
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in set(pairwise(tokens)):
                totals[pair] += n
        if not totals:
            break
        best = max(totals, key=lambda pair: (totals[pair], pair))
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # ties go by the first half alone
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in pairwise(tokens):
                totals[pair] += n
        if not totals:
            break
        best = max(totals, key=lambda pair: (totals[pair], pair[0]))
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # ties go to the bytes that the pair makes
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in pairwise(tokens):
                totals[pair] += n
        if not totals:
            break
        best = max(totals, key=lambda pair: (totals[pair], pair[1]))
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # stops with an error when no pair is left
        """
def learn(counts, n_merges):
    rows = [([bytes([b]) for b in string], n) for string, n in counts.items()]
    merges = []

    def merged(tokens, pair):
        result = []
        for token in tokens:
            if result and (result[-1], token) == pair:
                result[-1] += token
            else:
                result.append(token)
        return result

    for _ in range(n_merges):
        totals = Counter()
        for tokens, n in rows:
            for pair in pairwise(tokens):
                totals[pair] += n
        best = max(totals, key=lambda pair: (totals[pair], pair))
        merges.append(best)
        rows = [(merged(tokens, best), n) for tokens, n in rows]
    return merges
""",
        # counts only once, at the beginning
        """
def learn(counts, n_merges):
    totals = Counter()
    for string, n in counts.items():
        for pair in pairwise([bytes([b]) for b in string]):
            totals[pair] += n
    return sorted(totals, key=lambda pair: (totals[pair], pair), reverse=True)[:n_merges]
""",
    ],
    "2.3": [
        # the space still joins the digits
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r"\p{N}+", r"\p{N}{1,3}")
""",
        # digits of other scripts are forgotten
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r" ?\p{N}+", r"[0-9]{1,3}")
""",
        # ½ is lost
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r" ?\p{N}+", r"\d{1,3}")
""",
        # single digits
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r" ?\p{N}+", r"\p{N}")
""",
        # kinds of digits are told apart
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r" ?\p{N}+", r"\p{Nd}{1,3}|\p{No}|\p{Nl}")
""",
        # all white space before a number stays together
        r"""
def digits_pattern():
    p = GPT2_PATTERN.replace(r" ?\p{N}+", r"\p{N}{1,3}")
    return p.replace(r"(?!\S)", r"(?![^\s\p{N}])")
""",
        # digits join the punctuation
        r"""
def digits_pattern():
    return GPT2_PATTERN.replace(r" ?\p{N}+|", "").replace(r"\s\p{L}\p{N}", r"\s\p{L}")
""",
        # GPT-2's own
        """
def digits_pattern():
    return GPT2_PATTERN
""",
    ],
    "2.4": [
        # the longest token that fits, from the left
        """
def encode_pretoken(data, merges):
    known, tokens = {a + b for a, b in merges}, []
    while data:
        n = next((n for n in range(len(data), 1, -1) if data[:n] in known), 1)
        tokens.append(data[:n])
        data = data[n:]
    return tokens
""",
        # looks up what the pair makes
        """
def encode_pretoken(data, merges):
    ranks = {a + b: rank for rank, (a, b) in enumerate(merges)}
    tokens = [bytes([b]) for b in data]
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(tokens))
                 if a + b in ranks]
        if not found:
            return tokens
        i = min(found)[1]
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
""",
        # the leftmost pair that is known, whatever its rank
        """
def encode_pretoken(data, merges):
    tokens = [bytes([b]) for b in data]
    while True:
        found = [i for i, pair in enumerate(pairwise(tokens)) if pair in merges]
        if not found:
            return tokens
        i = found[0]
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
""",
        # the rightmost position first
        """
def encode_pretoken(data, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = [bytes([b]) for b in data]
    while True:
        found = [(ranks[pair], -i) for i, pair in enumerate(pairwise(tokens))
                 if pair in ranks]
        if not found:
            return tokens
        i = -min(found)[1]
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
""",
        # merges once and stops
        """
def encode_pretoken(data, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = [bytes([b]) for b in data]
    found = [(ranks[p], i) for i, p in enumerate(pairwise(tokens)) if p in ranks]
    if found:
        i = min(found)[1]
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens
""",
    ],
    "2.5": [
        # each token by itself
        """
def text_stream(tokens):
    for token in tokens:
        yield token.decode("utf-8", "replace")
""",
        # everything at the end
        """
def text_stream(tokens):
    yield b"".join(tokens).decode("utf-8", "replace")
""",
        # waits for a whole token and so holds back what is certain
        """
def text_stream(tokens):
    held = b""
    for token in tokens:
        held += token
        try:
            yield held.decode("utf-8")
            held = b""
        except UnicodeDecodeError:
            pass
    if held:
        yield held.decode("utf-8", "replace")
""",
        # drops what does not become whole
        """
def text_stream(tokens):
    import codecs
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    for token in tokens:
        if text := decoder.decode(token):
            yield text
""",
        # forgets the unfinished end
        """
def text_stream(tokens):
    import codecs
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if text := decoder.decode(token):
            yield text
""",
        # reads everything before it yields
        """
def text_stream(tokens):
    import codecs
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(token) for token in tokens]
    yield from filter(None, [*texts, decoder.decode(b"", final=True)])
""",
        # an unfinished character waits for one more token only
        """
def text_stream(tokens):
    kept = b""
    for token in tokens:
        whole = kept + token
        try:
            text, kept = whole.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            end = error.start if not kept and error.end == len(whole) else None
            text = whole[:end].decode("utf-8", "replace")
            kept = b"" if end is None else whole[end:]
        if text:
            yield text
    if kept:
        yield kept.decode("utf-8", "replace")
""",
    ],
    "2.6": [
        # everyone may write them
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if False:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    if not special:
        return encode_ordinary(text)
    names = sorted(special, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in special:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # what is not allowed is read as text
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if False:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    if not allowed:
        return encode_ordinary(text)
    names = sorted(allowed, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # names are taken for patterns
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if name in text and name not in allowed:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    if not allowed:
        return encode_ordinary(text)
    names = sorted(allowed, key=len, reverse=True)
    pattern = "|".join(names)
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # the shortest that fits is taken
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if name in text and name not in allowed:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    if not allowed:
        return encode_ordinary(text)
    names = sorted(allowed, key=len)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # the special tokens are lost
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if name in text and name not in allowed:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    if not allowed:
        return encode_ordinary(text)
    names = sorted(allowed, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(pattern, text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # does not think of having none
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if name in text and name not in allowed:
            raise ValueError(f"text holds {name!r}, which is not allowed")
    names = sorted(allowed, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
        # an error that does not name the token
        """
def encode_with_special(text, special, allowed, encode_ordinary):
    for name in special:
        if name in text and name not in allowed:
            raise ValueError("a special token is not allowed")
    if not allowed:
        return encode_ordinary(text)
    names = sorted(allowed, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, names))
    ids = []
    for part in regex.split(f"({pattern})", text):
        if part in allowed:
            ids.append(special[part])
        else:
            ids += encode_ordinary(part)
    return ids
""",
    ],
    "2.7": [
        # tries every size
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    for n in range(len(merges) + 1):
        if len(tokenizer(merges[:n]).encode(text)) <= max_tokens:
            return 256 + n
    raise ValueError("too few")
""",
        # merges the text once by hand and makes no tokenizer
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    pieces = [[bytes([b]) for b in piece.encode()]
              for piece in regex.findall(GPT2_PATTERN, text)]
    for n, pair in enumerate([*merges, None]):
        if sum(map(len, pieces)) <= max_tokens:
            return 256 + n
        for tokens in pieces:
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == pair:
                    tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
                i += 1
    raise ValueError("too few")
""",
        # tries every size with a tokenizer of its own
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    for n in range(len(merges) + 1):
        if len(BPETokenizer(merges[:n]).encode(text)) <= max_tokens:
            return 256 + n
    raise ValueError("too few")
""",
        # no error when nothing is enough
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    low, high = 0, len(merges)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer(merges[:middle]).encode(text)) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    return 256 + low
""",
        # one merge too many
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    low, high = 0, len(merges)
    if len(tokenizer(merges).encode(text)) > max_tokens:
        raise ValueError("too few")
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer(merges[:middle]).encode(text)) < max_tokens:
            high = middle
        else:
            low = middle + 1
    return 256 + low
""",
        # forgets the bytes
        """
def smallest_vocabulary(merges, text, max_tokens, tokenizer=BPETokenizer):
    low, high = 0, len(merges)
    if len(tokenizer(merges).encode(text)) > max_tokens:
        raise ValueError("too few")
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer(merges[:middle]).encode(text)) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    return low
""",
    ],
    "2.8": [
        # no line is changed
        """
def fault_2_8():
    return "end = spaces[-1] + 1", "end = 1 + spaces[-1]"
""",
        # the letter before the space goes with it
        """
def fault_2_8():
    return "end = spaces[-1] + 1", "end = spaces[-1] - 1"
""",
        # the first space is no better than the last
        """
def fault_2_8():
    return "end = spaces[-1] + 1", "end = spaces[0] + 1"
""",
        # the space is encoded on both sides
        """
def fault_2_8():
    return "kept = kept[end:]", "kept = kept[end - 1 :]"
""",
        # the space is lost
        """
def fault_2_8():
    return (
        "yield from tokenizer.encode_ordinary(kept[:end])",
        "yield from tokenizer.encode_ordinary(kept[: end - 1])",
    )
""",
        # nothing is wrong with any white space
        r"""
def fault_2_8():
    return (
        r'spaces = [found.start() for found in re.finditer(r"(?<=\S) (?=\S)", kept)]',
        r'spaces = [found.start() - 1 for found in re.finditer(r" ", kept)]',
    )
""",
        # it waits for the whole text
        """
def fault_2_8():
    return "if spaces:", "if spaces and len(kept) > 10**9:"
""",
    ],
    "2.9": [
        # the longest token that fits, from the left
        """
def best_cut(piece, p):
    tokens = []
    while piece:
        n = next((n for n in range(len(piece), 1, -1) if piece[:n] in p), 1)
        tokens.append(piece[:n])
        piece = piece[n:]
    return tokens
"""
        + EM_STEP
        + TRAIN_UNIGRAM,
        # the fewest tokens, whatever they are
        BEST_CUT.replace("product * p[token]", "product * 0.5")
        + EM_STEP
        + TRAIN_UNIGRAM,
        # counts the best cut only
        BEST_CUT
        + """
def em_step(counts, p):
    used = dict.fromkeys(p, 0)
    for piece, n in counts.items():
        for token in best_cut(piece, p):
            used[token] += n
    return {token: n / sum(used.values()) for token, n in used.items()}
"""
        + TRAIN_UNIGRAM,
        # a pre-token counts once, however often it occurs
        BEST_CUT + EM_STEP.replace("n * share", "share") + TRAIN_UNIGRAM,
        # forgets to divide by all the cuts of the pre-token
        BEST_CUT + EM_STEP.replace(" / forward[end]", "") + TRAIN_UNIGRAM,
        # counts, not shares
        BEST_CUT + EM_STEP.replace("n / total for", "n for") + TRAIN_UNIGRAM,
        # drops single characters too
        BEST_CUT + EM_STEP + TRAIN_UNIGRAM.replace(" if len(t) > 1", ""),
        # stops at the wrong size
        BEST_CUT
        + EM_STEP
        + TRAIN_UNIGRAM.replace("min(len(p) - size, ", "(").replace(
            "if n_drop <= 0", "if len(p) <= size"
        ),
        # keeps the most probable of the first step
        BEST_CUT
        + EM_STEP
        + """
def train_unigram(counts, size):
    seen = Counter()
    for piece, n in counts.items():
        for j in range(len(piece) + 1):
            for i in range(j):
                seen[piece[i:j]] += n
    kept = {token: 10**9 for token in seen if len(token) == 1}
    kept |= {token: n for token, n in seen.items() if len(token) > 1}
    best = sorted(kept, key=kept.get)[-size:]
    return em_step(counts, {token: seen[token] / seen.total() for token in best})
""",
        # drops the shortest instead of the least probable
        BEST_CUT + EM_STEP + TRAIN_UNIGRAM.replace("key=p.get", "key=len"),
    ],
}
