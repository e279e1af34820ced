"""tools/train_tale_gpt.py: the texts it learns from, and a run that is killed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from solutions.generation import from_pretrained

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import train_tale_gpt as tool  # noqa: E402

TEXTS = ("tales.txt", "rich_tales.txt", "long_tales.txt")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The tool with few tales of each text and a tiny model."""
    for name in TEXTS:
        tales = (ROOT / "data" / name).read_text("utf-8").split("\n\n")[:24]
        (tmp_path / name).write_text("\n\n".join(tales), "utf-8")
    sizes = {"context_length": 16, "d_model": 8, "n_layers": 1, "n_heads": 2}
    monkeypatch.setattr(tool, "DATA", tmp_path)
    monkeypatch.setattr(tool, "SIZES", sizes)
    monkeypatch.setattr(tool, "VOCAB", 300)
    monkeypatch.setattr(tool, "BATCH", 4)
    monkeypatch.setattr(tool, "EVERY", 2)
    return tmp_path


def weights(folder: Path) -> list[torch.Tensor]:
    return list(from_pretrained(folder).parameters())


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_does(small, monkeypatch):
    tool.run(small / "unbroken", 6, 1)
    advance, made = tool.Training.advance, []

    def killed(self, x, y):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(1)
        return advance(self, x, y)

    monkeypatch.setattr(tool.Training, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        tool.run(small / "killed", 6, 1)
    monkeypatch.setattr(tool.Training, "advance", advance)
    tool.run(small / "killed", 6, 1)
    for a, b in zip(weights(small / "unbroken"), weights(small / "killed")):
        assert torch.equal(a, b)
    rows = [
        [json.loads(line) for line in (small / run / "log.jsonl").open()]
        for run in ("unbroken", "killed")
    ]
    assert [r["step"] for r in rows[1]] == [2, 4, 6]
    assert [(r["step"], r["bits"]) for r in rows[0]] == [
        (r["step"], r["bits"]) for r in rows[1]
    ]


def test_the_last_passes_read_the_tales_alone():
    """Ids below 100 stand for the tales, those above for the other texts."""
    size = tool.SIZES["context_length"] * tool.BATCH
    parts = [
        [torch.full((size,), i).numpy() for i in range(3)],
        [torch.full((size,), 100 + i).numpy() for i in range(2)],
    ]
    batches = tool.passes(parts, 1, 40)
    seen = [next(batches)[0] for _ in range(40)]
    first, last = torch.stack(seen[:10]), torch.stack(seen[-10:])
    assert (first >= 100).any() and (first < 100).any() and (last < 100).all()


def test_rates_rise_and_fall_in_lines_to_zero():
    rates = [tool.rate_at(i / 1000) for i in range(1001)]
    top = max(range(1001), key=rates.__getitem__)
    assert 0 < rates[0] < 0.1 and 0.99 < rates[top] <= 1 and abs(top - 20) < 3
    assert rates[top:] == sorted(rates[top:], reverse=True) and rates[-1] == 0


def test_no_steps_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path), "--steps", "0"])
    assert tool.main() == 2 and "--steps 0" in capsys.readouterr().err
