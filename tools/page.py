"""Write a page in which a model runs: one HTML file that needs no network.

    python tools/page.py                                  # build/page.html
    python tools/page.py --model data/runs/mine --out mine.html

A browser opens the file. The reader types a beginning and sees its tokens, each head's
attention, the distribution of the next token and the draw. --model is a folder that
tools/generate.py takes. The page holds its weights, in 16 bits where no number changes.
The sources, in tools/page/, have the names of the chapters.

Exit status: 0 done, 2 an error, explained in one line.
"""

import argparse
import base64
import json
import os
import re
import sys
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tools" / "page"
SCRIPTS = ("bpe", "embeddings", "attention", "weights", "gpt", "generation", "view")
LARGEST = 100  # megabytes of weights; far more would make a browser wait, or fail
FIELDS = (  # of GPTConfig, as the scripts read them
    "vocab_size", "context_length", "d_model", "n_layers", "n_heads", "kv_heads",
    "head_width", "mlp_width", "norm", "norm_eps", "mlp", "positions", "rope_base",
    "qk_norm", "tie_embeddings",
)  # fmt: skip
END = "<|endoftext|>"


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default=str(ROOT / "data" / "tale-gpt"), help="a folder")
    p.add_argument("--out", default=str(ROOT / "build" / "page.html"), help="a file")
    return p.parse_args()


def config_of(model) -> dict:
    """What the scripts need to know of a model. ValueError for what they lack."""
    config = model.config
    if config.rope_scaling is not None:
        raise ValueError(
            f"rope_scaling={config.rope_scaling}: the page has rotary positions, but "
            "does not scale them; give a model without"
        )
    return {name: getattr(config, name) for name in FIELDS}


def tokenizer_of(tokenizer) -> dict:
    """A BPETokenizer as JSON, with a character for each byte. ValueError for patterns
    that JavaScript may read otherwise than Python's regex."""
    from solutions.pretokenization import GPT2_PATTERN

    pattern = tokenizer.pattern
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    known = (GPT2_PATTERN, r"\p{N}", r"\p{N}+")
    for one in patterns:
        if one not in known:
            raise ValueError(f"pattern={one!r} of the tokenizer: the page knows only "
                             f"{', '.join(known)}")  # fmt: skip
    return {
        "vocab": {i: t.decode("latin-1") for i, t in tokenizer.vocab.items()},
        "merges": [[part.decode("latin-1") for part in p] for p in tokenizer.merges],
        "patterns": patterns,
        "special_tokens": tokenizer.special_tokens,
        "ignore_merges": tokenizer.ignore_merges,
    }


def weights_of(model) -> bytes:
    """All weights under the course's own names, as a safetensors file."""
    import torch
    from safetensors.torch import save

    stored = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float()
        half = weight.to(torch.bfloat16)
        exact = torch.equal(half.float(), weight)
        stored[name] = (half if exact else weight).contiguous()
    size = sum(weight.nbytes for weight in stored.values()) / 1e6
    if size > LARGEST:
        raise ValueError(f"the weights take {size:,.0f} MB, and a page holds at most "
                         f"{LARGEST}: give a smaller model")  # fmt: skip
    return save(stored)


def build(model, tokenizer, name: str) -> str:
    """The page as text."""
    facts = {"name": name, "config": config_of(model), "end": END}
    facts["tokenizer"] = tokenizer_of(tokenizer)
    scripts = [(SOURCES / f"{one}.js").read_text("utf-8") for one in SCRIPTS]
    parts = {
        "STYLE": (SOURCES / "page.css").read_text("utf-8"),
        "FACTS": json.dumps(facts).replace("<", r"\u003c"),  # ends no element
        "WEIGHTS": base64.b64encode(weights_of(model)).decode("ascii"),
        "SCRIPT": "\n".join(scripts),
    }
    page = (SOURCES / "page.html").read_text("utf-8")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: parts[found[1]], page)


def write(out: Path, page: str) -> None:
    """Write the file under another name and rename it, so that it is never half."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(f"{out.name}.new")
    new.write_text(page, "utf-8")
    os.replace(new, out)


def run(args: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from generate import load

    folder, out = Path(args.model), Path(args.out)
    model, tokenizer = load(folder)
    try:
        page = build(model, tokenizer, folder.resolve().name)
    except ValueError as error:
        raise ValueError(f"--model {folder}: {error}") from None
    write(out, page)
    print(f"{out}: {len(page) / 1e6:.1f} MB, open it in a browser")


def main() -> int:
    args = options()
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"page: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
