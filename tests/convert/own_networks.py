"""Networks of single steps, and full tilings to run them on."""

from torch import Tensor, nn

from foveal import Glimpse, Layout, Retina


class Lambda(nn.Module):
    """One step, written as a function of the maps and of modules."""

    def __init__(self, call: object, *modules: nn.Module) -> None:
        super().__init__()
        self.call, self.inner = call, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, *self.inner)  # type: ignore[operator]


def tiles(x: Tensor, size: int = 16) -> Glimpse:
    """(B, C, H, W) as windows of full detail side by side."""
    return Retina(size)(x, layout=Layout.tiling(picture=x.shape[-2:], size=size))
