"""Gates that can start as the identity, so that one put into a trained network changes nothing at first.

A sigmoid is never 1, so `x * gate` alone cannot. What can is the way from `x` to the gated maps, gone by a learned
length that starts at 0 (ReZero, Bachlechner et al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """A block that weighs its maps; what inherits from it returns `self.blended(x, weighed)`.

    It has no parameter of its own before `start_as_identity`, so state-dict keys are those of the gate alone.
    """

    strength: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("strength", None)

    def start_as_identity(self) -> None:
        """From now on `x + strength * (weighed - x)`, with one parameter more, which starts at 0.

        The result is `x` bit for bit wherever the gate is finite. The gate's own weights receive gradient from when
        `strength` has left 0, which one step of training does.
        """
        like = next(self.parameters(), torch.empty(()))
        self.strength = nn.Parameter(torch.zeros((), device=like.device, dtype=like.dtype))

    def blended(self, x: Tensor, weighed: Tensor) -> Tensor:
        """What the block returns: the weighed maps, or those on the way from `x` to them."""
        return weighed if self.strength is None else x + self.strength * (weighed - x)


class WrappedGate(Gate):
    """A gate of another library, as it is.

    Args:
        gate: what takes maps and gives the weighed ones.

    Example:
        >>> gate = WrappedGate(torch.nn.Sigmoid())
        >>> gate.start_as_identity()
        >>> gate(torch.tensor([2.0]))
        tensor([2.], grad_fn=<AddBackward0>)
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.blended(x, self.gate(x))


def hidden_channels(channels: int, reduction: int) -> int:
    """How wide the hidden layer of a gate over `channels` is: narrower by `reduction`, at least 1.

    Raises:
        ValueError: for channels or a reduction below 1.
    """
    if channels < 1 or reduction < 1:
        raise ValueError(f"channels is {channels} and reduction {reduction}; expected whole numbers of at least 1")
    return max(1, channels // reduction)
