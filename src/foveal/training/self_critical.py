"""Learning from what the network itself writes: texts are drawn, scored by CIDEr-D, and made likelier or less likely.

Self-critical sequence training (Rennie et al., CVPR 2017), each text measured against the mean of the others drawn for
the same prompt (Luo, "A better variant of self-critical sequence training", 2020). Cross-entropy teaches to go on from
what people wrote; this teaches to write whole sentences from the network's own words, for what is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foveal.models.encoder import EncoderOutput, glimpse_of
from foveal.models.multimodal import MultiModalTransformer
from foveal.training.caption_steps import CaptionSteps
from foveal.training.cider import CiderD, Tokens
from foveal.training.describing import text_losses
from foveal.training.metrics import tokenize
from foveal.training.task import Task

END = "</s>"  # counts as a word: a sentence that breaks off where it should go on, or goes on, is worth less


class Rewards:
    """CIDEr-D of drawn texts, in every language of a run, against all captions of their pictures.

    Args:
        captions: the pictures, and what people wrote.
        tokenizer: of the texts.

    Example:
        >>> Rewards(captions, tokenizer)(torch.tensor([[17, 5, 2], [9, 2, 0]]), rows=[3, 8]).shape
        torch.Size([2])
    """

    def __init__(self, captions: CaptionSteps, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._languages = tokenizer, captions.languages
        self._scorers = []
        for language in captions.languages:
            texts = [tokenizer.batch_decode(captions.known(row)[language]) for row in range(len(captions))]
            self._scorers.append(CiderD([[self._tokens(text, language) for text in each] for each in texts]))

    def __call__(self, texts: Tensor, rows: Sequence[int]) -> Tensor:
        """(N,) float32 for (N, L) token rows: as many in a row for each language of each picture.

        Args:
            texts: each with its end token where it has one, then padding.
            rows: of the pictures in the captions.
        """
        count = len(texts) // (len(rows) * len(self._languages))
        decoded = iter(self._tokenizer.batch_decode(texts))
        return torch.tensor(
            [
                scorer.score(self._tokens(next(decoded), language), row)
                for row in rows
                for language, scorer in zip(self._languages, self._scorers, strict=True)
                for _ in range(count)
            ]
        )

    def _tokens(self, text: str, language: str) -> Tokens:
        eos = str(self._tokenizer.eos_token)
        said, end, _ = text.replace(str(self._tokenizer.bos_token), "").partition(eos)
        return (*tokenize(said, language), *([END] if end else []))


class SelfCritical(Task):
    """A `MultiModalTransformer` with the self-critical loss; its backbone stays as it is, and nothing is dropped out.

    Args:
        model: that already describes.
        rewards: of drawn texts.
        samples: texts drawn for each prompt, at least 2.
        longest: texts are broken off after as many tokens.

    Raises:
        ValueError: for fewer than two samples.

    Example:
        >>> task = SelfCritical(model, Rewards(captions, tokenizer), samples=5)
        >>> task(rows=torch.arange(8), **inputs)["loss"].backward()
    """

    def __init__(self, model: MultiModalTransformer, rewards: Rewards, *, samples: int = 5, longest: int = 39) -> None:
        super().__init__()
        if samples < 2:
            raise ValueError(f"samples is {samples}; at least 2 are needed, as each is measured against the others")
        self.model, self.rewards, self.samples, self.longest = model, rewards, samples, longest
        model.encoder.backbone.requires_grad_(False)

    def forward(self, rows: Tensor, input_ids: Tensor, **looks: Tensor) -> dict[str, Tensor]:
        """The loss, and the mean `reward` of the texts drawn.

        Args:
            rows: (B,) int64, which pictures of the captions these are.
            input_ids: (B * P, 1), the prompt of every language for each picture.
            looks: the glimpse's tensors.
        """
        model = self.model
        names = "pixel_values", "window_origins", "window_levels", "window_valid", "picture_sizes", "fixations"
        glimpse = glimpse_of(*(looks[name] for name in names))
        with torch.no_grad():
            features = model.encoder.backbone(glimpse)
        tokens, mask = model.encoder.tokenizer(features, glimpse.layout)
        encoded = model.encoder(input_ids=input_ids, image_tokens=tokens, image_mask=mask)
        drawn = self._draw(encoded)
        # Older releases of PyTorch keep weights that were cast without a gradient for what follows with one.
        torch.clear_autocast_cache()
        rewards = self.rewards(drawn, rows.tolist()).to(tokens.device)
        groups = rewards.unflatten(0, (-1, self.samples))
        others = (groups.sum(1, keepdim=True) - groups) / (self.samples - 1)
        # The end token was chosen too; what follows it only fills the row.
        is_end = drawn == model.config.eos_token_id
        labels = drawn.masked_fill(is_end.cumsum(1) > is_end.long(), -100)
        losses = text_losses(model, encoded, labels) * (groups - others).flatten()
        return {"loss": losses.sum() / (labels != -100).sum(), "reward": rewards.mean()}

    @torch.no_grad()
    def _draw(self, encoded: EncoderOutput) -> Tensor:
        """(B * P * samples, L): texts as likely as the network finds them, start token left out."""
        assert encoded.last_hidden_state is not None
        assert encoded.mask is not None
        known = EncoderOutput(last_hidden_state=encoded.last_hidden_state.detach(), mask=encoded.mask)
        options: dict[str, Any] = {"do_sample": True, "num_beams": 1, "num_return_sequences": self.samples, "top_k": 0}
        return self.model.generate(encoder_outputs=known, max_new_tokens=self.longest, **options)[:, 1:]

    def train(self, mode: bool = True) -> SelfCritical:
        """Texts are scored as they are drawn later, so everything stays as it is in use."""
        return super().train(False)
