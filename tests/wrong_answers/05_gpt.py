"""What people write first in chapter 5; each of these the checks must reject."""

SWIGLU = '''class SwiGLU(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        width = {width}
        self.gate = nn.Linear(d_model, width, bias={bias})
        self.up = nn.Linear(d_model, width, bias={bias})
        self.down = nn.Linear(width, d_model, bias={bias})

    def forward(self, x):
        return {result}
'''
SWIGLU_RIGHT = {
    "width": "8 * d_model // 3",
    "bias": "False",
    "result": "self.down(F.silu(self.gate(x)) * self.up(x))",
}

LENS = '''def logit_lens(model, ids):
    x = {start}
    looks = [{first}]
    for block in model.blocks{which}:
        x = {step}
        looks.append({look})
    return torch.stack(looks)
'''
LENS_RIGHT = {
    "start": "model.tokens(ids) + model.positions(ids.shape[1])",
    "first": "model.head(model.norm(x))",
    "which": "",
    "step": "block(x)",
    "look": "model.head(model.norm(x))",
}

COUNT = '''def count_parameters(config):
    V, T, D = config.vocab_size, config.context_length, config.d_model
    tables = V * D + T * D + {head}
    block = 12 * D**2 + {block} * D
    return tables + config.n_layers * block + {last}
'''
COUNT_RIGHT = {
    "head": "(0 if config.tie_embeddings else V * D)",
    "block": "(13 if config.bias else 2)",
    "last": "(2 if config.bias else 1) * D",
}

WRONG = {
    "5.1": [
        # layer norm again: the mean is taken away
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    x = x - x.mean(-1, keepdim=True)\n"
        "    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weight",
        # the length, not the root of the mean
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / (x.norm(dim=-1, keepdim=True) + eps) * weight",
        # the mean over everything
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / torch.sqrt((x**2).mean() + eps) * weight",
        # eps outside of the root
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / (torch.sqrt((x**2).mean(-1, keepdim=True)) + eps) * weight",
        # eps as a fixed number
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weight",
        # the scale forgotten
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)",
        # the root forgotten
        "def rms_norm(x, weight, eps=1e-5):\n"
        "    return x / ((x**2).mean(-1, keepdim=True) + eps) * weight",
    ],
    "5.2": [
        SWIGLU.format(**SWIGLU_RIGHT | change)
        for change in (
            {"width": "4 * d_model"},
            {"width": "round(8 * d_model / 3 + 0.5)"},
            {"width": "round(8 * d_model / 3)"},
            {"bias": "True"},
            {"result": "self.down(self.gate(x) * F.silu(self.up(x)))"},
            {"result": "self.down(torch.sigmoid(self.gate(x)) * self.up(x))"},
            {"result": "self.down(F.silu(self.gate(x)) + self.up(x))"},
            {"result": "self.down(gelu(self.gate(x)) * self.up(x))"},
        )
    ],
    "5.3": [
        LENS.format(**LENS_RIGHT | change)
        for change in (
            {"start": "model.tokens(ids)"},
            {"first": "model.head(x)", "look": "model.head(x)"},
            {"step": "block(model.norm(x))"},
            {"step": "x + block(x)"},
            {"which": "[1:]"},
            {"look": "model.head(x)"},
        )
    ],
    "5.4": [
        COUNT.format(**COUNT_RIGHT | change)
        for change in (
            {"head": "V * D"},
            {"head": "0"},
            {"block": "13"},
            {"block": "(13 if config.bias else 4)"},
            {"block": "(13 if config.bias else 0)"},
            {"last": "0"},
            {"last": "2 * D"},
        )
    ],
}
