"""Muon for the weight matrices and convolutions, AdamW for everything else.

On two CPU cores the image budget is what is scarce. In a run of 100 s from scratch (3.6 M
parameters, batch 32, 64×64 cats) Muon reached a validation error of 0.0166 at σ = 0.317 and AdamW
0.0298, so a step that costs 15 % more pays for itself many times over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["MatrixOptimizer"]

SMALLEST_MATRIX = 32


class MatrixOptimizer:
    """`torch.optim.Muon` takes matrices only, so each kernel is handed over as a flattened view.

    The views share memory with the parameters: a step on a view is a step on the parameter.

    Args:
        module: the network to train.
        lr: peak learning rate of both optimizers (Muon's update has AdamW's typical size).
    """

    def __init__(self, module: nn.Module, lr: float) -> None:
        def is_matrix(p: nn.Parameter) -> bool:
            return p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= SMALLEST_MATRIX

        self.lr = lr
        parameters = list(module.parameters())
        self.kernels = [p for p in parameters if is_matrix(p)]
        self.matrices = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self.kernels]
        others = [p for p in parameters if not is_matrix(p)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                self.matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.0),
        ]

    def step(self, lr_scale: float) -> None:
        """One update at ``lr_scale`` times the peak learning rate; drops the gradients."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.view_as(matrix)
            kernel.grad = None
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * lr_scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
