from pathlib import Path

import pytest
from transformers import AutoConfig

from foveal.models import MultiModalTransformer, MultiModalTransformerConfig


def test_every_value_survives_saving_and_loading(tmp_path: Path) -> None:
    given = {
        "vocab_size": 321,
        "backbone": "tiny",
        "halo": False,
        "periphery_channels": 0.5,
        "dim": 48,
        "heads": 3,
        "encoder_layers": 1,
        "decoder_layers": 4,
        "feedforward": 96,
        "dropout": 0.2,
        "max_tokens": 17,
        "pad_token_id": 5,
        "bos_token_id": 6,
        "eos_token_id": 7,
    }
    MultiModalTransformerConfig(**given).save_pretrained(tmp_path)

    loaded = AutoConfig.from_pretrained(tmp_path)

    assert type(loaded) is MultiModalTransformerConfig
    assert {name: getattr(loaded, name) for name in given} == given
    assert loaded.decoder_start_token_id == 6


def test_names_that_transformers_looks_for_are_there() -> None:
    config = MultiModalTransformerConfig(dim=48, heads=3, decoder_layers=4)

    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (48, 3, 4)
    assert config.is_encoder_decoder
    assert config.tie_word_embeddings


def test_a_start_token_of_its_own_is_kept() -> None:
    assert MultiModalTransformerConfig(decoder_start_token_id=9).decoder_start_token_id == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "5 heads do not divide a width of 64"),
        ({"backbone": "huge"}, "unknown size 'huge'; choose one of nano"),
        ({"periphery_channels": 0}, r"periphery_channels is 0; expected a fraction in \(0, 1\]"),
        ({"periphery_channels": 1.5}, r"periphery_channels is 1.5; expected a fraction in \(0, 1\]"),
    ],
)
def test_what_no_network_can_be_built_from_is_refused(changes: dict[str, object], message: str) -> None:
    config = MultiModalTransformerConfig(**{"vocab_size": 300, "backbone": "nano", "dim": 64, "heads": 4, **changes})

    with pytest.raises(ValueError, match=message):
        MultiModalTransformer(config)
