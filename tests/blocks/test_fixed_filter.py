"""What all filters share."""

import pytest
import torch

from foveal.blocks.registry import create_block, list_blocks

FILTERS = list_blocks(family="filters")


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused(name, dtype):
    with pytest.raises(ValueError, match=r"expected floats, x.float\(\) / 255"):
        create_block(name)(torch.ones(1, 3, 20, 20).to(dtype))
