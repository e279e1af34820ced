"""Folders in and out, against transformers' own models, tokenizer and pipeline."""

import json
import re
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from solutions.bpe import GPT2_PATTERN, BPETokenizer, train_bpe
from solutions.generation import generate
from solutions.gpt import GPT, GPTConfig
from solutions.pretrained import (
    in_halves,
    from_pretrained,
    load_gpt2,
    read_config,
    save_pretrained,
)

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """With random numbers everywhere, norms and biases included."""
    g = seeded(seed)
    for p in model.parameters():
        p.add_(torch.randn(p.shape, generator=g) * 0.3)
    return model.eval()


# --- models of transformers, made at random, in ours

PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
FOREIGN = {
    "gpt2": ("GPT2", {}),
    "gpt2 untied": ("GPT2", {"tie_word_embeddings": False}),
    "gpt2 with its own width and eps": ("GPT2", {
        "n_inner": 56, "layer_norm_epsilon": 0.1,
        "activation_function": "gelu_pytorch_tanh",
    }),
    "llama": ("Llama", {"rope_parameters": PLAIN}),
    "llama tied": ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 0.1}),
    "llama grouped": ("Llama", {"num_key_value_heads": 2, "head_dim": 20}),
    "llama 3.1": ("Llama", {"num_key_value_heads": 1, "rope_parameters": LLAMA3}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 20}),
    "qwen3 tied": ("Qwen3", {
        "num_key_value_heads": 4, "head_dim": 10, "tie_word_embeddings": True,
        "hidden_size": 42, "rope_parameters": PLAIN | {"rope_theta": 50.0},
    }),
}  # fmt: skip


def foreign(kind: str, changes: dict, seed: int = 0):
    sizes = {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 3,
             "num_attention_heads": 4, "max_position_embeddings": 64,
             "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    if kind != "GPT2":
        sizes["intermediate_size"] = 100
    config = getattr(transformers, f"{kind}Config")(**sizes | changes)
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    torch.manual_seed(seed)
    return shaken(getattr(transformers, name)(config), seed)


IDS = torch.randint(90, (3, 64), generator=seeded(1))
GREEDY = {"max_new_tokens": 50, "do_sample": False, "pad_token_id": 0}


@torch.no_grad()
def assert_equal_logits(ours: GPT, theirs, ids=IDS) -> None:
    mine, his = ours(ids), theirs(ids).logits
    assert his.std() > 0.5
    gap = (mine - his.float()).abs().max()
    assert torch.allclose(mine, his.float(), atol=1e-4, rtol=1e-5), gap


@pytest.mark.parametrize("kind, changes", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_model_keeps_its_logits_and_greedy_tokens(kind, changes, tmp_path):
    theirs = foreign(kind, changes)
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    assert_equal_logits(ours, theirs)
    prompt = IDS[:, :7]
    wanted = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **GREEDY)
    assert torch.equal(generate(ours, prompt, 50, temperature=0), wanted)
    tied = changes.get("tie_word_embeddings", kind == "GPT2")
    assert (ours.head.weight is ours.tokens.weight) == tied
    assert not ours.training and all(p.requires_grad for p in ours.parameters())


def test_the_sizes_arrive_in_our_fields(tmp_path):
    changes = {"num_key_value_heads": 2, "head_dim": 20, "rms_norm_eps": 1e-4}
    foreign("Qwen3", changes | {"rope_parameters": LLAMA3}).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).config == GPTConfig(
        90, 64, 48, 3, 4, bias=False, tie_embeddings=False, n_kv_heads=2, d_head=20,
        norm="rms", norm_eps=1e-4, mlp="swiglu", d_mlp=100, positions="rotary",
        rope_base=500.0, rope_scaling=(8.0, 1.0, 4.0, 16), qk_norm=True,
    )  # fmt: skip


GPT2_124M = {
    "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
    "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.1, "task_specific_params": {"text-generation": {"max_length": 50}},
    "vocab_size": 50257,
}  # fmt: skip
SMOLLM2_135M = {
    "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
    "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536,
    "is_llama_config": True, "max_position_embeddings": 8192, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
    "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "vocab_size": 49152,
}  # fmt: skip
QWEN3_600M = {
    "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0,
    "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "rope_scaling": None,
    "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000, "sliding_window": None,
    "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
REAL = [
    (GPT2_124M, 124_439_808),
    (SMOLLM2_135M, 134_515_008),
    (QWEN3_600M, 596_049_920),
]


@pytest.mark.parametrize("raw, n", REAL, ids=[raw["model_type"] for raw, _ in REAL])
def test_published_configurations_have_the_published_number_of_weights(raw, n):
    config = read_config(raw)
    with torch.device("meta"):
        assert GPT(config).n_parameters() == n
    if raw is GPT2_124M:
        assert replace(config, dropout=0.0) == GPTConfig.gpt2("124M")


def edit_config(folder, **changes) -> None:
    """Change fields of config.json; ... removes one."""
    file = folder / "config.json"
    raw = json.loads(file.read_text("utf-8")) | changes
    raw = {name: value for name, value in raw.items() if value is not ...}
    file.write_text(json.dumps(raw), "utf-8")


def edit_weights(folder, change, name="model.safetensors") -> None:
    file = folder / name
    tensors = {name: t.clone() for name, t in load_file(file).items()}
    change(tensors)
    file.unlink()
    save_file(tensors, file, {"format": "pt"})


SCALING = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
FAST = PLAIN | {"rope_theta": 77.0}
OLD_STYLES = {
    "nothing": ({}, PLAIN),
    "rope_theta": ({"rope_theta": 77.0, "rope_scaling": None}, FAST),
    "rope_scaling": ({"rope_theta": 500.0, "rope_scaling": SCALING}, LLAMA3),
    "type": ({"rope_theta": 77.0, "rope_scaling": {"type": "default"}}, FAST),
}


@pytest.mark.parametrize("said, meant", OLD_STYLES.values(), ids=OLD_STYLES)
def test_rotations_said_as_before_transformers_5_mean_the_same(said, meant, tmp_path):
    theirs = foreign("Llama", {"rope_parameters": meant})
    theirs.save_pretrained(tmp_path)
    edit_config(tmp_path, rope_parameters=..., **said)
    assert_equal_logits(from_pretrained(tmp_path), theirs)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_equal_logits(from_pretrained(tmp_path), again)


@pytest.mark.parametrize("name", ["gpt2", "gpt2 untied", "llama tied", "qwen3"])
def test_files_in_pieces_are_one_model(name, tmp_path):
    kind, changes = FOREIGN[name]
    theirs = foreign(kind, changes)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_equal_logits(from_pretrained(tmp_path), theirs)
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ValueError, match=f"path=.*{lost.name} is missing"):
        from_pretrained(tmp_path)


def test_an_index_reaches_no_file_outside_its_folder(tmp_path):
    inner = tmp_path / "inner"
    foreign("GPT2", {}).save_pretrained(inner)
    (inner / "model.safetensors").rename(tmp_path / "a.safetensors")
    index = {"weight_map": {"wte.weight": "../a.safetensors"}}
    (inner / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="a.safetensors is missing"):
        from_pretrained(inner)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3 tied"])
def test_names_may_lack_their_prefix(name, tmp_path):
    kind, changes = FOREIGN[name]
    theirs = foreign(kind, changes)
    theirs.save_pretrained(tmp_path)

    def bare(tensors):
        for key in [*tensors]:
            short = re.sub("^(transformer|model)[.]", "", key)
            tensors[short] = tensors.pop(key)

    edit_weights(tmp_path, bare)
    assert_equal_logits(from_pretrained(tmp_path), theirs)


def test_what_older_files_hold_beside_the_weights_does_no_harm(tmp_path):
    """The causal masks of GPT-2's, the speeds of Llama's, a head stored though tied."""
    gpt2, llama = foreign("GPT2", {}), foreign("Llama", {"tie_word_embeddings": True})
    gpt2.save_pretrained(tmp_path / "gpt2")
    llama.save_pretrained(tmp_path / "llama")

    def masks(tensors):
        for i in range(3):
            tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    def speeds(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_weights(tmp_path / "gpt2", masks)
    edit_weights(tmp_path / "llama", speeds)
    assert_equal_logits(load_gpt2(tmp_path / "gpt2"), gpt2)
    assert_equal_logits(from_pretrained(tmp_path / "llama"), llama)


def test_vocabularies_that_are_padded_load_with_all_their_rows(tmp_path):
    theirs = foreign("Llama", {"vocab_size": 128})
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    assert ours.config.vocab_size == 128
    assert_equal_logits(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_come_as_fp32(dtype, tmp_path):
    theirs = foreign("Qwen3", {"num_key_value_heads": 2, "head_dim": 12}).to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    kind = transformers.AutoModelForCausalLM
    assert_equal_logits(ours, kind.from_pretrained(tmp_path, dtype=torch.float32))


def test_loading_draws_no_random_numbers_and_ignores_defaults(tmp_path):
    save_pretrained(shaken(GPT(GPTConfig(60, 16, 24, 2, 3))), tmp_path / "a" / "b")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = from_pretrained(tmp_path / "a" / "b")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.tokens.weight.dtype == torch.float32
    assert model.tokens.weight.device.type == "cpu"


# --- what is refused

WTE = "transformer.wte.weight"
DENSE = "transformer.h.1.mlp.c_fc.weight"


def config_says(**changes):
    return lambda folder: edit_config(folder, **changes)


def weights(change):
    return lambda folder: edit_weights(folder, change)


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def rename_weights(name):
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def index_says(text):
    def edit(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(text)

    return edit


GPT2_FAULTS = [
    (lambda folder: (folder / "config.json").unlink(), "No such file.*config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "is no JSON object"),
    (rename_weights("pytorch_model.bin"), "no model.safe.*pytorch_model.bin.*run code"),
    (rename_weights("model.gguf"), "no model.safetensors.*model.gguf"),
    (index_says("{"), "index.json is no JSON"),
    (index_says("{}"), "is missing from the files"),
    (index_says('{"weight_map": {"a": "b.safetensors"}}'), "b.safetensors is missing"),
    (cut, "model.safetensors is damaged"),
    (config_says(model_type="mistral"), "model_type='mistral'.*gpt2.*llama.*qwen3"),
    (config_says(model_type=...), "model_type=None"),
    (config_says(activation_function="relu"), "activation_function='relu'.*'gelu_new'"),
    (config_says(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx=True"),
    (config_says(scale_attn_weights=False), "scale_attn_weights=False"),
    (config_says(add_cross_attention=True), "add_cross_attention=True"),
    (config_says(quantization_config={"bits": 4}), "quantization_config={'bits': 4}"),
    (config_says(n_head=5), "not divisible"),
    (config_says(n_head=...), "n_heads=None"),
    (config_says(n_embd="48"), "d_model='48'"),
    (config_says(n_layer=4), r"h.3.\S* is missing"),
    (config_says(n_layer=2), r"no place for h.2"),
    (config_says(n_inner=99), r"mlp.c_(fc|proj).* is .*, but must be .*99"),
    (config_says(vocab_size=91), r"wte.weight is \(90, 48\).* must be \(91, 48\)"),
    (config_says(bias=False), "no place for .*bias"),
    (config_says(tie_word_embeddings=False), "lm_head.weight is missing"),
    (weights(lambda t: t.pop(DENSE)), "h.1.mlp.c_fc.weight is missing"),
    (weights(lambda t: t.update(extra=torch.ones(1))), "no place for extra"),
    (weights(lambda t: t.update({DENSE: t[DENSE].T.contiguous()})), "h.1.mlp.c_fc"),
    (weights(lambda t: t.update({DENSE: t[DENSE].to(torch.int8)})), "torch.int8"),
    (weights(lambda t: t.update({"lm_head.weight": t[WTE] * 2})), "lm_head.*tie_word"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Whole folders, to be copied and damaged."""
    folders = {}
    for kind in ("GPT2", "Llama", "Qwen3"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        heads = {} if kind == "GPT2" else {"num_key_value_heads": 2, "head_dim": 12}
        foreign(kind, heads).save_pretrained(folders[kind])
    return folders


def refusal(source, folder, damage) -> str:
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    from_pretrained(folder)
    damage(folder)
    with pytest.raises(ValueError, match="path=") as caught:
        from_pretrained(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def messages(faults) -> list[str]:
    return [message for _, message in faults]


@pytest.mark.parametrize("damage, message", GPT2_FAULTS, ids=messages(GPT2_FAULTS))
def test_a_gpt2_that_is_not_ours_is_refused_by_name(sources, tmp_path, damage, message):
    assert re.search(message, refusal(sources["GPT2"], tmp_path, damage))


LINEAR = {"type": "linear", "factor": 2.0}
LLAMA_FAULTS = [
    ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ({"attention_bias": True}, "attention_bias=True"),
    ({"mlp_bias": True}, "mlp_bias=True"),
    ({"use_sliding_window": True}, "use_sliding_window=True"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
    ({"rope_parameters": PLAIN | {"rope_type": "yarn"}}, "'rope_type': 'yarn'"),
    ({"rope_parameters": ..., "rope_scaling": LINEAR}, "'rope_type': 'linear'"),
    ({"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}, "partial_rotary_fac"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ({"rope_parameters": {"full_attention": PLAIN}}, "full_attention"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
    ({"rope_interleaved": True}, "rope_interleaved=True"),
    ({"num_key_value_heads": 3}, "n_kv_heads=3"),
    ({"head_dim": 11}, "d_head=11"),
    ({"hidden_size": ...}, "d_model=None"),
    ({"model_type": "qwen2"}, "model_type='qwen2'"),
]


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
@pytest.mark.parametrize("says, message", LLAMA_FAULTS, ids=messages(LLAMA_FAULTS))
def test_a_llama_that_is_not_ours_is_refused_by_name(
    sources, tmp_path, kind, says, message
):
    assert re.search(message, refusal(sources[kind], tmp_path, config_says(**says)))


def test_norms_of_queries_tell_qwen3_from_llama(sources, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    other = refusal(sources["Qwen3"], tmp_path / "a", config_says(model_type="llama"))
    assert "no place for layers.0.self_attn" in other
    other = refusal(sources["Llama"], tmp_path / "b", config_says(model_type="qwen3"))
    assert re.search("self_attn.[qk]_norm.weight is missing", other)


def test_a_sliding_window_that_is_not_in_use_is_no_reason_to_refuse(sources, tmp_path):
    for file in sources["Qwen3"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_config(tmp_path, sliding_window=4096, use_sliding_window=False)
    from_pretrained(tmp_path)
    message = refusal(sources["Llama"], tmp_path, config_says(sliding_window=4096))
    assert "sliding_window=4096" in message


def test_what_is_computed_anyway_may_be_said(sources, tmp_path):
    for file in sources["Llama"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_config(
        tmp_path, hidden_act="silu", attention_bias=False, mlp_bias=False,
        partial_rotary_factor=1.0, rope_interleaved=False, quantization_config=None,
    )  # fmt: skip
    from_pretrained(tmp_path)


def test_load_gpt2_reads_nothing_else(sources, tmp_path):
    load_gpt2(sources["GPT2"])
    with pytest.raises(ValueError, match="path=.*model_type='llama'.*'gpt2'"):
        load_gpt2(sources["Llama"])
    for path in (tmp_path / "none", sources["GPT2"] / "config.json"):
        with pytest.raises(ValueError, match="no such folder.*downloads nothing"):
            from_pretrained(path)


# --- ours in transformers

LATER = {"norm": "rms", "mlp": "swiglu", "positions": "rotary", "bias": False}
OURS = {
    "gpt2": {},
    "gpt2 untied, no biases": {"bias": False, "tie_embeddings": False},
    "gpt2 with its own width and eps": {"d_mlp": 50, "norm_eps": 0.1, "dropout": 0.1},
    "llama": LATER,
    "llama untied": LATER | {"tie_embeddings": False, "d_mlp": 50, "dropout": 0.1},
    "llama grouped": LATER | {"n_kv_heads": 2, "d_head": 10, "rope_base": 77.0},
    "llama 3.1": LATER | {"rope_scaling": (8.0, 1.0, 4.0, 8), "norm_eps": 0.1},
    "qwen3": LATER | {"qk_norm": True},
    "qwen3 grouped": LATER | {"qk_norm": True, "n_kv_heads": 1, "d_head": 14},
}


def ours(**changes) -> GPT:
    return shaken(GPT(GPTConfig(90, 64, 24, 2, 4, **changes), generator=seeded()))


@pytest.mark.parametrize("changes", OURS.values(), ids=OURS)
def test_our_folder_is_a_model_of_transformers(changes, tmp_path):
    model = ours(**changes)
    save_pretrained(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (
        type(theirs)
        .__name__.lower()
        .startswith(
            "qwen3"
            if model.config.qk_norm
            else "llama"
            if changes.get("norm")
            else "gpt2"
        )
    )
    assert_equal_logits(model, theirs)
    assert theirs.config.max_position_embeddings == 64
    back = from_pretrained(tmp_path)
    assert back.config == model.config and not back.training
    for name, p in model.named_parameters():
        assert torch.equal(p, back.get_parameter(name)), name
    prompt = IDS[:, :7]
    wanted = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **GREEDY)
    assert torch.equal(generate(model, prompt, 50, temperature=0), wanted)


@pytest.mark.parametrize("name", FOREIGN)
def test_from_a_foreign_folder_to_ours_no_number_changes(name, tmp_path):
    kind, changes = FOREIGN[name]
    theirs = foreign(kind, changes)
    theirs.save_pretrained(tmp_path / "a")
    save_pretrained(from_pretrained(tmp_path / "a"), tmp_path / "b")
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert torch.allclose(again(IDS).logits, theirs(IDS).logits, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, LATER | {"qk_norm": True}])
def test_sixteen_bit_weights_keep_their_type_in_the_file(changes, tmp_path):
    model = ours(**changes).to(torch.bfloat16)
    save_pretrained(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    back = from_pretrained(tmp_path)
    assert torch.equal(back.tokens.weight, model.tokens.weight.float())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_equal_logits(back, theirs)


class Wrapper(nn.Module):
    """As DistributedDataParallel holds a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("changes", [{}, LATER])
def test_wrappers_leave_no_trace_in_the_folder(changes, tmp_path):
    model = ours(**changes)
    save_pretrained(model, tmp_path / "plain")
    wanted = (tmp_path / "plain" / "model.safetensors").read_bytes()
    compiled = torch.compile(model, backend="eager")
    wrapped = [compiled, Wrapper(model), Wrapper(compiled),
               torch.compile(Wrapper(model), backend="eager")]  # fmt: skip
    for i, wrapper in enumerate(wrapped):
        save_pretrained(wrapper, tmp_path / str(i))
        assert (tmp_path / str(i) / "model.safetensors").read_bytes() == wanted
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    save_pretrained(model, tmp_path / "block")
    assert (tmp_path / "block" / "model.safetensors").read_bytes() == wanted
    for other in (nn.Linear(2, 2), None, Wrapper(nn.Linear(2, 2))):
        with pytest.raises(TypeError, match="model is a .*must be a GPT"):
            save_pretrained(other, tmp_path / "other")


UNFIT = {
    "norm": {"norm": "rms"},
    "mlp": {"mlp": "relu2"},
    "positions": {"positions": "sinusoidal"},
    "n_kv_heads": {"n_kv_heads": 1},
    "d_head": {"d_head": 10},
    "qk_norm": {"qk_norm": True},
    "rope_scaling": {"rope_scaling": (4.0, 1.0, 4.0, 8)},
    "bias": LATER | {"bias": True},
    "mlp='gelu'": LATER | {"mlp": "gelu"},
}


@pytest.mark.parametrize("field", UNFIT)
def test_what_no_format_holds_is_refused_by_its_field(field, tmp_path):
    with pytest.raises(ValueError, match=f"model .*{field}"):
        save_pretrained(ours(**UNFIT[field]), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_llama_in_transformers_has_whole_heads(tmp_path):
    fields = {"d_head": 10, "rope_base": 50.0, **LATER}
    odd = GPT(GPTConfig(90, 64, 26, 2, 4, **fields))
    with pytest.raises(ValueError, match="llama.*d_head=10"):
        save_pretrained(odd, tmp_path)
    odd = shaken(GPT(GPTConfig(90, 64, 26, 2, 4, qk_norm=True, **fields)))
    save_pretrained(odd, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_equal_logits(odd, theirs)


# --- the tokenizer

TEXT = (
    "x 123456 12345678 HE'S (hello (hello \"hello \n\n\n\nok  don't été 東京 🙂 "
    "the cat and the hat\tand the bat\r\n  a_b-c 3.14"
)
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENIZERS = {
    "gpt2's pattern": (GPT2_PATTERN, ["<|endoftext|>"]),
    "gpt4's pattern": (GPT4, ["<|endoftext|>"]),
    "words": (r"\w+|\W", ["<|endoftext|>", "<|user|>"]),
    "no cut": (r"[\s\S]+", ["<|endoftext|>"]),
    "some letters": (r"[a-z]+", ["<|endoftext|>"]),
    "other specials": (GPT4, ["<s>", "[end]", "  two spaces"]),
    "no specials": (GPT2_PATTERN, []),
}


@pytest.mark.parametrize("changes", [{}, LATER, LATER | {"qk_norm": True}])
@pytest.mark.parametrize("pattern, special", TOKENIZERS.values(), ids=TOKENIZERS)
def test_auto_tokenizer_gives_our_ids(pattern, special, changes, tmp_path):
    tokenizer = train_bpe(TEXT * 20, 330, special_tokens=special, pattern=pattern)
    model = GPT(GPTConfig(tokenizer.n_vocab, 32, 24, 1, 2, **changes))
    save_pretrained(model, tmp_path, tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = TEXT + "".join(special) + " and " + "<|endoftext|>"
    wanted = tokenizer.encode(text, allowed_special="all")
    found = theirs(text)
    assert found["input_ids"] == wanted
    assert set(found) == {"input_ids", "attention_mask"}
    assert theirs.decode(wanted) == tokenizer.decode(wanted) == text
    assert len(theirs) == tokenizer.n_vocab and theirs.model_max_length == 32
    end = "<|endoftext|>" if "<|endoftext|>" in special else None
    assert theirs.eos_token == theirs.bos_token == theirs.pad_token == end
    assert all(i < model.config.vocab_size for i in theirs.all_special_ids)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.eos_token_id == tokenizer.special_tokens.get("<|endoftext|>")
    again = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode_ordinary(text) == tokenizer.encode_ordinary(text)


@pytest.mark.parametrize("changes", [{}, LATER | {"n_kv_heads": 1}])
@pytest.mark.parametrize("padded", [0, 30])
def test_a_pipeline_writes_what_our_greedy_writes(changes, padded, tmp_path):
    tokenizer = train_bpe(TEXT * 20, 330, special_tokens=["<|endoftext|>"])
    n = tokenizer.n_vocab
    config = GPTConfig(n + padded, 48, 24, 2, 2, **changes)
    model = shaken(GPT(config, generator=seeded()))
    with torch.no_grad():  # the rows that pad would win, were they not forbidden
        model.tokens.weight[n:] *= 3
    save_pretrained(model, tmp_path, tokenizer)
    pipe = transformers.pipeline("text-generation", str(tmp_path), device="cpu")
    end = tokenizer.special_tokens["<|endoftext|>"]
    prompts = ["the cat", "x 123456 and the hat"]
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    how = {"do_sample": False, "max_new_tokens": 12}
    alone = [pipe(prompt, **how) for prompt in prompts]
    assert pipe(prompts, batch_size=2, **how) == alone  # the shorter one is padded
    for batch, row in zip(pipe(prompts, return_tensors=True, do_sample=False), ids):
        new = list(batch[0]["generated_token_ids"])
        assert new[: len(row)] == row and len(new) <= 48  # ends with the context
        assert len(new) == 48 or new[-1] == end
        assert all(token < n for token in new)
        with torch.no_grad():
            for t in range(len(row), len(new)):
                assert new[t] == model(torch.tensor([new[:t]]))[0, -1, :n].argmax()


def test_a_model_too_small_for_its_tokenizer_is_refused(tmp_path):
    tokenizer = train_bpe(TEXT, 270)
    message = f"tokenizer: {tokenizer.n_vocab} tokens, not 90"
    with pytest.raises(ValueError, match=message):
        save_pretrained(ours(), tmp_path / "model", tokenizer)
    assert not (tmp_path / "model").exists()


# --- writing

ALL = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
       "tokenizer_config.json"]  # fmt: skip


def contents(folder) -> dict:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("full", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_save_that_fails_leaves_the_old_folder(full, tmp_path, monkeypatch):
    tokenizer = train_bpe(TEXT, 270, special_tokens=["<|endoftext|>"])
    config = GPTConfig(tokenizer.n_vocab, 16, 24, 2, 3)
    old, new = shaken(GPT(config)), shaken(GPT(config), seed=1)
    save_pretrained(old, tmp_path, tokenizer)
    before = contents(tmp_path)
    assert sorted(before) == ALL

    kind = type(tmp_path)
    written = {name: getattr(kind, name) for name in ("write_bytes", "write_text")}

    def filling(name):
        def write(self, data, *args):
            if full not in self.name:
                return written[name](self, data, *args)
            written[name](self, data[: len(data) // 2], *args)
            raise OSError("no space left")

        return write

    for name in written:
        monkeypatch.setattr(kind, name, filling(name))
    with pytest.raises(OSError, match="no space"):
        save_pretrained(new, tmp_path, tokenizer)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    save_pretrained(new, tmp_path, tokenizer)  # over the old ones
    assert sorted(contents(tmp_path)) == ALL
    assert torch.equal(from_pretrained(tmp_path).head.weight, new.head.weight)


def test_a_folder_without_tokenizer_holds_only_the_model(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    save_pretrained(ours(), tmp_path)
    names = sorted(contents(tmp_path))
    assert names == ["README.md", *[n for n in ALL if "tokenizer" not in n]]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_in_halves_puts_even_rows_first_in_each_head():
    rows = torch.arange(8)[:, None]  # two heads of four rows
    found = in_halves(rows, 4).flatten().tolist()
    assert found == [0, 2, 1, 3, 4, 6, 5, 7]
