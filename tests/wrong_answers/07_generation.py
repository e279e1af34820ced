"""Plausible wrong answers to the exercises of chapter 7; each must be rejected."""

WRONG = {
    "7.1": [
        # an absolute threshold
        """
def keep_min_p(probs, share):
    kept = probs.masked_fill(probs < share, 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
        # the best token of the whole batch instead of the row's
        """
def keep_min_p(probs, share):
    kept = probs.masked_fill(probs < share * probs.max(), 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
        # not scaled again
        """
def keep_min_p(probs, share):
    return probs.masked_fill(probs < share * probs.amax(-1, keepdim=True), 0.0)
""",
        # a second softmax instead of scaling
        """
def keep_min_p(probs, share):
    drop = probs < share * probs.amax(-1, keepdim=True)
    return probs.masked_fill(drop, -torch.inf).softmax(-1)
""",
        # "more than" for "at least"
        """
def keep_min_p(probs, share):
    kept = probs.masked_fill(probs <= share * probs.amax(-1, keepdim=True), 0.0)
    return kept / kept.sum(-1, keepdim=True)
""",
    ],
    "7.2": [
        # divides negative logits too, which makes them likelier
        """
def penalise_repeats(logits, ids, penalty):
    logits = logits.clone()
    for token in set(ids):
        logits[token] = logits[token] / penalty
    return logits
""",
        # once for each occurrence
        """
def penalise_repeats(logits, ids, penalty):
    logits = logits.clone()
    for token in ids:
        value = logits[token]
        logits[token] = value / penalty if value > 0 else value * penalty
    return logits
""",
        # changes the caller's tensor
        """
def penalise_repeats(logits, ids, penalty):
    for token in set(ids):
        value = logits[token]
        logits[token] = value / penalty if value > 0 else value * penalty
    return logits
""",
    ],
    "7.3": [
        # keys only
        """
def largest_batch(config, length, memory, bytes_each=2):
    return memory // (config.n_layers * length * config.d_model * bytes_each)
""",
        # rounds up
        """
def largest_batch(config, length, memory, bytes_each=2):
    return math.ceil(memory / (2 * config.n_layers * length * config.d_model * bytes_each))
""",
        # a full context instead of `length`
        """
def largest_batch(config, length, memory, bytes_each=2):
    one = 2 * config.n_layers * config.context_length * config.d_model * bytes_each
    return memory // one
""",
        # counts the heads twice: d_model already is all heads together
        """
def largest_batch(config, length, memory, bytes_each=2):
    one = 2 * config.n_layers * config.n_heads * length * config.d_model * bytes_each
    return memory // one
""",
    ],
    "7.4": [
        # one place too late
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(prompt), len(ids)), more].sum().item()
""",
        # the prompt's tokens count as well
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(ids) - 1), ids[1:]].sum().item()
""",
        # the mean instead of the sum
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    log_probs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return log_probs[range(len(prompt) - 1, len(ids) - 1), more].mean().item()
""",
        # logits instead of log-probabilities
        """
@torch.no_grad()
def continuation_log_prob(model, prompt, more):
    ids = prompt + more
    logits = model(torch.tensor([ids]))[0]
    return logits[range(len(prompt) - 1, len(ids) - 1), more].sum().item()
""",
    ],
    "7.5": [
        # greedy, whatever the width
        """
def beam_search(log_p, start, steps, width):
    text = [start]
    for _ in range(steps):
        text.append(log_p[text[-1]].argmax().item())
    return text
""",
        # keeps the least likely ones
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        grown = [(s + log_p[t[-1], b].item(), t + [b])
                 for s, t in beams for b in range(len(log_p))]
        beams = sorted(grown)[:width]
    return beams[0][1]
""",
        # forgets what the text was worth before the last step
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        grown = [(log_p[t[-1], b].item(), t + [b])
                 for s, t in beams for b in range(len(log_p))]
        beams = sorted(grown, key=lambda beam: -beam[0])[:width]
    return beams[0][1]
""",
        # keeps `width` continuations of each text, so that the beam grows
        """
def beam_search(log_p, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        beams = [pair for s, t in beams for pair in sorted(
            ((s + log_p[t[-1], b].item(), t + [b]) for b in range(len(log_p))),
            key=lambda beam: -beam[0])[:width]]
    return max(beams, key=lambda beam: beam[0])[1]
""",
    ],
}
