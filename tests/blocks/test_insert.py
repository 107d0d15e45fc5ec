import copy
import doctest
import io
import re

import pytest
import torch
import torchvision
from torch import nn

import foveal.blocks.conv_sizes
import foveal.blocks.insert
from foveal.blocks import create_block, insert_block, list_blocks
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).eval()


class Gate(nn.Module):
    """x times a sigmoid of itself, which knows how to start as the identity."""

    def __init__(self, channels, *, power=1.0):
        super().__init__()
        self.mix, self.power = nn.Conv2d(channels, channels, 1), power
        self.register_buffer("off", torch.zeros(()))

    def start_as_identity(self):
        self.off.fill_(1)

    def forward(self, x):
        return x * torch.lerp(self.mix(x).sigmoid() ** self.power, torch.ones_like(x), self.off)


PLACES = ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"]


@pytest.mark.parametrize("block", [Gate, "multi_dilation_conv", "graph_conv", "conv_norm_act"])
def test_at_first_nothing_changes_to_the_last_bit_and_old_keys_stay(resnet, block):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    changed = insert_block(resnet, block, after="layer*.*")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(changed(x), resnet(x))
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items()), "the model was touched"
    assert not any(hasattr(module, "inserted") for module in resnet.modules())
    state = changed.state_dict()
    assert [name for name in state if ".inserted." not in name] == list(before)
    missing, unexpected = changed.load_state_dict(before, strict=False)
    assert not unexpected
    assert {name.split(".inserted.")[0] for name in missing} == set(PLACES)
    with torch.no_grad():
        assert torch.equal(changed(x), resnet(x))


def test_blocks_are_as_wide_as_the_maps_that_they_follow(resnet):
    changed = insert_block(resnet, Gate, after=["layer*.*", "maxpool"], power=2.0)
    widths = {path: module.inserted.mix.in_channels for path, module in changed.named_modules() if path in PLACES}
    assert widths == dict(zip(PLACES, [64, 64, 128, 128, 256, 256, 512, 512], strict=True))
    assert changed.maxpool.inserted.power == 2.0
    assert isinstance(changed.layer1[0], torchvision.models.resnet.BasicBlock)
    assert type(changed.layer1[0]).__name__ == "BasicBlock"


def test_as_made_the_block_follows_the_module(resnet):
    changed = insert_block(resnet, "pointwise_conv", after="layer1.0", start="as_made")
    with torch.no_grad():
        x = torch.randn(1, 64, 8, 8)
        assert torch.equal(changed.layer1[0](x), changed.layer1[0].inserted(resnet.layer1[0](x)))
        picture = torch.randn(1, 3, 64, 64)
        assert not torch.allclose(changed(picture), resnet(picture))


def test_what_starts_as_the_identity_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    changed = insert_block(model, "conv", after="1")
    optimizer = torch.optim.SGD(changed.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(2):
        optimizer.zero_grad()
        changed(x).square().mean().backward()
        optimizer.step()
    block = changed[1].inserted
    assert block.weight != 0
    assert block.block.weight.grad.abs().sum() > 0


OPTIONS = {"grouped_conv": {"groups": 2}, "tile_sparse_conv": {"tile": 4}}
NO_SAME_SHAPE = """
adaptive_pool asff average_pool blur_pool center_skip_fusion center_weighted_loss contrastive_loss generalized_mean_pool
global_pool learnable_pool max_pool overlapping_pool random_center_crop spatial_pyramid_pool stochastic_pool
transposed_conv
"""
# A ReLU, a convolution and a norm follow it: while its bias is near 0 its scale makes no difference, and no gradient.
SCALE_FREE = {"shuffled_conv": ["block.squeeze_norm.weight"]}


@pytest.mark.parametrize("name", list_blocks())
def test_every_block_that_can_be_inserted_learns_in_all_its_parameters(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 1))
    if name in NO_SAME_SHAPE.split():
        with pytest.raises(ValueError, match="does not fit after 1"):
            insert_block(model, name, after="1", example=(2, 3, 16, 16))
        return
    changed = insert_block(model, name, after="1", example=(2, 3, 16, 16), **OPTIONS.get(name, {}))
    inserted = changed[1].inserted
    before = {key: value.detach().clone() for key, value in inserted.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(changed.parameters(), lr=0.5)
    x, wanted = torch.randn(4, 3, 16, 16), torch.randn(4, 2, 16, 16)
    for _ in range(3):
        optimizer.zero_grad()
        (changed(x) - wanted).square().mean().backward()
        optimizer.step()
    still = [key for key, value in inserted.named_parameters() if key in before and torch.equal(value, before[key])]
    assert [key for key in still if key not in SCALE_FREE.get(name, [])] == []


def test_a_sequential_has_the_block_as_its_last_step(resnet):
    changed = insert_block(resnet, "conv", after="layer1", start="as_made")
    assert changed.layer1[-1] is changed.layer1.inserted
    x = torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        assert torch.equal(changed.layer1(x), changed.layer1.inserted(resnet.layer1(x)))


def test_a_second_block_goes_after_the_first(resnet):
    once = insert_block(resnet, Gate, after="layer1.0")
    twice = insert_block(once, "conv", after="layer1.0.inserted")
    assert isinstance(twice.layer1[0].inserted.inserted.block, nn.Conv2d)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twice(x), resnet(x))
    with pytest.raises(ValueError, match=r"has a block inserted already; name layer1\.0\.inserted"):
        insert_block(once, "conv", after="layer1.0")


def test_it_survives_copies_files_and_training_modes(resnet):
    training = copy.deepcopy(resnet).train()
    training.layer1.eval()
    changed = insert_block(training, "conv_norm_act", after="layer*.*", start="as_made")
    assert not changed.layer1[0].inserted.training
    assert changed.layer2[0].inserted.training
    changed.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        answer = changed(x)
        twin = copy.deepcopy(changed)
        twin.layer1[0].inserted[0].weight.zero_()
        assert not torch.equal(twin(x), answer)
        assert torch.equal(changed(x), answer), "a copy shares nothing"
        file = io.BytesIO()
        torch.save(changed, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x), answer)
        other = insert_block(resnet, "conv_norm_act", after="layer*.*", start="as_made").eval()
        other.load_state_dict(changed.state_dict())
        assert torch.equal(other(x), answer)


def test_it_can_be_exported_and_compiled(resnet):
    changed = insert_block(resnet, "multi_dilation_conv", after="layer4.*").eval()
    with torch.no_grad():
        for module in changed.layer4:
            module.inserted.weight.fill_(0.5)
        x = torch.randn(1, 3, 64, 64)
        for strict in (False, True):
            exported = torch.export.export(changed, (x,), strict=strict).module()
            torch.testing.assert_close(exported(x), changed(x), rtol=1e-4, atol=1e-5)
        compiled = torch.compile(changed, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), changed(x))


def test_a_changed_network_takes_glimpses(resnet):
    changed = insert_block(resnet, "multi_dilation_conv", after="layer*.*").eval()
    picture = torch.randn(1, 3, 128, 128)
    tiling = Retina(64, levels=1)(picture, layout=Layout.tiling(picture=(128, 128), size=64))
    with torch.no_grad():
        assert torch.equal(foveate(changed)(tiling), foveate(resnet)(tiling))
        for module in changed.modules():
            if hasattr(module, "inserted"):
                module.inserted.weight.fill_(0.5)
        torch.testing.assert_close(foveate(changed)(tiling), changed(picture), rtol=1e-4, atol=1e-5)
        assert foveate(changed)(Retina(64, levels=2)(picture)).isfinite().all()


def test_a_block_after_dropped_branches_takes_glimpses():
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), torchvision.ops.StochasticDepth(0.5, "row"))
    changed = insert_block(dense, "cbam", after="1", start="as_made").eval()
    picture = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        result = foveate(changed)(Retina(32, levels=1)(picture))[:, 0]
        assert torch.equal(result, changed(picture))
        assert not torch.equal(result, dense(picture))


def test_patterns_name_modules_part_by_part(resnet):
    changed = insert_block(resnet, "pointwise_conv", after="layer[34].?.conv*")
    found = [path for path, module in changed.named_modules() if hasattr(module, "inserted")]
    assert found == [f"layer{stage}.{part}.conv{which}" for stage in (3, 4) for part in (0, 1) for which in (1, 2)]


def test_places_that_are_not_there_name_near_ones(resnet):
    with pytest.raises(ValueError, match=r"'layr1\.0' names no module .*near it are .*layer1\.0"):
        insert_block(resnet, "conv", after="layr1.0")
    with pytest.raises(ValueError, match="names no module of the network; near it are conv1, bn1, relu"):
        insert_block(resnet, "conv", after="zzzzzzzzz")


def test_blocks_that_do_not_fit_are_refused_with_the_shapes(resnet):
    says = "conv does not fit after layer1.0 (BasicBlock), which gives (1, 64, 56, 56): it makes (1, 64, 28, 28) of it"
    with pytest.raises(ValueError, match=re.escape(says)):
        insert_block(resnet, "conv", after="layer1.0", stride=2)
    with pytest.raises(ValueError, match=re.escape("it makes (1, 7, 16, 16) of it")):
        insert_block(resnet, "conv", after="layer1.0", out_channels=7, example=(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"have 3136 cells; the adjacency has 4 nodes"):
        insert_block(resnet, "graph_conv", after="layer1.0", adjacency=torch.ones(4, 4))
    with pytest.raises(ValueError, match=re.escape("fc (Linear) gives (1, 5); a block follows maps")):
        insert_block(resnet, "conv", after="fc")


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.unused = nn.ReLU(), nn.ReLU()
        self.conv, self.listed = nn.Conv2d(3, 8, 1), nn.ModuleList([nn.ReLU()])
        self.pair = Pair()

    def forward(self, x):
        return self.pair(self.shared(self.conv(self.shared(x))))[0]


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_places_that_no_block_can_follow_are_refused():
    for after, reason in (
        ("shared", r"called several times and gives \[\(1, 3, 224, 224\), \(1, 8, 224, 224\)\]"),
        ("unused", "is never called"),
        ("listed", "is a ModuleList"),
        ("pair", "gives tuple; a block follows maps"),
    ):
        with pytest.raises(ValueError, match=reason):
            insert_block(Odd(), "conv", after=after)
    dense = torchvision.models.densenet121(num_classes=2)
    with pytest.raises(ValueError, match="is a _DenseBlock, which runs its children its own way"):
        insert_block(dense, "conv", after="features.denseblock1")


@pytest.mark.parametrize("example", [None, (1, 3, 64, 128)])
def test_maps_with_channels_last_are_refused(example):
    swin = torchvision.models.swin_t(num_classes=2)
    says = r"features\.1\.0 \(SwinTransformerBlock\) gives .*, 96\), channels last; a block follows \(B, C, H, W\)"
    with pytest.raises(ValueError, match=says):
        insert_block(swin, "squeeze_excite", after="features.1.0", example=example)


def test_as_many_channels_as_rows_are_no_channels_last():
    model = nn.Conv2d(3, 16, 3, padding=1)
    changed = insert_block(nn.Sequential(model), "conv", after="0", example=(1, 3, 16, 16))
    assert changed[0].inserted.block.in_channels == 16


def test_the_impossible_is_refused(resnet):
    with pytest.raises(ValueError, match="start is 'zero'; expected 'identity' or 'as_made'"):
        insert_block(resnet, "conv", after="layer1.0", start="zero")
    with pytest.raises(ValueError, match="channels are filled in"):
        insert_block(resnet, "conv", after="layer1.0", channels=64)
    with pytest.raises(ValueError, match=r"does not run on a picture of shape \(1, 5, 64, 64\)"):
        insert_block(resnet, "conv", after="layer1.0", example=(1, 5, 64, 64))
    with pytest.raises(ValueError, match="no block is called 'convv'; did you mean 'conv'"):
        insert_block(resnet, "convv", after="layer1.0")


def test_options_that_a_block_does_not_take_are_refused_with_the_place(resnet):
    says = "does not fit after layer1.0 (BasicBlock), which gives (1, 64, 56, 56): "
    with pytest.raises(ValueError, match=f"squeeze_excite {re.escape(says)}.*ratio"):
        insert_block(resnet, "squeeze_excite", after="layer1.0", ratio=3)
    with pytest.raises(ValueError, match=f"Gate {re.escape(says)}.*ratio"):
        insert_block(resnet, Gate, after="layer1.0", ratio=3)


def test_a_block_that_fits_at_one_size_by_luck_is_refused(resnet):
    with pytest.raises(ValueError, match=re.escape("it makes (1, 512, 7, 7) of (1, 512, 14, 14)")):
        insert_block(resnet, "adaptive_pool", after="layer4.1")


def test_a_block_for_one_size_alone_fits_there(resnet):
    changed = insert_block(resnet, "graph_conv", after="layer4.1", adjacency=torch.ones(49, 49))
    assert hasattr(changed.layer4[1], "inserted")


def test_nothing_named_is_refused(resnet):
    with pytest.raises(ValueError, match="after is empty"):
        insert_block(resnet, "conv", after=[])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_after_compiled_modules_nothing_can_follow():
    model = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1)), nn.ReLU())
    with pytest.raises(ValueError, match=r"0 \(RecursiveScriptModule\) is compiled"):
        insert_block(model, "conv", after="0")
    assert insert_block(model, "conv", after="1")[1].inserted.block.in_channels == 4
    with pytest.raises(ValueError, match="is compiled"):
        insert_block(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())), "conv", after="0")


class OnTheSpot(nn.Module):
    """A network that cannot run without numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * float(x.abs().max() >= 0)


def test_a_network_that_needs_numbers_is_run_with_some():
    changed = insert_block(OnTheSpot(), "conv", after="conv", example=torch.rand(1, 3, 32, 32))
    assert changed.conv.inserted.block.in_channels == 4


class Keeping(nn.Module):
    """Makes a tensor at its first call, where the picture is, and keeps it; with `looks` it needs numbers besides."""

    def __init__(self, channels=3, looks=False):
        super().__init__()
        self.conv, self.kept, self.looks = nn.Conv2d(channels, 4, 1), None, looks

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.full((4, 1, 1), 2.0, device=x.device)
        if self.looks:
            assert float(x.detach().abs().max()) >= 0
        return self.conv(x) * self.kept


@pytest.mark.parametrize("looks", [False, True])
def test_what_modules_keep_when_the_shapes_are_learned_is_not_left_in_them(looks):
    model, x = Keeping(looks=looks), torch.rand(1, 3, 16, 16)
    changed = insert_block(model, Keeping, after="conv", example=(1, 3, 16, 16), looks=looks)
    assert changed.kept is None
    assert changed.conv.inserted.block.kept is None
    assert not changed.conv._forward_hooks
    assert torch.equal(changed(x), model(x))


def test_a_block_whose_weight_is_computed_fits():
    changed = insert_block(
        nn.Sequential(nn.Conv2d(3, 4, 1)), lambda channels: nn.utils.weight_norm(nn.Conv2d(channels, 4, 1)), after="0"
    )
    assert changed(torch.rand(1, 3, 8, 8)).shape == (1, 4, 8, 8)


def test_dtype_and_modules_of_two_names_are_kept():
    twice = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    shared = nn.Sequential(twice, nn.Conv2d(4, 3, 1), twice).double()
    changed = insert_block(shared, "conv", after=["0.0", "2.0"])
    assert changed[0][0] is changed[2][0]
    assert changed[0][0].inserted.block.weight.dtype == torch.float64
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(changed(x), shared(x))


def test_the_examples_in_the_documentation_are_true():
    for module in (foveal.blocks.insert, foveal.blocks.conv_sizes):
        assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_the_package_hands_out_its_three_functions_lazily():
    assert set(foveal.blocks.__all__) == {"create_block", "insert_block", "list_blocks"}
    assert "insert_block" in dir(foveal.blocks)
    assert "conv" in list_blocks()
    assert isinstance(create_block("conv", channels=2), nn.Conv2d)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        foveal.blocks.nothing  # noqa: B018
