"""Chapter 6: the loss, the optimizer and the loop, against torch and each other."""

import copy
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import nn

from solutions.attention import RNNLanguageModel
from solutions.checkpoint import PREVIOUS_FILE
from solutions.gpt import GPT, GPTConfig
from solutions.linear import OneDNNLinear, use_onednn
from solutions.optimization import Muon, muon_groups, orthogonalize
from solutions.pretraining import (
    AdamW,
    TrainConfig,
    bits_per_byte,
    clip_gradients,
    cosine_schedule,
    cross_entropy,
    evaluate,
    load_checkpoint,
    parameter_groups,
    perplexity,
    read_checkpoint,
    save_checkpoint,
    token_losses,
    train,
    training_step,
)
from solutions.text_data import get_batch

ROOT = Path(__file__).resolve().parent.parent
TOKENS = np.random.default_rng(0).integers(0, 50, 3000)
VAL = TOKENS[:201]
PLAN = TrainConfig(
    steps=20, batch_size=4, warmup_steps=3, eval_every=5, checkpoint_every=4
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: threads would only wait for each other."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def tiny(seed: int = 0, *, dropout: float = 0.0, d_model: int = 16) -> GPT:
    config = GPTConfig(50, 8, d_model, n_layers=2, n_heads=2, dropout=dropout)
    return GPT(config, generator=torch.Generator().manual_seed(seed))


def assert_each_weight_is_in_a_group(groups, model: nn.Module) -> None:
    """A tied one once, a frozen one in none."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = Counter(names[id(p)] for group in groups for p in group["params"])
    expected = Counter(n for n, p in model.named_parameters() if p.requires_grad)
    wrong, missing = list(found - expected), list(expected - found)
    assert not wrong, f"frozen, or twice in the groups: {wrong}"
    assert not missing, f"in no group: {missing}"


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- the loss -----------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0.01, 1000.0), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_the_loss_and_its_gradient_equal_torchs(seed, scale, ignored):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 9, generator=generator) * scale
    targets = torch.randint(9, (3, 4), generator=generator)
    targets.view(-1)[:ignored] = -100
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = cross_entropy(a, targets)
    theirs = F.cross_entropy(b.view(12, 9), targets.view(12))
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_the_loss_is_computed_in_fp32_whatever_comes_in():
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = cross_entropy(logits, torch.arange(5))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), torch.arange(5)))


def test_what_does_not_count_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, 5).requires_grad_()
    targets = torch.tensor([[1, -100, 2], [-100, 0, 4]])
    losses = token_losses(logits, targets)
    assert (losses == 0).tolist() == (targets == -100).tolist()
    losses.sum().backward()
    assert (logits.grad.abs().sum(-1) == 0).tolist() == (targets == -100).tolist()
    assert cross_entropy(logits, targets * 0 - 100).isnan()
    impossible = torch.tensor([[-math.inf, 0.0]])
    found = token_losses(impossible, torch.tensor([-100])).item()
    assert found == 0, f"-100 costs {found}, where some token is impossible (-inf)"


def test_an_untrained_gpt_has_a_loss_of_ln_v():
    assert abs(evaluate(tiny(), TOKENS) - math.log(50)) < 0.05


def test_perplexity_of_an_even_guess_is_the_vocabulary():
    loss = cross_entropy(torch.zeros(7, 50), torch.arange(7)).item()
    assert perplexity(loss) == pytest.approx(50)
    assert perplexity(1e6) == math.inf


def test_bits_per_byte_does_not_depend_on_how_a_text_is_cut():
    # One text of 12 bytes and 18 nats, as 12, 6 and 1 tokens.
    answers = {round(bits_per_byte(18 / n, n, 12), 12) for n in (12, 6, 1)}
    assert answers == {round(18 / math.log(2) / 12, 12)}
    assert bits_per_byte(math.log(256), 10, 10) == pytest.approx(8)


# --- the optimizer ------------------------------------------------------------------


@given(
    st.floats(1e-5, 0.1), st.floats(0.0, 0.99), st.floats(0.0, 0.999),
    st.floats(1e-10, 1e-3), st.floats(0.0, 1.0),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_adamw_equals_torchs(lr, beta1, beta2, eps, weight_decay):
    options = dict(lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    a, b = AdamW([ours], **options), torch.optim.AdamW([theirs], **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        ours.grad = torch.randn(4, 3, generator=generator).double()
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_adamw_equals_the_fused_one_over_a_thousand_steps():
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (3,), (4, 4), (1,)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    results = []
    for kind, options in ((AdamW, {}), (torch.optim.AdamW, {"fused": True})):
        params = [nn.Parameter(p.clone()) for p in start]
        groups = [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}]
        optimizer = kind(groups, betas=(0.9, 0.95), weight_decay=0.1, **options)
        draws = torch.Generator().manual_seed(1)
        for step in range(1000):
            for p in params:
                p.grad = torch.randn(p.shape, generator=draws) + p.detach()
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.sin(step / 50))
            optimizer.param_groups[1]["lr"] = 1e-3 / (1 + step / 100)
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in params]))
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_muon_goes_the_way_of_torchs_and_makes_singular_values_one():
    matrices = torch.randn(3, 24, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert 0.6 < values.min() and values.max() < 1.25
    ours, theirs = (nn.Parameter(matrices[0].clone()) for _ in "ab")
    muon = Muon([{"params": [ours], "parts": 1}], lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    draws = torch.Generator().manual_seed(1)
    for _ in range(10):
        ours.grad = torch.randn(24, 8, generator=draws)
        theirs.grad = ours.grad.clone()
        muon.step()
        other.step()
    a, b = (p.detach() - matrices[0] for p in (ours, theirs))
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99
    assert a.norm() / b.norm() == pytest.approx(1, abs=0.05)


def test_muon_cuts_queries_keys_and_values_apart():
    weight = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    joint = nn.Parameter(weight.clone())
    apart = [nn.Parameter(part.clone()) for part in weight.chunk(3)]
    one = Muon([{"params": [joint], "parts": 3}], lr=0.1)
    three = Muon([{"params": apart, "parts": 1}], lr=0.1)
    joint.grad = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    for p, g in zip(apart, joint.grad.chunk(3)):
        p.grad = g.clone()
    one.step()
    three.step()
    torch.testing.assert_close(joint.detach(), torch.cat([p.detach() for p in apart]))


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = tiny()
    groups = joint, single, rest = muon_groups(model, 0.3)
    assert {tuple(p.shape) for p in joint["params"]} == {(48, 16)}
    assert len(joint["params"]) == 2 and len(single["params"]) == 6
    assert (joint["parts"], single["parts"], rest.get("parts")) == (3, 1, None)
    assert [g["weight_decay"] for g in groups] == [0.3, 0.3, 0.0]
    assert [g.get("lr_scale", 1.0) for g in groups] == [4.0, 4.0, 1.0]
    scales = [g.get("lr_scale", 1.0) for g in muon_groups(model, 0.3, lr_scale=2.0)]
    assert scales == [2.0, 2.0, 1.0]
    assert_each_weight_is_in_a_group(groups, model)
    frozen = tiny()
    frozen.blocks[1].attention.qkv.weight.requires_grad_(False)
    frozen.norm.weight.requires_grad_(False)
    assert_each_weight_is_in_a_group(muon_groups(frozen, 0.3), frozen)
    plan = replace(PLAN, steps=60, max_lr=1e-2, batch_size=1)
    history = train(
        model, TOKENS[:9], TOKENS[:9], plan, progress=False,
        optimizer=Muon(muon_groups(model, 0.0)),
    )  # fmt: skip
    assert history.val_loss[-1] < 0.1


def test_muon_takes_a_gradient_of_zeros_for_what_it_is():
    # The blocks' matrices have one at first, where the output layer starts at 0.
    w = nn.Parameter(torch.ones(4, 2))
    w.grad = torch.zeros(4, 2)
    Muon([{"params": [w], "parts": 1}], lr=0.1, weight_decay=0.5).step()
    assert w.isfinite().all(), "zeros became nan: 0 was divided by their length, 0"
    torch.testing.assert_close(w.detach(), torch.full((4, 2), 0.95))


def test_muon_iterates_in_the_type_that_it_is_given():
    moved = []
    for dtype in (torch.float32, torch.bfloat16):
        w = nn.Parameter(torch.zeros(4, 8))
        w.grad = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
        Muon([{"params": [w], "parts": 1}], lr=1.0, dtype=dtype).step()
        moved.append(w.detach())
    torch.testing.assert_close(*moved, rtol=0, atol=0.02)
    assert not torch.equal(*moved), "dtype=torch.bfloat16 changes nothing"


def test_adamws_first_step_has_the_size_of_the_learning_rate():
    w = nn.Parameter(torch.zeros(3))
    w.grad = torch.tensor([1e-3, -5.0, 1e4])
    AdamW([w], lr=0.1).step()
    moved = torch.tensor([-0.1, 0.1, -0.1])
    torch.testing.assert_close(w.data, moved, rtol=1e-4, atol=0)


def test_a_parameter_without_a_gradient_stays():
    still, moved = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    alone = nn.Parameter(torch.ones(2))  # and so does a whole group
    AdamW([{"params": [still, moved]}, {"params": [alone]}]).step()
    assert torch.equal(still.data, torch.ones(2)) and (moved < 1).all()
    assert torch.equal(alone.data, torch.ones(2))


def test_matrices_decay_and_vectors_do_not():
    model = tiny()
    decay, rest = parameter_groups(model, 0.3)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decay["params"]} == {2}
    assert {p.ndim for p in rest["params"]} == {1}
    assert_each_weight_is_in_a_group((decay, rest), model)
    model.norm.weight.requires_grad_(False)
    assert_each_weight_is_in_a_group(parameter_groups(model, 0.3), model)


def test_the_schedule_rises_in_a_line_and_falls_along_a_cosine():
    plan = dict(max_lr=3.0, min_lr=1.0, warmup_steps=4, total_steps=24)
    rates = [cosine_schedule(s, **plan) for s in range(30)]
    assert rates[:5] == pytest.approx([0.6, 1.2, 1.8, 2.4, 3.0])
    assert rates[14] == pytest.approx(2.0) and rates[24:] == [1.0] * 6
    assert all(a > b for a, b in zip(rates[4:24], rates[5:25]))
    w = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([w], lr=3.0), T_max=20, eta_min=1.0
    )
    for step in range(4, 24):
        assert rates[step] == pytest.approx(theirs.get_last_lr()[0])
        w.grad = torch.zeros(1)
        theirs.optimizer.step()
        theirs.step()


@given(st.integers(0, 1000), st.floats(0.01, 100.0))
@settings(deadline=None, max_examples=30)
def test_clipping_equals_torchs(seed, max_norm):
    generator = torch.Generator().manual_seed(seed)
    ours = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for a, b in zip(ours, theirs):
        a.grad = torch.randn(a.shape, generator=generator) * 5
        b.grad = a.grad.clone()
    norm = clip_gradients(iter(ours), max_norm)
    before = nn.utils.clip_grad_norm_(theirs, max_norm).item()
    assert norm == pytest.approx(before, rel=1e-5)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)
    assert isinstance(norm, torch.Tensor) and norm.shape == ()  # nobody waits for it
    if norm <= max_norm:
        assert clip_gradients(ours, max_norm) == norm  # short ones are not touched


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_no_number_becomes_zero(bad):
    params = exploded() + [nn.Parameter(torch.ones(2))]
    params[0].grad[0], params[1].grad = bad, torch.ones(2)
    assert not clip_gradients(params, 1.0).isfinite()
    assert not torch.cat([p.grad for p in params]).any()


def test_nothing_in_a_step_reads_a_value_back(monkeypatch):
    model, plan = tiny(dropout=0.1), replace(PLAN, accumulation_steps=2)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), fused=True)
    batch = get_batch(TOKENS, 4, 8)

    def waiting(name):
        def wait(*_, **__):
            raise AssertionError(f"a tensor's value was read back, by its {name}()")

        return wait

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, waiting(name))
    loss, norm = training_step(model, optimizer, batch, 0, plan)
    monkeypatch.undo()
    assert loss.item() > 0 and norm.item() > 0


def test_a_step_switches_dropout_on_and_clears_the_gradients():
    model = tiny(dropout=0.5).eval()
    optimizer = AdamW(parameter_groups(model, 0.1))
    training_step(model, optimizer, get_batch(TOKENS, 4, 8), 0, PLAN)
    assert model.training, "the step was taken in evaluation mode, without dropout"
    left = [p.grad for p in model.parameters() if p.grad is not None]
    assert not any(g.any() for g in left), "the gradients of this step are still there"


# --- the linear layer ---------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 24), (7, 24), (24,), (2, 3, 4, 24)])
def test_onednns_linear_layer_equals_torchs(bias, shape):
    plain, fast = nn.Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    fast.load_state_dict(plain.state_dict())
    if not use_onednn(fast):
        pytest.skip("this processor gains nothing from it")
    assert type(fast) is OneDNNLinear
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for layer, each in zip((plain, fast), inputs):
        layer(each).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)
    for a, b in zip(plain.parameters(), fast.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == plain(x).dtype == torch.bfloat16
    assert fast.double()(x.double()).dtype == torch.float64


def test_onednn_multiplies_fp32_on_a_cpu_that_gains_from_it(monkeypatch):
    layer, x = nn.Linear(24, 40), torch.randn(3, 24)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not use_onednn(layer) and type(layer) is nn.Linear
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    assert use_onednn(layer)
    assert type(layer(x).grad_fn).__name__ == "_ProductBackward"
    other = layer.to("meta")(x.to("meta"))
    assert other.shape == (3, 40) and type(other.grad_fn).__name__ != "_ProductBackward"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_in_fp32_on_a_cpu_asks_for_onednn(monkeypatch, precision):
    asked = []
    monkeypatch.setattr("solutions.pretraining.use_onednn", asked.append)
    model, plan = tiny(), replace(PLAN, steps=4, precision=precision)
    train(model, TOKENS, VAL, plan, progress=False)
    assert asked == ([model] if precision == "fp32" else [])


def test_a_copy_of_a_fast_model_has_weights_of_its_own():
    model = tiny()
    use_onednn(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(2)
    ids = torch.arange(8)[None]
    assert not torch.equal(model(ids), twin(ids))


# --- evaluation and training --------------------------------------------------------


class Counting(nn.Module):
    """Says the same at every position, so that each token has a known loss."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.linspace(-1, 1, 50))

    def forward(self, ids):
        return self.values.expand(*ids.shape, 50)


@pytest.mark.parametrize("n", [9, 10, 16, 17, 18, 200])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_evaluation_counts_every_token_once(n, batch_size):
    model, tokens = Counting(), TOKENS[:n]
    log_p = model.values.detach().log_softmax(-1)
    expected = -log_p[torch.from_numpy(tokens[1:])].mean().item()
    loss = evaluate(model, tokens, batch_size=batch_size, context_length=8)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_evaluation_switches_dropout_off_and_leaves_the_mode_alone():
    model = tiny(dropout=0.5)
    for training in (True, False):
        model.train(training)
        assert evaluate(model, VAL) == evaluate(model, VAL)
        assert model.training is training
        assert all(p.grad is None for p in model.parameters())


def test_a_batch_can_be_learned_by_heart():
    model = tiny()
    tokens = TOKENS[:9]
    plan = TrainConfig(
        steps=60, batch_size=1, max_lr=0.02, min_lr=0.002, warmup_steps=5,
        weight_decay=0.0,
    )  # fmt: skip
    history = train(model, tokens, tokens, plan, progress=False)
    assert history.val_loss[-1] < 0.05 < 3.5 < history.val_loss[0]


def test_training_equals_a_loop_of_torchs_own_parts():
    model, twin = tiny(), tiny()
    plan = replace(PLAN, max_norm=0.5, weight_decay=0.2)
    history = train(model, TOKENS, VAL, plan, progress=False)
    optimizer = torch.optim.AdamW(parameter_groups(twin, 0.2), betas=(0.9, 0.95))
    batches, losses = torch.Generator().manual_seed(0), []
    for step in range(20):
        x, y = get_batch(TOKENS, 4, 8, generator=batches)
        loss = F.cross_entropy(twin(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(step)
        optimizer.step()
        losses.append(loss.item())
    assert history.train_loss == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-3, atol=1e-5)


def test_the_history_says_when_it_was_evaluated():
    history = train(tiny(), TOKENS, VAL, replace(PLAN, steps=12), progress=False)
    assert history.val_steps == [0, 5, 10, 12]
    assert len(history.val_loss) == 4
    assert len(history.train_loss) == len(history.grad_norm) == 12


def test_accumulated_pieces_make_the_whole_batch():
    whole, pieces = tiny(), tiny()
    a = train(whole, TOKENS, VAL, replace(PLAN, batch_size=6), progress=False)
    plan = replace(PLAN, batch_size=6, accumulation_steps=3)
    b = train(pieces, TOKENS, VAL, plan, progress=False)
    assert b.train_loss == pytest.approx(a.train_loss, rel=1e-4)
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    a, b, c = tiny(), tiny(), tiny()
    same = train(a, TOKENS, VAL, PLAN, progress=False)
    assert train(b, TOKENS, VAL, PLAN, progress=False) == same
    assert torch.equal(weights(a), weights(b))
    other = train(c, TOKENS, VAL, replace(PLAN, seed=1), progress=False)
    assert other.train_loss != same.train_loss


def test_bf16_trains_about_as_well_and_keeps_fp32_weights():
    model, kinds = tiny(), set()
    model.head.register_forward_hook(lambda m, i, out: kinds.add(out.dtype))
    plan = replace(PLAN, precision="bf16", steps=10)
    history = train(model, TOKENS, VAL, plan, progress=False)
    full = train(tiny(), TOKENS, VAL, replace(PLAN, steps=10), progress=False)
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.train_loss == pytest.approx(full.train_loss, abs=0.05)
    assert history.train_loss != full.train_loss


def test_any_model_from_ids_to_logits_can_be_trained():
    torch.manual_seed(0)
    plan = replace(PLAN, context_length=8, max_lr=0.01, min_lr=0.001)
    history = train(RNNLanguageModel(50, 8), TOKENS, VAL, plan, progress=False)
    assert len(history.train_loss) == 20


def test_the_progress_bar_shows_only_when_asked_for(capsys):
    train(tiny(), TOKENS, VAL, replace(PLAN, steps=4), progress=False)
    assert capsys.readouterr() == ("", "")
    train(tiny(), TOKENS, VAL, replace(PLAN, steps=4))
    out, err = capsys.readouterr()
    assert out == "" and "4/4" in err and "loss" in err


def test_a_loss_that_is_no_number_stops_the_run():
    model = tiny()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="loss is nan at step 0.*max_lr"):
        train(model, TOKENS, VAL, PLAN, progress=False)


class Poisoned(GPT):
    """Gives a loss that is no number in the training steps named in `bad`."""

    def __init__(self, bad: set[int]) -> None:
        config = GPTConfig(50, 8, 16, n_layers=2, n_heads=2)
        super().__init__(config, generator=torch.Generator().manual_seed(0))
        self.bad, self.steps = bad, 0

    def forward(self, ids, cache=None):
        logits = super().forward(ids, cache)
        self.steps += self.training
        return logits * math.nan if self.training and self.steps - 1 in self.bad else logits


def test_a_step_that_is_no_number_is_skipped_and_counted():
    model = Poisoned({3, 11})
    history = train(model, TOKENS, VAL, PLAN, progress=False)
    assert history.skipped == [3, 11]
    assert weights(model).isfinite().all() and math.isfinite(history.val_loss[-1])


def test_ten_such_steps_end_the_run_and_keep_the_last_good_state(tmp_path):
    model = Poisoned(set(range(6, 99)))
    plan = replace(PLAN, checkpoint_every=4, log_every=1)
    with pytest.raises(ValueError, match="loss is nan at step 6"):
        train(model, TOKENS, VAL, plan, checkpoint=tmp_path, progress=False)
    good = tiny(seed=5)
    assert load_checkpoint(tmp_path, good) <= 12
    assert weights(good).isfinite().all()


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_how_often_losses_are_read_changes_nothing(log_every):
    a, b, rows = tiny(), tiny(), []
    usual = train(a, TOKENS, VAL, PLAN, progress=False)
    plan = replace(PLAN, log_every=log_every)
    assert train(b, TOKENS, VAL, plan, progress=False, report=rows.append) == usual
    assert torch.equal(weights(a), weights(b))
    assert [r["val_loss"] for r in rows if "val_loss" in r] == usual.val_loss
    logged = [r for r in rows if "train_loss" in r]
    assert logged[-1]["step"] == 20 and logged[-1]["skipped"] == 0
    assert logged[-1]["lr"] == PLAN.learning_rate(19)
    if log_every == 1:
        assert [r["train_loss"] for r in logged] == usual.train_loss


def test_any_optimizer_can_be_passed_in():
    model = tiny()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    sgd.param_groups[0]["lr_scale"] = 50.0
    plan = replace(PLAN, max_lr=0.01, min_lr=0.001)
    history = train(model, TOKENS, VAL, plan, optimizer=sgd, progress=False)
    assert sgd.param_groups[0]["lr"] == 50 * plan.learning_rate(19)
    assert history.val_loss[-1] < history.val_loss[0]


def test_evaluation_puts_the_mode_back_after_an_error():
    model = tiny().train()
    with pytest.raises(ValueError, match="outside"):
        evaluate(model, np.array([1] * 20 + [99]))
    assert model.training


def test_evaluation_uses_the_precision_it_is_told():
    full, half = (evaluate(tiny(), VAL, precision=p) for p in ("fp32", "bf16"))
    assert full != half and full == pytest.approx(half, abs=0.02)


# --- checkpoints --------------------------------------------------------------------


class PowerCut(Exception):
    pass


def with_power_for(model: GPT, steps: float) -> GPT:
    done = []

    def power(module, inputs):
        done.extend([1] if module.training else [])
        if len(done) > steps:
            raise PowerCut

    model.register_forward_pre_hook(power)
    return model


@pytest.mark.parametrize("cut", [3, 4, 11])
def test_a_killed_run_ends_where_an_unbroken_one_does(cut, tmp_path):
    unbroken = tiny(dropout=0.2)
    torch.manual_seed(7)
    expected = train(unbroken, TOKENS, VAL, PLAN, progress=False)
    killed = with_power_for(tiny(dropout=0.2), cut)
    torch.manual_seed(7)
    with pytest.raises(PowerCut):
        train(killed, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    resumed = tiny(seed=99, dropout=0.2)
    if cut < PLAN.checkpoint_every:  # nothing was saved: the run begins anew
        resumed = tiny(dropout=0.2)
        torch.manual_seed(7)
    else:
        assert read_checkpoint(tmp_path)["step"] == cut // 4 * 4
        torch.manual_seed(12345)
    history = train(resumed, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    assert history == expected
    assert torch.equal(weights(resumed), weights(unbroken))


def test_a_run_that_is_told_to_stop_saves_and_can_go_on(tmp_path):
    expected_model, model = tiny(dropout=0.2), tiny(dropout=0.2)
    torch.manual_seed(7)
    expected = train(expected_model, TOKENS, VAL, PLAN, progress=False)
    torch.manual_seed(7)
    answers = iter([False] * 6 + [True])
    part = train(
        model, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False,
        stop=lambda: next(answers),
    )  # fmt: skip
    assert len(part.train_loss) == 6 == read_checkpoint(tmp_path)["step"]
    again = tiny(seed=3, dropout=0.2)
    torch.manual_seed(99)
    history = train(again, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    assert history == expected and torch.equal(weights(again), weights(expected_model))


class Diary:
    """Keeps no checkpoint, but notes when one was due."""

    def __init__(self) -> None:
        self.saved = []

    def load(self, state) -> int:
        return state.step

    def save(self, state) -> None:
        self.saved.append(state.step)


def test_checkpoints_may_be_kept_in_a_way_of_ones_own():
    diary, plan = Diary(), replace(PLAN, steps=9)
    train(tiny(), TOKENS, VAL, plan, checkpoint=diary, progress=False)
    assert diary.saved == [4, 8, 9]


def test_a_run_can_be_made_longer_but_not_shorter(tmp_path):
    short = replace(PLAN, steps=8)
    first = train(tiny(), TOKENS, VAL, short, checkpoint=tmp_path, progress=False)
    model = tiny(seed=2)
    history = train(model, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    assert history.train_loss[:8] == first.train_loss and len(history.train_loss) == 20
    with pytest.raises(ValueError, match="has done 20 steps already, more than steps=8"):
        train(tiny(), TOKENS, VAL, short, checkpoint=tmp_path, progress=False)


def test_the_best_weights_are_kept_beside_the_last(tmp_path):
    plan = replace(PLAN, keep_best=True, max_lr=0.3, min_lr=0.3, eval_every=4)
    model = tiny()
    history = train(model, TOKENS, VAL, plan, checkpoint=tmp_path, progress=False)
    best = tiny(seed=4)
    step = load_checkpoint(tmp_path / "best", best)
    lowest = min(history.val_loss)
    assert step == history.val_steps[history.val_loss.index(lowest)]
    assert evaluate(best, VAL) == pytest.approx(lowest, rel=1e-5)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    model = tiny()
    expected = train(model, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    again = tiny(seed=3)
    with pytest.warns(UserWarning, match="not a checkpoint.*step 16"):
        history = train(again, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    assert history == expected and torch.equal(weights(again), weights(model))
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.warns(UserWarning, match="going on from step 16"):
        load_checkpoint(tmp_path, tiny())  # a damaged one replaced no whole one
    for name in ("checkpoint.safetensors", PREVIOUS_FILE):
        (tmp_path / name).write_bytes(b"not one")
    with pytest.raises(ValueError, match="not a checkpoint"):
        train(tiny(), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)


def test_a_kill_between_the_two_renames_leaves_the_one_before(tmp_path):
    model = tiny()
    save_checkpoint(tmp_path, model, AdamW(model.parameters()), 5)
    (tmp_path / "checkpoint.safetensors").rename(tmp_path / PREVIOUS_FILE)
    other = tiny(seed=1)
    with pytest.warns(UserWarning, match="step 5"):
        assert load_checkpoint(tmp_path, other) == 5
    assert torch.equal(weights(other), weights(model))


@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW, torch.optim.SGD])
def test_the_optimizers_state_comes_back_equal_types_included(kind, tmp_path):
    model = tiny()
    optimizer = kind(parameter_groups(model, 0.1), lr=0.01)
    cross_entropy(model(torch.arange(8)[None]), torch.arange(8)[None]).backward()
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    save_checkpoint(tmp_path, model, optimizer, 1)
    other = kind(parameter_groups(tiny(), 0.0), lr=1.0)
    load_checkpoint(tmp_path, tiny(), other)
    assert other.state_dict()["param_groups"] == saved["param_groups"]
    assert [type(v) for v in other.state_dict()["param_groups"][0].values()] == [
        type(v) for v in saved["param_groups"][0].values()
    ]
    there = other.state_dict()["state"]
    assert there.keys() == saved["state"].keys()
    for i, kept in saved["state"].items():
        assert kept.keys() == there[i].keys()
        for name, value in kept.items():
            assert type(there[i][name]) is type(value), name
            if isinstance(value, torch.Tensor):
                assert torch.equal(there[i][name], value), name


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    model = tiny()
    best = model.tokens.weight
    optimizer = AdamW(model.parameters())
    save_checkpoint(tmp_path, model, optimizer, 1, best=best, twice=best, row=best[3])
    extra = read_checkpoint(tmp_path)["extra"]
    assert torch.equal(extra["best"], best) and torch.equal(extra["twice"], best)
    assert torch.equal(extra["row"], best[3])


def test_sizes_that_shapes_do_not_show_are_checked(tmp_path):
    model = tiny()
    save_checkpoint(tmp_path, model, AdamW(model.parameters()), 1)
    other = GPT(GPTConfig(50, 8, 16, n_layers=2, n_heads=4))
    before = weights(other).clone()
    with pytest.raises(ValueError, match="another model: n_heads 2 there, 4 here"):
        load_checkpoint(tmp_path, other)
    assert torch.equal(weights(other), before)
    assert load_checkpoint(tmp_path, tiny(seed=1, dropout=0.5)) == 1  # dropout may differ


def test_a_disk_that_is_full_is_an_os_error_and_loses_nothing(tmp_path, monkeypatch):
    model = tiny()
    save_checkpoint(tmp_path, model, AdamW(model.parameters()), 1)

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("solutions.checkpoint.save_file", full)
    with pytest.raises(OSError, match="step 2 could not be saved.*No space left"):
        save_checkpoint(tmp_path, tiny(seed=1), AdamW(model.parameters()), 2)
    assert read_checkpoint(tmp_path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_dropout_of_another_kind_of_device_starts_anew_and_says_so(tmp_path):
    def saved_on(device, where):
        model = tiny(dropout=0.2)
        train(model, TOKENS, VAL, replace(PLAN, steps=4), checkpoint=where, progress=False)
        found = read_checkpoint(where)
        found["extra"]["dropout"][0]["device"] = device
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), fused=True)
        optimizer.load_state_dict(found["optimizer"])
        save_checkpoint(where, model, optimizer, 4, **found["extra"])

    saved_on("cuda", tmp_path)
    with pytest.warns(UserWarning, match="dropout goes on with new random numbers"):
        train(
            tiny(dropout=0.2), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(
            tiny(dropout=0.2), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False
        )


def test_a_finished_run_is_not_run_again(tmp_path):
    first = tiny()
    expected = train(first, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    again = with_power_for(tiny(seed=5), 0)
    history = train(again, TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    assert history == expected and torch.equal(weights(again), weights(first))


@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW])
def test_a_checkpoint_brings_back_weights_optimizer_step_and_extras(kind, tmp_path):
    model = tiny()
    optimizer = kind(parameter_groups(model, 0.1), lr=0.01)
    cross_entropy(model(torch.arange(8)[None]), torch.arange(8)[None]).backward()
    optimizer.step()
    extra = {"note": "é", "numbers": [1, 0.1, None], "deep": {"t": torch.arange(3)}}
    save_checkpoint(tmp_path / "a" / "b", model, optimizer, 17, **extra)
    other = tiny(seed=1)
    copy = kind(parameter_groups(other, 0.0), lr=1.0)
    assert load_checkpoint(tmp_path / "a" / "b", other, copy) == 17
    assert torch.equal(weights(other), weights(model))
    found = read_checkpoint(tmp_path / "a" / "b")["extra"]
    assert torch.equal(found["deep"].pop("t"), torch.arange(3))
    assert found == {"note": "é", "numbers": [1, 0.1, None], "deep": {}}
    for net, opt in [(model, optimizer), (other, copy)]:  # they go on alike
        opt.zero_grad()
        cross_entropy(net(torch.arange(8)[None]), torch.arange(8)[None]).backward()
        opt.step()
    assert torch.equal(weights(other), weights(model))


def test_a_crash_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model, optimizer = tiny(), AdamW(tiny().parameters())
    save_checkpoint(tmp_path, model, optimizer, 1)

    def half(tensors, path, *_, **__):
        Path(path).write_bytes(b"half of a file")
        raise PowerCut

    monkeypatch.setattr("solutions.checkpoint.save_file", half)
    with pytest.raises(PowerCut):
        save_checkpoint(tmp_path, tiny(seed=1), optimizer, 2)
    other = tiny(seed=2)
    assert load_checkpoint(tmp_path, other) == 1
    assert torch.equal(weights(other), weights(model))


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(tmp_path, tiny())
    torch.save({"model": Attack()}, file)
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(tmp_path, tiny())
    assert not (tmp_path / "attacked").exists()


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    model = tiny(d_model=32)
    save_checkpoint(tmp_path, model, AdamW(model.parameters()), 3)
    other = tiny()
    before = weights(other)
    with pytest.raises(ValueError, match=r"another model.*(16.*32|32.*16)"):
        load_checkpoint(tmp_path, other)
    assert torch.equal(weights(other), before)


@pytest.mark.parametrize("there, here", [(True, False), (False, True)])
def test_a_weight_too_many_or_too_few_is_another_model(there, here, tmp_path):
    saved, other = nn.Linear(3, 2, bias=there), nn.Linear(3, 2, bias=here)
    save_checkpoint(tmp_path, saved, AdamW(saved.parameters()), 1)
    before = weights(other).clone()
    with pytest.raises(ValueError, match="another model.*bias"):
        load_checkpoint(tmp_path, other)
    assert torch.equal(weights(other), before)


def test_an_optimizer_with_other_groups_changes_nothing(tmp_path):
    model, other = tiny(), tiny(seed=1)
    save_checkpoint(tmp_path, model, AdamW(parameter_groups(model, 0.1)), 1)
    before = weights(other).clone()
    with pytest.raises(ValueError, match="group"):
        load_checkpoint(tmp_path, other, AdamW(other.parameters()))
    assert torch.equal(weights(other), before), "refused, but the weights were changed"


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    named, fsync = [], os.fsync

    def watched(handle):
        named.append((tmp_path / "checkpoint.safetensors").exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    save_checkpoint(tmp_path, tiny(), AdamW(tiny().parameters()), 1)
    assert named, "nothing was forced onto the disk"
    assert not named[0], "the file had its name before it was forced onto the disk"
    assert os.name == "nt" or named[-1], "the new name was not forced onto the disk"


def test_gradients_from_before_a_run_have_no_part_in_it():
    fresh, used = tiny(), tiny()
    ids = torch.arange(8)[None]
    cross_entropy(used(ids), ids).backward()
    for model in (fresh, used):
        train(model, TOKENS, VAL, replace(PLAN, steps=4), progress=False)
    assert torch.equal(weights(fresh), weights(used))


def test_a_run_goes_on_only_with_the_same_dropout(tmp_path):
    plan = replace(PLAN, steps=4)
    train(tiny(dropout=0.2), TOKENS, VAL, plan, checkpoint=tmp_path, progress=False)
    with pytest.raises(ValueError, match="dropout 0.2 there, 0.5 here"):
        train(tiny(dropout=0.5), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)


def test_a_checkpoint_that_train_did_not_write_is_no_run_to_go_on_with(tmp_path):
    model = tiny()
    save_checkpoint(tmp_path, model, AdamW(parameter_groups(model, 0.1)), 3)
    with pytest.raises(ValueError, match="checkpoint=.*no run"):
        train(tiny(), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)


# --- several processes --------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
import numpy as np, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from solutions.checkpoint import CheckpointFolder, TrainState, plain_model
from solutions.pretraining import average_gradients
from tests.test_pretraining import PLAN, TOKENS, VAL, AdamW, cross_entropy, get_batch
from tests.test_pretraining import parameter_groups, replace, tiny, train, weights
folder, meeting, rank = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)

x, y = get_batch(TOKENS, 8, 8, generator=torch.Generator().manual_seed(1))
model = tiny()
model.norm.weight.requires_grad_(False)
wrapped = torch.nn.parallel.DistributedDataParallel(model)
assert plain_model(wrapped) is model, "plain_model: DistributedDataParallel stays on"
cross_entropy(model(x[rank::2]), y[rank::2]).backward()
average_gradients(model)
gradients = [p.grad for p in model.parameters() if p.grad is not None]
torch.save(gradients, folder / f"gradients-{rank}.pt")

rows = []
for n in (1, 2):
    plan = replace(PLAN, steps=8, accumulation_steps=n, eval_every=4, log_every=1)
    # Each has its own disk, and the run is on that of process 0.
    run = (TOKENS, VAL, plan)
    options = {"checkpoint": folder / f"{n}-{rank}", "progress": False}
    asked = []
    train(tiny(), *run, **options, stop=lambda: asked.append(1) or len(asked) > 5)
    model = tiny(seed=9)
    optimizer = AdamW(parameter_groups(model, 0.1))
    state = TrainState(model, optimizer, plan, torch.Generator())
    step = CheckpointFolder(options["checkpoint"]).load(state)
    assert step == 5, f"process {rank} goes on after step {step}, process 0 after 5"
    history = train(model, *run, **options, report=rows.append)
    result = (history.train_loss, history.grad_norm, history.val_loss, weights(model))
    torch.save(result, folder / f"result-{n}-{rank}.pt")
assert bool(rows) == (rank == 0), f"process {rank}: report was called {len(rows)} times"
assert (folder / f"2-{rank}").exists() == (rank == 0), f"process {rank} wrote a file"
dist.destroy_process_group()
"""


def run_twice(script: str, *arguments: str) -> None:
    """Run it in two processes; each is told the two addresses and its number."""
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    environment = os.environ | ({"GLOO_SOCKET_IFNAME": loopback} if loopback else {})
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments, str(rank)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=180)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    said = "\n".join(errors)
    reasons = re.findall(r"^(?:\[rank\d\]: )?(\w*Error: .*)", said, re.M)
    failed = any(process.returncode for process in started)
    reasons.sort(key=lambda line: not line.startswith("AssertionError"))
    assert not failed, "\n".join([*reasons, said])


def test_two_processes_train_as_one(tmp_path):
    meeting = (tmp_path / "meeting").as_uri()
    run_twice(WORKER, str(ROOT), tmp_path.as_posix(), meeting)
    x, y = get_batch(TOKENS, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = tiny()
    whole.norm.weight.requires_grad_(False)
    cross_entropy(whole(x), y).backward()
    expected = [p.grad for p in whole.parameters() if p.grad is not None]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"gradients-{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    alone = tiny()
    plan = replace(PLAN, steps=8, eval_every=4)
    history = train(alone, TOKENS, VAL, plan, progress=False)
    for n in (1, 2):  # whole shares, and shares in two accumulated pieces
        one, other = (torch.load(tmp_path / f"result-{n}-{rank}.pt") for rank in (0, 1))
        assert one[:3] == other[:3] and torch.equal(one[3], other[3])
        assert one[0] == pytest.approx(history.train_loss, rel=1e-4), "train_loss"
        assert one[1] == pytest.approx(history.grad_norm, rel=1e-3), "grad_norm"
        assert one[2] == pytest.approx(history.val_loss, rel=1e-4), "val_loss"
        torch.testing.assert_close(one[3], weights(alone), rtol=1e-3, atol=1e-5)
        assert read_checkpoint(tmp_path / f"{n}-0")["step"] == 8


# --- bad input ----------------------------------------------------------------------

LOGITS = torch.zeros(2, 3, 5)
FULL, SHORT = torch.ones(2, 3).long(), torch.ones(2, 2).long()
NO_GRADIENT = [nn.Parameter(torch.zeros(2))]


def exploded() -> list[nn.Parameter]:
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([math.inf, 0.0])
    return [p]


def schedule(step=0, **changes):
    plan = dict(max_lr=1.0, min_lr=0.1, warmup_steps=2, total_steps=10)
    return cosine_schedule(step, **(plan | changes))


BAD = [
    (lambda: cross_entropy(LOGITS, SHORT), r"targets has shape \[2, 2\].*\[2, 3\]"),
    (lambda: cross_entropy(LOGITS, FULL * 5), "targets has ids outside 0..4"),
    (lambda: cross_entropy(LOGITS, -FULL), "targets has ids outside 0..4"),
    (lambda: perplexity(-1.0), "loss=-1.0"),
    (lambda: perplexity(math.nan), "loss=nan"),
    (lambda: bits_per_byte(1.0, 0, 5), "n_tokens=0"),
    (lambda: bits_per_byte(1.0, 5, 0), "n_bytes=0"),
    (lambda: AdamW(NO_GRADIENT, lr=-1.0), "lr=-1.0"),
    (lambda: AdamW(NO_GRADIENT, lr=math.nan), "lr=nan"),
    (lambda: AdamW(NO_GRADIENT, eps=-1e-8), "eps=-1e-08"),
    (lambda: AdamW(NO_GRADIENT, betas=(0.9, 1.0)), r"betas=\(0.9, 1.0\)"),
    (lambda: AdamW(NO_GRADIENT, weight_decay=-0.1), "weight_decay=-0.1"),
    (lambda: AdamW(NO_GRADIENT, betas=(-0.1, 0.9)), r"betas=\(-0.1, 0.9\)"),
    (lambda: AdamW(NO_GRADIENT, weight_decay=math.inf), "weight_decay=inf"),
    (lambda: parameter_groups(tiny(), -0.1), "weight_decay=-0.1"),
    (lambda: muon_groups(tiny(), -0.2), "weight_decay=-0.2"),
    (lambda: schedule(-1), "step=-1"),
    (lambda: schedule(warmup_steps=10), "warmup_steps=10.*0..9"),
    (lambda: schedule(warmup_steps=-1), "warmup_steps=-1"),
    (lambda: schedule(min_lr=2.0), "min_lr=2.0.*max_lr=1.0"),
    (lambda: schedule(max_lr=math.inf), "max_lr=inf"),
    (lambda: clip_gradients(exploded(), 0.0), "max_norm=0.0"),
    (lambda: clip_gradients(NO_GRADIENT, 1.0), r"no gradients.*backward\(\)"),
    (lambda: evaluate(tiny(), VAL, batch_size=0), "batch_size=0"),
    (lambda: evaluate(tiny(), VAL[:5]), "tokens has 5"),
    (lambda: evaluate(RNNLanguageModel(50, 4), VAL), "context_length=None"),
    (lambda: train(tiny(), TOKENS[:5], VAL, PLAN, progress=False), "tokens has 5"),
    (lambda: TrainConfig(steps=0), "steps=0"),
    (lambda: TrainConfig(batch_size=0), "batch_size=0"),
    (lambda: TrainConfig(accumulation_steps=0), "accumulation_steps=0"),
    (lambda: TrainConfig(eval_every=0), "eval_every=0"),
    (lambda: TrainConfig(checkpoint_every=0), "checkpoint_every=0"),
    (lambda: TrainConfig(batch_size=5, accumulation_steps=2), "batch_size=5.*steps=2"),
    (lambda: TrainConfig(steps=50, warmup_steps=100), "warmup_steps=100.*0..49"),
    (lambda: TrainConfig(max_lr=1e-5, min_lr=1e-4), "min_lr=0.0001.*max_lr=1e-05"),
    (lambda: TrainConfig(max_lr=-1.0), "max_lr=-1.0"),
    (lambda: TrainConfig(max_norm=-1.0), "max_norm=-1.0"),
    (lambda: TrainConfig(max_norm=math.nan), "max_norm=nan"),
    (lambda: TrainConfig(weight_decay=-0.1), "weight_decay=-0.1"),
    (lambda: TrainConfig(weight_decay=math.inf), "weight_decay=inf"),
    (lambda: TrainConfig(betas=(0.9, 1.0)), r"betas=\(0.9, 1.0\)"),
    (lambda: TrainConfig(log_every=0), "log_every=0"),
    (lambda: TrainConfig(seed=-1), "seed=-1"),
    (lambda: TrainConfig(context_length=0), "context_length=0"),
    (lambda: TrainConfig(precision="fp8"), "precision='fp8'.*'bf16'"),
    (lambda: read_checkpoint("nowhere"), "path='nowhere' holds no checkpoint"),
    (lambda: load_checkpoint("nowhere", tiny()), "path='nowhere' holds no checkpoint"),
]  # fmt: skip


def test_the_default_warm_up_is_a_tenth_of_the_steps_and_at_most_100():
    for steps, first in [(5, 1.0), (40, 1 / 5), (500, 1 / 51), (5000, 1 / 101)]:
        config = TrainConfig(steps=steps, max_lr=1.0)
        assert config.learning_rate(0) == pytest.approx(first)


@pytest.mark.parametrize("call, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_json_cannot_hold_is_named(tmp_path):
    model = tiny()
    with pytest.raises(ValueError, match=r"extra: \{1\} is no tensor, nor JSON"):
        save_checkpoint(tmp_path, model, AdamW(model.parameters()), 1, seen={1})


def test_a_run_with_another_config_is_not_resumed(tmp_path):
    train(tiny(), TOKENS, VAL, PLAN, checkpoint=tmp_path, progress=False)
    changed = replace(PLAN, seed=3)
    with pytest.raises(ValueError, match="checkpoint=.*another config.*another folder"):
        train(tiny(), TOKENS, VAL, changed, checkpoint=tmp_path, progress=False)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    plan = replace(PLAN, batch_size=3)
    monkeypatch.setattr("solutions.pretraining.rank_and_world", lambda: (0, 2))
    with pytest.raises(ValueError, match="batch_size=3: no multiple of 2 x 1"):
        train(tiny(), TOKENS, VAL, plan, progress=False)


@pytest.mark.parametrize("name", ["steps", "batch_size", "warmup_steps", "log_every"])
@pytest.mark.parametrize("value", [2.0, 2.5, "2", True])
def test_counts_must_be_whole_numbers(name, value):
    with pytest.raises(TypeError, match=f"{name}="):
        TrainConfig(**{name: value})


def test_numpys_integers_are_counts_too(tmp_path):
    plan = TrainConfig(steps=np.int64(2), batch_size=np.int32(2), eval_every=2)
    assert plan == TrainConfig(steps=2, batch_size=2, eval_every=2)
    train(tiny(), TOKENS, VAL, plan, checkpoint=tmp_path, progress=False)
    assert read_checkpoint(tmp_path)["step"] == 2


def test_a_config_needs_nothing_but_its_steps():
    assert TrainConfig(steps=50).learning_rate(49) > TrainConfig().max_lr / 10


def test_a_config_cannot_be_changed_on_the_way():
    with pytest.raises(FrozenInstanceError):
        PLAN.steps = 3
