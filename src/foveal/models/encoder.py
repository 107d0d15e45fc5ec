"""The encoder: image tokens and prompt tokens, each told its modality, attending to one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from foveal.layout import Layout
from foveal.models.attention import TransformerLayer
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


class Encoder(nn.Module):
    """Image tokens and prompt tokens, with their modality, through self-attention layers."""

    main_input_name = "input_ids"

    def __init__(self, config: MultiModalTransformerConfig, embed: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embed = embed
        self.backbone = CenterFocusCNN(
            config.backbone, halo=config.halo, periphery_channels=config.periphery_channels, gating=config.gating
        )
        self.tokenizer = ImageTokenizer(self.backbone.channels, config.dim)
        self.modality = nn.Embedding(2, config.dim)
        self.position = nn.Embedding(config.max_tokens, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(config, layer, decoder=False) for layer in range(config.encoder_layers)
        )
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
            image_tokens, image_mask: in place of the pixels, tokens (B, N, D) and mask (B, N) from `look`; without a
                mask every token counts.

        Raises:
            ValueError: for tensors that do not belong together, or a prompt that is too long.
        """
        if image_tokens is None:
            if pixel_values is None:
                raise ValueError("the encoder needs pixel_values with their layout, or image_tokens; neither was given")
            image_tokens, image_mask = self.look(
                glimpse_of(pixel_values, window_origins, window_levels, window_valid, picture_sizes, fixations)
            )
        tokens = image_tokens + self.modality.weight[IMAGE]
        mask = image_tokens.new_ones(image_tokens.shape[:2], dtype=torch.bool) if image_mask is None else image_mask
        if input_ids is not None:
            prompts, length = input_ids.shape
            if length > self.config.max_tokens:
                raise ValueError(
                    f"a prompt of {length} tokens; this model reads at most {self.config.max_tokens}: shorten it"
                )
            if attention_mask is not None and attention_mask.shape != input_ids.shape:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}; "
                    f"they must be alike"
                )
            tokens = repeat_rows(tokens, prompts, "prompts")
            mask = repeat_rows(mask, prompts, "prompts")
            kept = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).bool()
            # Places count from a prompt's first token, on whichever side it is padded.
            places = (kept.long().cumsum(1) - 1).clamp(min=0)
            prompt = self.embed(input_ids) + self.position(places) + self.modality.weight[PROMPT]
            tokens, mask = torch.cat([tokens, prompt], 1), torch.cat([mask, kept], 1)
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
        ValueError: if several windows come without their layout, or with one of other windows or pictures.
    """
    if pixels.ndim != 5 or pixels.shape[-1] != pixels.shape[-2]:
        raise ValueError(
            f"pixel_values have shape {tuple(pixels.shape)}; expected (B, K, 3, S, S), K windows for each of B pictures"
        )
    batch, windows, device = len(pixels), pixels.shape[1], pixels.device
    given = {"window_origins": origins, "window_levels": levels, "picture_sizes": pictures}
    lacking = [name for name, value in given.items() if value is None]
    if lacking and (windows > 1 or len(lacking) < len(given)):
        raise ValueError(f"{windows} window(s) came without {', '.join(lacking)}; pass all that the processor returns")
    if origins is None or levels is None or pictures is None:
        origins = torch.zeros(batch, 1, 2, dtype=torch.int64, device=device)
        levels = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        pictures = torch.full((batch, 2), pixels.shape[-1], device=device)
    if valid is None:
        valid = torch.ones_like(levels, dtype=torch.bool)
    if fixations is None:
        fixations = torch.full((batch, 1, 2), 0.5, dtype=torch.float64, device=device)
    expected = {
        "window_origins": (origins, (batch, windows, 2)),
        "window_levels": (levels, (batch, windows)),
        "window_valid": (valid, (batch, windows)),
        "picture_sizes": (pictures, (batch, 2)),
        "fixations": (fixations, (batch, *fixations.shape[1:2], 2)),
    }
    for name, (value, shape) in expected.items():
        if value.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} beside pixel_values of {tuple(pixels.shape)}; expected {shape}"
            )
    return Glimpse(pixels, Layout(pixels.shape[-1], origins, levels, pictures, fixations, valid.bool()))


def repeat_rows(x: Tensor, rows: int, what: str) -> Tensor:
    """(B, ...) -> (rows, ...), each repeated in a row."""
    if rows % len(x):
        raise ValueError(f"{rows} {what} for {len(x)} pictures; expected the same number for each picture")
    return x if rows == len(x) else x.repeat_interleave(rows // len(x), 0)
