"""Train a GPT on a corpus: a text file in, a model folder out.

    python tools/pretrain.py data/tales.txt --out data/runs/tales
    torchrun --nproc-per-node 2 tools/pretrain.py data/tales.txt --out data/runs/tales

Chapter 6's recipe: clean, deduplicate, split, train a tokenizer, train a GPT. A corpus
that is larger than memory goes through tools/prepare.py first, whose folder is then the
corpus here. Started again after it was stopped, the tool goes on from the last
checkpoint. The folder it writes holds the model in the format of chapter 7 and a card,
README.md.
"""

import argparse
import json
import os
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

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
    read_tokens,
    split_documents,
    train_val_split,
)

END = "<|endoftext|>"


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "corpus",
        help="a UTF-8 text file, blank lines between documents, or a folder that "
        "tools/prepare.py has written (then its tokenizer and its split are used)",
    )
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
    p.add_argument(
        "--val-tokens",
        type=int,
        default=200_000,
        help="evaluate on the first so many held-out tokens, if there are more",
    )
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


def read_corpus(
    args: argparse.Namespace,
) -> tuple[BPETokenizer, np.ndarray, np.ndarray]:
    """The tokenizer, and the tokens to train on and to evaluate on."""
    folder = Path(args.corpus)
    if folder.is_dir():
        tokenizer = BPETokenizer.load(folder / "tokenizer.json")
        if END not in tokenizer.special_tokens:
            raise ValueError(f"{folder / 'tokenizer.json'} has no {END}")
        train_tokens, val_tokens = map(
            read_tokens, (folder / "train.npy", folder / "val.npy")
        )
    else:
        train_docs, val_docs = split_corpus(args.corpus, args.val_fraction, args.seed)
        tokenizer = train_bpe(train_docs, args.vocab_size, special_tokens=[END])
        train_tokens = encode_documents(tokenizer, train_docs)
        val_tokens = encode_documents(tokenizer, val_docs)
    return tokenizer, train_tokens, val_tokens[: args.val_tokens]


def held_out_bits(model: GPT, tokens: np.ndarray, tokenizer: BPETokenizer) -> float:
    """Bits per byte of held-out tokens; end-of-text marks count as no byte of text."""
    n_bytes = np.zeros(tokenizer.n_vocab, dtype=np.int64)
    for i, token in tokenizer.vocab.items():
        n_bytes[i] = 0 if i in tokenizer.special_tokens.values() else len(token)
    total = int(n_bytes[tokens].sum())
    return bits_per_byte(evaluate(model, tokens), len(tokens) - 1, total)


def card(args, model: GPT, config: TrainConfig, bits: float, samples: list[str]) -> str:
    """README.md of the model folder."""
    shown = "\n\n".join(f"### Sample {i}\n\n{s}" for i, s in enumerate(samples, 1))
    return f"""# {Path(args.out).name}

A GPT with {model.n_parameters():,} parameters, trained on `{Path(args.corpus).name}`.
License: that of the text it was trained on (for `data/tales.txt`: CC0 1.0).

- Size: `{json.dumps(asdict(model.config))}`
- Recipe: `{json.dumps(asdict(config))}`,
  initial matrices times {args.init_scale} (seed {args.seed}), by `tools/pretrain.py`
- Held-out documents: **{bits:.3f} bits per byte**
- Tokenizer: byte-level BPE, {model.config.vocab_size:,} tokens; `{END}` ends a document

It knows nothing but the kind of text it has seen. It writes in that manner, loses the
thread after a few sentences, and serves to learn how such a model works.

## Three unselected samples

Seeds 1, 2 and 3, temperature 0.8, top-p 0.95, no prompt, at most 200 tokens.

{shown}
"""


def samples(model: GPT, tokenizer: BPETokenizer) -> list[str]:
    end = tokenizer.special_tokens[END]
    texts = []
    for seed in (1, 2, 3):
        rows = generate(
            model, [[end]], 200, temperature=0.8, top_p=0.95, stop_ids=[end],
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        texts.append(tokenizer.decode(rows[0][1:]))
    return texts


def refuse_another_run(
    checkpoint: Path, args: argparse.Namespace, sizes: GPTConfig, tokens: list
) -> None:
    """ValueError if the checkpoint there comes from other tokens or another model."""
    own = {"model": asdict(sizes), "init_scale": args.init_scale}
    own["tokens"] = [[len(t), zlib.crc32(np.ascontiguousarray(t))] for t in tokens]
    record = checkpoint / "begun.json"
    if record.exists() and json.loads(record.read_text("utf-8")) != own:
        raise ValueError(
            f"{args.out} was begun with another corpus or other sizes; use another --out"
        )
    checkpoint.mkdir(parents=True, exist_ok=True)
    part = record.with_suffix(".part")
    part.write_text(json.dumps(own), "utf-8")
    part.replace(record)


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
    tokenizer, train_tokens, val_tokens = read_corpus(args)
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
    if writes:
        refuse_another_run(checkpoint, args, sizes, [train_tokens, val_tokens])
    train(model, train_tokens, val_tokens, config, checkpoint=checkpoint)
    if not writes:
        return
    model = (model.half() if args.half else model).cpu()
    save_pretrained(model, args.out, tokenizer)
    model = model.float()
    bits = held_out_bits(model, val_tokens, tokenizer)
    text = card(args, model, config, bits, samples(model, tokenizer))
    card_file = Path(args.out) / "README.md.new"
    card_file.write_text(text, "utf-8")
    card_file.replace(Path(args.out) / "README.md")
    print(
        f"{args.out}: {bits:.3f} bits per byte on {len(val_tokens):,} held-out tokens"
    )


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
