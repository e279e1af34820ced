"""Attention against PyTorch, against loops, and against the temptation to look ahead."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from solutions.attention import (
    CausalSelfAttention,
    RNNLanguageModel,
    attention,
    attention_weights,
    causal_mask,
    softmax,
)

FUSED = pytest.mark.parametrize("fused", [True, False], ids=["fused", "written_out"])


@pytest.fixture(autouse=True)
def seeded():
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Past:
    """The least that `cache` has to be."""

    def __init__(self):
        self.k = self.v = None

    def append(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], dim=2)
        self.v = v if self.v is None else torch.cat([self.v, v], dim=2)
        return self.k, self.v


# softmax


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=1, max_size=20),
    st.sampled_from([0, -1]),
)
def test_softmax_is_pytorchs_for_numbers_of_any_size(numbers, dim):
    x = torch.tensor(numbers)
    got = softmax(x, dim)
    assert torch.allclose(got, F.softmax(x, dim), atol=1e-6)
    assert math.isclose(got.sum().item(), 1, rel_tol=1e-5)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax_works_along_any_dimension(dim):
    x = 100 * torch.randn(3, 4, 5)
    assert torch.allclose(softmax(x, dim), F.softmax(x, dim), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.floats(-1000, 1000))
def test_softmax_does_not_change_when_all_scores_grow_alike(shift):
    x = torch.arange(5, dtype=torch.float64)
    assert torch.allclose(softmax(x + shift, 0), softmax(x, 0), atol=1e-12)


def test_minus_infinity_gets_exactly_nothing():
    got = softmax(torch.tensor([-torch.inf, 1e4, 1e4]), 0)
    assert got.tolist() == [0, 0.5, 0.5]


def test_gradients_of_the_softmax_are_right():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: softmax(x, 1), x)


# masks


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(0, 9))
def test_a_query_sees_itself_and_all_that_came_before(n_queries, past):
    n_keys = n_queries + past
    mask = causal_mask(n_queries, n_keys)
    assert mask.dtype == torch.bool and mask.shape == (n_queries, n_keys)
    for i in range(n_queries):
        for j in range(n_keys):
            assert mask[i, j].item() == (j <= past + i)
    assert mask[-1].all()


def test_without_a_past_the_mask_is_a_square():
    assert causal_mask(3).equal(causal_mask(3, 3))
    assert causal_mask(3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


# the function


def by_loops(q, k, v, mask):
    """(T_q, d), (T_k, d), (T_k, d_v): attention with Python numbers only."""
    rows = []
    for i in range(len(q)):
        powers = [
            math.exp(sum(a * b for a, b in zip(q[i].tolist(), key.tolist()))
                     / math.sqrt(len(key))) if mask[i, j] else 0.0
            for j, key in enumerate(k)
        ]  # fmt: skip
        columns = zip(*v.tolist())
        rows.append([sum(p * x for p, x in zip(powers, c)) / sum(powers) for c in columns])
    return torch.tensor(rows)


def test_attention_is_what_the_loops_compute():
    q, k, v = torch.randn(4, 3), torch.randn(6, 3), torch.randn(6, 5)
    for mask in (causal_mask(4, 6), torch.ones(4, 6, dtype=torch.bool)):
        assert torch.allclose(attention(q, k, v, mask), by_loops(q, k, v, mask), atol=1e-6)


def test_attention_by_hand():
    q, k = torch.tensor([[1.0, 3, 0, 0]]), torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0]])
    weights = attention_weights(q, k)  # scores 2 and 6, halved: 1 and 3
    expected = [1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)]
    assert torch.allclose(weights, torch.tensor([expected]))
    assert torch.allclose(attention(q, k, torch.tensor([[10.0], [0]])), 10 * weights[:, :1])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(1, 9),
    st.booleans(),
)
def test_attention_is_pytorchs_for_all_shapes(batch, n_queries, past, d, masked):
    n_keys = n_queries + past
    q = torch.randn(*batch, n_queries, d)
    k, v = torch.randn(*batch, n_keys, d), torch.randn(*batch, n_keys, d)
    mask = causal_mask(n_queries, n_keys) if masked else None
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(attention(q, k, v, mask), expected, atol=1e-5)


def test_values_may_have_another_size_than_keys():
    q, k, v = torch.randn(2, 4, 3), torch.randn(2, 5, 3), torch.randn(2, 5, 7)
    expected = F.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(attention(q, k, v), expected, atol=1e-6)


def test_a_mask_for_each_text_of_a_batch_is_broadcast_over_the_heads():
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    mask = (torch.rand(2, 1, 5, 5) < 0.5) | torch.eye(5, dtype=torch.bool)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(attention(q, k, v, mask), expected, atol=1e-6)


def test_gradients_of_attention_are_right():
    q, k, v = torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True).unbind()
    assert torch.autograd.gradcheck(lambda *x: attention(*x, causal_mask(4)), (q, k, v))


def test_huge_queries_do_not_overflow():
    q = k = 1e15 * torch.randn(4, 8)
    assert attention(q, k, torch.randn(4, 8), causal_mask(4)).isfinite().all()


def test_weights_are_never_negative_and_rows_sum_to_one():
    weights = attention_weights(*torch.randn(2, 3, 9, 4), causal_mask(9))
    assert weights.min() >= 0 and not weights.triu(1).any()
    assert torch.allclose(weights.sum(-1), torch.ones(3, 9))


def test_dropout_hits_the_weights_and_keeps_their_mean():
    q, k = torch.zeros(4000, 8), torch.zeros(10, 8)  # all weights 1/10
    v = torch.eye(10)  # so that the result is the weights themselves
    got = attention(q, k, v, dropout=0.25)
    assert got.unique().tolist() == pytest.approx([0, 0.1 / 0.75])
    assert (got == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert got.mean().item() == pytest.approx(0.1, abs=0.005)


# the layer


@FUSED
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_pytorchs_with_the_weights_carried_over(fused, bias):
    ours = CausalSelfAttention(24, 4, bias=bias, fused=fused)
    theirs = nn.MultiheadAttention(24, 4, bias=bias, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.out_proj.weight.copy_(ours.out.weight)
        if bias:
            theirs.in_proj_bias.copy_(ours.qkv.bias.normal_())
            theirs.out_proj.bias.copy_(ours.out.bias.normal_())
    x = torch.randn(3, 11, 24)
    expected, weights = theirs(
        x, x, x, attn_mask=~causal_mask(11), average_attn_weights=False
    )
    assert torch.allclose(ours(x), expected, atol=1e-5)
    q, k, _ = ours.split_heads(x)
    assert torch.allclose(attention_weights(q, k, causal_mask(11)), weights, atol=1e-6)
    ours(x).square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(ours.qkv.weight.grad, theirs.in_proj_weight.grad, atol=1e-4)


def test_fused_and_written_out_are_the_same_also_in_their_gradients():
    layer, x = CausalSelfAttention(16, 2), torch.randn(2, 33, 16)
    results = []
    for layer.fused in (True, False):
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        results.append((y, layer.qkv.weight.grad, layer.out.bias.grad))
    for fused, written_out in zip(*results):
        assert torch.allclose(fused, written_out, atol=1e-5)


def test_the_kernel_is_used_when_it_is_asked_for_and_only_then(monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        calls.append(1)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for fused, expected in [(False, 0), (True, 1)]:
        CausalSelfAttention(8, 2, fused=fused)(torch.randn(1, 4, 8))
        assert len(calls) == expected


def jacobian(layer, x):
    """(T, T): does output i depend on input j?"""
    full = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x)
    return full.abs().amax(dim=(1, 3)) > 0


@FUSED
@settings(deadline=None, max_examples=15)
@given(st.integers(2, 20), st.data())
def test_the_past_ignores_the_future(fused, length, data):
    changed_place = data.draw(st.integers(1, length - 1))
    layer, x = CausalSelfAttention(8, 2, fused=fused), torch.randn(2, length, 8)
    other = x.clone()
    other[:, changed_place:] = 100 * torch.randn(2, length - changed_place, 8)
    before, after = layer(x), layer(other)
    assert torch.allclose(before[:, :changed_place], after[:, :changed_place], atol=1e-6)
    assert not torch.allclose(before[:, changed_place], after[:, changed_place])


@FUSED
def test_gradients_reach_the_whole_past_and_nothing_else(fused):
    reached = jacobian(CausalSelfAttention(8, 2, fused=fused), torch.randn(9, 8))
    assert reached.equal(causal_mask(9))


@FUSED
@pytest.mark.parametrize(
    "cuts", [[10], [1] * 10, [4, 6], [7, 1, 1, 1], [1, 5, 4], [3, 3, 4]]
)
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(fused, cuts):
    layer, x = CausalSelfAttention(12, 3, fused=fused), torch.randn(2, 10, 12)
    cache = Past()
    pieces = [layer(piece, cache) for piece in x.split(cuts, dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), layer(x), atol=1e-6)
    assert cache.k.shape == cache.v.shape == (2, 3, 10, 4)


@FUSED
def test_a_text_does_not_see_the_others_of_its_batch(fused):
    layer, x = CausalSelfAttention(8, 2, fused=fused), torch.randn(3, 7, 8)
    alone = torch.cat([layer(text[None]) for text in x])
    assert torch.allclose(layer(x), alone, atol=1e-6)


@FUSED
def test_dropout_is_at_work_in_training_only(fused):
    layer, x = CausalSelfAttention(16, 2, dropout=0.5, fused=fused), torch.randn(2, 9, 16)
    assert not torch.allclose(layer(x), layer(x))
    plain = CausalSelfAttention(16, 2, fused=fused)
    plain.load_state_dict(layer.state_dict())
    assert torch.allclose(layer.eval()(x), plain(x), atol=1e-6)


def test_more_heads_cost_no_parameters():
    sizes = {
        sum(p.numel() for p in CausalSelfAttention(24, n_heads).parameters())
        for n_heads in (1, 2, 12, 24)
    }
    assert sizes == {4 * 24**2 + 4 * 24}


def test_the_layer_works_in_half_precision_and_keeps_nothing_but_weights():
    layer, x = CausalSelfAttention(16, 2).bfloat16(), torch.randn(1, 5, 16)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "out.weight", "out.bias"}


# the recurrent network


def test_the_rnn_is_pytorchs_with_the_weights_carried_over():
    ours, theirs = RNNLanguageModel(30, 12), nn.RNN(12, 12, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.from_input.weight)
        theirs.bias_ih_l0.copy_(ours.from_input.bias)
        theirs.weight_hh_l0.copy_(ours.from_past.weight)
        theirs.bias_hh_l0.zero_()
    ids = torch.randint(30, (4, 15))
    expected = ours.head(theirs(ours.embedding(ids))[0])
    assert ours(ids).shape == (4, 15, 30)
    assert torch.allclose(ours(ids), expected, atol=1e-5)


def test_the_rnn_reads_from_left_to_right():
    model, ids = RNNLanguageModel(9, 6), torch.randint(9, (2, 8))
    other = ids.clone()
    other[:, 5] = (ids[:, 5] + 1) % 9
    moved = (model(ids) - model(other)).abs().amax(dim=(0, 2))
    assert moved[:5].max() == 0 and moved[5:].min() > 0


def test_the_rnn_learns_to_count():
    model = RNNLanguageModel(5, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    ids = (torch.arange(13) + torch.arange(5)[:, None]) % 5  # 0 1 2 3 4 0 1 ...
    for _ in range(60):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


# bad input

x = torch.zeros
RNN = RNNLanguageModel
CSA = CausalSelfAttention
BAD = [
    (lambda: causal_mask(0), ValueError, "n_queries=0 must be at least 1"),
    (lambda: causal_mask(2.0), TypeError, "n_queries=2.0 must be an int"),
    (lambda: causal_mask(3, 2), ValueError, "n_keys=2 is fewer than n_queries=3"),
    (lambda: attention_weights(x(2, 3), x(2, 4)), ValueError, "q has 3 .* k has 4"),
    (
        lambda: attention_weights(x(2, 3), x(2, 3), x(2, 2)),
        TypeError,
        "mask must be bool .* got torch.float32",
    ),
    (
        lambda: attention_weights(x(2, 3), x(2, 3), causal_mask(2).tril(-1)),
        ValueError,
        "mask has a row of only False",
    ),
    (
        lambda: attention_weights(x(2, 3), x(2, 3), causal_mask(3)),
        ValueError,
        r"mask has shape \(3, 3\), but the scores have \(2, 2\)",
    ),
    (lambda: attention(x(2, 3), x(4, 3), x(5, 3)), ValueError, "k has 4 .* v has 5"),
    (
        lambda: attention(x(2, 3), x(2, 3), x(2, 3), dropout=1.0),
        ValueError,
        "dropout=1.0 must be at least 0 and below 1",
    ),
    (lambda: CSA(10, 3), ValueError, "d_model=10 is not divisible by n_heads=3"),
    (lambda: CSA(8, 0), ValueError, "n_heads=0 must be at least 1"),
    (lambda: CSA(8.0, 2), TypeError, "d_model=8.0 must be an int"),
    (lambda: CSA(8, 2, dropout=-0.1), ValueError, "dropout=-0.1 must be"),
    (lambda: CSA(8, 2, dropout=math.nan), ValueError, "dropout=nan must be"),
    (lambda: CSA(8, 2)(x(5, 8)), ValueError, r"x has shape \(5, 8\).*\(B, T, 8\)"),
    (lambda: CSA(8, 2)(x(1, 5, 9)), ValueError, r"x has shape \(1, 5, 9\)"),
    (lambda: CSA(8, 2)(x(1, 0, 8)), ValueError, r"x has shape \(1, 0, 8\)"),
    (lambda: RNN(0, 8), ValueError, "vocab_size=0 must be at least 1"),
    (lambda: RNN(5, "8"), TypeError, "d_model='8' must be an int"),
    (lambda: RNN(5, 8)(x(1, 3)), TypeError, "ids must be int64 or int32, got torch.fl"),
    (lambda: RNN(5, 8)(x(3).long()), ValueError, r"ids has shape \(3,\)"),
    (lambda: RNN(5, 8)(x(2, 0).long()), ValueError, r"ids has shape \(2, 0\)"),
    (lambda: RNN(5, 8)(x(1, 2).long() + 5), ValueError, r"ids spans 5..5, outside 0..4"),
    (lambda: RNN(5, 8)(x(1, 2).long() - 1), ValueError, r"ids spans -1..-1"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=[m for _, _, m in BAD])
def test_bad_input_is_named_and_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert re.search(message, str(caught.value)), caught.value
