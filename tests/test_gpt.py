"""Chapter 5's module against torch, transformers and PyTorch's own FLOP counter."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from solutions.generation import save_pretrained
from solutions.gpt import (
    GPT,
    Block,
    FeedForward,
    GPTConfig,
    LayerNorm,
    gelu,
    initialise_weights,
)

SMALL = GPTConfig(50, 16, d_model=32, n_layers=3, n_heads=4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_gpt(**changes) -> GPT:
    """A GPT whose every parameter, biases and scales too, is far from its start."""
    config = GPTConfig(**(vars(SMALL) | changes))
    model, generator = GPT(config, generator=seeded()), seeded(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model.eval()


def some_ids(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=seeded(seed))


# --- the parts ------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_layer_norm_is_its_six_steps(shape, scale, bias, seed):
    D = shape[-1]
    x = scale * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)
    norm = LayerNorm(D, bias=bias).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, D))
        if bias:
            norm.bias.copy_(torch.linspace(-1, 1, D))
    centred = x - x.sum(-1, keepdim=True) / D
    variance = (centred * centred).sum(-1, keepdim=True) / D
    expected = centred / (variance + 1e-5) ** 0.5 * norm.weight
    expected = expected + norm.bias if bias else expected
    assert torch.allclose(norm(x), expected, rtol=1e-7, atol=1e-9)


def test_layer_norm_of_equal_features_is_its_shift():
    norm = LayerNorm(4)
    nn.init.constant_(norm.bias, 3.0)
    assert norm(torch.full((2, 4), 7.0)).tolist() == [[3.0] * 4] * 2


def test_gelu_is_the_tanh_form_and_near_the_exact_one():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    by_hand = [
        v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        for v in x.tolist()
    ]
    exact = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    assert gelu(x).tolist() == pytest.approx(by_hand, abs=1e-12)
    gap = max(abs(a - b) for a, b in zip(gelu(x).tolist(), exact, strict=True))
    assert 1e-4 < gap < 5e-4


def test_feed_forward_treats_each_position_alone():
    network, x = FeedForward(8), torch.randn(2, 5, 8, generator=seeded())
    alone = torch.stack([network(x[:, t]) for t in range(5)], dim=1)
    assert torch.allclose(network(x), alone, atol=1e-6)


# --- the block ------------------------------------------------------------------------


@pytest.mark.parametrize("n_heads", [1, 4])
def test_block_is_torchs_encoder_layer(n_heads):
    block = Block(GPTConfig(50, 16, 32, 1, n_heads)).double()
    generator = seeded()
    with torch.no_grad():
        for p in block.parameters():
            p.normal_(0, 0.3, generator=generator)
    layer = nn.TransformerEncoderLayer(
        32, n_heads, 128, 0.0, activation=gelu, batch_first=True, norm_first=True
    ).double()
    ours = block.state_dict()
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "feed_forward.up.",
        "linear2.": "feed_forward.down.",
    }
    carried = {}
    for name in layer.state_dict():
        source = name
        for theirs, mine in names.items():
            source = source.replace(theirs, mine)
        carried[name] = ours.pop(source)
    assert not ours, "a parameter of the block has no counterpart"
    layer.load_state_dict(carried)
    x = torch.randn(2, 16, 32, generator=generator, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(16, dtype=torch.float64)
    assert torch.allclose(block(x), layer(x, src_mask=mask), rtol=0, atol=1e-12)


# --- the whole ------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_gpt_is_hugging_faces_gpt2(tmp_path, tied):
    transformers = pytest.importorskip("transformers")
    model, ids = small_gpt(tie_embeddings=tied), some_ids(2, 16)
    save_pretrained(model, tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4)
    assert theirs.num_parameters() == model.n_parameters()


def test_gpt_takes_weights_that_hugging_face_made():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=3, n_head=4,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    generator = seeded(3)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    source, model = theirs.transformer.state_dict(), GPT(SMALL).eval()
    short = {
        "tokens": "wte", "positions": "wpe", "blocks": "h", "norm1": "ln_1",
        "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
        "norm2": "ln_2", "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj", "norm": "ln_f",
    }  # fmt: skip
    with torch.no_grad():
        for name, p in model.named_parameters():
            for ours, his in short.items():
                name = name.replace(ours + ".", his + ".")
            value = source[name]  # their matrices in blocks are (inputs, outputs)
            is_matrix = name.startswith("h.") and value.ndim == 2
            p.copy_(value.T if is_matrix else value)
        ids = some_ids(2, 16)
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4)


@given(cut=st.integers(1, 15), seed=st.integers(0, 99), fused=st.booleans())
@settings(deadline=None, max_examples=15)
def test_the_past_ignores_the_future(cut, seed, fused):
    model = small_gpt()
    for block in model.blocks:
        block.attention.fused = fused
    ids = some_ids(2, 16, seed=seed)
    other = ids.clone()
    other[:, cut:] = (other[:, cut:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.allclose(before[:, :cut], after[:, :cut], atol=1e-6)
    assert not torch.allclose(before[:, cut], after[:, cut], atol=1e-3)


def test_every_place_hears_every_earlier_one_and_no_later_one():
    model, T = small_gpt(), 8
    x = (model.tokens(some_ids(1, T)) + model.positions(T)).detach().requires_grad_()
    stream = x
    for block in model.blocks:
        stream = block(stream)
    logits = model.head(model.norm(stream))
    for t in range(T):
        said = logits[0, t].square().sum()
        (gradient,) = torch.autograd.grad(said, x, retain_graph=True)
        assert (gradient[0].norm(dim=-1) > 0).tolist() == [s <= t for s in range(T)]


def test_a_shorter_text_gets_the_same_logits():
    model, ids = small_gpt(), some_ids(2, 16)
    with torch.no_grad():
        assert torch.allclose(model(ids)[:, :5], model(ids[:, :5]), atol=1e-5)


def test_texts_of_a_batch_do_not_meet():
    model, ids = small_gpt(), some_ids(3, 16)
    with torch.no_grad():
        alone = torch.cat([model(row[None]) for row in ids])
        assert torch.allclose(model(ids), alone, atol=1e-5)


def test_places_matter():
    model = small_gpt()
    with torch.no_grad():
        said = model(torch.full((1, 16), 7))[0]  # the same token sixteen times
    assert (said[1:] - said[:-1]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("V", [10, 1000])
def test_loss_at_the_start_is_ln_v(V, tied):
    config = GPTConfig(V, 32, 64, 4, 4, tie_embeddings=tied)
    model = GPT(config, generator=seeded())
    ids = torch.randint(V, (8, 32), generator=seeded(1))
    targets = torch.randint(V, (8, 32), generator=seeded(2))
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(math.log(V), abs=0.1)


def test_one_batch_can_be_learned_by_heart():
    model, ids = GPT(SMALL, generator=seeded()), some_ids(2, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(60):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_every_parameter_gets_a_gradient():
    for tied in (True, False):
        model = GPT(GPTConfig(**(vars(SMALL) | {"tie_embeddings": tied})))
        model(some_ids(2, 16)).square().mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.any(), name


def test_tied_gradients_add_up():
    tied = small_gpt()
    untied = GPT(GPTConfig(**(vars(SMALL) | {"tie_embeddings": False}))).eval()
    untied.load_state_dict(tied.state_dict())
    assert untied.head.weight is not untied.tokens.weight
    assert tied.head.weight is tied.tokens.weight
    for model in (tied, untied):
        model(some_ids(2, 16)).square().mean().backward()
    both = untied.tokens.weight.grad + untied.head.weight.grad
    assert torch.allclose(tied.tokens.weight.grad, both, rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_only():
    model, ids = small_gpt(dropout=0.5), some_ids(1, 16)
    without = small_gpt()
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), without(ids))
    model.train()
    assert not torch.allclose(model(ids), model(ids))


def test_dropout_falls_on_the_embeddings_and_on_both_writes():
    model, seen = small_gpt(dropout=0.5).train(), []
    block = model.blocks[0]
    block.register_forward_hook(lambda module, x, y: seen.extend([x[0], y - x[0]]))
    torch.manual_seed(0)
    model(some_ids(8, 16))
    start, written = seen
    assert (start == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (written == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


# --- first weights --------------------------------------------------------------------


def test_first_weights_are_gpt2s():
    model = GPT(GPTConfig(400, 128, 128, 8, 4), generator=seeded())
    for name, p in model.named_parameters():
        if p.ndim == 2:
            writes = "attention.out" in name or "feed_forward.down" in name
            expected = 0.02 / math.sqrt(16) if writes else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(p.mean().item()) < expected / 20, name
        else:
            assert (p == (0.0 if name.endswith("bias") else 1.0)).all(), name


def test_the_generator_alone_decides_the_weights():
    def drawn(seed):
        model = GPT(SMALL, generator=seeded(seed))
        return torch.cat([p.flatten() for p in model.parameters()])

    torch.manual_seed(1)
    first = drawn(5)
    torch.manual_seed(2)
    assert torch.equal(first, drawn(5))
    assert not torch.equal(first, drawn(6))


def test_depth_does_not_make_the_stream_grow():
    def size(n_layers):
        config = GPTConfig(50, 32, 64, n_layers, 4)
        model = GPT(config, generator=seeded())
        x = model.tokens(some_ids(2, 32)) + model.positions(32)
        for block in model.blocks:
            x = block(x)
        return x.square().mean().sqrt().item()

    with torch.no_grad():
        assert size(32) == pytest.approx(size(4), rel=0.1)


# --- counting -------------------------------------------------------------------------

COUNTS = {
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
}


@pytest.mark.parametrize("name", COUNTS)
def test_gpt2_sizes_have_their_published_names(name):
    with torch.device("meta"):
        model = GPT(GPTConfig.gpt2(name))
    assert model.n_parameters() == COUNTS[name]
    assert f"{model.n_parameters() / 1e6:.0f}M" == name


@given(
    V=st.integers(1, 60), T=st.integers(1, 20), H=st.integers(1, 3),
    d=st.integers(1, 8), n=st.integers(1, 4), bias=st.booleans(), tied=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_parameters_follow_the_formula(V, T, H, d, n, bias, tied):
    D = H * d
    config = GPTConfig(V, T, D, n, H, bias=bias, tie_embeddings=tied)
    with torch.device("meta"):
        model = GPT(config)
    blocks = n * (12 * D**2 + (13 if bias else 2) * D)
    rest = blocks + (2 if bias else 1) * D + (0 if tied else V * D)
    assert model.n_parameters() == V * D + T * D + rest
    assert model.n_parameters(embeddings=False) == rest


@pytest.mark.parametrize(
    "config",
    [GPTConfig(100, 32, 48, 3, 4), GPTConfig(37, 8, 16, 1, 1, bias=False)],
)
def test_flops_are_what_torch_counts(config):
    model = GPT(config)
    for block in model.blocks:
        block.attention.fused = False
    ids = torch.zeros(2, config.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    forward_and_backward = counter.get_total_flops() / ids.numel()
    with FlopCounterMode(display=False) as counter:
        model(ids)
    assert counter.get_total_flops() / ids.numel() == model.flops_per_token()
    assert forward_and_backward == pytest.approx(3 * model.flops_per_token(), rel=0.01)


# --- bad input ------------------------------------------------------------------------


def config(**changes) -> GPTConfig:
    return GPTConfig(**(vars(SMALL) | changes))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: config(d_model=30), ValueError, "d_model=30 .* n_heads=4"),
        (lambda: config(n_layers=0), ValueError, "n_layers=0 must be at least 1"),
        (lambda: config(vocab_size=-5), ValueError, "vocab_size=-5 must be at least 1"),
        (lambda: config(context_length=0), ValueError, "context_length=0"),
        (lambda: config(n_heads=2.0), TypeError, "n_heads=2.0 must be an int"),
        (lambda: config(n_layers=True), TypeError, "n_layers=True must be an int"),
        (lambda: config(d_model="32"), TypeError, "d_model='32' must be an int"),
        (lambda: config(dropout=1.0), ValueError, "dropout=1.0 must be .* below 1"),
        (lambda: config(dropout=-0.1), ValueError, "dropout=-0.1 must be at least 0"),
        (lambda: config(dropout=math.nan), ValueError, "dropout=nan"),
        (lambda: config(dropout="0.1"), TypeError, "dropout='0.1' must be a number"),
        (lambda: config(bias=None), TypeError, "bias=None must be True or False"),
        (lambda: config(tie_embeddings=1), TypeError, "tie_embeddings=1 must be"),
        (lambda: GPTConfig.gpt2("117M"), ValueError, "size='117M' must be one of 124M"),
        (lambda: LayerNorm(0), ValueError, "d_model=0 must be at least 1"),
        (lambda: LayerNorm(4, eps=0.0), ValueError, "eps=0.0 must be above 0"),
        (lambda: LayerNorm(4)(torch.ones(2, 5)), ValueError, r"\(2, 5\).*d_model=4"),
        (lambda: LayerNorm(4)(torch.tensor(1.0)), ValueError, "d_model=4"),
        (lambda: FeedForward(-1), ValueError, "d_model=-1 must be at least 1"),
        (lambda: FeedForward(4)(torch.ones(5)), ValueError, r"\(5,\).*d_model=4"),
        (lambda: Block(SMALL)(torch.ones(1, 2, 8)), ValueError, "d_model=32"),
        (lambda: gelu(torch.ones(2, dtype=torch.int64)), TypeError, "int64.*float"),
        (lambda: initialise_weights(nn.Linear(2, 2), 0), ValueError, "n_layers=0"),
        (lambda: GPT(SMALL)(some_ids(4)), ValueError, r"\(4,\), but must be \(B, T\)"),
        (lambda: GPT(SMALL)(some_ids(1, 0)), ValueError, r"\(1, 0\).*T at least 1"),
        (lambda: GPT(SMALL)(some_ids(1, 17)), ValueError, "context_length=16"),
        (lambda: GPT(SMALL)(torch.tensor([[50]])), ValueError, "outside 0..49"),
        (lambda: GPT(SMALL)(torch.tensor([[-1]])), ValueError, "outside 0..49"),
        (lambda: GPT(SMALL)(torch.ones(1, 4)), TypeError, "float32"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        SMALL.d_model = 64
