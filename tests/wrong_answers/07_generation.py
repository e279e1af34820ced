"""Plausible wrong answers to the exercises of chapter 7; each must be rejected."""

SPECULATIVE = """
def settle(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        u = torch.rand(1, generator=generator).item()
        if u * q[i][token] >= p[i, token]:
            missing = (p[i] - q[i]).clamp(min=0)
            return guesses[:i] + [draw(missing, generator=generator).item()]
    return guesses + [draw(p[-1], generator=generator).item()]


def speculative(model, draft, ids, n, k, stop, generator, temperature=1.0):
    def read(reader, cache, text):
        logits = reader(torch.tensor([text[cache.length :]]), cache)[0]
        return next_token_distribution(logits, temperature=temperature)

    room = len(ids) + n + k
    cache, draft_cache = (KVCache(m.config, 1, room) for m in (model, draft))
    text = list(ids)
    while len(text) < len(ids) + n:
        guesses, q = [], []
        for _ in range(k):
            q.append(read(draft, draft_cache, text + guesses)[-1])
            guesses.append(draw(q[-1], generator=generator).item())
        p = read(model, cache, text + guesses)[-k - 1 :]
        for token in settle(p, q, guesses, generator):
            if token == stop:
                return text[len(ids) :]
            text.append(token)
        for layer in [*cache.layers, *draft_cache.layers]:
            layer.length = min(layer.length, len(text) - 1)
    return text[len(ids) : len(ids) + n]
"""


def speculative(old: str, new: str) -> str:
    """The right answer to 7.7 with one change."""
    assert SPECULATIVE.count(old) == 1, old
    return SPECULATIVE.replace(old, new)


def fault(number: str, old: str, new: str) -> str:
    """An answer to "Find the fault"."""
    return f"def fault_7_{number}():\n    return ({old!r}, {new!r})\n"


NEW = "new = text[cache.length - 1 :]  # what the cache does not hold yet"
SIZES = 'sizes = [len(tokenizer.decode([token]).encode("utf-8")) for token in ids[1:]]'

WRONG = {
    "7.1": [
        # exactly k, so that of tied tokens some are thrown out
        """
def top_k(probs, k):
    best = probs.topk(min(k, probs.shape[-1]))
    kept = torch.zeros_like(probs).scatter(-1, best.indices, best.values)
    return kept / kept.sum(-1, keepdim=True)
""",
        # not scaled again
        """
def top_k(probs, k):
    threshold = probs.topk(min(k, probs.shape[-1])).values[..., -1:]
    return probs.masked_fill(probs < threshold, 0.0)
""",
        # the k likeliest of the whole batch
        """
def top_k(probs, k):
    threshold = probs.flatten().topk(min(k, probs.numel())).values[-1]
    kept = probs.masked_fill(probs < threshold, 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
        # a second softmax instead of scaling
        """
def top_k(probs, k):
    threshold = probs.topk(min(k, probs.shape[-1])).values[..., -1:]
    return probs.masked_fill(probs < threshold, -torch.inf).softmax(-1)
""",
        # only the k numbers, without their positions
        """
def top_k(probs, k):
    best = probs.topk(min(k, probs.shape[-1])).values
    return best / best.sum(-1, keepdim=True)
""",
        # "at most the k-th" goes, instead of below it
        """
def top_k(probs, k):
    threshold = probs.topk(min(k, probs.shape[-1])).values[..., -1:]
    kept = probs.masked_fill(probs <= threshold, 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
        # no care for a k above V
        """
def top_k(probs, k):
    kept = probs.masked_fill(probs < probs.topk(k).values[..., -1:], 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
    ],
    "7.2": [
        # the stop token is appended
        """
def write(model, ids, n, stop, generator, **settings):
    new = []
    while len(new) < n:
        logits = model(torch.tensor([ids + new]))[0, -1]
        probs = next_token_distribution(logits, **settings)
        new.append(draw(probs, generator=generator).item())
        if new[-1] == stop:
            break
    return new
""",
        # returns the prompt as well
        """
def write(model, ids, n, stop, generator, **settings):
    text = list(ids)
    while len(text) < len(ids) + n:
        logits = model(torch.tensor([text]))[0, -1]
        token = draw(next_token_distribution(logits, **settings), generator=generator)
        if token == stop:
            break
        text.append(token.item())
    return text
""",
        # n counts the prompt
        """
def write(model, ids, n, stop, generator, **settings):
    new = []
    while len(ids + new) < n:
        logits = model(torch.tensor([ids + new]))[0, -1]
        token = draw(next_token_distribution(logits, **settings), generator=generator)
        if token == stop:
            break
        new.append(token.item())
    return new
""",
        # the scores after the first position
        """
def write(model, ids, n, stop, generator, **settings):
    new = []
    while len(new) < n:
        logits = model(torch.tensor([ids + new]))[0, 0]
        token = draw(next_token_distribution(logits, **settings), generator=generator)
        if token == stop:
            break
        new.append(token.item())
    return new
""",
        # always the likeliest
        """
def write(model, ids, n, stop, generator, **settings):
    new = []
    while len(new) < n:
        token = model(torch.tensor([ids + new]))[0, -1].argmax().item()
        if token == stop:
            break
        new.append(token)
    return new
""",
        # the generator is forgotten
        """
def write(model, ids, n, stop, generator, **settings):
    new = []
    while len(new) < n:
        logits = model(torch.tensor([ids + new]))[0, -1]
        token = draw(next_token_distribution(logits, **settings))
        if token == stop:
            break
        new.append(token.item())
    return new
""",
        # the caller's list grows
        """
def write(model, ids, n, stop, generator, **settings):
    start = len(ids)
    while len(ids) < start + n:
        logits = model(torch.tensor([ids]))[0, -1]
        token = draw(next_token_distribution(logits, **settings), generator=generator)
        if token == stop:
            break
        ids.append(token.item())
    return ids[start:]
""",
    ],
    "7.3": [
        # always writes at the beginning
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        end = k.shape[2]
        self.keys[:, :, :end], self.values[:, :, :end] = k, v
        self.length += end
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]
""",
        # returns only what came
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        end = self.length + k.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError("no room")
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return k, v
""",
        # returns all of the memory, the empty part too
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        end = self.length + k.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError("no room")
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys, self.values
""",
        # grows by copying
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, 0, width)
        self.values = torch.zeros(batch_size, n_heads, 0, width)
        self.room, self.length = room, 0

    def append(self, k, v):
        self.length += k.shape[2]
        if self.length > self.room:
            raise ValueError("no room")
        self.keys = torch.cat([self.keys, k], dim=2)
        self.values = torch.cat([self.values, v], dim=2)
        return self.keys, self.values
""",
        # one token at a time only
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        if self.length == self.keys.shape[2]:
            raise ValueError("no room")
        self.keys[:, :, self.length] = k[:, :, -1]
        self.values[:, :, self.length] = v[:, :, -1]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]
""",
        # values are the keys once more
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        end = self.length + k.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError("no room")
        for memory in (self.keys, self.values):
            memory[:, :, self.length : end] = k
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]
""",
        # a full memory starts again from its beginning
        """
class Memory:
    def __init__(self, batch_size, n_heads, room, width):
        self.keys = torch.zeros(batch_size, n_heads, room, width)
        self.values = torch.zeros(batch_size, n_heads, room, width)
        self.length = 0

    def append(self, k, v):
        if self.length + k.shape[2] > self.keys.shape[2]:
            self.length = 0
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]
""",
    ],
    "7.4": [
        # keys only
        """
def largest_batch(config, length, memory, bytes_each=2):
    per_position = config.n_layers * config.kv_heads * config.head_width
    return memory // (length * per_position * bytes_each)
""",
        # rounds up
        """
def largest_batch(config, length, memory, bytes_each=2):
    per_position = 2 * config.n_layers * config.kv_heads * config.head_width
    return math.ceil(memory / (length * per_position * bytes_each))
""",
        # a full context instead of `length`
        """
def largest_batch(config, length, memory, bytes_each=2):
    per_position = 2 * config.n_layers * config.kv_heads * config.head_width
    return memory // (config.context_length * per_position * bytes_each)
""",
        # every head has keys and values of its own, as in GPT-2
        """
def largest_batch(config, length, memory, bytes_each=2):
    return memory // (2 * config.n_layers * length * config.d_model * bytes_each)
""",
        # shared heads, but of the usual width
        """
def largest_batch(config, length, memory, bytes_each=2):
    width = config.kv_heads * config.d_model // config.n_heads
    return memory // (2 * config.n_layers * length * width * bytes_each)
""",
        # n_kv_heads as it was given, which may be None
        """
def largest_batch(config, length, memory, bytes_each=2):
    per_position = 2 * config.n_layers * config.n_kv_heads * config.head_width
    return memory // (length * per_position * bytes_each)
""",
    ],
    "7.5": [
        # the stop token is kept
        """
def collect(prompts, columns, n, stop_ids):
    rows, running, taken = [list(p) for p in prompts], set(range(len(prompts))), 0
    while running and taken < n:
        taken += 1
        for i, token in enumerate(next(columns).tolist()):
            if i in running:
                rows[i].append(token)
            if token in stop_ids:
                running.discard(i)
    return rows
""",
        # a row that has ended grows again
        """
def collect(prompts, columns, n, stop_ids):
    rows = [list(p) for p in prompts]
    for _ in range(n):
        column = next(columns).tolist()
        if all(token in stop_ids for token in column):
            break
        for row, token in zip(rows, column):
            if token not in stop_ids:
                row.append(token)
    return rows
""",
        # all stop when the first one does
        """
def collect(prompts, columns, n, stop_ids):
    rows = [list(p) for p in prompts]
    for _ in range(n):
        column = next(columns).tolist()
        if any(token in stop_ids for token in column):
            break
        for row, token in zip(rows, column):
            row.append(token)
    return rows
""",
        # asks for all n columns although the rows have ended
        """
def collect(prompts, columns, n, stop_ids):
    rows, running = [list(p) for p in prompts], set(range(len(prompts)))
    for _ in range(n):
        for i, token in enumerate(next(columns).tolist()):
            if token in stop_ids:
                running.discard(i)
            if i in running:
                rows[i].append(token)
    return rows
""",
        # asks for one column too many: the loop ends only after it has come
        """
def collect(prompts, columns, n, stop_ids):
    rows, running = [list(p) for p in prompts], set(range(len(prompts)))
    for taken, column in enumerate(columns):
        if taken == n or not running:
            break
        for i, token in enumerate(column.tolist()):
            if token in stop_ids:
                running.discard(i)
            if i in running:
                rows[i].append(token)
    return rows
""",
        # a stop token in the prompt ends its row at once
        """
def collect(prompts, columns, n, stop_ids):
    rows, taken = [list(p) for p in prompts], 0
    ended = lambda row: any(token in stop_ids for token in row)
    while taken < n and not all(map(ended, rows)):
        taken += 1
        for row, token in zip(rows, next(columns).tolist()):
            if not ended(row):
                row.append(token)
    return [[t for t in row if t not in stop_ids] for row in rows]
""",
        # the caller's prompts grow
        """
def collect(prompts, columns, n, stop_ids):
    running, taken = set(range(len(prompts))), 0
    while running and taken < n:
        taken += 1
        for i, token in enumerate(next(columns).tolist()):
            if token in stop_ids:
                running.discard(i)
            if i in running:
                prompts[i].append(token)
    return prompts
""",
    ],
    "7.6": [
        # a rejected guess is replaced by a draw from p itself
        """
def accept_guesses(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        u = torch.rand(1, generator=generator).item()
        if u * q[i, token] >= p[i, token]:
            return guesses[:i] + [draw(p[i], generator=generator).item()]
    return guesses + [draw(p[-1], generator=generator).item()]
""",
        # the token for free is forgotten
        """
def accept_guesses(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        u = torch.rand(1, generator=generator).item()
        if u * q[i, token] >= p[i, token]:
            missing = (p[i] - q[i]).clamp(min=0)
            return guesses[:i] + [draw(missing, generator=generator).item()]
    return list(guesses)
""",
        # accepts with q / p
        """
def accept_guesses(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        u = torch.rand(1, generator=generator).item()
        if u * p[i, token] >= q[i, token]:
            missing = (p[i] - q[i]).clamp(min=0)
            return guesses[:i] + [draw(missing, generator=generator).item()]
    return guesses + [draw(p[-1], generator=generator).item()]
""",
        # goes on after a rejected guess
        """
def accept_guesses(p, q, guesses, generator):
    kept = []
    for i, token in enumerate(guesses):
        u = torch.rand(1, generator=generator).item()
        if u * q[i, token] >= p[i, token]:
            missing = (p[i] - q[i]).clamp(min=0)
            token = draw(missing, generator=generator).item()
        kept.append(token)
    return kept + [draw(p[-1], generator=generator).item()]
""",
        # accepts with probability p(x), without q
        """
def accept_guesses(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        if torch.rand(1, generator=generator).item() >= p[i, token]:
            missing = (p[i] - q[i]).clamp(min=0)
            if missing.sum() == 0:
                missing = p[i]
            return guesses[:i] + [draw(missing, generator=generator).item()]
    return guesses + [draw(p[-1], generator=generator).item()]
""",
        # draws from p and keeps guesses that happen to be equal: right, but wasteful
        """
def accept_guesses(p, q, guesses, generator):
    for i, token in enumerate(guesses):
        own = draw(p[i], generator=generator).item()
        if own != token:
            return guesses[:i] + [own]
    return guesses + [draw(p[-1], generator=generator).item()]
""",
    ],
    "7.7": [
        # a hole in the draft's cache where it has not read the last guess
        speculative("min(layer.length, len(text) - 1)", "len(text) - 1"),
        # rejected guesses stay in the draft's cache
        speculative("[*cache.layers, *draft_cache.layers]", "cache.layers"),
        # rejected guesses stay in the model's cache
        speculative("[*cache.layers, *draft_cache.layers]", "draft_cache.layers"),
        # only the last token of a round can stop it
        speculative("if token == stop:", "if False:").replace(
            "        for layer in", """        if text[-1] == stop:
            return text[len(ids) : -1]
        for layer in"""
        ),
        # the stop token is kept
        speculative("return text[len(ids) :]", "return text[len(ids) :] + [stop]"),
        # more than n tokens
        speculative("text[len(ids) : len(ids) + n]", "text[len(ids) :]"),
        # the prompt is returned as well
        speculative("text[len(ids) : len(ids) + n]", "text[: len(ids) + n]"),
        # everything is read again
        speculative("text[cache.length :]", "text[cache.restart() :]"),
        # all guesses are accepted: the draft writes
        speculative("if u * q[i][token] >= p[i, token]:", "if False:"),
        # a rejected guess is replaced by a draw from p itself
        speculative("(p[i] - q[i]).clamp(min=0)", "p[i]"),
        # the temperature is forgotten
        speculative("(logits, temperature=temperature)", "(logits)"),
        # the temperature sharpens, but never becomes greedy
        speculative("temperature=temperature)", "temperature=temperature or 1.0)"),
    ],
    "7.8": [
        # greedy, whatever the width
        """
def beam_search(log_p, start, steps, width):
    text = [start]
    for _ in range(steps):
        text.append(log_p[text[-1]].argmax().item())
    return text
""",
        # keeps the least likely ones
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        grown = [(s + log_p[t[-1], b].item(), t + [b])
                 for s, t in beams for b in range(len(log_p))]
        beams = sorted(grown)[:width]
    return beams[0][1]
""",
        # forgets what the text was worth before the last step
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        grown = [(log_p[t[-1], b].item(), t + [b])
                 for s, t in beams for b in range(len(log_p))]
        beams = sorted(grown, key=lambda beam: -beam[0])[:width]
    return beams[0][1]
""",
        # keeps `width` continuations of each text, so that the beam grows
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        beams = [pair for s, t in beams for pair in sorted(
            ((s + log_p[t[-1], b].item(), t + [b]) for b in range(len(log_p))),
            key=lambda beam: -beam[0])[:width]]
    return max(beams, key=lambda beam: beam[0])[1]
""",
    ],
    "7.9": [
        # one position too late
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(prompt), len(ids)), more].sum().item()
""",
        # the prompt's tokens count as well
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(ids) - 1), ids[1:]].sum().item()
""",
        # the mean instead of the sum
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(prompt) - 1, len(ids) - 1), more].mean().item()
""",
        # logits instead of log-probabilities
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    logits = model(torch.tensor([ids]))[0]
    return logits[range(len(prompt) - 1, len(ids) - 1), more].sum().item()
""",
    ],
    "7.10": [
        # the line that picks the token was right
        fault(
            "10", "text.append(logits.argmax().item())",
            "text.append(logits[:-1].argmax().item())",
        ),
        # the row of logits was right
        fault(
            "10", "logits = model(torch.tensor([new]), cache)[0, -1]  # (V,)",
            "logits = model(torch.tensor([new]), cache)[0, 0]",
        ),
        # the same in other words
        fault("10", NEW, "new = text[-2:] if cache.length == len(text) - 1 else text[-1:]"),
        # always the last two
        fault("10", NEW, "new = text[-2:]"),
        # the whole text goes into the cache again
        fault("10", NEW, "new = list(text)"),
        # the whole text, into an empty cache: right, but the cache is of no use
        fault("10", NEW, "new = list(text); cache.restart()"),
        # too far: nothing is left to read
        fault("10", NEW, "new = text[cache.length + 1 :]"),
        # not a line of the function
        fault("10", "new = text[cache.length - 1]", "new = text[cache.length]"),
        # not Python
        fault("10", NEW, "new = text[cache.length :"),
    ],
    "7.11": [
        # characters of each token
        fault(
            "11", SIZES, "sizes = [len(tokenizer.decode([token])) for token in ids[1:]]"
        ),
        # characters of the text
        fault("11", SIZES, "sizes = [len(text)]"),
        # tokens
        fault("11", SIZES, "sizes = [len(ids) - 1]"),
        # what is no character is left out
        fault("11", SIZES, SIZES.replace("[token])", '[token], errors="ignore")')),
        # the end token counts as text
        fault("11", SIZES, "sizes = [len(tokenizer.decode_bytes(ids))]"),
        # another line, which was right
        fault(
            "11", "return nats / math.log(2) / sum(sizes)",
            "return nats / math.log(2) / len(sizes)",
        ),
        # bits become nats
        fault(
            "11", "return nats / math.log(2) / sum(sizes)", "return nats / sum(sizes)"
        ),
        # the last token is left out
        fault(
            "11", "nats = -log_p[range(len(ids) - 1), ids[1:]].sum().item()",
            "nats = -log_p[range(len(ids) - 2), ids[1:-1]].sum().item()",
        ),
    ],
}
