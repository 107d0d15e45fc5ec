"""The configuration of the multimodal Transformer, saved as `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class MultiModalTransformerConfig(PretrainedConfig):
    """How the network that reads glimpses and writes text is built.

    Args:
        vocab_size: of the tokenizer.
        backbone: name of a `CenterFocusCNN` size.
        halo: fill the rims of the windows from those around.
        periphery_channels: fraction of the channels that windows coarser than level 0 compute.
        gating: a `ChannelGating` after each stage of the backbone.
        dim: width D of the tokens.
        heads: of every attention.
        encoder_layers, decoder_layers: depth of both sides.
        feedforward: hidden width of the feed-forward layers.
        dropout: in training.
        max_tokens: longest text, in tokens, its start and end included.

    Example:
        >>> MultiModalTransformerConfig(vocab_size=1000, backbone="nano", dim=64).model_type
        'foveal'
    """

    model_type = "foveal"
    attribute_map = {"hidden_size": "dim", "num_attention_heads": "heads", "num_hidden_layers": "decoder_layers"}  # noqa: RUF012

    def __init__(
        self,
        *,
        vocab_size: int = 6000,
        backbone: str = "small",
        halo: bool = True,
        periphery_channels: float = 1.0,
        gating: bool = False,
        dim: int = 256,
        heads: int = 4,
        encoder_layers: int = 2,
        decoder_layers: int = 3,
        feedforward: int = 1024,
        dropout: float = 0.1,
        max_tokens: int = 40,
        pad_token_id: int = 0,
        bos_token_id: int = 1,
        eos_token_id: int = 2,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.backbone, self.halo = backbone, halo
        self.periphery_channels, self.gating = periphery_channels, gating
        self.dim, self.heads, self.feedforward, self.dropout = dim, heads, feedforward, dropout
        self.encoder_layers, self.decoder_layers = encoder_layers, decoder_layers
        self.max_tokens = max_tokens
        # As class attributes these break `generate`: they belong to the instance.
        kwargs.setdefault("is_encoder_decoder", True)
        kwargs.setdefault("decoder_start_token_id", bos_token_id)
        kwargs.setdefault("tie_word_embeddings", True)
        kwargs.update(pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id)
        super().__init__(**kwargs)
