"""A pyramid of one picture: what a retina reads from its copies is what it would have averaged itself."""

import pickle

import pytest
import torch

from foveal import Layout, Retina, open_picture


@pytest.mark.parametrize("sides", [(512, 512), (500, 333), (257, 1000), (65, 64)])
@pytest.mark.parametrize("fixation", ["center", (0.0, 1.0), (0.83, 0.41)])
def test_looks_are_the_same_as_without(sides, fixation):
    picture = torch.rand(3, *sides, dtype=torch.float64)
    retina = Retina(32)
    plain, copied = retina(picture, fixation), retina(open_picture(picture).pyramid(), fixation)
    assert torch.equal(plain.layout.origins, copied.layout.origins)
    torch.testing.assert_close(copied.pixels, plain.pixels, rtol=0, atol=1e-14)


def test_every_pixel_of_a_copy_is_the_mean_of_those_that_it_has():
    picture = torch.rand(2, 77, 131, dtype=torch.float64)
    copies = open_picture(picture).pyramid()
    for shrink, (height, width) in copies.sizes.items():
        copy = copies.read(shrink=shrink)
        assert copy.shape == (2, height, width)
        for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width - 1)):
            box = picture[:, row * shrink : (row + 1) * shrink, column * shrink : (column + 1) * shrink]
            torch.testing.assert_close(copy[:, row, column], box.mean((1, 2)), rtol=0, atol=1e-14)


def test_bytes_come_out_as_from_0_to_1():
    picture = torch.randint(0, 256, (3, 300, 200), dtype=torch.uint8)
    copies = open_picture(picture).pyramid()
    assert copies.read(0, 0, 1, 1).dtype == torch.uint8
    torch.testing.assert_close(Retina(32)(copies).pixels, Retina(32)(picture).pixels, rtol=0, atol=1e-6)


def test_a_picture_read_at_a_fraction_is_averaged_from_its_own_pixels():
    picture = torch.rand(3, 700, 500)
    plain, copied = (Retina(32, 2)(source) for source in (picture, open_picture(picture).pyramid()))
    assert torch.equal(plain.pixels, copied.pixels)


def test_only_copies_are_read_where_they_serve():
    reads = []
    pixels = torch.rand(3, 512, 512)
    copies = open_picture(pixels).pyramid()
    retina = Retina(32)
    retina(copies)  # makes them

    def counted(top, left, height, width):
        reads.append(height * width)
        return pixels[:, top : top + height, left : left + width]

    copies._source._read = counted
    retina(copies, (0.2, 0.7))
    assert 32 * 32 in reads  # the fovea
    assert max(reads) == 32 * 32


def test_gradients_reach_the_picture_whatever_was_looked_at_before():
    picture = torch.rand(3, 64, 64, requires_grad=True)
    retina, copies = Retina(16), open_picture(picture).pyramid()
    with torch.no_grad():
        retina(copies)
    with torch.inference_mode():
        retina(copies)
    (mine,) = torch.autograd.grad(retina(copies).pixels.sum(), picture)
    (wanted,) = torch.autograd.grad(retina(picture).pixels.sum(), picture)
    assert torch.equal(mine, wanted)
    assert not copies.read(shrink=2).is_inference()


def test_a_pyramid_can_be_sent_to_another_process():
    copies = open_picture(torch.rand(3, 64, 64)).pyramid()
    copies.read(shrink=4)
    assert torch.equal(Retina(16)(pickle.loads(pickle.dumps(copies))).pixels, Retina(16)(copies).pixels)


def test_gradients_pass_through_a_picture_with_copies():
    picture = torch.rand(1, 36, 26, dtype=torch.float64, requires_grad=True)
    layout = Layout.foveal(picture=(36, 26), size=8, levels="auto")

    def cells(pixels):
        return Retina(8)(open_picture(pixels).pyramid(), layout=layout).pixels

    assert torch.autograd.gradcheck(cells, picture)


def test_a_pyramid_of_a_pyramid_is_itself():
    copies = open_picture(torch.rand(3, 40, 40)).pyramid()
    assert copies.pyramid() is copies
