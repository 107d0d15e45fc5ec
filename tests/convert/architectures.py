"""Networks that people bring, and what becomes of them. `python tests/convert/architectures.py` writes the table
docs/architectures.md.
"""

import copy
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from foveal import Layout, Retina, UnsupportedModule, foveate
from foveal.zoo import load_network

TABLE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
TILING = 1e-5
"""Largest difference to the dense network in float32 on a full tiling, in units of its largest value."""


@dataclass(frozen=True)
class Architecture:
    family: str
    name: str
    size: int = 64
    """Cells along a window's side."""
    tiles: int = 3
    """Windows along the picture's side."""
    refused: str = ""
    """Part of the reason, for those that cannot be converted."""
    ordinary: bool = False
    """One of its family is in the ordinary tests, unless its family is large and another stands for it there."""


@dataclass(frozen=True)
class Findings:
    refused: str
    keys: bool
    one_window: bool
    tiling: float
    backward: bool


def _a(family: str, names: str, *, like: str = "", **more: object) -> list[Architecture]:
    """The first of the names stands for its family in the ordinary tests, unless that is `like` one that does."""
    ordinary = [not place and not like for place in range(len(names.split()))]
    return [Architecture(family, name, ordinary=it, **more) for name, it in zip(names.split(), ordinary, strict=True)]  # type: ignore[arg-type]


ARCHITECTURES = [
    *_a("ResNet", "timm:resnet18 torchvision:resnet18 timm:resnet26d timm:resnet50 timm:resnetblur50 timm:resnetv2_50"),
    *_a("ResNeXt", "timm:resnext26ts timm:resnext50_32x4d"),
    *_a("SE-ResNet, ECA, SK", "timm:seresnet18 timm:ecaresnet26t timm:skresnet18"),
    *_a("ResNeSt", "timm:resnest14d"),
    *_a("Res2Net", "timm:res2net50_26w_4s"),
    *_a("RegNet", "timm:regnety_002 timm:regnetx_002 timm:regnetz_005 torchvision:regnet_y_400mf"),
    *_a("NF-Net", "timm:nf_regnet_b0"),
    *_a("DenseNet", "torchvision:densenet121 timm:densenet121"),
    *_a("AlexNet", "torchvision:alexnet"),
    *_a("VGG", "torchvision:vgg11_bn torchvision:vgg11", like="AlexNet"),
    *_a("SqueezeNet", "torchvision:squeezenet1_1 torchvision:squeezenet1_0"),
    *_a("MobileNet v2", "timm:mobilenetv2_050 torchvision:mobilenet_v2"),
    *_a("MobileNet v3", "timm:mobilenetv3_small_050 torchvision:mobilenet_v3_small timm:lcnet_050 timm:hardcorenas_a"),
    *_a("MobileNet v4", "timm:mobilenetv4_conv_small_050"),
    *_a("MobileOne", "timm:mobileone_s0", like="RepVGG"),
    *_a("EfficientNet", "timm:efficientnet_b0 timm:tf_efficientnet_b0 timm:tinynet_e timm:mixnet_s"),
    *_a("MNASNet, FBNet", "torchvision:mnasnet0_5 timm:fbnetc_100 timm:spnasnet_100"),
    *_a("ReXNet", "timm:rexnet_100"),
    *_a("ConvNeXt", "timm:convnext_atto timm:convnextv2_atto torchvision:convnext_tiny"),
    *_a("CSPNet, DarkNet", "timm:cspresnet50 timm:cspdarknet53 timm:darknet53"),
    *_a("ShuffleNet", "torchvision:shufflenet_v2_x0_5"),
    *_a("GhostNet", "timm:ghostnet_050 timm:repghostnet_050"),
    *_a("RepVGG", "timm:repvgg_a0"),
    *_a("Inception", "torchvision:googlenet timm:inception_v4 timm:inception_resnet_v2"),
    *_a("Inception v3", "timm:inception_v3", like="Inception", size=96),
    *_a("Xception", "timm:xception41", like="MobileNet v2"),
    *_a("DLA", "timm:dla34"),
    *_a("HRNet", "timm:hrnet_w18_small"),
    *_a("VoVNet", "timm:ese_vovnet19b_dw"),
    *_a("GERNet", "timm:gernet_s"),
    *_a("DPN", "timm:dpn48b"),
    *_a("SelecSLS", "timm:selecsls42", like="DLA"),
    *_a("HGNet", "timm:hgnetv2_b0"),
    *_a("FasterNet, StarNet", "timm:fasternet_t0 timm:starnet_s1"),
    *_a("FocalNet", "timm:focalnet_tiny_srf"),
    *_a("MetaFormer", "timm:poolformer_s12"),
    *_a("ViT", "timm:vit_tiny_patch16_224 timm:vit_small_patch16_224", size=112, tiles=2),
    *_a("ViT, patches of 32", "torchvision:vit_b_32 timm:vit_small_patch32_224", like="ViT", size=32, tiles=7),
    *_a("ViT with registers", "timm:vit_medium_patch16_reg4_gap_256", size=128, tiles=2),
    *_a(
        "DeiT",
        "timm:deit_tiny_distilled_patch16_224 timm:deit_tiny_patch16_224 timm:deit3_small_patch16_224",
        size=112,
        tiles=2,
    ),
    *_a("GhostNet v2", "timm:ghostnetv2_100", refused="interpolate()"),
    *_a("TResNet", "timm:tresnet_m", refused="view()"),
    *_a("NASNet", "timm:nasnetalarge", refused="pad()"),
    *_a("GCNet", "timm:gcresnext26ts", refused="softmax()"),
    *_a("Swin", "timm:swin_tiny_patch4_window7_224 torchvision:swin_t", refused="over space|mixes windows"),
    *_a("MobileViT", "timm:mobilevit_xxs", refused="reshape()"),
    *_a("PVT", "timm:pvt_v2_b0", refused="permute()"),
    *_a("Mixer", "timm:mixer_s32_224", refused="linear()"),
    *_a("BoTNet", "timm:botnet26t_256", refused="reshape()"),
]


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that are not the identity, and no weights that begin as zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif not value.any() and value.is_floating_point():
                value.normal_(0, 0.02)
    return network.eval()


def findings(architecture: Architecture) -> Findings:
    """What becomes of one network."""
    side = architecture.size * architecture.tiles
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = load_network(architecture.name)
        try:
            foveated = foveate(network)
        except UnsupportedModule as error:
            return Findings(str(error), False, False, 0.0, False)
        lively(network)
        given = copy.deepcopy(network.state_dict())
        foveated.load_state_dict(given)
        foveated.eval()
        x = torch.randn(1, 3, side, side)
        one = Retina(side)(x, layout=Layout.windows(picture=(side, side), size=side, windows=[(0, 0, 0)]))
        tiles = Retina(architecture.size)(x, layout=Layout.tiling(picture=(side, side), size=architecture.size))
        with torch.no_grad():
            wanted = network(x)
            same = torch.equal(foveated(one), wanted)
            apart = float((foveated(tiles) - wanted).abs().max() / wanted.abs().max())
        fovea = Retina(architecture.size, levels=architecture.tiles.bit_length())(x)
        foveated(fovea).square().sum().backward()
    # Some parameters are used in training alone, or not at all.
    backward = all(p.grad.isfinite().all() for p in foveated.parameters() if p.grad is not None)
    backward = backward and any(p.grad is not None and p.grad.abs().sum() > 0 for p in foveated.parameters())
    keys = list(foveated.state_dict()) == list(given) and all(p.grad is None for p in network.parameters())
    return Findings("", keys, same, apart, backward)


def row(architecture: Architecture, found: Findings) -> str:
    if found.refused:
        return f"| {architecture.family} | `{architecture.name}` | refused | | | | `{found.refused}` |"
    yes = {True: "yes", False: "NO"}
    return (
        f"| {architecture.family} | `{architecture.name}` | yes | {yes[found.keys]} | {yes[found.one_window]} | "
        f"{yes[found.tiling <= TILING]} | backward: {yes[found.backward]} |"
    )


def main() -> None:
    rows = []
    for architecture in ARCHITECTURES:
        began = time.perf_counter()
        found = findings(architecture)
        rows.append(row(architecture, found))
        print(f"{rows[-1]} {found.tiling:.1e} {time.perf_counter() - began:.1f} s", file=sys.stderr)
    converted = sum("| refused |" not in line for line in rows)
    families = len({line.split("|")[1] for line in rows if "| refused |" not in line})
    TABLE.write_text(
        "# Which networks `foveate` converts\n\n"
        f"{converted} of {len(rows)} architectures, from {families} families; the others are refused with the module's "
        "path and the reason, never passed through. Written by `python tests/convert/architectures.py`; "
        "`pytest -m full` checks every row.\n\n"
        "- *keys*: the `state_dict` keys are the same, and the given network stays untouched.\n"
        "- *one window*: over the whole picture it gives the dense network's output bit for bit (float32).\n"
        f"- *tiling*: all windows at full resolution give it to float32 rounding (within {TILING:.0e} of its largest "
        "value).\n"
        "- *backward*: gradients reach the weights, and are finite.\n\n"
        "| family | network | converts | keys | one window | tiling | |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
