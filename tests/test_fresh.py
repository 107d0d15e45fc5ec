"""Memory for large results: as good as any other, and its owner's own."""

import mmap

import pytest
import torch

import foveal.fresh
from foveal.fresh import fresh


@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (0, 4)])
@pytest.mark.parametrize("large", [0, 1 << 25])
def test_it_is_memory_like_any_other(shape, large, monkeypatch):
    monkeypatch.setattr(foveal.fresh, "LARGE", max(large, 1))
    one, other = fresh(*shape).fill_(1), fresh(*shape).fill_(2)
    assert one.shape == shape
    assert one.dtype == torch.float32
    assert torch.equal(one, torch.ones(shape))
    assert torch.equal(one + 1, other)
    with torch.inference_mode():
        assert torch.equal(fresh(*shape).fill_(1), one)


def test_systems_without_large_pages_give_what_they_have(monkeypatch):
    monkeypatch.setattr(foveal.fresh, "LARGE", 1)
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1, raising=False)
    assert fresh(4).zero_().sum() == 0
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert fresh(4).zero_().sum() == 0
