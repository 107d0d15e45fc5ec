import copy

import pytest
import torch
from cases import Case

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina


def grid(height, width, neighbours):
    """(N, N), which cells of a grid touch, row by row."""
    adjacency = torch.zeros(height * width, height * width)
    for one in range(height * width):
        for other in range(height * width):
            rows, columns = abs(one // width - other // width), abs(one % width - other % width)
            near = max(rows, columns) == 1 if neighbours == 8 else rows + columns == 1
            adjacency[one, other] = float(near)
    return adjacency


CASES = [
    Case("graph_conv", {"channels": 4}),
    Case("graph_conv", {"channels": 4, "neighbours": 4, "out_channels": 6}, out=lambda c, h, w: (6, h, w)),
    Case("graph_conv", {"channels": 4, "adjacency": grid(8, 8, 4)}, sides=((8, 8), (4, 16)), glimpses=False),
]


@pytest.mark.parametrize("neighbours", [4, 8])
def test_the_grid_is_the_graph_of_its_neighbourhoods(neighbours):
    on_grid = create_block("graph_conv", channels=3, out_channels=5, neighbours=neighbours).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    looped = grid(6, 7, neighbours).double() + torch.eye(42, dtype=torch.float64)
    scale = torch.diag(looped.sum(1) ** -0.5)
    shared = x.flatten(2).transpose(1, 2)  # (B, N, C)
    shared = scale @ looped @ scale @ shared @ on_grid.project.weight[..., 0, 0].T + on_grid.project.bias
    torch.testing.assert_close(on_grid(x).flatten(2).transpose(1, 2), shared)
    given = create_block("graph_conv", channels=3, out_channels=5, adjacency=grid(6, 7, neighbours))
    given.load_state_dict(on_grid.state_dict())
    torch.testing.assert_close(given(x.float()), on_grid(x).float(), rtol=1e-4, atol=1e-5)


def test_a_given_graph_takes_the_cells_of_all_windows_window_by_window():
    torch.manual_seed(0)
    raw = torch.rand(128, 128)
    block = create_block("graph_conv", channels=2, adjacency=raw + raw.T)
    glimpse = Retina(8, levels=2)(torch.randn(3, 2, 16, 16))
    assert glimpse.pixels.shape == (3, 2, 2, 8, 8)
    nodes = glimpse.pixels.transpose(1, 2).reshape(3, 2, 16, 8)
    with torch.no_grad():
        answer, wanted = foveate(block)(glimpse), block(nodes)
        torch.testing.assert_close(answer, wanted.view(3, 2, 2, 8, 8).transpose(1, 2))
        one = create_block("graph_conv", channels=2, adjacency=grid(8, 8, 8))
        alone = Retina(8, levels=1)(torch.randn(1, 2, 8, 8), layout=Layout.dense(picture=(8, 8)))
        assert torch.equal(foveate(one)(alone)[:, 0], one(alone.pixels[:, 0]))


def test_parameters_are_as_documented_and_keys_are_those_of_the_projection():
    block = create_block("graph_conv", channels=6, out_channels=10, adjacency=grid(3, 3, 4))
    assert sum(parameter.numel() for parameter in block.parameters()) == 6 * 10 + 10
    assert list(block.state_dict()) == ["project.weight", "project.bias"]


def test_a_given_graph_is_as_precise_as_the_maps():
    adjacency = grid(4, 5, 4).double() / 3
    block = create_block("graph_conv", channels=2, adjacency=adjacency).half().double()
    looped = adjacency + torch.eye(20)
    scale = looped.sum(1).rsqrt().diag()
    assert (block.adjacency - scale @ looped @ scale).abs().max() < 1e-15
    assert copy.deepcopy(block).float().adjacency.dtype == torch.float64


def test_the_impossible_is_refused():
    with pytest.raises(ValueError, match="channels is 4 and out_channels 0; expected each at least 1"):
        create_block("graph_conv", channels=4, out_channels=0)
    with pytest.raises(ValueError, match="neighbours is 6; expected 4 or 8"):
        create_block("graph_conv", channels=4, neighbours=6)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected \(N, N\)"):
        create_block("graph_conv", channels=4, adjacency=torch.ones(2, 3))
    for wrong in (torch.tensor([[0.0, 1], [0, 0]]), -torch.ones(2, 2), torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match="finite, not negative, and symmetric"):
            create_block("graph_conv", channels=4, adjacency=wrong)
    with pytest.raises(ValueError, match="4 x 4 have 16 cells; the adjacency has 9 nodes"):
        create_block("graph_conv", channels=4, adjacency=grid(3, 3, 4))(torch.rand(1, 4, 4, 4))
