"""Where windows lie, what they cover, and what each cell alone stands for."""

import doctest
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import SIZES, foveal_layouts, layouts, tilings

import foveal.arguments
import foveal.coverage
import foveal.layout
from foveal.chain import auto_levels
from foveal.layout import Layout


def pixels_owned(layout, n, sample):
    """(K, n, n): the pixels that belong to each cell, counted one by one."""
    height, width = layout.pictures[sample].tolist()
    places = np.full((height, width), -1)
    order = [window for window in range(layout.num_windows) if layout.valid[sample, window]]
    order.sort(key=lambda window: (layout.levels[sample, window].item(), window))
    owned = np.zeros((layout.num_windows, n, n))
    for window in reversed(order):  # the finest paints last
        (top, left), side = layout.origins[sample, window].tolist(), layout.size << layout.levels[sample, window].item()
        places[top : top + side, left : left + side] = window
    for window in order:
        (top, left), side = layout.origins[sample, window].tolist(), layout.size << layout.levels[sample, window].item()
        y, x = (places == window).nonzero()
        np.add.at(owned[window], ((y - top) * n // side, (x - left) * n // side), 1)
    return owned


# ---- the foveal layout ------------------------------------------------------------------------------------------


@given(foveal_layouts())
@settings(max_examples=80, deadline=None)
def test_the_widest_window_starts_at_the_corner_and_holds_the_whole_picture(made):
    layout, _ = made
    for sample in range(len(layout)):
        widest = layout.levels[sample, layout.valid[sample]].argmax()
        assert layout.origins[sample, widest].tolist() == [0, 0]
        assert max(layout.pictures[sample].tolist()) <= layout.size << layout.levels[sample, widest].item()


@given(foveal_layouts())
@settings(max_examples=80, deadline=None)
def test_origins_lie_on_the_lattice_and_overhang_by_less_than_one_step(made):
    layout, options = made
    lattice = options["lattice"] or layout.size // 2
    for sample, level_row in enumerate(layout.levels.tolist()):
        for window, level in enumerate(level_row):
            side, step = layout.size << level, lattice << level
            for start, whole in zip(
                layout.origins[sample, window].tolist(), layout.pictures[sample].tolist(), strict=True
            ):
                assert start >= 0
                assert start % step == 0
                assert start == 0 or start + side - whole < step


@given(foveal_layouts())
@settings(max_examples=80, deadline=None)
def test_every_window_is_as_nearly_centred_on_the_fixation_as_lattice_and_parent_allow(made):
    layout, options = made
    lattice = options["lattice"] or layout.size // 2
    for sample in range(len(layout)):
        windows = int(layout.valid[sample].sum())
        assert layout.levels[sample, :windows].tolist() == list(range(windows))
        for level in range(windows - 1):
            side, step = layout.size << level, lattice << level
            for axis in (0, 1):
                whole = layout.pictures[sample, axis].item()
                looked_at = layout.fixations[sample, 0, axis].item() * whole
                start, parent = (layout.origins[sample, window, axis].item() for window in (level, level + 1))
                last = max(0, math.ceil((whole - side) / step) * step)
                allowed = [at for at in range(0, last + 1, step) if parent <= at <= parent + side]
                assert start in allowed  # so the window lies inside its parent
                assert abs(start + side / 2 - looked_at) == min(abs(at + side / 2 - looked_at) for at in allowed)


@given(foveal_layouts())
@settings(max_examples=100, deadline=None)
def test_the_fovea_contains_the_fixation_near_its_centre_except_near_the_edge(made):
    layout, options = made
    size, lattice = layout.size, options["lattice"] or layout.size // 2
    for sample in range(len(layout)):
        if int(layout.valid[sample].sum()) == 1:
            continue  # one window: it is the widest, whose place is given
        for axis in (0, 1):
            whole = layout.pictures[sample, axis].item()
            looked_at = layout.fixations[sample, 0, axis].item() * whole
            start = layout.origins[sample, 0, axis].item()
            assert start <= looked_at <= start + size
            if size / 2 <= looked_at <= whole - size / 2:
                assert abs(start + size / 2 - looked_at) <= lattice / 2


@pytest.mark.parametrize(
    ("corner", "origin"), [((0, 0), [0, 0]), ((0, 1), [0, 136]), ((1, 0), [88, 0]), ((1, 1), [88, 136])]
)
def test_a_fixation_at_a_corner_puts_the_fovea_there(corner, origin):
    layout = Layout.foveal(picture=(100, 150), size=16, levels="auto", fixation=corner)
    assert layout.num_windows == 5
    assert layout.origins[0, 0].tolist() == origin
    # It holds the corner's pixel: 88 + 16 > 100, 136 + 16 > 150.
    for start, side, where in zip(origin, (100, 150), corner, strict=True):
        assert start <= where * (side - 1) < start + 16


@given(st.integers(1, 5000), st.integers(1, 200))
def test_auto_takes_the_fewest_levels_that_hold_the_side(side, size):
    levels = auto_levels(side, size)
    assert size << (levels - 1) >= side
    assert levels == 1 or size << (levels - 2) < side


def test_auto_levels_and_origins_stay_exact_beyond_single_precision():
    side = (1 << 27) + 1
    layout = Layout.foveal(picture=(1, side), size=64, levels="auto", fixation=(0.5, 1.0))
    assert layout.num_windows == 1 + 22
    last = math.ceil((side - 64) / 32) * 32
    assert layout.origins[0, 0].tolist() == [0, last]


def test_windows_nest_also_where_the_fixation_lies_between_two_parents():
    layout = Layout.foveal(picture=(32, 32), size=8, levels=3, lattice=8)
    (fovea, parent, _), looked_at = layout.origins[0].tolist(), 16
    assert [parent[0] <= start <= parent[0] + 8 for start in fovea] == [True, True]
    assert [start <= looked_at <= start + 8 for start in fovea] == [True, True]


@pytest.mark.parametrize(
    ("sides", "enlarge", "read"),
    [
        ((64, 32), False, (64, 32)),  # exactly as wide as the widest window
        ((40, 30), False, (40, 30)),  # smaller: left alone
        ((40, 30), True, (64, 48)),  # unless asked
        ((640, 480), False, (64, 48)),  # larger: shrunk so that the longer side fills it
        ((480, 640), True, (48, 64)),
        ((10_000, 3), False, (64, 1)),  # never below 1 pixel
    ],
)
def test_with_fixed_levels_pictures_are_read_at_the_scale_that_a_model_knows(sides, enlarge, read):
    layout = Layout.foveal(picture=sides, size=16, levels=3, enlarge=enlarge)
    assert tuple(layout.pictures[0].tolist()) == read


@given(foveal_layouts(batch=4))
@settings(max_examples=40, deadline=None)
def test_a_batch_holds_each_pictures_own_layout_and_fills_up_with_places_that_do_not_count(made):
    layout, options = made
    for sample, (picture, fixation) in enumerate(zip(options["picture"], options["fixation"], strict=True)):
        alone = Layout.foveal(**{**options, "picture": picture, "fixation": fixation})
        windows = alone.num_windows
        assert layout.valid[sample].tolist() == [place < windows for place in range(layout.num_windows)]
        for name in ("origins", "levels"):
            rows, expected = getattr(layout, name)[sample], getattr(alone, name)[0]
            assert torch.equal(rows[:windows], expected)
            assert torch.equal(rows[windows:], expected[-1:].expand_as(rows[windows:]))
        assert torch.equal(layout.pictures[sample], alone.pictures[0])
        n = layout.size // 4
        assert torch.equal(layout.areas(n)[sample, :windows], alone.areas(n)[0])
        assert not layout.areas(n)[sample, windows:].any()


@pytest.mark.parametrize(
    "fixation",
    [
        (0.25, 0.75),
        [0.25, 0.75],
        [(0.25, 0.75), (0.25, 0.75)],
        torch.tensor([0.25, 0.75]),
        torch.tensor([[0.25, 0.75]] * 2, requires_grad=True),
        [torch.tensor([0.25, 0.75])] * 2,
        (torch.tensor(0.25), torch.tensor(0.75)),
        np.array([[0.25, 0.75]] * 2, dtype=np.float32),
    ],
    ids=["tuple", "list", "list of tuples", "tensor", "gradient", "list of tensors", "tensors", "array"],
)
def test_a_fixation_is_the_same_in_every_form(fixation):
    layout = Layout.foveal(picture=[(90, 100), (80, 70)], size=16, levels=3, fixation=fixation)
    assert layout.fixations.tolist() == [[[0.25, 0.75]], [[0.25, 0.75]]]
    assert not layout.fixations.requires_grad


def test_one_picture_may_be_looked_at_from_several_points():
    layout = Layout.foveal(picture=(64, 64), size=16, levels=3, fixation=[(0, 0), (1, 1)])
    assert layout.origins[:, 0].tolist() == [[0, 0], [48, 48]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"levels": "three"}, "levels is 'three'; expected a whole number of at least 1, or 'auto'"),
        ({"levels": 2.5}, "levels is 2.5"),
        ({"levels": True}, "levels is True"),
        ({"levels": 0}, "levels is 0"),
        ({"levels": 99}, "levels is 99; expected a whole number from 1 to 32"),
        ({"levels": None}, "levels is None"),
        ({"size": 0}, "size is 0"),
        ({"size": -16}, "size is -16; expected a whole number from 1 to"),
        ({"size": 16.0}, "size is 16.0"),
        ({"size": "16"}, "size is '16'"),
        ({"size": 15}, "size is 15; with 2 levels it must be even and a multiple of the lattice, 7"),
        ({"lattice": 3}, "multiple of the lattice, 3"),
        ({"lattice": 0}, "lattice is 0"),
        ({"lattice": -8}, "lattice is -8"),
        ({"fixation": (math.nan, 0.5)}, "fixation .nan, 0.5. lies outside the picture"),
        ({"fixation": (0.5, 1.01)}, "1.01. lies outside the picture; y and x go from 0 to 1"),
        ({"fixation": (-0.1, 0.5)}, "-0.1"),
        ({"fixation": (math.inf, 0.5)}, "inf"),
        ({"fixation": "left"}, "fixation is 'left'; expected 'center'"),
        ({"fixation": ("a", "b")}, "fixation is .'a', 'b'.; expected 'center'"),
        ({"fixation": None}, "fixation is None"),
        ({"fixation": 0.5}, r"fixation has shape \(\)"),
        ({"fixation": (0.1, 0.2, 0.3)}, r"fixation has shape \(1, 3\)"),
        ({"fixation": torch.zeros(0, 2)}, r"fixation has shape \(0, 2\)"),
        ({"picture": [(9, 9), (8, 8)], "fixation": [(0, 0)] * 3}, "3 fixations for 2 pictures"),
        ({"picture": (0, 9)}, "picture is .0.0, 9.0.; expected .height, width. in whole pixels"),
        ({"picture": (9, -1)}, "-1"),
        ({"picture": (9.5, 9)}, "9.5"),
        ({"picture": (math.nan, 9)}, "nan"),
        ({"picture": (9, 9, 3)}, r"picture has shape \(1, 3\)"),
        ({"picture": 9}, r"picture has shape \(\)"),
        ({"picture": "9x9"}, "picture is '9x9'"),
        ({"picture": []}, r"picture has shape \(1, 0\)"),
    ],
    ids=str,
)
def test_an_impossible_look_is_refused_with_what_was_given_and_what_is_expected(wrong, words):
    with pytest.raises(ValueError, match=words):
        Layout.foveal(**{"picture": (64, 64), "size": 16, "levels": 2, **wrong})


# ---- other layouts ----------------------------------------------------------------------------------------------


@given(tilings())
@settings(max_examples=40, deadline=None)
def test_a_tiling_covers_every_pixel_once(layout):
    height, width = layout.pictures[0].tolist()
    times = torch.zeros(height, width)
    for (y, x), level in zip(layout.origins[0].tolist(), layout.levels[0].tolist(), strict=True):
        times[y : y + (layout.size << level), x : x + (layout.size << level)] += 1
    assert (times == 1).all()


def test_windows_are_kept_once_and_finest_first_and_otherwise_in_the_order_given():
    listed = [(2, 0, 0), (0, 8, 8), (1, 4, 4), (0, 0, 0), (0, 8, 8)]
    layout = Layout.windows(picture=(64, 64), size=16, windows=listed)
    assert layout.levels.tolist() == [[0, 0, 1, 2]]
    assert layout.origins.tolist() == [[[8, 8], [0, 0], [4, 4], [0, 0]]]
    assert layout.valid.all()


def test_dense_is_one_window_of_the_longer_side():
    layout = Layout.dense(picture=(30, 50))
    assert (layout.size, layout.origins.tolist(), layout.levels.tolist()) == (50, [[[0, 0]]], [[0]])


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ([], "at least one window"),
        ([(0, -1, 0)], "the y of window"),
        ([(-1, 0, 0)], "the level of window"),
        ([(40, 0, 0)], "expected a whole number from 0 to 31"),
        ([(0, 0, 0.5)], "the x of window"),
        ([(0, 0)], r"a window is \(0, 0\); expected \(level, y, x\)"),
        ([7], "a window is 7"),
        ([(0, 64, 0)], "lies outside the picture of"),
        ([(0, 0, 500)], "lies outside the picture of"),
    ],
)
def test_impossible_windows_are_refused(windows, words):
    with pytest.raises(ValueError, match=words):
        Layout.windows(picture=(64, 64), size=16, windows=windows)


@pytest.mark.parametrize("make", [Layout.tiling, Layout.windows, Layout.dense])
def test_layouts_of_one_picture_refuse_a_batch_in_words(make):
    more = {Layout.tiling: {"size": 8}, Layout.windows: {"size": 8, "windows": [(0, 0, 0)]}}.get(make, {})
    with pytest.raises(ValueError, match="2 pictures were given; expected one"):
        make(picture=[(8, 8), (9, 9)], **more)


def test_a_stack_repeats_the_last_window_of_the_shorter_ones_without_counting_it():
    two = Layout.windows(picture=(40, 40), size=8, windows=[(0, 8, 8), (1, 0, 0)])
    four = Layout.tiling(picture=(16, 16), size=8)
    stacked = Layout.stack([two, four])
    assert stacked.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert stacked.levels[0].tolist() == [0, 1, 1, 1]
    assert stacked.origins[0].tolist() == [[8, 8], [0, 0], [0, 0], [0, 0]]
    for sample, alone in enumerate((two, four)):
        assert torch.equal(stacked.areas(4)[sample, : alone.num_windows], alone.areas(4)[0])
    with pytest.raises(ValueError, match=r"sizes \[8, 16\]"):
        Layout.stack([two, Layout.dense(picture=(16, 16))])
    with pytest.raises(ValueError, match="at least one layout"):
        Layout.stack([])


def test_select_keeps_the_places_asked_for():
    layout = Layout.foveal(picture=(64, 64), size=16, levels=3)
    assert layout.select(slice(1, None)).levels.tolist() == [[1, 2]]
    assert layout.select(torch.tensor([2, 0])).origins.tolist() == [[[0, 0], layout.origins[0, 0].tolist()]]


# ---- areas, tokens, distances -----------------------------------------------------------------------------------


@given(layouts(), st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_areas_are_the_pixels_that_belong_to_each_cell(layout, n):
    for sample in range(len(layout)):
        np.testing.assert_array_equal(layout.areas(n)[sample].numpy(), pixels_owned(layout, n, sample))


@given(foveal_layouts().map(lambda made: made[0]) | tilings(), st.sampled_from([1, 2, 4]))
@settings(max_examples=100, deadline=None)
def test_the_areas_of_a_layout_that_covers_the_picture_add_up_to_the_pictures(layout, n):
    assert torch.equal(layout.areas(n).sum((1, 2, 3)), layout.pictures.prod(1).float())


def test_areas_do_not_depend_on_how_many_windows_are_worked_through_at_a_time(monkeypatch):
    listed = [(level, y, x) for level in (0, 1) for y in range(0, 60, 7) for x in range(0, 60, 9)]
    options = {"picture": (64, 64), "size": 8, "windows": listed}
    whole = Layout.windows(**options).areas(4)
    monkeypatch.setattr(foveal.coverage, "_ENTRIES", 3000)
    assert torch.equal(Layout.windows(**options).areas(4), whole)


@pytest.mark.parametrize(("size", "levels", "stride"), [(64, 3, 16), (64, 1, 16), (32, 5, 4), (128, 2, 32)])
def test_an_aligned_foveal_layout_has_the_tokens_that_the_design_counts(size, levels, stride):
    n = size // stride
    layout = Layout.foveal(picture=(size << (levels - 1),) * 2, size=size, levels=levels)
    index, mask = layout.tokens(n)
    assert index.shape[1] == n * n * (1 + 0.75 * (levels - 1))
    assert mask.all()


@given(layouts(), st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_tokens_are_the_cells_that_stand_for_something_in_their_order(layout, n):
    index, mask = layout.tokens(n)
    for sample in range(len(layout)):
        expected = pixels_owned(layout, n, sample).reshape(-1).nonzero()[0].tolist()
        assert index[sample, mask[sample]].tolist() == expected
        assert mask[sample].tolist() == [place < len(expected) for place in range(index.shape[1])]


@given(layouts(), st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_places_distances_and_the_inside_of_cells_are_what_their_pixels_say(layout, n):
    inside, eccentricity, places = layout.inside(n), layout.eccentricity(n), layout.cell_places(n)
    for sample in range(len(layout)):
        height, width = layout.pictures[sample].tolist()
        points = [(y * height, x * width) for y, x in layout.fixations[sample].tolist()]
        for window in range(layout.num_windows):
            top, left = layout.origins[sample, window].tolist()
            side = (layout.size << layout.levels[sample, window].item()) / n
            for row in range(n):
                for column in (0, n - 1):
                    y, x = top + (row + 0.5) * side, left + (column + 0.5) * side
                    at = sample, window, row, column
                    assert places[at].tolist() == [y, x]
                    assert inside[at].item() == (y - side / 2 < height and x - side / 2 < width)
                    nearest = min(math.dist((y, x), point) for point in points)
                    assert eccentricity[at].item() == pytest.approx(nearest, rel=1e-6)


def test_distance_is_to_the_nearest_of_several_fixations():
    layout = Layout.windows(picture=(8, 8), size=8, windows=[(0, 0, 0)])
    layout = Layout(
        8, layout.origins, layout.levels, layout.pictures, torch.tensor([[[0.0, 0.0], [1, 1]]]), layout.valid
    )
    distances = layout.eccentricity(8)[0, 0]
    assert distances[0, 0] == distances[7, 7] == pytest.approx(math.sqrt(0.5))
    assert distances[0, 7] == pytest.approx(math.hypot(0.5, 7.5))


# ---- what is kept -----------------------------------------------------------------------------------------------


@given(SIZES)
@settings(max_examples=3)
def test_what_follows_from_a_layout_is_worked_out_once(size):
    layout = Layout.foveal(picture=(64, 64), size=size, levels=3)
    assert layout.areas(4) is layout.areas(4)
    assert layout.tokens(4)[0] is layout.tokens(4)[0]
    assert layout.areas(4) is not layout.areas(2)


def test_what_was_worked_out_during_inference_serves_training():
    with torch.inference_mode():
        layout = Layout.foveal(picture=(64, 64), size=16, levels=3)
        index, _ = layout.tokens(4)
        areas = layout.areas(4)
    assert not index.is_inference()
    assert not areas.is_inference()
    cells = torch.rand(1, 48, requires_grad=True)
    cells.gather(1, index).sum().backward()  # autograd keeps the index
    assert cells.grad.sum() == index.shape[1]


@pytest.mark.parametrize("module", [foveal.layout, foveal.arguments, foveal.coverage], ids=lambda m: m.__name__)
def test_the_examples_in_the_documentation_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_a_used_layout_travels_without_what_was_worked_out():
    layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
    fresh = len(pickle.dumps(layout))
    areas = layout.areas(16)
    assert len(pickle.dumps(layout)) == fresh
    assert torch.equal(pickle.loads(pickle.dumps(layout)).areas(16), areas)


@pytest.mark.parametrize("name", ["areas", "tokens", "inside", "cell_pixels", "cell_places", "eccentricity"])
def test_maps_have_at_least_one_cell(name):
    layout = Layout.foveal(picture=(64, 64), size=16, levels=3)
    with pytest.raises(ValueError, match="n is 0; expected a whole number of at least 1"):
        getattr(layout, name)(0)


def test_windows_whose_sides_no_number_holds_are_refused():
    with pytest.raises(ValueError, match=f"size is {1 << 40}"):
        Layout.foveal(picture=(8, 8), size=1 << 40, levels=32)
