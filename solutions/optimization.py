"""Optimization: AdamW, which weights decay, the learning rate's schedule, clipping.

Built in chapters/06_pretraining.ipynb.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "AdamW", "Muon", "clip_gradients", "cosine_schedule", "muon_groups",
    "orthogonalize", "parameter_groups",
]  # fmt: skip

# An optimizer loads this part of PyTorch, which then holds on to any group of processes
# that exists, and a group held until the end aborts its process. So load it early.
if torch.distributed.is_available():
    import torch.distributed.nn


def _require(holds: bool, message: str) -> None:
    """ValueError with this message unless what must hold does."""
    if not holds:
        raise ValueError(message)


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Each weight moves by about lr: the mean gradient over the root of the mean squared
    gradient, both corrected for starting at 0. Decay shrinks it by lr * weight_decay.
    Equal to torch.optim.AdamW, whose state uses the same names.
    """

    def __init__(
        self, params: Iterable, lr: float = 1e-3, betas: tuple = (0.9, 0.95),
        eps: float = 1e-8, weight_decay: float = 0.1,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        for name, value in defaults.items():
            _require(0 <= value < math.inf, f"{name}={value} must be at least 0")
        _require(0 <= min(betas) <= max(betas) < 1, f"betas={betas} must be in [0, 1)")
        super().__init__(params, defaults | {"betas": betas})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # PyTorch's may take a closure
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                self._move(moving, [p.grad for p in moving], group)

    def _kept(self, name: str, params: list[Tensor]) -> list[Tensor]:
        """What is remembered about each parameter as `name`: zeros at first, of its
        shape, but a single number for "step"."""
        for p in params:
            if name not in self.state[p]:
                zeros = torch.tensor(0.0) if name == "step" else torch.zeros_like(p)
                self.state[p][name] = zeros  # steps stay on the CPU: free to read
        return [self.state[p][name] for p in params]

    def _move(self, params: list[Tensor], grads: list[Tensor], group: dict) -> None:
        """All parameters of a group at once, in place, by a gradient each: each
        _foreach_ is one call for the whole list."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        steps = self._kept("step", params)
        means, squares = (self._kept(n, params) for n in ("exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, 1.0)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        roots = torch._foreach_sqrt(squares)
        done = [t.item() for t in steps]
        torch._foreach_div_(roots, [math.sqrt(1 - beta2**t) for t in done])
        torch._foreach_add_(roots, group["eps"])
        sizes = [-lr / (1 - beta1**t) for t in done]
        torch._foreach_addcdiv_(params, means, roots, sizes)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay, vectors (biases, norms) do not: two groups for an optimizer.

    A frozen weight (requires_grad is False) is in neither.
    """
    _require(weight_decay >= 0, f"weight_decay={weight_decay} must be at least 0")
    params = [p for p in model.parameters() if p.requires_grad]
    matrices = {"params": [p for p in params if p.ndim >= 2]}
    vectors = {"params": [p for p in params if p.ndim < 2]}
    return [matrices | {"weight_decay": weight_decay}, vectors | {"weight_decay": 0.0}]


def cosine_schedule(
    step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """Learning rate at `step` (from 0): up along a line, then down half a cosine.

    It is max_lr at warmup_steps and min_lr from total_steps on (Loshchilov and Hutter
    2017, equation 5, without restarts).
    """
    ordered, fits = 0 <= min_lr <= max_lr < math.inf, 0 <= warmup_steps < total_steps
    _require(ordered, f"min_lr={min_lr} must be from 0 to max_lr={max_lr}")
    _require(fits, f"warmup_steps={warmup_steps} must be in 0..{total_steps - 1}")
    _require(step >= 0, f"step={step} must be at least 0")
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP has split; other tensors whole."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Shorten all gradients together to length max_norm; returns the length before.

    The length is a scalar tensor, so nothing waits for it. If it is not finite, all
    gradients become 0, so that a step with them learns nothing instead of destroying
    the weights. ValueError when there are no gradients.
    """
    _require(max_norm > 0, f"max_norm={max_norm} must be above 0")
    grads = [p.grad for p in parameters if p.grad is not None]
    _require(bool(grads), "parameters have no gradients: call loss.backward() first")
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    scale = torch.where(norm.isfinite(), (max_norm / norm).clamp(max=1.0), 0.0)
    grads = [_local(g) for g in grads]
    torch._foreach_mul_(grads, scale)
    for g in grads:
        g.nan_to_num_(0.0, 0.0, 0.0)  # 0 times infinity is nan
    return norm


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrices whose singular values are all 1: (n, rows, cols) each.

    Newton-Schulz iteration with the constants of Jordan et al. (2024), in the dtype of
    `matrices`. In fp32 the singular values end between 0.7 and 1.2, which is near
    enough. A matrix of zeros stays as it is.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        mixed = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, mixed, x, beta=3.4445)
    return x.mT if tall else x


class Muon(AdamW):
    """Momentum, orthogonalized, for matrices (Jordan et al. 2024); AdamW for the rest.

    A group with "parts" set is moved by Muon: its matrices (rows, cols) are cut into
    that many along their rows, and each part moves by lr * sqrt(max(1, rows / cols))
    times an orthogonal matrix. See muon_groups. dtype: that of the iteration; bfloat16
    is four times as fast where the processor has it.
    """

    momentum = 0.95

    def __init__(
        self, params: Iterable, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> None:
        super().__init__(params, **options)
        self.dtype = dtype

    def _move(self, params: list[Tensor], grads: list[Tensor], group: dict) -> None:
        """A group with "parts" by orthogonal matrices, any other as AdamW does."""
        if not group.get("parts"):
            return super()._move(params, grads, group)
        means = self._kept("exp_avg", params)
        torch._foreach_lerp_(means, grads, 1 - self.momentum)
        ahead = torch._foreach_lerp(grads, means, self.momentum)  # Nesterov's
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for shape in {p.shape for p in params}:  # equal shapes in one product
            at = [i for i, p in enumerate(params) if p.shape == shape]
            parts = torch.stack([ahead[i] for i in at])  # (n, rows, cols)
            parts = parts.unflatten(1, (group["parts"], -1))
            moves = orthogonalize(parts.flatten(0, 1).to(self.dtype))
            moves = moves.to(parts.dtype)  # (n * parts, rows, cols)
            size = group["lr"] * max(1.0, moves.shape[1] / moves.shape[2]) ** 0.5
            changes = moves.view(len(at), *shape).unbind()  # (rows, cols) each
            torch._foreach_add_([params[i] for i in at], changes, alpha=-size)


def muon_groups(
    model: nn.Module, weight_decay: float, *, lr_scale: float = 4.0
) -> list[dict]:
    """Groups for Muon: the matrices of `model.blocks` at lr_scale times the rate, with
    queries, keys and values apart; AdamW without decay for everything else.

    There are three, in this order: the matrices that hold queries, keys and values
    ("parts" is 3), the other matrices of the blocks ("parts" is 1), and the rest, which
    has no "parts". A frozen weight is in none of them.
    """
    _require(weight_decay >= 0, f"weight_decay={weight_decay} must be at least 0")
    joint: list[Tensor] = []
    single: list[Tensor] = []
    rest: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            matrix = p.ndim == 2 and name.startswith("blocks.")
            kind = joint if name.endswith("qkv.weight") else single if matrix else rest
            kind.append(p)
    fast = {"weight_decay": weight_decay, "lr_scale": lr_scale}
    return [
        {"params": joint, "parts": 3} | fast,
        {"params": single, "parts": 1} | fast,
        {"params": rest, "weight_decay": 0.0},
    ]
