"""Linear layers whose fp32 products are oneDNN's: twice as fast on some processors.

Built in chapters/06_pretraining.ipynb.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "OneDNNLinear", "use_onednn",
]  # fmt: skip


class _Product(torch.autograd.Function):
    """x W^T + b by oneDNN: (..., K), (N, K), (N,) or None -> (..., N)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """dy (..., N), the slopes of the loss along the product -> those along x, W
        and b."""
        x, weight = ctx.saved_tensors
        rows, dy_rows = x.flatten(0, -2), dy.flatten(0, -2)  # (M, K), (M, N)
        dw = _onednn(rows.t().contiguous(), dy_rows.t()).t()  # (N, K)
        db = dy_rows.sum(0) if ctx.needs_input_grad[2] else None
        return _onednn(dy, weight.t()), dw, db


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, without gradients: (..., K), (N, K), (N,) or None -> (..., N)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDNNLinear(nn.Linear):
    """nn.Linear whose fp32 products on a CPU are oneDNN's; elsewhere, nn.Linear.

    A single vector (K,) goes to nn.Linear too, since `_Product` needs rows (..., M, K).
    """

    def forward(self, x: Tensor) -> Tensor:
        fp32 = x.dtype == self.weight.dtype == torch.float32 and x.ndim > 1
        if fp32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return _Product.apply(x, self.weight, self.bias)
        return super().forward(x)


def use_onednn(model: nn.Module) -> bool:
    """Turn every nn.Linear of `model` into a OneDNNLinear; False if nothing is gained.

    PyTorch gives fp32 products to MKL, which on AMD's processors leaves half of AVX-512
    unused. Results agree up to rounding. Without AVX-512 nothing is changed.
    """
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not there or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
    return True
