"""MultiModalTransformer: a glimpse and a prompt in, text out; encoder, causal decoder, cross-attention.

After Vaswani et al. (2017), pre-norm, with modality embeddings on the encoder's tokens. The text to be predicted
never enters the encoder. `generate` (greedy, beams, sampling, streaming, caches) is Transformers' own.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput

from foveal.models.attention import TransformerLayer
from foveal.models.configuration import MultiModalTransformerConfig
from foveal.models.encoder import Encoder, EncoderOutput, glimpse_of, repeat_rows

__all__ = ["Decoder", "Encoder", "EncoderOutput", "MultiModalTransformer", "glimpse_of", "repeat_rows"]


CACHE = next(field.name for field in dataclasses.fields(Seq2SeqLMOutput) if field.name in ("cache", "past_key_values"))
"""How Transformers calls what a pass keeps for the next: "cache" from 5.24 on, "past_key_values" before."""


class Decoder(nn.Module):
    """Text tokens, causally, with cross-attention to the encoder's output."""

    def __init__(self, config: MultiModalTransformerConfig, embed: nn.Embedding) -> None:
        super().__init__()
        self.embed = embed
        self.position = nn.Embedding(config.max_tokens, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(config, layer, decoder=True) for layer in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self, ids: Tensor, context: Tensor, *, context_mask: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """(B, L) int64 and (B, N, D) -> (B, L, D).

        Args:
            ids: the text so far, or what follows on what the cache holds.
            context: the encoder's output, and which of it counts: (B, N) bool.
            mask: (B, L) or, with what the cache holds, (B, P + L): 0 is not looked at; or (B, 1, L, P + L) bool, which
                then is all that is masked.
            cache: of the P tokens before.

        Raises:
            ValueError: if the text is longer than the model's `max_tokens`.
        """
        past = 0 if cache is None else int(cache.get_seq_length())
        length = ids.shape[1]
        if past + length > self.position.num_embeddings:
            raise ValueError(
                f"a text of {past + length} tokens; at most {self.position.num_embeddings} can be written: shorten it"
            )
        x = self.embed(ids) + self.position(torch.arange(past, past + length, device=ids.device))
        x = self.drop(x)
        allowed = None
        causal = past == 0 and length > 1
        if mask is not None and mask.ndim == 4:
            allowed = (mask if mask.dtype == torch.bool else mask == 0)[..., : past + length]
            causal = False
        elif mask is not None and not bool(mask.all()):
            rows = torch.arange(past, past + length, device=ids.device)[:, None]
            allowed = rows >= torch.arange(past + length, device=ids.device)
            allowed = allowed & mask[:, None, None, : past + length].bool()
            causal = False
        elif past and length > 1:
            rows = torch.arange(past, past + length, device=ids.device)[:, None]
            allowed = rows >= torch.arange(past + length, device=ids.device)
        for layer in self.layers:
            x = layer(x, context, mask=allowed, context_mask=context_mask[:, None, None], causal=causal, cache=cache)
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

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed = self.encoder.embed = self.decoder.embed = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.head = cast(nn.Linear, value)

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
        cache: Cache | None = None,
        **looks: Any,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """One pass; with labels, the mean cross-entropy of every label that is not -100.

        Args:
            input_ids: (B * P, M) prompts, P for each picture.
            pixel_values, and in `looks` the layout's tensors: see `Encoder.forward`.
            decoder_input_ids: (B * P * T, L); from the labels, shifted right, by default.
            decoder_attention_mask: see `Decoder.forward`.
            labels: (B * P * T, L), T texts for each prompt, -100 where padded.
            encoder_outputs: of an earlier pass, in place of everything that the encoder reads.
            past_key_values: what an earlier pass with `use_cache` gave; the text then is only what follows.
            return_dict: False gives a tuple of what is there.
            cache: the same as `past_key_values`, as Transformers calls it from 5.24 on; so does the result there.

        Returns:
            loss where there are labels, logits (B * P * T, L, vocabulary), the cache, the encoder's output.

        Raises:
            ValueError: for tensors that do not belong together, and texts that are too long.
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
        if cache is not None and past_key_values is not None:
            raise ValueError("cache and past_key_values are two names of the same; give one of them")
        cache = past_key_values if cache is None else cache
        if cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if use_cache else None
        elif not isinstance(cache, EncoderDecoderCache):
            cache = EncoderDecoderCache(cache, DynamicCache())
        hidden = self.decoder(decoder_input_ids, context, context_mask=mask, mask=decoder_attention_mask, cache=cache)
        logits = self.head(hidden)
        loss = None
        if labels is not None:
            if labels.shape != decoder_input_ids.shape:
                raise ValueError(
                    f"labels have shape {tuple(labels.shape)}, decoder_input_ids {tuple(decoder_input_ids.shape)}; "
                    f"they must be alike"
                )
            loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        held: dict[str, Any] = {CACHE: cache}
        output = Seq2SeqLMOutput(loss=loss, logits=logits, encoder_last_hidden_state=context, **held)
        return output.to_tuple() if return_dict is False else output

    @torch.no_grad()
    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Writes a text for each prompt; arguments and results are those of `GenerationMixin.generate`.

        No text becomes longer than the model's `max_tokens`, which is also how long one may become where nothing else
        is asked for. Without a prompt the encoder reads the picture alone.

        Example:
            >>> model.generate(**processor(["photo.jpg"], "lang=en"), num_beams=3).shape
            torch.Size([1, 14])
        """
        kwargs, generation_config = self._bounded(kwargs, generation_config)
        nothing_read = inputs is None and kwargs.get("input_ids") is None and kwargs.get("encoder_outputs") is None
        if nothing_read:
            kwargs["encoder_outputs"] = self.encoder(**kwargs)
        mixin: Any = super()
        return mixin.generate(inputs, generation_config, *args, **kwargs)

    def _bounded(
        self, kwargs: dict[str, Any], generation_config: GenerationConfig | None
    ) -> tuple[dict[str, Any], GenerationConfig | None]:
        """What `generate` was given, with one length of the text in it, which this model can write."""
        begun = kwargs.get("decoder_input_ids")
        written = 1 if begun is None else begun.shape[1]
        if begun is not None and bool((begun[:, 0] != self.config.decoder_start_token_id).all()):
            written += 1  # Transformers puts the start token before it
        room = self.config.max_tokens - written
        if room < 1:
            raise ValueError(
                f"decoder_input_ids hold {written} tokens, and this model writes at most {self.config.max_tokens}; "
                f"leave room for one more"
            )
        wanted = room
        places: list[dict[str, Any]] = [kwargs, vars(self.generation_config)]
        if generation_config is not None:
            places.insert(1, vars(generation_config))
        for settings in places:
            new, whole = settings.get("max_new_tokens"), settings.get("max_length")
            if new is None and whole is None:
                continue
            wanted = new if new is not None else cast(int, whole) - written
            if wanted < 1:
                asked = f"max_length={whole}" if new is None else f"max_new_tokens={new}"
                raise ValueError(f"{asked} leaves no room after the {written} token(s) of the start; ask for more")
            break
        # Everything else that holds a length is emptied, so that Transformers sees one and not two that disagree.
        length = {"max_length": None, "max_new_tokens": min(wanted, room)}
        if generation_config is None:
            return {**kwargs, **length}, None
        generation_config = copy.deepcopy(generation_config)
        generation_config.update(**length)
        return {name: value for name, value in kwargs.items() if name not in length}, generation_config

    def shift_right(self, labels: Tensor) -> Tensor:
        """(N, L) labels to what the decoder reads: the start token, then every label but the last."""
        before = labels[:, :-1].masked_fill(labels[:, :-1] == -100, self.config.pad_token_id)
        return torch.cat([torch.full_like(labels[:, :1], self.config.decoder_start_token_id), before], 1)
