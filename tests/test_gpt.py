"""Chapter 5's module against torch, transformers and PyTorch's own FLOP counter."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from solutions.attention import LayerCache
from solutions.gpt import (
    GPT,
    Block,
    FeedForward,
    GPTConfig,
    LayerNorm,
    gelu,
    initialize_weights,
)

SMALL = GPTConfig(50, 16, d_model=32, n_layers=3, n_heads=4)
LLAMA = dict(
    bias=False, norm="rms", norm_eps=1e-6, mlp="swiglu", d_mlp=88, positions="rotary",
    n_kv_heads=2, tie_embeddings=False,
)  # fmt: skip
QWEN3 = LLAMA | {"d_head": 12, "qk_norm": True, "tie_embeddings": True}
CHOICES = {  # every field of a later model alone, and two models of them
    "GPT-2": {}, "rms": {"norm": "rms"}, "swiglu": {"mlp": "swiglu", "d_mlp": 40},
    "relu2": {"mlp": "relu2"}, "rotary": {"positions": "rotary"},
    "stretched": {"positions": "rotary", "rope_scaling": (4.0, 1.0, 4.0, 8)},
    "sinusoidal": {"positions": "sinusoidal"}, "none": {"positions": "none"},
    "grouped": {"n_kv_heads": 2}, "one for all": {"n_kv_heads": 1},
    "wide heads": {"d_head": 20}, "narrow heads": {"d_head": 3},
    "qk": {"qk_norm": True}, "no biases": {"bias": False},
    "llama": LLAMA, "qwen3": QWEN3,
}  # fmt: skip
EACH_CHOICE = pytest.mark.parametrize("changes", CHOICES.values(), ids=list(CHOICES))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**changes) -> GPTConfig:
    return GPTConfig(**(vars(SMALL) | changes))


def small_gpt(*, fused: bool = True, **changes) -> GPT:
    """A GPT whose every parameter, biases and scales too, is far from its start."""
    model = GPT(config(**changes), generator=seeded(), fused=fused)
    generator = seeded(1)
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


GPT2_FIELDS = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
GPT2_NAMES = {
    "tokens": "wte", "positions": "wpe", "blocks": "h", "norm1": "ln_1",
    "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
    "norm2": "ln_2", "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj", "norm": "ln_f", "head": "lm_head",
}  # fmt: skip


@torch.no_grad()
def shaken(model: nn.Module) -> nn.Module:
    """Every parameter, biases and scales too, far from where it starts."""
    generator = seeded(3)
    for p in model.parameters():
        p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", [(50, 16, 32, 3, 4), (97, 24, 40, 2, 1)])
def test_gpt_is_hugging_faces_gpt2(shape, tied):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = shaken(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                **dict(zip(GPT2_FIELDS, shape, strict=True)), tie_word_embeddings=tied,
                bos_token_id=None, eos_token_id=None,
            )  # fmt: skip
        )
    )
    source = {k.removeprefix("transformer."): v for k, v in theirs.state_dict().items()}
    model = GPT(GPTConfig(*shape, tie_embeddings=tied)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            for ours, his in GPT2_NAMES.items():
                name = name.replace(ours + ".", his + ".")
            value = source[name]  # their matrices in blocks are (inputs, outputs)
            is_matrix = name.startswith("h.") and value.ndim == 2
            p.copy_(value.T if is_matrix else value)
        ids = torch.randint(shape[0], (2, shape[1]), generator=seeded(2))
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4)
    assert theirs.num_parameters() == model.n_parameters()


LLAMA_NAMES = {
    "model.head": "lm_head", "tokens": "embed_tokens", "blocks": "layers",
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
    "attention.out": "self_attn.o_proj", "attention.": "self_attn.",
    "feed_forward.up": "mlp.up_proj", "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.down": "mlp.down_proj",
}  # fmt: skip


def by_pairs(rows: torch.Tensor, d_head: int) -> torch.Tensor:
    """Features i and i + d/2 of each head become neighbors, as `rotate` wants them."""
    return rows.unflatten(0, (-1, 2, d_head // 2)).transpose(1, 2).flatten(0, 2)


@torch.no_grad()
def from_llama(theirs) -> GPT:
    """Our GPT with the configuration and the weights of Hugging Face's model."""
    c, scaling = theirs.config, None
    rope = c.rope_parameters
    if rope["rope_type"] == "llama3":
        trained = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        scaling = (rope["factor"], low, high, trained)
    config = GPTConfig(
        c.vocab_size, c.max_position_embeddings, c.hidden_size, c.num_hidden_layers,
        c.num_attention_heads, bias=False, tie_embeddings=c.tie_word_embeddings,
        n_kv_heads=c.num_key_value_heads, d_head=c.head_dim, norm="rms",
        norm_eps=c.rms_norm_eps, mlp="swiglu", d_mlp=c.intermediate_size,
        positions="rotary", rope_base=rope["rope_theta"], rope_scaling=scaling,
        qk_norm=c.model_type == "qwen3",
    )  # fmt: skip
    model, source, d = GPT(config), theirs.state_dict(), c.head_dim
    for name, p in model.named_parameters():
        name = f"model.{name}"
        for ours, his in LLAMA_NAMES.items():
            name = name.replace(ours, his)
        if "qkv" in name:
            q, k, v = (source[name.replace("qkv", f"{part}_proj")] for part in "qkv")
            p.copy_(torch.cat([by_pairs(q, d), by_pairs(k, d), v]))
        else:
            is_norm = name.endswith(("q_norm.weight", "k_norm.weight"))
            p.copy_(by_pairs(source[name], d) if is_norm else source[name])
    return model.eval()


STRETCHED = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
        ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("Llama", {"rope_parameters": STRETCHED, "num_key_value_heads": 2}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ("Llama", {"head_dim": 6, "num_hidden_layers": 1}),
        ("Qwen3", {"head_dim": 12}),
        ("Qwen3", {"head_dim": 20, "num_key_value_heads": 2}),
        ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
        ("Qwen3", {"hidden_size": 32, "head_dim": 8, "rope_parameters": STRETCHED}),
    ],
)  # fmt: skip
def test_gpt_is_hugging_faces_llama_and_qwen3(kind, changes):
    transformers = pytest.importorskip("transformers")
    sizes = dict(
        vocab_size=60, max_position_embeddings=64, hidden_size=48, head_dim=None,
        intermediate_size=100, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes | changes)
    theirs = shaken(getattr(transformers, f"{kind}ForCausalLM")(config))
    model, ids = from_llama(theirs), torch.randint(60, (2, 64), generator=seeded(2))
    with torch.no_grad():
        expected = theirs(ids).logits
        assert expected.std() > 0.5  # a real signal
        assert torch.allclose(model(ids), expected, atol=1e-4)
    assert theirs.num_parameters() == model.n_parameters()


@given(cut=st.integers(1, 15), seed=st.integers(0, 99), fused=st.booleans())
@settings(deadline=None, max_examples=15)
def test_the_past_ignores_the_future(cut, seed, fused):
    model = small_gpt(fused=fused)
    ids = some_ids(2, 16, seed=seed)
    other = ids.clone()
    other[:, cut:] = (other[:, cut:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.allclose(before[:, :cut], after[:, :cut], atol=1e-6)
    assert not torch.allclose(before[:, cut], after[:, cut], atol=1e-3)


def test_every_position_hears_every_earlier_one_and_no_later_one():
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


def test_positions_matter():
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


# --- initial weights ------------------------------------------------------------------


def test_initial_weights_are_gpt2s():
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


@EACH_CHOICE
def test_a_generator_leaves_the_global_one_alone(changes):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    GPT(config(**changes), generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    GPT(config(**changes))
    assert not torch.equal(torch.get_rng_state(), before)


@EACH_CHOICE
def test_the_loss_at_the_start_is_ln_v_for_every_choice(changes):
    model = GPT(config(**changes), generator=seeded())
    ids, targets = some_ids(8, 16), some_ids(8, 16, seed=3)
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.1)


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


# --- what came after GPT-2 ------------------------------------------------------------


class Memory:
    """The least that GPT.forward asks of a cache."""

    def __init__(self, config: GPTConfig, batch_size: int) -> None:
        size = (batch_size, config.kv_heads, config.context_length, config.head_width)
        self.layers = [
            LayerCache(torch.zeros(size), torch.zeros(size))
            for _ in range(config.n_layers)
        ]

    @property
    def length(self) -> int:
        return self.layers[0].length


@EACH_CHOICE
@pytest.mark.parametrize("fused", [True, False])
def test_with_a_cache_it_says_the_same(changes, fused):
    model, ids = small_gpt(fused=fused, **changes), some_ids(2, 16)
    with torch.no_grad():
        whole, memory = model(ids), Memory(model.config, 2)
        pieces = [model(piece, memory) for piece in ids.split([5, 1, 1, 6, 3], dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-4)


@EACH_CHOICE
def test_fused_and_written_out_agree(changes):
    ids = some_ids(2, 16)
    with torch.no_grad():
        fused, plain = (small_gpt(fused=f, **changes)(ids) for f in (True, False))
    assert torch.allclose(fused, plain, atol=1e-4)


@EACH_CHOICE
def test_last_only_is_the_last_of_all(changes):
    model, ids = small_gpt(**changes), some_ids(2, 16)
    with torch.no_grad():
        last = model(ids, last_only=True)
        assert last.shape == (2, 1, 50)
        assert torch.allclose(last, model(ids)[:, -1:], atol=1e-5)
        memory = Memory(model.config, 2)
        model(ids[:, :9], memory, last_only=True)
        last = model(ids[:, 9:], memory, last_only=True)
        assert torch.allclose(last, model(ids)[:, -1:], atol=1e-4)


@EACH_CHOICE
def test_the_past_ignores_the_future_for_every_choice(changes):
    model, ids = small_gpt(**changes), some_ids(2, 16)
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-5)
    assert not torch.allclose(before[:, 7], after[:, 7], atol=1e-3)


@EACH_CHOICE
def test_every_choice_compiles_to_one_graph(changes):
    model, ids = small_gpt(**changes), some_ids(2, 16)
    torch._dynamo.reset()  # each choice compiles anew
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(ids), model(ids), atol=1e-5)
        last = compiled(ids, last_only=True)
        assert torch.allclose(last, model(ids)[:, -1:], atol=1e-5)


@EACH_CHOICE
def test_every_choice_can_be_built_without_memory(changes):
    with torch.device("meta"):
        model = GPT(config(**changes), fused=False)
        assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))
        logits = model(torch.zeros(2, 16, dtype=torch.int64))
    assert logits.is_meta and logits.shape == (2, 16, 50)


@EACH_CHOICE
def test_every_parameter_of_every_choice_gets_a_gradient(changes):
    model = small_gpt(**changes)
    model(some_ids(2, 16)).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.any(), name


def test_rms_norm_is_its_formula():
    model = small_gpt(norm="rms", norm_eps=1e-2)
    norm, x = model.blocks[0].norm1, torch.randn(2, 5, 32, generator=seeded())
    root = (x.square().mean(-1, keepdim=True) + 1e-2).sqrt()
    assert torch.allclose(norm(x), x / root * norm.weight, atol=1e-5)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_and_relu2_are_their_formulas(bias):
    x = torch.randn(2, 5, 8, generator=seeded())
    network = FeedForward(8, d_mlp=20, bias=bias, kind="swiglu", generator=seeded(1))
    gate = network.gate(x)
    expected = network.down(gate * torch.sigmoid(gate) * network.up(x))
    assert torch.allclose(network(x), expected, atol=1e-6)
    assert {p.shape[0] for p in network.up.parameters()} == {20}
    network = FeedForward(8, bias=bias, kind="relu2", generator=seeded(1))
    expected = network.down(network.up(x).clamp(min=0) ** 2)
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_rotary_logits_do_not_ask_where_the_text_begins():
    model, ids = small_gpt(positions="rotary"), some_ids(1, 6)
    block, x = model.blocks[0], model.tokens(ids)
    with torch.no_grad():
        here = block(x)
        shifted = block(x, None, 7)  # the same tokens, seven positions later
    assert torch.allclose(here, shifted, atol=1e-4)


def test_without_positions_one_block_cannot_tell_the_order():
    ids = some_ids(1, 16)
    shuffled = torch.cat([ids[:, :15].flip(1), ids[:, 15:]], dim=1)
    for n_layers, blind in ((1, True), (2, False)):
        model = small_gpt(positions="none", n_layers=n_layers)
        with torch.no_grad():
            said, other = (model(t, last_only=True) for t in (ids, shuffled))
        assert torch.allclose(said, other, atol=1e-4) == blind


def test_sinusoids_are_no_parameters_and_follow_the_model():
    model = small_gpt(positions="sinusoidal")
    assert "waves" not in model.state_dict()
    assert model.n_parameters() == small_gpt(positions="none").n_parameters()
    assert model.double().waves.dtype == torch.float64
    assert model.waves.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)


def test_kinds_of_norm_and_widths_reach_every_part():
    model = small_gpt(**QWEN3)
    attention, network = model.blocks[1].attention, model.blocks[1].feed_forward
    assert tuple(attention.qkv.weight.shape) == ((4 + 2 * 2) * 12, 32)
    assert tuple(attention.out.weight.shape) == (32, 4 * 12)
    assert tuple(network.gate.weight.shape) == (88, 32)
    norms = [model.norm, model.blocks[0].norm2, attention.q_norm, attention.k_norm]
    assert [norm.eps for norm in norms] == [1e-6] * 4
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


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
    assert model.config.head_width == 64
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


@EACH_CHOICE
@pytest.mark.parametrize("shape", [(100, 32, 48, 3, 4), (37, 8, 16, 1, 4)])
def test_flops_are_what_torch_counts(shape, changes):
    model = GPT(GPTConfig(*shape, **changes), fused=False)
    ids = torch.zeros(2, model.config.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    forward_and_backward = counter.get_total_flops() / ids.numel()
    with FlopCounterMode(display=False) as counter:
        model(ids)
    assert counter.get_total_flops() / ids.numel() == model.flops_per_token()
    assert forward_and_backward == pytest.approx(3 * model.flops_per_token(), rel=0.02)


@EACH_CHOICE
@pytest.mark.parametrize("shape", [(100, 32, 48, 3, 4), (37, 8, 16, 1, 4)])
def test_parameters_of_every_choice_follow_the_formula(shape, changes):
    c = GPTConfig(*shape, **changes)
    with torch.device("meta"):
        model = GPT(c)
    D, d, width, bias = c.d_model, c.head_width, c.mlp_width, int(c.bias)
    qkv = (c.n_heads + 2 * c.kv_heads) * d
    matrices = [(D, qkv), (c.n_heads * d, D), (D, width), (width, D)]
    matrices += [(D, width)] if c.mlp == "swiglu" else []
    norm = D if c.norm == "rms" else (1 + bias) * D
    block = sum(n_in * n_out + bias * n_out for n_in, n_out in matrices)
    block += 2 * norm + (2 * d if c.qk_norm else 0)
    rest = c.n_layers * block + norm + (0 if c.tie_embeddings else D * c.vocab_size)
    tables = D * c.vocab_size
    tables += D * c.context_length if c.positions == "learned" else 0
    assert model.n_parameters(embeddings=False) == rest
    assert model.n_parameters() == rest + tables


def test_the_models_of_today_have_their_published_sizes():
    llama = GPTConfig(
        128_256, 131_072, 4096, 32, 32, n_kv_heads=8, d_mlp=14_336, bias=False,
        tie_embeddings=False, norm="rms", mlp="swiglu", positions="rotary",
        rope_base=500_000.0, rope_scaling=(8.0, 1.0, 4.0, 8192),
    )  # fmt: skip
    qwen = GPTConfig(
        151_936, 40_960, 1024, 28, 16, n_kv_heads=8, d_head=128, d_mlp=3072, bias=False,
        norm="rms", mlp="swiglu", positions="rotary", rope_base=1e6, qk_norm=True,
    )  # fmt: skip
    with torch.device("meta"):
        assert GPT(llama).n_parameters() == 8_030_261_248
        assert GPT(qwen).n_parameters() == 596_049_920


# --- bad input ------------------------------------------------------------------------


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
        (lambda: config(n_kv_heads=3), ValueError, "n_heads=4 .* n_kv_heads=3"),
        (lambda: config(n_kv_heads=8), ValueError, "n_heads=4 .* n_kv_heads=8"),
        (lambda: config(n_kv_heads=0), ValueError, "n_kv_heads=0 must be at least 1"),
        (lambda: config(n_kv_heads=2.0), TypeError, "n_kv_heads=2.0 must be an int"),
        (lambda: config(d_head=0), ValueError, "d_head=0 must be at least 1"),
        (lambda: config(d_head="8"), TypeError, "d_head='8' must be an int"),
        (lambda: config(d_mlp=-1), ValueError, "d_mlp=-1 must be at least 1"),
        (lambda: config(d_mlp=8.5), TypeError, "d_mlp=8.5 must be an int"),
        (lambda: config(norm="batch"), ValueError, "norm='batch' must be one of .*rms"),
        (lambda: config(norm=None), ValueError, "norm=None must be one of"),
        (lambda: config(norm_eps=0.0), ValueError, "norm_eps=0.0 must be above 0"),
        (lambda: config(norm_eps="x"), TypeError, "norm_eps='x' must be a number"),
        (lambda: config(mlp="relu"), ValueError, "mlp='relu' must be one of .*swiglu"),
        (lambda: config(positions="alibi"), ValueError, "positions='alibi' must be"),
        (lambda: config(rope_base=0), ValueError, "rope_base=0 must be above 0"),
        (lambda: config(rope_base=None), TypeError, "rope_base=None must be a number"),
        (lambda: config(rope_base=math.nan), ValueError, "rope_base=nan"),
        (lambda: config(rope_scaling=(8, 1, 4)), ValueError, "four numbers"),
        (lambda: config(rope_scaling=(8, 4, 1, 9)), ValueError, r"\(8, 4, 1, 9\)"),
        (lambda: config(rope_scaling=(0.5, 1, 4, 9)), ValueError, "factor"),
        (lambda: config(qk_norm="yes"), TypeError, "qk_norm='yes' must be True or"),
        (
            lambda: config(positions="rotary", d_head=7),
            ValueError,
            "d_head=7 must be even",
        ),
        (
            lambda: config(positions="sinusoidal", d_model=33, n_heads=3),
            ValueError,
            "d_model=33 must be even",
        ),
        (lambda: FeedForward(4, kind="relu"), ValueError, "kind='relu' must be one of"),
        (lambda: FeedForward(4, d_mlp=0), ValueError, "d_mlp=0 must be at least 1"),
        (lambda: LayerNorm(0), ValueError, "d_model=0 must be at least 1"),
        (lambda: LayerNorm(4, eps=0.0), ValueError, "eps=0.0 must be above 0"),
        (lambda: LayerNorm(4)(torch.ones(2, 5)), ValueError, r"\(2, 5\).*d_model=4"),
        (lambda: LayerNorm(4)(torch.tensor(1.0)), ValueError, "d_model=4"),
        (lambda: FeedForward(-1), ValueError, "d_model=-1 must be at least 1"),
        (lambda: FeedForward(4)(torch.ones(5)), ValueError, r"\(5,\).*d_model=4"),
        (lambda: Block(SMALL)(torch.ones(1, 2, 8)), ValueError, "d_model=32"),
        (lambda: gelu(torch.ones(2, dtype=torch.int64)), TypeError, "int64.*float"),
        (lambda: initialize_weights(nn.Linear(2, 2), 0), ValueError, "n_layers=0"),
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
