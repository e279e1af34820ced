"""Chapter 3's module: lookup, its gradient, neighbors, three kinds of positions."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from solutions.embeddings import (
    LearnedPositions,
    TokenEmbedding,
    nearest_tokens,
    rotate,
    sinusoidal_positions,
)

quick = settings(deadline=None, max_examples=40)
sizes = st.integers(1, 12)
pairs = st.integers(1, 8).map(lambda n: 2 * n)
seeds = st.integers(0, 10_000)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Tokens


@quick
@given(sizes, sizes, st.lists(sizes, min_size=0, max_size=3), seeds)
def test_look_up_equals_one_hot_times_matrix_and_torch(vocab, d_model, shape, seed):
    g = seeded(seed)
    embedding = TokenEmbedding(vocab, d_model, generator=g)
    ids = torch.randint(vocab, shape, generator=g)
    vectors = embedding(ids)
    assert vectors.shape == (*shape, d_model)
    referee = nn.Embedding.from_pretrained(embedding.weight.detach())
    assert torch.equal(vectors, referee(ids))
    assert torch.equal(vectors, F.one_hot(ids, vocab).float() @ embedding.weight)


@quick
@given(sizes, sizes, st.integers(1, 30), seeds)
def test_gradients_equal_torchs_and_reach_only_the_rows_in_use(vocab, d, n, seed):
    g = seeded(seed)
    ours = TokenEmbedding(vocab, d, generator=g)
    theirs = nn.Embedding.from_pretrained(ours.weight.detach().clone(), freeze=False)
    ids, arriving = torch.randint(vocab, (n,), generator=g), 1 + torch.rand(n, d)
    (ours(ids) * arriving).sum().backward()
    (theirs(ids) * arriving).sum().backward()
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, atol=1e-5)
    used = torch.bincount(ids, minlength=vocab) > 0
    assert torch.equal(ours.weight.grad.abs().sum(1) > 0, used)


def test_the_table_is_the_only_parameter_and_starts_as_torchs_does():
    embedding = TokenEmbedding(1000, 64, generator=seeded())
    assert {n: p.shape for n, p in embedding.named_parameters()} == {
        "weight": (1000, 64)
    }
    assert abs(embedding.weight.mean().item()) < 0.02  # 64,000 draws: 5 sigma
    assert abs(embedding.weight.std().item() - 1) < 0.02
    nn.Embedding(1000, 64).load_state_dict(embedding.state_dict())


@pytest.mark.parametrize("kind", [TokenEmbedding, LearnedPositions])
def test_one_seed_gives_one_table_and_leaves_the_global_generator_alone(kind):
    state = torch.get_rng_state()
    a, b, other = (kind(9, 4, generator=seeded(s)).weight for s in (1, 1, 2))
    untouched = torch.equal(torch.get_rng_state(), state)
    assert untouched, "numbers came from PyTorch's global generator, not `generator`"
    assert torch.equal(a, b), "two tables drawn with the same seed differ"
    assert not torch.equal(a, other), "another seed gives the same table"


def test_a_table_can_be_built_and_called_without_memory():
    """On the device "meta", as under torch.compile, no id has a value to look at."""
    with torch.device("meta"):
        vectors = TokenEmbedding(9, 4)(torch.zeros(2, 3, dtype=torch.int64))
    assert vectors.is_meta and vectors.shape == (2, 3, 4)


def test_int32_ids_and_empty_ids_are_fine():
    embedding = TokenEmbedding(5, 3)
    ids = torch.tensor([[4, 0]], dtype=torch.int32)
    assert torch.equal(embedding(ids), embedding(ids.long()))
    assert embedding(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 3)


# Neighbors


@quick
@given(st.integers(2, 20), st.integers(1, 6), seeds)
def test_neighbors_equal_a_plain_sort_by_cosine(n, d, seed):
    g = seeded(seed)
    weight = torch.randn(n, d, generator=g, dtype=torch.float64)
    token, k = seed % n, 1 + seed % (n - 1)
    w = weight.tolist()

    def cosine(i):
        dot = sum(a * b for a, b in zip(w[token], w[i]))
        return dot / math.hypot(*w[token]) / math.hypot(*w[i])

    expected = sorted(set(range(n)) - {token}, key=lambda i: (-cosine(i), i))[:k]
    found = nearest_tokens(weight, token, k)
    assert [s for _, s in found] == pytest.approx([cosine(i) for i in expected])
    if d > 1:  # on a line all cosines are 1 or -1, up to rounding
        assert [i for i, _ in found] == expected


def test_neighbors_go_by_direction_ties_by_id_and_never_name_the_token_itself():
    weight = torch.tensor([[0.0, 2], [0, 1], [1, 0], [0, 9], [0, 0], [0, -1]])
    assert nearest_tokens(weight, 1) == [(0, 1), (3, 1), (2, 0), (4, 0), (5, -1)]
    assert nearest_tokens(weight, 3, k=1) == [(0, 1)]


def test_neighbors_of_a_trained_parameter_leave_it_as_it_was():
    embedding = TokenEmbedding(6, 3)
    before = embedding.weight.detach().clone()
    found = nearest_tokens(embedding.weight, 2, k=5)
    assert {i for i, _ in found} == {0, 1, 3, 4, 5}
    assert torch.equal(embedding.weight, before) and embedding.weight.grad is None


# Learned positions


def test_learned_positions_are_rows_of_the_table_from_any_start():
    positions = LearnedPositions(7, 4)
    assert torch.equal(positions(7), positions.weight)
    assert torch.equal(positions(3), positions.weight[:3])
    assert torch.equal(torch.cat([positions(2), positions(5, 2)]), positions.weight)
    assert positions(0, 7).shape == (0, 4)


def test_only_the_positions_in_use_learn():
    positions = LearnedPositions(7, 4)
    positions(3, start=2).sum().backward()
    assert positions.weight.grad.tolist() == [[float(2 <= t < 5)] * 4 for t in range(7)]


# Sinusoids


@pytest.mark.parametrize("length, d_model", [(1, 2), (5, 4), (600, 32), (40, 6)])
def test_sinusoids_equal_the_papers_formula(length, d_model):
    expected = [
        [
            (math.cos if i % 2 else math.sin)(t / 10_000 ** (2 * (i // 2) / d_model))
            for i in range(d_model)
        ]
        for t in range(length)
    ]
    got = sinusoidal_positions(length, d_model)
    assert got.dtype == torch.float32
    assert torch.allclose(got, torch.tensor(expected), atol=1e-6)


def test_a_longer_table_of_sinusoids_begins_with_the_shorter():
    assert torch.equal(sinusoidal_positions(90, 8)[:30], sinusoidal_positions(30, 8))


def test_dot_products_of_sinusoids_depend_only_on_the_distance():
    p = sinusoidal_positions(200, 32).double()
    dots = p @ p.T
    for distance in range(200):
        values = dots.diagonal(distance)
        assert torch.allclose(values, values[0].expand_as(values), atol=1e-5)
    assert dots[0, 0] > dots[0, 1] + 0.5 > dots[0, 2] + 1  # and they do differ


# Rotations


@quick
@given(st.lists(sizes, max_size=2), sizes, pairs, st.floats(2, 1e6), seeds)
def test_rotation_is_multiplication_by_a_complex_number(lead, T, d, base, seed):
    g = seeded(seed)
    x = torch.randn(*lead, T, d, generator=g, dtype=torch.float64)
    positions = torch.randint(-500, 500, (T,), generator=g)
    speed = torch.tensor([base ** (-2 * i / d) for i in range(d // 2)]).double()
    spin = torch.exp(1j * positions[:, None] * speed)
    z = torch.complex(x[..., ::2], x[..., 1::2]) * spin
    assert torch.allclose(
        rotate(x, positions, base=base), torch.view_as_real(z).flatten(-2), atol=1e-4
    )


@quick
@given(pairs, st.integers(-1000, 1000), seeds)
def test_only_the_distance_of_two_rotated_vectors_counts(d, offset, seed):
    g = seeded(seed)
    q, k = torch.randn(2, 1, d, generator=g, dtype=torch.float64).expand(2, 9, d)
    here = torch.arange(9)
    dots = rotate(q, here) @ rotate(k, here).T
    moved = rotate(q, here + offset) @ rotate(k, here + offset).T
    assert torch.allclose(dots, moved, atol=1e-9)
    for distance in range(-8, 9):
        values = dots.diagonal(distance)
        assert torch.allclose(values, values[0].expand_as(values), atol=1e-9)


def test_rotation_keeps_lengths_and_position_zero_and_adds_up():
    x = torch.randn(2, 3, 5, 8, generator=seeded(), dtype=torch.float64)
    a, b = torch.tensor([0, 1, 2, 50, 7]), torch.tensor([3, 0, 9, -50, 11])
    assert torch.equal(rotate(x, 0 * a), x)
    assert torch.allclose(rotate(x, a).norm(dim=-1), x.norm(dim=-1))
    assert torch.allclose(rotate(rotate(x, a), b), rotate(x, a + b))
    assert not torch.allclose(rotate(x, a), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rotation_keeps_the_type_and_is_as_exact_as_it_allows(dtype):
    x = torch.randn(3, 16, generator=seeded()).to(dtype)
    positions = torch.tensor([5, 4001, 999])
    exact = rotate(x.double(), positions)
    got = rotate(x, positions)
    assert got.dtype == dtype, f"x is {dtype}, but the result is {got.dtype}"
    atol = 5 * torch.finfo(dtype).eps if dtype != torch.float32 else 2e-3
    allowed = atol * x.abs().max().item()
    worst = (got.double() - exact).abs().max().item()
    assert worst <= allowed, (
        f"{dtype}: off by {worst:.2g}, more than {allowed:.2g}. Are the angles float32? "
        f"In {dtype}, positions such as 4001 cannot be told from their neighbors"
    )


def test_gradients_flow_back_through_a_rotation():
    x = torch.randn(4, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, torch.arange(4)), x)


def test_fractions_of_a_position_are_turned_too_as_interpolation_needs():
    x = torch.randn(6, 8, generator=seeded(), dtype=torch.float64)
    whole = rotate(x, torch.arange(6))
    twice = rotate(rotate(x, torch.arange(6) / 2), torch.arange(6) / 2)
    assert torch.allclose(twice, whole)


# Llama 3's scaling


def by_hand(speed, scaling):
    factor, low, high, length = scaling
    turns = length * speed / (2 * math.pi)
    if turns > high:
        return speed
    if turns < low:
        return speed / factor
    kept = (turns - low) / (high - low)
    return kept * speed + (1 - kept) * speed / factor


@quick
@given(
    st.integers(1, 40), st.floats(2, 1e6), st.floats(1, 32), st.floats(0.1, 3),
    st.floats(0.1, 8), st.integers(1, 10_000),
)  # fmt: skip
def test_scaling_slows_each_pair_by_the_turns_it_makes(n, base, f, low, more, length):
    scaling = (f, low, low + more, length)
    arrows = torch.tensor([[1.0, 0.0] * n], dtype=torch.float64)  # (1, 2n)
    tips = rotate(arrows, torch.tensor([1]), base=base, scaling=scaling)
    got = torch.atan2(tips[0, 1::2], tips[0, ::2])
    expected = [by_hand(base ** (-i / n), scaling) for i in range(n)]
    assert got.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_factor_of_one_changes_nothing():
    x = torch.randn(5, 16, generator=seeded(), dtype=torch.float64)
    scaled = rotate(x, torch.arange(5), scaling=(1, 1, 4, 64))
    assert torch.allclose(scaled, rotate(x, torch.arange(5)))


@pytest.mark.parametrize(
    "d, base, scaling",
    [
        (64, 500_000.0, (8, 1, 4, 8192)),  # Llama 3.1
        (128, 500_000.0, (32, 1, 4, 8192)),  # Llama 3.2
        (16, 10_000.0, (4, 0.5, 2, 100)),
    ],
)
def test_scaling_equals_hugging_faces_llama(d, base, scaling):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    factor, low, high, length = scaling
    config = llama.LlamaConfig(
        hidden_size=2 * d,
        num_attention_heads=2,
        max_position_embeddings=int(factor * length),
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": base,
            "factor": float(factor),
            "low_freq_factor": float(low),
            "high_freq_factor": float(high),
            "original_max_position_embeddings": length,
        },
    )
    positions = torch.tensor([0, 1, 2, 50, 900, 3001])
    q, k = torch.randn(2, 1, 3, 6, d, generator=seeded())  # (B, H, T, d) each
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, positions[None])
    theirs = llama.apply_rotary_pos_emb(q, k, cos, sin)
    for x, wanted in zip((q, k), theirs):
        pairs_of_halves = x.unflatten(-1, (2, d // 2)).mT.flatten(-2)
        got = rotate(pairs_of_halves, positions, base=base, scaling=scaling)
        in_halves = got.unflatten(-1, (d // 2, 2)).mT.flatten(-2)
        assert torch.allclose(in_halves, wanted, atol=1e-3)
    plain = rotate(q, positions, base=base)
    assert not torch.allclose(plain, rotate(q, positions, base=base, scaling=scaling))


# Bad input

IDS, W = torch.tensor([0, 1]), torch.zeros(5, 2)
X = (torch.ones(2, 4), IDS)
BAD = [
    (TokenEmbedding, (0, 4), {}, ValueError, "vocab_size=0 must be at least 1"),
    (TokenEmbedding, (4, -1), {}, ValueError, "d_model=-1 must be at least 1"),
    (TokenEmbedding, (4.0, 2), {}, TypeError, "vocab_size=4.0 must be an int"),
    (TokenEmbedding(3, 2), (IDS + 2,), {}, ValueError, "ids spans 2..3, outside 0..2"),
    (TokenEmbedding(3, 2), (IDS - 1,), {}, ValueError, "ids spans -1..0, outside 0..2"),
    (TokenEmbedding(3, 2), (IDS.float(),), {}, TypeError, "int64 or int32.*float32"),
    (TokenEmbedding(3, 2), (IDS.bool(),), {}, TypeError, "int64 or int32.*bool"),
    (LearnedPositions, (0, 4), {}, ValueError, "context_length=0 must be at least 1"),
    (LearnedPositions, (4, 0), {}, ValueError, "d_model=0 must be at least 1"),
    (LearnedPositions(3, 2), (4,), {}, ValueError, "length=4 .* context_length=3"),
    (LearnedPositions(3, 2), (2, 2), {}, ValueError, "length=2 from start=2"),
    (LearnedPositions(3, 2), (-1,), {}, ValueError, "length=-1"),
    (LearnedPositions(3, 2), (1, -1), {}, ValueError, "start=-1"),
    (sinusoidal_positions, (0, 4), {}, ValueError, "context_length=0"),
    (sinusoidal_positions, (4, 3), {}, ValueError, "d_model=3 must be even"),
    (rotate, (torch.ones(2, 3), IDS), {}, ValueError, "dimension=3 must be even"),
    (rotate, (torch.ones(2, 0), IDS), {}, ValueError, "dimension=0 must be even"),
    (rotate, (torch.ones(3, 4), IDS), {}, ValueError, r"\(2,\) and x .* \(3, 4\)"),
    (rotate, (torch.ones(2), IDS), {}, ValueError, r"x of shape \(2,\) do not fit"),
    (rotate, (torch.ones(2, 4).int(), IDS), {}, TypeError, "floating point.*int32"),
    (rotate, (torch.ones(2, 4), IDS), {"base": 0}, ValueError, "base=0 must be above"),
    (rotate, X, {"scaling": (8, 1, 4)}, ValueError, r"4\) must be four numbers"),
    (rotate, X, {"scaling": (8, 1, 4, "a")}, ValueError, "'a'\\) must be four numbers"),
    (rotate, X, {"scaling": (0.5, 1, 4, 9)}, ValueError, "factor of at least 1"),
    (rotate, X, {"scaling": (8, 0, 4, 9)}, ValueError, "two numbers of turns"),
    (rotate, X, {"scaling": (8, 4, 4, 9)}, ValueError, "the lower first"),
    (rotate, X, {"scaling": (8, 1, 4, 0)}, ValueError, "length that was trained on"),
    (nearest_tokens, (W, 5), {}, ValueError, "token_id=5 is outside 0..4"),
    (nearest_tokens, (W, -1), {}, ValueError, "token_id=-1 is outside 0..4"),
    (nearest_tokens, (W, 0, 0), {}, ValueError, "k=0 must be at least 1"),
    (nearest_tokens, (W, 0, 5), {}, ValueError, "k=5 must be .* below the 5 tokens"),
    (nearest_tokens, (W[0], 0), {}, ValueError, r"weight has shape \(2,\)"),
]


@pytest.mark.parametrize(
    "call, args, options, error, message", BAD, ids=[row[4] for row in BAD]
)
def test_bad_input_is_named_with_its_value(call, args, options, error, message):
    with pytest.raises(error, match=message):
        call(*args, **options)
