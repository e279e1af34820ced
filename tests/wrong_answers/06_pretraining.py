"""Plausible wrong answers to the exercises of chapter 6: the checks reject them."""

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
    "6.3": [
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
    "6.4": [
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
}
