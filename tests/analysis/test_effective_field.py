"""Effective receptive fields: measured by gradients, inside the theoretical box, less than it where layers are many."""

from __future__ import annotations

import pytest
import torch
from networks import Does
from torch import nn

from foveal.analysis.effective_field import FAINT, unit_field


def chain(depth, channels=8):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if at == 0 else channels, channels, 3, padding=1) for at in range(depth)]
    return nn.Sequential(*layers)


def test_every_pixel_of_a_kernel_moves_the_unit_and_no_other():
    found = unit_field(nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2)), "0", 32, unit=(3, 4))
    assert found.box == found.nominal == (4, 8, 6, 10)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:9, 6:11] = True
    assert torch.equal(found.heat > 0, inside)
    assert (found.layer, found.unit, found.grid, found.whole) == ("0", (3, 4), (16, 16), False)


def test_the_middle_is_taken_where_no_unit_is_named():
    assert unit_field(chain(1), "0", (9, 13)).unit == (4, 6)


def test_at_a_corner_the_box_is_cut_and_the_nominal_one_is_not():
    found = unit_field(chain(2), "1", 16, unit=(0, 15))
    assert found.box == (0, 2, 13, 15)
    assert found.nominal == (-2, 2, 13, 17)


def test_heat_is_at_most_one_and_lies_in_the_box():
    found = unit_field(chain(4), "3", 24)
    top, bottom, left, right = found.box
    outside = found.heat.clone()
    outside[top : bottom + 1, left : right + 1] = 0
    assert found.heat.max() == 1
    assert not outside.any()


def test_many_layers_see_effectively_less_than_they_could():
    """Luo et al. 2016: a Gaussian, whose width grows with the root of the depth."""
    shallow, deep = unit_field(chain(2), "1", 64), unit_field(chain(16), "15", 64)
    sides = [found.box[1] - found.box[0] + 1 for found in (shallow, deep)]
    assert sides == [5, 33]
    assert shallow.effective > 0.9 * sides[0]
    assert 0.2 * sides[1] < deep.effective < 0.8 * sides[1]
    assert deep.effective == float((deep.heat >= FAINT).sum()) ** 0.5


class Branched(nn.Module):
    """A 1 x 1 shortcut beside a 5 x 5 branch behind a gain."""

    def __init__(self, gain, how):
        super().__init__()
        self.short, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 5, padding=2)
        self.norm = nn.BatchNorm2d(4) if how == "norm" else nn.GroupNorm(2, 4) if how == "group" else nn.Identity()
        shape = {"scalar": (), "scale": (4,), "wide scale": (4, 1, 1)}.get(how)
        self.scale = None if shape is None else nn.Parameter(torch.full(shape, gain))
        if shape is None:
            nn.init.constant_(self.norm.weight, gain)

    def forward(self, x):
        y = self.norm(self.conv(x))
        if self.scale is not None:
            y = y * (self.scale.view(-1, 1, 1) if self.scale.ndim == 1 else self.scale)
        return self.short(x) + y


@pytest.mark.parametrize("how", ["norm", "group", "scalar", "scale", "wide scale"])
@pytest.mark.parametrize("gain", [0.0, 1e-6])
def test_branches_behind_gains_that_start_near_zero_are_seen(how, gain):
    torch.manual_seed(0)
    found = unit_field(Branched(gain, how), "", 16, samples=2)
    assert found.woken == 1
    assert found.effective >= 5


def test_gains_that_were_taught_and_biases_stay_as_they_are():
    torch.manual_seed(0)
    network = Branched(0.0, "norm")
    network.norm.weight.data += 1e-6 * torch.rand(4)
    found = unit_field(network, "", 16, samples=2)
    assert (found.woken, found.effective) == (0, 1)


def test_a_stage_is_named_for_what_runs_last_in_it():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Conv2d(4, 4, 3))
    whole, last = (unit_field(network, name, 16, unit=(2, 3), samples=1) for name in ("0", "0.1"))
    assert (whole.box, whole.grid) == (last.box, last.grid)


def test_a_unit_after_a_global_pool_sees_the_whole():
    network = Does(
        lambda self, x: self.b(self.a(x) * self.a(x).mean((2, 3), keepdim=True)),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(4, 4, 1),
    )
    found = unit_field(network, "b", 12)
    assert found.whole
    assert found.box == (0, 11, 0, 11)
    assert bool((found.heat > 0).all())


def test_windows_are_not_the_whole():
    def rows(self, x):
        x = self.a(x)
        return self.b(torch.softmax(x, 3) @ x.transpose(2, 3))

    found = unit_field(Does(rows, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1)), "a", 12)
    assert not found.whole


def test_the_same_seed_gives_the_same_heat():
    one, same, other = (unit_field(chain(2), "1", 16, samples=2, seed=seed).heat for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    found = unit_field(chain(2).to(dtype), "1", 16)
    assert found.heat.dtype == torch.float32
    assert int((found.heat > 0).sum()) == 25


def test_parts_without_gradients_of_their_own_are_measured_too():
    def run(self, x):
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)

    network = Does(run, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 4, 3))
    assert unit_field(network, "b", 12).box == (4, 8, 4, 8)
    assert int((unit_field(network, "b", 12).heat > 0).sum()) == 25


def test_the_network_and_its_gradients_stay_as_they_are():
    network = chain(2).train()
    with torch.no_grad():
        unit_field(network, "1", 16)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


REFUSED = {
    "no such layer": ("laier1", None, "did you mean"),
    "a unit outside": ("layer1", (0, 16), "has a map of 16 x 16"),
    "a negative unit": ("layer1", (-1, 0), "has a map of 16 x 16"),
    "no map": ("head", None, "expected a map"),
    "channels last": ("norm", None, "expected a map"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_units_are_refused(name):
    def run(self, x):
        x = self.layer1(x)
        return self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))

    network = Does(run, layer1=nn.Conv2d(3, 4, 3, padding=1), norm=nn.LayerNorm(4), head=nn.Linear(4, 2))
    layer, unit, says = REFUSED[name]
    with pytest.raises(ValueError, match=says):
        unit_field(network, layer, 16, unit=unit)
