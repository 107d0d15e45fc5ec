"""MultiModalTransformer: a glimpse and a prompt in, text out; encoder, causal decoder, cross-attention.

After Vaswani et al. (2017), pre-norm, with modality embeddings on the encoder's tokens. The text to be predicted
never enters the encoder. `generate` (greedy, beams, sampling, streaming, caches) is Transformers' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import ModelOutput

from foveal.layout import Layout
from foveal.models.attention import Attention
from foveal.models.center_focus import CenterFocusCNN
from foveal.models.configuration import MultiModalTransformerConfig
from foveal.models.image_tokenizer import ImageTokenizer
from foveal.retina import Glimpse

IMAGE, PROMPT = 0, 1  # modalities


@dataclass
class EncoderOutput(ModelOutput):
    """What the encoder hands to the decoder.

    Args:
        last_hidden_state: (B, N, D).
        mask: (B, N) bool, False where a place only fills the batch.
    """

    last_hidden_state: Tensor | None = None
    mask: Tensor | None = None


class _Layer(nn.Module):
    """A pre-norm layer: self-attention, cross-attention in the decoder, feed-forward."""

    def __init__(self, config: MultiModalTransformerConfig, layer: int, *, decoder: bool) -> None:
        super().__init__()
        dim, drop = config.dim, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attend = Attention(dim, config.heads, dropout=drop, layer=layer if decoder else None)
        if decoder:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross = Attention(dim, config.heads, dropout=drop, layer=layer)
        self.feed = nn.Sequential(
            nn.Linear(dim, config.feedforward), nn.GELU(), nn.Dropout(drop), nn.Linear(config.feedforward, dim)
        )
        self.drop = nn.Dropout(drop)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
    ) -> Tensor:
        x = x + self.drop(self.attend(self.norm1(x), mask=mask, causal=causal, cache=cache))
        if context is not None:
            x = x + self.drop(self.cross(self.norm_cross(x), context, mask=context_mask, cache=cache))
        return x + self.drop(self.feed(self.norm2(x)))


class Encoder(nn.Module):
    """Image tokens and prompt tokens, with their modality, through self-attention layers."""

    main_input_name = "input_ids"

    def __init__(self, config: MultiModalTransformerConfig, embed: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embed = embed
        self.backbone = CenterFocusCNN(
            config.backbone, halo=config.halo, periphery_channels=config.periphery_channels
        )
        self.tokenizer = ImageTokenizer(self.backbone.channels, config.dim)
        self.modality = nn.Embedding(2, config.dim)
        self.position = nn.Embedding(config.max_tokens, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config, layer, decoder=False) for layer in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.dim)

    def look(self, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """The image tokens (B, N, D) of a glimpse and their mask (B, N)."""
        return self.tokenizer(self.backbone(glimpse), glimpse.layout)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        window_origins: Tensor | None = None,
        window_levels: Tensor | None = None,
        window_valid: Tensor | None = None,
        picture_sizes: Tensor | None = None,
        fixations: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_mask: Tensor | None = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> EncoderOutput:
        """Encodes glimpses and prompts; several prompts in a row may share one glimpse.

        Args:
            input_ids: (B * P, M) int64, the prompts; P of them for each picture.
            attention_mask: (B * P, M), 0 where a prompt is padded.
            pixel_values: (B, K, 3, S, S).
            window_origins, window_levels, window_valid, picture_sizes, fixations: the layout's tensors; see `Layout`.
            image_tokens, image_mask: in place of the pixels, tokens (B, N, D) and mask (B, N) from `look`.
        """
        if image_tokens is None or image_mask is None:
            if pixel_values is None:
                raise ValueError("the encoder needs pixel_values with their layout, or image_tokens; neither was given")
            image_tokens, image_mask = self.look(
                glimpse_of(pixel_values, window_origins, window_levels, window_valid, picture_sizes, fixations)
            )
        tokens = image_tokens + self.modality.weight[IMAGE]
        mask = image_mask
        if input_ids is not None:
            prompts, length = input_ids.shape
            if length > self.config.max_tokens:
                raise ValueError(f"a prompt of {length} tokens; at most {self.config.max_tokens} are read")
            tokens = repeat_rows(tokens, prompts, "prompts")
            mask = repeat_rows(mask, prompts, "prompts")
            places = torch.arange(length, device=input_ids.device)
            prompt = self.embed(input_ids) + self.position(places) + self.modality.weight[PROMPT]
            kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            tokens, mask = torch.cat([tokens, prompt], 1), torch.cat([mask, kept.bool()], 1)
        x = self.drop(tokens)
        for layer in self.layers:
            x = layer(x, mask=mask[:, None, None])
        return EncoderOutput(last_hidden_state=self.norm(x), mask=mask)


def glimpse_of(
    pixels: Tensor,
    origins: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    pictures: Tensor | None,
    fixations: Tensor | None,
) -> Glimpse:
    """A glimpse from the batch-first tensors that a processor gives; one whole window where no layout is given.

    Raises:
        ValueError: if several windows come without their layout.
    """
    if origins is None or levels is None or pictures is None:
        if pixels.shape[1] != 1:
            raise ValueError(
                f"{pixels.shape[1]} windows came without window_origins, window_levels and picture_sizes; "
                f"pass all that the processor returns"
            )
        origins = torch.zeros(len(pixels), 1, 2, dtype=torch.int64)
        levels = torch.zeros(len(pixels), 1, dtype=torch.int64)
        pictures = torch.full((len(pixels), 2), pixels.shape[-1])
    if valid is None:
        valid = torch.ones_like(levels, dtype=torch.bool)
    if fixations is None:
        fixations = torch.full((len(pixels), 1, 2), 0.5, dtype=torch.float64)
    return Glimpse(pixels, Layout(pixels.shape[-1], origins, levels, pictures, fixations, valid.bool()))


def repeat_rows(x: Tensor, rows: int, what: str) -> Tensor:
    """(B, ...) -> (rows, ...), each repeated in a row."""
    if rows % len(x):
        raise ValueError(f"{rows} {what} for {len(x)} pictures; expected the same number for each picture")
    return x if rows == len(x) else x.repeat_interleave(rows // len(x), 0)


class Decoder(nn.Module):
    """Text tokens, causally, with cross-attention to the encoder's output."""

    def __init__(self, config: MultiModalTransformerConfig, embed: nn.Embedding) -> None:
        super().__init__()
        self.embed = embed
        self.position = nn.Embedding(config.max_tokens, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config, layer, decoder=True) for layer in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self, ids: Tensor, context: Tensor, *, context_mask: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """(B, L) int64 and (B, N, D) -> (B, L, D)."""
        past = 0 if cache is None else int(cache.get_seq_length())
        length = ids.shape[1]
        if past + length > self.position.num_embeddings:
            raise ValueError(f"a text of {past + length} tokens; this model writes at most {self.position.num_embeddings}")
        x = self.embed(ids) + self.position(torch.arange(past, past + length, device=ids.device))
        x = self.drop(x)
        allowed = None
        causal = past == 0 and length > 1
        if mask is not None and not bool(mask.all()):
            rows = torch.arange(past, past + length, device=ids.device)[:, None]
            allowed = rows >= torch.arange(past + length, device=ids.device)
            allowed = allowed & mask[:, None, None, : past + length].bool()
            causal = False
        elif past and length > 1:
            rows = torch.arange(past, past + length, device=ids.device)[:, None]
            allowed = rows >= torch.arange(past + length, device=ids.device)
        for layer in self.layers:
            x = layer(
                x, context, mask=allowed, context_mask=context_mask[:, None, None], causal=causal, cache=cache
            )
        return self.norm(x)


class MultiModalTransformer(PreTrainedModel, GenerationMixin):
    """A glimpse and a prompt in, text out.

    Saved, loaded and run as any Transformers model: `from_pretrained`, `generate`, `pipeline("image-text-to-text")`.

    Args:
        config: see `MultiModalTransformerConfig`.

    Example:
        >>> model = MultiModalTransformer(MultiModalTransformerConfig(vocab_size=300, backbone="nano", dim=64))
        >>> out = model(pixel_values=torch.rand(1, 1, 3, 64, 64), labels=torch.tensor([[5, 6, 2]]))
        >>> out.logits.shape
        torch.Size([1, 3, 300])
    """

    config_class = MultiModalTransformerConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _tied_weights_keys = {  # noqa: RUF012
        "encoder.embed.weight": "embed.weight",
        "decoder.embed.weight": "embed.weight",
        "head.weight": "embed.weight",
    }
    _supports_cache_class = True
    _supports_sdpa = True
    config: MultiModalTransformerConfig

    def __init__(self, config: MultiModalTransformerConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.dim, padding_idx=config.pad_token_id)
        self.encoder = Encoder(config, self.embed)
        self.decoder = Decoder(config, self.embed)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.dim**-0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def get_encoder(self, modality: str | None = None) -> Encoder:
        return self.encoder

    def get_decoder(self) -> Decoder:
        return self.decoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = True,
        **looks: Any,
    ) -> Seq2SeqLMOutput:
        """One pass; with labels, the mean cross-entropy of every label that is not -100.

        Args:
            input_ids: (B * P, M) prompts, P for each picture.
            pixel_values, and in `looks` the layout's tensors: see `Encoder.forward`.
            decoder_input_ids: (B * P * T, L); from the labels, shifted right, by default.
            labels: (B * P * T, L), T texts for each prompt, -100 where padded.

        Returns:
            loss where there are labels, logits (B * P * T, L, vocabulary), the cache, the encoder's output.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, pixel_values, **looks)
        context, mask = encoder_outputs[0], encoder_outputs[1]
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("the decoder needs decoder_input_ids or labels; neither was given")
            decoder_input_ids = self.shift_right(labels)
        context = repeat_rows(context, len(decoder_input_ids), "texts")
        mask = repeat_rows(mask, len(decoder_input_ids), "texts")
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        hidden = self.decoder(
            decoder_input_ids, context, context_mask=mask, mask=decoder_attention_mask, cache=past_key_values
        )
        logits = self.head(hidden)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,  # type: ignore[arg-type]
            encoder_last_hidden_state=context,
        )

    def shift_right(self, labels: Tensor) -> Tensor:
        """(N, L) labels to what the decoder reads: the start token, then every label but the last."""
        before = labels[:, :-1].masked_fill(labels[:, :-1] == -100, self.config.pad_token_id)
        return torch.cat([torch.full_like(labels[:, :1], self.config.bos_token_id), before], 1)
