"""The drawing of a glimpse shows what was seen, at the picture's aspect, with the windows' borders."""

import numpy as np
import pytest
import torch

from foveal import Retina
from foveal.analysis.glimpse_drawing import draw_glimpse


def drawn(glimpse, **options):
    return np.asarray(draw_glimpse(glimpse, **options)).astype(int)


def test_the_drawing_has_the_picture_s_aspect_and_the_longer_side_asked():
    glimpse = Retina(32, 2, enlarge=True)(torch.rand(3, 101, 333))
    assert draw_glimpse(glimpse, picture=(101, 333)).size == (1024, round(1024 * 101 / 333))
    assert draw_glimpse(glimpse, longer_side=300).size[0] == 300
    assert draw_glimpse(glimpse).mode == "RGB"


def test_a_single_window_is_drawn_without_a_border_exactly_as_it_was_seen():
    picture = torch.rand(3, 64, 64)
    picture[:] = (picture * 255).round() / 255
    glimpse = Retina(64, 1, mean=[0.5] * 3, std=[0.25] * 3)(picture)
    image = drawn(glimpse, longer_side=640)
    away = torch.ones(64, 64, dtype=torch.bool)
    away[29:35, 29:35] = False  # the ring
    cells = torch.from_numpy(image[5::10, 5::10]).permute(2, 0, 1)
    assert torch.equal(cells[:, away], (picture * 255).round().long()[:, away])


def test_borders_lie_where_the_windows_do():
    grey = torch.full((3, 128, 128), 0.5)
    glimpse = Retina(32, 3)(grey, fixation=(0.3, 0.7))
    image = drawn(glimpse, longer_side=1024)
    marked = (abs(image - image[0, 0]).sum(-1) > 10).astype(int)
    for level in (0, 1):
        top, left = (8 * glimpse.layout.origins[0, level]).tolist()
        side = 8 * 32 << level
        for row, column in [(top, left + side // 3), (top + side // 3, left)]:
            if min(row, column) > 8:
                assert marked[row - 3 : row + 4, column - 3 : column + 4].any()
    assert marked.mean() < 0.05


def test_colours_stay_within_what_a_picture_can_hold():
    image = drawn(Retina(16, 1)(torch.tensor([[[-3.0, 0.0], [0.5, 7.0]]] * 3)))
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [255, 255, 255]


def test_other_than_three_channels_are_refused():
    with pytest.raises(ValueError, match="a glimpse of 4 channels cannot be drawn; expected 3"):
        draw_glimpse(Retina(16, 1)(torch.rand(4, 16, 16)))
