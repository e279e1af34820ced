"""Generation against independent references: plain loops, NumPy, transformers."""

import math
import subprocess
import sys
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from transformers.generation import logits_process as processors

from solutions.generation import (
    KVCache,
    draw,
    from_pretrained,
    generate,
    keep_top_k,
    keep_top_p,
    next_token_distribution,
    penalize_repeats,
    stream,
    window_start,
)
from solutions.gpt import GPT, GPTConfig

SMALL = GPTConfig(60, 16, 24, 2, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A random model whose logits are far from equal, biases and norms included."""
    g = seeded(seed)
    model = GPT(config, generator=g).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.3)
    return model


@pytest.fixture(scope="module")
def model() -> GPT:
    return make()


# --- distributions


def reference(logits, temperature, top_k, top_p, min_p) -> np.ndarray:
    """The four operations on one row, in float64 NumPy, with a loop."""
    z = np.array(logits, dtype=np.float64) / temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    if top_k is not None:
        kth = sorted(logits)[-min(top_k, len(logits))]
        p[np.array(logits) < kth] = 0
        p /= p.sum()
    if top_p is not None:
        total = 0.0
        for i in sorted(range(len(p)), key=lambda i: (-logits[i], -i)):
            if total >= top_p:
                p[i] = 0
            total += p[i]
        p /= p.sum()
    if min_p is not None:
        p[p < min_p * p.max()] = 0
        p /= p.sum()
    return p


@settings(deadline=None, max_examples=80)
@given(
    # multiples of 1/8: sums differ clearly from top_p, which is no sum of theirs
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.sampled_from([0.0137, 0.3171, 0.7393, 0.9431, 1.0]),
    min_p=st.none() | st.sampled_from([0.0, 0.0471, 0.3331, 1.0]),
)
def test_distributions_equal_a_plain_loop(logits, temperature, top_k, top_p, min_p):
    row, cuts = torch.tensor(logits), {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    ours = next_token_distribution(row, temperature=temperature, **cuts)
    theirs = reference(logits, temperature, **cuts)
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-5)
    by_logit = sorted(range(len(logits)), key=lambda i: (logits[i], ours[i]))
    assert (np.diff(ours.numpy()[by_logit]) >= 0).all()  # the likelier ones stayed


@pytest.mark.parametrize("seed", range(20))
def test_each_cut_equals_transformers_also_with_ties(seed):
    logits = torch.randint(-12, 12, (5, 300), generator=seeded(seed)) / 4  # many ties
    logits[2] = torch.randn(300, generator=seeded(seed))
    ids = torch.randint(300, (5, 40), generator=seeded(seed))
    pairs = [
        (processors.TemperatureLogitsWarper(0.7), {"temperature": 0.7}),
        (processors.TopKLogitsWarper(13), {"top_k": 13}),
        (processors.TopPLogitsWarper(0.8137), {"top_p": 0.8137}),
        (processors.MinPLogitsWarper(0.0731), {"min_p": 0.0731}),
    ]
    for process, setting in pairs:
        theirs = process(ids, logits.clone()).softmax(-1)
        ours = next_token_distribution(logits, **setting)
        assert torch.equal(ours > 0, theirs > 0), setting
        assert torch.allclose(ours, theirs, atol=1e-6), setting
    theirs = processors.RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone())
    assert torch.equal(penalize_repeats(logits, ids, 1.3), theirs)
    assert not torch.equal(theirs, logits)
    chain = processors.LogitsProcessorList(process for process, _ in pairs)
    together = {name: value for _, setting in pairs for name, value in setting.items()}
    ours = next_token_distribution(logits, **together)
    assert torch.allclose(ours, chain(ids, logits.clone()).softmax(-1), atol=1e-6)


def test_every_row_of_a_batch_is_treated_alone():
    logits = torch.randn(3, 4, 50, generator=seeded()) * 3
    how = {"temperature": 0.8, "top_k": 9, "top_p": 0.7}
    whole = next_token_distribution(logits, **how)
    for i in range(3):
        for j in range(4):
            alone = next_token_distribution(logits[i, j], **how)
            assert torch.allclose(whole[i, j], alone, atol=1e-6)


def test_ties_are_broken_as_documented():
    level = torch.zeros(1000)
    assert next_token_distribution(level, temperature=0)[0] == 1
    assert (keep_top_k(level.softmax(-1), 500) > 0).all()
    assert sorted(keep_top_p(torch.full((4,), 0.25), 0.5).tolist()) == [0, 0, 0.5, 0.5]


def test_extreme_settings_stay_distributions():
    logits = torch.tensor([3.0, 2.999, -torch.inf, -80.0])
    for temperature in (1e-45, 1e-9, 1e30):
        probs = next_token_distribution(logits, temperature=temperature)
        assert probs.sum() == pytest.approx(1) and probs[2] == 0
    assert next_token_distribution(logits, temperature=1e-9)[0] == 1
    assert keep_top_p(torch.tensor([0.7, 0.3]), 1e-9).tolist() == [1, 0]
    probs = torch.rand(1000, generator=seeded()).softmax(-1)
    assert (keep_top_p(probs, 1.0) > 0).all() and (keep_top_k(probs, 5000) > 0).all()
    half = next_token_distribution(logits.half(), top_p=0.9)
    assert half.dtype == torch.float32
    assert next_token_distribution(logits.double()).dtype == torch.float32


# --- drawing


def test_draws_have_the_shares_of_the_distribution():
    probs = torch.tensor([0.05, 0.0, 0.6, 0.35, 0.0])
    drawn = draw(probs.expand(200, 500, 5), generator=seeded())
    assert drawn.shape == (200, 500) and drawn.dtype == torch.int64
    shares = drawn.flatten().bincount(minlength=5) / 100_000
    assert (shares - probs).abs().max() < 4 * math.sqrt(0.25 / 100_000)
    assert shares[1] == 0 and shares[4] == 0


def test_draws_pass_a_chi_square_test():
    probs = torch.rand(50, generator=seeded(3)).square()
    drawn = draw(probs.expand(100_000, 50), generator=seeded(8))
    expected = 100_000 * (probs / probs.sum()).numpy()
    observed = drawn.bincount(minlength=50).numpy()
    assert scipy.stats.chisquare(observed, expected, sum_check=False).pvalue > 0.001
    other = np.roll(expected, 1)  # the test can fail
    assert scipy.stats.chisquare(observed, other, sum_check=False).pvalue < 1e-6


def test_a_draw_depends_on_its_generator_only():
    probs = torch.rand(40, 30, generator=seeded())  # rows need not sum to 1
    first = draw(probs, generator=seeded(5))
    torch.manual_seed(99)
    assert torch.equal(first, draw(probs, generator=seeded(5)))
    assert not torch.equal(first, draw(probs, generator=seeded(6)))
    # the number itself: a point on the stick (pinned, so that a seed stays a text)
    point = torch.rand(40, 1, dtype=torch.float64, generator=seeded(5))
    edges = probs.double().cumsum(-1)
    assert torch.equal(first, (edges <= point * edges[:, -1:]).sum(-1))


# --- the cache and the window


@pytest.mark.parametrize("cuts", [[16], [1] * 16, [5, 1, 1, 9], [7, 4, 5]])
@pytest.mark.parametrize("fused", [True, False])
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(model, cuts, fused):
    for block in model.blocks:
        block.attention.fused = fused
    ids = torch.randint(60, (3, 16), generator=seeded(1))
    cache, pieces, start = KVCache(SMALL, 3, 16), [], 0
    with torch.no_grad():
        for n in cuts:
            pieces.append(model(ids[:, start : start + n], cache))
            start += n
        whole = model(ids)
    for block in model.blocks:
        block.attention.fused = True
    assert cache.length == 16
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-4)


LATER = {
    "norm": "rms", "mlp": "swiglu", "positions": "rotary", "n_kv_heads": 1,
    "d_head": 10, "qk_norm": True, "bias": False, "rope_scaling": (4.0, 1.0, 4.0, 8),
}  # fmt: skip


@pytest.mark.parametrize(
    "fields", [LATER, {"positions": "sinusoidal"}, {"positions": "none"}]
)
def test_later_architectures_are_continued_with_a_cache_as_without(fields):
    model = make(GPTConfig(60, 16, 24, 2, 3, **fields))
    rows = generate(model, [[3, 1, 4, 1, 5], [9]], 40, temperature=0)
    assert rows == [slowly(model, p, 40) for p in ([3, 1, 4, 1, 5], [9])]


def test_the_cache_holds_the_keys_and_values_of_shared_heads_once():
    cache = KVCache(GPTConfig(60, 16, 24, 2, 4, n_kv_heads=2, d_head=10), 5, 11)
    assert cache.layers[0].keys.shape == (5, 2, 11, 10)
    assert len(cache.layers) == 2


def test_the_cache_has_the_size_of_the_formula():
    cache = KVCache(SMALL, 5, 11, dtype=torch.float16)
    held = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    assert sum(t.numel() * t.element_size() for t in held) == 2 * 2 * 5 * 11 * 24 * 2


@given(st.integers(1, 60), st.integers(0, 300))
@settings(deadline=None)
def test_the_window_fits_and_moves_by_half_a_context(context, length):
    start, half = window_start(length, context), max(1, context // 2)
    assert start % half == 0 and length - start <= context
    assert start == 0 if length <= context else length - start > context - half
    assert window_start(length + 1, context) >= start


# --- generate


def slowly(model: GPT, prompt: list[int], n: int) -> list[int]:
    """Greedy, without a cache, one text, every window cut by hand."""
    ids, C = list(prompt), model.config.context_length
    with torch.no_grad():
        for _ in range(n):
            start = 0
            while len(ids) - start > C:
                start += C // 2
            ids.append(model(torch.tensor([ids[start:]]))[0, -1].argmax().item())
    return ids


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_equals_a_loop_of_argmax_far_beyond_the_context(model, use_cache):
    prompt = [3, 1, 4, 1, 5]
    rows = generate(model, [prompt], 60, temperature=0, use_cache=use_cache)
    assert rows == [slowly(model, prompt, 60)]


PROMPT = st.lists(st.integers(0, 59), min_size=1, max_size=16)


@settings(deadline=None, max_examples=12)
@given(
    st.lists(PROMPT, min_size=1, max_size=5),
    st.integers(0, 25),
)
def test_prompts_of_any_lengths_together_equal_one_at_a_time(prompts, n):
    model = make()
    together = generate(model, prompts, n, temperature=0)
    assert together == [slowly(model, prompt, n) for prompt in prompts]


@pytest.mark.parametrize("how", [{}, {"top_k": 5}, {"top_p": 0.8, "temperature": 1.3}])
def test_a_seed_gives_the_same_text_with_and_without_cache(model, how):
    prompts = [[1, 2, 3], [4], list(range(16))]

    def run(seed, **more):
        return generate(model, prompts, 40, generator=seeded(seed), **how, **more)

    assert run(7) == run(7) == run(7, use_cache=False)
    assert run(7) != run(8)


def test_a_row_ends_before_its_stop_token_and_the_others_go_on(model):
    prompts = [[3, 1, 4], [9, 9], [20]]
    free = generate(model, prompts, 30, temperature=0)
    new = [row[len(p) :] for row, p in zip(free, prompts)]
    stop = new[0][4]
    stopped = generate(model, prompts, 30, temperature=0, stop_ids=[stop])
    for row, p, tokens in zip(stopped, prompts, new):
        wanted = tokens[: tokens.index(stop)] if stop in tokens else tokens
        assert row == p + wanted
    assert stopped[0] != free[0]
    # a stop token inside a prompt stops nothing
    inside = generate(model, [[stop, 7], [8]], 5, temperature=0, stop_ids=[stop])
    assert inside[0][:2] == [stop, 7]


def test_a_tensor_comes_back_as_a_tensor_unless_rows_may_end_early(model):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    out = generate(model, ids, 4, generator=seeded())
    assert out.shape == (2, 7) and out.dtype == torch.int64
    assert torch.equal(out[:, :3], ids)
    rows = generate(model, ids.tolist(), 4, generator=seeded())
    assert rows == out.tolist()
    assert isinstance(generate(model, ids, 4, stop_ids=[0]), list)
    assert torch.equal(generate(model, ids, 0), ids)
    assert generate(model, [[1], [2, 3]], 0) == [[1], [2, 3]]
    assert generate(model, [np.array([1, 2], dtype=np.uint16)], 0) == [[1, 2]]


def test_streaming_gives_the_same_tokens_one_by_one(model):
    how = {"top_p": 0.9, "temperature": 1.2}
    whole = generate(model, [[5, 6]], 40, generator=seeded(2), **how)[0]
    for ids in ([5, 6], torch.tensor([5, 6]), torch.tensor([[5, 6]])):
        assert list(stream(model, ids, 40, generator=seeded(2), **how)) == whole[2:]
    stop = whole[10]
    until = whole[2 : whole.index(stop, 2)]
    how["stop_ids"] = {stop}
    assert list(stream(model, [5, 6], 40, generator=seeded(2), **how)) == until
    first = stream(model, [5, 6], 10**6, generator=seeded(2), temperature=0)
    assert next(first) == slowly(model, [5, 6], 1)[-1]  # nobody waits for the rest


def test_a_model_in_training_mode_generates_without_dropout_and_stays_in_it():
    model = make(GPTConfig(60, 16, 24, 2, 3, dropout=0.5))
    quiet = generate(model, [[1, 2]], 30, temperature=0)
    model.train()
    assert generate(model, [[1, 2]], 30, temperature=0) == quiet
    assert model.training and model.blocks[1].training
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


PAIRS = [(False, 1), (True, 1), (False, 20)]


@pytest.mark.parametrize("grouped, batch", PAIRS)
def test_greedy_is_transformers_for_200_tokens_and_20_prompts(grouped, batch):
    """Prompts of one length, as transformers' batches want them."""
    if grouped:
        config = LlamaConfig(
            vocab_size=60, max_position_embeddings=256, hidden_size=24,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=40, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
    else:
        config = GPT2Config(
            vocab_size=60, n_positions=256, n_embd=24, n_layer=2, n_head=3,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn(p.shape) * 0.2)
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = from_pretrained(folder)
    prompts = torch.randint(60, (20, 12), generator=seeded(4))
    for ids in prompts.split(batch):
        rows = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=200,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        assert torch.equal(generate(ours, ids, 200, temperature=0), rows)


def test_greedy_draws_nothing_from_the_generator(model):
    g = seeded(5)
    before = g.get_state()
    generate(model, [[1, 2], [3]], 30, temperature=0, top_k=3, generator=g)
    assert torch.equal(g.get_state(), before)
    generate(model, [[1, 2]], 1, generator=g)
    assert not torch.equal(g.get_state(), before)


def test_a_repetition_penalty_sees_the_whole_text_so_far(model):
    prompts = [[3, 1, 4, 1, 5], [9, 2]]
    rows = generate(model, prompts, 40, temperature=0, repetition_penalty=1.4)
    for prompt, row in zip(prompts, rows):
        ids = list(prompt)
        while len(ids) < len(row):
            start = window_start(len(ids), 16)
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:]]))[:, -1]
            process = processors.RepetitionPenaltyLogitsProcessor(1.4)
            ids.append(process(torch.tensor([ids]), logits)[0].argmax().item())
        assert row == ids
    assert rows != generate(model, prompts, 40, temperature=0)


def test_rows_that_pad_the_vocabulary_are_never_drawn(model):
    free = generate(model, [[1]] * 20, 20, generator=seeded())
    assert max(max(row) for row in free) >= 30
    rows = generate(model, [[1]] * 20, 20, n_vocab=30, generator=seeded())
    assert max(max(row) for row in rows) < 30
    greedy = generate(model, [[1]], 60, n_vocab=30, temperature=0)[0]
    assert max(greedy) < 30


@pytest.mark.parametrize("other", ["subclass", "part", "hook", "method"])
def test_a_model_with_other_parts_speaks_with_its_own_forward(other):
    """The lean decoder must not stand in for a forward that computes something else."""
    class Louder(GPT):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs).roll(1, -1)

    class Rolled(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).roll(1, -1)

    model = Louder(SMALL, generator=seeded(1)) if other == "subclass" else make()
    if other == "part":
        model.head = Rolled(24, 60, bias=False)
    elif other == "hook":
        model.norm.register_forward_hook(lambda *args: args[-1].roll(1, -1))
    elif other == "method":
        plain = model.norm.forward
        model.norm.forward = lambda x: plain(x).roll(1, -1)
    model.eval()
    prompts = [[3, 1, 4], [9]]
    rows = generate(model, prompts, 30, temperature=0)
    assert rows == [slowly(model, p, 30) for p in prompts]


def test_a_model_with_other_parts_reads_each_token_once():
    class Counting(GPT):
        def forward(self, ids, *args, **kwargs):
            read.append(ids.shape[1])
            return super().forward(ids, *args, **kwargs)

    read, model = [], Counting(SMALL, generator=seeded(1))
    generate(model, [[3, 1, 4]], 6, temperature=0)
    assert read == [3, 1, 1, 1, 1, 1] and model.training


def test_wrapped_models_speak_like_the_model_inside(model):
    rows = generate(model, [[3, 1, 4], [9]], 30, temperature=0)
    compiled = torch.compile(model, backend="eager")
    assert generate(compiled, [[3, 1, 4], [9]], 30, temperature=0) == rows
    wrapped = torch.nn.Module()
    wrapped.module = model  # as DistributedDataParallel holds it
    assert list(stream(wrapped, [9], 30, temperature=0)) == rows[1][1:]


def test_a_stream_left_open_ends_quietly():
    program = """
from solutions.gpt import GPT, GPTConfig
from solutions.generation import stream
s = stream(GPT(GPTConfig(50, 16, 24, 2, 3)), [1, 2, 3], 10)
print(next(s))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.strip().isdigit()


@pytest.mark.parametrize("lengths", [(4, 4), (2, 5)], ids=["equal", "ragged"])
def test_a_prompt_is_read_once_and_then_the_decoder_steps(lengths, monkeypatch):
    model, reads, forward = make(), [], GPT.forward

    def counted(*args, **kwargs):
        reads.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(GPT, "forward", counted)
    generate(model, [[7] * n for n in lengths], 8)
    assert len(reads) == 1
    generate(model, [[7] * n for n in lengths], 8, use_cache=False)
    assert len(reads) == 1 + 8


def test_a_broken_model_is_not_followed_greedily():
    model = make()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN"):
        generate(model, [[1, 2]], 3, temperature=0)


def test_streaming_leaves_the_callers_gradients_on(model):
    for _ in stream(model, [1, 2], 3):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    out = generate(model, torch.tensor([[1, 2]]), 3)
    model(out[:, :5]).sum().backward()  # its ids can be trained on
    assert model.head.weight.grad is not None
    model.zero_grad(set_to_none=True)


# --- bad input

LOGITS = torch.tensor([1.0, 2.0])


def ntd(**how):
    return lambda model: next_token_distribution(LOGITS, **how)


def gen(ids=((1, 2),), n=3, **how):
    return lambda model: generate(model, ids, n, **how)


BAD = [
    (ntd(temperature=-0.1), "temperature=-0.1"),
    (ntd(temperature=math.nan), "temperature=nan"),
    (ntd(temperature=math.inf), "temperature=inf"),
    (ntd(top_k=0), "top_k=0"),
    (ntd(top_k=2.5), "top_k=2.5"),
    (ntd(top_p=0), "top_p=0"),
    (ntd(top_p=1.1), "top_p=1.1"),
    (ntd(top_p=math.nan), "top_p=nan"),
    (ntd(min_p=-0.1), "min_p=-0.1"),
    (ntd(min_p=1.5), "min_p=1.5"),
    (gen(repetition_penalty=0.0), "repetition_penalty=0.0"),
    (gen(repetition_penalty=-2), "repetition_penalty=-2"),
    (gen(n_vocab=0), "n_vocab=0"),
    (gen(n_vocab=61), r"n_vocab=61 must be in 1..vocab_size=60"),
    (gen(ids=[[1, 50]], n_vocab=50), r"ids\[0\] holds 50"),
    (lambda m: stream(m, [1], 3, temprature=1), "temprature"),
    (lambda m: next_token_distribution(LOGITS * math.nan), "logits holds NaN"),
    (lambda m: next_token_distribution(LOGITS * -math.inf), "logits holds"),
    (lambda m: draw(torch.tensor([0.0, 0.0])), "probs must be"),
    (lambda m: draw(torch.tensor([0.5, math.nan])), "probs must be"),
    (lambda m: draw(torch.tensor([1.5, -0.5])), "probs must be"),
    (gen(ids=[]), "ids is empty"),
    (gen(ids=[[1], []]), r"ids\[1\]: 0 tokens"),
    (gen(ids=[[1] * 17]), r"ids\[0\]: 17 tokens, not 1..context_length=16"),
    (gen(ids=torch.zeros(1, 17).long()), "context_length=16"),
    (gen(ids=[1, 2]), r"wrap a single one: \[ids\]"),
    (gen(ids=torch.tensor([1, 2])), r"wrap a single one: \[ids\]"),
    (gen(ids=torch.zeros(1, 2, 2).long()), r"ids\[0\] must be a list"),
    (gen(ids=[[1, 60]]), r"ids\[0\] holds 60, but ids are integers in 0..59"),
    (gen(ids=[[1], [-1]]), r"ids\[1\] holds -1"),
    (gen(ids=[[0.5]]), r"ids\[0\] holds 0.5"),
    (gen(ids=[[1, 60]], n=0), "holds 60"),
    (gen(n=-1), "max_new_tokens=-1"),
    (gen(n=2.0), "max_new_tokens=2.0"),
    (gen(stop_ids=[99]), "stop_ids holds 99"),
    (gen(stop_ids=5), r"stop_ids=5 must be a collection, as \[5\]"),
    (gen(generator=42), "generator=42"),
    (gen(top_k=0, n=0), "top_k=0"),
    (lambda m: stream(m, [], 3), r"ids\[0\]: 0 tokens"),
    (lambda m: stream(m, torch.ones(2, 2).long(), 3), "ids holds 2 prompts"),
    (lambda m: stream(m, [1], 3, temperature=-1), "temperature=-1"),
    (lambda m: stream(m, [1], -3), "max_new_tokens=-3"),
    (lambda m: m(torch.ones(2, 3).long(), KVCache(SMALL, 1, 8)), "no room for 2 rows"),
    (lambda m: m(torch.ones(1, 9).long(), KVCache(SMALL, 1, 8)), "rows of 9 tokens"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused_by_name(model, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(model)
