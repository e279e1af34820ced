"""Plausible wrong answers to the exercises of chapter 6: the checks reject them."""

LION = """class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.1):
        defaults = dict(lr=lr, betas=betas, weight_decay=weight_decay)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (beta1, beta2) = {rate}, group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    {without}
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                {early}
                c = {mixed}
                {decay}
                p.sub_(lr * {direction})
                {mean}
"""
LION_RIGHT = {
    "rate": 'group["lr"]',
    "without": "continue",
    "early": "",
    "mixed": "beta1 * m + (1 - beta1) * p.grad",
    "decay": 'p.mul_(1 - lr * group["weight_decay"])',
    "direction": "c.sign()",
    "mean": "m.lerp_(p.grad, 1 - beta2)",
}
LION_CHANGES = (
    {"rate": 'self.defaults["lr"]'},  # one rate for all groups
    {"without": "p.grad = torch.zeros_like(p) - p"},
    # the mean moves before c is taken
    {"early": "m.lerp_(p.grad, 1 - beta2)", "mean": ""},
    {"mixed": "beta2 * m + (1 - beta2) * p.grad"},
    {"mean": "m.lerp_(p.grad, 1 - beta1)"},
    {"mean": "m = beta2 * m + (1 - beta2) * p.grad"},  # kept nowhere
    {"mean": "m.copy_(c)"},
    {"mixed": "p.grad"},  # plain sign descent
    {"direction": "c"},
    {"direction": "m.sign()"},
    {"decay": ""},
    {"decay": 'p.mul_(1 - group["weight_decay"])'},
    {"decay": "", "mixed": 'beta1 * m + (1 - beta1) * (p.grad + 0.5 * p)'},  # in c
)


def faults(number: str, *pairs: tuple[str, str]) -> list[str]:
    """One wrong answer for each faulty line and what would stand there."""
    name = number.replace(".", "_")
    return [f"def fault_{name}():\n    return {old!r}, {new!r}\n" for old, new in pairs]


TARGETS = "targets = inputs.clone()  # (B, T)"
MODE = "model.training = False"
CLEAR = "if i % n == n - 1:"
DRAWS = "draws = torch.Generator().manual_seed(1_000_003 * seed + step)"

WRONG = {
    "6.1": [
        # the target keeps 1 - s and gets no part of what is spread
        """
def smoothed_cross_entropy(logits, targets, s):
    log_p = logits.log_softmax(-1)
    at_target = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    rest = (log_p.sum(-1) - at_target) / (logits.shape[-1] - 1)
    return -((1 - s) * at_target + s * rest).mean()
""",
        # the two shares swapped
        """
def smoothed_cross_entropy(logits, targets, s):
    log_p = logits.log_softmax(-1)
    return s * cross_entropy(logits, targets) - (1 - s) * log_p.mean()
""",
        # the sum over the vocabulary instead of the mean
        """
def smoothed_cross_entropy(logits, targets, s):
    log_p = logits.log_softmax(-1)
    return (1 - s) * cross_entropy(logits, targets) - s * log_p.sum(-1).mean()
""",
        # the logits are averaged, not their log-probabilities
        """
def smoothed_cross_entropy(logits, targets, s):
    return (1 - s) * cross_entropy(logits, targets) - s * logits.mean()
""",
        # one loss for each position
        """
def smoothed_cross_entropy(logits, targets, s):
    log_p = logits.log_softmax(-1)
    at_target = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -(1 - s) * at_target - s * log_p.mean(-1)
""",
    ],
    "6.2": [
        # decay in the gradient, as in Adam
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    if not state:
        state.update(t=0, m=torch.zeros_like(w), v=torch.zeros_like(w))
    state["t"] += 1
    g = g + decay * w
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * g**2
    m_hat = state["m"] / (1 - betas[0] ** state["t"])
    v_hat = state["v"] / (1 - betas[1] ** state["t"])
    w.sub_(lr * m_hat / (v_hat.sqrt() + eps))
""",
        # no correction for starting at 0
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    if not state:
        state.update(m=torch.zeros_like(w), v=torch.zeros_like(w))
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * g**2
    w.mul_(1 - lr * decay)
    w.sub_(lr * state["m"] / (state["v"].sqrt() + eps))
""",
        # nothing is remembered: every step is a first one
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    w.mul_(1 - lr * decay)
    w.sub_(lr * g / (g.abs() + eps))
""",
        # the count of steps never grows
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    if not state:
        state.update(m=torch.zeros_like(w), v=torch.zeros_like(w))
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * g**2
    m_hat, v_hat = state["m"] / (1 - betas[0]), state["v"] / (1 - betas[1])
    w.mul_(1 - lr * decay)
    w.sub_(lr * m_hat / (v_hat.sqrt() + eps))
""",
        # decay without the rate
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    if not state:
        state.update(t=0, m=torch.zeros_like(w), v=torch.zeros_like(w))
    state["t"] += 1
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * g**2
    m_hat = state["m"] / (1 - betas[0] ** state["t"])
    v_hat = state["v"] / (1 - betas[1] ** state["t"])
    w.mul_(1 - decay)
    w.sub_(lr * m_hat / (v_hat.sqrt() + eps))
""",
        # a new tensor, not the caller's
        """
def adamw_step(w, g, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.1):
    w = w * (1 - lr * decay)
    w = w - lr * g.sign()
""",
    ],
    "6.3": [
        # plain momentum
        """
def nesterov_step(w, g, u, lr, beta):
    u.mul_(beta).add_(g)
    w.sub_(lr * u)
""",
        # the old velocity in the leap
        """
def nesterov_step(w, g, u, lr, beta):
    w.sub_(lr * (g + beta * u))
    u.mul_(beta).add_(g)
""",
        # not in place: the caller's velocity stays 0
        """
def nesterov_step(w, g, u, lr, beta):
    u = beta * u + g
    w.sub_(lr * (g + beta * u))
""",
        # an average, as in Adam
        """
def nesterov_step(w, g, u, lr, beta):
    u.mul_(beta).add_((1 - beta) * g)
    w.sub_(lr * (g + beta * u))
""",
        # 1 - beta in place of the rate
        """
def nesterov_step(w, g, u, lr, beta):
    u.mul_(beta).add_(g)
    w.sub_((1 - beta) * (g + beta * u))
""",
        # spoils the caller's gradient
        """
def nesterov_step(w, g, u, lr, beta):
    u.mul_(beta).add_(g)
    w.sub_(lr * g.add_(beta * u))
""",
    ],
    "6.4": [
        # each tensor on its own
        """
def clip(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    length = math.sqrt(sum(g.pow(2).sum().item() for g in grads))
    for g in grads:
        g.mul_(min(1.0, max_norm / g.norm().item()))
    return length
""",
        # lengthens short gradients too
        """
def clip(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    length = math.sqrt(sum(g.pow(2).sum().item() for g in grads))
    for g in grads:
        g.mul_(max_norm / length)
    return length
""",
        # each number on its own: the direction changes
        """
def clip(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    length = math.sqrt(sum(g.pow(2).sum().item() for g in grads))
    for g in grads:
        g.clamp_(-max_norm, max_norm)
    return length
""",
        # the sum of the lengths
        """
def clip(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    length = sum(g.norm().item() for g in grads)
    for g in grads:
        g.mul_(min(1.0, max_norm / length))
    return length
""",
        # the length afterwards
        """
def clip(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    length = math.sqrt(sum(g.pow(2).sum().item() for g in grads))
    for g in grads:
        g.mul_(min(1.0, max_norm / length))
    return min(length, max_norm)
""",
    ],
    "6.5": [
        # starts at 0
        """
def wsd_schedule(step, *, max_lr, warmup_steps, decay_steps, total_steps):
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    return max_lr * min(1.0, max(0, total_steps - step) / decay_steps)
""",
        # negative past the end
        """
def wsd_schedule(step, *, max_lr, warmup_steps, decay_steps, total_steps):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    return max_lr * min(1.0, (total_steps - step) / decay_steps)
""",
        # falls from the end of the warm-up on: never stable
        """
def wsd_schedule(step, *, max_lr, warmup_steps, decay_steps, total_steps):
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    left = max(0, total_steps - step)
    return max_lr * left / (total_steps - warmup_steps)
""",
        # reaches max_lr one step early
        """
def wsd_schedule(step, *, max_lr, warmup_steps, decay_steps, total_steps):
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    return max_lr * min(1.0, max(0, total_steps - step) / decay_steps)
""",
    ],
    "6.6": [
        # gradients are never forgotten
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(parameter_groups(model, weight_decay)), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        clip_gradients(model.parameters(), max_norm)
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.step()
        losses.append(loss.item())
    return losses
""",
        # not clipped
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(parameter_groups(model, weight_decay)), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
""",
        # clipped before they are there
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(parameter_groups(model, weight_decay)), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.step()
        clip_gradients(model.parameters(), max_norm)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
""",
        # the rate is set too late
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(parameter_groups(model, weight_decay)), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        clip_gradients(model.parameters(), max_norm)
        optimizer.step()
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
""",
        # every vector decays as well
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(model.parameters(), weight_decay=weight_decay), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        clip_gradients(model.parameters(), max_norm)
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
""",
        # the loss after the step
        """
def training_loop(model, batches, rates, max_norm=1.0, weight_decay=0.1):
    optimizer, losses = AdamW(parameter_groups(model, weight_decay)), []
    for step, (x, y) in enumerate(batches):
        loss = cross_entropy(model(x), y)
        loss.backward()
        clip_gradients(model.parameters(), max_norm)
        for group in optimizer.param_groups:
            group['lr'] = rates[step]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(cross_entropy(model(x), y).item())
    return losses
""",
    ],
    "6.7": [LION.format(**LION_RIGHT | change) for change in LION_CHANGES],
    "6.8": [
        # the forward pass alone
        """
def chinchilla(flops):
    N = math.sqrt(flops / 40)
    return N, 20 * N
""",
        # C = 6 N, the tokens forgotten
        """
def chinchilla(flops):
    N = flops / 6
    return N, 20 * N
""",
        # the two exchanged
        """
def chinchilla(flops):
    N = math.sqrt(flops / 120)
    return 20 * N, N
""",
        # equal shares instead of 20 to 1
        """
def chinchilla(flops):
    N = math.sqrt(flops / 6)
    return N, N
""",
    ],
    "6.9": faults(
        "6.9",
        (TARGETS, TARGETS),
        ("targets = inputs.clone()", "targets = windows[:, 1:].clone()"),  # not whole
        (TARGETS, "targets = windows[:, 1:]"),  # writes into the windows
        (TARGETS, "targets = windows[:, -1:].expand_as(inputs).clone()"),
        (TARGETS, "targets = inputs.roll(-1, 1).clone()"),  # the last one wraps
        (TARGETS, "targets = inputs.roll(1, 1).clone()"),
        ("inputs = windows[:, :-1]  # (B, T)", "inputs = windows[:, 1:]  # (B, T)"),
        (
            "targets[targets == pad] = -100  # cross_entropy leaves these out",
            "targets = windows[:, 1:].clamp(min=0)",  # what fills up counts too
        ),
    ),
    "6.10": faults(
        "6.10",
        (MODE, "model.training = True"),
        (MODE, "model.eval"),
        (MODE, "model.train()"),
        (MODE, "before = model.eval().training"),  # and stays in evaluation mode
        ("model.train(before)", "model.eval()"),
        ("with torch.no_grad():", "with torch.inference_mode():"),
        (MODE, "model.eval(); before = True"),
        ("before, total = model.training, 0.0", "before, total = True, 0.0"),
    ),
    "6.11": faults(
        "6.11",
        (CLEAR, "if True:"),
        (CLEAR, "if i == 0:"),
        (CLEAR, "if i % n == 1:"),
        (CLEAR, "if False:"),
        ("if (i + 1) % n == 0:", "if True:"),
        (
            "loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / n",
            "loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())",
        ),
        (CLEAR, "if i % n == n - 1"),
    ),
    "6.12": faults(
        "6.12",
        (DRAWS, "draws = torch.Generator().manual_seed(1_000_003 * seed + done)"),
        (DRAWS, "draws = torch.Generator().manual_seed(done + step)"),  # no seed
        (DRAWS, "draws = torch.Generator().manual_seed(1_000_003 * seed)"),
        (DRAWS, "draws = None"),  # whatever the global generator gives
        # another text for each part, but not that of the whole run
        (DRAWS, "draws = torch.Generator().manual_seed(seed + 1000 * done + step)"),
        # the rate counts `done` twice
        ("for step in range(steps):", "for step in range(done, done + steps):"),
        (DRAWS, DRAWS),
    ),
}
