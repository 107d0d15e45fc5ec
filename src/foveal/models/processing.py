"""From pictures and prompts to the model's tensors, and from its tokens back to text; saved beside the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from foveal.retina import Glimpse, Retina

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, the field's habit
LANGUAGE = "lang="


class GlimpseProcessor(BaseImageProcessor):
    """Looks at pictures with a `Retina` and gives the glimpse as batch-first tensors.

    Args:
        size: cells along a window's side.
        levels: windows of a look, or "auto": the fewest with native pixels in the fovea.
        image_mean, image_std: normalisation for each channel.
        enlarge: read a picture smaller than the widest window larger, so that its longer side fills it.

    Example:
        >>> GlimpseProcessor(levels=3)(torch.rand(3, 300, 400))["pixel_values"].shape
        torch.Size([1, 3, 3, 64, 64])
    """

    model_input_names = [  # noqa: RUF012
        "pixel_values",
        "window_origins",
        "window_levels",
        "window_valid",
        "picture_sizes",
        "fixations",
    ]

    def __init__(
        self,
        size: int = 64,
        levels: int | Literal["auto"] = 3,
        *,
        image_mean: Sequence[float] = MEAN,
        image_std: Sequence[float] = STD,
        enlarge: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.levels, self.enlarge = size, levels, enlarge
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def retina(self, levels: int | Literal["auto"] | None = None) -> Retina:
        """The retina that this processor looks with, at other levels if given."""
        levels = self.levels if levels is None else levels
        return Retina(self.size, levels, mean=self.image_mean, std=self.image_std, enlarge=self.enlarge)

    def __call__(  # type: ignore[override]
        self,
        images: Any,
        *,
        fixation: Any = "center",
        levels: int | Literal["auto"] | None = None,
        return_tensors: str | None = "pt",
        **unused: Any,
    ) -> BatchFeature:
        """One look at each picture.

        Args:
            images: anything that `Retina` takes, or a list of such.
            fixation: "center", (y, x) or (B, 2).
            levels: in place of the processor's own.
            return_tensors: only "pt".
            unused: what Transformers passes to every processor, such as `padding`.

        Raises:
            PictureError: if a picture cannot be read.
            ValueError: for an impossible argument, or one that looks like a misspelt one.
        """
        _refuse_misspelt(unused, ("images", "fixation", "levels", "return_tensors"))
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors={return_tensors!r}: a glimpse is made of PyTorch tensors; use 'pt'")
        return BatchFeature(glimpse_tensors(self.retina(levels)(_flat(images), fixation)))


def glimpse_tensors(glimpse: Glimpse) -> dict[str, Tensor]:
    """The tensors of a glimpse under the names that the model takes, batch first."""
    layout = glimpse.layout
    return {
        "pixel_values": glimpse.pixels,
        "window_origins": layout.origins,
        "window_levels": layout.levels,
        "window_valid": layout.valid,
        "picture_sizes": layout.pictures,
        "fixations": layout.fixations,
    }


def _flat(images: Any) -> Any:
    """A list of lists of pictures, as some pipelines pass, as one list."""
    if isinstance(images, (list, tuple)) and images and all(isinstance(item, (list, tuple)) for item in images):
        return [picture for row in images for picture in row]
    return images


class MultiModalProcessor(ProcessorMixin):
    """Pictures and a prompt to the model's inputs; `decode` and `batch_decode` back to text.

    Args:
        image_processor: a `GlimpseProcessor`.
        tokenizer: of the text.
    """

    def __init__(self, image_processor: GlimpseProcessor, tokenizer: PreTrainedTokenizerBase) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.chat_template = None

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Any retina and any tokenizer will do."""
        return type(argument)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.image_processor.model_input_names, "input_ids", "attention_mask"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = "lang=en",
        *,
        fixation: Any = "center",
        levels: int | Literal["auto"] | None = None,
        return_tensors: str | None = "pt",
        **unused: Any,
    ) -> BatchFeature:
        """One look at each picture, with its prompt.

        Args:
            images: B pictures, as `GlimpseProcessor` takes them; or already looked at, a `Glimpse`.
            text: a prompt for all of them, or one for each; "lang=en" and "lang=zh" choose the language.
            fixation, levels, return_tensors, unused: see `GlimpseProcessor`.

        Raises:
            PictureError: if a picture cannot be read.
            ValueError: if the numbers of prompts and pictures differ, for a language that the tokenizer does not know,
                and as `GlimpseProcessor` does.

        Example:
            >>> processor(["photo.jpg"], "lang=zh", fixation=(0.3, 0.7))["input_ids"].shape
            torch.Size([1, 1])
        """
        _refuse_misspelt(unused, ("images", "text", "fixation", "levels", "return_tensors"))
        if images is None:
            raise ValueError("no picture was given; this model describes pictures")
        if isinstance(images, Glimpse):
            inputs = BatchFeature(glimpse_tensors(images))
        else:
            inputs = self.image_processor(images, fixation=fixation, levels=levels, return_tensors=return_tensors)
        if text is None:
            return inputs
        batch = len(inputs["pixel_values"])
        prompts = [text] * batch if isinstance(text, str) else list(text)
        if len(prompts) == 1:
            prompts = prompts * batch
        if len(prompts) != batch:
            raise ValueError(f"{len(prompts)} prompts for {batch} pictures; give one, or one for each")
        self._refuse_unknown_languages(prompts)
        tokens = self.tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        inputs["input_ids"], inputs["attention_mask"] = tokens["input_ids"], tokens["attention_mask"]
        return inputs

    def _refuse_unknown_languages(self, prompts: Iterable[str]) -> None:
        """A language that was never taught would be spelled letter by letter, and mean nothing."""
        known = [token for token in self.tokenizer.all_special_tokens if token.startswith(LANGUAGE)]
        for prompt in prompts:
            if prompt.startswith(LANGUAGE) and prompt not in known and len(prompt.split()) == 1:
                raise ValueError(f"prompt {prompt!r}: this model knows {', '.join(known) or 'no language by name'}")

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """Token rows to texts; see the tokenizer's method."""
        return [text.strip() for text in self.tokenizer.batch_decode(*args, **kwargs)]

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Tokens to text; see the tokenizer's method."""
        text = self.tokenizer.decode(*args, **kwargs)
        return text.strip() if isinstance(text, str) else [row.strip() for row in text]

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool | None = True, **kwargs: Any
    ) -> list[str]:
        """What the `image-text-to-text` pipeline calls to read the generated tokens."""
        kept = {key: value for key, value in kwargs.items() if key == "clean_up_tokenization_spaces"}
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens is not False, **kept)


def language_prompt(language: str) -> str:
    """The prompt that chooses a language: "lang=en", "lang=zh"."""
    return f"{LANGUAGE}{language}"


def labels_of(texts: Sequence[Sequence[int]]) -> Tensor:
    """Token rows of unlike length as one (N, L) int64, padded with -100, which no loss counts."""
    longest = max((len(row) for row in texts), default=0)
    rows = [[*row, *[-100] * (longest - len(row))] for row in texts]
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), longest)


def _refuse_misspelt(given: Iterable[str], names: Sequence[str]) -> None:
    """Transformers passes options that mean nothing here, so unknown ones are let by, but not those of a slip."""
    for name in given:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        if near:
            raise ValueError(f"unknown argument {name!r}; did you mean {near[0]!r}?")
