"""The lean decoder against the model's own forward, on every architecture."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from solutions.decoding import (
    LARGE,
    Decoder,
    KVCache,
    PlainDecoder,
    can_decode,
    product,
)
from solutions.gpt import GPT, GPTConfig

LLAMA = {"norm": "rms", "mlp": "swiglu", "positions": "rotary", "bias": False}
KINDS = {
    "GPT-2": {},
    "untied": {"tie_embeddings": False, "bias": False},
    "Llama": LLAMA | {"n_kv_heads": 2},
    "scaled rotations": LLAMA | {"rope_scaling": (8.0, 1.0, 4.0, 16)},
    "Qwen3": LLAMA | {"n_kv_heads": 1, "qk_norm": True, "d_head": 16},
    "norm without rotation": {"qk_norm": True, "n_kv_heads": 2},
    "sinusoids": {"positions": "sinusoidal"},
    "no positions": {"positions": "none", "mlp": "relu2"},
}


def make(**fields) -> GPT:
    g = torch.Generator().manual_seed(1)
    model = GPT(GPTConfig(97, 32, 48, 3, 4, **fields), generator=g).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.2)
    return model


def texts_of(*lengths: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return [torch.randint(97, (n,), generator=g) for n in lengths]


@torch.no_grad()
def read_whole(model: GPT, texts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([model(text[None])[0, -1] for text in texts])


@pytest.mark.parametrize("lengths", [(4, 4, 4), (5, 20, 1)], ids=["equal", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoded_token_has_the_logits_of_the_whole_text_read_at_once(kind, lengths):
    model, texts = make(**KINDS[kind]), texts_of(*lengths)
    decoder = Decoder(model, 3, 32)
    for _ in range(2):  # the second time in memory that was used before
        logits, grown = decoder.read(texts), texts
        for _ in range(32 - max(lengths)):
            assert torch.allclose(logits, read_whole(model, grown), atol=1e-4)
            tokens = logits.argmin(-1)
            grown = [torch.cat([t, n[None]]) for t, n in zip(grown, tokens)]
            logits = decoder.step(tokens)
        assert torch.allclose(logits, read_whole(model, grown), atol=1e-4)


def test_a_decoder_goes_on_after_a_prompt_read_in_pieces():
    model, [text] = make(), texts_of(20)
    decoder = Decoder(model, 1, 32)
    decoder.read([text[:1]])
    with torch.no_grad():
        for piece in text[1:].split(7):
            logits = model(piece[None], decoder.cache)[:, -1]
    decoder.lengths = [decoder.cache.length]
    assert torch.allclose(logits, read_whole(model, [text]), atol=1e-4)
    grown = torch.cat([text, torch.tensor([7])])
    logits = decoder.step(torch.tensor([7]))
    assert torch.allclose(logits, read_whole(model, [grown]), atol=1e-4)
    assert decoder.cache.length == 21


def test_sixteen_bit_weights_are_decoded_in_sixteen_bits():
    model = make().bfloat16()
    decoder, texts = Decoder(model, 2, 32), texts_of(5, 5)
    logits = decoder.read(texts)
    logits = decoder.step(torch.tensor([3, 4]))
    grown = [torch.cat([t, torch.tensor([n])]) for t, n in zip(texts, (3, 4))]
    whole = read_whole(model.float(), grown)
    assert logits.dtype == torch.bfloat16
    assert (logits - whole).abs().max() < 0.1 * whole.abs().max()


def test_changed_weights_are_seen_and_dropout_is_not():
    model = make(dropout=0.5).train()
    decoder, texts = Decoder(model, 1, 32), texts_of(6)
    before = decoder.read(texts)
    assert model.training and torch.equal(before, decoder.read(texts))
    with torch.no_grad():
        model.norm.weight.mul_(2)
        model.norm.bias.mul_(2)
    assert torch.allclose(decoder.read(texts), 2 * before, atol=1e-3)


def test_one_compiled_step_serves_every_position():
    model = make(**KINDS["Qwen3"])
    decoder = Decoder(model, 2, 32)
    decoder.read(texts_of(3, 6))
    counter = CompileCounter()
    step = torch.compile(decoder.forward, fullgraph=True, backend=counter)
    at, tokens = torch.tensor([3, 6]), torch.tensor([5, 9])
    other = Decoder(model, 2, 32)
    other.read(texts_of(3, 6))
    with torch.no_grad():
        for _ in range(6):
            logits = step(tokens, at, 32)
            assert torch.allclose(logits, other.step(tokens), atol=1e-4)
            at, tokens = at + 1, logits.argmax(-1)
    assert counter.frame_count == 1


def test_a_decoder_is_made_for_the_courses_own_parts_only():
    assert can_decode(make())
    model = make()
    model.tokens = torch.nn.Sequential(model.tokens)
    assert not can_decode(model)
    with pytest.raises(TypeError, match="own parts"):
        Decoder(model, 1, 8)


def test_a_full_cache_says_so():
    decoder = Decoder(make(), 1, 4)
    decoder.read(texts_of(4))
    with pytest.raises(ValueError, match="max_length=4"):
        decoder.step(torch.tensor([1]))


@pytest.mark.parametrize("sizes", [(0, 8), (1, 0), (1, 33), (0, 33)])
def test_a_cache_of_no_size_is_refused(sizes):
    rows, positions = sizes
    with pytest.raises(ValueError, match=f"batch_size={rows} .* max_length={positions}"):
        KVCache(make().config, rows, positions)


@pytest.mark.parametrize("kind", [Decoder, PlainDecoder])
def test_only_the_last_position_goes_through_the_output_layer(kind):
    model, seen = make(), []
    decoder = kind(model, 2, 32)  # which refuses a model that has hooks already
    model.head.register_forward_hook(lambda _, x, y: seen.append(x[0].shape[:-1]))
    tokens = decoder.read(texts_of(6, 6)).argmax(-1)
    if kind is PlainDecoder:
        decoder.step(tokens)
    assert seen and all(shape == (2, 1) for shape in seen)


def test_a_small_step_runs_in_one_thread_and_then_there_are_as_many_as_before():
    decoder, seen, before = Decoder(make(), 1, 32), [], torch.get_num_threads()
    tokens, forward = decoder.read(texts_of(6)).argmax(-1), decoder.forward
    for one_thread in (True, False):
        assert decoder.one_thread  # of a model this small
        decoder.one_thread = one_thread

        def spied(*args):
            seen.append(torch.get_num_threads())
            return forward(*args)

        decoder.forward = spied
        try:
            torch.set_num_threads(3)
            decoder.step(tokens)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)
        decoder.one_thread = True
    assert seen == [1, 3]


def test_a_cache_is_used_again_after_a_restart():
    model, [text] = make(), texts_of(10)
    cache = KVCache(model.config, 1, 10)
    with torch.no_grad():
        first = model(text[None], cache)
        cache.restart()
        assert cache.length == 0
        assert torch.equal(model(text[None], cache), first)


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_the_linear_layers_however_large(bias):
    torch.manual_seed(3)
    for n in (8, round(LARGE**0.5) + 8):  # from LARGE numbers on by oneDNN
        linear, x = torch.nn.Linear(n, n, bias=bias), torch.randn(3, n)
        torch.testing.assert_close(product(linear)(x), linear(x))


def test_the_decoder_holds_the_models_own_weights():
    model = make()
    decoder = Decoder(model, 1, 8)
    text = texts_of(4)
    before = decoder.read(text)
    assert decoder.table.data_ptr() == model.tokens.weight.data_ptr()
    with torch.no_grad():
        model.blocks[0].feed_forward.up.weight.zero_()
    assert not torch.equal(decoder.read(text), before)
    torch.testing.assert_close(decoder.read(text), read_whole(model, text))
