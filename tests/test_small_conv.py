import pytest
import torch
from torch.nn import functional as F

from foveal.small_conv import conv_of_padded


@pytest.mark.parametrize("shape", [(24, 5, 4, 4), (2, 5, 6, 9), (3, 5, 3, 3), (400, 5, 6, 6)])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
def test_it_is_the_ordinary_convolution(shape, kernel, stride):
    torch.manual_seed(0)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(shape).contiguous(memory_format=layout)
        weight, bias = torch.randn(7, 5, *kernel).contiguous(memory_format=layout), torch.randn(7)
        for given in (bias, None):
            wanted = F.conv2d(x.double(), weight.double(), None if given is None else given.double(), stride)
            with torch.no_grad():
                found = conv_of_padded(x, weight, given, stride, (1, 1), 1)
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
            assert found.shape == wanted.shape


@pytest.mark.parametrize(
    ("cells", "kernel", "stride", "gathered"),
    [(8, 1, 2, True), (2, 1, 2, True), (16, 1, 2, False), (4, 1, 1, False), (4, 3, 2, True), (12, 3, 1, False)],
)
def test_few_cells_are_gathered_and_many_run_the_ordinary_one(cells, kernel, stride, gathered, monkeypatch):
    calls, ordinary = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *given: calls.append(1) or ordinary(*given))
    x, weight = (
        torch.randn(shape).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 4, cells, cells), (3, 4, kernel, kernel))
    )
    with torch.no_grad():
        found = conv_of_padded(x, weight, None, (stride, stride), (1, 1), 1)
    assert bool(calls) is not gathered
    torch.testing.assert_close(found, ordinary(x, weight, None, stride), rtol=1e-5, atol=1e-5)


def test_groups_dilation_gradients_and_other_dtypes_run_the_ordinary_one():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 2, 3, 3)
    assert torch.equal(conv_of_padded(x, weight, None, (1, 1), (2, 2), 2), F.conv2d(x, weight, None, 1, 0, 2, 2))
    whole = torch.randn(4, 4, 3, 3, requires_grad=True)
    assert torch.equal(conv_of_padded(x, whole, None, (1, 1), (1, 1), 1), F.conv2d(x, whole))
    conv_of_padded(x, whole, None, (1, 1), (1, 1), 1).sum().backward()
    assert whole.grad is not None
    with torch.no_grad():
        assert conv_of_padded(x.double(), whole.double(), None, (2, 2), (1, 1), 1).dtype == torch.float64
