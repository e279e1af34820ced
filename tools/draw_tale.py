"""Draw README.md's picture: what tale-gpt expects in a tale, and where one head looks.

    python tools/draw_tale.py .github/tale.svg

The tale is a held-out one, so the model has never read it. A token's color says how
probable the model found it after all the tokens before it. The lines lead from a word
to the words that one head attends to from there; thicker means more.
"""

import argparse
import sys
from html import escape
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
from torch import Tensor

from solutions.attention import attention_weights, causal_mask
from solutions.bpe import BPETokenizer
from solutions.generation import from_pretrained
from solutions.gpt import GPT
from solutions.text_data import load_text, split_documents, train_val_split

DATA = Path(__file__).resolve().parent.parent / "data"
BEGINS = "The sun was hot at the pond. A cat and a mouse"
LAYER, HEAD = 5, 3  # counted from 0
WORDS = (" she", " he")  # from which lines are drawn
LEAST = 0.1  # attention that is drawn
COLUMNS, WIDE, HIGH, LINE = (
    68,
    9.6,
    22,
    40,
)  # characters; pixels of one, of its box, line
EDGE, TOP = 12, 22
EXPECTED, SURPRISE = (255, 255, 255), (240, 150, 70)
BLUE = "#1d4e89"
FONT = 'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="16"'


def held_out_tale(begins: str) -> str:
    """The held-out tale of chapter 6 that begins so."""
    tales = split_documents(load_text(DATA / "tales.txt"))
    generator = torch.Generator().manual_seed(1)
    _, held_out = train_val_split(tales, 0.1, generator=generator)
    return next(tale for tale in held_out if tale.startswith(begins))


@torch.no_grad()
def read(model: GPT, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Probability (T-1) of each token but the first; one head's attention (T, T)."""
    kept = []

    def keep(module, inputs, output):
        q, k, _ = module.split_heads(inputs[0])
        kept.append(attention_weights(q, k, causal_mask(q.shape[2]))[0, HEAD])

    handle = model.blocks[LAYER].attention.register_forward_hook(keep)
    logits = model(torch.tensor([ids]))[0]
    handle.remove()
    targets = torch.tensor(ids[1:]).unsqueeze(1)
    return logits.softmax(-1)[:-1].gather(1, targets).squeeze(1), kept[0]


def layout(pieces: list[str]) -> list[tuple[int, int]]:
    """(column, row) of each piece, in lines of at most COLUMNS characters."""
    positions, column, row = [], 0, 0
    for piece in pieces:
        if piece.startswith(" ") and column + len(piece) > COLUMNS:
            column, row = -1, row + 1  # the space stays outside the line
        positions.append((column, row))
        column += len(piece)
        if piece.endswith("\n"):
            column, row = 0, row + 1
    return positions


def color(probability: float) -> str:
    """White at 1; the square root tells 1% from 10%."""
    pairs = zip(EXPECTED, SURPRISE, strict=True)
    mixed = (a * probability**0.5 + b * (1 - probability**0.5) for a, b in pairs)
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def box(x: float, y: float, word: str, probability: float, edge: str) -> str:
    width = len(word) * WIDE
    area = f'x="{x - 1:.1f}" y="{y:.1f}" width="{width + 2:.1f}" height="{HIGH}"'
    size = f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
    return (
        f'<rect {area} rx="3" fill="{color(probability)}" stroke="{edge}"/>'
        f'<text x="{x:.1f}" y="{y + 16:.1f}" {size}>{escape(word)}</text>'
    )


def curve(start: tuple[float, float], end: tuple[float, float], weight: float) -> str:
    """A line from the top of one word over the text to another."""
    (a, b), (c, d) = start, end
    path = (
        f"M{a:.1f},{b:.1f} C{a:.1f},{b - 22:.1f} {c:.1f},{d - 22:.1f} {c:.1f},{d:.1f}"
    )
    return f'<path d="{path}" stroke-width="{6 * weight:.1f}"/>'


def legend(y: float) -> str:
    shown = [(0.01, "1%"), (0.1, "10%"), (0.5, "50%"), (1.0, "100%")]
    said = "probable after what came before:"
    parts = [f'<text x="{EDGE}" y="{y + 16:.1f}">{said}</text>']
    x = EDGE + (len(said) + 1) * WIDE
    for probability, name in shown:
        parts.append(box(x, y, name, probability, "#bbbbbb"))
        x += (len(name) + 1) * WIDE
    return "".join(parts)


def picture(pieces: list[str], probability: Tensor, attention: Tensor) -> str:
    """The SVG. pieces: all tokens but the first, which only begins the tale."""
    boxes, middles, lines = [], [], []
    spots = layout(pieces)
    for i, (piece, (column, row)) in enumerate(zip(pieces, spots, strict=True)):
        word = piece.strip()
        x = EDGE + WIDE * (column + len(piece) - len(piece.lstrip()))
        y = TOP + LINE * row
        middles.append((x + WIDE * len(word) / 2, y))
        edge = BLUE if piece in WORDS else "none"
        if word:
            boxes.append(box(x, y, word, probability[i].item(), edge))
        for j in range(i if piece in WORDS else 0):
            weight = attention[i + 1, j + 1].item()
            if weight >= LEAST:
                lines.append(curve(middles[i], middles[j], weight))
    bottom = TOP + LINE * (spots[-1][1] + 1)
    width, height = round(2 * EDGE + WIDE * COLUMNS), bottom + HIGH + EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" {FONT}>'
        f'<rect width="100%" height="100%" rx="8" fill="white"/>\n'
        + "\n".join(boxes)
        + f'\n<g fill="none" stroke="{BLUE}" opacity="0.8">{"".join(lines)}</g>\n'
        + legend(bottom)
        + "\n</svg>\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the SVG file to write")
    args = parser.parse_args()
    model = from_pretrained(DATA / "tale-gpt").eval()
    tokenizer = BPETokenizer.load(DATA / "tale-gpt" / "tokenizer.json")
    tale = tokenizer.encode(held_out_tale(BEGINS))
    probability, attention = read(
        model, [tokenizer.special_tokens["<|endoftext|>"], *tale]
    )
    drawn = picture([tokenizer.decode([i]) for i in tale], probability, attention)
    args.out.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
