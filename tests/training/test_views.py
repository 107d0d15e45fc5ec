import numpy as np
import pytest
import torch
from torch import Tensor

from foveal.retina import Retina
from foveal.training.views import Views, draw_views


def coordinates(height: int, width: int) -> Tensor:
    """A picture whose first two channels say where a pixel lies, 0 to 250, and whose third is full everywhere."""
    y = torch.linspace(0, 250, height).round()[:, None].expand(height, width)
    x = torch.linspace(0, 250, width).round()[None].expand(height, width)
    return torch.stack([y, x, torch.full((height, width), 255.0)]).to(torch.uint8)


def draw(pictures: list[Tensor], seed: int = 0, *, size: int = 64, levels: int = 1, **how: float) -> Views:
    retina = Retina(size, levels, enlarge=True)
    return draw_views(pictures, retina, np.random.default_rng(seed), **{"colour": 0.0, **how})


def test_boxes_and_mirrors_say_which_part_of_the_picture_was_seen() -> None:
    height, width = 251, 251  # a value is a pixel's place
    views = draw([coordinates(height, width)] * 40, crop=0.3)

    seen = views.glimpse.pixels[:, 0] * 255
    for row in range(40):
        top, left, tall, wide = (views.boxes[row] * 251).round().tolist()
        rows, columns = (int(side) for side in views.glimpse.layout.pictures[row])
        part = seen[row, :, :rows, :columns]
        if views.mirrored[row]:
            part = part.flip(-1)
            left = width - left - wide  # in the picture as it is stored
        # A cell averages what it covers, so the mean of all is the middle of the part.
        assert float(part[0].mean()) == pytest.approx(top + (tall - 1) / 2, abs=0.6)
        assert float(part[1].mean()) == pytest.approx(left + (wide - 1) / 2, abs=0.6)
        cell = tall / rows
        assert float(part[0, 0].mean()) == pytest.approx(top + (cell - 1) / 2, abs=0.6)
        assert float(part[1, :, 0].mean()) == pytest.approx(left + (wide / columns - 1) / 2, abs=0.6)
        assert float(part[1, :, -1].mean()) == pytest.approx(left + wide - 1 - (wide / columns - 1) / 2, abs=0.6)
    assert 5 < int(views.mirrored.sum()) < 35


def test_boxes_lie_in_the_picture_and_are_as_large_as_was_asked() -> None:
    views = draw([coordinates(40, 90)] * 200, crop=0.5)

    top, left, tall, wide = views.boxes.unbind(1)
    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((top + tall <= 1 + 1e-9).all() and (left + wide <= 1 + 1e-9).all())
    assert float((tall * wide).min()) > 0.5 - 0.03  # whole pixels
    assert 0.1 < float((tall == 1).double().mean()) < 0.5  # a part of the looks is at the whole picture
    assert float((tall * wide).std()) > 0.1


def test_all_chance_comes_from_the_generator() -> None:
    pictures = [coordinates(40, 60)] * 3
    torch.manual_seed(0)
    first = draw(pictures, 5, levels=2, colour=0.2)
    torch.manual_seed(1)
    second, other = draw(pictures, 5, levels=2, colour=0.2), draw(pictures, 6, levels=2, colour=0.2)

    assert torch.equal(first.glimpse.pixels, second.glimpse.pixels)
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.mirrored, second.mirrored)
    assert torch.equal(first.glimpse.layout.fixations, second.glimpse.layout.fixations)
    assert not torch.equal(first.glimpse.pixels, other.glimpse.pixels)


def test_colours_vary_by_channel_and_picture_and_leave_what_lies_outside_at_zero() -> None:
    pictures = [torch.full((3, 30, 60), 200, dtype=torch.uint8)] * 20
    plain, coloured = draw(pictures, levels=2), draw(pictures, levels=2, colour=0.3)

    inside = plain.glimpse.layout.inside(64)[:, :, None].expand_as(plain.glimpse.pixels)
    assert 0.2 < float(inside.float().mean()) < 0.8, "all inside or outside would show nothing"
    assert not coloured.glimpse.pixels[~inside].any()
    values = torch.stack(
        [(view[..., :2, :2]).amax((-1, -2)).amax(0) for view in coloured.glimpse.pixels]
    )  # one colour for all windows of a picture
    assert float(values.std(0).min()) > 0.02
    assert float(values.std(1).min()) > 0
    for view in range(20):
        for channel in range(3):
            shown = coloured.glimpse.pixels[view, :, channel][inside[view, :, channel]]
            assert float(shown.std()) < 1e-5


def test_without_augmentation_the_whole_picture_is_seen_from_its_centre() -> None:
    picture = coordinates(64, 64)
    views = draw([picture] * 10, crop=1.0, off_centre=0.0)

    assert views.boxes.tolist() == [[0, 0, 1, 1]] * 10
    assert views.glimpse.layout.fixations.unique().tolist() == [0.5]
    for row in range(10):
        expected = picture.flip(-1) if views.mirrored[row] else picture
        torch.testing.assert_close(views.glimpse.pixels[row, 0], expected.float() / 255)


def test_fixations_are_off_the_centre_as_often_as_was_asked() -> None:
    def share(off_centre: float) -> float:
        fixations = draw([coordinates(16, 16)] * 200, size=16, off_centre=off_centre).glimpse.layout.fixations
        return float((fixations != 0.5).any(-1).double().mean())

    assert share(1.0) == 1
    assert 0.3 < share(0.5) < 0.7


def test_a_picture_of_one_pixel_can_be_seen() -> None:
    views = draw([torch.full((3, 1, 1), 7, dtype=torch.uint8)], crop=0.05)

    assert views.boxes.tolist() == [[0, 0, 1, 1]]
    assert bool(views.glimpse.pixels.isfinite().all())
