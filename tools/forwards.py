"""What one pass through a model costs, compared with nanoGPT's and Hugging Face's.

All have the same shapes and batches, compute in float32, and take turns in one process.
A pass goes from ids to the loss, alone or with the backward pass. Ours runs twice, once
as GPT(config) is built, and once with its products by oneDNN, as `train` runs it where
the processor gains from that.
"""

import statistics
from collections.abc import Callable

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import torch
import torch.nn.functional as F
from steps import SIZES, Batch, Size, kind, load_nanogpt, nanogpt_model
from steps import ratios, take_turns
from torch import Tensor, nn

from solutions.linear import use_onednn

Loss = Callable[[], Tensor]


def our_loss(model: nn.Module, batch: Batch) -> Loss:
    x, y = batch
    return lambda: F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def nanogpt_loss(size: Size, batch: Batch, nanogpt) -> tuple[nn.Module, Loss]:
    model = nanogpt_model(size, nanogpt)
    return model, lambda: model(*batch)[1]


def hugging_face_loss(size: Size, batch: Batch) -> tuple[nn.Module, Loss]:
    """GPT2LMHeadModel, which has biases, with PyTorch's fused attention."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = size.model
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.context_length, n_embd=c.d_model,
        n_layer=c.n_layers, n_head=c.n_heads, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, attn_implementation="sdpa", bos_token_id=None,
        eos_token_id=None,
    ))  # fmt: skip
    x, y = batch

    def loss() -> Tensor:
        logits = model(input_ids=x, use_cache=False).logits  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    return model, loss


def forward_only(loss: Loss) -> Callable:
    def work() -> None:
        with torch.no_grad():
            loss()

    return work


def with_backward(model: nn.Module, loss: Loss) -> Callable:
    def work() -> None:
        loss().backward()
        for p in model.parameters():
            p.grad = None

    return work


def contenders(size: Size, nanogpt) -> dict[str, tuple[nn.Module, Loss]]:
    """Name -> the model, and a function that gives its loss on one batch."""
    batch, plain, fast = size.new_batch(), size.new_model(), size.new_model()
    made = {"nanoGPT": nanogpt_loss(size, batch, nanogpt)}
    made["Hugging Face"] = hugging_face_loss(size, batch)
    made["ours"] = plain, our_loss(plain, batch)
    if use_onednn(fast):
        made["ours, oneDNN"] = fast, our_loss(fast, batch)
    return made


def bench_model(args) -> None:
    """Compare forward, and forward + backward, with nanoGPT's and Hugging Face's."""
    nanogpt, lines = load_nanogpt(args.nanogpt), []
    print(f"{torch.get_num_threads()} threads, {kind()}")
    for name in args.sizes:
        size = SIZES[name]
        models = contenders(size, nanogpt)
        passes = {
            "FORWARD": {n: forward_only(loss) for n, (_, loss) in models.items()},
            "BOTH": {n: with_backward(*entry) for n, entry in models.items()},
        }
        for label, work in passes.items():
            took = take_turns(work, args.rounds, size.turn)
            for contender, times in took.items():
                r = ratios(took, contender)
                print(f"{name:>5} {label.lower():8} {contender:13} "
                      f"{statistics.median(times) * 1e3:9.2f} ms  of nanoGPT "
                      f"{statistics.median(r):.2f} ({r[0]:.2f} .. {r[-1]:.2f})",
                      flush=True)  # fmt: skip
                if contender.startswith("ours"):
                    lines += report(f"MODEL_{name.upper()}_{label}", took, contender)
    print("\n".join(lines), flush=True)


def report(name: str, took: dict[str, list[float]], contender: str) -> list[str]:
    """Lines NAME RATIO: our speed over nanoGPT's, and over Hugging Face's."""
    suffix = "_ONEDNN" if "oneDNN" in contender else ""
    lines = []
    for peer, short in (("nanoGPT", ""), ("Hugging Face", "_HF")):
        ratio = statistics.median(ratios(took, contender, over=peer))
        lines.append(f"{name}{suffix}{short} {ratio:.3f}")
    return lines
