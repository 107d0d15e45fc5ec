"""Captions as the network is shown them: several of one picture in a step, chosen so that like lengths go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foveal.data.captions import record_picture
from foveal.data.text import clean_caption
from foveal.models.processing import labels_of, language_prompt
from foveal.picture import open_picture

KEPT = 4 << 30  # bytes


def refuse_lacking_languages(images: Sequence[str], found: Sequence[str], languages: Sequence[str]) -> None:
    """Raises ValueError if no picture has captions in all languages; told from one picture and language a record."""
    of: dict[str, set[str]] = {}
    for image, language in zip(images, found, strict=True):
        of.setdefault(image, set()).add(language)
    if not any(of[image].issuperset(languages) for image in of):
        raise _lacking(languages, set(found))


def _lacking(languages: Sequence[str], known: set[str]) -> ValueError:
    there = sorted(known)
    return ValueError(
        f"no picture has captions in all of {', '.join(languages)}; the set has {', '.join(there)}: "
        f"give languages={','.join(there)}, or captions in each"
    )


class CaptionSteps:
    """Pictures, each with captions in every language of the run, as token rows sorted by length.

    Args:
        records: rows of `load_captions`.
        tokenizer: of the text.
        languages: pictures that lack captions in one of them are left out.
        longest: texts of more tokens are cut; start and end included.
        keep: bytes of decoded pictures that are held in memory; what is beyond is decoded anew each time.

    Raises:
        ValueError: if no picture has captions in all languages, or the tokenizer does not know one of them.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        languages: Sequence[str],
        longest: int,
        keep: int = KEPT,
    ) -> None:
        self.languages = list(languages)
        prompts = tokenizer([language_prompt(language) for language in self.languages], add_special_tokens=False)
        for language, tokens in zip(self.languages, prompts["input_ids"], strict=True):
            if len(tokens) != 1:
                raise ValueError(
                    f"language {language!r}: the tokenizer has no token {language_prompt(language)!r}; train it with "
                    f"this language"
                )
        self._prompts = torch.tensor(prompts["input_ids"])
        texts: dict[str, dict[str, list[list[int]]]] = {}
        sources: dict[str, Any] = {}
        end = tokenizer.eos_token_id
        known: set[str] = set()
        for record in records:
            known.add(record["language"])
            if record["language"] not in self.languages:
                continue
            language = record["language"]
            cleaned = [clean for text in record["texts"] if (clean := clean_caption(text, language))]
            if not cleaned:
                continue
            # A caption that spells a special token out, such as "</s>", is text like any other.
            rows = tokenizer(cleaned, add_special_tokens=False, split_special_tokens=True)
            tokens = [[*row[: longest - 2], end] for row in rows["input_ids"]]
            texts.setdefault(record["image"], {}).setdefault(language, []).extend(tokens)
            sources[record["image"]] = record
        self._texts = [
            {language: sorted(of[language], key=len) for language in self.languages}
            for of in texts.values()
            if all(language in of for language in self.languages)
        ]
        self._sources = [
            sources[image] for image, of in texts.items() if all(language in of for language in self.languages)
        ]
        if not self._texts:
            raise _lacking(self.languages, known)
        self._pictures: dict[int, Tensor] = {}
        self._room = keep

    def __len__(self) -> int:
        return len(self._texts)

    def picture(self, row: int) -> Tensor:
        """(3, H, W) uint8, decoded once and kept, as far as there is room."""
        if row in self._pictures:
            return self._pictures[row]
        record = self._sources[row]
        pixels = open_picture(record_picture(record), name=record["image"]).read()
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._pictures[row] = pixels
        return pixels

    def known(self, row: int) -> dict[str, list[list[int]]]:
        """Every caption of a picture as tokens with their end token, by language, the shortest first."""
        return self._texts[row]

    def prompts(self, pictures: int) -> Tensor:
        """(B * languages, 1) int64: the prompt of every language, for each of so many pictures."""
        return self._prompts.repeat(pictures, 1)

    def texts(self, rows: Sequence[int], rng: np.random.Generator, *, count: int) -> dict[str, Tensor]:
        """`count` captions of each picture in each language.

        All pictures give captions of the same rank in length, drawn anew for each step: batches of short texts, then
        of long ones, and little padding.

        Returns:
            input_ids: (B * languages, 1) prompts; labels: (B * languages * count, L).
        """
        share = float(rng.random())
        labels = []
        for row in rows:
            for language in self.languages:
                known = self._texts[row][language]
                first = int(share * (max(0, len(known) - count) + 1))
                chosen = known[first : first + count]
                labels += [*chosen, *[chosen[-1]] * (count - len(chosen))]
        return {"input_ids": self.prompts(len(rows)), "labels": labels_of(labels)}
