"""Small networks for the analyser's tests, each of one idea, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Does(nn.Module):
    """What a function does, with modules and parameters to do it with."""

    def __init__(self, do: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.do = do
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, *given: Any) -> Any:
        return self.do(self, *given)


def randomised(network: nn.Module) -> nn.Module:
    """In float64 and evaluation, norms with weights and statistics of their own: no branch is hidden by a zero."""
    torch.manual_seed(0)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2:
                parameter.data.uniform_(0.5, 1.5) if name == "weight" else parameter.data.normal_(0, 0.1)
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            module.running_mean.normal_(0, 0.1)
    return network.double().eval()
