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
    "4.3": [
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
        # looks only one place ahead
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
    "4.4": [
        # the groups in the wrong order
        """
def grouped_attention(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
    return attention(q, k, v, causal_mask(q.shape[2]))
""",
        # no mask
        """
def grouped_attention(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
    return attention(q, k, v)
""",
        # values in another order than keys
        """
def grouped_attention(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat(1, times, 1, 1), v.repeat_interleave(times, dim=1)
    return attention(q, k, v, causal_mask(q.shape[2]))
""",
        # averages the queries of a group
        """
def grouped_attention(q, k, v):
    B, H, T, d = q.shape
    G = k.shape[1]
    q = q.view(B, G, H // G, T, d).mean(dim=2)
    y = attention(q, k, v, causal_mask(T))
    return y.repeat_interleave(H // G, dim=1)
""",
        # forgets to repeat
        """
def grouped_attention(q, k, v):
    return attention(q, k, v, causal_mask(q.shape[2]))
""",
    ],
}
