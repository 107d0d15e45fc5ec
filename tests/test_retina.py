"""What one look sees: exact averages, at the right place, of anything that can be opened; and drawing it again."""

import doctest
import gc
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import UNIT, foveal_layouts, layouts
from PIL import Image

import foveal.retina
import foveal.span
from foveal.layout import Layout
from foveal.picture import Picture, PictureError
from foveal.retina import Glimpse, Retina
from foveal.span import Span

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def noise(height, width, *, seed=0, channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (channels, height, width), dtype=dtype, generator=generator)
    return torch.rand(channels, height, width, dtype=torch.float64, generator=generator).to(dtype)


def averages(values, start, step, count):
    """The mean of each cell's pixels along the last axis, from the running integral; NaN for cells that hold none."""
    side = values.shape[-1]
    integral = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1)], -1)
    edges = np.minimum(start + step * np.arange(count + 1), side)
    whole = np.minimum(edges.astype(int), side - 1)
    at_edges = integral[..., whole] + (edges - whole) * values[..., whole]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.diff(edges) > 1e-9, np.diff(at_edges, axis=-1) / np.diff(edges), np.nan)


def seen_by_hand(picture, layout, sample):
    """(K, C, S, S) of one picture, in double precision; 0 outside."""
    pixels = picture.numpy().astype(np.float64)
    scales = [pixels.shape[1 + axis] / layout.pictures[sample, axis].item() for axis in (0, 1)]
    windows = []
    for (y, x), level in zip(layout.origins[sample].tolist(), layout.levels[sample].tolist(), strict=True):
        rows = averages(pixels.swapaxes(1, 2), y * scales[0], 2**level * scales[0], layout.size)
        windows.append(averages(rows.swapaxes(1, 2), x * scales[1], 2**level * scales[1], layout.size))
    return np.nan_to_num(np.stack(windows))


# ---- exact averages ---------------------------------------------------------------------------------------------


@given(foveal_layouts(batch=2), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_cell_is_the_integral_of_its_pixels(made, seed):
    layout, options = made
    pictures = [noise(*sides, seed=seed) for sides in options["picture"]]
    if options["lattice"] is None:
        fixation = torch.tensor(options["fixation"], dtype=torch.float64)
        glimpse = Retina(options["size"], options["levels"], enlarge=options["enlarge"])(pictures, fixation)
        assert torch.equal(glimpse.layout.origins, layout.origins)
    else:
        glimpse = Retina(options["size"])(pictures, layout=layout)
    assert glimpse.pixels.dtype == torch.float64
    for sample, picture in enumerate(pictures):
        np.testing.assert_allclose(glimpse.pixels[sample], seen_by_hand(picture, layout, sample), rtol=0, atol=1e-8)


@given(st.floats(0, 40), st.floats(0.05, 9), st.integers(1, 12), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_a_span_averages_exactly_at_any_start_and_step(start, step, count, side):
    pixels = noise(1, side, channels=1)
    span = Span(start, step, count, side)
    expected = averages(pixels.numpy()[0, 0], start, step, count)
    if span.empty:
        assert start > side - 1e-6
        return
    for axis in (2, 1, 0):
        x = pixels[..., span.first : span.last].movedim(2, axis)
        result = span.average(x, axis).flatten()
        held = ~np.isnan(expected)
        clear = (
            np.abs(start + step * np.arange(count) - side) > 1e-6
        )  # whether a cell of no width is inside is nobody's
        np.testing.assert_allclose(result[held & clear], expected[held & clear], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(span.inside.numpy()[clear], held[clear])


@given(foveal_layouts(batch=1).map(lambda made: made[0]))
@settings(max_examples=40, deadline=None)
def test_on_a_ramp_every_cell_that_lies_inside_is_exact(layout):
    height, width = layout.pictures[0].tolist()
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (height, width))
    ramp = 0.3 * rows[:, None] - 0.7 * columns + 5
    pixels = Retina(layout.size)(ramp, layout=layout).pixels[0, :, 0]
    places, half = layout.cell_places(layout.size)[0], layout.cell_pixels(layout.size)[0, :, None, None] / 2
    whole = (places[..., 0] + half <= height) & (places[..., 1] + half <= width)
    expected = places @ torch.tensor([0.3, -0.7], dtype=torch.float64) + 5
    torch.testing.assert_close(pixels[whole], expected[whole], rtol=0, atol=1e-9)


def test_an_average_is_over_area_and_not_a_sample():
    stripes = torch.zeros(1, 64, 64)
    stripes[..., ::3] = 1  # any sampling every few pixels would alias
    glimpse = Retina(4, levels=1)(stripes)  # cells of 16 pixels hold 6, 5, 5 and 6 stripes
    torch.testing.assert_close(glimpse.pixels[0, 0, 0, 0], torch.tensor([6.0, 5, 5, 6]) / 16)


def test_integer_pixels_at_full_detail_are_exactly_a_255th():
    picture = noise(40, 50, dtype=torch.uint8)
    glimpse = Retina(16, "auto")(picture, (0.5, 0.5))
    (y, x), fovea = glimpse.layout.origins[0, 0].tolist(), glimpse.pixels[0, 0]
    assert fovea.dtype == torch.float32
    assert torch.equal(fovea, picture[:, y : y + 16, x : x + 16].float() / 255)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sides", [(64, 64), (61, 47)])
def test_floats_keep_their_dtype_and_pass_unscaled_and_unclamped(dtype, sides):
    values = (noise(*sides) * 600 - 300).to(dtype)
    for options in ({"levels": "auto"}, {"levels": 2}):
        glimpse = Retina(16, **options)(values)
        assert glimpse.pixels.dtype == dtype
        expected = seen_by_hand(values.double(), glimpse.layout, 0)
        tolerance = 1e-9 + 300 * 4 * torch.finfo(dtype).eps  # the integral by hand rounds, too
        np.testing.assert_allclose(glimpse.pixels[0].double(), expected, rtol=0, atol=tolerance)
        assert glimpse.pixels.min() < -20
        assert glimpse.pixels.max() > 20


# ---- outside the picture ----------------------------------------------------------------------------------------


def test_outside_is_zero_after_normalisation_and_straddling_cells_average_what_they_have():
    picture = noise(21, 13) + 2
    layout = Layout.windows(picture=(21, 13), size=8, windows=[(0, 16, 8), (1, 8, 0), (2, 0, 0)])
    plain = Retina(8)(picture, layout=layout).pixels[0]
    normalised = Retina(8, mean=MEAN, std=STD)(picture, layout=layout).pixels[0]
    inside = layout.inside(8)[0, :, None].expand_as(plain)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(normalised[inside], ((plain - mean) / std)[inside])
    assert not normalised[~inside].any()
    assert (~inside).sum() > 100
    # Rows 20 to 24 of level 2 hold the picture's last row, columns 12 to 16 its last column.
    torch.testing.assert_close(plain[2, :, 5, 3], picture[:, 20, 12])
    torch.testing.assert_close(plain[2, :, 5, 0], picture[:, 20, :4].mean(-1))


def test_a_window_wholly_outside_is_zero_and_has_the_others_dtype():
    layout = Layout(
        8,
        torch.tensor([[[0, 0], [64, 0], [0, 64]]]),
        torch.zeros(1, 3, dtype=torch.int64),
        torch.tensor([[16, 16]]),
        torch.full((1, 1, 2), 0.5),
        torch.ones(1, 3, dtype=torch.bool),
    )
    pixels = Retina(8, mean=MEAN, std=STD)(noise(16, 16, dtype=torch.float16), layout=layout).pixels
    assert pixels.dtype == torch.float16
    assert pixels[0, 0].all()
    assert not pixels[0, 1:].any()


@given(foveal_layouts(batch=1).map(lambda made: made[0]))
@settings(max_examples=30, deadline=None)
def test_of_a_constant_picture_every_cell_inside_is_that_constant(layout):
    height, width = layout.pictures[0].tolist()
    pixels = Retina(layout.size)(torch.full((1, height, width), 0.75), layout=layout).pixels[0, :, 0]
    inside = layout.inside(layout.size)[0]
    torch.testing.assert_close(pixels, inside * 0.75)


# ---- scale, place, batches --------------------------------------------------------------------------------------


def test_with_fixed_levels_a_large_picture_is_read_at_the_shrink():
    picture = noise(300, 450)
    glimpse = Retina(16, levels=3)(picture, fixation=(0.25, 0.75))
    assert glimpse.layout.pictures.tolist() == [[43, 64]]
    np.testing.assert_allclose(glimpse.pixels[0], seen_by_hand(picture, glimpse.layout, 0), rtol=0, atol=1e-8)
    widest = glimpse.pixels[0, 2]  # the whole picture in 16 cells, 28.125 pixels each
    torch.testing.assert_close(widest[:, :10].mean(), picture[:, : round(10 * 4 * 300 / 43)].mean(), atol=0.01, rtol=0)


def test_a_small_picture_fills_the_widest_window_only_when_asked():
    picture = noise(20, 10)
    native, enlarged = (Retina(16, levels=3, enlarge=enlarge)(picture) for enlarge in (False, True))
    assert native.layout.pictures.tolist() == [[20, 10]]
    assert enlarged.layout.pictures.tolist() == [[64, 32]]
    np.testing.assert_allclose(enlarged.pixels[0], seen_by_hand(picture, enlarged.layout, 0), rtol=0, atol=1e-8)
    assert (enlarged.pixels[0, 2] != 0).all(0).sum() == 16 * 8  # as much of the widest window as the picture's shape


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_fixation_at_a_corner_sees_the_corners_pixel_natively(corner):
    picture = noise(100, 150)
    glimpse = Retina(16, "auto")(picture, fixation=corner)
    y, x = (where * (side - 1) for where, side in zip(corner, (100, 150), strict=True))
    top, left = glimpse.layout.origins[0, 0].tolist()
    assert torch.equal(glimpse.pixels[0, 0, :, y - top, x - left], picture[:, y, x])


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60), UNIT, UNIT), min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_batch_of_unlike_pictures_sees_what_each_alone_would(looks):
    retina = Retina(8, "auto", mean=MEAN, std=STD)
    pictures = [noise(height, width, seed=place) for place, (height, width, _, _) in enumerate(looks)]
    together = retina(pictures, [look[2:] for look in looks])
    for sample, (picture, (_, _, y, x)) in enumerate(zip(pictures, looks, strict=True)):
        alone = retina(picture, (y, x))
        windows = alone.layout.num_windows
        assert together.layout.valid[sample].sum() == windows
        assert torch.equal(together.pixels[sample, :windows], alone.pixels[0])
        assert torch.equal(
            together.pixels[sample, windows:], alone.pixels[0, -1:].expand_as(together.pixels[sample, windows:])
        )


def test_every_kind_of_picture_is_opened(tmp_path):
    pixels = noise(20, 30, dtype=torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    kinds = [pixels, array, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")]
    seen = Retina(8, 2)(kinds).pixels
    assert (seen == seen[:1]).all()
    assert torch.equal(Retina(8, 2)(torch.stack([pixels] * 5)).pixels, seen)
    assert torch.equal(Retina(8, 2)(tmp_path / "a.png").pixels, seen[:1])


def test_a_layout_may_serve_one_picture_or_the_whole_batch():
    layout = Layout.tiling(picture=(16, 24), size=8)
    pictures = [noise(16, 24, seed=place) for place in range(3)]
    glimpse = Retina(8)(pictures, layout=layout)
    assert glimpse.pixels.shape == (3, 6, 3, 8, 8)
    assert len(glimpse.layout) == 3
    for sample, picture in enumerate(pictures):
        assert torch.equal(glimpse.pixels[sample, 4], picture[:, 8:, 8:16])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 7.5}, "size is 7.5"),
        ({"size": True}, "size is True"),
        ({"levels": "three"}, "levels is 'three'; expected a whole number of at least 1, or 'auto'"),
        ({"levels": 2.5}, "levels is 2.5"),
        ({"levels": -1}, "levels is -1"),
        ({"size": 9, "levels": 2}, "size is 9; with 2 levels it must be even"),
        ({"mean": MEAN}, "mean and std go together"),
        ({"std": STD}, "mean and std go together"),
        ({"mean": MEAN, "std": (1, 0, 1)}, r"std is \[1.0, 0.0, 1.0\]; every value must be above 0"),
        ({"mean": MEAN, "std": (1, 1)}, "mean has 3 values and std 2"),
        ({"mean": (0, math.nan, 0), "std": STD}, "expected a finite number for each channel"),
        ({"mean": "imagenet", "std": STD}, "mean is 'imagenet'"),
        ({"mean": 0.5, "std": 0.5}, "mean is 0.5"),
    ],
    ids=str,
)
def test_an_impossible_retina_is_refused_when_it_is_made(options, words):
    with pytest.raises(ValueError, match=words):
        Retina(**options)


@pytest.mark.parametrize(
    ("pictures", "options", "words"),
    [
        ([], {}, "no picture was given"),
        (noise(9, 9), {"fixation": (0.5, math.nan)}, "lies outside the picture"),
        (noise(9, 9), {"fixation": (2, 0)}, "y and x go from 0 to 1"),
        (noise(9, 9), {"fixation": "top"}, "fixation is 'top'"),
        (noise(9, 9), {"fixation": None}, "fixation is None"),
        (noise(9, 9), {"fixation": [(0, 0), (1, 1)]}, "2 fixations for 1 pictures"),
        ([noise(9, 9)] * 2, {"fixation": [(0, 0)] * 3}, "3 fixations for 2 pictures"),
        ([noise(9, 9), noise(9, 9, channels=1)], {}, r"pictures of \[1, 3\] channels cannot share a batch"),
        (noise(9, 9, channels=1), {}, "mean has 3 values, but the pictures have 1 channels"),
        (noise(9, 9), {"layout": Layout.tiling(picture=(9, 9), size=8), "fixation": (0, 0)}, "fixation or layout"),
        ([noise(9, 9)] * 3, {"layout": Layout.foveal(picture=[(9, 9)] * 2, size=8)}, "for 2 pictures cannot look at 3"),
    ],
)
def test_an_impossible_look_is_refused(pictures, options, words):
    with pytest.raises(ValueError, match=words):
        Retina(8, 2, mean=MEAN, std=STD)(pictures, **options)


def test_a_picture_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(PictureError, match=r"gone\.png"):
        Retina()([noise(9, 9), tmp_path / "gone.png"])


# ---- gradients and memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"levels": "auto"}, {"levels": 2}, {"levels": 3, "enlarge": True}], ids=str)
def test_pixels_are_differentiable_with_respect_to_the_picture(options):
    picture = noise(6, 9, channels=1).requires_grad_()
    retina = Retina(2, mean=(0.5,), std=(0.2,), **options)
    assert torch.autograd.gradcheck(lambda x: retina(x, (0.8, 0.3)).pixels, picture)
    assert torch.autograd.gradcheck(lambda x: retina(x, (0.8, 0.3)).render(5, 4), picture)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("sides", [(128, 128), (101, 77), (5, 120)])
def test_a_picture_read_in_strips_is_the_same(sides, dtype, monkeypatch):
    picture = noise(*sides, dtype=dtype)
    looks = [Retina(16, levels, mean=MEAN, std=STD) for levels in (1, 2, "auto")]
    whole = [look(picture, (0.9, 0.4)).pixels for look in looks]
    monkeypatch.setattr(foveal.retina, "_STRIP_PIXELS", 50)
    for look, expected in zip(looks, whole, strict=True):
        torch.testing.assert_close(look(picture, (0.9, 0.4)).pixels, expected, rtol=0, atol=1e-6)


def test_no_more_than_a_strip_of_a_large_picture_is_read_at_a_time(monkeypatch):
    boxes, read = [], Picture.read
    monkeypatch.setattr(foveal.retina, "_STRIP_PIXELS", 20_000)
    monkeypatch.setattr(Picture, "read", lambda self, *box, **how: boxes.append(box) or read(self, *box, **how))
    Retina(16, "auto")(noise(900, 700, dtype=torch.uint8))
    assert max(height * width for _, _, height, width in boxes) <= max(20_000, 64 * 700)  # or one row of cells
    assert sum(height * width for _, _, height, width in boxes) > 900 * 700
    # A long thin picture costs what it holds, and not the square that its widest window spans.
    boxes.clear()
    glimpse = Retina(16, "auto")(noise(3, 100_000, channels=1, dtype=torch.uint8))
    assert glimpse.layout.num_windows == 14
    assert sum(height * width for _, _, height, width in boxes) < 3 * 300_000


# ---- drawing ----------------------------------------------------------------------------------------------------


def drawn_by_hand(glimpse, height, width):
    layout, pixels = glimpse.layout, glimpse.pixels
    drawing = torch.zeros(len(pixels), pixels.shape[2], height, width, dtype=pixels.dtype)
    for sample in range(len(pixels)):
        tall, wide = layout.pictures[sample].tolist()
        order = sorted(range(layout.num_windows), key=lambda window: (layout.levels[sample, window].item(), window))
        for row in range(height):
            for column in range(width):
                place = (row + 0.5) * tall / height, (column + 0.5) * wide / width
                for window in order:
                    start, cell = layout.origins[sample, window].tolist(), 2 ** layout.levels[sample, window].item()
                    at = [math.floor((p - o) / cell) for p, o in zip(place, start, strict=True)]
                    if layout.valid[sample, window] and all(0 <= a < layout.size for a in at):
                        drawing[sample, :, row, column] = pixels[sample, window, :, at[0], at[1]]
                        break
    return drawing


@given(layouts(), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=30, deadline=None)
def test_a_drawing_shows_at_each_place_the_finest_cell_that_covers_it(layout, height, width):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(len(layout), layout.num_windows, 2, layout.size, layout.size, generator=generator)
    glimpse = Glimpse(pixels, layout)
    assert torch.equal(glimpse.render(height, width), drawn_by_hand(glimpse, height, width))


def test_what_was_seen_natively_is_drawn_exactly_and_the_normalisation_undone():
    picture = noise(100, 70, dtype=torch.float32)
    glimpse = Retina(16, "auto", mean=MEAN, std=STD)(picture, fixation=(0.3, 0.9))
    drawing = glimpse.render(100, 70)[0]
    y, x = glimpse.layout.origins[0, 0].tolist()
    fovea = slice(y, y + 16), slice(x, x + 16)
    torch.testing.assert_close(drawing[:, *fovea], picture[:, *fovea], rtol=0, atol=1e-6)
    assert not torch.allclose(drawing[:, :16, :16], picture[:, :16, :16], atol=0.05), "the periphery is coarse"
    tiles = Retina(16)(picture, layout=Layout.tiling(picture=(100, 70), size=16))
    assert torch.equal(tiles.render(100, 70)[0], picture)


@pytest.mark.parametrize("sides", [(100, 70), (33, 200)])
@pytest.mark.parametrize("drawn", [(100, 70), (17, 23)])
def test_of_a_constant_picture_the_drawing_is_that_constant(sides, drawn):
    drawing = Retina(16, "auto")(torch.full((3, *sides), 0.625)).render(*drawn)
    assert torch.equal(drawing, torch.full((1, 3, *drawn), 0.625))


def test_where_no_window_looked_nothing_is_drawn():
    layout = Layout.windows(picture=(32, 32), size=8, windows=[(0, 8, 16)])
    drawing = Retina(8, mean=MEAN, std=STD)(torch.ones(3, 32, 32), layout=layout).render(32, 32)[0]
    torch.testing.assert_close(drawing[:, 8:16, 16:24], torch.ones(3, 8, 8))
    assert drawing.sum() == pytest.approx(3 * 64, rel=1e-5)


@pytest.mark.parametrize("sides", [(0, 5), (5, -1), (2.5, 5)])
def test_a_drawing_without_area_is_refused(sides):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        Retina(8)(noise(9, 9)).render(*sides)


@pytest.mark.parametrize("module", [foveal.retina, foveal.span], ids=lambda module: module.__name__)
def test_the_examples_in_the_documentation_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_layouts_of_large_batches_are_not_kept_and_kept_ones_can_be_trained_with():
    retina, sides = Retina(8, 2), [(20 + number, 16) for number in range(foveal.retina.FEW_PICTURES + 1)]
    gone = weakref.ref(retina([torch.rand(3, *side) for side in sides]).layout)
    gc.collect()
    assert gone() is None
    with torch.inference_mode():
        layout = retina(torch.rand(3, 17, 23)).layout
    assert retina(torch.rand(3, 17, 23)).layout is layout
    assert not layout.origins.is_inference()


@pytest.mark.parametrize("shape", [(3, 2, 3, 16, 16), (2, 3, 3, 8, 8), (3, 3, 16, 16), (1, 3, 3, 16, 16)])
def test_pixels_that_are_not_those_of_the_layout_are_refused(shape):
    layout = Layout.foveal(picture=[(64, 64)] * 2, size=16, levels=3)
    with pytest.raises(ValueError, match=r"expected \(2, 3, C, 16, 16\)"):
        Glimpse(torch.zeros(shape), layout)


def test_where_no_window_lies_an_infinite_cell_is_not_drawn():
    layout = Layout.windows(picture=(8, 8), size=4, windows=[(0, 0, 0)])
    drawing = Glimpse(torch.full((1, 1, 1, 4, 4), -torch.inf), layout).render(8, 8)
    assert (drawing[0, 0, :4, :4] == -torch.inf).all()
    assert (drawing[0, 0, 4:] == 0).all()
    assert (drawing[0, 0, :, 4:] == 0).all()


def test_enlarge_is_true_or_false():
    with pytest.raises(ValueError, match="enlarge is 'no'; expected True or False"):
        Retina(16, enlarge="no")
