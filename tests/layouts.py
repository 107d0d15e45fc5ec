"""Layouts of every kind, for property tests."""

from dataclasses import replace

import torch
from hypothesis import strategies as st

from foveal.layout import Layout

SIZES = st.sampled_from([4, 8, 12])
SIDES = st.integers(1, 70)
UNIT = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def foveal_layouts(draw, *, batch=3):
    """Of up to `batch` pictures of unlike sizes, with the arguments that made it."""
    count = draw(st.integers(1, batch))
    pictures = [(draw(SIDES), draw(SIDES)) for _ in range(count)]
    size = draw(SIZES)
    options = {
        "picture": pictures,
        "size": size,
        "levels": draw(st.sampled_from(["auto", 1, 2, 3, 4])),
        "fixation": [(draw(UNIT), draw(UNIT)) for _ in range(count)],
        "lattice": draw(st.sampled_from([None, size, size // 4])),
        "enlarge": draw(st.booleans()),
    }
    return Layout.foveal(**options), options


@st.composite
def listed_layouts(draw):
    """Any list of windows over one picture, wherever they lie; some of them do not count."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))  # small, so that windows meet
    window = st.tuples(st.integers(0, 3), st.integers(0, height - 1), st.integers(0, width - 1))
    windows = draw(st.lists(window, min_size=1, max_size=7))
    layout = Layout.windows(picture=(height, width), size=draw(SIZES), windows=windows)
    valid = draw(st.lists(st.booleans(), min_size=layout.num_windows, max_size=layout.num_windows).filter(any))
    return replace(layout, valid=torch.tensor([valid]))


@st.composite
def tilings(draw):
    """Of one picture, at level 0 or 1."""
    return Layout.tiling(picture=(draw(SIDES), draw(SIDES)), size=draw(SIZES) * 2, level=draw(st.integers(0, 1)))


@st.composite
def layouts(draw):
    """Any of them, alone or several in a batch."""
    kind = foveal_layouts().map(lambda made: made[0]) | listed_layouts() | tilings()
    first = draw(kind)
    if draw(st.booleans()):
        second = draw(kind.filter(lambda layout: layout.size == first.size))
        return Layout.stack([first, second])
    return first


def maps_of(layout, n, channels=2, *, dtype=torch.float64, seed=0):
    """Random maps (B * K, C, n, n) of the windows of a layout."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(layout) * layout.num_windows, channels, n, n)
    return torch.randn(shape, generator=generator, dtype=dtype)


def cut(picture, layout, n=None):
    """(C, H, W) -> (K, C, n, n): level-0 windows of a map of the picture, cells in a row for every `H / picture`."""
    n = n or layout.size
    cells = n / layout.size
    places = (layout.origins[0] * cells).long().tolist()
    return torch.stack([picture[:, y : y + n, x : x + n] for y, x in places])


def joined(maps, layout):
    """(K, C, n, n) of a level-0 tiling -> (C, H, W), the picture's map."""
    n = maps.shape[-1]
    places = (layout.origins[0] * n // layout.size).tolist()
    height, width = (max(place[axis] for place in places) + n for axis in (0, 1))
    whole = maps.new_zeros(maps.shape[1], height, width)
    for window, (y, x) in zip(maps, places, strict=True):
        whole[:, y : y + n, x : x + n] = window
    return whole
