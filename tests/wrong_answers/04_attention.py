"""Wrong answers that people give to chapter 4's exercises; each check must reject them."""

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
}
