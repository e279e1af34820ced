"""Pretrained models: folders in Hugging Face's format, read and written.

A folder holds the sizes in config.json, the weights in model.safetensors (or in several
such files and an index) and perhaps a tokenizer. Three architectures: GPT-2's, Llama's,
Qwen3's. Nothing here downloads. Built in chapters/07_generation.ipynb.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .gpt import GPT, GPTConfig

__all__ = ["format_of", "from_pretrained", "in_halves", "load_gpt2", "places_of",
           "read_config", "save_pretrained", "unwrapped"]  # fmt: skip


# Where a tensor of a file lives in our model: its shape in the file, and our own memory
# seen in the file's order. Copying into that view reads a file, copying out writes one.
Place = tuple[tuple[int, ...], Tensor]

GPT2_NAMES = {  # ours -> theirs, replaced in this order
    "blocks.": "h.", "norm1.": "ln_1.", "norm2.": "ln_2.", "norm.": "ln_f.",
    "attention.qkv.": "attn.c_attn.", "attention.out.": "attn.c_proj.",
    "feed_forward.up.": "mlp.c_fc.", "feed_forward.down.": "mlp.c_proj.",
    "tokens.": "wte.", "positions.": "wpe.", "head.": "lm_head.",
}  # fmt: skip


def _parameters(model: GPT, names: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names that another library gives them."""
    for name, parameter in model.named_parameters():
        name = name.replace("_orig_mod.", "")  # of a block that was compiled alone
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        yield name, parameter.detach()


def gpt2_places(model: GPT) -> Iterator[tuple[str, Place]]:
    """By GPT-2's names. The matrices in its blocks are stored (inputs, outputs)."""
    for name, p in _parameters(model, GPT2_NAMES):
        view = p.T if name.startswith("h.") and p.ndim == 2 else p
        yield name, (tuple(view.shape), view)


LLAMA_NAMES = {  # ours -> theirs; Qwen3 has the same
    "blocks.": "layers.", "norm1.": "input_layernorm.", "head.": "lm_head.",
    "norm2.": "post_attention_layernorm.", "tokens.": "embed_tokens.",
    "attention.out.": "self_attn.o_proj.", "attention.": "self_attn.",
    "feed_forward.up.": "mlp.up_proj.", "feed_forward.gate.": "mlp.gate_proj.",
    "feed_forward.down.": "mlp.down_proj.",
}  # fmt: skip


def in_halves(rows: Tensor, d_head: int) -> Tensor:
    """Each head's rows in Llama's order, as a view: (H d, ...) -> (H, 2, d/2, ...).

    Llama rotates feature i of a head with feature i + d/2, we rotate 2i with 2i + 1. So
    our rows 0, 2, 4, ... are the first half of theirs, and 1, 3, 5, ... the second.
    """
    return rows.unflatten(0, (-1, d_head // 2, 2)).transpose(1, 2)


def llama_places(model: GPT) -> Iterator[tuple[str, Place]]:
    """By the names of Llama and Qwen3, which store our matrix qkv as three."""
    c, d = model.config, model.config.head_width
    for name, p in _parameters(model, LLAMA_NAMES):
        parts = {name: p}
        if "qkv" in name:
            qkv = p.split([c.n_heads * d, c.kv_heads * d, c.kv_heads * d])
            parts = {name.replace("qkv", f"{x}_proj"): t for x, t in zip("qkv", qkv)}
        for part, rows in parts.items():
            rotated = ".q_" in part or ".k_" in part  # q_proj, q_norm, k_proj, k_norm
            yield part, (tuple(rows.shape), in_halves(rows, d) if rotated else rows)


def places_of(model: GPT, model_type: str) -> dict[str, Place]:
    """Where each tensor lives that a file of gpt2, llama or qwen3 holds."""
    return dict(gpt2_places(model) if model_type == "gpt2" else llama_places(model))


GPT2_FIELDS = {  # ours -> config.json's
    "vocab_size": "vocab_size", "context_length": "n_positions", "d_model": "n_embd",
    "n_layers": "n_layer", "n_heads": "n_head", "d_mlp": "n_inner", "bias": "bias",
    "norm_eps": "layer_norm_epsilon", "dropout": "resid_pdrop",
    "tie_embeddings": "tie_word_embeddings",
}  # fmt: skip
LLAMA_FIELDS = {
    "vocab_size": "vocab_size", "context_length": "max_position_embeddings",
    "d_model": "hidden_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
    "d_head": "head_dim", "d_mlp": "intermediate_size", "norm_eps": "rms_norm_eps",
    "dropout": "attention_dropout", "tie_embeddings": "tie_word_embeddings",
}  # fmt: skip
DEFAULTS = {  # what holds where config.json does not say it
    "layer_norm_epsilon": 1e-5, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0,
    "resid_pdrop": 0.1, "attention_dropout": 0.0, "bias": True,
}  # fmt: skip
FIXED: dict[str, list] = {  # what config.json may say where we have no field
    "activation_function": ["gelu_new", "gelu_pytorch_tanh"], "hidden_act": ["silu"],
    "scale_attn_weights": [True], "scale_attn_by_inverse_layer_idx": [False],
    "add_cross_attention": [False], "attention_bias": [False], "mlp_bias": [False],
    "use_sliding_window": [False], "partial_rotary_factor": [1.0],
    "rope_interleaved": [False], "quantization_config": [None],
}  # fmt: skip
LATER = {"norm": "rms", "mlp": "swiglu", "positions": "rotary", "bias": False}
KINDS = {  # what our fields must say to fit an architecture
    "gpt2": {
        "norm": "layer", "mlp": "gelu", "positions": "learned", "qk_norm": False,
        "n_kv_heads": None, "d_head": None, "rope_scaling": None,
    },
    "llama": LATER | {"qk_norm": False},
    "qwen3": LATER | {"qk_norm": True},
}  # fmt: skip


def _refuse(field: str, value: object, allowed: Collection) -> None:
    """Raise the ValueError for a `value` that is not in `allowed`."""
    raise ValueError(f"config.json says {field}={value!r}, not one of {[*allowed]}")


LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor",  # our rope_scaling
          "original_max_position_embeddings")  # fmt: skip


def _rope_fields(raw: dict) -> dict:
    """Ours from rope_parameters, or from rope_theta and rope_scaling (before v. 5).

    raw: config.json with DEFAULTS for what it does not say. Returns our fields
    rope_base and rope_scaling. ValueError for another kind than "default" and "llama3",
    and for names that do not belong to the kind.
    """
    rope = dict(raw.get("rope_scaling") or raw.get("rope_parameters") or {})
    base = rope.pop("rope_theta", raw["rope_theta"])
    rope_type = rope.pop("rope_type", rope.pop("type", "default"))
    wanted = LLAMA3 if rope_type == "llama3" else ()
    if rope_type not in ("default", "llama3") or set(rope) != set(wanted):
        _refuse("rope_parameters", rope | {"rope_type": rope_type}, ("default", LLAMA3))
    return {"rope_base": base, "rope_scaling": tuple(rope[n] for n in wanted) or None}


def _shortest(c: GPTConfig) -> GPTConfig:
    """The same sizes, with None wherever a field holds what None stands for."""
    heads = None if c.kv_heads == c.n_heads else c.n_kv_heads
    d_head = None if c.head_width * c.n_heads == c.d_model else c.d_head
    d_mlp = None if c.mlp_width == 4 * c.d_model else c.d_mlp
    return replace(c, n_kv_heads=heads, d_head=d_head, d_mlp=d_mlp)


def read_config(raw: dict, kinds: Collection[str] = KINDS) -> GPTConfig:
    """Our sizes from what a config.json says.

    ValueError, with name and value, for another architecture and for everything that
    our model cannot represent: ignored, it would give a model that runs and is wrong.
    That includes layer_types other than full attention, and sliding windows in use.
    """
    model_type = raw.get("model_type")
    if model_type not in kinds:
        _refuse("model_type", model_type, kinds)
    for field, allowed in FIXED.items():
        if field in raw and raw[field] not in allowed:
            _refuse(field, raw[field], allowed)
    if set(raw.get("layer_types") or []) - {"full_attention"}:
        _refuse("layer_types", raw["layer_types"], ["full_attention"])
    if raw.get("sliding_window") and "use_sliding_window" not in raw:
        _refuse("sliding_window", raw["sliding_window"], [None])
    gpt2 = model_type == "gpt2"
    raw = DEFAULTS | {"tie_word_embeddings": gpt2} | raw
    fields = GPT2_FIELDS if gpt2 else LLAMA_FIELDS
    said: dict = {ours: raw.get(theirs) for ours, theirs in fields.items()}
    said |= {} if gpt2 else KINDS[raw["model_type"]] | _rope_fields(raw)
    return _shortest(GPTConfig(**said))


def _read_json(file: Path) -> dict:
    """What a file holds; ValueError unless it is a JSON object."""
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file.name} is no JSON object: {error}") from None


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that an index names instead. ValueError if there
    is neither, and for a name that is no file of the folder itself."""
    single, index = (folder / f"model.safetensors{end}" for end in ("", ".index.json"))
    if single.exists():
        return [single]
    if not index.exists():
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_file()))
        safe = "other formats can run code; transformers' save_pretrained writes this"
        raise ValueError(f"no model.safetensors among {there}: {safe}")
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name or not (folder / name).exists():
            raise ValueError(f"{name} is missing, but {index.name} names it")
    return [folder / name for name in names]


def _stored(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the files, one after another, by their names without a prefix
    ("transformer." or "model."). ValueError for a damaged file."""
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():
                    name = key.removeprefix("transformer.").removeprefix("model.")
                    yield name, opened.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{file.name} is damaged: {error}") from None


COMPUTED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # no weights


@torch.no_grad()
def _fill(model: GPT, places: dict[str, Place], files: list[Path]) -> None:
    """Copy each stored tensor to its view; none may be missing, none left over.

    Older files also hold causal masks and the speeds of rotations, which are computed.
    Some hold the output layer though it is tied. Zeros change nothing. ValueError, with
    the tensor's name, for a missing one, one left over and one of another shape.
    """
    missing, head = set(places), None
    for name, tensor in _stored(files):
        if name in places:
            shape, view = places[name]
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                found = f"{tuple(tensor.shape)} {tensor.dtype}"
                raise ValueError(f"{name} is {found}, but must be {shape}, and floats")
            view.copy_(tensor.view(view.shape))
            missing.remove(name)
        elif name == "lm_head.weight":
            head = tensor
        elif not name.endswith(COMPUTED) and tensor.any():
            raise ValueError(f"config.json leaves no place for {name}")
    if missing:
        raise ValueError(f"{min(missing)} is missing from the files of weights")
    if head is not None and not torch.equal(head.float(), model.tokens.weight):
        raise ValueError("lm_head.weight is no copy, but tie_word_embeddings is true")


def _load(folder: Path, kinds: Collection[str]) -> GPT:
    """from_pretrained, with errors that do not name the folder yet."""
    if not folder.is_dir():
        raise ValueError("no such folder; this reads folders and downloads nothing")
    raw = _read_json(folder / "config.json")
    config, files = read_config(raw, kinds), _weight_files(folder)
    with torch.device("meta"):  # no memory yet, and no random numbers
        model = GPT(config).float()
    model.to_empty(device="cpu")
    if config.tie_embeddings:
        model.head.weight = model.tokens.weight
    _fill(model, places_of(model, raw["model_type"]), files)
    return model.eval()


def from_pretrained(path: str | Path, *, kinds: Collection[str] = KINDS) -> GPT:
    """The model in a Hugging Face folder of GPT-2's, Llama's or Qwen3's architecture.

    config.json and model.safetensors, or several files with an index. The weights
    become fp32, on the CPU; the model is in evaluation mode. ValueError, naming the
    folder and what is wrong, for a folder that lacks a file, for damaged files, for
    a model_type not in `kinds`, and for all that our model cannot represent.
    """
    try:
        return _load(Path(path), kinds)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None


def load_gpt2(path: str | Path) -> GPT:
    """from_pretrained for GPT-2's architecture alone."""
    return from_pretrained(path, kinds=["gpt2"])


def unwrapped(model: nn.Module) -> GPT:
    """The GPT inside the wrappers of torch.compile and of data-parallel training."""
    for wrapper in ("_orig_mod", "module", "_orig_mod"):
        model = getattr(model, wrapper, model)
    if not isinstance(model, GPT):
        raise TypeError(f"model is a {type(model).__name__}, but must be a GPT")
    return model


def format_of(config: GPTConfig) -> str:
    """gpt2, llama or qwen3. ValueError, naming the fields, if none can hold it.

    transformers' Llama needs a d_model that n_heads divides.
    """
    config, faults = _shortest(config), []
    for model_type, needs in KINDS.items():
        odd = [name for name, value in needs.items() if getattr(config, name) != value]
        if model_type == "llama" and config.d_model % config.n_heads:
            odd.append("d_head")  # transformers' Llama needs whole heads
        if not odd:
            return model_type
        faults += [f"{model_type} has no {n}={getattr(config, n)!r}" for n in odd]
    raise ValueError(f"model fits no format: {', '.join(faults)}")


def _config_json(c: GPTConfig, model_type: str) -> dict:
    """What config.json says. With it, transformers computes in fp32, as we do."""
    gpt2 = model_type == "gpt2"
    name = "GPT2LMHeadModel" if gpt2 else f"{model_type.capitalize()}ForCausalLM"
    raw: dict = {"architectures": [name], "model_type": model_type, "dtype": "float32"}
    sizes = {"n_kv_heads": c.kv_heads, "d_head": c.head_width, "d_mlp": c.mlp_width}
    for ours, theirs in (GPT2_FIELDS if gpt2 else LLAMA_FIELDS).items():
        raw[theirs] = sizes.get(ours, getattr(c, ours))
    if gpt2:
        raw |= {"attn_pdrop": c.dropout, "embd_pdrop": c.dropout}
        return raw | {"activation_function": "gelu_new"}
    rope = c.rope_scaling and dict(zip(LLAMA3, c.rope_scaling), rope_type="llama3")
    return raw | {"rope_theta": c.rope_base, "rope_scaling": rope, "hidden_act": "silu"}


END = "<|endoftext|>"


def _json_files(c: GPTConfig, model_type: str, tokenizer: Any) -> dict[str, dict]:
    """The files beside the weights: sizes, when to stop, how to use the tokenizer.

    The class named there takes tokenizer.json as it is. The one that AutoTokenizer
    picks by the model's type would cut by another pattern and add tokens of its own.
    """
    special = {} if tokenizer is None else tokenizer.special_tokens
    n_vocab = c.vocab_size if tokenizer is None else tokenizer.n_vocab
    roles = ("bos_token", "eos_token", "pad_token")
    end = {f"{role}_id": special.get(END) for role in roles}
    padding = list(range(n_vocab, c.vocab_size)) or None  # ids never to be drawn
    generation = end | {"max_length": c.context_length, "suppress_tokens": padding}
    files = {"generation_config.json": generation}
    files["config.json"] = _config_json(c, model_type) | end
    if tokenizer is not None:
        files["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left",
            "model_max_length": c.context_length, "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        } | {role: END for role in roles if END in special}  # fmt: skip
    return files


def _tensors(model: GPT, model_type: str) -> dict[str, Tensor]:
    """The weights as the file holds them, on the CPU, by their whole names; zeros for
    the biases that GPT-2 has and a model without does not."""
    prefix, tensors = "transformer." if model_type == "gpt2" else "model.", {}
    for name, (shape, view) in places_of(model, model_type).items():
        key = name if name == "lm_head.weight" else prefix + name
        tensors[key] = view.cpu().reshape(shape).contiguous()
        if not model.config.bias and name.startswith(("h.", "ln_f.")):  # GPT-2 has them
            tensors[key.replace("weight", "bias")] = tensors[key].new_zeros(shape[-1])
    return tensors


def save_pretrained(model: nn.Module, path: str | Path, tokenizer: Any = None) -> None:
    """Write a folder that transformers' AutoModelForCausalLM and AutoTokenizer load.

    GPT-2's format for models of its kind; Llama's for RMSNorm, SwiGLU, rotary positions
    and no biases, and with qk_norm Qwen3's. Weights keep their dtype. model: a GPT, or
    one that torch.compile or DDP wraps. tokenizer: chapter 2's, or any with n_vocab,
    special_tokens and save. Files get their names when all are complete, so a save
    that fails leaves the old ones. ValueError for a model that fits no format, naming
    its fields, and for one with fewer rows than the tokenizer has tokens.
    """
    model, folder = unwrapped(model), Path(path)
    c, model_type = model.config, format_of(model.config)
    if tokenizer is not None and tokenizer.n_vocab > c.vocab_size:
        raise ValueError(f"tokenizer: {tokenizer.n_vocab} tokens, not {c.vocab_size}")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(suffix=".new", dir=folder) as temporary:
        new, tensors = Path(temporary), _tensors(model, model_type)
        (new / "model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
        if tokenizer is not None:
            tokenizer.save(new / "tokenizer.json")
        for name, raw in _json_files(c, model_type, tokenizer).items():
            (new / name).write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
        for file in sorted(new.iterdir(), reverse=True):  # config.json last
            file.replace(folder / file.name)
