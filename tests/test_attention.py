"""Attention against PyTorch, against loops, and against the temptation to look ahead."""

import copy
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
    LayerCache,
    RMSNorm,
    RNNLanguageModel,
    attention,
    attention_weights,
    causal_mask,
    new_linear,
    softmax,
)
from solutions.embeddings import rotate

FUSED = pytest.mark.parametrize("fused", [True, False], ids=["fused", "written_out"])


@pytest.fixture(autouse=True)
def seeded():
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_cache(layer, batch_size, room):
    shape = (batch_size, layer.n_kv_heads, room, layer.d_head)
    return LayerCache(torch.zeros(shape), torch.zeros(shape))


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


def test_the_mask_is_made_where_it_is_used():
    assert causal_mask(2, 3, device="meta").device.type == "meta"
    x = torch.empty(1, 5, 8, device="meta")
    for fused in (True, False):
        layer = CausalSelfAttention(8, 2, n_kv_heads=1, fused=fused).to("meta")
        memory = torch.empty(1, 1, 9, 4, device="meta")
        cache = LayerCache(memory, memory.clone())
        assert layer(x).device.type == "meta"
        layer(x[:, :2], cache)
        assert layer(x[:, 2:], cache).shape == (1, 3, 8)  # new queries after a past


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


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str
)
@pytest.mark.parametrize("n_queries", [1, 4, 9])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_pytorchs_forward_and_backward(dtype, tolerance, n_queries, masked):
    q, k, v = torch.randn(3, 2, 3, 9, 8).to(dtype)
    q, mask = q[..., :n_queries, :], causal_mask(n_queries, 9) if masked else None

    def run(function, dtype):
        inputs = [t.to(dtype).detach().requires_grad_() for t in (q, k, v)]
        y = function(*inputs, mask)
        assert y.dtype == dtype
        gradients = torch.autograd.grad(y.square().sum(), inputs)
        return [t.double() for t in (y.detach(), *gradients)]

    exact = run(attention, torch.float64)
    for function in (attention, F.scaled_dot_product_attention):
        for got, expected in zip(run(function, dtype), exact):
            assert torch.allclose(got, expected, atol=tolerance, rtol=tolerance)


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


def with_repeated_heads(grouped):
    """The same layer with every key and value head stored once for each query head."""
    H, G, d = grouped.n_heads, grouped.n_kv_heads, grouped.d_head
    D, bias = grouped.qkv.in_features, grouped.qkv.bias is not None
    layer = CausalSelfAttention(D, H, d_head=d, bias=bias, fused=grouped.fused)
    rows = torch.arange((H + 2 * G) * d).view(-1, d)  # (H + 2 G, d)
    q, k, v = rows.split([H, G, G])
    each = H // G
    copies = torch.cat([q, k.repeat_interleave(each, 0), v.repeat_interleave(each, 0)])
    with torch.no_grad():
        layer.qkv.weight.copy_(grouped.qkv.weight[copies.flatten()])
        if bias:
            layer.qkv.bias.copy_(grouped.qkv.bias[copies.flatten()])
    layer.out.load_state_dict(grouped.out.state_dict())
    return layer, copies.flatten()


@FUSED
@pytest.mark.parametrize("n_kv_heads, d_head, bias", [(1, None, True), (2, 5, False),
                                                      (3, 8, True), (6, 3, True)])  # fmt: skip
def test_grouped_queries_are_repeated_heads_also_in_gradients(
    fused, n_kv_heads, d_head, bias
):
    ours = CausalSelfAttention(
        12, 6, n_kv_heads=n_kv_heads, d_head=d_head, bias=bias, fused=fused
    )
    theirs, copies = with_repeated_heads(ours)
    x, weight = torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    y, expected = ours(x), theirs(x)
    assert torch.allclose(y, expected, atol=1e-6)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    summed = torch.zeros_like(ours.qkv.weight).index_add(0, copies, theirs.qkv.weight.grad)
    assert torch.allclose(ours.qkv.weight.grad, summed, atol=1e-5)
    assert torch.allclose(ours.out.weight.grad, theirs.out.weight.grad, atol=1e-5)


@FUSED
def test_grouped_queries_are_pytorchs(fused):
    layer, x = CausalSelfAttention(24, 6, n_kv_heads=2, fused=fused), torch.randn(2, 9, 24)
    q, k, v = layer.split_heads(x)
    assert q.shape == (2, 6, 9, 4) and k.shape == v.shape == (2, 2, 9, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    expected = layer.out(y.transpose(1, 2).reshape(2, 9, 24))
    assert torch.allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize("n_heads, n_kv_heads, d_head", [(4, 4, 16), (4, 2, 3), (3, 1, 1)])
def test_heads_may_have_any_width(n_heads, n_kv_heads, d_head):
    layer = CausalSelfAttention(10, n_heads, n_kv_heads=n_kv_heads, d_head=d_head)
    assert layer.qkv.weight.shape == ((n_heads + 2 * n_kv_heads) * d_head, 10)
    assert layer.out.weight.shape == (10, n_heads * d_head)
    x = torch.randn(2, 5, 10)
    results = []
    for layer.fused in (True, False):
        results.append(layer(x))
    assert results[0].shape == x.shape and torch.allclose(*results, atol=1e-6)
    assert jacobian(layer, x[0]).equal(causal_mask(5))


@FUSED
@pytest.mark.parametrize(
    "extra",
    [{}, {"n_kv_heads": 2}, {"d_head": 3, "qk_norm": True}, {"rotate": rotate}],
    ids=" ".join,
)
def test_gradients_of_the_layer_are_right(fused, extra):
    layer = CausalSelfAttention(8, 4, fused=fused, **extra).double()
    x = torch.randn(1, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    names, values = zip(*layer.named_parameters())

    def of_parameters(*values):
        return torch.func.functional_call(layer, dict(zip(names, values)), x.detach())

    assert torch.autograd.gradcheck(of_parameters, values)


@FUSED
def test_with_qk_norm_the_size_of_queries_and_keys_does_not_matter(fused):
    layer, x = CausalSelfAttention(16, 2, qk_norm=True, fused=fused), torch.randn(3, 7, 16)
    before = layer(x)
    for rows in (slice(0, 16), slice(16, 32)):  # queries, keys
        with torch.no_grad():
            layer.qkv.weight[rows] *= 1000
            layer.qkv.bias[rows] *= 1000
        assert torch.allclose(layer(x), before, atol=1e-4)
    q, k, _ = layer.split_heads(x)
    q, k = layer.q_norm(q), layer.k_norm(k)
    assert torch.allclose(q.square().mean(-1), torch.ones(3, 2, 7), atol=1e-4)
    assert (q @ k.mT / math.sqrt(8)).abs().max() <= math.sqrt(8) + 1e-4


def test_rotary_positions_make_attention_relative():
    layer, x = CausalSelfAttention(8, 2, rotate=rotate), torch.randn(2, 6, 8)
    assert torch.allclose(layer(x), layer(x, start=37), atol=1e-5)
    plain = CausalSelfAttention(8, 2)
    plain.load_state_dict(layer.state_dict())
    assert not torch.allclose(layer(x), plain(x), atol=1e-3)


def test_rms_norm_is_its_formula_and_keeps_the_dtype():
    norm, x = RMSNorm(8, eps=1e-6), torch.randn(3, 8)
    with torch.no_grad():
        norm.weight.normal_()
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


@FUSED
@pytest.mark.parametrize(
    "extra", [{}, {"n_kv_heads": 1}, {"qk_norm": True, "rotate": rotate}], ids=" ".join
)
def test_the_layer_compiles_without_a_break(fused, extra):
    torch._dynamo.reset()
    layer = CausalSelfAttention(8, 2, fused=fused, **extra)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(2, 5, 8)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)


MAKERS = [
    lambda g: CausalSelfAttention(8, 4, n_kv_heads=2, generator=g),
    lambda g: RNNLanguageModel(11, 6, generator=g),
    lambda g: new_linear(7, 5, generator=g),
]


@pytest.mark.parametrize("make", MAKERS, ids=["attention", "rnn", "linear"])
def test_a_generator_draws_all_and_leaves_the_global_one_alone(make):
    before = torch.get_rng_state()
    models = [make(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    untouched = torch.get_rng_state().equal(before)
    assert untouched, "numbers came from PyTorch's global generator, not `generator`"
    one, same, other = [torch.cat([p.flatten() for p in m.parameters()]) for m in models]
    assert one.equal(same), "two modules drawn with the same seed differ"
    assert not one.isclose(other).any(), "some weights do not come from `generator`"
    make(None)
    drawn = not torch.get_rng_state().equal(before)
    assert drawn, "without a generator, weights come from PyTorch's global one"


def test_new_linear_starts_as_pytorchs():
    ours, theirs = new_linear(400, 300), nn.Linear(400, 300)
    for name, p in theirs.named_parameters():
        mine = getattr(ours, name)
        assert mine.shape == p.shape and mine.requires_grad
        assert mine.abs().max() <= 1 / 20 and abs(mine.std() / p.std() - 1) < 0.15
    assert new_linear(3, 2, bias=False).bias is None


def test_a_cache_refuses_what_does_not_fit():
    cache = LayerCache(torch.zeros(2, 1, 4, 3), torch.zeros(2, 1, 4, 3))
    k = torch.randn(2, 1, 3, 3)
    keys, values = cache.append(k, -k)
    assert keys.equal(k) and values.equal(-k) and cache.length == 3
    for wrong in (k, k[:1, :, :1]):  # too long, another batch
        with pytest.raises(ValueError, match="no room"):
            cache.append(wrong, wrong)
    assert cache.length == 3 and cache.keys[:, :, :3].equal(k)


def jacobian(layer, x):
    """(T, T): does output i depend on input j?"""
    full = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x)
    return full.abs().amax(dim=(1, 3)) > 0


@FUSED
@settings(deadline=None, max_examples=15)
@given(st.integers(2, 20), st.data())
def test_the_past_ignores_the_future(fused, length, data):
    changed_at = data.draw(st.integers(1, length - 1))
    layer, x = CausalSelfAttention(8, 2, fused=fused), torch.randn(2, length, 8)
    other = x.clone()
    other[:, changed_at:] = 100 * torch.randn(2, length - changed_at, 8)
    before, after = layer(x), layer(other)
    assert torch.allclose(before[:, :changed_at], after[:, :changed_at], atol=1e-6)
    assert not torch.allclose(before[:, changed_at], after[:, changed_at])


@FUSED
def test_gradients_reach_the_whole_past_and_nothing_else(fused):
    reached = jacobian(CausalSelfAttention(8, 2, fused=fused), torch.randn(9, 8))
    assert reached.equal(causal_mask(9))


@FUSED
@pytest.mark.parametrize(
    "cuts", [[10], [1] * 10, [4, 6], [7, 1, 1, 1], [1, 5, 4], [3, 3, 4]]
)
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(fused, cuts):
    x = torch.randn(2, 10, 12)
    for extra in ({}, {"n_kv_heads": 2, "rotate": rotate, "qk_norm": True}):
        layer = CausalSelfAttention(12, 6, fused=fused, **extra).requires_grad_(False)
        cache, pieces = new_cache(layer, 2, room=12), []
        for piece in x.split(cuts, dim=1):
            pieces.append(layer(piece, cache, start=cache.length))
        assert torch.allclose(torch.cat(pieces, dim=1), layer(x), atol=1e-6)
        assert cache.length == 10 and not cache.keys[:, :, 10:].any()


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


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_in_bfloat16_the_layer_is_itself_up_to_rounding(n_kv_heads):
    layer = CausalSelfAttention(32, 4, n_kv_heads=n_kv_heads).bfloat16()
    with torch.no_grad():
        layer.qkv.weight *= 4  # so that the weights are far from equal
    x = torch.randn(2, 40, 32).bfloat16()
    short, expected = layer(x), copy.deepcopy(layer).double()(x.double())
    assert (short.double() - expected).norm() < 0.03 * expected.norm()
    layer.fused = False
    assert (layer(x).double() - expected).norm() < 0.03 * expected.norm()


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
    (lambda: causal_mask(True), TypeError, "n_queries=True must be an int"),
    (lambda: causal_mask(1, True), TypeError, "n_keys=True must be an int"),
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
    (
        lambda: attention_weights(x(5, 2, 3), x(5, 2, 3), x(4, 2, 2) == 0),
        ValueError,
        r"mask has shape \(4, 2, 2\), but the scores have \(5, 2, 2\)",
    ),
    (lambda: attention(x(2, 3), x(4, 3), x(5, 3)), ValueError, "k has 4 .* v has 5"),
    (
        lambda: attention(x(2, 3), x(2, 3), x(2, 3), dropout=1.0),
        ValueError,
        "dropout=1.0 must be at least 0 and below 1",
    ),
    (lambda: CSA(10, 3), ValueError, "d_model=10 is not divisible by n_heads=3"),
    (lambda: CSA(8, 0), ValueError, "n_heads=0 must be at least 1"),
    (lambda: CSA(8, 4, n_kv_heads=3), ValueError, "n_heads=4 is not .* n_kv_heads=3"),
    (lambda: CSA(8, 4, n_kv_heads=0), ValueError, "n_kv_heads=0 must be at least 1"),
    (lambda: CSA(8, 4, n_kv_heads=True), TypeError, "n_kv_heads=True must be an int"),
    (lambda: CSA(8, 4, d_head=0), ValueError, "d_head=0 must be at least 1"),
    (lambda: CSA(8, 4, d_head=2.0), TypeError, "d_head=2.0 must be an int"),
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


def test_rms_norm_keeps_the_dtype_of_its_input():
    norm, x = RMSNorm(8), torch.randn(3, 8)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
    found = norm(x.bfloat16())
    assert norm.weight.dtype == torch.float32 and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(x), atol=0.03, rtol=0.02)
