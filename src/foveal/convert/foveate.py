"""A fovea for a network that knows of none: its own code and weights, run on the windows of a glimpse."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from foveal.blocks.slim import narrow_channels
from foveal.blocks.without_numbers import run_without_numbers, throwaway
from foveal.convert import (  # noqa: F401 - their rules register
    attention_steps,
    channels,
    deformed_steps,
    fusion_steps,
    graph_steps,
    norms,
    pointwise,
    pooling,
    resampling,
    shapes,
    sliding,
    tile_steps,
    transposed_steps,
)
from foveal.convert.foveated import Foveated, FoveatedSequential, told, unsupported
from foveal.convert.foveated_transformer import FoveatedTransformer
from foveal.convert.timm_transformer import is_timm_features, is_timm_transformer, refuse_unknown_parts
from foveal.convert.torchvision_transformer import is_torchvision_transformer, refuse_unknown_torchvision_parts
from foveal.convert.window_maps import Refused, Unfit, UnsupportedModule
from foveal.layout import Layout


def foveate(
    model: nn.Module,
    *,
    halo: bool = True,
    pool: Literal["area", "cell"] = "area",
    periphery_channels: float = 1.0,
    periphery_dtype: torch.dtype | None = None,
) -> Foveated:
    """Gives a network a fovea: the same weights, run on the windows of a glimpse instead of a whole picture.

    The given model stays untouched. Every step over space is treated across windows, those that the network calls as
    functions too; a step that cannot be is refused by name. Within a network `x.shape` is that of one window: what is
    divided by its cells must not be the whole picture's, so sums over space are refused but for a single window that
    holds the picture, and norms over space are the whole picture's.

    Args:
        model: a convolutional network, of timm, torchvision or your own; or a vision transformer of timm or
            torchvision (ViT, DeiT, with class, distillation and register tokens; timm's with features_only too).
        halo: fill every window's rim from the windows around; False leaves each to the network's own padding.
        pool: global pools weigh each cell by the picture "area" that it alone stands for, which is what the dense
            network means, or all seen cells alike ("cell"), so that the fovea counts more.
        periphery_channels: leading fraction of every layer's channels that windows coarser than level 0 compute, in
            (0, 1]; the work is really left out. A network has to be trained so, or sorted, to be good at it.
        periphery_dtype: in which those windows are computed, for example `torch.bfloat16`; the fovea stays as it is.

    Returns:
        A network with the same `state_dict` keys that takes a `Glimpse` of any layout.

    Raises:
        UnsupportedModule: if a step cannot be treated across windows.
        ValueError: if the model is no network; for an unknown `pool`, a `halo` that is not True or False, a fraction
            out of range, or a dtype that is none of floats.

    Example:
        >>> network = foveate(torchvision.models.resnet18())
        >>> network(Retina(size=64, levels=3)(torch.rand(3, 256, 256))).shape
        torch.Size([1, 1000])
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is {told(model)}; expected a network, an nn.Module")
    if not isinstance(halo, bool):
        raise ValueError(f"halo is {halo!r}; expected True or False")
    if periphery_dtype is not None and periphery_dtype not in _FLOATS:
        raise ValueError(f"periphery_dtype is {periphery_dtype!r}; expected one of {', '.join(map(str, _FLOATS))}")
    if pool not in ("area", "cell"):
        raise ValueError(f"pool is {pool!r}; expected 'area' or 'cell'")
    if isinstance(model, Foveated):
        raise ValueError("the model has a fovea already; give the network that it was made from")
    if is_timm_transformer(model) or is_timm_features(model):
        refuse_unknown_parts(model)
    if is_torchvision_transformer(model):
        refuse_unknown_torchvision_parts(model)
    attends = is_timm_transformer(model) or is_timm_features(model) or is_torchvision_transformer(model)
    sequence = FoveatedSequential if isinstance(model, nn.Sequential) else Foveated
    made = FoveatedTransformer if attends else sequence
    inside, modes = _copied(model), {path: module.training for path, module in model.named_modules()}
    for path, module in inside.named_modules():
        module.training = modes.get(path, model.training)  # a traced graph forgets it when it is copied
    if any(type(module).__module__.startswith("torchvision.") for module in inside.modules()):
        from foveal.convert.torchvision_parts import by_pictures

        by_pictures(inside)
    narrow_channels(1, periphery_channels)  # refuses what is no fraction
    if attends and (periphery_channels < 1 or periphery_dtype is not None):
        raise UnsupportedModule(
            f"the network itself ({type(model).__name__}): attention takes all tokens together; a periphery of its own "
            f"width or dtype is for convolutional networks"
        )
    network = made(inside, halo=halo, pool=pool, periphery_channels=periphery_channels, periphery_dtype=periphery_dtype)
    if not attends:
        _refuse_unsupported(network)
    return network


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy; where there can be none, UnsupportedModule says why."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, torch.Tensor) and not value.is_leaf:
                    raise UnsupportedModule(
                        f"{path or 'the network itself'} ({type(module).__name__}): holds {name!r}, which is computed "
                        f"from other tensors and cannot be copied; weight_norm, spectral_norm and pruning leave such: "
                        f"make it final (remove_weight_norm, remove_spectral_norm, prune.remove), or use "
                        f"nn.utils.parametrizations"
                    ) from error
        raise UnsupportedModule(
            f"the network itself ({type(model).__name__}): cannot be copied, and foveate() leaves the given one "
            f"untouched; copy.deepcopy says: {error}"
        ) from error


def _refuse_unsupported(made: Foveated) -> None:
    """Runs the network once without numbers, on four windows, so that what it cannot do is told at once."""
    planes = next((m.in_channels for m in made.network.modules() if isinstance(m, nn.Conv2d)), 3)
    for size in _PROBE:
        layout = Layout.windows(picture=(2 * size, 2 * size), size=size, windows=_PROBE[size])
        pixels = torch.empty(layout.num_windows, planes, size, size, device="meta")
        probe = throwaway(made.network)
        try:
            with torch.no_grad():
                run_without_numbers(probe, made._maps(pixels, layout))
        except Unfit:
            continue
        except Refused as error:
            raise unsupported(probe, error) from error
        except Exception:
            continue
        return


# Cells a side: what networks of a fixed size mostly want, and smaller.
_PROBE = {size: [(0, 0, 0), (0, 0, size), (0, size, 0), (1, 0, 0)] for size in (64, 224, 256, 96)}
