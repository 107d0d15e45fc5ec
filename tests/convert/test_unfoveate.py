import dataclasses

import pytest
import torch

from foveal import Layout, Retina, unfoveate

FOVEAL = Layout.foveal(picture=(64, 96), size=16, levels=4, fixation=(0.3, 0.7))


def numbered(layout: Layout, n: int, batch: int | None = None) -> torch.Tensor:
    """Maps in which every cell has a value of its own."""
    shape = (len(layout) if batch is None else batch, layout.num_windows, 2, n, n)
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)


def by_hand(features: torch.Tensor, layout: Layout, height: int, width: int) -> torch.Tensor:
    """The same, place by place."""
    n = features.shape[-1]
    result = torch.zeros(len(features), features.shape[2], height, width, dtype=features.dtype)
    for sample in range(len(features)):
        of = sample if len(layout) > 1 else 0
        tall, wide = layout.pictures[of].tolist()
        for i in range(height):
            for j in range(width):
                y, x = (i + 0.5) * tall / height, (j + 0.5) * wide / width
                for window in sorted(range(layout.num_windows), key=lambda k: int(layout.levels[of, k])):
                    top, left = layout.origins[of, window].tolist()
                    cell = layout.size / n * 2 ** int(layout.levels[of, window])
                    row, column = int((y - top) // cell), int((x - left) // cell)
                    if bool(layout.valid[of, window]) and 0 <= row < n and 0 <= column < n:
                        result[sample, :, i, j] = features[sample, window, :, row, column]
                        break
    return result


@pytest.mark.parametrize("n", [16, 4, 1])
@pytest.mark.parametrize("size", [(64, 96), (16, 24), (7, 5)])
def test_every_place_has_the_finest_value_that_is_there(n: int, size: tuple[int, int]) -> None:
    features = numbered(FOVEAL, n)
    assert torch.equal(unfoveate(features, FOVEAL, size), by_hand(features, FOVEAL, *size))


def test_the_maps_of_a_full_tiling_become_the_dense_map() -> None:
    layout = Layout.tiling(picture=(64, 128), size=32)
    dense = torch.randn(3, 16, 32)
    tiles = [dense[:, y // 4 : y // 4 + 8, x // 4 : x // 4 + 8] for y, x in layout.origins[0].tolist()]
    assert torch.equal(unfoveate(torch.stack(tiles)[None], layout, (16, 32))[0], dense)


def test_pixels_become_what_the_glimpse_draws() -> None:
    glimpse = Retina(16, levels=3)(torch.rand(2, 3, 64, 50), torch.tensor([[0.2, 0.9], [0.8, 0.1]]))
    assert torch.equal(unfoveate(glimpse.pixels, glimpse.layout, (40, 30)), glimpse.render(40, 30))


def test_pictures_of_unlike_sizes_and_one_layout_for_all() -> None:
    mixed = Layout.foveal(picture=[(64, 64), (20, 90)], size=16, levels="auto")
    features = numbered(mixed, 4)
    assert torch.equal(unfoveate(features, mixed, (9, 9)), by_hand(features, mixed, 9, 9))
    shared = numbered(FOVEAL, 4, batch=3)
    assert torch.equal(unfoveate(shared, FOVEAL, 8), by_hand(shared, FOVEAL, 8, 8))


def test_where_no_window_lies_it_is_zero() -> None:
    layout = Layout.windows(picture=(32, 32), size=8, windows=[(0, 0, 0)])
    grid = unfoveate(torch.ones(1, 1, 1, 2, 2), layout, 32)[0, 0]
    assert grid[:8, :8].min() == 1
    assert grid.sum() == 64
    nowhere = dataclasses.replace(layout, valid=torch.zeros_like(layout.valid))
    assert unfoveate(torch.ones(1, 1, 1, 2, 2), nowhere, 32).abs().max() == 0


def test_gradients_reach_the_values_that_are_shown() -> None:
    features = torch.randn(1, 4, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unfoveate(x, FOVEAL, (9, 7)), features)
    unfoveate(features, FOVEAL, 64).sum().backward()
    assert features.grad is not None
    shown = features.grad[0, :, 0] > 0
    assert torch.equal(shown, FOVEAL.areas(4)[0] > 0)


@pytest.mark.parametrize("shape", [(1, 3, 2, 4, 4), (2, 4, 2, 4, 4, 1), (1, 4, 2, 4, 5), (4, 2, 4, 4)])
def test_maps_of_other_windows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 4, C, n, n\), a map for each of the 4 windows"):
        unfoveate(torch.zeros(shape), FOVEAL, 8)


@pytest.mark.parametrize("size", [0, (8,), (8, 8, 8), (8, 0), (8, 2.5)])
def test_impossible_sizes_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"expected a height and a width|height is|width is"):
        unfoveate(torch.zeros(1, 4, 2, 4, 4), FOVEAL, size)  # type: ignore[arg-type]


def test_other_than_a_layout_and_maps_without_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="layout is None"):
        unfoveate(numbered(FOVEAL, 4), None, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected \(B, 4, C, n, n\)"):
        unfoveate(numbered(FOVEAL, 4)[..., :0, :0], FOVEAL, 4)
