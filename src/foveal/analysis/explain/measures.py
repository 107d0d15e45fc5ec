"""Numbers of a module that is built and run: what the tables of the pages are made of."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *shape: int) -> int:
    """Multiplications, each with its addition, for one input of a shape (C, H, W); counted on tensors without data."""
    with FlopCounterMode(display=False) as counter:
        _without_data(module)(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() // 2


def size_after(module: nn.Module, *shape: int) -> tuple[int, ...]:
    """The shape that comes out for one input of a shape, both without the batch."""
    out: Tensor = _without_data(module)(torch.empty(1, *shape, device="meta"))
    return tuple(out.shape[1:])


def pixels_read(module: nn.Module, *shape: int) -> Tensor:
    """(H, W) bool: which pixels of an input (C, H, W) the output depends on at all, by gradients."""
    return _gradient(module, shape, cell=None) > 0


def field(module: nn.Module, *shape: int) -> tuple[int, int]:
    """Height and width of what the middle cell of the output depends on in an input (C, H, W), by gradients."""
    touched = _gradient(module, shape, cell="middle") > 0
    height, width = (int(places.max() - places.min()) + 1 for places in touched.nonzero(as_tuple=True))
    return height, width


def _gradient(module: nn.Module, shape: tuple[int, ...], cell: str | None) -> Tensor:
    module = copy.deepcopy(module).double()
    for parameter in module.parameters():
        parameter.data.fill_(1.0)  # so that nothing cancels
    x = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    out = module(x)
    seen = out if cell is None else out[..., out.shape[-2] // 2, out.shape[-1] // 2]
    (gradient,) = torch.autograd.grad(seen.sum(), x)
    return gradient[0].sum(0)


def _without_data(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta")
