"""Plausible wrong answers to the exercises of chapter 3; each check rejects them."""

LOOK_UP = """
def look_up(table, ids, arriving):
    gradient = torch.zeros_like(table)
    {line}
    return {vectors}, gradient
"""

RECORDED = """
def look_up(table, ids, arriving):
    with torch.enable_grad():
        table = table.detach().clone().requires_grad_()
        {line}
    return table.detach()[ids], {gradient}
"""

SAMPLING = """
def negative_sampling_loss(center, neighbor, randoms):
    true = (center * neighbor).sum(-1)
    false = (center[:, None] * randoms).sum(-1)
    return {loss}
"""

SHIFT = """
def shift_matrix(k, d_model):
    matrix = torch.zeros(d_model, d_model)
    for i in range(0, d_model, 2):
        angle = {angle}
        sin, cos = math.sin(angle), math.cos(angle)
        matrix[i : i + 2, i : i + 2] = torch.tensor({block})
    return matrix
"""

HALVES = """
def rotate_halves(x, positions, base=10_000.0):
    d = x.shape[-1]
    angles = positions[:, None] * {speed}
    cos, sin = angles.cos(), angles.sin()
    first, second = {cut}
    turned = [{turn}]
    return {join}
"""

ANGLE, BLOCK = "k / 10_000 ** (i / d_model)", "[[cos, -sin], [sin, cos]]"
BIAS = """
def relative_bias(table, length):
    t = torch.arange(length)
    distance = {distance}
    return {look}
"""

INPUT = """
class GPTInput(nn.Module):
    def __init__(self, vocab_size, context_length, d_model):
        super().__init__()
        self.tokens = {tokens}
        self.positions = nn.Parameter(torch.randn(context_length, d_model))

    def forward(self, ids, start=0):
        T = ids.shape[-1]
        if {bad_id}:
            raise ValueError("bad id")
        if {too_long}:
            raise ValueError("too long")
        return {total}
"""

SUBWORDS = """
def pieces(word):
    marked = {marked}
    {found}
    for size in (3, 4, 5):
        for i in range(len(marked) - size + {last}):
            {keep}
    return list(found)


class SubwordEmbedding(nn.Module):
    def __init__(self, words, d_model, generator=None):
        super().__init__()
        known = sorted({{piece for word in words for piece in pieces(word)}})
        self.row = {{piece: i for i, piece in enumerate(known)}}
        start = 0.1 * torch.randn(len(known), d_model, generator=generator)
        self.weight = nn.Parameter(start)

    def forward(self, words):
        vectors = []
        for word in words:
            rows = [{row} for piece in pieces(word){known}]
            rows = torch.tensor(rows, dtype=torch.long)
            vectors.append(self.weight[rows].{reduce}(dim=0))
        return torch.stack(vectors)


def train_subwords(words, counts, d_model, steps=200, rate=1.0):
    g = torch.Generator().manual_seed(0)
    center = SubwordEmbedding(words, d_model, g)
    neighbor = TokenEmbedding(counts.shape[1], d_model, generator=g)
    for _ in range(steps):
        scores = center(words) @ neighbor.weight.T
        log_p = torch.log_softmax(scores, dim={dim})
        loss = -(counts * log_p).sum() / counts.sum()
        loss.backward()
        with torch.no_grad():
            for p in {trained}:
                p {sign}= rate * p.grad
                p.grad = None
    return center
"""

FAULT = """
def fault_3_8():
    return (
        {old!r},
        {new!r},
    )
"""
ANGLES = "angles = angles.repeat_interleave(2, dim=-1)  # (T, d), one for each feature"
PARTNERS = "partners = torch.cat([-second, first], dim=-1)  # (..., T, d)"


def gpt_input(**parts: str) -> str:
    right = {
        "tokens": "nn.Parameter(torch.randn(vocab_size, d_model))",
        "bad_id": "ids.min() < 0 or ids.max() >= len(self.tokens)",
        "too_long": "start + T > len(self.positions)",
        "total": "self.tokens[ids] + self.positions[start : start + T]",
    }
    return INPUT.format(**(right | parts))


def subwords(**parts: str) -> str:
    right = {
        "marked": 'f"<{word}>"', "found": "found = {marked}", "last": "1",
        "keep": "found.add(marked[i : i + size])", "row": "self.row[piece]",
        "known": " if piece in self.row", "reduce": "sum", "dim": "1",
        "trained": "(center.weight, neighbor.weight)", "sign": "-",
    }  # fmt: skip
    return SUBWORDS.format(**(right | parts))


BACK = "(t[:, None] - t).clamp(0, table.shape[1] - 1)"
LOOP = "for i, slope in zip(ids.tolist(), arriving): gradient[i] += slope"
SPEED = "base ** (-torch.arange(0, d, 2) / d)"
CUT, CAT = "x.chunk(2, dim=-1)", "torch.cat(turned, dim=-1)"
TURN = "first * cos - second * sin, first * sin + second * cos"

WRONG = {
    "3.1": [
        # the last use overwrites the others
        LOOK_UP.format(line="gradient[ids] = arriving", vectors="table[ids]"),
        # read, added and written once for a repeated id
        LOOK_UP.format(line="gradient[ids] += arriving", vectors="table[ids]"),
        # the mean over the uses
        LOOK_UP.format(
            line="for i in ids: gradient[i] = arriving[ids == i].mean(dim=0)",
            vectors="table[ids]",
        ),
        # how often, not what arrives
        LOOK_UP.format(line="for i in ids: gradient[i] += 1", vectors="table[ids]"),
        # the first rows, whatever the ids are
        LOOK_UP.format(line=LOOP, vectors="table[: len(ids)]"),
        # only the rows in use
        "def look_up(table, ids, arriving):\n    return table[ids], arriving",
        # backward, which the exercise forbids
        RECORDED.format(
            line="(table[ids] * arriving).sum().backward()", gradient="table.grad"
        ),
        RECORDED.format(
            line="(gradient,) = torch.autograd.grad(table[ids], table, arriving)",
            gradient="gradient",
        ),
        # the same with the module
        "def look_up(table, ids, arriving):\n"
        "    embedding = TokenEmbedding(*table.shape)\n"
        "    embedding.weight.data = table.clone()\n"
        "    vectors = embedding(ids)\n"
        "    (vectors * arriving).sum().backward()\n"
        "    return vectors, embedding.weight.grad",
    ],
    "3.2": [
        # the random words pulled closer, as if they were true
        SAMPLING.format(
            loss="-(F.logsigmoid(true) + F.logsigmoid(false).sum(-1)).mean()"
        ),
        # the mean over the random words
        SAMPLING.format(
            loss="-(F.logsigmoid(true) + F.logsigmoid(-false).mean(-1)).mean()"
        ),
        # the sum over the pairs
        SAMPLING.format(
            loss="-(F.logsigmoid(true) + F.logsigmoid(-false).sum(-1)).sum()"
        ),
        # one choice among k + 1: a sampled softmax
        SAMPLING.format(
            loss="-torch.log_softmax(torch.cat([true[:, None], false], 1), 1)"
            "[:, 0].mean()"
        ),
        # infinite for a score of a thousand
        SAMPLING.format(
            loss="-(true.sigmoid().log() + (-false).sigmoid().log().sum(-1)).mean()"
        ),
        # only the true neighbors
        SAMPLING.format(loss="-F.logsigmoid(true).mean()"),
    ],
    "3.3": [
        # turned the other way
        SHIFT.format(angle=ANGLE, block="[[cos, sin], [-sin, cos]]"),
        # all hands at the same speed
        SHIFT.format(angle="k", block=BLOCK),
        # the exponent doubled: i already counts features, not hands
        SHIFT.format(angle="k / 10_000 ** (2 * i / d_model)", block=BLOCK),
        # one step, whatever k is
        SHIFT.format(angle="1 / 10_000 ** (i / d_model)", block=BLOCK),
        # backwards is taken for forwards
        SHIFT.format(angle="abs(k) / 10_000 ** (i / d_model)", block=BLOCK),
    ],
    "3.4": [
        # neighbors are paired, as in rotate
        "def rotate_halves(x, positions, base=10_000.0):\n"
        "    return rotate(x, positions, base=base)",
        # pairs from the halves, but the result interleaved
        HALVES.format(
            speed=SPEED, cut=CUT, turn=TURN, join="torch.stack(turned, -1).flatten(-2)"
        ),
        # neighbors are paired, the result in halves
        HALVES.format(
            speed=SPEED, cut="x[..., ::2], x[..., 1::2]", turn=TURN, join=CAT
        ),
        # turned the other way
        HALVES.format(
            speed=SPEED,
            cut=CUT,
            turn="first * cos + second * sin, second * cos - first * sin",
            join=CAT,
        ),
        # half the exponent
        HALVES.format(
            speed="base ** (-torch.arange(d // 2) / d)", cut=CUT, turn=TURN, join=CAT
        ),
        # base is ignored
        HALVES.format(
            speed="1e4 ** (-torch.arange(0, d, 2) / d)", cut=CUT, turn=TURN, join=CAT
        ),
    ],
    "3.5": [
        # keys in front of the query instead of behind it
        BIAS.format(
            distance="(t - t[:, None]).clamp(0, table.shape[1] - 1)",
            look="table[:, distance]",
        ),
        # the future counts like the past
        BIAS.format(
            distance="(t - t[:, None]).abs().clamp(0, table.shape[1] - 1)",
            look="table[:, distance]",
        ),
        # far distances run out of the table
        BIAS.format(distance="(t[:, None] - t).clamp(0)", look="table[:, distance]"),
        # one distance too few
        BIAS.format(
            distance="(t[:, None] - t).clamp(0, table.shape[1] - 2)",
            look="table[:, distance]",
        ),
        # the heads at the end
        BIAS.format(distance=BACK, look="table.T[distance]"),
        # cut off from the table: nothing can be learned
        BIAS.format(distance=BACK, look="table.detach()[:, distance]"),
    ],
    "3.6": [
        # a bare tensor: nothing that an optimizer could find
        gpt_input(tokens="torch.randn(vocab_size, d_model)"),
        # positions looked up by id
        gpt_input(total="self.tokens[ids] + self.positions[ids % 4]"),
        # always from position 0
        gpt_input(total="self.tokens[ids] + self.positions[:T]"),
        # start counts from 1
        gpt_input(total="self.tokens[ids] + self.positions[start - 1 :][:T]"),
        # positions counted along the batch
        gpt_input(total="self.tokens[ids] + self.positions[: len(ids), None]"),
        # a row of the table from its end
        gpt_input(bad_id="ids.max() >= len(self.tokens)"),
        # no check of the length
        gpt_input(too_long="False"),
        # the length is checked without start
        gpt_input(too_long="T > len(self.positions)"),
        # cut off from the table
        gpt_input(
            total="self.tokens.detach()[ids] + self.positions[start : start + T]"
        ),
    ],
    "3.7": [
        # no marks for beginning and end
        subwords(marked="word"),
        # the last piece of each size is missing
        subwords(last="0"),
        # without the whole word
        subwords(found="found = set()"),
        # a piece as often as it occurs
        subwords(found="found = [marked]", keep="found.append(marked[i : i + size])"),
        # the mean of the rows
        subwords(reduce="mean"),
        # fails for a piece without a row
        subwords(known=""),
        # another piece's row for a piece without one
        subwords(row="self.row.get(piece, 0)", known=""),
        # trains only the other table
        subwords(trained="(neighbor.weight,)"),
        # up instead of down
        subwords(sign="+"),
        # the softmax over the words instead of their company
        subwords(dim="0", trained="(neighbor.weight,)"),
    ],
    "3.8": [
        # not a line of the function
        FAULT.format(old="angles = positions * speeds", new="angles = speeds"),
        # says the same in other words
        FAULT.format(old=ANGLES, new="angles = torch.repeat_interleave(angles, 2, -1)"),
        # the partners of the other layout: a rotation, but not the promised one
        FAULT.format(
            old=PARTNERS,
            new="partners = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)",
        ),
        # turns the other way
        FAULT.format(
            old=PARTNERS, new="partners = torch.cat([second, -first], dim=-1)"
        ),
        # the right angles in the wrong order
        FAULT.format(
            old=ANGLES, new="angles = torch.cat([angles, angles.flip(-1)], dim=-1)"
        ),
        # one angle for all features: lengths are kept
        FAULT.format(old=ANGLES, new="angles = angles[:, :1].expand(-1, d)"),
        # not Python
        FAULT.format(old=ANGLES, new="angles = torch.cat([angles, angles], dim=-1"),
    ],
}
