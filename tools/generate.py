"""Let a trained model go on with a text, token by token as it is drawn.

python tools/generate.py "There was a"
"""

import argparse
import sys
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("prompt", nargs="?", default="", help="how the text begins")
    p.add_argument("--temperature", type=float, default=0.8, help="0 is greedy")
    p.add_argument("--top-k", type=int, help="draw from the k likeliest tokens only")
    p.add_argument("--top-p", type=float, default=0.95, help="see chapter 7")
    p.add_argument("--seed", type=int, help="the same seed tells the same story")
    p.add_argument("--length", type=int, default=400, help="at most so many tokens")
    p.add_argument("--model", default=str(ROOT / "data" / "tale-gpt"), help="a folder")
    return p.parse_args()


def run(args: argparse.Namespace) -> None:
    if args.length < 0:
        raise ValueError(f"--length {args.length} must be at least 0")
    print(f"loading {args.model} ...", file=sys.stderr, flush=True)
    import torch  # takes a second: --help and a typing error shall answer at once

    from solutions.bpe import BPETokenizer
    from solutions.generation import from_pretrained, stream

    model = from_pretrained(args.model)
    tokenizer = BPETokenizer.load(Path(args.model) / "tokenizer.json")
    end = tokenizer.special_tokens.get(END)
    before = [] if end is None else [end]  # every story of the training began after one
    prompt = before + tokenizer.encode(args.prompt)
    if not prompt:
        raise ValueError(f"prompt is empty and the tokenizer has no {END}; give a word")
    generator = torch.Generator()
    if args.seed is None:
        generator.seed()
    else:
        generator.manual_seed(args.seed)
    tokens = stream(
        model, prompt, args.length, temperature=args.temperature, top_k=args.top_k,
        top_p=args.top_p, stop_ids=before, generator=generator,
    )  # fmt: skip
    show(args.prompt, tokenizer, tokens)


def show(prompt: str, tokenizer, tokens) -> None:
    """Print as it comes; bytes wait until they are whole characters."""
    print(prompt, end="", flush=True)
    waiting = []
    for token in tokens:
        waiting.append(token)
        text = tokenizer.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) > 3:
            print(text, end="", flush=True)
            waiting = []
    print(tokenizer.decode(waiting))


def main() -> int:
    try:
        run(options())
    except (ValueError, OSError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
