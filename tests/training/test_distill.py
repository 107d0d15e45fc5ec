import pytest
import torch
from torch import Tensor

from foveal.layout import Layout
from foveal.models import CenterFocusCNN
from foveal.models.encoder import glimpse_of
from foveal.models.processing import glimpse_tensors
from foveal.retina import Retina
from foveal.training.distill import Distillation, teacher_at

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


def brute_force(layout: Layout, n: int, grid: Tensor, boxes: Tensor) -> Tensor:
    """The same, by asking at 60 x 60 points of every cell which patch lies there."""
    batch, windows = layout.levels.shape
    found = torch.zeros(batch, windows, n, n, grid.shape[-1])
    points = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    for b in range(batch):
        height, width = layout.pictures[b].tolist()
        top, left, tall, wide = boxes[b].tolist()
        for k in range(windows):
            cell = layout.size * 2 ** int(layout.levels[b, k]) / n
            y0, x0 = layout.origins[b, k].tolist()
            for i in range(n):
                for j in range(n):
                    y, x = (y0 + (i + points) * cell) / height, (x0 + (j + points) * cell) / width
                    y, x = y[y < 1], x[x < 1]
                    if len(y) and len(x):
                        rows = ((top + y * tall) * grid.shape[1]).long()
                        columns = ((left + x * wide) * grid.shape[2]).long()
                        found[b, k, i, j] = grid[b][rows][:, columns].mean((0, 1))
    return found


@pytest.mark.parametrize("fixation", [(0.5, 0.5), (0.1, 0.8)])
def test_every_cell_is_given_what_the_teacher_sees_where_it_lies(fixation: tuple[float, float]) -> None:
    torch.manual_seed(0)
    layout = Layout.foveal(picture=[(100, 70), (64, 128)], size=32, levels=3, fixation=fixation, enlarge=True)
    grid = torch.randn(2, 5, 5, 3)
    boxes = torch.tensor([[0.1, 0.25, 0.7, 0.6], [0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)

    given = teacher_at(layout, 2, grid, boxes)

    assert given.shape == (2, 3, 2, 2, 3)
    # The points are 60 a side, so a patch's share is right to about a sixtieth.
    torch.testing.assert_close(given, brute_force(layout, 2, grid, boxes), atol=0.06, rtol=0)


def test_cells_that_are_patches_are_given_the_patches() -> None:
    grid = torch.randn(1, 4, 4, 3)
    layout = Layout.foveal(picture=(64, 64), size=64, levels=1)

    torch.testing.assert_close(teacher_at(layout, 4, grid, WHOLE), grid[:, None])
    torch.testing.assert_close(
        teacher_at(layout, 2, grid, torch.tensor([[0.5, 0.0, 0.5, 0.5]]).double()), grid[:, None, 2:, :2]
    )


def test_cells_outside_the_picture_are_given_nothing() -> None:
    layout = Layout.foveal(picture=(32, 64), size=64, levels=1)

    given = teacher_at(layout, 4, torch.ones(1, 7, 7, 2), WHOLE)

    assert not given[:, :, 2:].any()
    torch.testing.assert_close(given[:, :, :2], torch.ones(1, 1, 2, 4, 2))


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Four looks, and a teacher that names the mean colour of each patch and of each picture."""
    torch.manual_seed(0)
    colours = torch.rand(4, 3, 4, 4)
    glimpse = Retina(size=32, levels=2)(colours.repeat_interleave(16, 2).repeat_interleave(16, 3))
    grid = (colours - 0.5) / 0.29
    return {
        **glimpse_tensors(glimpse),
        "teacher_grid": grid.permute(0, 2, 3, 1),
        "teacher_whole": grid.mean((2, 3)),
        "boxes": WHOLE.expand(4, 4),
    }


def test_the_loss_falls_and_gradient_reaches_the_whole_backbone(batch: dict[str, Tensor]) -> None:
    model = Distillation(CenterFocusCNN("nano"), 3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)

    losses = []
    for step in range(25):
        parts = model(**batch)
        parts["loss"].backward()
        if step == 1:  # in the first, the second norm of a new block is zero
            without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
            assert without == []
        optimiser.step()
        optimiser.zero_grad()
        losses.append({name: float(value.detach()) for name, value in parts.items()})

    assert losses[0]["loss"] == pytest.approx(losses[0]["cells"] + 0.5 * losses[0]["whole"], rel=1e-5)
    assert losses[-1]["cells"] < 0.5 * losses[0]["cells"]
    assert losses[-1]["whole"] < 0.5 * losses[0]["whole"]


def test_cells_outside_the_picture_and_windows_that_are_none_teach_nothing() -> None:
    torch.manual_seed(0)
    model = Distillation(CenterFocusCNN("nano"), 3).eval()
    glimpse = Retina(size=32, levels=2, enlarge=True)(torch.rand(1, 3, 20, 64))
    looks = {**glimpse_tensors(glimpse), "window_valid": torch.tensor([[True, False]])}
    grid = torch.randn(1, 4, 4, 3)

    loss = model(**looks, teacher_grid=grid, teacher_whole=torch.zeros(1, 3), boxes=WHOLE)["cells"]

    names = ("pixel_values", "window_origins", "window_levels", "window_valid", "picture_sizes", "fixations")
    seen = glimpse_of(*(looks[name] for name in names))
    given = model.cell(model.backbone(seen).permute(0, 1, 3, 4, 2))
    wanted = teacher_at(seen.layout, 2, grid, WHOLE)
    # The fovea starts at the top, so of its four cells those of the second row hold 4 rows of the picture yet.
    assert seen.layout.origins[0, 0].tolist() == [0, 16]
    torch.testing.assert_close(loss, (given - wanted)[0, 0].square().mean())
    assert not torch.allclose(loss, (given - wanted).square().mean())

    higher = Retina(size=32, levels=2, enlarge=True)(torch.rand(1, 3, 16, 64))
    teacher = {"teacher_grid": grid, "teacher_whole": torch.zeros(1, 3), "boxes": WHOLE}
    difference = model.cell(model.backbone(higher).permute(0, 1, 3, 4, 2)) - teacher_at(higher.layout, 2, grid, WHOLE)
    loss = model(**glimpse_tensors(higher), **teacher)["cells"]
    torch.testing.assert_close(loss, difference[:, :, :1].square().mean())  # the second rows of both lie outside
