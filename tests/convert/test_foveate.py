import copy
import threading

import pytest
import torch
from own_networks import Lambda, tiles
from torch import Tensor, nn
from torch.nn import functional as F

from foveal import Glimpse, Layout, Retina, UnsupportedModule, foveate, planned, unfoveate


def lively(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with norms that are not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def one_window(x: Tensor) -> Glimpse:
    side = x.shape[-1]
    return Retina(side)(x, layout=Layout.windows(picture=(side, side), size=side, windows=[(0, 0, 0)]))


def conv(kernel: int | tuple[int, int], **options: object) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **options)  # type: ignore[arg-type]


def grn(x: Tensor) -> Tensor:
    """Global response normalization (Woo et al. 2023)."""
    response = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x * (response / (response.mean(1, keepdim=True) + 1e-6))


def shuffled(x: Tensor) -> Tensor:
    rows, channels, height, width = x.shape
    return x.view(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, channels, height, width)


def exchanged(x: Tensor) -> Tensor:
    pooled = x.mean((2, 3)).unflatten(1, (2, 2))
    pooled.transpose_(1, 2)
    return x * pooled.flatten(1)[..., None, None]


def written_to(x: Tensor) -> Tensor:
    padded = F.pad(x, (1, 1, 1, 1), value=1.0)
    padded.mul_(2)
    return F.avg_pool2d(padded, 5, 1)


STEPS: dict[str, nn.Module] = {
    "plain": conv(3, padding=1),
    "even kernel": conv(2, stride=2),
    "strided": conv(7, stride=2, padding=3),
    "dilated": conv(3, padding=2, dilation=2),
    "asymmetric": conv((1, 7), padding=(0, 3)),
    "same": conv((3, 5), padding="same"),
    "grouped": conv(3, padding=1, groups=2),
    "valid": conv(3),
    "valid, strided": conv(3, stride=2),
    "valid, then padded": nn.Sequential(conv(3), conv(3, padding=1), conv(5, padding=2)),
    "valid, then ceil pools": nn.Sequential(conv(3, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), conv(3, padding=1)),
    "max pool": nn.MaxPool2d(3, 2, padding=1),
    "valid max pool": nn.Sequential(nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2), conv(3, padding=1)),
    "dilated max pool": nn.MaxPool2d(3, 1, padding=1, dilation=2),
    "average pool": nn.AvgPool2d(2),
    "average pool, padded": nn.AvgPool2d(3, 2, padding=1),
    "average pool, padding not counted": nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
    "average pool, ceil": nn.Sequential(conv(3, stride=2), nn.AvgPool2d(3, 2, ceil_mode=True)),
    "average pool, ceil and padded": nn.Sequential(conv(3), nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)),
    "average pool, divisor": nn.AvgPool2d(3, 2, padding=1, divisor_override=5),
    "zero pad": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(3, stride=2)),
    "reflect": conv(3, padding=1, padding_mode="reflect"),
    "replicate": conv(5, padding=2, padding_mode="replicate"),
    "reflect, a kernel that reaches further": conv(4, padding=1, padding_mode="reflect"),
    "replicate, a kernel that reaches further": nn.Sequential(nn.ReplicationPad2d(1), conv(5)),
    "constant, a kernel that reaches further": nn.Sequential(nn.ConstantPad2d(1, -1.0), conv((3, 4), stride=1)),
    "zeros for a max pool that reaches further": Lambda(lambda x: F.max_pool2d(F.pad(x - 9, (1, 1, 1, 1)), 4, 1)),
    "replicate after an unpadded step": nn.Sequential(nn.ReplicationPad2d((0, 1, 0, 1)), conv(4, stride=2)),
    "constant pad for a max pool": Lambda(lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1e9), 3, 2)),
    "function": Lambda(lambda x, c: F.conv2d(x.relu(), c.weight, padding=1) + x, conv(3, bias=False)),
    "group norm": nn.Sequential(conv(3, padding=1), nn.GroupNorm(2, 4)),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "layer norm over channels": Lambda(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(4)),
    "linear over channels": Lambda(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(4, 4)),
    "local response norm": nn.LocalResponseNorm(2),
    "global response norm": Lambda(grn),
    "squeeze and excite": Lambda(lambda x, c: x * c(x.mean((2, 3), keepdim=True)).sigmoid(), conv(1)),
    "squeeze, flat": Lambda(
        lambda x, n: x * n(F.adaptive_avg_pool2d(x, 1).flatten(1)).view(len(x), -1, 1, 1), nn.Linear(4, 4)
    ),
    "eca": Lambda(
        lambda x, c: x * c(x.mean((2, 3)).view(x.shape[0], 1, -1)).view(x.shape[0], -1, 1, 1).sigmoid(),
        nn.Conv1d(1, 1, 3, padding=1),
    ),
    "squeeze by a kernel of the map's shape": Lambda(
        lambda x, c: x * c(F.avg_pool2d(x, x.shape[2:])).sigmoid() + F.max_pool2d(x, x.size()[2:]), conv(1)
    ),
    "squeeze by a kernel of the map's shape, after an unpadded step": Lambda(
        lambda x, c, d: c(x) * d(F.avg_pool2d(c(x), c(x).shape[2:])).sigmoid(), conv(3, stride=2), conv(1)
    ),
    "channel shuffle": Lambda(shuffled),
    "slopes by channel": nn.PReLU(4),
    "gated linear unit": nn.Sequential(conv(1), Lambda(lambda x: torch.cat([F.glu(x, 1), F.glu(x, dim=-3)], 1))),
    "exchanged in place": Lambda(exchanged),
    "the whole picture's part, written to": Lambda(
        lambda x: x + F.relu(F.interpolate(x.mean((2, 3), keepdim=True), size=x.shape[-2:]), inplace=True)
    ),
    "split and join": Lambda(lambda x: torch.cat([part.relu() for part in x.chunk(2, 1)][::-1], 1)),
    "parts by index": Lambda(lambda x: torch.cat([x[:, 2:], x[:, :2] * 2], dim=1)),
    "attention over channels": Lambda(lambda x: x * torch.stack([x, -x], 1).softmax(1)[:, 0]),
    "spatial attention": Lambda(
        lambda x, c: x * c(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid(),
        nn.Conv2d(2, 1, 7, padding=3),
    ),
    "nearest, enlarged": nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), conv(3, padding=1)),
    "bilinear, enlarged": nn.Sequential(
        nn.AvgPool2d(4), nn.Upsample(scale_factor=4, mode="bilinear"), conv(3, padding=1)
    ),
    "bicubic, enlarged": nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2, mode="bicubic")),
    "pixel unshuffle": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 3, padding=1)),
}
HEADS: dict[str, nn.Module] = {
    "mean": Lambda(lambda x: x.mean((2, 3))),
    "flat mean": Lambda(lambda x: x.flatten(2).mean(2)),
    "largest": Lambda(lambda x: x.amax((2, 3))),
    "adaptive largest": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "adaptive mean": nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(4, 3)),
    "bins": nn.Sequential(nn.AdaptiveAvgPool2d((3, 5)), nn.Flatten(), nn.Linear(60, 3)),
    "mean over channels first": Lambda(lambda x: x.permute(0, 2, 3, 1).mean(dim=[1, 2])),
}


@pytest.mark.parametrize("head", ["mean", "bins"])
@pytest.mark.parametrize("step", STEPS)
def test_every_step_over_space_is_that_of_the_dense_network(step: str, head: str) -> None:
    agrees(nn.Sequential(conv(3, padding=1), STEPS[step], HEADS[head]))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_that_of_the_dense_network(head: str) -> None:
    agrees(nn.Sequential(conv(3, stride=2, padding=1), nn.ReLU(), HEADS[head]))
    agrees(nn.Sequential(conv(3, stride=2), nn.ReLU(), HEADS[head]))


def agrees(network: nn.Module) -> None:
    """One window to the last bit, a full tiling in float64 to rounding; gradients too."""
    network = copy.deepcopy(network).eval()
    x = torch.randn(2, 4, 48, 48)
    given = copy.deepcopy(network.state_dict())
    foveated = foveate(network)
    assert list(foveated.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        assert torch.equal(foveated(one_window(x)), network(x))
    network, foveated, x = network.double(), foveated.double(), torch.randn(2, 4, 48, 96, dtype=torch.float64)
    x.requires_grad_()
    wanted = network(x)
    result = foveated(tiles(x, 16))
    torch.testing.assert_close(result, wanted, rtol=1e-9, atol=1e-9)
    lean = torch.randn_like(wanted)
    (mine,), (theirs,) = (torch.autograd.grad((y * lean).sum(), x) for y in (result, wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, given[name].double(), msg=f"{name} of the given network has changed")


def test_batch_norm_in_training_is_that_of_the_dense_network() -> None:
    dense = nn.Sequential(conv(3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), conv(3), nn.BatchNorm2d(4), HEADS["mean"])
    foveated, dense = foveate(dense).double().train(), dense.double().train()
    x = torch.randn(2, 4, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(foveated(tiles(x, 16)), dense(x))
    for name, value in dense.named_buffers():
        torch.testing.assert_close(foveated.get_buffer(name), value)
    assert foveated.network[1].training
    assert not foveated.eval().network.training


def test_random_steps_in_training_are_the_same_for_all_windows_of_a_picture() -> None:
    timm_drop = pytest.importorskip("timm").layers.DropPath(0.5)
    torchvision_drop = pytest.importorskip("torchvision").ops.StochasticDepth(0.5, "row")
    x = torch.ones(64, 1, 32, 32)
    pooled = Lambda(lambda x, d: x * d(x.mean((2, 3), keepdim=True)), nn.Dropout(0.5))
    for step in (timm_drop, torchvision_drop, pooled):
        torch.manual_seed(0)
        maps = foveate(nn.Sequential(step)).train()(tiles(x, 16))
        assert maps.unique().tolist() == [0, 2]
        by_picture = maps.flatten(1)
        assert torch.equal(by_picture, by_picture[:, :1].expand_as(by_picture))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "attention": (Lambda(lambda x: F.scaled_dot_product_attention(x, x, x)), "scaled_dot_product_attention"),
    "rows alone": (Lambda(lambda x: x.mean(3)), "mean"),
    "everything": (Lambda(lambda x: x * x.mean()), "mean"),
    "softmax over space": (Lambda(lambda x: x.flatten(2).softmax(-1)), "softmax"),
    "cells by index": (Lambda(lambda x: x[:, :, ::2]), "part of the cells"),
    "windows by index": (Lambda(lambda x: x[:1]), "part of the windows"),
    "a table of positions": (Lambda(lambda x: x + torch.ones(1, 4, *x.shape[2:], device=x.device)), "differs"),
    "a table of rows": (Lambda(lambda x: x + torch.ones(len(x), 4, 1, 1, device=x.device)), "differs"),
    "cells into channels": (Lambda(lambda x: x.reshape(len(x), -1)), "mixes"),
    "windows into channels": (Lambda(lambda x: x.reshape(-1, 8, *x.shape[2:])), "mixes"),
    "turned": (Lambda(lambda x: x.transpose(2, 3)), "rows and columns"),
    "bilinear to a size": (Lambda(lambda x: F.interpolate(x, size=(64, 64), mode="bilinear")), "interpolate"),
    "bilinear by corners": (
        Lambda(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)),
        "interpolate",
    ),
    "unlike factors": (Lambda(lambda x: F.interpolate(x, scale_factor=(2.0, 4.0))), "stays square"),
    "bilinear to fewer": (Lambda(lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear")), "interpolate"),
    "flipped": (Lambda(lambda x: x.flip(3)), "flip"),
    "transposed convolution": (nn.ConvTranspose2d(4, 4, 4, stride=2), "grows"),
    "circular": (conv(3, padding=1, padding_mode="circular"), "circular"),
    "wider than the picture": (conv(2, padding=1), "grows"),
    "places of the largest": (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    "branches of unlike reach": (Lambda(lambda x, c, d: c(x) + d(x), conv(3), conv(3, padding=1)), "places"),
    "random rows": (Lambda(lambda x: x[torch.randperm(len(x))]), "index"),
    "a step between a padding and a kernel that reaches further": (
        Lambda(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=1.0).mul(2), 5, 1)),
        "pad right before it",
    ),
    "a padding written to before a kernel that reaches further": (
        Lambda(written_to),
        "pad right before it",
    ),
    "pooled by window, over maps": (Lambda(lambda x: x * F.avg_pool2d(x, x.size(2))), "adaptive_avg_pool2d"),
    "maps by what is pooled by window": (Lambda(lambda x: F.max_pool2d(x, x.size(2)) - x), "adaptive_avg_pool2d"),
    "pooled by window, expanded": (Lambda(lambda x: F.max_pool2d(x, x.size(2)).expand_as(x)), "adaptive_avg_pool2d"),
    "pooled by window, flattened": (Lambda(lambda x: F.avg_pool2d(x, x.size(2)).flatten(1)), "adaptive_avg_pool2d"),
    "pooled by window, squeezed": (Lambda(lambda x: F.avg_pool2d(x, x.size(2)).squeeze(-1)), "adaptive_avg_pool2d"),
    "a kernel of another map's shape": (
        Lambda(lambda x: F.avg_pool2d(x, F.max_pool2d(x, 2).shape[2:])),
        "shape of a map",
    ),
    "slopes by place": (
        Lambda(lambda x: F.prelu(x.permute(0, 2, 3, 1), torch.ones(64, device=x.device))),
        "prelu",
    ),
    "gated over space": (nn.GLU(), "glu"),
    "by value": (Lambda(lambda x: x if x.sum((1, 2, 3)).max() > 0 else -x), "sum"),
}


@pytest.mark.parametrize("step", REFUSED)
def test_what_cannot_be_treated_is_refused_by_path_and_type(step: str) -> None:
    module, reason = REFUSED[step]
    network = nn.Sequential(conv(1), nn.Sequential(nn.ReLU(), module))
    with pytest.raises(UnsupportedModule, match=rf"^1\.1.*\({type(module).__name__}\).*{reason}"):
        foveate(network)


@torch.inference_mode()
def test_where_changes_are_not_counted_a_padding_that_was_written_to_is_found_by_its_cells() -> None:
    network, x = STEPS["constant, a kernel that reaches further"], torch.rand(1, 4, 32, 32)
    x[0, 0, 16, 16] = float("nan")
    dense, found = network(x), foveate(network)(tiles(x, 16))
    whole = torch.cat([torch.cat([found[:, 2 * row + at] for at in (0, 1)], -1) for row in (0, 1)], -2)
    torch.testing.assert_close(whole[..., : dense.shape[2], : dense.shape[3]], dense, equal_nan=True)
    with pytest.raises(UnsupportedModule, match="pad right before it"):
        foveate(Lambda(written_to))(tiles(x, 16))


SUMS = {
    "sums": lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
    "flat sums": lambda x: x.flatten(2).sum(-1) / x.flatten(2).shape[-1],
}


@pytest.mark.parametrize("step", SUMS)
def test_sums_over_space_are_taken_of_one_window_alone(step: str) -> None:
    network, x = nn.Sequential(conv(3, padding=1), Lambda(SUMS[step])), torch.rand(1, 4, 32, 32)
    assert torch.equal(foveate(network)(one_window(x)), network(x))
    planned_one = planned(foveate(network).eval(), one_window(x))
    compiled = torch.compile(planned_one, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(one_window(x).pixels), network(x))
    with pytest.raises(UnsupportedModule, match=r"1 \(Lambda\): sum\(\).*write x\.mean"):
        foveate(network)(tiles(x, 16))


HALVES: dict[str, nn.Module] = {
    "group norm": nn.Sequential(nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(2)),
    "instance norm": nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.AdaptiveAvgPool2d(1)),
    "global response norm": nn.Sequential(Lambda(grn), nn.AdaptiveAvgPool2d(1)),
    "norm": Lambda(lambda x: x.norm(dim=(2, 3)) / 64),
    "norm in another dtype": Lambda(lambda x: x.norm(dim=(2, 3), dtype=torch.float32)),
    "vector norm in another dtype": Lambda(lambda x: torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32)),
    "mean": Lambda(lambda x: x.mean((2, 3))),
    "mean in another dtype": Lambda(lambda x: x.flatten(2).mean(-1, dtype=torch.float64)),
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", HALVES)
def test_in_half_precision_what_is_summed_up_stays_in_range(name: str, autocast: bool) -> None:
    side = 576 if "mean" in name else 128  # of which shares are out of half's range, but a norm would be, too
    x = (torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0)) * 200 + 300).half()
    network = copy.deepcopy(HALVES[name])
    with torch.no_grad():
        wanted = network(x.float())
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            dense, found = network.half()(x), foveate(network)(tiles(x, 64))
    assert found.dtype == dense.dtype
    torch.testing.assert_close(found.float(), wanted.float(), rtol=4e-3, atol=4e-3)


def test_an_empty_batch_gives_an_empty_result() -> None:
    network = nn.Sequential(
        conv(3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1), nn.GroupNorm(2, 4), conv(5, padding=2, stride=2)
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    look = Retina(16, levels=3)(torch.rand(1, 4, 64, 64))
    empty = Glimpse(look.pixels[:0], look.layout)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert foveate(network.eval())(empty).shape == (0, 3, 4, 4, 4)
            assert foveate(nn.Sequential(network, head).eval())(empty).shape == (0, 3)


def test_wrong_arguments_are_told_in_words() -> None:
    for wrong in (None, "timm:resnet18"):
        with pytest.raises(ValueError, match="expected a network"):
            foveate(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="halo is 'x'"):
        foveate(conv(1), halo="x")  # type: ignore[arg-type]
    for dtype in ("bfloat16", torch.int8):
        with pytest.raises(ValueError, match=r"periphery_dtype is .*bfloat16"):
            foveate(conv(1), periphery_dtype=dtype)  # type: ignore[arg-type]
    torchvision = pytest.importorskip("torchvision")
    transformer = torchvision.models.VisionTransformer(32, 16, 1, 2, 32, 64)
    for made in (foveate(conv(1)), foveate(transformer)):
        with pytest.raises(ValueError, match=r"a tensor of shape \(1, 4, 16, 16\); expected a Glimpse"):
            made(torch.rand(1, 4, 16, 16))


def test_a_window_that_the_stride_does_not_divide_is_told_at_the_call() -> None:
    network = foveate(nn.Sequential(conv(3, padding=1), nn.Sequential(conv(3, stride=2, padding=1))))
    with pytest.raises(UnsupportedModule, match=r"1\.0 \(Conv2d\).*15 x 15.*stride of 2"):
        network(tiles(torch.rand(1, 4, 30, 30), 15))


def test_a_second_fovea_and_an_unknown_pool_are_refused() -> None:
    with pytest.raises(ValueError, match="already"):
        foveate(foveate(conv(1)))
    with pytest.raises(ValueError, match="'middle'"):
        foveate(conv(1), pool="middle")  # type: ignore[arg-type]


def test_maps_come_back_by_windows() -> None:
    network = foveate(nn.Sequential(conv(3, stride=2, padding=1)))
    glimpse = Retina(16, levels=3)(torch.rand(2, 4, 60, 50))
    maps = network(glimpse)
    assert maps.shape == (2, 3, 4, 8, 8)
    assert type(maps) is Tensor
    both = foveate(Lambda(lambda x, c: {"map": c(x), "all": [x.mean((2, 3)), (c(x), 3)]}, conv(1)))(glimpse)
    assert both["map"].shape == (2, 3, 4, 16, 16)
    assert both["all"][0].shape == (2, 4)
    assert both["all"][1][1] == 3


def test_area_and_cell_pools_weigh_only_what_is_seen() -> None:
    pictures = [torch.rand(4, 60, 50), torch.rand(4, 13, 64)]
    glimpse = Retina(16, levels=3)(pictures, torch.tensor([[0.1, 0.9], [0.5, 0.5]]))
    areas = glimpse.layout.areas(16)
    for pool, weight in (("area", areas), ("cell", (areas > 0).float())):
        wanted = torch.einsum("bkchw,bkhw->bc", glimpse.pixels, weight) / weight.sum((1, 2, 3))[:, None]
        result = foveate(HEADS["mean"], pool=pool)(glimpse)  # type: ignore[arg-type]
        torch.testing.assert_close(result, wanted)
    wanted = glimpse.pixels.masked_fill(areas[:, :, None] == 0, -1).amax((1, 3, 4))
    assert torch.equal(foveate(HEADS["largest"])(glimpse), wanted)


def test_without_halo_every_window_is_padded_as_the_network_pads() -> None:
    network = nn.Sequential(conv(3, padding=1), nn.MaxPool2d(3, 2, padding=1), conv(5, padding=2))
    glimpse = Retina(16, levels=3)(torch.rand(2, 4, 64, 64))
    maps = foveate(network, halo=False)(glimpse)
    assert torch.equal(maps.flatten(0, 1), network(glimpse.pixels.flatten(0, 1)))
    valid = foveate(nn.Sequential(conv(3)), halo=False)(glimpse)
    assert valid.shape == glimpse.pixels.shape


def test_threads_with_unlike_layouts_do_not_disturb_each_other() -> None:
    network = foveate(
        nn.Sequential(conv(3, padding=1), nn.GroupNorm(2, 4), conv(3, stride=2, padding=1), HEADS["mean"])
    )
    glimpses = [Retina(16, levels=levels)(torch.rand(2, 4, 60, 60)) for levels in (1, 2, 3, 4)]
    with torch.no_grad():
        alone = [network(glimpse) for glimpse in glimpses]
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                if not torch.equal(network(glimpses[number]), alone[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_weights_load_after_and_modules_can_be_replaced() -> None:
    network = nn.Sequential(conv(3, padding=1), HEADS["mean"], nn.Linear(4, 3))
    foveated = foveate(copy.deepcopy(network))
    torch.nn.init.normal_(network[0].weight)
    foveated.load_state_dict(network.state_dict())
    x = torch.rand(1, 4, 16, 16)
    assert torch.equal(foveated(one_window(x)), network(x))
    setattr(foveated, "2", nn.Linear(4, 5))
    assert foveated(one_window(x)).shape == (1, 5)
    again = copy.deepcopy(foveated)
    with torch.no_grad():
        next(again.parameters()).zero_()
    assert foveated.get_parameter("0.weight").abs().sum() > 0
    assert again.network[0].weight.abs().sum() == 0


def test_a_module_of_two_names_keeps_its_weights() -> None:
    one = nn.Sequential(conv(1), nn.ReLU())
    network, x = nn.Sequential(one, conv(3, padding=1), one), torch.rand(1, 4, 32, 32)
    foveated = foveate(network)
    assert {parameter.device.type for parameter in foveated.parameters()} == {"cpu"}
    assert torch.equal(foveated(one_window(x))[:, 0], network(x))


def test_a_network_may_call_its_modules_what_it_likes() -> None:
    named = nn.Sequential()
    named.add_module("pool", nn.MaxPool2d(2))
    named.add_module("halo", conv(3, padding=1))
    x = torch.rand(1, 4, 32, 32)
    foveated = foveate(named, pool="cell")
    assert list(foveated.state_dict()) == list(named.state_dict())
    assert torch.equal(foveated(one_window(x))[:, 0], named(x))
    assert foveated.pool == copy.deepcopy(foveated).pool == "cell"


def test_every_module_keeps_its_own_mode() -> None:
    network = nn.Sequential(conv(1), nn.BatchNorm2d(4)).train()
    network[1].eval()
    made = foveate(network)
    assert [made.training, made.network.training, *(module.training for module in made.network)] == [
        True,
        True,
        True,
        False,
    ]
    assert not foveate(network.eval()).training


def test_a_graph_has_no_break() -> None:
    network = foveate(
        lively(nn.Sequential(conv(3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1), HEADS["mean"]))
    )
    glimpse = Retina(16, levels=3)(torch.rand(2, 4, 64, 64))
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(glimpse), network(glimpse))


def test_feature_pyramids_and_forward_features_come_back_by_windows() -> None:
    timm = pytest.importorskip("timm")
    x = torch.rand(1, 3, 128, 128)
    glimpse = tiles(x, 64)
    pyramid = timm.create_model("resnet10t", features_only=True).eval()
    with torch.no_grad():
        maps, wanted = foveate(pyramid)(glimpse), pyramid(x)
    assert [tuple(part.shape[:2]) for part in maps] == [(1, 4)] * 5
    for mine, dense in zip(maps, wanted, strict=True):
        side = mine.shape[-1]
        torch.testing.assert_close(mine[0, 1], dense[0, :, :side, side:], rtol=1e-4, atol=1e-5)
    whole = timm.create_model("resnet10t").eval()
    with torch.no_grad():
        features, dense = foveate(whole).forward_features(glimpse), whole.forward_features(x)
    torch.testing.assert_close(features[0, 2], dense[0, :, 2:, :2], rtol=1e-4, atol=1e-5)
    assert foveate(whole).num_classes == 1000


def test_a_traced_graph_of_a_network_converts_too() -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    resnet = pytest.importorskip("torchvision.models").resnet18()
    graph = extraction.create_feature_extractor(lively(resnet), {"layer2": "middle", "fc": "logits"}).eval()
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        mine, dense = foveate(graph)(tiles(x, 64)), graph(x)
    torch.testing.assert_close(mine["logits"], dense["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine["middle"][0, 0], dense["middle"][0, :, :8, :8], rtol=1e-4, atol=1e-5)


def test_a_transformer_takes_pictures_of_unlike_sizes_together() -> None:
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    small = timm.models.vision_transformer.VisionTransformer
    networks = [
        small(
            img_size=64,
            patch_size=16,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=5,
            global_pool=pool,
            reg_tokens=2,
        )
        for pool in ("token", "avg", "max", "avgmax")
    ]
    networks.append(torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=5))
    pictures = [torch.rand(3, 100, 128), torch.rand(3, 64, 30), torch.rand(3, 128, 128)]
    places = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    retina = Retina(32, levels=3)
    for network in networks:
        for value in network.parameters():
            torch.nn.init.normal_(value, 0, 0.1)
        made = foveate(network.eval())
        with torch.no_grad():
            together = made(retina(pictures, places))
            alone = [made(retina([picture], place[None])) for picture, place in zip(pictures, places, strict=True)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of the network's patches"):
        made(Retina(24, levels=1)(torch.rand(3, 24, 24)))


def test_positions_are_resized_as_timm_resizes_them() -> None:
    timm = pytest.importorskip("timm")
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=5, dynamic_img_size=True
    ).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    made = foveate(network)
    for side in (96, 32):
        x = torch.rand(2, 3, side, side)
        with torch.no_grad():
            wanted = network(x)
            assert torch.equal(made(one_window(x)), wanted)
            torch.testing.assert_close(made(tiles(x, 16)), wanted, rtol=1e-4, atol=1e-5)


def test_maps_out_of_the_middle_of_a_transformer() -> None:
    timm = pytest.importorskip("timm")
    options = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2, "reg_tokens": 2}
    network = timm.models.vision_transformer.VisionTransformer(**options).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    made, x = foveate(network), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        end, wanted = network.forward_intermediates(x, indices=[0, 2], norm=True)
        one_end, one = made.forward_intermediates(one_window(x), indices=[0, 2], norm=True)
        tiled = made.forward_intermediates(tiles(x, 32), [0, 2], norm=True, intermediates_only=True)
        looked = made.forward_intermediates(Retina(32, 2)(x), 1, intermediates_only=True)
    assert torch.equal(one_end, end)
    for mine, dense, parts in zip(one, wanted, tiled, strict=True):
        assert torch.equal(mine[:, 0], dense)
        layout = tiles(x, 32).layout
        torch.testing.assert_close(unfoveate(parts, layout, 4), dense, rtol=1e-4, atol=1e-5)
    assert [maps.shape for maps in looked] == [(2, 2, 32, 2, 2)]
    assert bool(looked[0][:, 0].abs().sum(1).gt(0).all())  # the fovea is all tokens


def test_a_transformer_that_gives_features_only() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, features_only=True, out_indices=(3, 5)).eval()
    made, x = foveate(network), torch.rand(2, 3, 64, 64)
    assert made.state_dict().keys() == network.state_dict().keys()
    with torch.no_grad():
        for mine, dense in zip(made(one_window(x)), network(x), strict=True):
            assert torch.equal(mine[:, 0], dense)
        pictures = [torch.rand(3, 64, 64), torch.rand(3, 40, 64)]
        retina = Retina(32, 2)
        together = made(retina(pictures))
        for row, picture in enumerate(pictures):
            alone = made(retina([picture]))
            torch.testing.assert_close(together[1][row], alone[1][0], rtol=1e-4, atol=1e-4)
    embed = {"img_size": 32, "features_only": True, "patch_drop_rate": 0.5}
    with pytest.raises(UnsupportedModule, match=r"model.patch_drop \(PatchDropout\)"):
        foveate(timm.create_model("vit_tiny_patch16_224", **embed))


def test_maps_out_of_the_middle_of_a_convolutional_network() -> None:
    timm = pytest.importorskip("timm")
    network, x = timm.create_model("resnet10t").eval(), torch.rand(1, 3, 64, 64)
    made = foveate(network)
    with torch.no_grad():
        wanted = network.forward_intermediates(x, intermediates_only=True)
        mine = made.forward_intermediates(one_window(x), intermediates_only=True)
    assert len(mine) == len(wanted)
    for one, dense in zip(mine, wanted, strict=True):
        assert torch.equal(one[:, 0], dense)


def test_a_transformer_that_is_not_known_is_refused_by_name() -> None:
    timm = pytest.importorskip("timm")
    vit = timm.models.vision_transformer.VisionTransformer
    options = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
    with pytest.raises(UnsupportedModule, match=r"patch_drop \(PatchDropout\)"):
        foveate(vit(**options, patch_drop_rate=0.5))
    with pytest.raises(UnsupportedModule, match="global_pool='map'"):
        foveate(vit(**options, global_pool="map", class_token=False))
    with pytest.raises(UnsupportedModule, match="attention takes all tokens"):
        foveate(vit(**options), periphery_channels=0.5)
    with pytest.raises(TypeError, match="glimpse alone"):
        foveate(vit(**options))(Retina(32, levels=1)(torch.rand(3, 32, 32)), None)


def test_what_a_module_keeps_when_it_is_checked_is_not_left_in_it() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.kept = conv(3, padding=1), None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.full((4, 1, 1), 2.0, device=x.device)
            return self.conv(x) * self.kept

    network = foveate(Keeping())
    assert network.network.kept is None
    assert network(Retina(16, levels=2)(torch.rand(1, 4, 32, 32))).isfinite().all()


class Segments(nn.Module):
    """As fully convolutional networks do it: small maps, and what the whole picture has, brought to another's size."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far, self.head = conv(3, padding=1, stride=2), conv(3, padding=1, stride=2), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        far = F.interpolate(self.far(near), size=near.shape[-2:], mode="bilinear", align_corners=False)
        whole = F.interpolate(near.mean((2, 3), keepdim=True), size=near.shape[2:], mode="bilinear")
        return F.interpolate(self.head(near + far + whole), size=x.shape[-2:], mode="bilinear", align_corners=False)


def test_maps_are_brought_to_the_size_of_other_maps() -> None:
    torch.manual_seed(0)
    network, x = Segments().double(), torch.randn(2, 4, 64, 64, dtype=torch.float64)
    dense, foveated = network(x), foveate(network)
    assert torch.equal(foveated(one_window(x))[:, 0], dense)
    split = dense.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    layout = Layout.stack([Layout.tiling(picture=(64, 64), size=32)] * 2)
    torch.testing.assert_close(foveated(Retina(32)(x, layout=layout)), split)
    with pytest.raises(UnsupportedModule, match="no whole factor"):
        foveate(Lambda(lambda x: F.interpolate(x, size=F.avg_pool2d(x, 2).shape[-2:])))(tiles(x, 32))


@pytest.mark.full
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_networks_that_segment_take_glimpses(name: str) -> None:
    segmentation = pytest.importorskip("torchvision").models.segmentation
    network = lively(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3))
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        dense, foveated = network(x)["out"], foveate(network)
        assert torch.equal(foveated(one_window(x))["out"][:, 0], dense)
        found = foveated(tiles(x, 64))["out"]
        split = dense.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        assert float((found - split).abs().max() / dense.abs().max()) < 1e-4
        assert foveated(Retina(64, levels=2)(x))["out"].isfinite().all()
