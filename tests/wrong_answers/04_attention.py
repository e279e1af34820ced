"""Wrong answers that people give to chapter 4's exercises; each check must reject them."""

ROLLING = """
class RollingCache:
    def __init__(self, batch_size, n_heads, d_head, *, width, n_first):
        size = (batch_size, n_heads, n_first + width, d_head)
        self.keys, self.values = torch.zeros(size), torch.zeros(size)
        self.n_first, self.width, self.seen = n_first, width, 0

    def append(self, k, v):
        t, n = self.seen, self.n_first
        slot = {slot}
        self.keys[:, :, slot] = k[:, :, 0]
        self.values[:, :, {value_slot}] = v[:, :, 0]
        self.seen += 1
        stored = {stored}
        return self.keys[:, :, :stored], self.values[:, :, :stored]
"""
SLOT = "t if t < n else n + (t - n) % self.width"

FLASH = """
def flash(q, k, v, block):
    T, d = q.shape
    y, log_sums = torch.zeros(T, d), torch.zeros(T)
    for start in range(0, {end}, block):
        rows = slice(start, min(start + block, T))
        n = rows.stop - start
        largest, total = torch.full((n, 1), -torch.inf), torch.zeros(n, 1)
        out = torch.zeros(n, d)
        for first in range(0, {last}, block):
            columns = slice(first, min(first + block, T))
            scores = q[rows] @ k[columns].T / math.sqrt(d)
            i = torch.arange(T)
            hidden = {hidden}
            scores = scores.masked_fill(hidden, -torch.inf)
            new_largest = {new}
            shrink = (largest - new_largest).exp()
            powers = (scores - new_largest).exp()
            total = total * shrink + powers.sum(1, keepdim=True)
            out = {out}
            largest = new_largest
        y[rows] = out / total
        log_sums[rows] = ({log_sums})[:, 0]
    return y, log_sums


def flash_backward(q, k, v, y, log_sums, slopes, block):
    T, d = q.shape
    dq, dk, dv = torch.zeros(T, d), torch.zeros(T, d), torch.zeros(T, d)
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        for first in range(0, start + 1, block):
            columns = slice(first, min(first + block, T))
            scores = q[rows] @ k[columns].T / math.sqrt(d)
            if first == start:
                scores = scores.masked_fill(~causal_mask(len(scores)), -torch.inf)
            p = (scores - log_sums[rows, None]).exp()
            a = slopes[rows] @ v[columns].T
            s = {s}
            dv[columns] {add} {dv}
            dq[rows] += s @ k[columns]
            dk[columns] += s.T @ q[rows]
    return dq, dk, dv
"""
BACKWARD = """

def flash_backward(q, k, v, y, log_sums, slopes, block):
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    result = attention(*leaves, causal_mask(len(q)))
    return torch.autograd.grad(result, leaves, slopes)
"""
AT_ONCE = """
def flash(q, k, v, block):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores = scores.masked_fill(~causal_mask(len(q)), -torch.inf)
    return scores.softmax(1) @ v, scores.logsumexp(1)
"""

FAULT = """
def fault_4_{number}():
    return (
        {old!r},
        {new!r},
    )
"""
WEIGHTS = "weights = torch.softmax(scores, dim=1)"
QUERIES = "query_at = torch.arange(n_keys - n_queries + 1, n_keys + 1)  # (T_q,)"
FUTURE = "future = key_at > query_at[:, None]  # (T_q, T_k)"
MERGE = "y = y.contiguous().view(B, T, D)"


def rolling(**parts: str) -> str:
    right = {"slot": SLOT, "value_slot": "slot", "stored": "min(t + 1, n + self.width)"}
    return ROLLING.format(**(right | parts))


def flashing(**parts: str) -> str:
    right = {
        "end": "T", "last": "start + 1", "hidden": "i[rows, None] < i[columns]",
        "new": "torch.maximum(largest, scores.amax(1, keepdim=True))",
        "out": "out * shrink + powers @ v[columns]",
        "log_sums": "largest + total.log()", "add": "+=",
        "s": "p * (a - (slopes * y)[rows].sum(1, keepdim=True)) / math.sqrt(d)",
        "dv": "p.T @ slopes[rows]",
    }  # fmt: skip
    return FLASH.format(**(right | parts))


WRONG = {
    "4.1": [
        # rows do not sum to 1
        """
def fading_average(n, rate):
    back = torch.arange(n)[:, None] - torch.arange(n)
    return (rate ** back.clamp(min=0)).tril()
""",
        # the future gets a share
        """
def fading_average(n, rate):
    back = torch.arange(n)[:, None] - torch.arange(n)
    weights = rate ** back.abs()
    return weights / weights.sum(dim=1, keepdim=True)
""",
        # divided before the future is cut off
        """
def fading_average(n, rate):
    back = torch.arange(n)[:, None] - torch.arange(n)
    weights = rate ** back.abs()
    return (weights / weights.sum(dim=1, keepdim=True)).tril()
""",
        # the oldest counts most
        """
def fading_average(n, rate):
    weights = (rate ** torch.arange(n)).expand(n, n).tril()
    return weights / weights.sum(dim=1, keepdim=True)
""",
        # overflows for a long text: inf above the diagonal, times 0
        """
def fading_average(n, rate):
    back = torch.arange(n)[:, None] - torch.arange(n)
    weights = rate ** back.float() * torch.ones(n, n).tril()
    return weights / weights.sum(dim=1, keepdim=True)
""",
        # columns sum to 1 instead of rows
        """
def fading_average(n, rate):
    back = torch.arange(n)[:, None] - torch.arange(n)
    weights = (rate ** back.clamp(min=0)).tril()
    return weights / weights.sum(dim=0, keepdim=True)
""",
    ],
    "4.2": [
        # forgets the root
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return softmax(scores, dim=-1) @ v
""",
        # divides by d
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / q.shape[-1]
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return softmax(scores, dim=-1) @ v
""",
        # the softmax runs over the queries
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return softmax(scores, dim=-2) @ v
""",
        # hides what may be seen
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(mask, -torch.inf)
    return softmax(scores, dim=-1) @ v
""",
        # zeros after the softmax
        """
def attend(q, k, v, mask=None):
    weights = softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    return weights @ v
""",
        # scores of 0 instead of minus infinity
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores * mask
    return softmax(scores, dim=-1) @ v
""",
        # forgets the mask
        """
def attend(q, k, v, mask=None):
    return softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1) @ v
""",
        # overflows
        """
def attend(q, k, v, mask=None):
    powers = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).exp()
    if mask is not None:
        powers = powers * mask
    return powers / powers.sum(dim=-1, keepdim=True) @ v
""",
        # the first two axes, not the last two
        """
def attend(q, k, v, mask=None):
    scores = q @ k.transpose(0, 1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return softmax(scores, dim=-1) @ v
""",
    ],
    "4.3": [
        # one key too many
        """
def window_mask(n, width):
    return causal_mask(n) & causal_mask(n).triu(-width)
""",
        # looks both ways
        """
def window_mask(n, width):
    i = torch.arange(n)
    return (i[:, None] - i).abs() < width
""",
        # numbers instead of bool
        """
def window_mask(n, width):
    return torch.ones(n, n).tril().triu(1 - width)
""",
        # True where a query may not look
        """
def window_mask(n, width):
    return ~(causal_mask(n) & causal_mask(n).triu(1 - width))
""",
        # blocks instead of a sliding window
        """
def window_mask(n, width):
    block = torch.arange(n) // width
    return causal_mask(n) & (block[:, None] == block)
""",
        # forgets the window
        """
def window_mask(n, width):
    return causal_mask(n)
""",
    ],
    "4.4": [
        # changes the last row alone
        """
def sees_future(f, n, d):
    x = torch.randn(n, d)
    changed = x.clone()
    changed[-1] += 1
    return not torch.allclose(f(changed)[:-1], f(x)[:-1])
""",
        # watches the first row alone
        """
def sees_future(f, n, d):
    x = torch.randn(n, d)
    changed = x.clone()
    changed[1:] = torch.randn(n - 1, d)
    return not torch.allclose(f(changed)[0], f(x)[0])
""",
        # compares the changed row too
        """
def sees_future(f, n, d):
    x = torch.randn(n, d)
    for j in range(1, n):
        changed = x.clone()
        changed[j] += 1
        if not torch.allclose(f(changed)[: j + 1], f(x)[: j + 1]):
            return True
    return False
""",
        # looks only one position ahead
        """
def sees_future(f, n, d):
    x = torch.randn(n, d)
    for j in range(1, n):
        changed = x.clone()
        changed[j] += 1
        if not torch.allclose(f(changed)[j - 1], f(x)[j - 1]):
            return True
    return False
""",
        # changes a copy that is no copy
        """
def sees_future(f, n, d):
    x = torch.randn(n, d)
    for j in range(1, n):
        changed = x
        changed[j] += 1
        if not torch.allclose(f(changed)[:j], f(x)[:j]):
            return True
    return False
""",
        # trusts everyone
        """
def sees_future(f, n, d):
    return False
""",
    ],
    "4.5": [
        # the shape at once: right shape, wrong numbers
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, n_heads, T, D // n_heads)


def merge(y):
    return y.transpose(1, 2).flatten(2)
""",
        # both wrong in the same way, so that merge undoes split
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, n_heads, T, D // n_heads)


def merge(y):
    B, H, T, d = y.shape
    return y.reshape(B, T, H * d)
""",
        # every H-th feature to a head
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, T, D // n_heads, n_heads).permute(0, 3, 1, 2)


def merge(y):
    return y.permute(0, 2, 3, 1).flatten(2)
""",
        # merge forgets the transpose
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, T, n_heads, D // n_heads).transpose(1, 2)


def merge(y):
    B, H, T, d = y.shape
    return y.reshape(B, T, H * d)
""",
        # split forgets the transpose
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, T, n_heads, D // n_heads)


def merge(y):
    return y.flatten(2)
""",
        # merge puts the heads of all positions side by side
        """
def split(x, n_heads):
    B, T, D = x.shape
    return x.view(B, T, n_heads, D // n_heads).transpose(1, 2)


def merge(y):
    return y.flatten(1, 2)
""",
    ],
    "4.6": [
        # no mask
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, T, self.n_heads, -1).transpose(1, 2) for t in parts)
        y = attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(B, T, D))
""",
        # not mixed by out
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, T, self.n_heads, -1).transpose(1, 2) for t in parts)
        y = attention(q, k, v, causal_mask(T))
        return y.transpose(1, 2).reshape(B, T, D)
""",
        # one head
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        y = attention(q, k, v, causal_mask(T))
        return self.out(y)
""",
        # heads split by a view alone
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.reshape(B, self.n_heads, T, -1) for t in parts)
        y = attention(q, k, v, causal_mask(T))
        return self.out(y.transpose(1, 2).reshape(B, T, D))
""",
        # keys, queries, values
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, T, self.n_heads, -1).transpose(1, 2) for t in parts)
        q, k = k, q
        y = attention(q, k, v, causal_mask(T))
        return self.out(y.transpose(1, 2).reshape(B, T, D))
""",
        # merged without the transpose
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, T, self.n_heads, -1).transpose(1, 2) for t in parts)
        y = attention(q, k, v, causal_mask(T))
        return self.out(y.reshape(B, T, D))
""",
        # a head's queries, keys and values side by side
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, self.n_heads, -1).transpose(1, 2).chunk(3, -1)
        y = attention(q, k, v, causal_mask(T))
        return self.out(y.transpose(1, 2).reshape(B, T, D))
""",
        # no bias in out
        """
class SelfAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x):
        B, T, D = x.shape
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, T, self.n_heads, -1).transpose(1, 2) for t in parts)
        y = attention(q, k, v, causal_mask(T))
        return self.out(y.transpose(1, 2).reshape(B, T, D))
""",
    ],
    "4.7": [
        # the first tokens are overwritten, too
        rolling(slot="t % (n + self.width)"),
        # the ring does not begin behind the first tokens
        rolling(slot="t if t < n else n + t % self.width"),
        # a ring one slot short
        rolling(slot="t if t < n else n + (t - n) % max(1, self.width - 1)"),
        # always the whole memory, with slots that hold zeros
        rolling(stored="n + self.width"),
        # a value is parted from its key
        rolling(value_slot="t % (n + self.width)"),
        # the window stops where it is full
        rolling(slot="min(t, n + self.width - 1)"),
        # new memory for each token
        """
class RollingCache:
    def __init__(self, batch_size, n_heads, d_head, *, width, n_first):
        self.keys = self.values = torch.zeros(batch_size, n_heads, 0, d_head)
        self.n_first, self.width = n_first, width

    def append(self, k, v):
        def joined(old, new):
            both = torch.cat([old, new], dim=2)
            if both.shape[2] <= self.n_first + self.width:
                return both
            return torch.cat(
                [both[:, :, : self.n_first], both[:, :, -self.width :]], dim=2
            )

        self.keys, self.values = joined(self.keys, k), joined(self.values, v)
        return self.keys, self.values
""",
    ],
    "4.8": [
        # all scores at once
        AT_ONCE + BACKWARD,
        # forward in blocks, backward by autograd through a whole table
        flashing().split("\n\ndef flash_backward")[0] + BACKWARD,
        # what was added up before is not shrunk
        flashing(out="out + powers @ v[columns]"),
        # positions in the last block that is not full are forgotten
        flashing(end="T // block * block"),
        # blocks in the future are computed and hidden
        flashing(last="T"),
        # the future within a block is not hidden
        flashing(hidden="torch.zeros_like(scores, dtype=torch.bool)"),
        # without the largest score
        flashing(new="torch.zeros_like(largest)"),
        # the logarithm of the sum, but not of e to the scores themselves
        flashing(log_sums="total.log()"),
        # the sum over the other weights is forgotten
        flashing(s="p * a / math.sqrt(d)"),
        # the root is forgotten
        flashing(s="p * (a - (slopes * y)[rows].sum(1, keepdim=True))"),
        # the last block of queries overwrites the others
        flashing(add="="),
        # the slopes of queries for values
        flashing(dv="p.T @ y[rows]"),
    ],
    "4.9": [
        # not a line of the function
        FAULT.format(number=9, old="torch.softmax(scores, dim=1)", new="..."),
        # the queries again, counted from the end
        FAULT.format(number=9, old=WEIGHTS, new="weights = torch.softmax(scores, -2)"),
        # right for a batch alone
        FAULT.format(number=9, old=WEIGHTS, new="weights = torch.softmax(scores, 2)"),
        # the texts of the batch
        FAULT.format(number=9, old=WEIGHTS, new="weights = torch.softmax(scores, 0)"),
        # a mask that hides what is past
        FAULT.format(
            number=9,
            old="future = torch.ones(T, T, dtype=torch.bool).triu(1)",
            new="future = torch.ones(T, T, dtype=torch.bool).tril(-1)",
        ),
        # rows sum to 1 afterward, with the future in the sums
        FAULT.format(
            number=9,
            old="return weights @ v  # (..., T, d)",
            new="return weights / weights.sum(-1, keepdim=True) @ v",
        ),
    ],
    "4.10": [
        # the same positions in other words
        FAULT.format(
            number=10,
            old=QUERIES,
            new="query_at = torch.arange(n_queries) + n_keys - n_queries + 1",
        ),
        # too far in the other direction
        FAULT.format(
            number=10,
            old=QUERIES,
            new="query_at = torch.arange(n_keys - n_queries - 1, n_keys - 1)",
        ),
        # right without a cache alone
        FAULT.format(number=10, old=QUERIES, new="query_at = torch.arange(n_queries)"),
        # not even itself
        FAULT.format(
            number=10, old=FUTURE, new="future = key_at >= query_at[:, None] - 1"
        ),
        # sees nothing but the future
        FAULT.format(number=10, old=FUTURE, new="future = key_at < query_at[:, None]"),
        # the mask after the softmax
        FAULT.format(
            number=10,
            old="return torch.softmax(scores, dim=-1) @ v",
            new="return (torch.softmax(scores, dim=-1) * ~future) @ v",
        ),
    ],
    "4.11": [
        # not a line of the function
        FAULT.format(number=11, old="y = y.view(B, T, D)", new="..."),
        # the same order in other words
        FAULT.format(number=11, old=MERGE, new="y = y.reshape(B, T, D)"),
        # features of all heads in turn
        FAULT.format(
            number=11, old=MERGE, new="y = y.permute(0, 2, 3, 1).reshape(B, T, D)"
        ),
        # the heads are added up
        FAULT.format(number=11, old=MERGE, new="y = y.sum(1).repeat(1, 1, n_heads)"),
        # another cut, and the merge as it was
        FAULT.format(
            number=11,
            old="heads = qkv(x).view(B, T, 3 * n_heads, D // n_heads).transpose(1, 2)",
            new="heads = qkv(x).view(B, 3 * n_heads, T, D // n_heads)",
        ),
        # the transpose without new memory
        FAULT.format(number=11, old=MERGE, new="y = y.transpose(1, 2).view(B, T, D)"),
    ],
}
