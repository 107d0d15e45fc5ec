"""A network by its name: of timm, of torchvision, what a function of yours returns, or what a saved model sees with.

Nothing is ever fetched.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

from torch import nn

from foveal.analysis.from_onnx.network import network_from_onnx
from foveal.analysis.layer_list import parse_layers
from foveal.memory import is_out_of_memory

SOURCES = ("timm", "torchvision")

DEFAULT = "default"
"""The name of the model that comes with the package."""


def load_network(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    picture: tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Makes a network, with random weights or those of a local file.

    Args:
        name: "timm:NAME", "torchvision:NAME", "MODULE:FUNCTION" for a function that returns a network; a bare name is
            looked for in timm, then in torchvision. The folder of a saved model, or "default" for the one that comes
            with the package, gives its vision side, with its weights. A file in .onnx gives its graph; several words
            are layers as one types them, "conv k7 s2 p3; pool k3 s2 p1; conv k3".
        weights: a safetensors file that fits the network strictly.
        picture: height and width of what it will be shown, which a list of layers needs for a linear one on a map.
        options: passed to whatever makes the network, for example `features_only=True` to timm.

    Returns:
        The network, in training mode, as its maker left it.

    Raises:
        ValueError: for a name that nobody knows, a folder that holds no whole model, or weights that do not fit.
        ImportError: if the library that it names is missing.
        FileNotFoundError: if the weights are.

    Example:
        >>> load_network("torchvision:resnet18", num_classes=10).fc.out_features
        10
    """
    if name.lower().endswith(".onnx"):
        return _alone(name, weights, options, network_from_onnx)
    if _are_layers(name):
        return _alone(name, weights, options, functools.partial(parse_layers, size=picture))
    source, found, rest = name.partition(":")
    # A run's folder may be called as a network is: it is meant where it is written as a path, or holds a model.
    if name == DEFAULT or (os.path.isdir(name) and (os.sep in name or os.path.exists(f"{name}/config.json"))):
        return _alone(name, weights, options, _saved)
    if not found:
        network = _bare(name, options)
    elif source == "timm":
        network = _from_timm(rest, options)
    elif source == "torchvision":
        network = _from_torchvision(rest, options)
    else:
        network = _from_function(source, rest, options)
    if weights is not None:
        _load(network, name, weights)
    return network


def _alone(name: str, weights: Any, options: dict[str, Any], make: Callable[[str], nn.Module]) -> nn.Module:
    if weights is not None or options:
        raise ValueError(f"{name}: has its own weights and options; give neither")
    return make(name)


def _are_layers(name: str) -> bool:
    """Whether a name is a list of layers: several words or steps, the first of which is no path and no library's."""
    return (len(name.split()) > 1 or ";" in name) and not os.path.exists(name) and ":" not in name


def is_untaught(name: str) -> bool:
    """Whether what `load_network` makes without weights is known to have random ones.

    Example:
        >>> is_untaught("timm:resnet18"), is_untaught("default"), is_untaught("my_module:trained")
        (True, False, False)
    """
    source, found, _ = name.partition(":")
    own = name == DEFAULT or os.path.isdir(name) or name.lower().endswith(".onnx")
    return not own and (not found or source in SOURCES or _are_layers(name))


def known_networks(source: str) -> list[str]:
    """All names that "timm" or "torchvision" has.

    Raises:
        ImportError: if the library is missing.
        ValueError: for another source.
    """
    if source == "timm":
        return list(_library("timm").list_models())
    if source == "torchvision":
        return list(_library("torchvision").models.list_models())
    raise ValueError(f"source is {source!r}; expected one of {', '.join(SOURCES)}")


def _library(name: str) -> Any:
    try:
        library = importlib.import_module(name)
        if name == "torchvision":
            importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ImportError(f"{name} is needed for its networks; run: pip install {name}") from error
    return library


def _from_timm(name: str, options: dict[str, Any]) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", timm.list_models(), "timm:")
    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network


def _from_torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    models = _library("torchvision").models
    if name not in models.list_models():
        raise _unknown(f"torchvision:{name}", models.list_models(), "torchvision:")
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}  # otherwise a warning, and minutes of drawing
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options = {"weights_backbone": None, **options}  # otherwise those are fetched
    network: nn.Module = models.get_model(name, weights=None, **options)
    return network


def _bare(name: str, options: dict[str, Any]) -> nn.Module:
    known: list[str] = []
    for source, make in (("timm", _from_timm), ("torchvision", _from_torchvision)):
        try:
            names = known_networks(source)
        except ImportError:
            continue
        if name in names:
            return make(name, options)
        known += names
    raise _unknown(name, known, "")


def _from_function(module: str, function: str, options: dict[str, Any]) -> nn.Module:
    name = f"{module}:{function}"
    try:
        make = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name}: there is no module {error.name!r} to import") from error
    except AttributeError as error:
        raise ValueError(f"{name}: {module} has no {function!r}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _failing(f"importing {module}", error) from error
    if not callable(make):
        raise ValueError(f"{name}: is {type(make).__name__}; expected a function that returns a torch.nn.Module")
    try:
        network = make(**options)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _failing(name, error) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name}: returned {type(network).__name__}; expected a torch.nn.Module")
    return network


def _failing(what: str, error: Exception) -> ValueError:
    """What somebody's own code raised, in one line."""
    said = " ".join(str(error).split())[:300]
    return ValueError(f"{what}: raised {type(error).__name__}" + (f": {said}" if said else ""))


def _saved(name: str) -> nn.Module:
    from foveal.models.generation import load_describer
    from foveal.models.vision_side import VisionSide

    return VisionSide(load_describer(None if name == DEFAULT else name).model.encoder)


def _load(network: nn.Module, name: str, weights: str | os.PathLike[str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not os.path.isfile(weights):
        raise FileNotFoundError(f"{weights}: there is no such file of weights")
    try:
        network.load_state_dict(load_file(weights), strict=True)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{weights}: cannot be the weights of {name}: {reason}") from error


def _unknown(name: str, known: list[str], prefix: str) -> ValueError:
    near = difflib.get_close_matches(name.removeprefix(prefix), known, n=3, cutoff=0.5)
    nearest = f"; the nearest are {', '.join(prefix + other for other in near)}" if near else ""
    return ValueError(f"no network is called {name!r}{nearest}")
