"""tools/study_parts.py: contenders are built, tuned and judged as it says."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import study  # noqa: E402
import study_parts as parts  # noqa: E402
from study_parts import Contender  # noqa: E402


class Fake:
    """A "model" whose loss is the distance of its rate from the best, in factors."""

    def __init__(self, seed):
        self.seed, self.rate = seed, None

    def parameters(self):
        return [torch.zeros(3)]


def contender(best: float, runs: list) -> Contender:
    def learn(model, rate, seed):
        model.rate = rate
        runs.append((rate, seed))

    return Contender(Fake, learn, lambda m, part: abs(math.log2(m.rate / best)))


@pytest.mark.parametrize("best", [1e-3, 8e-3, 6.4e-2])
def test_a_rate_is_tuned_until_the_best_has_worse_neighbors(best):
    tried = contender(best, []).tuned(8e-3)
    assert min(tried, key=tried.get) == pytest.approx(best)
    for neighbor in (best / 2, best * 2):
        assert any(math.isclose(neighbor, rate) for rate in tried)


def test_a_run_that_diverges_counts_as_infinite():
    def learn(model, rate, seed):
        model.rate = rate
        if rate > 1e-3:
            raise ValueError(
                "the loss is 9.0 at step 3 and no gradient since is a number"
            )

    faulty = Contender(Fake, learn, lambda m, part: abs(math.log2(m.rate / 1e-3)))
    tried = faulty.tuned(2e-3)
    assert min(tried, key=tried.get) == 1e-3 and tried[2e-3] == math.inf


def test_a_stopped_study_goes_on_with_the_rates_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    keys, runs = ["change", "seed", "rate", "tuning"], []
    table = study.Table("x", keys, ["weights", "bits"], "study_parts.py")
    parts.compete(table, "a", contender(1e-3, runs), 1e-3)
    assert [row["seed"] for row in table.rows if row["tuning"] == "0"] == [
        "1",
        "2",
        "3",
    ]
    made, text = len(runs), table.path.read_text("utf-8")
    table = study.Table("x", keys, ["weights", "bits"], "study_parts.py")
    parts.compete(table, "a", contender(1e-3, runs), 1e-3)
    assert len(runs) == made and table.path.read_text("utf-8") == text
    assert text.startswith("# python tools/study_parts.py x; CPU (")


def test_alibi_penalizes_by_distance_and_looks_at_no_future():
    layer = parts.AlibiAttention(8, 2, generator=torch.Generator().manual_seed(0))
    q = torch.zeros(1, 2, 4, 4)  # equal scores: only the penalty is left
    v = torch.eye(4).expand(1, 2, 4, 4)
    weights = layer._attend(q, q, v)[0]  # (H, T, T)
    for head, slope in enumerate((2**-4, 2**-8)):
        expected = F.softmax(-slope * torch.tensor([2.0, 1.0, 0.0]), dim=0)
        torch.testing.assert_close(weights[head, 2, :3], expected)
    assert not weights.triu(1).any()


def test_every_contender_can_be_built_and_has_as_many_weights():
    sizes = {}
    for name, change in parts.CHANGES.items():
        model = parts.modern_model(change, 1)
        sizes[name] = model.n_parameters()
        assert model(torch.zeros(1, 8, dtype=torch.int64)).isfinite().all()
    spread = max(sizes.values()) / min(sizes.values())
    assert spread < 1.01, sizes
    for kind in parts.KINDS:
        losses = parts.losses_by_position(
            parts.positions_model(kind, 1), np.arange(600) % 50
        )
        assert losses.shape == (parts.LONG,) and losses.isfinite().all()
    for kind in parts.ARRANGEMENTS:
        model = parts.arranged_model(kind, 40, 1)
        assert model(torch.zeros(1, 8, dtype=torch.int64)).isfinite().all()


def test_windows_of_every_vocabulary_hold_as_many_bytes():
    text, sizes = study.RicherText(), {}
    for size in study.VOCABULARIES:
        text.cut(size)
        assert text.train.max() == size == text.tokenizer.special_tokens[study.END]
        sizes[size] = text.context * text.n_bytes / len(text.train)
    assert all(abs(n - study.WINDOW) < 3 for n in sizes.values()), sizes


def test_the_study_of_vocabularies_is_complete():
    table = study.Table("vocabularies", [], []).read()
    seen = {(int(r["vocabulary"]), int(r["passes"])) for r in table}
    assert seen == {(size, n) for size in study.VOCABULARIES for n in (1, 3)}
