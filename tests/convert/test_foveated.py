"""The network around the network: one state, one mode, and what it returns in whatever it is held."""

import collections
import copy
import dataclasses
import enum
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from foveal import Glimpse, Retina, UnsupportedModule, foveate, planned


class Lambda(nn.Module):
    def __init__(self, call: object) -> None:
        super().__init__()
        self.call, self.conv, self.scale = call, nn.Conv2d(3, 4, 3, padding=1), 1.0

    def forward(self, x: Tensor) -> Any:
        return self.call(self.conv(x) * self.scale)  # type: ignore[operator]


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def look(batch: int = 2) -> Glimpse:
    return Retina(16, levels=2)(torch.rand(batch, 3, 32, 32))


# ---- what it returns -------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Named(NamedTuple):
    maps: Any
    pooled: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    maps: Any
    pooled: Any
    doubled: Any = dataclasses.field(init=False)
    name: str = "frozen"

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", [self.pooled * 2])


@dataclasses.dataclass(slots=True)
class Slotted:
    maps: Any
    pooled: Any


class Keyed(dict):
    """As outputs of many libraries: a dictionary whose entries are attributes, too."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(**entries)
        self.__dict__.update(entries)


def defaults(**entries: Any) -> Any:
    return collections.defaultdict(list, entries)


HOLDERS = {
    "named tuple": Named,
    "frozen dataclass": Frozen,
    "slotted dataclass": Slotted,
    "dictionary of attributes": Keyed,
    "defaultdict": defaults,
    "ordered": lambda **entries: collections.OrderedDict(entries),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_it_returns_is_unfolded_in_whatever_it_is_held(name: str) -> None:
    made = foveate(Lambda(lambda x: {"inner": (HOLDERS[name](maps=x, pooled=mean(x)), 3, Colour.RED, None)}))
    held, number, colour, nothing = made(look())["inner"]
    assert (number, colour, nothing) == (3, Colour.RED, None)
    values = dict(held) if isinstance(held, dict) else {part: getattr(held, part) for part in ("maps", "pooled")}
    assert type(held) is type(HOLDERS[name](maps=torch.ones(1), pooled=torch.ones(1)))
    assert {part: (type(value), tuple(value.shape)) for part, value in values.items()} == {
        "maps": (Tensor, (2, 2, 4, 16, 16)),
        "pooled": (Tensor, (2, 4)),
    }
    if name == "frozen dataclass":
        torch.testing.assert_close(held.doubled, [held.pooled * 2])
    if name == "dictionary of attributes":
        assert torch.equal(held["maps"], held.maps)
    if name == "defaultdict":
        assert held["missing"] == []


def test_sets_and_the_results_of_other_libraries_are_unfolded() -> None:
    (maps,) = foveate(Lambda(lambda x: {x}))(look())
    assert (type(maps), tuple(maps.shape)) == (Tensor, (2, 2, 4, 16, 16))
    outputs = pytest.importorskip("transformers.modeling_outputs")
    made = foveate(Lambda(lambda x: outputs.BaseModelOutput(last_hidden_state=x, hidden_states=(x, mean(x)))))
    found = made(look())
    assert type(found) is outputs.BaseModelOutput
    assert type(found.last_hidden_state) is type(found[0]) is type(found["last_hidden_state"]) is Tensor
    assert [tuple(part.shape) for part in found.hidden_states] == [(2, 2, 4, 16, 16), (2, 4)]


class Unknown:
    def __init__(self, maps: Tensor) -> None:
        self.maps = maps


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Unknown, "returned a Unknown"),
        (lambda x: [iter([x])], "returned a list_iterator"),
        (lambda x: {x: 1}, "keys are tensors"),
        (lambda x: (x, torch.ones(2, device=x.device)), "does not come from its windows"),
    ],
)
def test_what_could_hide_maps_is_refused(call: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModule, match=rf"^the network itself \(Lambda\): .*{reason}"):
        foveate(Lambda(call))(look())


# ---- one state, one mode ---------------------------------------------------------------------------------------------


def test_what_is_set_on_it_is_set_on_the_network() -> None:
    made, glimpse = foveate(Lambda(mean)), look()
    before = made(glimpse)
    made.scale = 2.0
    assert made.network.scale == made.scale == 2.0
    torch.testing.assert_close(made(glimpse), 2 * before)
    made.scale = nn.Parameter(torch.tensor(3.0))  # in the place of a plain attribute
    assert "scale" in dict(made.named_parameters())
    torch.testing.assert_close(made(glimpse), 3 * before)
    del made.scale
    assert not hasattr(made.network, "scale")
    made.scale, made.extra = nn.Identity(), nn.Identity()
    assert [name for name, _ in made.network.named_children()] == ["conv", "scale", "extra"]
    made.mine = 4
    assert not hasattr(made.network, "mine")
    made.halo = False
    assert not hasattr(made.network, "halo")


def test_its_mode_is_the_network_s() -> None:
    class Frozen(Lambda):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(False)

    made = foveate(Lambda(lambda x: F.dropout(mean(x), 0.5)))
    made.training = False
    assert not made.network.training
    assert not foveate(Frozen(mean)).train().training


@pytest.mark.parametrize("outer", [True, False])
def test_planning_leaves_every_mode_as_it_was(outer: bool) -> None:
    made = foveate(nn.Sequential(Lambda(lambda x: x), nn.Dropout(), nn.BatchNorm2d(4))).train(outer)
    made.network[1].train(not outer)
    held = nn.ModuleDict({"inside": made})
    modes = [module.training for module in (*held.modules(), *made.network.modules())]
    planned(made, look())
    assert [module.training for module in (*held.modules(), *made.network.modules())] == modes


class Keeping(nn.Module):
    """With all ways in which a module takes part in its own state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.count = nn.Conv2d(3, 4, 1), 3
        self._register_load_state_dict_pre_hook(self._renamed)
        self.register_state_dict_post_hook(lambda module, state, prefix, _: state.update({f"{prefix}seen": 1}))

    def _renamed(self, state: Any, prefix: str, *_: Any) -> None:
        state.pop(f"{prefix}seen", None)
        for name in [name for name in state if name.startswith(f"{prefix}old.")]:
            state[name.replace("old.", "conv.")] = state.pop(name)

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]

    def forward(self, x: Tensor) -> Tensor:
        return mean(self.conv(x))


def test_state_dicts_are_the_network_s_own() -> None:
    network, other = Keeping(), Keeping()
    other.count = 7
    made = foveate(network)
    assert list(made.state_dict()) == list(network.state_dict())
    assert list(made.state_dict()) == ["_extra_state", "conv.weight", "conv.bias", "seen"]
    old = {name.replace("conv.", "old."): value for name, value in other.state_dict().items()}
    made.load_state_dict(dict(old))
    assert made.count == 7
    assert torch.equal(made.conv.weight, other.conv.weight)
    held = nn.ModuleDict({"inside": foveate(network)})
    assert list(held.state_dict()) == [f"inside.{name}" for name in network.state_dict()]
    held.load_state_dict({f"inside.{name}": value for name, value in old.items()})
    assert held["inside"].network.count == 7
    calls: list[str] = []
    made.register_state_dict_pre_hook(lambda *_: calls.append("saved"))
    made.register_load_state_dict_post_hook(lambda *_: calls.append("loaded"))
    copy.deepcopy(made).load_state_dict(made.state_dict())
    assert calls == ["saved", "loaded"]


def test_a_sequence_counts_and_gives_its_modules() -> None:
    made = foveate(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
    assert len(made) == 3
    assert made[1] is made.network[1]
    assert list(made[:2]) == list(made)[:2]
    assert made(look()).shape == (2, 4, 1, 1)
    with pytest.raises(TypeError):
        len(foveate(Lambda(mean)))


def test_a_network_that_cannot_be_copied_is_told_in_words() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    prune.l1_unstructured(network[0], "weight", 0.5)
    with pytest.raises(UnsupportedModule, match=r"^0 \(Conv2d\): holds 'weight'.*prune\.remove"):
        foveate(network)
    prune.remove(network[0], "weight")
    foveate(network)
    network.held = (part for part in ())
    with pytest.raises(UnsupportedModule, match=r"^the network itself \(Sequential\): cannot be copied"):
        foveate(network)


def test_planning_tells_wrong_arguments_in_words() -> None:
    made, glimpse = foveate(Lambda(mean)), look()
    for wrong in (None, torch.rand(1, 3, 32, 32)):
        with pytest.raises(ValueError, match="expected a Glimpse"):
            planned(made, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the network is None"):
        planned(None, glimpse)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"given a Glimpse; expected the pixels.*glimpse\.pixels"):
        planned(made, glimpse)(glimpse)


def test_maps_that_a_hook_kept_say_what_they_are() -> None:
    made, kept = foveate(Lambda(mean)), []
    made.conv.register_forward_hook(lambda module, args, result: kept.append(result))
    made(look())
    with pytest.raises(Exception, match=r"flip\(\) is not known.*windows of a foveated network.*hook"):
        kept[0].flip(3)
