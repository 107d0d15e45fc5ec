"""A network for glimpses of one layout alone: what follows from the layout is worked out once, before.

For compilers and exporters. A graph that is to serve any layout has to hold the geometry itself, and computes it anew
in each call; the graph of a planned network holds the tables as constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveal.convert.foveated import refuse_unseen, told
from foveal.retina import Glimpse


class Planned(nn.Module):
    """A network that takes the pixels of glimpses of one layout, (B, K, C, S, S); made by `planned`."""

    def __init__(self, network: nn.Module, glimpse: Glimpse) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"the network is {told(network)}; expected one that takes a glimpse, such as foveate() makes"
            )
        refuse_unseen(glimpse)
        self.network, self.shape = network, tuple(glimpse.pixels.shape)
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with torch.no_grad():
                network(glimpse)  # works out and keeps what follows from the layout
        finally:
            for module, training in modes:
                module.training = training
        self.layout = glimpse.layout.fixed()

    def forward(self, pixels: Tensor) -> Any:
        """What the network returns for a glimpse of these pixels.

        Args:
            pixels: (B, K, C, S, S), as those that the network was planned for.

        Raises:
            ValueError: for pixels of another shape, and for anything but pixels.
        """
        if not isinstance(pixels, Tensor):
            raise ValueError(
                f"a planned network was given a {type(pixels).__name__}; expected the pixels of a glimpse alone, "
                f"glimpse.pixels"
            )
        if tuple(pixels.shape) != self.shape:
            raise ValueError(f"pixels have shape {tuple(pixels.shape)}; this network was planned for {self.shape}")
        return self.network(Glimpse(pixels, self.layout))


def planned(network: nn.Module, glimpse: Glimpse) -> Planned:
    """Fixes the layout of a foveated network, so that a compiled or exported graph need not work it out.

    Without gradients some kernels are transformed within the graph; where a compiler freezes weights, that is done
    once. `torch.export.export` takes a planned network with `strict=True`.

    Args:
        network: made by `foveate`, or any that takes a glimpse.
        glimpse: whose layout, and number of pictures, it will be for; the values of its pixels do not matter.

    Returns:
        A network of pixels alone, which shares the given one's weights.

    Raises:
        ValueError: if there is no network, or no glimpse.

    Example:
        >>> retina = Retina(size=64, levels=3)
        >>> network = planned(foveate(torchvision.models.resnet18().eval()), retina(torch.rand(3, 256, 256)))
        >>> fast = torch.compile(network, dynamic=False)  # its shapes are fixed, and another plan has others
        >>> with torch.no_grad(), torch._inductor.config.patch(freezing=True):  # norms go into the kernels
        ...     fast(retina(picture).pixels)  # doctest: +SKIP
    """
    return Planned(network, glimpse)
