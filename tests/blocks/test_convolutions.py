import pytest
import torch
from cases import Case
from torch.nn import functional as F

from foveal.blocks.conv_sizes import require_multiple, same_padding
from foveal.blocks.registry import create_block

CASES = [
    Case("conv", {"channels": 4}),
    Case(
        "conv",
        {"channels": 4, "out_channels": 6, "kernel_size": (3, 5), "stride": 2, "bias": False},
        out=lambda c, h, w: (6, h // 2, w // 2),
    ),
    Case("conv", {"channels": 4, "kernel_size": 4}),
    Case("conv", {"channels": 4, "kernel_size": 2, "stride": 2}, out=lambda c, h, w: (c, h // 2, w // 2)),
    Case("pointwise_conv", {"channels": 4, "out_channels": 6}, out=lambda c, h, w: (6, h, w)),
    Case("grouped_conv", {"channels": 4, "groups": 2, "out_channels": 6}, out=lambda c, h, w: (6, h, w)),
    Case("dilated_conv", {"channels": 4, "dilation": 3}),
    Case("dilated_conv", {"channels": 4, "dilation": 2, "kernel_size": 5, "groups": 4}),
    Case("dilated_pair_conv", {"channels": 4, "dilation": 3, "out_channels": 6}, out=lambda c, h, w: (6, h, w)),
    Case("multi_dilation_conv", {"channels": 4, "out_channels": 8}, out=lambda c, h, w: (8, h, w)),
    Case("multi_dilation_conv", {"channels": 4, "rates": (1, 3), "bias": False}),
]


def count(block):
    return sum(parameter.numel() for parameter in block.parameters())


def test_parameters_are_as_documented():
    channels, wide, k = 12, 24, 5
    options = {"channels": channels, "out_channels": wide}
    assert count(create_block("conv", kernel_size=k, groups=3, **options)) == wide * channels // 3 * k * k + wide
    assert count(create_block("pointwise_conv", **options)) == wide * channels + wide
    assert count(create_block("grouped_conv", groups=4, **options)) == wide * channels // 4 * 9 + wide
    assert count(create_block("dilated_conv", dilation=7, **options)) == wide * channels * 9 + wide
    assert count(create_block("dilated_pair_conv", kernel_size=k, **options)) == wide * channels * k * k + wide
    assert count(create_block("multi_dilation_conv", **options)) == wide * channels * 9 + wide


def by_hand(x, weight, bias, dilation):
    """A dilated, padded convolution of one map, cell by cell."""
    k = weight.shape[-1]
    half, (_, height, width) = dilation * (k // 2), x.shape
    result = bias[:, None, None].repeat(1, height, width)
    for y in range(height):
        for column in range(width):
            for i in range(k):
                for j in range(k):
                    row, at = y + i * dilation - half, column + j * dilation - half
                    if 0 <= row < height and 0 <= at < width:
                        result[:, y, column] += weight[:, :, i, j] @ x[:, row, at]
    return result


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_is_the_sum_of_its_formula(dilation):
    block = create_block("dilated_conv", channels=2, out_channels=3, dilation=dilation).double()
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(block(x)[0], by_hand(x[0], block.weight.detach(), block.bias.detach(), dilation))


def test_a_grouped_convolution_is_one_for_each_group():
    block, x = create_block("grouped_conv", channels=6, groups=3), torch.randn(2, 6, 8, 8)
    weights, biases = block.weight.chunk(3), block.bias.chunk(3)
    parts = [F.conv2d(*each, padding=1) for each in zip(x.chunk(3, 1), weights, biases, strict=True)]
    torch.testing.assert_close(block(x), torch.cat(parts, 1))


def test_branches_stand_side_by_side_from_near_to_far():
    block, x = create_block("multi_dilation_conv", channels=8), torch.zeros(1, 8, 33, 33)
    x[:, :, 16, 16] = 1
    answers = block(x) - block(torch.zeros_like(x))
    for part, rate in zip(answers.chunk(4, 1), (1, 2, 4, 8), strict=True):
        rows = part.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        assert rows == [16 - rate, 16, 16 + rate]
    pair = create_block("dilated_pair_conv", channels=8, dilation=5)
    far = (pair(x) - pair(torch.zeros_like(x)))[:, 4:].abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert far == [11, 16, 21]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_maps_come_out_with_a_cell_for_every_stride(kernel, stride, dilation):
    options = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    result = create_block("conv", channels=2, **options)(torch.rand(1, 2, 12, 24))
    assert result.shape == (1, 2, 12 // stride, 24 // stride)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("make", ["conv", "grouped_conv", "conv_norm_act"])
def test_maps_of_every_side_come_out_as_documented(make, kernel, stride, dilation):
    options = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "groups": 2}
    block = create_block(make, channels=2, **options).eval()
    even = (dilation * (kernel - 1) + 1) % 2 == 0 and stride > 1
    for side in range(12, 18):
        wanted = -(-(side - even) // stride)
        assert block(torch.rand(1, 2, side, side + 1)).shape[2:] == (wanted, -(-(side + 1 - even) // stride))


def test_sizes_that_cannot_be_are_refused_in_words():
    with pytest.raises(ValueError, match=r"stride is 0; expected at least 1"):
        create_block("conv", channels=4, stride=0)
    with pytest.raises(ValueError, match="choose an odd kernel_size"):
        same_padding((3, 2), stride=(2, 1))
    with pytest.raises(
        ValueError, match=r"channels is 6, which groups 4 does not divide; 6 is divisible by 1, 2, 3, 6"
    ):
        create_block("grouped_conv", channels=6, groups=4)
    with pytest.raises(ValueError, match="groups is 0; expected at least 1"):
        require_multiple(0, "groups", channels=4)
    with pytest.raises(ValueError, match=r"channels is 0, which groups 1 does not divide; expected at least 1"):
        create_block("conv", channels=0)
    with pytest.raises(ValueError, match=r"out_channels is 6, which the number of rates, 4 does not divide"):
        create_block("multi_dilation_conv", channels=6)
    with pytest.raises(ValueError, match="rates is empty"):
        create_block("multi_dilation_conv", channels=4, rates=())
    with pytest.raises(ValueError, match="expected an odd one"):
        create_block("dilated_pair_conv", channels=4, kernel_size=2)
