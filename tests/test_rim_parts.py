"""Tables put together window by window are the same as those of all windows at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layouts

import foveal.halo_table
from foveal import Layout
from foveal.halo_table import halo_table
from foveal.rim_parts import _part, around, rim_rows

RIMS = st.tuples(*[st.integers(0, 3)] * 4)


def all_at_once(*given_arguments, **more):
    before, foveal.halo_table.FEW_PAIRS = foveal.halo_table.FEW_PAIRS, 0
    try:
        return halo_table(*given_arguments, **more)
    finally:
        foveal.halo_table.FEW_PAIRS = before


@given(layouts(), st.sampled_from([1, 2, 4]), RIMS, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_a_table_of_parts_is_the_table_of_all_windows_at_once(layout, n, padding, more):
    batch = len(layout) if len(layout) > 1 else more
    parts, whole = (table(layout, n, padding, batch=batch) for table in (halo_table, all_at_once))
    for name in ("target", "source", "weight"):
        one, other = getattr(parts, name), getattr(whole, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name
    assert parts.covered is None


@pytest.mark.parametrize(("shift", "scale"), [((64, 96), 0), ((0, 0), 1), ((32, 0), 2)])
def test_windows_that_lie_alike_have_their_parts_in_common(shift, scale):
    listed = [(0, 24, 40), (0, 24, 56), (1, 16, 32), (2, 0, 0)]
    moved = [(level + scale, (y << scale) + shift[0], (x << scale) + shift[1]) for level, y, x in listed]
    layout, other = (Layout.windows(picture=(512, 512), size=16, windows=windows) for windows in (listed, moved))
    halo_table(layout, 8, (1, 2, 1, 0))
    made = _part.cache_info().misses
    table = halo_table(other, 8, (1, 2, 1, 0))
    assert _part.cache_info().misses == made
    assert torch.equal(table.source, all_at_once(other, 8, (1, 2, 1, 0)).source)


def test_what_lies_behind_a_window_that_holds_the_whole_rim_makes_no_other_part():
    for y in (0, 8, 32):
        listed = [(0, 40, 40), (1, 32, 32), (2, y, 0)]
        layout = Layout.windows(picture=(256, 256), size=16, windows=listed)
        halo_table(layout.select(slice(2)), 4, (2, 1, 2, 1))
        made = _part.cache_info().misses
        halo_table(layout, 4, (2, 1, 2, 1))
        assert _part.cache_info().misses <= made + 1  # the middle one's, which alone reads the widest


def test_a_window_alone_reads_nothing():
    target, source, weight = rim_rows(16, [around([[0, 0]], [0], [True])], 4, (1, 1, 1, 1))
    assert target.shape == (0,)
    assert source.shape == weight.shape == (0, 4)
