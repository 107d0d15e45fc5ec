import pytest
import torch
from cases import Case
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveal.blocks.registry import create_block
from foveal.blocks.tile_cells import mean_magnitudes
from foveal.blocks.tile_sparse import TileSparseConv2d
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina

CASES = [
    Case("tile_sparse_conv", {"channels": 4, "tile": 4}),
    Case(
        "tile_sparse_conv",
        {"channels": 4, "out_channels": 6, "kernel_size": (1, 5), "tile": 8, "training": "soft", "groups": 2},
        out=lambda c, h, w: (6, h, w),
    ),
    Case("tile_sparse_conv", {"channels": 4, "tile": 8, "keep": 1.0}, gradients=False),
]


def test_parameters_are_those_of_the_convolution_and_the_gate():
    block = create_block("tile_sparse_conv", channels=12, out_channels=18, kernel_size=5, groups=3)
    assert sum(parameter.numel() for parameter in block.parameters()) == 18 * 12 // 3 * 25 + 18 + 12 + 1


@pytest.mark.parametrize("how", ["straight_through", "soft"])
def test_windows_compete_for_one_budget(how):
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=2, tile=4, keep=0.25, training=how).eval()
    picture = torch.zeros(1, 2, 16, 16)
    picture[:, :, :8, 8:] = torch.randn(2, 8, 8)  # the second of four windows holds all that there is
    layout = Layout.tiling(picture=(16, 16), size=8)
    glimpse = Retina(8, levels=1)(picture, layout=layout)
    with torch.no_grad():
        maps = foveate(block)(glimpse)[0]
        assert [bool(window.any()) for window in maps] == [False, True, False, False]
        torch.testing.assert_close(maps[1], block(picture)[0, :, :8, 8:], rtol=1e-4, atol=1e-6)
    trained = foveate(block.train())
    trained(glimpse).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained.parameters())


def test_windows_that_only_fill_a_batch_neither_take_nor_give_budget():
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=1, tile=4, keep=0.5, bias=False).eval()
    one = Layout.windows(picture=(16, 16), size=8, windows=[(0, 0, 0)])
    two = Layout.windows(picture=(16, 16), size=8, windows=[(0, 0, 0), (0, 8, 8)])
    layout = Layout.stack([one, two])
    picture = torch.rand(2, 1, 16, 16) + 1
    with torch.no_grad():
        maps = foveate(block)(Retina(8, levels=1)(picture, layout=layout))
    assert maps[0, 0].flatten(1).count_nonzero() == 32  # two of its four tiles
    assert not maps[0, 1].any()
    assert maps[1].count_nonzero() == 64


@pytest.mark.parametrize("how", ["eval", "soft"])
def test_a_picture_is_computed_alike_alone_and_beside_one_of_more_windows(how):
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=64, tile=4, keep=0.3, training="soft")
    network, x = foveate(nn.Sequential(block)), torch.rand(2, 64, 64, 64)
    network.train(how == "soft")
    few = Layout.foveal(picture=(64, 64), size=16, levels=3)
    many = Layout.tiling(picture=(64, 64), size=16)
    with torch.no_grad():
        alone = network(Retina(16)(x[:1], layout=few))
        both = network(Retina(16)(x, layout=Layout.stack([few, many])))
    torch.testing.assert_close(both[:1, :3], alone)
    torch.testing.assert_close(both[1:], network(Retina(16)(x[1:], layout=many)).detach())


def test_compiled_a_batch_of_unlike_pictures_is_the_same():
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=3, tile=4, keep=0.4).eval()
    x, scores = torch.rand(4, 3, 8, 8), torch.rand(4, 2, 2)
    real = torch.tensor([True, False, True, True])  # the first of two pictures has one window, the second two
    run = torch.compile(lambda x: block.of_windows(x, scores, windows=2, real=real), fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(run(x), block.of_windows(x, scores, windows=2, real=real))


@pytest.mark.parametrize("how", ["straight_through", "soft"])
def test_gradients_are_finite_beside_a_larger_picture(how):
    torch.manual_seed(0)
    small, large = torch.rand(3, 64, 64), torch.rand(3, 256, 256)
    block = create_block("tile_sparse_conv", channels=3, tile=8, keep=0.3, training=how)
    network = foveate(nn.Sequential(block)).train()
    network(Retina(32)([small, large])).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_maps_that_only_fill_change_nothing_in_soft_training():
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=3, tile=8, keep=6 / 16, training="soft")
    x, scores = torch.rand(6, 3, 16, 16), torch.randn(6, 2, 2)
    alone = block.of_windows(x[:4], scores[:4], windows=4)
    real = torch.tensor([True, True, True, True, False, False])  # one picture of six windows, two of which only fill
    beside = block.of_windows(x, scores, windows=6, real=real)
    torch.testing.assert_close(beside[:4], alone)
    assert not beside[4:].any()
    # A budget of all its tiles computes them all.
    block.keep = 15.5 / 16
    torch.testing.assert_close(block.of_windows(x, scores, windows=6, real=real)[:4], block._dense(x[:4], None))


def test_noise_is_as_wide_as_the_scores_and_draws_no_filler():
    torch.manual_seed(0)
    block = create_block("tile_sparse_conv", channels=1, tile=4, keep=0.125, bias=False).train()
    nn.init.ones_(block.weight)
    x = torch.full((2, 1, 8, 8), 0.001)
    x[0, :, :4, :4] = 1000.0  # stands out by less than two standard deviations
    real = torch.tensor([True, False])
    drawn = torch.stack([block.of_windows(x, None, windows=2, real=real) for _ in range(300)])
    assert not drawn[:, 1].any()
    alone = create_block("tile_sparse_conv", channels=1, tile=4, keep=0.25, bias=False).train()
    nn.init.ones_(alone.weight)
    wanted = torch.stack([alone(x[:1]) for _ in range(300)])
    shares = [(found[:, 0, 0, 0, 0] != 0).float().mean() for found in (drawn, wanted)]
    assert shares[0] == pytest.approx(float(shares[1]), abs=0.1)


@pytest.mark.filterwarnings("ignore:std")  # of no scores, in training
def test_no_maps_and_no_cells_give_none_and_one_map_needs_no_batch():
    conv = TileSparseConv2d(4, 6, 3, tile=4).eval()
    assert conv(torch.rand(0, 4, 16, 16)).shape == (0, 6, 16, 16)
    assert conv.train()(torch.rand(0, 4, 16, 16)).shape == (0, 6, 16, 16)
    x, plain = torch.rand(4, 16, 16), nn.Conv2d(4, 6, 3, padding=1)
    assert torch.equal(conv.eval()(x), conv(x[None])[0])
    scores = torch.rand(4, 4)
    assert torch.equal(conv(x, scores), conv(x[None], scores[None])[0])
    for empty in (torch.rand(2, 4, 0, 16), torch.rand(2, 4, 16, 0), torch.rand(2, 5, 8, 8), torch.rand(4, 8)):
        found = []
        for layer in (conv, plain):
            try:
                found.append(layer(empty).shape)
            except RuntimeError as error:
                found.append(str(error).replace("TileSparse", ""))
        assert found[0] == found[1]


def tiles_of(mask: torch.Tensor, tile: int, height: int, width: int) -> torch.Tensor:
    """(B, Y, X) -> (B, 1, height, width)."""
    return mask.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, None, :height, :width]


@pytest.mark.parametrize("size", [(32, 48), (37, 21), (5, 70)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": (1, 5)},
        {"kernel_size": 3, "dilation": 2, "groups": 2},
    ],
)
def test_kept_tiles_are_the_dense_convolution_and_the_others_zero(options, size):
    conv = TileSparseConv2d(4, 6, tile=8, keep=0.4, **options).eval().double()
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    scores = conv.scores(x)
    count = -(-scores[0].numel() * 4 // 10)
    kept = torch.zeros_like(scores).flatten(1).scatter(1, scores.flatten(1).topk(count).indices, 1).view_as(scores)
    dense = nn.functional.conv2d(x, conv.weight, conv.bias, 1, conv.padding, conv.dilation, conv.groups)
    torch.testing.assert_close(conv(x), dense * tiles_of(kept, 8, *size))


def test_the_whole_budget_is_the_dense_convolution_to_the_last_bit():
    plain = nn.Conv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 40, 40)
    for keep in (1.0, 0.999):
        assert torch.equal(TileSparseConv2d.wrapping(plain, keep=keep, tile=16).eval()(x), plain(x))


def test_the_gate_begins_as_energy_and_scores_can_be_given():
    conv = TileSparseConv2d(2, 2, 3, tile=4, keep=0.01).eval()
    x = torch.zeros(1, 2, 12, 12)
    x[:, :, 5, 9] = -3
    assert conv(x)[0, :, 4:8, 8:].any()
    assert not conv(x)[0, :, :4].any()
    scores = torch.zeros(1, 3, 3)
    scores[0, 2, 0] = 1
    with torch.no_grad():
        assert conv(x + 1, scores)[0, :, 8:, :4].all()
        assert not conv(x + 1, scores)[0, :, :8].any()


@pytest.mark.parametrize("how", ["straight_through", "soft"])
def test_gradients_reach_pixels_weights_and_gate(how):
    conv = TileSparseConv2d(2, 3, 3, tile=4, keep=0.5, training=how).double()
    x = torch.randn(1, 2, 8, 12, dtype=torch.float64, requires_grad=True)
    scores = torch.rand(1, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w: nn.functional.conv2d(conv(x, scores), w), (x, torch.rand(1, 3, 1, 1).double().requires_grad_())
    )
    conv(x).square().sum().backward()
    for value in (x, *conv.parameters()):
        assert value.grad.abs().sum() > 0


@pytest.mark.parametrize("how", ["straight_through", "soft"])
def test_the_gate_learns_which_tiles_pay(how):
    torch.manual_seed(0)
    conv = TileSparseConv2d(2, 1, 3, tile=4, keep=0.25, training=how)
    before = hits(conv)
    optimiser = torch.optim.Adam(conv.parameters(), lr=0.05)
    for _ in range(300):
        x, wanted, _ = tasks(16)
        loss = (conv(x) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before < 0.1
    assert hits(conv) > 0.9


def hits(conv):
    x, _, place = tasks(256)
    return (conv.scores(x).flatten(1).argmax(1) == place).float().mean()


def tasks(many):
    """One tile is quiet in channel 1, which is to be told; another is loud in channel 0, which is to be passed over."""
    x, wanted, place = torch.zeros(many, 2, 8, 8), torch.zeros(many, 1, 8, 8), torch.randint(4, (many,))
    for sample, at in enumerate(place.tolist()):
        for channel, tile, level in ((1, at, 0.5), (0, (at + 1 + sample % 3) % 4, 3.0)):
            row, column = 4 * (tile // 2), 4 * (tile % 2)
            x[sample, channel, row : row + 4, column : column + 4] = level
        row, column = 4 * (at // 2), 4 * (at % 2)
        wanted[sample, 0, row : row + 4, column : column + 4] = 2
    return x, wanted, place


def test_the_work_is_the_budget_s():
    conv = TileSparseConv2d(16, 16, 3, tile=16, keep=0.25).eval()
    x = torch.randn(1, 16, 64, 64)
    counts = []
    for layer in (conv, nn.Conv2d(16, 16, 3, padding=1)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts[0] / counts[1] < 0.26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "odd"),
        ({"kernel_size": -1}, "kernel_size -1.*expected each at least 1"),
        ({"kernel_size": 3, "dilation": 0}, "dilation 0: expected each at least 1"),
        ({"kernel_size": 3, "tile": 0}, "tile is 0"),
        ({"kernel_size": 3, "keep": 0.0}, "keep is 0.0"),
        ({"kernel_size": 3, "keep": 1.5}, "keep is 1.5"),
        ({"kernel_size": 3, "training": "hard"}, "'hard'"),
        ({"kernel_size": 3, "keep": "x"}, "keep is 'x'"),
        ({"kernel_size": 3, "keep": True}, "keep is True"),
        ({"kernel_size": 3, "tile": True}, "tile is True"),
        ({"kernel_size": (3, 3, 3)}, "a pair for kernel_size"),
        ({"kernel_size": 3.0}, "whole numbers"),
    ],
)
def test_what_is_impossible_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TileSparseConv2d(4, 4, **options)


def test_a_convolution_without_channels_is_refused():
    with pytest.raises(ValueError, match="0 -> 0 channels"):
        create_block("tile_sparse_conv", channels=0)


def test_other_convolutions_and_scores_are_refused():
    for conv in (
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ):
        with pytest.raises(ValueError, match="stride 1"):
            TileSparseConv2d.wrapping(conv)
    with pytest.raises(ValueError, match=r"type Linear; expected a torch.nn.Conv2d"):
        TileSparseConv2d.wrapping(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"expected \(2, 2, 2\)"):
        TileSparseConv2d(4, 4, 3, tile=16)(torch.rand(2, 4, 32, 32), torch.rand(2, 2, 3))


def test_gradients_of_gradients_and_infinities_beside_the_rim():
    conv, x = TileSparseConv2d(2, 2, 3, tile=4, keep=0.5), torch.randn(1, 2, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(conv(x).square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad is not None
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, 0, 7] = float("inf")
    plain = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    with torch.no_grad():
        found = conv.eval()(x, torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    assert torch.equal(found[..., 4:].isnan(), plain[..., 4:].isnan())


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(16, 24), (18, 23)])
def test_the_gate_s_means_are_those_of_a_pool(memory, size):
    x = torch.randn(3, 5, *size).contiguous(memory_format=memory)
    wanted = nn.functional.avg_pool2d(x.abs(), 8, ceil_mode=True)
    for at_once in (1, 500, 1 << 19):
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr("foveal.blocks.tile_cells._AT_ONCE", at_once)
            torch.testing.assert_close(mean_magnitudes(x, 8), wanted)


def test_what_cannot_be_chosen_is_told():
    with pytest.raises(ValueError, match="padding, stride: cannot be chosen; the stride is 1"):
        TileSparseConv2d(3, 8, 3, stride=2, padding=0)
    with pytest.raises(ValueError, match=r"scores are of type list; expected \(1, 2, 2\)"):
        TileSparseConv2d(3, 8, 3, keep=0.5)(torch.rand(1, 3, 32, 32), [[0.0]])
