import pytest
import torch
from safetensors.torch import save_file

from foveal import Glimpse, Layout, Retina, open_picture
from foveal.models.saliency import SaliencyHead, load_saliency, salient_fixation
from foveal.policy.policies import Scanpath


def test_a_logit_for_every_four_cells_whatever_the_retina_made_of_the_colours():
    head = load_saliency()
    pictures = [torch.rand(3, 100, 128), torch.rand(3, 64, 64)]
    plain = Retina(64, levels=1, enlarge=True)(pictures)
    scaled = Retina(64, levels=1, enlarge=True, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.2])(pictures)
    with torch.no_grad():
        assert head(plain).shape == (2, 16, 16)
        torch.testing.assert_close(head(scaled), head(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fine", [0, 4])
def test_gradients_reach_pixels_and_weights(fine):
    head = SaliencyHead(8, fine=fine)
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    head(Retina(64, levels=1)(x)).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(value.grad is not None and value.grad.isfinite().all() for value in head.parameters())


def test_a_saved_head_comes_back_as_fine_as_it_was(tmp_path):
    head = SaliencyHead(8, fine=4).eval()
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    glimpse = Retina(32, levels=1)(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(load_saliency(tmp_path / "head.safetensors")(glimpse), head(glimpse), rtol=0, atol=0)


def test_a_fine_heads_first_convolutions_skip_no_cell():
    """Moved by one cell, their answers are the same, moved by one cell: a stride would answer to every other one."""
    x = torch.rand(1, 6, 16, 16)
    fine = SaliencyHead(8, fine=4).eval().fine
    moved = fine(x.roll(1, 3))
    assert moved.shape[-2:] == x.shape[-2:]
    torch.testing.assert_close(moved[..., 4:-4], fine(x).roll(1, 3)[..., 4:-4])


def test_it_is_a_score_for_a_scanpath():
    layout = Scanpath(2, score=load_saliency())(torch.rand(3, 256, 200), Retina(64, levels=3))
    assert layout.fixations.shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 5, 400), (3, 700, 300)])
def test_a_place_inside_any_picture(shape):
    for picture in (torch.rand(shape), torch.full(shape, 0.5), (torch.rand(shape) * 255).byte()):
        assert all(0 <= part <= 1 for part in salient_fixation(picture))


def test_what_it_cannot_look_at_or_load_is_refused(tmp_path):
    layout = Layout.foveal(picture=(64, 64), size=16, levels=3)
    with pytest.raises(ValueError, match="3 windows of 16 cells"):
        SaliencyHead()(Glimpse(torch.rand(1, 3, 3, 16, 16), layout))
    for options in ({"channels": 0}, {"fine": -1}, {"fine": 2.5}, {"fine": None}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            SaliencyHead(**options)
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    save_file({"last.weight": torch.zeros(())}, tmp_path / "flat.safetensors")
    save_file({"last.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "narrow.safetensors")
    fine = {"last.weight": torch.zeros(1, 11, 1, 1), "fine.0.weight": torch.zeros(())}
    save_file(fine, tmp_path / "fine.safetensors")
    for name in ("no.safetensors", "damaged.safetensors", "flat.safetensors", "narrow.safetensors", "fine.safetensors"):
        with pytest.raises(ValueError, match="cannot be loaded as a saliency head"):
            load_saliency(tmp_path / name)


def test_it_finds_what_stands_out():
    """On a real photograph with the colours of a real thing pasted elsewhere, the place follows the thing."""
    skimage = pytest.importorskip("skimage.data")
    face = torch.from_numpy(skimage.astronaut()).permute(2, 0, 1)[:, 0:230, 130:330]
    places = []
    for left in (40, 560):
        scene = torch.full((3, 600, 800), 150, dtype=torch.uint8)
        scene[:, 180:410, left : left + 200] = face
        places.append(salient_fixation(open_picture(scene))[1] * 800)
    assert 40 < places[0] < 240
    assert 560 < places[1] < 760
