"""Chapter 6: the loss, the optimizer and the loop, against torch and each other."""

import math
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from solutions.attention import RNNLanguageModel
from solutions.gpt import GPT, GPTConfig
from solutions.pretraining import (
    AdamW,
    History,
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


def test_adamws_first_step_has_the_size_of_the_learning_rate():
    w = nn.Parameter(torch.zeros(3))
    w.grad = torch.tensor([1e-3, -5.0, 1e4])
    AdamW([w], lr=0.1).step()
    moved = torch.tensor([-0.1, 0.1, -0.1])
    torch.testing.assert_close(w.data, moved, rtol=1e-4, atol=0)


def test_a_parameter_without_a_gradient_stays():
    still, moved = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    AdamW([still, moved]).step()
    assert torch.equal(still.data, torch.ones(2)) and (moved < 1).all()


def test_matrices_decay_and_vectors_do_not():
    model = tiny()
    decay, rest = parameter_groups(model, 0.3)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decay["params"]} == {2}
    assert {p.ndim for p in rest["params"]} == {1}
    ids = [id(p) for g in (decay, rest) for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())  # tied weight once
    model.norm.weight.requires_grad_(False)
    frozen = [p for g in parameter_groups(model, 0.3) for p in g["params"]]
    assert not any(p is model.norm.weight for p in frozen)


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
    if norm <= max_norm:
        assert clip_gradients(ours, max_norm) == norm  # short ones are not touched


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

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half of a file")
        raise PowerCut

    monkeypatch.setattr("solutions.pretraining.save_file", half)
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
    with pytest.raises(ValueError, match="another model.*16.*32"):
        load_checkpoint(tmp_path, other)
    assert torch.equal(weights(other), before)


# --- several processes --------------------------------------------------------------

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from tests.test_pretraining import PLAN, TOKENS, VAL, replace, tiny, train, weights
folder, meeting, rank = sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
for n in (1, 2):
    model, plan = tiny(), replace(PLAN, steps=8, accumulation_steps=n, eval_every=4)
    where = f"{folder}/{n}"
    history = train(model, TOKENS, VAL, plan, checkpoint=where, progress=False)
    result = (history.train_loss, history.grad_norm, weights(model))
    torch.save(result, f"{where}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    environment = os.environ | ({"GLOO_SOCKET_IFNAME": loopback} if loopback else {})
    for n in ("1", "2"):
        (tmp_path / n).mkdir()
    places = [str(ROOT), tmp_path.as_posix(), (tmp_path / "meeting").as_uri()]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *places, str(rank)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=180)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [p.returncode for p in started] == [0, 0], "\n".join(errors)
    alone = tiny()
    history = train(alone, TOKENS, VAL, replace(PLAN, steps=8), progress=False)
    for n in ("1", "2"):  # whole shares, and shares in two accumulated pieces
        one, other = (torch.load(tmp_path / n / f"{rank}.pt") for rank in (0, 1))
        assert one[:2] == other[:2] and torch.equal(one[2], other[2])
        assert one[0] == pytest.approx(history.train_loss, rel=1e-4)
        assert one[1] == pytest.approx(history.grad_norm, rel=1e-3)
        torch.testing.assert_close(one[2], weights(alone), rtol=1e-3, atol=1e-5)
        assert read_checkpoint(tmp_path / n)["step"] == 8


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
    (lambda: cross_entropy(LOGITS, FULL * 5), "targets has 5..5, outside 0..4"),
    (lambda: cross_entropy(LOGITS, -FULL), "targets has -1..-1, outside"),
    (lambda: cross_entropy(LOGITS, FULL * -100), "targets are all -100"),
    (lambda: perplexity(-1.0), "loss=-1.0"),
    (lambda: perplexity(math.nan), "loss=nan"),
    (lambda: bits_per_byte(1.0, 0, 5), "n_tokens=0"),
    (lambda: bits_per_byte(1.0, 5, 0), "n_bytes=0"),
    (lambda: AdamW(NO_GRADIENT, lr=-1.0), "lr=-1.0"),
    (lambda: AdamW(NO_GRADIENT, lr=math.nan), "lr=nan"),
    (lambda: AdamW(NO_GRADIENT, eps=-1e-8), "eps=-1e-08"),
    (lambda: AdamW(NO_GRADIENT, betas=(0.9, 1.0)), r"betas=\(0.9, 1.0\)"),
    (lambda: AdamW(NO_GRADIENT, weight_decay=-0.1), "weight_decay=-0.1"),
    (lambda: parameter_groups(tiny(), -0.1), "weight_decay=-0.1"),
    (lambda: schedule(-1), "step=-1"),
    (lambda: schedule(warmup_steps=10), "warmup_steps=10.*0..9"),
    (lambda: schedule(warmup_steps=-1), "warmup_steps=-1"),
    (lambda: schedule(min_lr=2.0), "min_lr=2.0.*max_lr=1.0"),
    (lambda: schedule(max_lr=math.inf), "max_lr=inf"),
    (lambda: clip_gradients(exploded(), 0.0), "max_norm=0.0"),
    (lambda: clip_gradients(NO_GRADIENT, 1.0), r"no gradients.*backward\(\)"),
    (lambda: clip_gradients(exploded(), 1.0), "parameters.*length inf"),
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
    (lambda: TrainConfig(max_lr=1e-5), "min_lr=0.0001.*max_lr=1e-05"),
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


def test_a_step_refuses_a_batch_that_cannot_be_shared(monkeypatch):
    model, batch = tiny(), get_batch(TOKENS, 3, 8)
    optimizer = AdamW(model.parameters())
    plan = replace(PLAN, batch_size=3)
    monkeypatch.setattr("solutions.pretraining._rank_and_world", lambda: (0, 2))
    with pytest.raises(ValueError, match="batch_size=3: no multiple of 2 x 1"):
        training_step(model, optimizer, batch, 0, plan, History())


def test_a_config_cannot_be_changed_on_the_way():
    with pytest.raises(FrozenInstanceError):
        PLAN.steps = 3
