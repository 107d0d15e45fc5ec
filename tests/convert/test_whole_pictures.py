"""Norms of matrices, products of three, channels dropped at random, norms in training of flattened maps."""

import pytest
import torch
from own_networks import Lambda, tiles
from torch import Tensor, nn
from torch.nn import functional as F

from foveal import Retina, UnsupportedModule, foveate

NORMS = {
    "linalg.norm": lambda x: torch.linalg.norm(x, dim=(2, 3)),
    "linalg.norm, fro": lambda x: torch.linalg.norm(x, "fro", (2, 3), True).flatten(1),
    "linalg.norm of flat maps": lambda x: torch.linalg.norm(x.flatten(2), ord=2, dim=2),
    "linalg.vector_norm": lambda x: torch.linalg.vector_norm(x, ord=2, dim=(2, 3)),
    "norm": lambda x: torch.norm(x, p=2, dim=(2, 3)) + x.norm(dim=(2, 3)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_a_picture_s_numbers_are_the_dense_network_s(name: str) -> None:
    network, x = Lambda(NORMS[name]), torch.randn(2, 4, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(foveate(network)(tiles(x)), network(x))


@pytest.mark.parametrize("order", [2, -2, 1, "nuc"])
def test_norms_of_matrices_are_refused(order: object) -> None:
    for norm in (torch.linalg.norm, torch.linalg.matrix_norm):
        with pytest.raises(UnsupportedModule, match=r"^the network itself \(Lambda\): linalg_(matrix_)?norm\(\)"):
            foveate(Lambda(lambda x, norm=norm: norm(x, ord=order, dim=(2, 3))))


def test_a_product_of_three_is_taken_of_what_whole_pictures_have_alone() -> None:
    def over_space(x: Tensor) -> Tensor:
        query = x.mean((2, 3))[:, None]
        empty = query.new_empty(len(query), 1, x.shape[2] * x.shape[3])
        return torch.baddbmm(empty, query, x.flatten(2), beta=0).softmax(-1).amax(-1)

    with pytest.raises(UnsupportedModule, match=r"baddbmm\(\) over space"):
        foveate(Lambda(over_space))

    def over_channels(x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return torch.baddbmm(mean[:, None], mean[:, None], mean[:, :, None] * mean[:, None], alpha=0.5)

    network, x = Lambda(over_channels), torch.randn(2, 4, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(foveate(network)(tiles(x)), network(x))


DROPS = {
    "dropout2d": lambda x: F.dropout2d(x, 0.5),
    "in place": lambda x: F.dropout2d(x * 1, 0.5, inplace=True),
    "flat": lambda x: F.dropout1d(x.flatten(2), 0.5).view(x.shape),
    "by its own name": lambda x: torch.feature_dropout(x, 0.5, True),
    "by its own name, in place": lambda x: torch.feature_dropout_(x * 1, 0.5, True),
}


@pytest.mark.parametrize("name", DROPS)
def test_channels_are_dropped_of_whole_pictures(name: str) -> None:
    torch.manual_seed(0)
    maps = foveate(Lambda(DROPS[name])).train()(tiles(torch.ones(8, 16, 32, 32)))
    assert maps.unique().tolist() == [0, 2]
    by_channel = maps.transpose(1, 2).flatten(2)
    assert torch.equal(by_channel, by_channel[..., :1].expand_as(by_channel))
    assert 0.3 < by_channel.mean() / 2 < 0.7
    assert len(by_channel[..., 0].unique(dim=0)) == 8
    x = torch.rand(2, 4, 32, 32)
    module = foveate(nn.Dropout2d(0.5)).eval()
    assert torch.equal(module(tiles(x)), tiles(x).pixels)


def test_dropped_channels_that_keep_the_moments_are_those_of_whole_pictures() -> None:
    torch.manual_seed(0)
    network = foveate(nn.FeatureAlphaDropout(0.5)).double().train()
    maps = network(tiles(torch.randn(8, 64, 32, 32, dtype=torch.float64)))
    scaled = maps.transpose(1, 2).flatten(2)
    dropped = scaled.std(-1) < 1e-9
    assert 0.3 < dropped.double().mean() < 0.7
    torch.manual_seed(0)
    dense = F.feature_alpha_dropout(torch.zeros(8, 64, 1, 1, dtype=torch.float64), 0.5, True)
    torch.testing.assert_close(scaled[dropped].mean(), dense.min())
    assert abs(maps.mean()) < 0.1
    assert abs(maps.std() - 1) < 0.1


def test_dropping_along_space_is_refused() -> None:
    network = Lambda(lambda x: F.dropout2d(x.permute(0, 2, 3, 1), 0.5, training=True))
    with pytest.raises(UnsupportedModule, match="dropout2d"):
        foveate(network)


def test_batch_norm_of_flat_maps_in_training_leaves_out_what_is_beside_the_picture() -> None:
    flat = Lambda(lambda x, norm: norm(x.flatten(2)).mean(-1), nn.BatchNorm1d(4))
    square = Lambda(lambda x, norm: norm(x).mean((2, 3)), nn.BatchNorm2d(4))
    pictures = [torch.rand(4, 50, 64, dtype=torch.float64), torch.rand(4, 128, 100, dtype=torch.float64)]
    glimpse = Retina(32)(pictures)
    one, other = foveate(flat).double().train(), foveate(square).double().train()
    torch.testing.assert_close(one(glimpse), other(glimpse))
    torch.testing.assert_close(dict(one.named_buffers()), dict(other.named_buffers()))
