"""Plausible wrong answers to the exercises of chapter 3; each check rejects them."""

GRADIENT = """
def embedding_gradient(ids, arriving, vocab_size):
    gradient = torch.zeros(vocab_size, arriving.shape[1])
    {line}
    return gradient
"""

ODD = """
def odd_one_out(weight, ids):
    x = {rows}
    fit = {fit}
    return {answer}
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

UNIT, RAW = "F.normalize(weight[ids], dim=1)", "weight[ids]"
MEAN, ID = "(x @ x.T).mean(dim=1)", "ids[fit.argmin().item()]"
ANGLE, BLOCK = "k / 10_000 ** (i / d_model)", "[[cos, -sin], [sin, cos]]"
SPEED = "base ** (-torch.arange(0, d, 2) / d)"
CUT, CAT = "x.chunk(2, dim=-1)", "torch.cat(turned, dim=-1)"
TURN = "first * cos - second * sin, first * sin + second * cos"

WRONG = {
    "3.1": [
        # the last use overwrites the others
        GRADIENT.format(line="gradient[ids] = arriving"),
        # read, added and written once for a repeated id
        GRADIENT.format(line="gradient[ids] += arriving"),
        # the mean over the uses
        GRADIENT.format(
            line="for i in ids: gradient[i] = arriving[ids == i].mean(dim=0)"
        ),
        # how often, not what arrives
        GRADIENT.format(line="for i in ids: gradient[i] += 1"),
        # only the rows in use
        "def embedding_gradient(ids, arriving, vocab_size):\n    return arriving",
    ],
    "3.2": [
        # dot products: lengths count
        ODD.format(rows=RAW, fit=MEAN, answer=ID),
        # the place in the list
        ODD.format(rows=UNIT, fit=MEAN, answer="fit.argmin().item()"),
        # the one that fits best
        ODD.format(rows=UNIT, fit=MEAN, answer="ids[fit.argmax().item()]"),
        # compared with the first only
        ODD.format(rows=UNIT, fit="x @ x[0]", answer=ID),
        # Euclidean distance
        ODD.format(rows=RAW, fit="-torch.cdist(x, x).mean(dim=1)", answer=ID),
        # compared with the mean of rows of different lengths
        ODD.format(rows=UNIT, fit="x @ weight[ids].mean(dim=0)", answer=ID),
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
        # neighbours are paired, as in rotate
        "def rotate_halves(x, positions, base=10_000.0):\n"
        "    return rotate(x, positions, base=base)",
        # pairs from the halves, but the result interleaved
        HALVES.format(
            speed=SPEED, cut=CUT, turn=TURN, join="torch.stack(turned, -1).flatten(-2)"
        ),
        # neighbours are paired, the result in halves
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
}
