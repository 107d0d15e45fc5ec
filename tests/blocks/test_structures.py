import pytest
import torch
from cases import Case
from torch import nn

from foveal.blocks.registry import create_block


def halved(channels):
    return lambda c, h, w: (channels, h // 2, w // 2)


CASES = [
    Case("conv_norm_act", {"channels": 4}),
    Case(
        "conv_norm_act", {"channels": 4, "kernel_size": 5, "stride": 2, "groups": 2, "out_channels": 6}, out=halved(6)
    ),
    Case("conv_norm_act", {"channels": 4, "kernel_size": 2, "dilation": 3, "norm_layer": None, "act_layer": nn.SiLU}),
    Case("residual_bottleneck", {"channels": 8, "out_channels": 8, "stride": 2}, channels=8, out=halved(8), head=True),
    Case("residual_bottleneck", {"channels": 8, "dilation": 2, "groups": 2}, channels=8),
    Case("csp_stage", {"channels": 8}, channels=8),
    Case("csp_stage", {"channels": 8, "stride": 2, "out_channels": 12, "depth": 1}, channels=8, out=halved(12)),
    Case("inception", {"channels": 4, "out_channels": 16}, out=lambda c, h, w: (16, h, w)),
    Case("multi_receptive_field", {"channels": 4, "out_channels": 8}, out=lambda c, h, w: (8, h, w)),
    Case("multi_receptive_field", {"channels": 4, "kernels": (1, 9), "stride": 2}, out=halved(4)),
]


def count(block):
    return sum(parameter.numel() for parameter in block.parameters())


def test_parameters_are_as_documented():
    unit = {"channels": 12, "out_channels": 24, "kernel_size": 5, "groups": 3}
    assert count(create_block("conv_norm_act", **unit)) == 24 * 12 // 3 * 25 + 2 * 24
    assert count(create_block("conv_norm_act", norm_layer=None, **unit)) == 24 * 12 // 3 * 25 + 24
    for channels, wide, groups in ((32, 32, 1), (24, 48, 3)):
        middle = wide // 4
        core = channels * middle + 9 * middle * middle // groups + middle * wide + 4 * middle + 2 * wide
        projection = 0 if channels == wide else channels * wide + 2 * wide
        block = create_block("residual_bottleneck", channels=channels, out_channels=wide, groups=groups)
        assert count(block) == core + projection
    for stride, groups in ((1, 1), (2, 2)):
        c, wide, depth, h, m = 16, 32, 3, 16, 8
        wanted = c * wide + depth * (2 * h * m + 9 * m * m // groups) + h * h + wide * wide
        wanted += 2 * (2 * wide + h + depth * (2 * m + h)) + (stride - 1) * (9 * c * c // groups + 2 * c)
        options = {"channels": c, "out_channels": wide, "depth": depth, "stride": stride, "groups": groups}
        assert count(create_block("csp_stage", **options)) == wanted
    c, wide = 20, 64
    e = wide // 8
    wanted = c * 6.5 * e + 3 * e * 4 * 9 * e + e / 2 * 25 * e + 2 * 11.5 * e
    assert count(create_block("inception", channels=c, out_channels=wide)) == wanted
    wanted = c * wide // 4 * (1 + 9 + 25 + 49) + 2 * wide + wide * wide + 2 * wide
    assert count(create_block("multi_receptive_field", channels=c, out_channels=wide)) == wanted


@pytest.mark.parametrize("middle", [1, 6, 50, 300])
def test_groups_do_not_change_how_wide_a_bottleneck_is(middle):
    for groups in (part for part in range(1, middle + 1) if not middle % part):
        block = create_block("residual_bottleneck", channels=4, out_channels=4 * middle, groups=groups)
        assert block.conv2.weight.shape[:2] == (middle, middle // groups)


def test_a_bottleneck_projects_only_where_the_shape_changes():
    assert create_block("residual_bottleneck", channels=8).downsample is None
    for options in ({"out_channels": 16}, {"stride": 2}):
        block = create_block("residual_bottleneck", channels=8, **options).eval()
        nn.init.zeros_(block.bn3.weight)
        x = torch.randn(1, 8, 8, 8)
        torch.testing.assert_close(block(x), block.downsample(x).relu())


def test_half_of_a_csp_stage_skips_its_blocks():
    torch.manual_seed(0)
    block = create_block("csp_stage", channels=8).eval()
    for parameter in block.blocks.parameters():
        parameter.data.fill_(torch.nan)
    y = block.conv_exp(torch.randn(1, 8, 4, 4))
    assert block.blocks(y[:, 4:]).isnan().all()
    assert not y[:, :4].isnan().any()
    block.conv_transition.conv.weight.data[:, 4:] = 0
    assert block.conv_transition(torch.cat([y[:, :4], y[:, :4]], 1)).isfinite().all()


def test_an_inception_block_has_a_true_five_by_five():
    block = create_block("inception", channels=4, out_channels=16)
    assert [tuple(m.kernel_size) for m in block.modules() if isinstance(m, nn.Conv2d)] == [
        (1, 1),
        (1, 1),
        (3, 3),
        (1, 1),
        (5, 5),
        (1, 1),
    ]


def test_each_branch_sees_as_far_as_its_kernel():
    torch.manual_seed(0)
    block = create_block("multi_receptive_field", channels=4).eval()
    x = torch.zeros(1, 4, 15, 15)
    x[:, :, 7, 7] = 1
    for branch, side in zip(block.branches, (1, 3, 5, 7), strict=True):
        reached = (branch[0](x) != 0).any(1)[0].any(1).nonzero().flatten()
        assert len(reached) == side


def test_the_impossible_is_refused():
    with pytest.raises(ValueError, match="out_channels is 6, which the bottleneck's ratio of 4 does not divide"):
        create_block("residual_bottleneck", channels=6)
    with pytest.raises(ValueError, match="middle_channels is 2, which groups 4 does not divide"):
        create_block("residual_bottleneck", channels=8, groups=4)
    for below in ({"stride": 0}, {"dilation": -1}):
        with pytest.raises(ValueError, match="expected each at least 1"):
            create_block("residual_bottleneck", channels=8, **below)
    with pytest.raises(ValueError, match="a split of 2 does not divide"):
        create_block("csp_stage", channels=7)
    with pytest.raises(ValueError, match="depth 0, stride 1"):
        create_block("csp_stage", channels=8, depth=0)
    with pytest.raises(ValueError, match="groups 3 does not divide"):
        create_block("csp_stage", channels=8, groups=3)
    with pytest.raises(ValueError, match="16 does not divide"):
        create_block("inception", channels=8)
    with pytest.raises(ValueError, match="expected odd sides"):
        create_block("multi_receptive_field", channels=8, kernels=(1, 4))
    with pytest.raises(ValueError, match="groups 3 does not divide"):
        create_block("conv_norm_act", channels=8, groups=3)
