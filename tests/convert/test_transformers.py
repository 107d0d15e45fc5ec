"""Vision transformers of timm and torchvision: other than the stock network is refused, hooks run or are refused."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveal import Layout, Retina, UnsupportedModule, foveate

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")
TimmViT, TorchvisionViT = timm.models.vision_transformer.VisionTransformer, torchvision.models.VisionTransformer
Distilled = timm.models.deit.VisionTransformerDistilled


def timm_vit(kind: Any = TimmViT, **options: object) -> Any:
    return drawn(kind(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=5, **options))


def torchvision_vit(kind: Any = TorchvisionViT, **options: object) -> Any:
    return drawn(kind(64, 16, 2, 2, 32, 64, num_classes=5, **options))


def drawn(network: nn.Module) -> nn.Module:
    for value in network.parameters():
        nn.init.normal_(value, 0, 0.1)
    return network.eval()


def unlike_counts() -> Any:
    """Two pictures, of which the first has fewer tokens."""
    x = torch.rand(2, 3, 64, 64)
    layouts = [Layout.foveal(picture=(64, 64), size=32), Layout.tiling(picture=(64, 64), size=32)]
    return Retina(32)(x[:1], layout=layouts[0]), Retina(32)(x, layout=Layout.stack(layouts))


def overriding(kind: Any, method: str) -> Any:
    def own(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(made, self), method)(*args, **kwargs)

    made = type("Own", (kind,), {method: own})
    return made


@pytest.mark.parametrize("method", ["forward", "forward_features", "forward_head", "forward_intermediates", "pool"])
def test_a_subclass_of_timm_s_that_overrides_what_is_replaced_is_refused(method: str) -> None:
    with pytest.raises(UnsupportedModule, match=rf"^the network itself \(Own\): has a {method}\(\) of its own"):
        foveate(timm_vit(overriding(TimmViT, method)))


def test_a_subclass_of_torchvision_s_that_overrides_what_is_replaced_is_refused() -> None:
    for method in ("forward", "_process_input"):
        with pytest.raises(UnsupportedModule, match=rf"^the network itself \(Own\): has a {method}\(\) of its own"):
            foveate(torchvision_vit(overriding(TorchvisionViT, method)))
    network = torchvision_vit()
    network.encoder.__class__ = overriding(type(network.encoder), "forward")
    with pytest.raises(UnsupportedModule, match=r"^encoder \(Own\)"):
        foveate(network)
    network = torchvision_vit()
    network.forward = lambda x: x
    with pytest.raises(UnsupportedModule, match=r"has a forward\(\) of its own"):
        foveate(network)


def test_other_ways_to_cut_patches_are_refused() -> None:
    stem = [torchvision.models.vision_transformer.ConvStemConfig(8, 3, 16)]
    with pytest.raises(UnsupportedModule, match=r"^conv_proj \(Sequential\)"):
        foveate(torchvision_vit(conv_stem_configs=stem))
    network = timm_vit()
    network.patch_embed.proj = nn.Conv2d(3, 32, 18, 16, 1)
    with pytest.raises(UnsupportedModule, match=r"^patch_embed.proj \(Conv2d\)"):
        foveate(network)
    network = timm_vit()
    network.patch_embed.__class__ = overriding(type(network.patch_embed), "forward")
    with pytest.raises(UnsupportedModule, match=r"^patch_embed \(Own\)"):
        foveate(network)


def test_subclasses_that_replace_nothing_of_it_convert() -> None:
    x = torch.rand(2, 3, 64, 64)
    tiling = Retina(32)(x, layout=Layout.tiling(picture=(64, 64), size=32))
    networks = [make(type("Own", (kind,), {"more": 1})) for make, kind in ((timm_vit, TimmViT), (timm_vit, Distilled))]
    for network in (*networks, torchvision_vit(type("Own", (TorchvisionViT,), {}))):
        with torch.no_grad():
            torch.testing.assert_close(foveate(network)(tiling), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [timm_vit, torchvision_vit])
def test_hooks_on_blocks_run_alone_and_in_a_batch_of_unlike_numbers_of_tokens(make: Any) -> None:
    network, added, calls = make(), torch.randn(32), []

    def hook(module: nn.Module, args: Any, result: Tensor) -> Tensor:
        calls.append(module)
        return result + added

    blocks = network.blocks if make is timm_vit else network.encoder.layers
    blocks[0].register_forward_hook(hook)
    blocks[1].register_forward_pre_hook(lambda module, args: (args[0] - 2 * added,))
    made, (one, both) = foveate(network), unlike_counts()
    with torch.no_grad():
        alone, together = made(one), made(both)
    assert len(calls) == 2
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "path"), [(timm_vit, "blocks"), (torchvision_vit, "encoder.layers")])
def test_hooks_on_all_blocks_together_run_where_these_are_called_as_a_whole(make: Any, path: str) -> None:
    network = make()
    network.get_submodule(path).register_forward_hook(lambda module, args, result: -result)
    made, (one, both) = foveate(network), unlike_counts()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        tiled = made(Retina(32)(x, layout=Layout.tiling(picture=(64, 64), size=32)))
        torch.testing.assert_close(tiled, network(x), rtol=1e-4, atol=1e-5)
    assert made(one).isfinite().all()
    with pytest.raises(UnsupportedModule, match=rf"^{path} \(Sequential\): has hooks"):
        made(both)


@pytest.mark.parametrize(
    ("make", "path"), [(timm_vit, ""), (timm_vit, "patch_embed"), (torchvision_vit, ""), (torchvision_vit, "encoder")]
)
def test_hooks_on_what_is_called_in_parts_are_refused(make: Any, path: str) -> None:
    network = make()
    network.get_submodule(path).register_forward_hook(lambda module, args, result: -result)
    with pytest.raises(UnsupportedModule, match=rf"^{path or 'the network itself'} \(.*\): has hooks"):
        foveate(network)(unlike_counts()[0])
    made, calls = foveate(make()), []
    made.register_forward_hook(lambda *args: calls.append(args))
    made(unlike_counts()[0])
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["efficientnet_b0", "vit"])
def test_a_whole_foveated_network_is_saved_and_copied(name: str) -> None:
    network = torchvision_vit() if name == "vit" else torchvision.models.efficientnet_b0().eval()
    made, file = foveate(network), io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    assert str(network.children().__next__()) == str(made.network.children().__next__())
    look = Retina(64)(torch.rand(1, 3, 64, 64))
    with torch.no_grad():
        wanted = made(look)
        for again in (torch.load(file, weights_only=False), copy.deepcopy(made)):
            assert torch.equal(again(look), wanted)
