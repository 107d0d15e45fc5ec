"""A model with random weights, its processor and pictures of unlike sizes, all as small as they can be."""

from collections.abc import Callable

import pytest
import torch
from tiny import TEXTS
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foveal.models import GlimpseProcessor, MultiModalProcessor, MultiModalTransformer, MultiModalTransformerConfig
from foveal.training.vocabulary import train_vocabulary

SMALL = {"backbone": "nano", "dim": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 64}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """English and Chinese, 320 pieces."""
    return train_vocabulary(TEXTS * 3, size=320, languages=["en", "zh"])


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerBase) -> Callable[..., MultiModalTransformer]:
    """Makes a model whose random weights are always the same; arguments change its configuration."""

    def make(**changes: object) -> MultiModalTransformer:
        torch.manual_seed(0)
        model = MultiModalTransformer(
            MultiModalTransformerConfig(**{"vocab_size": len(tokenizer), "max_tokens": 24, **SMALL, **changes})
        )
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith("norm2.weight") and "backbone" in name:
                    value.uniform_(0.5, 1)  # a new block is its shortcut alone; these do something
            model.embed.weight *= 2  # random texts are then less monotonous
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., MultiModalTransformer]) -> MultiModalTransformer:
    """One that many tests share, so none may change it."""
    return make_model()


@pytest.fixture
def processor(tokenizer: PreTrainedTokenizerBase) -> MultiModalProcessor:
    """Two windows of 32 cells."""
    return MultiModalProcessor(GlimpseProcessor(size=32, levels=2), tokenizer)


@pytest.fixture(scope="session")
def pictures() -> list[Tensor]:
    """Three pictures that need two, three and four levels of 32 cells."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, height, width, generator=generator) for height, width in ((50, 60), (100, 40), (33, 200))]
