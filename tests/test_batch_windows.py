import pytest
import torch
from hypothesis import given, settings
from layouts import layouts

from foveal.batch_windows import batch_windows, can_look_together
from foveal.layout import Layout
from foveal.retina import Retina


@given(layouts())
@settings(deadline=None)
def test_windows_of_a_batch_are_those_that_are_averaged_one_by_one(layout):
    height, width = layout.pictures.amax(0).tolist()
    # A batch in memory is of one size: that of the largest picture here.
    layout = Layout(
        layout.size, layout.origins, layout.levels, torch.tensor([[height, width]]).expand(len(layout), 2),
        layout.fixations, layout.valid,
    )  # fmt: skip
    pictures = torch.rand(len(layout), 3, height, width, dtype=torch.float64)
    cells = torch.where(layout.inside(layout.size)[:, :, None], batch_windows(pictures, layout), 0.0)
    torch.testing.assert_close(cells, Retina(layout.size)(pictures, layout=layout).pixels)


def test_its_gradient_is_its_transpose():
    layout = Layout.windows(picture=(7, 6), size=4, windows=[(0, 2, 1), (1, 0, 0)])
    pictures = torch.rand(1, 1, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: batch_windows(x, layout), (pictures,))


@pytest.mark.parametrize(
    ("pictures", "why"),
    [
        (torch.rand(2, 3, 32, 32), "in the processor's own memory windows are averaged one by one"),
        (torch.rand(2, 3, 32, 40, device="meta"), "there are no numbers"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "bytes are divided first"),
        ([torch.rand(3, 32, 32)] * 2, "a list is no batch"),
    ],
)
def test_only_a_batch_on_an_accelerator_is_looked_at_together(pictures, why):
    assert not can_look_together(pictures, Layout.foveal(picture=[(32, 32)] * 2, size=16)), why
