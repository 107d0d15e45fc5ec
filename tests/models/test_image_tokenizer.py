import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveal.layout import Layout
from foveal.models import ImageTokenizer


@pytest.fixture
def tokenize() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(8, 16).eval()


def fill_outside(features: Tensor, layout: Layout, value: float) -> Tensor:
    """The maps with `value` in every cell that stands for nothing of the picture alone."""
    alone = layout.areas(features.shape[-1]) > 0
    return torch.where(alone[:, :, None], features, value)


@pytest.mark.parametrize(
    ("side", "size", "levels", "n", "count"),
    [
        (256, 64, 3, 4, 40),  # n * n * (1 + 0.75 * (L - 1))
        (224, 224, 1, 14, 196),  # one window: the plain dense grid
        (64, 64, 1, 4, 16),
        (2048, 64, 6, 4, 76),
    ],
)
def test_tokens_are_as_many_as_cells_that_no_finer_window_covers(
    side: int, size: int, levels: int, n: int, count: int, tokenize: ImageTokenizer
) -> None:
    layout = Layout.foveal(picture=(side, side), size=size, levels=levels)

    tokens, mask = tokenize(torch.randn(1, levels, 8, n, n), layout)

    assert tokens.shape == (1, count, 16)
    assert bool(mask.all())


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    levels=st.integers(1, 5),
    fixation=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=40, deadline=None)
def test_cells_covered_or_outside_the_picture_never_reach_a_token(
    height: int, width: int, levels: int, fixation: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    tokenize = ImageTokenizer(8, 16)
    layout = Layout.foveal(picture=(height, width), size=32, levels=levels, fixation=fixation, enlarge=True)
    features = torch.randn(1, levels, 8, 2, 2)

    tokens, mask = tokenize(fill_outside(features, layout, 1e3), layout)

    assert mask.sum() == (layout.areas(2) > 0).sum()
    assert bool(tokens.isfinite().all())
    torch.testing.assert_close(tokens, tokenize(fill_outside(features, layout, -7.0), layout)[0])


def test_a_picture_in_a_batch_has_the_tokens_that_it_has_alone(tokenize: ImageTokenizer) -> None:
    sides = [(60, 60), (100, 40), (33, 200)]
    layout = Layout.foveal(picture=sides, size=32, levels="auto")
    features = torch.randn(3, layout.num_windows, 8, 2, 2)

    tokens, mask = tokenize(features, layout)

    assert len({int(count) for count in mask.sum(1)}) > 1, "all alike would show nothing"
    for row, side in enumerate(sides):
        alone = Layout.foveal(picture=side, size=32, levels="auto")
        expected, kept = tokenize(features[row : row + 1, : alone.num_windows], alone)
        torch.testing.assert_close(tokens[row, mask[row]], expected[0, kept[0]])


def test_one_layout_serves_a_whole_batch(tokenize: ImageTokenizer) -> None:
    layout = Layout.foveal(picture=(64, 64), size=32, levels=2)
    features = torch.randn(3, 2, 8, 2, 2)

    tokens, mask = tokenize(features, layout)

    assert tokens.shape[:2] == mask.shape == (3, 8)
    torch.testing.assert_close(tokens[1:2], tokenize(features[1:2], layout)[0])


def test_tokens_tell_where_a_cell_lies_and_how_much_it_spans(tokenize: ImageTokenizer) -> None:
    layout = Layout.foveal(picture=(256, 256), size=64, levels=3)

    tokens, _ = tokenize(torch.zeros(1, 3, 8, 4, 4), layout)  # the pixels say nothing, so only places differ

    apart = torch.cdist(tokens[0], tokens[0]) + torch.eye(40)
    assert apart.min() > 1e-3


def test_the_place_depends_on_the_picture_and_not_on_its_resolution(tokenize: ImageTokenizer) -> None:
    features = torch.randn(1, 3, 8, 4, 4)
    small = Layout.foveal(picture=(256, 192), size=64, levels=3, fixation=(0.2, 0.7))
    large = Layout.foveal(picture=(1024, 768), size=256, levels=3, fixation=(0.2, 0.7))

    torch.testing.assert_close(tokenize(features, small)[0], tokenize(features, large)[0])


def test_the_same_cell_has_the_same_place_whatever_other_windows_there_are(tokenize: ImageTokenizer) -> None:
    features = torch.zeros(1, 1, 8, 4, 4)
    whole = Layout.windows(picture=(256, 256), size=64, windows=[(2, 0, 0)])
    with_more = Layout.windows(picture=(256, 256), size=64, windows=[(0, 96, 96), (2, 0, 0)])

    alone, _ = tokenize(features, whole)
    tokens, _ = tokenize(torch.zeros(1, 2, 8, 4, 4), with_more)

    torch.testing.assert_close(tokens[0, -16:], alone[0])


def test_places_are_continuous(tokenize: ImageTokenizer) -> None:
    def corner(y: int) -> Tensor:
        layout = Layout.windows(picture=(4096, 4096), size=64, windows=[(2, y, 0)])
        return tokenize(torch.zeros(1, 1, 8, 4, 4), layout)[0][0, 0]

    here, near, far = corner(1024), corner(1025), corner(2048)
    assert 0 < (near - here).norm() < 0.05 * (far - here).norm()


def test_levels_beyond_those_of_training_stay_in_the_same_range(tokenize: ImageTokenizer) -> None:
    def spread(levels: int) -> float:
        layout = Layout.foveal(picture=(64 << (levels - 1),) * 2, size=64, levels=levels)
        return float(tokenize(torch.zeros(1, levels, 8, 4, 4), layout)[0].abs().max().detach())

    assert all(spread(levels) < 1.5 * spread(3) for levels in (1, 4, 6, 9))


def test_gradient_reaches_features_and_every_parameter(tokenize: ImageTokenizer) -> None:
    layout = Layout.foveal(picture=(256, 256), size=64, levels=3)
    features = torch.randn(1, 3, 8, 4, 4, requires_grad=True)

    tokenize(features, layout)[0].square().sum().backward()

    assert features.grad is not None
    alone = layout.areas(4) > 0
    assert bool((features.grad.abs().sum(2) > 0)[alone].all())
    assert not features.grad.abs().sum(2)[~alone].any()
    for name, value in tokenize.named_parameters():
        assert value.grad is not None, name
        assert value.grad.any(), name


@pytest.mark.parametrize("shape", [(1, 2, 8, 4, 4), (1, 3, 7, 4, 4), (3, 8, 4, 4)])
def test_maps_that_are_not_of_the_layout_are_refused(shape: tuple[int, ...], tokenize: ImageTokenizer) -> None:
    layout = Layout.foveal(picture=(256, 256), size=64, levels=3)

    with pytest.raises(ValueError, match=r"features have shape .* expected \(B, 3, 8, n, n\)"):
        tokenize(torch.randn(*shape), layout)
