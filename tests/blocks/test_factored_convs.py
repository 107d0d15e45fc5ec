import pytest
import torch
from cases import Case
from torch.nn import functional as F

from foveal.blocks.registry import create_block

CASES = [
    Case("depthwise_separable_conv", {"channels": 4, "out_channels": 6}, out=lambda c, h, w: (6, h, w), head=True),
    Case(
        "depthwise_separable_conv",
        {"channels": 4, "kernel_size": 5, "stride": 2, "bias": True},
        out=lambda c, h, w: (c, h // 2, w // 2),
    ),
    Case(
        "spatially_separable_conv", {"channels": 4, "kernel_size": 7, "out_channels": 6}, out=lambda c, h, w: (6, h, w)
    ),
    Case("spatially_separable_conv", {"channels": 4, "kernel_size": 4, "mid_channels": 3}),
    Case("shuffled_conv", {"channels": 16}, channels=16),
    Case("shuffled_conv", {"channels": 8, "stride": 2}, channels=8, out=lambda c, h, w: (2 * c, h // 2, w // 2)),
]


def count(block):
    return sum(parameter.numel() for parameter in block.parameters())


def test_parameters_are_as_documented():
    separable = create_block("depthwise_separable_conv", channels=12, out_channels=20, kernel_size=5, bias=True)
    assert count(separable) == 12 * 25 + 12 * 20 + 20
    spatial = create_block("spatially_separable_conv", channels=12, out_channels=20, mid_channels=8, kernel_size=7)
    assert count(spatial) == 12 * 8 * 7 + 8 * 20 * 7 + 20
    for stride, channels, wide in ((1, 24, 24), (2, 24, 64)):
        block = create_block("shuffled_conv", channels=channels, out_channels=wide, groups=2, stride=stride)
        middle, branch = wide // 4, wide - (stride - 1) * channels
        assert count(block) == channels * middle // 2 + 9 * middle + middle * branch // 2 + 4 * middle + 2 * branch


def test_a_separable_convolution_is_one_whose_kernels_are_products():
    block, x = create_block("depthwise_separable_conv", channels=4, out_channels=6), torch.randn(2, 4, 9, 8)
    whole = block.conv_pw.weight * block.conv_dw.weight[:, 0]  # (6, 4, 3, 3)
    torch.testing.assert_close(block(x), F.conv2d(x, whole, padding=1))


def test_a_spatially_separable_convolution_of_one_channel_has_a_kernel_of_rank_one():
    block, x = create_block("spatially_separable_conv", channels=1, kernel_size=5, bias=False), torch.randn(2, 1, 9, 8)
    whole = block.down.weight[0, 0] @ block.across.weight[0, 0]
    torch.testing.assert_close(block(x), F.conv2d(x, whole[None, None], padding=2))


def test_the_shuffle_lets_every_group_hear_of_all_others():
    torch.manual_seed(0)
    block = create_block("shuffled_conv", channels=16, groups=4, reduction=1).eval()
    x = torch.rand(1, 16, 4, 4)
    changed = x.clone()
    changed[:, :4] += 1  # the first group alone
    parts = (block.expand_norm(block.expand(F.channel_shuffle(y, 4))) for y in (x, changed))
    one, other = parts
    assert (one != other).flatten(2).any(2)[0].view(4, 4).any(1).all()
    alone, apart = (block.expand(y) for y in (x, changed))
    assert (alone != apart).flatten(2).any(2)[0].view(4, 4).any(1).tolist() == [True, False, False, False]


def test_the_shortcut_is_added_or_pooled_and_joined():
    x = torch.rand(1, 8, 8, 8)
    for stride in (1, 2):
        block = create_block("shuffled_conv", channels=8, stride=stride).eval()
        torch.nn.init.zeros_(block.expand_norm.weight)
        kept = x if stride == 1 else F.avg_pool2d(x, 3, 2, 1)
        torch.testing.assert_close(block(x)[:, :8], kept)


def test_the_impossible_is_refused():
    with pytest.raises(ValueError, match="an odd kernel and a stride of 1 or 2"):
        create_block("depthwise_separable_conv", channels=4, kernel_size=4)
    with pytest.raises(ValueError, match="an odd kernel and a stride of 1 or 2"):
        create_block("depthwise_separable_conv", channels=4, stride=3)
    for below in ({"dilation": 0}, {"kernel_size": -1}):
        with pytest.raises(ValueError, match="expected each at least 1"):
            create_block("depthwise_separable_conv", channels=4, **below)
    with pytest.raises(ValueError, match="stride is 3"):
        create_block("shuffled_conv", channels=8, stride=3)
    with pytest.raises(ValueError, match="the shortcut has 8"):
        create_block("shuffled_conv", channels=8, out_channels=16)
    with pytest.raises(ValueError, match="the shortcut alone has 8"):
        create_block("shuffled_conv", channels=8, out_channels=8, stride=2)
    with pytest.raises(ValueError, match="middle_channels is 1, which groups 2 does not divide"):
        create_block("shuffled_conv", channels=4)
    with pytest.raises(ValueError, match="reduction 3 does not divide"):
        create_block("shuffled_conv", channels=8, reduction=3)
