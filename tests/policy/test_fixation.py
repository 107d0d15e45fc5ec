"""Where to look: what a person may say, and what the picture's contrast says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal import PictureError
from foveal.policy.fixation import energy_fixation, parse_fixation


@pytest.mark.parametrize(
    ("text", "fixation"),
    [
        ("center", "center"),
        (" Centre ", "center"),
        ("AUTO", "auto"),
        ("0.25,0.5", (0.25, 0.5)),
        (" 1 , 0 ", (1.0, 0.0)),
        ("1e-1,.5", (0.1, 0.5)),
    ],
)
def test_words_and_points_are_understood(text, fixation):
    assert parse_fixation(text) == fixation


@pytest.mark.parametrize("text", ["", "middle", "0.5", "0.1,0.2,0.3", "0.5;0.5", "a,b", "0.5,", "(0.5,0.5)"])
def test_anything_else_is_refused_with_what_is_expected(text):
    with pytest.raises(ValueError, match=r"expected center, auto, or two numbers Y,X from 0 to 1"):
        parse_fixation(text)


@pytest.mark.parametrize("text", ["1.1,0.5", "0.5,-0.1", "nan,0.5", "inf,0", "50,50"])
def test_points_outside_the_picture_are_refused(text):
    with pytest.raises(ValueError, match="lies outside the picture"):
        parse_fixation(text)


def with_detail(height, width, top, left, side, *, grey=0.5):
    """A picture of one grey with a square of fine checks, and the square's centre."""
    picture = torch.full((3, height, width), grey)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    picture[:, top : top + side, left : left + side] = ((rows // 8 + columns // 8) % 2).float()
    return picture, ((top + side / 2) / height, (left + side / 2) / width)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 160), st.integers(0, 260), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_bright_detail_on_grey_is_found_wherever_it_is(top, left, grey):
    picture, place = with_detail(200, 300, top, left, 40, grey=grey)
    assert energy_fixation(picture) == pytest.approx(place, abs=0.03)


@pytest.mark.parametrize("sides", [(900, 300), (300, 900), (33, 57), (60, 500)])
def test_it_is_found_in_pictures_of_any_shape(sides):
    height, width = sides
    picture = torch.zeros(3, height, width)
    picture[:, -max(2, height // 8) :, : max(2, width // 8)] = 1.0
    y, x = energy_fixation(picture)
    assert y > 0.7
    assert x < 0.3


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_a_flat_picture_gives_the_centre(grey):
    assert energy_fixation(torch.full((3, 80, 50), grey, dtype=torch.uint8)) == (0.5, 0.5)
    assert energy_fixation(torch.full((3, 1, 1), grey, dtype=torch.uint8)) == (0.5, 0.5)


def test_noise_below_one_grey_level_counts_as_flat():
    torch.manual_seed(0)
    assert energy_fixation(0.5 + 0.001 * torch.rand(3, 64, 64)) == (0.5, 0.5)


def test_the_picture_s_border_is_no_contrast():
    bright = torch.ones(3, 120, 200)
    bright[:, 80:90, 20:30] = 0.9
    assert energy_fixation(bright) == pytest.approx((85 / 120, 25 / 200), abs=0.03)


def test_weak_contrast_far_away_does_not_pull_where_the_threshold_cuts_it_off():
    picture, place = with_detail(256, 256, 30, 30, 40)
    torch.manual_seed(0)
    noise = torch.rand(1, 25, 64).repeat_interleave(4, 1).repeat_interleave(4, 2)  # as coarse as the cells of the look
    picture[:, 156:] += 0.4 * (noise - 0.5)
    assert energy_fixation(picture) == pytest.approx(place, abs=0.03)
    y, _ = energy_fixation(picture, threshold=0.0)
    assert y > place[0] + 0.03


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold is"):
        energy_fixation(torch.rand(3, 8, 8), threshold=threshold)


def test_a_picture_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PictureError, match=r"lost\.png"):
        energy_fixation(tmp_path / "lost.png")
