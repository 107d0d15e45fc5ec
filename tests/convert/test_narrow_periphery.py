import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foveal import Glimpse, Layout, Retina, UnsupportedModule, foveate, halo_pad


class Excited(nn.Module):
    """A residual block with all that a periphery of its own has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.norm2 = nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.BatchNorm2d(16)
        self.squeeze, self.gain = nn.Conv2d(16, 16, 1), nn.Parameter(torch.rand(16, 1, 1))
        self.last = nn.Conv2d(40, 8, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.depthwise(y)) * self.gain + y
        y = y * self.squeeze(F.adaptive_avg_pool2d(y, 1)).sigmoid()
        smaller = torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(y, 3, 1, 1, count_include_pad=False), y], 1)
        return self.last(smaller)


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Excited(), nn.AvgPool2d(2))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return made.eval()


def glimpse(**options: object) -> Glimpse:
    torch.manual_seed(1)
    pictures = [torch.rand(3, 64, 64), torch.rand(3, 50, 61)]
    return Retina(16, levels=3)(pictures, torch.tensor([[0.2, 0.8], [0.6, 0.5]]))


@pytest.mark.parametrize("halo", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_in_full_width_and_dtype_it_is_the_same_network(halo: bool, training: bool) -> None:
    plain = foveate(network(), halo=halo).double().train(training)
    apart = foveate(network(), halo=halo, periphery_dtype=torch.float64).double().train(training)
    look = Retina(16, levels=3)(torch.rand(2, 3, 60, 64, dtype=torch.float64))
    (a, b) = (made(look) for made in (plain, apart))
    torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    lean = torch.randn_like(a)
    for made, result in ((plain, a), (apart, b)):
        (result * lean).sum().backward()
        assert all(value.grad is not None for value in made.parameters())
    for (name, one), other in zip(plain.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-9, msg=name)
    for (name, one), other in zip(plain.named_buffers(), apart.named_buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(other[1], one, msg=name)


def test_the_periphery_is_the_network_cut_to_its_leading_channels() -> None:
    wide = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1)
    ).eval()
    cut = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1)
    ).eval()
    state = wide.state_dict()
    wanted = cut.state_dict()
    cut.load_state_dict({name: state[name][tuple(slice(0, n) for n in wanted[name].shape)] for name in wanted})
    look = glimpse()
    maps = foveate(wide, periphery_channels=0.5)(look)
    around = Glimpse(look.pixels[:, 1:], look.layout.select(slice(1, None)))
    torch.testing.assert_close(maps[:, 1:, :6], foveate(cut)(around))
    assert not maps[:, 1:, 6:].any()

    # The fovea reads zeros where the periphery computed nothing.
    half = foveate(wide[:3], periphery_channels=0.5)(look)
    by_hand = wide[3](halo_pad(half.flatten(0, 1), look.layout, 1))[:, :, 1:-1, 1:-1].unflatten(0, (2, 3))
    torch.testing.assert_close(maps[:, 0], by_hand[:, 0])


def test_the_work_is_left_out() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), *[nn.Conv2d(32, 32, 3, padding=1)] * 4)
    counts = []
    for width in (1.0, 0.5):
        made = foveate(wide, periphery_channels=width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made(glimpse())
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] < 0.52


def test_half_precision_around_leaves_the_fovea_near_and_in_full() -> None:
    plain, apart = foveate(network()), foveate(network(), periphery_dtype=torch.bfloat16)
    a, b = plain(glimpse()), apart(glimpse())
    assert b.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 0.05 * a.abs().max()


def test_statistics_of_channels_that_only_the_fovea_has_are_the_fovea_s() -> None:
    made = foveate(
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, momentum=1.0)), periphery_channels=0.5
    )
    look = Retina(16, levels=3)(torch.rand(2, 3, 64, 64))
    made.train()(look)
    maps = F.conv2d(look.pixels.flatten(0, 1), made.get_parameter("0.weight")).unflatten(0, (2, 3))
    both, alone = maps[:, :, :2].transpose(1, 2), maps[:, :1, 2:].transpose(1, 2)
    means = [part.transpose(0, 1).flatten(1).mean(1) for part in (both, alone)]
    torch.testing.assert_close(made.get_buffer("1.running_mean"), torch.cat(means))


def test_without_a_periphery_it_is_the_plain_network() -> None:
    made = network()
    x = torch.rand(1, 3, 32, 32)
    dense = Retina(32)(x, layout=Layout.windows(picture=(32, 32), size=32, windows=[(0, 0, 0)]))
    result = foveate(made, periphery_channels=0.5)(dense)
    assert torch.equal(result[:, 0], made(x))


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fraction in \(0, 1\]"):
        foveate(network(), periphery_channels=0.0)
    with pytest.raises(UnsupportedModule, match=r"1 \(Conv2d\).*groups"):
        foveate(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=4)), periphery_channels=0.4)
    with pytest.raises(UnsupportedModule, match=r"0 \(Conv2d\).*cuts"):
        foveate(nn.Sequential(nn.Conv2d(3, 4, 3)), periphery_channels=0.5)
    with pytest.raises(UnsupportedModule, match=r"1 \(LayerNorm\)"):
        foveate(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(64)), periphery_dtype=torch.bfloat16)
    coarse = Layout.windows(picture=(32, 32), size=16, windows=[(1, 0, 0)])
    look = Retina(16)(torch.rand(1, 3, 32, 32), layout=coarse)
    with pytest.raises(ValueError, match="no window of level 0"):
        foveate(network(), periphery_channels=0.5)(look)


def test_the_given_network_stays_untouched() -> None:
    made = network()
    before = copy.deepcopy(made.state_dict())
    foveate(made, periphery_channels=0.5).train()(glimpse()).sum().backward()
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(value.grad is None for value in made.parameters())


class Step(nn.Module):
    """A convolution, and a step after it."""

    def __init__(self, call: object, *modules: nn.Module) -> None:
        super().__init__()
        self.first, self.call, self.inner = nn.Conv2d(3, 8, 3, padding=1), call, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.first(x), *self.inner)  # type: ignore[operator]


@pytest.mark.parametrize("options", [{"periphery_dtype": torch.float64}, {"periphery_channels": 0.5}])
def test_what_belongs_to_places_is_refused(options: dict[str, object]) -> None:
    look = Retina(16, levels=2)(torch.rand(1, 3, 32, 32))
    for table in (lambda x: torch.ones(1, 8, *x.shape[2:]), lambda x: torch.linspace(0, 1, x.shape[-1])):
        made = Step(lambda x, table=table: x + table(x).to(x.device))
        with pytest.raises(UnsupportedModule, match="differs from place to place"):
            foveate(made, **options)(look)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModule, match="adaptive_avg_pool2d"):
        foveate(Step(lambda x: x * F.avg_pool2d(x, x.size(2))), **options)  # type: ignore[arg-type]


ALONE: dict[str, nn.Module] = {
    "average pool, ceil": Step(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    "max pool, ceil": Step(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    "same, even kernel": Step(lambda x, c: c(x), nn.Conv2d(8, 4, 2, padding="same")),
    "same, wide": Step(lambda x, c: c(x), nn.Conv2d(8, 4, (3, 4), padding="same", dilation=2)),
    "slopes by channel": Step(lambda x, c: c(x), nn.PReLU(8)),
    "squeeze by a kernel of the map's shape": Step(lambda x: x * F.avg_pool2d(x, x.shape[2:])),
}


@pytest.mark.parametrize("halo", [True, False])
@pytest.mark.parametrize("name", ALONE)
def test_in_full_width_every_step_is_the_plain_network_s(name: str, halo: bool) -> None:
    made, look = copy.deepcopy(ALONE[name]).double(), Retina(16, levels=3)(torch.rand(2, 3, 60, 64).double())
    for value in made.parameters():
        nn.init.normal_(value)
    wanted = foveate(made, halo=halo)(look)
    torch.testing.assert_close(foveate(made, halo=halo, periphery_dtype=torch.float64)(look), wanted)


def test_slopes_are_cut_to_the_channels_that_the_periphery_holds() -> None:
    made = Step(lambda x, c: c(x), nn.PReLU(8))
    nn.init.uniform_(made.inner[0].weight)
    look = Retina(16, levels=2)(torch.rand(1, 3, 32, 32))
    maps, wanted = foveate(made, periphery_channels=0.5)(look), foveate(made)(look)
    torch.testing.assert_close(maps[:, 1, :4], wanted[:, 1, :4])
    with pytest.raises(UnsupportedModule, match=r"glu\(\) is not known with a periphery"):
        foveate(Step(lambda x: F.glu(x, 1)), periphery_channels=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_padded_max_pool_takes_parts_of_unlike_dtypes(dtype: torch.dtype) -> None:
    made = Step(lambda x: F.max_pool2d(x, 3, 2, 1)).half()
    look = Retina(16, levels=2)(torch.rand(1, 3, 32, 32))
    look = Glimpse(look.pixels.half() - 2, look.layout)
    maps = foveate(made, periphery_dtype=dtype)(look)
    assert maps.dtype == torch.float16
    torch.testing.assert_close(maps, foveate(made)(look), rtol=0.03, atol=0.03)
