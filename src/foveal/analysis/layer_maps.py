"""The maps that a layer of a network makes of a picture: found by the layer's name, whatever shape it keeps them in."""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from torch import Tensor, nn

from foveal.analysis.from_onnx.network import OnnxNetwork


class _Reached(Exception):
    """Raised when the layer has run: what comes after it need not."""


def watched(network: nn.Module, layer: str, x: Tensor) -> Tensor:
    """The output of a layer when the network runs on x; of a layer that runs several times the first one.

    Args:
        network: run in evaluation mode, as far as that layer; its mode is restored.
        layer: the name of a module, as in `named_modules()`.
        x: what the network takes.

    Raises:
        ValueError: for a name that there is not, with the nearest; a layer that does not run, or gives no tensor; an
            x that the network does not take.
    """
    module = find_layer(network, layer)
    caught: list[Any] = []

    def catch(module: nn.Module, inputs: Any, output: Any) -> None:
        caught.append(output)
        raise _Reached

    modes = [(part, part.training) for part in network.modules()]
    handle = module.register_forward_hook(catch)
    try:
        network.eval()
        network(x)
    except _Reached:
        pass
    except Exception as error:
        raise _not_taken(x, error) from error
    finally:
        handle.remove()
        for part, training in modes:
            part.training = training
    if not caught:
        raise ValueError(f"layer {layer!r} does not run when the network does")
    output = caught[0]
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"layer {layer!r} gives {type(output).__name__}; expected a tensor")
    return output


def _not_taken(x: Tensor, error: Exception) -> ValueError:
    return ValueError(f"the network does not take {tuple(x.shape)}: {error}")


def find_layer(network: nn.Module, layer: str) -> nn.Module:
    """A module by its name; in an ONNX file, whose nodes alone run, a layer is the last of its nodes.

    Raises:
        ValueError: if there is none, with the nearest names.

    Example:
        >>> find_layer(torch.nn.Sequential(torch.nn.ReLU()), "0")
        ReLU()
    """
    names = dict(network.named_modules())
    if layer and layer in names:
        inside = [name for name in getattr(network, "nodes", ()) if name.startswith(f"{layer}.")]
        return names[inside[-1]] if inside and isinstance(network, OnnxNetwork) else names[layer]
    known = [name for name in names if name]
    if not known:
        raise ValueError(f"no layer is called {layer!r}: {type(network).__name__} has no layers with maps inside it")
    within = layer.rpartition(".")[0]
    while within and within not in names:
        within = within.rpartition(".")[0]
    inside = [name for name in known if name.startswith(f"{within}.") and "." not in name[len(within) + 1 :]]
    near = difflib.get_close_matches(layer, known, 5, 0.6) or inside or [name for name in known if "." not in name]
    shown = ", ".join(near[:8]) + (", ..." if len(near) > 8 else "")
    raise ValueError(f"no layer is called {layer!r}; {'the nearest are' if near != known else 'there are'} {shown}")


def maps_of(output: Tensor, layer: str, picture: tuple[int, int]) -> Tensor:
    """What a layer gave as maps (B, C, h, w).

    Maps come as they are, or with channels last where only that has the picture's proportions. Tokens (B, N, C)
    become a grid of those proportions; the ones before it (class, registers) are left out.

    Args:
        output: of the layer.
        layer: its name, for messages.
        picture: height and width of what went in.

    Raises:
        ValueError: for an output that is none of these.
    """
    if output.ndim == 4:
        _, first, second, third = output.shape
        return output.movedim(3, 1) if _fits(first, second, picture) and not _fits(second, third, picture) else output
    if output.ndim == 3:
        tokens = output.shape[1]
        height = math.isqrt(tokens * picture[0] // picture[1])
        for rows in (height, height - 1):
            columns = round(rows * picture[1] / picture[0])
            if rows > 0 and 0 <= tokens - rows * columns <= 16 and _fits(rows, columns, picture):
                return output[:, tokens - rows * columns :].mT.unflatten(2, (rows, columns))
    raise ValueError(
        f"layer {layer!r} gives {tuple(output.shape)}, which is no map; name an earlier one, that gives (B, C, H, W)"
    )


def _fits(height: int, width: int, picture: tuple[int, int]) -> bool:
    """Has a map the proportions of the picture, within a cell?"""
    return abs(height * picture[1] - width * picture[0]) <= max(picture)


def layers_with_maps(network: nn.Module, x: Tensor) -> dict[str, tuple[int, int, int]]:
    """Every layer whose output is a map of more than one cell: its name, and channels, height and width.

    Args:
        network: run in evaluation mode; its mode is restored.
        x: (1, C, H, W).

    Raises:
        ValueError: for an x that the network does not take.
    """
    found: dict[str, tuple[int, int, int]] = {}
    picture = (x.shape[-2], x.shape[-1])

    def keep(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple | list) and output else output  # as `watched` has it
            if isinstance(output, Tensor) and name not in found:
                try:
                    _, channels, height, width = maps_of(output, name, picture).shape
                except ValueError:
                    return
                if height * width > 1:
                    found[name] = (channels, height, width)

        return note

    modes = [(part, part.training) for part in network.modules()]
    handles = [part.register_forward_hook(keep(name)) for name, part in network.named_modules() if name]
    try:
        network.eval()
        with torch.no_grad():
            network(x)
    except Exception as error:
        raise _not_taken(x, error) from error
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes:
            part.training = training
    # A file's nodes in the order of their run: its modules are in that of their names.
    names = network.nodes if isinstance(network, OnnxNetwork) else dict(network.named_modules())
    return {name: found[name] for name in names if name in found}
