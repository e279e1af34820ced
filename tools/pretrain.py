"""Train a GPT on a corpus: a text file in, a model folder out.

    python tools/pretrain.py data/tales.txt --out data/runs/tales
    torchrun --nproc-per-node 2 tools/pretrain.py data/tales.txt --out data/runs/tales

Chapter 6's recipe: clean, deduplicate, split, train a tokenizer, train a GPT. Started
again after it was stopped, it goes on from the last checkpoint. The folder holds the
model in the format of chapter 7 and a card, README.md.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from solutions.bpe import BPETokenizer, train_bpe
from solutions.generation import generate, save_pretrained
from solutions.gpt import GPT, GPTConfig
from solutions.pretraining import (
    TrainConfig,
    bits_per_byte,
    evaluate,
    train,
)
from solutions.text_data import (
    clean_text,
    deduplicate,
    load_text,
    split_documents,
    train_val_split,
)

END = "<|endoftext|>"


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("corpus", help="a UTF-8 text file, blank lines between documents")
    p.add_argument("--out", required=True, help="the model folder to write")
    p.add_argument("--vocab-size", type=int, default=1024)
    p.add_argument("--context-length", type=int, default=256)
    p.add_argument("--d-model", type=int, default=128)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument(
        "--init-scale",
        type=float,
        default=2.5,
        help="factor on GPT-2's first weights (0.02); 2.5 did best at width 128",
    )
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--val-fraction", type=float, default=0.1)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--half", action="store_true", help="store the weights in 16 bits")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def split_corpus(path: str, fraction: float, seed: int) -> tuple[list[str], list[str]]:
    documents = deduplicate(split_documents(clean_text(load_text(path))))
    generator = torch.Generator().manual_seed(seed)
    return train_val_split(documents, fraction, generator=generator)


def encode_documents(tokenizer: BPETokenizer, documents: list[str]) -> np.ndarray:
    """All documents as ids, the end-of-text id after each."""
    end = [tokenizer.special_tokens[END]]
    return np.array([i for d in documents for i in tokenizer.encode_ordinary(d) + end])


def held_out_bits(model, tokens, documents: list[str]) -> float:
    """Bits per byte of held-out documents; only their own bytes count."""
    n_bytes = sum(len(d.encode("utf-8")) for d in documents)
    return bits_per_byte(evaluate(model, tokens), len(tokens) - 1, n_bytes)


def card(args, model: GPT, config: TrainConfig, bits: float, samples: list[str]) -> str:
    """README.md of the model folder."""
    shown = "\n\n".join(f"### Sample {i}\n\n{s}" for i, s in enumerate(samples, 1))
    return f"""# {Path(args.out).name}

A GPT with {model.n_parameters():,} parameters, trained on `{Path(args.corpus).name}`.
Licence: that of the text it was trained on (for `data/tales.txt`: CC0 1.0).

- Size: `{json.dumps(asdict(model.config))}`
- Recipe: `{json.dumps(asdict(config))}`,
  initial matrices times {args.init_scale}, on {1 - args.val_fraction:.0%} of the
  documents (seed {args.seed}), through `tools/pretrain.py`
- Held-out documents: **{bits:.3f} bits per byte**
- Tokenizer: byte-level BPE, {model.config.vocab_size:,} tokens; `{END}` ends a document

It knows nothing but the kind of text it has seen. It writes in that manner, loses the
thread after a few sentences, and serves to learn how such a model works.

## Three unselected samples

Seeds 1, 2 and 3, temperature 0.8, top-p 0.95, prompt "Once there was", 200 tokens.

{shown}
"""


def samples(model: GPT, tokenizer: BPETokenizer) -> list[str]:
    end = tokenizer.special_tokens[END]
    prompt, texts = [end, *tokenizer.encode("Once there was")], []
    for seed in (1, 2, 3):
        rows = generate(
            model, [prompt], 200, temperature=0.8, top_p=0.95, stop_ids=[end],
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        texts.append(tokenizer.decode(rows[0][1:]))
    return texts


def start_processes() -> tuple[torch.device, bool]:
    """The device of this process, and whether it is the one that writes."""
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ:
        return torch.device("cuda" if cuda else "cpu"), True
    dist.init_process_group("nccl" if cuda else "gloo")
    local = int(os.environ["LOCAL_RANK"])
    return torch.device("cuda", local) if cuda else torch.device("cpu"), (
        dist.get_rank() == 0
    )


def run(args: argparse.Namespace) -> None:
    device, writes = start_processes()
    train_docs, val_docs = split_corpus(args.corpus, args.val_fraction, args.seed)
    tokenizer = train_bpe(train_docs, args.vocab_size, special_tokens=[END])
    train_tokens = encode_documents(tokenizer, train_docs)
    val_tokens = encode_documents(tokenizer, val_docs)
    sizes = GPTConfig(
        tokenizer.n_vocab, args.context_length, args.d_model, args.layers, args.heads,
        dropout=args.dropout,
    )  # fmt: skip
    config = TrainConfig(
        steps=args.steps, batch_size=args.batch_size, max_lr=args.lr,
        min_lr=args.lr / 10, warmup_steps=min(50, args.steps // 10),
        weight_decay=args.weight_decay, precision=args.precision, seed=args.seed,
        eval_every=max(1, args.steps // 15), checkpoint_every=200,
    )  # fmt: skip
    torch.manual_seed(args.seed)
    model = GPT(sizes, generator=torch.Generator().manual_seed(args.seed)).to(device)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(args.init_scale if p.ndim == 2 else 1.0)
    checkpoint = Path(args.out) / "checkpoint"
    train(model, train_tokens, val_tokens, config, checkpoint=checkpoint)
    if not writes:
        return
    model = (model.half() if args.half else model).cpu()
    save_pretrained(model, args.out, tokenizer)
    model = model.float()
    bits = held_out_bits(model, val_tokens, val_docs)
    text = card(args, model, config, bits, samples(model, tokenizer))
    (Path(args.out) / "README.md").write_text(text, "utf-8")
    print(f"{args.out}: {bits:.3f} bits per byte on {len(val_docs)} held-out documents")


def main() -> int:
    try:
        run(options())
    except (ValueError, OSError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
