"""A model on disk and what it writes: folder in, sentences about glimpses out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import logging as transformers_logging

from foveal.layout import Layout
from foveal.models.multimodal import MultiModalTransformer
from foveal.models.processing import MultiModalProcessor, language_prompt
from foveal.retina import Glimpse

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "default_model"
"""The model that comes with the package."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
BEAMS = 3
_LANGUAGE = re.compile(re.escape(language_prompt("")) + r"([a-z]{2,3})")


class ModelError(ValueError):
    """A model cannot be loaded. The message is one line: its folder, then the reason."""


@dataclass(frozen=True)
class Describer:
    """A model and its processor, ready to look and to write.

    Args:
        model: in evaluation mode.
        processor: made for it.
        name: the folder it came from.

    Example:
        >>> describer = load_describer()
        >>> describer.write(describer.look(["photo.jpg"]), language="en")
        ['a dog runs through the grass']
    """

    model: MultiModalTransformer
    processor: MultiModalProcessor
    name: str

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it was taught: those with a prompt token of their own."""
        known = sorted(self.processor.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return tuple(found[1] for token, _ in known if (found := _LANGUAGE.fullmatch(token)))

    def refuse_unknown(self, language: str) -> None:
        """Raises ValueError if the model does not write this language."""
        if language not in self.languages:
            raise ValueError(
                f"language {language!r}: this model writes {', '.join(self.languages) or 'none that it names'}"
            )

    def look(self, pictures: Any, *, fixation: Any = "center", levels: int | Literal["auto"] | None = None) -> Glimpse:
        """One look at each picture, as the model is used to it; arguments as for `GlimpseProcessor`.

        The pixels come where the model is and in its dtype, whatever the pictures have.
        """
        glimpse = self.processor.image_processor.retina(levels)(pictures, fixation)
        return dataclasses.replace(glimpse, pixels=glimpse.pixels.to(self.model.device, self.model.dtype))

    @torch.inference_mode()
    def write(self, glimpse: Glimpse, *, language: str = "en", beams: int = BEAMS) -> list[str]:
        """A text for each of the B pictures of a glimpse, as the model wrote it: no capital, no stop.

        Args:
            glimpse: of B pictures.
            language: one of `languages`.
            beams: width of the beam search; 1 takes the likeliest token at every step.

        Raises:
            ValueError: if the model does not write the language.
        """
        self.refuse_unknown(language)
        model: Any = self.model
        tokens = model.generate(
            **self.processor(glimpse, language_prompt(language)).to(self.model.device),
            num_beams=beams,
            do_sample=False,
            min_new_tokens=1,
            max_new_tokens=self.model.config.max_tokens - 1,  # the start token takes a place
        )
        return self.processor.batch_decode(tokens, skip_special_tokens=True)


def load_describer(folder: str | os.PathLike[str] | Describer | None = None) -> Describer:
    """Loads a model in float32 on the CPU, whatever precision its file has.

    Args:
        folder: with config.json, model.safetensors, tokenizer.json and processor_config.json; the model that comes
            with the package by default. A `Describer` is given back as it is.

    Raises:
        ModelError: if anything is missing, damaged, or does not belong together; and for pickled weights, which could
            run code as they are read.
    """
    if isinstance(folder, Describer):
        return folder
    if not (folder is None or isinstance(folder, str | os.PathLike)):
        raise ModelError(f"{folder!r}: expected the folder of a model, or what load_model gave")
    place = DEFAULT_MODEL if folder is None else Path(folder)
    _refuse_incomplete(place)
    try:
        with quietly():
            loaded: Any = MultiModalTransformer.from_pretrained(
                place, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            model, report = loaded
            processor = MultiModalProcessor.from_pretrained(place, local_files_only=True)
    except ImportError:
        raise
    except Exception as error:  # the readers of damaged files raise nearly every type there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{place}: cannot be loaded: {reason[:300]}") from error
    for what in ("missing", "unexpected", "mismatched"):
        if report.get(f"{what}_keys"):
            first = sorted(map(str, report[f"{what}_keys"]))[0]
            raise ModelError(f"{place}: the weights do not fit config.json; {what}: {first}")
    if len(processor.tokenizer) > model.config.vocab_size:
        raise ModelError(
            f"{place}: the tokenizer has {len(processor.tokenizer)} pieces, the model {model.config.vocab_size}; "
            f"they do not belong together"
        )
    return Describer(model.eval(), processor, str(place))


def together(glimpses: Sequence[Glimpse]) -> Glimpse:
    """One batch from several glimpses; those with fewer windows repeat their last one, marked as not valid."""
    layout = Layout.stack([glimpse.layout for glimpse in glimpses])
    pixels = []
    for glimpse in glimpses:
        lacking = layout.num_windows - glimpse.layout.num_windows
        pixels.append(torch.cat([glimpse.pixels, glimpse.pixels[:, -1:].expand(-1, lacking, -1, -1, -1)], 1))
    return Glimpse(torch.cat(pixels), layout, glimpses[0].mean, glimpses[0].std)


def _refuse_incomplete(place: Path) -> None:
    if not place.is_dir():
        raise ModelError(f"{place}: there is no such folder; give one that `foveal train` wrote, or none")
    lacking = [
        name for name in ("config.json", "tokenizer.json", "processor_config.json") if not (place / name).is_file()
    ]
    if not any((place / name).is_file() for name in WEIGHTS):
        if any(place.glob("*.bin")) or any(place.glob("*.pt")) or any(place.glob("*.pth")):
            raise ModelError(f"{place}: has only pickled weights, which could run code; save them as safetensors")
        lacking.append(WEIGHTS[0])
    if lacking:
        raise ModelError(f"{place}: is not a whole model; it lacks {', '.join(lacking)}")
    try:
        kind = json.loads((place / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"{place}: config.json cannot be read: {error}") from error
    if kind != MultiModalTransformer.config_class.model_type:
        raise ModelError(f"{place}: holds a model of type {kind!r}; expected 'foveal'")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """While it lasts, no bars and reports from Transformers; what is wrong is told in one error."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
