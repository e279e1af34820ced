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
}
