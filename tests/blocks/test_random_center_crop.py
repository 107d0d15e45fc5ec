import pytest
import torch
from torch.nn import functional as F

from foveal.blocks.registry import create_block
from foveal.convert.foveate import UnsupportedModule, foveate
from foveal.retina import Retina

NO_MAPS = ("random_center_crop",)


def test_every_batch_comes_out_at_one_size_whatever_the_picture_s():
    for mode in (True, False):
        crop = create_block("random_center_crop", size=12).train(mode)
        for shape in ((1, 3, 40, 30), (3, 1, 12, 12), (2, 3, 5, 50)):
            x = torch.rand(shape)
            before = x.clone()
            assert crop(x).shape == (*shape[:2], 12, 12)
            assert torch.equal(x, before)


def test_evaluation_takes_the_largest_crop_on_the_fixation():
    crop = create_block("random_center_crop", size=20, scale=(0.2, 0.5)).eval()
    x = torch.rand(2, 3, 40, 60)
    assert torch.equal(crop(x), x[:, :, 10:30, 20:40])
    found = crop(x, fixation=torch.tensor([[0.5, 0.25], [0.75, 0.5]]))
    assert torch.equal(found[0], x[0, :, 10:30, 5:25])
    assert torch.equal(found[1], x[1, :, 20:40, 20:40])
    assert torch.equal(crop(x, fixation=(0.0, 1.0)), x[:, :, :20, 40:])  # moved inside


def test_training_draws_scale_and_place_for_each_picture_within_their_ranges():
    torch.manual_seed(0)
    crop = create_block("random_center_crop", size=8, scale=(0.3, 0.6), jitter=0.2).train()
    x = torch.empty(2000, 1, 100, 200)
    boxes = crop.boxes(x, fixation=torch.tensor([0.4, 0.5])).double()
    side = boxes[:, 2]
    assert torch.equal(side, boxes[:, 3])
    assert (side.min(), side.max()) == (30, 60)
    assert side.mean().item() == pytest.approx(45, abs=1)
    off = (boxes[:, :2] + side[:, None] / 2 - torch.tensor([40.0, 100.0])) / side[:, None]
    assert off.abs().max() <= 0.2 + 0.5 / 30 + 1e-9  # rounded to whole pixels
    assert off.mean(0).tolist() == pytest.approx([0, 0], abs=0.02)
    assert off.std(0).tolist() == pytest.approx([0.4 / 12**0.5] * 2, rel=0.1)
    assert len({tuple(box) for box in boxes.tolist()}) > 1000


def test_crops_never_leave_the_picture():
    torch.manual_seed(0)
    crop = create_block("random_center_crop", size=8, jitter=2.0).train()
    boxes = crop.boxes(torch.empty(500, 1, 33, 47), fixation=torch.rand(500, 2))
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 33
    assert (boxes[:, 1] + boxes[:, 3]).max() <= 47


def test_the_same_seed_gives_the_same_crops():
    crop, x = create_block("random_center_crop", size=8).train(), torch.rand(4, 3, 30, 30)
    torch.manual_seed(5)
    one = crop(x)
    torch.manual_seed(5)
    assert torch.equal(one, crop(x))
    assert not torch.equal(one, crop(x))


def test_what_shrinks_is_averaged_and_not_picked():
    stripes = torch.arange(64).remainder(2).float().expand(1, 1, 64, 64)
    shrunk = create_block("random_center_crop", size=8).eval()(stripes)
    torch.testing.assert_close(shrunk, torch.full_like(shrunk, 0.5), atol=0.05, rtol=0)
    x = torch.rand(1, 3, 64, 64)
    wanted = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(create_block("random_center_crop", size=8).eval()(x), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cropped_in_single(dtype):
    x = torch.rand(2, 3, 30, 40)
    crop = create_block("random_center_crop", size=8).eval()
    found = crop(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), crop(x), rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_a_batch_of_no_pictures_gives_one():
    for training in (True, False):
        crop = create_block("random_center_crop", size=8).train(training)
        assert crop(torch.rand(0, 3, 30, 40)).shape == (0, 3, 8, 8)


def test_gradients_reach_the_pixels_of_the_crop_alone():
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    crop = create_block("random_center_crop", size=4, scale=(0.5, 0.5)).eval()
    assert torch.autograd.gradcheck(crop, (x,), fast_mode=True)
    crop(x).sum().backward()
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 4:12] = True
    assert torch.equal(x.grad[0, 0] != 0, inside)


def test_glimpses_are_refused():
    with pytest.raises(UnsupportedModule):
        foveate(create_block("random_center_crop", size=8))(Retina(16, levels=2)(torch.rand(3, 32, 32)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"size": 8, "scale": (0.0, 0.5)}, r"scale is \(0.0, 0.5\)"),
        ({"size": 8, "scale": (0.8, 0.5)}, "scale is"),
        ({"size": 8, "scale": (0.8, 1.5)}, "scale is"),
        ({"size": 8, "jitter": -0.1}, "jitter is -0.1"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_block("random_center_crop", **options)


def test_other_shapes_are_refused():
    crop = create_block("random_center_crop", size=8)
    with pytest.raises(ValueError, match=r"pictures have shape \(3, 8, 8\)"):
        crop(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"fixation has shape \(3, 2\); expected \(2,\) or \(2, 2\)"):
        crop(torch.rand(2, 3, 8, 8), fixation=torch.rand(3, 2))
