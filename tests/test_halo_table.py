"""Which cells a rim is filled from: the rule, cell by cell."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import UNIT, layouts, maps_of
from torch.nn import functional as F

import foveal.halo_table
from foveal.halo import halo_pad
from foveal.halo_table import halo_table, rim_of
from foveal.layout import Layout

A = Layout.foveal(picture=[(120, 100), (64, 128)], size=16, levels=4, fixation=[(0.2, 0.7), (1.0, 0.0)])
RIMS = st.tuples(*[st.integers(0, 3)] * 4)


def source_of(layout, sample, window, place):
    """The window that a rim cell with its centre at `place` is read from, by the words of the rule; None for none."""
    covering = []
    for other in range(layout.num_windows):
        level = layout.levels[sample, other].item()
        side = layout.size << level
        start = layout.origins[sample, other].tolist()
        if (
            other != window
            and layout.valid[sample, other]
            and level >= layout.levels[sample, window]
            and all(low <= at < low + side for low, at in zip(start, place, strict=True))
        ):
            covering.append((level, other))
    return min(covering)[1] if covering else None


def rim_cells(layout, n, padding):
    """(sample, window, row, column of the padded map, centre in pixels) of every rim cell."""
    left, right, top, bottom = padding
    for sample in range(len(layout)):
        for window in range(layout.num_windows):
            side = (layout.size << layout.levels[sample, window].item()) / n
            start = layout.origins[sample, window].tolist()
            for row in range(-top, n + bottom):
                for column in range(-left, n + right):
                    if not (0 <= row < n and 0 <= column < n):
                        place = start[0] + (row + 0.5) * side, start[1] + (column + 0.5) * side
                        yield sample, window, row + top, column + left, place


def neighbours(layout, sample, source, place, n):
    """The (low, part) of each axis: between which cells of the source the place lies, and where between them."""
    side = (layout.size << layout.levels[sample, source].item()) / n
    at = [(p - o) / side - 0.5 for p, o in zip(place, layout.origins[sample, source].tolist(), strict=True)]
    return [(math.floor(a), a - math.floor(a)) for a in at]


def padded_by_hand(maps, layout, padding, value):
    """What `halo_pad` has to give, one cell after the other."""
    n = maps.shape[-1]
    left, right, top, bottom = padding
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)
    for sample, window, row, column, place in rim_cells(layout, n, padding):
        source = source_of(layout, sample, window, place)
        if source is not None:
            cells = maps[sample * layout.num_windows + source].numpy()
            (y, down), (x, across) = neighbours(layout, sample, source, place, n)
            ys, xs = ([min(max(low + step, 0), n - 1) for step in (0, 1)] for low in (y, x))
            upper = cells[:, ys[0], xs[0]] * (1 - across) + cells[:, ys[0], xs[1]] * across
            lower = cells[:, ys[1], xs[0]] * (1 - across) + cells[:, ys[1], xs[1]] * across
            padded[sample * layout.num_windows + window, :, row, column] = upper * (1 - down) + lower * down
    return padded


@given(layouts(), st.sampled_from([1, 2, 4]), RIMS, st.sampled_from([0.0, -math.inf, 3.5]))
@settings(max_examples=40, deadline=None)
def test_every_rim_cell_is_what_the_rule_says(layout, n, padding, value):
    maps = maps_of(layout, n)
    expected = padded_by_hand(maps, layout, padding, value)
    np.testing.assert_allclose(halo_pad(maps, layout, padding, value).numpy(), expected, rtol=0, atol=1e-12)


@given(layouts(), st.sampled_from([1, 2, 4]), RIMS)
@settings(max_examples=60, deadline=None)
def test_a_table_never_reads_outside_a_window_nor_from_a_finer_one_nor_from_its_own(layout, n, padding):
    table = halo_table(layout, n, padding)
    left, right, top, bottom = padding
    windows, padded = layout.num_windows, (n + left + right) * (n + top + bottom)
    assert table.source.numel() == 0 or 0 <= table.source.min() <= table.source.max() < len(layout) * windows * n * n
    source, target = table.source // (n * n), table.target // padded
    assert (source == source[:, :1]).all(), "all four neighbours belong to one window"
    source = source[:, 0]
    assert (source // windows == target // windows).all(), "and to the same picture"
    assert (source != target).all()
    assert (layout.levels.flatten()[source] >= layout.levels.flatten()[target]).all()
    assert layout.valid.flatten()[source].all()
    row, column = table.target % padded // (n + left + right), table.target % padded % (n + left + right)
    inside = (row >= top) & (row < top + n) & (column >= left) & (column < left + n)
    assert not inside.any(), "only the rim is written"
    assert len(table.target.unique()) == len(table.target), "and every cell of it once"
    assert (table.weight >= 0).all()
    torch.testing.assert_close(table.weight.sum(1), torch.ones(len(target), dtype=torch.float64), rtol=0, atol=1e-12)


@given(UNIT, UNIT, st.sampled_from([4, 8, 16]), st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_on_a_ramp_every_rim_cell_with_all_four_neighbours_is_exact(y, x, n, rim):
    layout = Layout.foveal(picture=(128, 128), size=16, levels=4, fixation=(y, x))  # no window overhangs
    slope = torch.tensor([0.3, -0.7], dtype=torch.float64)
    maps = (layout.cell_places(n) @ slope + 5).flatten(0, 1)[:, None]
    padded = halo_pad(maps, layout, rim, value=math.nan)
    exact = 0
    for sample, window, row, column, place in rim_cells(layout, n, (rim,) * 4):
        value, source = padded[window, 0, row, column].item(), source_of(layout, sample, window, place)
        if source is None:
            assert math.isnan(value)
            assert not all(0 <= at < 128 for at in place), "a covered place was left empty"
        elif all(low >= 0 and low + 1 < n for low, _ in neighbours(layout, sample, source, place, n)):
            assert value == pytest.approx(0.3 * place[0] - 0.7 * place[1] + 5, abs=1e-9)
            exact += 1
    assert exact > 0


def test_a_rim_is_read_from_the_finest_window_that_covers_it_and_of_one_level_from_the_first():
    listed = [(0, 0, 0), (0, 0, 6), (0, 0, 4), (1, 0, 0), (3, 0, 0)]
    layout = Layout.windows(picture=(64, 64), size=4, windows=listed)
    maps = torch.arange(5.0)[:, None, None, None].expand(5, 1, 4, 4)
    padded = halo_pad(maps, layout, (0, 3, 0, 0))
    assert padded[0, 0, 0, 4:].tolist() == [2, 2, 1]  # columns 4, 5 and 6; both of level 0 cover the last
    assert padded[3, 0, 0, 4:].tolist() == [4, 4, 4]  # of the finer ones it reads none


def test_coarse_windows_do_not_depend_on_where_fine_ones_lie():
    coarse = [(1, 0, 0), (1, 16, 16), (2, 0, 0)]
    alone = Layout.windows(picture=(64, 64), size=16, windows=coarse)
    beside = Layout.windows(picture=(64, 64), size=16, windows=[*coarse, (0, 24, 24), (0, 0, 8)])
    maps = maps_of(beside, 8)
    assert torch.equal(halo_pad(maps, beside, 2)[2:], halo_pad(maps[2:], alone, 2))


def test_places_that_only_fill_the_batch_are_never_read():
    stacked = Layout.stack([Layout.windows(picture=(32, 32), size=16, windows=[(0, 8, 8), (1, 0, 0)]), A])
    maps = maps_of(stacked, 8)
    maps[2:4] = math.nan
    assert halo_pad(maps, stacked, 1)[:2].isfinite().all()
    valid = stacked.valid.clone()
    valid[1, 1] = False
    first = replace(stacked, valid=valid)
    maps = maps_of(first, 8)
    maps[5] = math.nan  # which the fovea, inside it, would read first
    assert halo_pad(maps, first, 1)[4].isfinite().all()


def test_one_layout_serves_every_picture_of_a_batch():
    one = Layout.foveal(picture=(100, 64), size=16, levels=3, fixation=(0.8, 0.2))
    maps = maps_of(Layout.stack([one] * 4), 8)
    padded = halo_pad(maps, one, 2)
    for sample in range(4):
        part = slice(3 * sample, 3 * sample + 3)
        assert torch.equal(padded[part], halo_pad(maps[part], one, 2))


def test_tables_do_not_depend_on_how_many_windows_are_worked_through_at_a_time(monkeypatch):
    listed = [(level, y, x) for level in (0, 1) for y in range(0, 60, 7) for x in range(0, 60, 9)]
    layout = Layout.windows(picture=(64, 64), size=8, windows=listed)
    whole = halo_table(layout, 8, (1, 2, 0, 1))
    monkeypatch.setattr(foveal.halo_table, "_ENTRIES", 3000)
    parts = halo_table(layout, 8, (1, 2, 0, 1))
    assert torch.equal(parts.target, whole.target)
    assert torch.equal(parts.source, whole.source)
    assert torch.equal(parts.weight, whole.weight)


def test_a_thousand_tiles_look_only_at_their_neighbours():
    layout = Layout.tiling(picture=(1024, 1024), size=32)
    near, real = foveal.halo_table._sources(layout, 32, (1, 1, 1, 1))
    assert near.shape == real.shape == (1, 1024, 8)
    assert real.sum() == (3 * 32 - 2) ** 2 - 1024  # every tile with the up to eight around it


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 1, 1), (8, 3, 1), (8, 3, 4), (8, 1, 4)])
def test_every_dtype_and_memory_format_gives_the_same(shape, dtype):
    windows, channels, n = shape
    maps = torch.rand(windows, channels, n, n, dtype=torch.float64)
    expected = halo_pad(maps, A, (1, 0, 2, 1), value=-1.0).to(dtype)
    for given_maps in (maps.to(dtype), maps.to(dtype).contiguous(memory_format=torch.channels_last)):
        padded = halo_pad(given_maps, A, (1, 0, 2, 1), value=-1.0)
        assert padded.dtype == dtype
        assert padded.permute(0, 2, 3, 1).is_contiguous()
        torch.testing.assert_close(padded, expected)


def test_windows_that_meet_nowhere_get_the_networks_own_padding():
    layout = Layout.windows(picture=(64, 64), size=8, windows=[(0, 0, 0), (0, 40, 40)])
    maps = maps_of(layout, 8)
    assert torch.equal(halo_pad(maps, layout, 2, value=7.0), F.pad(maps, (2,) * 4, value=7.0))


@pytest.mark.parametrize(
    ("maps", "padding", "words"),
    [
        (torch.zeros(7, 2, 4, 4), 1, "7 maps do not fit a layout of 4 windows for 2 picture"),
        (torch.zeros(12, 2, 4, 4), 1, "12 maps do not fit a layout of 4 windows"),
        (torch.zeros(8, 2, 4, 5), 1, r"shape \(8, 2, 4, 5\)"),
        (torch.zeros(8, 4, 4), 1, r"expected floats \(B \* K, C, n, n\)"),
        (torch.zeros(8, 2, 4, 4, dtype=torch.int64), 1, "dtype torch.int64"),
        (torch.zeros(8, 2, 4, 4), (1, 1), r"padding \(1, 1\): expected an int or \(left, right, top, bottom\)"),
        (torch.zeros(8, 2, 4, 4), -1, "padding -1"),
        (torch.zeros(8, 2, 4, 4), (1, 1, 1, 0.5), "padding"),
    ],
)
def test_maps_and_rims_that_do_not_fit_are_refused(maps, padding, words):
    with pytest.raises(ValueError, match=words):
        halo_pad(maps, A, padding)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(1, 6))
def test_a_rim_makes_n_cells_n_over_stride(kernel, stride, padding, dilation, times):
    n, reach = stride * times, dilation * (kernel - 1) + 1
    if padding >= reach:
        with pytest.raises(ValueError, match="fits into a padding"):
            rim_of(n, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        return
    left, right, top, bottom = rim_of(n, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    assert left == top == padding
    assert (n + top + bottom - reach) // stride + 1 == (n + left + right - reach) // stride + 1 == times


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(foveal.halo_table).failed == 0
