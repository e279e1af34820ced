"""Wrong answers that people give to chapter 2's exercises; checks must reject them."""

WRONG = {
    "2.1": [
        # every word counts once
        """
def best_pair(words):
    counts = Counter(pair for word in words for pair in pairs(word))
    return max(counts, key=lambda pair: (counts[pair], pair), default=None)
""",
        # ties go to the pair that was met first
        """
def best_pair(words):
    counts = Counter()
    for word, n in words.items():
        for pair in pairs(word):
            counts[pair] += n
    return max(counts, key=counts.get, default=None)
""",
        # overlapping places are not counted
        """
def best_pair(words):
    counts = {p: sum(w.count(p) * n for w, n in words.items())
              for word in words for p in pairs(word)}
    return max(counts, key=lambda pair: (counts[pair], pair), default=None)
""",
        # a pair counts once in each word
        """
def best_pair(words):
    counts = Counter()
    for word, n in words.items():
        for pair in set(pairs(word)):
            counts[pair] += n
    return max(counts, key=lambda pair: (counts[pair], pair), default=None)
""",
        # ties go by the first character alone
        """
def best_pair(words):
    counts = Counter()
    for word, n in words.items():
        for pair in pairs(word):
            counts[pair] += n
    return max(counts, key=lambda pair: (counts[pair], pair[0]), default=None)
""",
        # ties go to the greatest word
        """
def best_pair(words):
    counts = Counter()
    for word in sorted(words, reverse=True):
        for pair in pairs(word):
            counts[pair] += words[word]
    return max(counts, key=counts.get, default=None)
""",
        # stops without a pair
        """
def best_pair(words):
    counts = Counter()
    for word, n in words.items():
        for pair in pairs(word):
            counts[pair] += n
    return max(counts, key=lambda pair: (counts[pair], pair))
""",
    ],
    "2.2": [
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
        # tries every size, with another class
        """
def smallest_vocabulary(merges, text, max_tokens):
    for n in range(len(merges) + 1):
        if len(TextBPE(merges[:n]).encode_ordinary(text)) <= max_tokens:
            return 256 + n
    raise ValueError("too few merges")
""",
        # tries every size
        """
def smallest_vocabulary(merges, text, max_tokens):
    for n in range(len(merges) + 1):
        if len(BPETokenizer(merges[:n]).encode(text)) <= max_tokens:
            return 256 + n
    raise ValueError("too few")
""",
        # no error when nothing suffices
        """
def smallest_vocabulary(merges, text, max_tokens):
    low, high = 0, len(merges)
    while low < high:
        middle = (low + high) // 2
        if len(BPETokenizer(merges[:middle]).encode(text)) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    return 256 + low
""",
        # one merge too many
        """
def smallest_vocabulary(merges, text, max_tokens):
    from bisect import bisect_right
    if len(BPETokenizer(merges).encode(text)) > max_tokens:
        raise ValueError("too few")
    return 256 + bisect_right(range(len(merges)), -max_tokens, key=lambda n:
                              -len(BPETokenizer(merges[:n]).encode(text)))
""",
        # forgets the bytes
        """
def smallest_vocabulary(merges, text, max_tokens):
    low, high = 0, len(merges)
    if len(BPETokenizer(merges).encode(text)) > max_tokens:
        raise ValueError("too few")
    while low < high:
        middle = (low + high) // 2
        if len(BPETokenizer(merges[:middle]).encode(text)) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    return low
""",
    ],
}
