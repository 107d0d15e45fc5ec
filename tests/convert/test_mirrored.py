"""Rims that mirror or repeat cells beside the picture, also where several windows lie between."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal import Layout, Retina, UnsupportedModule, foveate, planned, unfoveate


class Padded(nn.Module):
    def __init__(self, pad: tuple[int, int, int, int], mode: str) -> None:
        super().__init__()
        self.pad, self.mode, self.conv = pad, mode, nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.pad
        kernel = torch.ones(4, 1, top + bottom + 1, left + right + 1, dtype=x.dtype, device=x.device)
        return F.conv2d(F.pad(self.conv(x), self.pad, self.mode), kernel.cumsum(2).cumsum(3), groups=4)


STEPS = {
    **{f"{mode} by {pad}": Padded(pad, mode) for mode in ("reflect", "replicate") for pad in [(3,) * 4, (0, 3, 4, 1)]},
    "reflect, dilated": nn.Conv2d(4, 4, 3, padding=3, dilation=3, padding_mode="reflect"),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
}


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_rim_wider_than_a_window_mirrors_about_the_picture_s_edge(step: str, cells: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), STEPS[step]).double().eval()
    x, size = torch.rand(2, 3, 64, 96, dtype=torch.float64), 8 * cells
    layout = Layout.tiling(picture=(64, 96), size=size)
    dense = network(x)
    mine = unfoveate(foveate(network)(Retina(size)(x, layout=layout)), layout, dense.shape[2:])
    torch.testing.assert_close(mine, dense, rtol=1e-12, atol=1e-12)


def test_windows_that_lie_over_each_other_mirror_about_the_picture_s_edge() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), Padded((2, 2, 2, 2), "reflect")).double().eval()
    places = [(0, y, x) for y in range(0, 33, 8) for x in range(0, 33, 8)]
    picture = torch.rand(1, 3, 48, 48, dtype=torch.float64)
    dense = network(picture)[0].unfold(1, 2, 1).unfold(2, 2, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    layout = Layout.windows(picture=(48, 48), size=16, windows=places)
    torch.testing.assert_close(foveate(network)(Retina(16)(picture, layout=layout))[0], dense)


def test_a_window_whose_neighbours_are_finer_mirrors_its_own_cells() -> None:
    """Coarse windows never read finer ones: at their edges is the network's own padding."""
    network = Padded((2, 2, 2, 2), "reflect").double().eval()
    x = torch.rand(1, 4, 64, 64, dtype=torch.float64)
    places = [(0, 0, 32), (0, 16, 32), (0, 0, 48), (1, 0, 0)]
    glimpse = Retina(16)(x, layout=Layout.windows(picture=(64, 64), size=16, windows=places))
    torch.testing.assert_close(foveate(network)(glimpse)[:, 3], network(glimpse.pixels[:, 3]))


def test_fewer_cells_than_are_to_be_mirrored_are_refused() -> None:
    network = foveate(nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 4, 7, padding=3, padding_mode="reflect")))
    glimpse = Retina(16, levels=2)(torch.rand(1, 3, 32, 32))  # the coarse window has but 2 x 2 cells
    with pytest.raises(UnsupportedModule, match=r"1 \(Conv2d\): pad\(\).*fewer cells"):
        network(glimpse)


def test_a_graph_mirrors_the_same_cells() -> None:
    network = foveate(nn.Sequential(nn.Conv2d(3, 4, 4, 4), Padded((3, 3, 3, 3), "reflect"))).eval()
    glimpse = Retina(16, levels=3)(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        wanted = network(glimpse)
        for made, given in ((network, glimpse), (planned(network, glimpse), glimpse.pixels)):
            compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(given), wanted)
