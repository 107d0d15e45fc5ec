"""What has to hold on an accelerator, too: skipped where there is none."""

import pytest
import torch
from torch import nn

from foveal import Layout, Retina, foveate, unfoveate
from foveal.blocks.kept_norm import norm_kept
from foveal.blocks.tile_sparse import TileSparseConv2d
from foveal.policy.learned import draw_places, mixture_loss
from foveal.policy.scores import places

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def looks(batch=5, device="cuda"):
    torch.manual_seed(1)
    layout = Layout.foveal(picture=[(120, 90)] * batch, size=32, levels=3, fixation=torch.rand(batch, 2), lattice=8)
    return torch.rand(batch, 3, 120, 90), layout


def test_a_batch_in_its_memory_is_averaged_as_on_the_cpu():
    pictures, layout = looks()
    retina = Retina(32, mean=[0.4] * 3, std=[0.2] * 3)
    plain = retina(pictures, layout=layout)
    for moved in (layout, layout.to("cuda")):
        torch.testing.assert_close(retina(pictures.cuda(), layout=moved).pixels.cpu(), plain.pixels)


def test_its_gradients_are_those_of_the_cpu():
    pictures, layout = looks()
    one, other = pictures.clone().requires_grad_(), pictures.cuda().requires_grad_()
    for x in (one, other):
        Retina(32)(x, layout=layout).pixels.square().sum().backward()
    torch.testing.assert_close(other.grad.cpu(), one.grad)


@pytest.mark.parametrize("halo", [True, False])
@pytest.mark.parametrize("pool", ["area", "cell"])
def test_a_foveated_network_gives_what_it_gives_on_the_cpu(halo, pool):
    pictures, layout = looks()
    made = foveate(network().eval(), halo=halo, pool=pool).double()
    plain = made(Retina(32)(pictures.double(), layout=layout))
    moved = made.cuda()
    for where in (layout, layout.to("cuda")):
        found = moved(Retina(32)(pictures.double().cuda(), layout=where))
        torch.testing.assert_close(found.cpu(), plain)


def test_a_training_step_has_the_gradients_of_the_cpu():
    pictures, layout = looks()
    grads = []
    for device in ("cpu", "cuda"):
        made = foveate(network()).double().train().to(device)
        made(Retina(32)(pictures.double().to(device), layout=layout.to(device))).square().sum().backward()
        grads.append([parameter.grad.cpu() for parameter in made.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(other, one)


def test_window_maps_are_laid_back_where_they_are():
    _, layout = looks()
    maps = torch.rand(5, 3, 4, 8, 8)
    plain = unfoveate(maps, layout, (30, 20))
    torch.testing.assert_close(unfoveate(maps.cuda(), layout, (30, 20)).cpu(), plain, rtol=0, atol=0)


def test_places_are_chosen_and_drawn_from_scores_that_lie_there():
    _, layout = looks()
    widest, scores = layout.widest(), torch.rand(5, 8, 8)
    for where in (widest, widest.to("cuda")):
        torch.testing.assert_close(places(scores.cuda(), where).cpu(), places(scores, widest))
        index, fixations = draw_places(scores.cuda(), where, count=3)
        assert index.shape == (5, 3)
        assert fixations.shape == (5, 3, 2)
        loss = mixture_loss(scores.cuda(), where, scores.cuda().log())
        torch.testing.assert_close(loss.cpu(), mixture_loss(scores, widest, scores.log()))


def test_half_precision_periphery():
    pictures, layout = looks()
    made = foveate(network().eval(), periphery_dtype=torch.bfloat16)
    plain = made(Retina(32)(pictures, layout=layout))
    found = made.cuda()(Retina(32)(pictures.cuda(), layout=layout))
    torch.testing.assert_close(found.cpu(), plain, rtol=0.02, atol=0.02)


def test_tiles_are_skipped_as_on_the_cpu():
    torch.manual_seed(0)
    conv, x = TileSparseConv2d(8, 8, 3, keep=0.4).eval().double(), torch.rand(2, 8, 50, 70).double()
    plain = conv(x)
    torch.testing.assert_close(conv.cuda()(x.cuda()).cpu(), plain)


def test_statistics_that_leave_out_cells_beside_the_picture_have_their_gradients():
    torch.manual_seed(0)
    grads = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(8).double().to(device)
        x = torch.rand(6, 8, 4, 4, dtype=torch.float64).to(device).contiguous(memory_format=torch.channels_last)
        kept = (torch.rand(6, 4, 4, dtype=torch.float64) < 0.6).to(device)
        x.requires_grad_()
        (norm_kept(norm, x, kept) * torch.arange(4, device=device)).square().sum().backward()
        grads.append([value.cpu() for value in (x.grad, norm.weight.grad, norm.bias.grad, norm.running_var)])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(other, one)
