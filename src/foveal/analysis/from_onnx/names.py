"""The names of an ONNX graph as paths in a network, so that its rows read as the layers that they once were."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch.onnx notes the modules that a node comes from: "['', 'layer1', 'layer1.0.relu', 'relu_1']"."""

DEEPEST = 32
"""Pieces of a path: deeper names would make towers of modules."""

ROLES = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
"""What the weights of a layer are called, by their place among its inputs."""

NUMBERED = re.compile(r"(val|const|constant|tensor|initializer|param)?_*\d*", re.IGNORECASE)


def is_made_up(name: str) -> bool:
    """Whether an exporter numbered the name through, so that it says nothing of the layer.

    Example:
        >>> [is_made_up(name) for name in ("onnx::Conv_193", "val_12", "123", "layer1.0.conv1.weight")]
        [True, True, True, False]
    """
    return "::" in name or NUMBERED.fullmatch(name.strip("_")) is not None


def layer_of(node: str, operator: str, weights: Sequence[tuple[int, str]], noted: str) -> str:
    """The layer that a node belongs to: by its own name, by its weights', or by what the exporter noted.

    Args:
        node: its name.
        operator: what it does.
        weights: the place among its inputs, and the name, of each.
        noted: see `SCOPES`.

    Example:
        >>> layer_of("/layer1/layer1.0/conv1/Conv", "Conv", [], "")
        'layer1.0.conv1'
        >>> layer_of("Conv_3", "Conv", [(1, "layer1.0.conv1.weight")], "['', 'layer1.0.bn1', 'norm']")
        'layer1.0.conv1'
    """
    parts = [part for part in node.split("/") if part]
    if len(parts) > 1:
        short = parts[:1]
        for before, part in pairwise(parts):  # "layer1/layer1.0" says layer1 twice
            short.append(part[len(before) + 1 :] if part.startswith(f"{before}.") else part)
        return ".".join(short[:-1])
    layers = {at: name.rpartition(".")[0] for at, name in weights if "." in name}
    # A convolution that took up its batch norm is noted as the norm, but its kernel is its own. Vectors are not: those
    # that are equal are stored once, under the name of the first layer.
    if operator.startswith("Conv") and 1 in layers:
        return layers[1]
    scopes = re.findall(r"'([^']*)'", noted)
    return scopes[-2] if len(scopes) > 1 else next(iter(layers.values()), "")


def put(root: nn.Module, pieces: Sequence[str], value: nn.Module | Tensor, counts: dict[str, int]) -> str:
    """Puts a module, a parameter or a buffer into a network, at a path or as near to it as PyTorch allows.

    Args:
        root: the network.
        pieces: of the path; dots and slashes in them part them further.
        value: what to put there.
        counts: how often a taken path was wanted, so that many nodes of one name stay cheap; kept by the caller.

    Returns:
        The path, with dots.
    """
    cleaned = [re.sub(r"\W+", "_", piece) for part in pieces for piece in re.split(r"[./]", part)]
    cleaned = [piece for piece in cleaned if piece.strip("_")] or ["unnamed"]
    if len(cleaned) > DEEPEST:
        cleaned = [*cleaned[: DEEPEST - 1], cleaned[-1]]
    at, path = root, []
    for piece in cleaned[:-1]:
        while piece not in at._modules and hasattr(at, piece):
            piece += "_"
        if piece not in at._modules:
            at.add_module(piece, nn.Module())
        at = at.get_submodule(piece)
        path.append(piece)
    last, wanted = cleaned[-1], ".".join([*path, cleaned[-1]])
    while hasattr(at, last):
        counts[wanted] = counts.get(wanted, 1) + 1
        last = f"{cleaned[-1]}_{counts[wanted]}"
    if isinstance(value, nn.Module):
        at.add_module(last, value)
    elif isinstance(value, nn.Parameter):
        at.register_parameter(last, value)
    else:
        at.register_buffer(last, value)
    return ".".join([*path, last])
