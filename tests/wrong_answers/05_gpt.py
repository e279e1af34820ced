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

BLOCK = '''class YourBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, bias = config.d_model, {bias}
        self.norm1 = LayerNorm(D, bias=bias)
        self.attention = CausalSelfAttention(D, {heads}, bias=bias)
        self.norm2 = {norm2}
        self.feed_forward = FeedForward(D, bias=bias)

    def forward(self, x):
        {first}
        {second}
'''
BLOCK_RIGHT = {
    "bias": "config.bias",
    "heads": "config.n_heads",
    "norm2": "LayerNorm(D, bias=bias)",
    "first": "x = x + self.attention(self.norm1(x))",
    "second": "return x + self.feed_forward(self.norm2(x))",
}

MODEL = '''class YourGPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        V, D = config.vocab_size, config.d_model
        self.tokens = TokenEmbedding(V, D)
        self.positions = LearnedPositions(config.context_length, D)
        self.blocks = {blocks}
        self.norm = LayerNorm(D)
        self.head = nn.Linear(D, V, bias=False)
        {tie}
        {draw}

    def forward(self, ids):
        x = {start}
        for block in self.blocks:
            {step}
        return {end}
'''
MODEL_RIGHT = {
    "blocks": "nn.ModuleList(Block(config) for _ in range(config.n_layers))",
    "tie": "self.head.weight = self.tokens.weight",
    "draw": "initialize_weights(self, config.n_layers)",
    "start": "self.tokens(ids) + self.positions(ids.shape[1])",
    "step": "x = block(x)",
    "end": "self.head(self.norm(x))",
}

BILL = '''def bill(config, batch_size):
    V, T, D = config.vocab_size, config.context_length, config.d_model
    n, H = config.n_layers, config.n_heads
    tables = V * D + T * D + {head}
    block = 12 * D**2 + {block} * D
    parameters = tables + n * block + {last}
    tokens = {tokens}
    flops = {passes} * tokens * 2 * (n * (12 * D**2 + {attention}) + V * D)
    numbers = n * ({kept}) + 2 * D + 2 + {loss}
    return parameters, flops, {held} * parameters + tokens * (4 * numbers + 2 * 8)
'''
BILL_RIGHT = {
    "head": "(0 if config.tie_embeddings else V * D)",
    "block": "(13 if config.bias else 2)",
    "last": "(2 if config.bias else 1) * D",
    "tokens": "batch_size * T",
    "passes": "3",
    "attention": "2 * T * D",
    "kept": "16 * D + H + 4",
    "loss": "V",
    "held": "16",
}

MOE = '''class MixtureOfExperts(nn.Module):
    def __init__(self, d_model, d_mlp, n_experts, k=2):
        super().__init__()
        self.k = k
        self.router = nn.Linear(d_model, n_experts, bias={bias})
        self.experts = {experts}

    def forward(self, x):
        tokens = x.flatten(0, -2)
        scores = self.router(tokens)
        best, chosen = scores.topk({k})
        weights = {weights}
        y = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            token, rank = (chosen == i).nonzero(as_tuple=True)
            {add}
        E = len(self.experts)
        shares = F.one_hot(chosen, E).float().{shares}
        self.balance = {balance}
        return {result}
'''
MOE_RIGHT = {
    "bias": "False",
    "experts": "nn.ModuleList("
    "FeedForward(d_model, d_mlp=d_mlp) for _ in range(n_experts))",
    "k": "self.k",
    "weights": "best.softmax(-1)",
    "add": "y[token] += weights[token, rank, None] * expert(tokens[token])",
    "shares": "mean((0, 1))",
    "balance": "E * (shares * scores.softmax(-1).mean(0)).sum()",
    "result": "y.view_as(x)",
}

TYING = "setattr(module, last, nn.Parameter(value.detach().clone()))"


def fault(old: str, new: str) -> str:
    return f"def fault_5_8():\n    return {old!r}, {new!r}\n"


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
        BLOCK.format(**BLOCK_RIGHT | change)
        for change in (
            {"bias": "True"},
            {"heads": "1"},
            {"norm2": "self.norm1"},
            {"first": "x = self.attention(self.norm1(x))"},
            {"second": "return self.feed_forward(self.norm2(x))"},
            {"first": "x = x + self.attention(x)"},
            {"first": "y = x + self.attention(self.norm1(x))"},  # and reads the old x
            {"first": "y = self.norm1(x); x = y + self.attention(y)"},
            {
                "first": "x = self.norm1(x + self.attention(x))",
                "second": "return self.norm2(x + self.feed_forward(x))",
            },
        )
    ],
    "5.3": [
        MODEL.format(**MODEL_RIGHT | change)
        for change in (
            {"blocks": "[Block(config) for _ in range(config.n_layers)]"},
            {"blocks": "nn.ModuleList([Block(config)] * config.n_layers)"},
            {"tie": "pass"},
            {"tie": "self.head.weight.data.copy_(self.tokens.weight)"},
            {"draw": "pass"},
            {"draw": "initialize_weights(self, 1)"},
            {"start": "self.tokens(ids)"},
            {"start": "self.tokens(ids) + self.positions(16)"},
            {"step": "x = x + block(x)"},
            {"step": "x = self.blocks[0](x)"},
            {"end": "self.head(x)"},
            {"end": "self.head(self.norm(x)).softmax(-1)"},
            {"end": "self.head(self.norm(x))[:, -1]"},
        )
    ],
    "5.4": [
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
    "5.5": [
        BILL.format(**BILL_RIGHT | change)
        for change in (
            {"head": "V * D"},
            {"head": "0"},
            {"block": "13"},
            {"block": "(13 if config.bias else 4)"},
            {"block": "(13 if config.bias else 0)"},
            {"last": "0"},
            {"last": "2 * D"},
            {"tokens": "T"},
            {"passes": "1"},
            {"passes": "2"},
            {"attention": "0"},
            {"attention": "T * D"},
            {"kept": "12 * D + H + 4"},
            {"kept": "17 * D + H + 4"},
            {"loss": "0"},
            {"held": "4"},
            {"held": "12"},
        )
    ],
    "5.6": [
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
    "5.7": [
        MOE.format(**MOE_RIGHT | change)
        for change in (
            {"bias": "True"},
            {"experts": "[FeedForward(d_model, d_mlp=d_mlp) for _ in range(4)]"},
            {
                "experts": "nn.ModuleList("
                "[FeedForward(d_model, d_mlp=d_mlp)] * n_experts)"
            },
            {"k": "1"},  # one expert for each token
            {"k": "len(self.experts)"},  # all of them
            {"weights": "torch.ones_like(best)"},
            {"weights": "best"},
            # the probabilities among all experts, so that two do not sum to 1
            {"weights": "scores.softmax(-1).gather(-1, chosen)"},
            {"add": "y[token] = weights[token, rank, None] * expert(tokens[token])"},
            {"add": "y[token] += weights[token, 0, None] * expert(tokens[token])"},
            # every expert reads every token
            {"add": "y[token] += weights[token, rank, None] * expert(tokens)[token]"},
            {"shares": "mean(0).sum(0)"},  # of tokens, not of choices
            {"balance": "(shares * scores.softmax(-1).mean(0)).sum()"},
            {"balance": "E * (shares * shares).sum()"},
            {"balance": "E * (shares * scores.softmax(-1).mean(0)).sum().detach()"},
            {"balance": "E * (shares * scores.mean(0)).sum()"},
            {"result": "y"},
        )
    ],
    "5.8": [
        # another line, and one that is none
        fault("module = model.get_submodule(path)", "module = model"),
        fault("own = model.state_dict()", "own = dict(model.named_parameters())"),
        fault("model.head.weight = model.tokens.weight", "pass"),
        # still a new parameter for each name
        fault(TYING, "setattr(module, last, nn.Parameter(value.detach()))"),
        fault(TYING, "setattr(module, last, nn.Parameter(value.clone()).data)"),
        # the saved tensors themselves
        fault(TYING, "getattr(module, last).data = value"),
        # nothing is copied
        fault(TYING, "own[name] = value.clone()"),
        fault(TYING, "own[name].clone().copy_(value)"),
        # autograd watches
        fault(TYING, "getattr(module, last).copy_(value)"),
        # every model is tied
        fault(
            TYING,
            TYING + "\nmodel.head.weight = model.tokens.weight",
        ),
        # no Python
        fault(TYING, "own[name].copy_(value"),
    ],
}
