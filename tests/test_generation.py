"""Generation against independent references: plain loops, NumPy, transformers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from solutions.bpe import BPETokenizer, train_bpe
from solutions.generation import (
    KVCache,
    draw,
    from_pretrained,
    generate,
    keep_top_k,
    keep_top_p,
    load_gpt2,
    next_token_distribution,
    save_pretrained,
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


def reference(logits, temperature, top_k, top_p) -> np.ndarray:
    """The three operations on one row, in float64 NumPy, with a loop."""
    z = np.array(logits, dtype=np.float64) / temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    order = sorted(range(len(p)), key=lambda i: -p[i])
    if top_k is not None:
        p[order[top_k:]] = 0
        p /= p.sum()
    if top_p is not None:
        total = 0.0
        for i in order:
            if total >= top_p:
                p[i] = 0
            total += p[i]
        p /= p.sum()
    return p


@settings(deadline=None, max_examples=80)
@given(
    # multiples of 1/8: sums differ clearly from top_p, which is no sum of theirs
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.sampled_from([0.0137, 0.3171, 0.7393, 0.9431, 1.0]),
)
def test_distributions_equal_a_plain_loop(logits, temperature, top_k, top_p):
    row = torch.tensor(logits)
    ours = next_token_distribution(
        row, temperature=temperature, top_k=top_k, top_p=top_p
    )
    theirs = reference(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_every_row_of_a_batch_is_treated_alone():
    logits = torch.randn(3, 4, 50, generator=seeded()) * 3
    how = {"temperature": 0.8, "top_k": 9, "top_p": 0.7}
    whole = next_token_distribution(logits, **how)
    for i in range(3):
        for j in range(4):
            alone = next_token_distribution(logits[i, j], **how)
            assert torch.allclose(whole[i, j], alone, atol=1e-6)


def test_ties_go_to_the_smaller_id():
    level = torch.zeros(1000)
    assert next_token_distribution(level, temperature=0)[0] == 1
    kept = keep_top_k(level.softmax(-1), 500)  # an unstable sort would mix them
    assert (kept[:500] > 0).all() and (kept[500:] == 0).all()
    assert keep_top_p(torch.full((4,), 0.25), 0.5).tolist() == [0.5, 0.5, 0, 0]


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


# --- drawing


def test_draws_have_the_shares_of_the_distribution():
    probs = torch.tensor([0.05, 0.0, 0.6, 0.35, 0.0])
    drawn = draw(probs.expand(200, 500, 5), generator=seeded())
    assert drawn.shape == (200, 500) and drawn.dtype == torch.int64
    shares = drawn.flatten().bincount(minlength=5) / 100_000
    assert (shares - probs).abs().max() < 4 * math.sqrt(0.25 / 100_000)
    assert shares[1] == 0 and shares[4] == 0


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


@pytest.mark.parametrize("field", [name for name in LATER if name != "bias"])
def test_gpt2s_format_refuses_what_gpt2_has_not(field, tmp_path):
    model = GPT(GPTConfig(60, 16, 24, 2, 3, **{field: LATER[field]}))
    with pytest.raises(ValueError, match=field):
        save_pretrained(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


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


# --- the folder: GPT-2 in, ours out

SHAPES = [(bias, tied) for bias in (True, False) for tied in (True, False)]


@pytest.mark.parametrize("bias, tied", SHAPES)
def test_hugging_face_reads_our_folder_and_gives_our_logits(tmp_path, bias, tied):
    transformers = pytest.importorskip("transformers")
    config = GPTConfig(60, 16, 24, 2, 3, dropout=0.1, bias=bias, tie_embeddings=tied)
    model, ids = make(config), torch.randint(60, (2, 16), generator=seeded())
    save_pretrained(model, tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, model(ids), atol=1e-4)
    back = from_pretrained(tmp_path)
    assert back.config == config and not back.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters()))
    assert (back.head.weight is back.tokens.weight) == tied


@pytest.mark.parametrize("bare", [True, False])
def test_our_model_gives_the_logits_of_a_gpt2_of_transformers(tmp_path, bare):
    """Both with the prefix "transformer." and as OpenAI's own folder is: without, with
    the masks of the layers among the weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "n_positions": 20, "n_embd": 32}
    config = transformers.GPT2Config(**sizes, n_layer=3, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn(p.shape, generator=seeded(3)) * 0.2)
    theirs.save_pretrained(tmp_path)
    if bare:
        file = tmp_path / "model.safetensors"
        tensors = {
            name.removeprefix("transformer."): t.clone()
            for name, t in load_file(file).items()
        }
        for i in range(3):
            tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        file.unlink()
        save_file(tensors, file, metadata={"format": "pt"})
    ours, ids = load_gpt2(tmp_path), torch.randint(90, (3, 20), generator=seeded())
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4)
    assert ours.config.dropout == 0.1
    new = generate(ours, ids[:, :5], 12, temperature=0)
    how = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    assert torch.equal(new, theirs.generate(ids[:, :5], **how))


def test_sixteen_bit_weights_come_back_as_fp32(tmp_path):
    model = make().half()
    save_pretrained(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    back = from_pretrained(tmp_path)
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert torch.equal(back.tokens.weight, model.tokens.weight.float())


def test_a_save_that_fails_leaves_the_old_files(tmp_path, monkeypatch):
    old = make()
    save_pretrained(old, tmp_path)
    real = Path.write_bytes
    for full in ("config.json", "model.safetensors"):

        def disk_is_full(self, data, full=full):
            if not self.name.startswith(full):
                return real(self, data)
            real(self, data[: len(data) // 2])
            raise OSError("no space left")

        monkeypatch.setattr(Path, "write_bytes", disk_is_full)
        with pytest.raises(OSError, match="no space"):
            save_pretrained(make(seed=1), tmp_path)
        kept = from_pretrained(tmp_path)
        assert all(map(torch.equal, kept.parameters(), old.parameters()))


def test_loading_draws_no_random_numbers_and_saving_twice_is_fine(tmp_path):
    model = make()
    save_pretrained(model, tmp_path / "a" / "b")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    back = from_pretrained(tmp_path / "a" / "b")
    assert torch.equal(torch.get_rng_state(), before)
    save_pretrained(back, tmp_path / "a" / "b")  # over the folder it came from
    assert sorted(f.name for f in (tmp_path / "a" / "b").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_the_tokenizer_travels_with_the_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    text = "the cat and the hat and the bat"
    tokenizer = train_bpe(text, 270, special_tokens=["<|endoftext|>"])
    save_pretrained(make(GPTConfig(270, 16, 24, 2, 3)), tmp_path, tokenizer)
    again = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode(text) == tokenizer.encode(text)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["eos_token_id"] == tokenizer.special_tokens["<|endoftext|>"]
    file = str(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    with pytest.raises(ValueError, match="tokenizer: 270 tokens, not 60"):
        save_pretrained(make(), tmp_path, tokenizer)


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
    (lambda m: KVCache(SMALL, 0, 8), "batch_size=0"),
    (lambda m: KVCache(SMALL, 1, 17), "max_length=17"),
    (lambda m: m(torch.ones(2, 3).long(), KVCache(SMALL, 1, 8)), "no room for 2 rows"),
    (lambda m: m(torch.ones(1, 9).long(), KVCache(SMALL, 1, 8)), "rows of 9 tokens"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused_by_name(model, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(model)


def edit_config(**changes):
    def edit(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def edit_weights(change):
    def edit(folder):
        file = folder / "model.safetensors"
        tensors = {name: t.clone() for name, t in load_file(file).items()}
        change(tensors)
        file.unlink()
        save_file(tensors, file)

    return edit


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


WTE, NORM = "transformer.wte.weight", "transformer.h.1.ln_1.weight"
DAMAGED = [
    (lambda folder: (folder / "config.json").unlink(), "config.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    (lambda folder: (folder / "config.json").write_text("{"), "JSONDecodeError"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "AttributeError"),
    (cut, "SafetensorError"),
    (edit_config(model_type="llama"), "model_type='llama', but must be 'gpt2'"),
    (edit_config(activation_function="relu"), "activation_function='relu'"),
    (edit_config(layer_norm_epsilon=1e-6), "layer_norm_epsilon=1e-06"),
    (edit_config(n_head=5), "not divisible"),
    (edit_config(n_layer=3), r"h.2.ln_1.weight has shape none"),
    (edit_config(n_layer=1), "leaves no place for h.1"),
    (edit_config(vocab_size=61), r"wte.weight has shape \(60, 24\), but .*\(61, 24\)"),
    (edit_config(bias=False), "leaves no place for .*bias"),
    (edit_weights(lambda t: t.pop(NORM)), "h.1.ln_1.weight has shape none"),
    (edit_weights(lambda t: t.update(extra=torch.ones(1))), "no place for extra"),
    (edit_weights(lambda t: t.update({WTE: t[WTE].T.contiguous()})), "wte.weight"),
]


@pytest.mark.parametrize("damage, message", DAMAGED, ids=[m for _, m in DAMAGED])
def test_a_folder_that_is_not_ours_is_refused_by_name(tmp_path, model, damage, message):
    save_pretrained(model, tmp_path)
    load_gpt2(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_gpt2(tmp_path)
    assert "path=" in str(caught.value)
