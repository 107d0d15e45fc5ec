from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import save_tiny_model
from torch import nn

from foveal import Retina
from foveal.models.generation import load_describer
from foveal.zoo import known_networks, load_network


def broken() -> str:
    return "no network"


def wide(width: int) -> nn.Module:
    return nn.Conv2d(3, width, 1)


def raises() -> nn.Module:
    raise KeyError("one\nline")


def divides() -> float:
    return 1 / 0


def runs_out() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


number = 3


def small(width: int = 3) -> nn.Module:
    return nn.Conv2d(3, width, 1)


def test_by_library() -> None:
    assert type(load_network("timm:resnet18")).__module__ == "timm.models.resnet"
    assert type(load_network("torchvision:resnet18")).__module__ == "torchvision.models.resnet"
    assert type(load_network("resnet18")).__module__ == "timm.models.resnet"
    assert type(load_network("shufflenet_v2_x0_5")).__module__ == "torchvision.models.shufflenetv2"
    assert load_network("timm:resnet18", num_classes=7).num_classes == 7


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"])
def test_no_backbone_is_fetched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights are fetched")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    assert isinstance(load_network(f"torchvision:{name}", num_classes=3), nn.Module)


def test_by_function() -> None:
    assert load_network(f"{__name__}:small", width=5).out_channels == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet19", "timm:resnet19.*nearest are timm:resnet1"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("resnett18", "resnet18"),
        ("nowhere_at_all:net", "no module 'nowhere_at_all'"),
        (f"{__name__}:nothing", "has no 'nothing'"),
        (f"{__name__}:broken", "returned str"),
        (f"{__name__}:wide", f"^{__name__}:wide: raised TypeError: .*missing 1 required positional argument: 'width'$"),
        (f"{__name__}:raises", rf"^{__name__}:raises: raised KeyError: .*line.*$"),
        (f"{__name__}:divides", f"^{__name__}:divides: raised ZeroDivisionError: division by zero$"),
        (f"{__name__}:number", "is int; expected a function"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_network(name)


def test_code_that_cannot_be_imported_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module_of_mine.py").write_text("def net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^importing broken_module_of_mine: raised SyntaxError: .*$"):
        load_network("broken_module_of_mine:net")


def test_that_memory_ran_out_is_told_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_network(f"{__name__}:runs_out")


def test_a_saved_model_is_its_vision_side(tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = str(save_tiny_model(tmp_path / "model"))
    network, model = load_network(folder), load_describer(folder).model
    pictures = torch.rand(2, 3, 64, 64)
    glimpse = Retina(32, 2)(pictures)
    with torch.inference_mode():
        assert torch.equal(network(glimpse), model.encoder.look(glimpse)[0])
        assert torch.equal(network(pictures), model.encoder.look(Retina(64, 1)(pictures))[0])
        assert not torch.equal(network.without_halo()(glimpse), network(glimpse))
        assert torch.equal(network.without_halo()(pictures), network(pictures))
    assert network.backbone.halo
    with pytest.raises(ValueError, match="is not a whole model"):
        load_network(str(tmp_path))
    with pytest.raises(ValueError, match="its own weights"):
        load_network(folder, num_classes=3)


def test_a_folder_called_like_a_network_is_not_meant(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "resnet18").mkdir()
    monkeypatch.chdir(tmp_path)
    assert type(load_network("resnet18")).__module__ == "timm.models.resnet"
    with pytest.raises(ValueError, match="is not a whole model"):
        load_network("./resnet18")


def test_weights_must_fit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source = small()
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    loaded = load_network(f"{__name__}:small", weights=tmp_path / "a.safetensors")
    assert torch.equal(loaded.weight, source.weight)
    with pytest.raises(ValueError, match="cannot be the weights"):
        load_network(f"{__name__}:small", width=4, weights=tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be the weights"):
        load_network(f"{__name__}:small", weights=tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_network(f"{__name__}:small", weights=tmp_path / "c.safetensors")


def test_sources() -> None:
    assert "vit_tiny_patch16_224" in known_networks("timm")
    assert "squeezenet1_1" in known_networks("torchvision")
    with pytest.raises(ValueError, match="'hub'"):
        known_networks("hub")
