"""`foveal evaluate`: how good a model's captions are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from foveal.cli.options import Batch, Beams, JsonFile, Language, refuse_language
from foveal.cli.output import STANDARD, progress, refuse_overwriting, refuse_unwritable, write_json

EXAMPLES = """
[bold]Examples[/bold]
  [cyan]foveal evaluate default data/flickr8k --lang zh[/cyan]
  [cyan]foveal evaluate default data/flickr8k --shuffle[/cyan]  a floor: other pictures
  [cyan]foveal evaluate most-frequent data/flickr8k[/cyan]      a floor: one caption
"""

SPLITS, PER_CAPTION = ("train", "val", "test"), (".jsonl", ".csv")
DEFAULT, FREQUENT = "default", "most-frequent"
NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "distinct": "distinct",
}


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A folder; default: comes with foveal; most-frequent: a floor."),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A caption set, in any format that `data check` reads.")],
    split: Annotated[str, typer.Option(metavar="train|val|test", help="The part of the set.")] = "val",
    language: Language = "en",
    beams: Beams = 3,
    batch: Batch = 32,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Score each picture with the sentence of another.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")] = None,
    captions: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write every sentence with its scores, as .jsonl or .csv.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Score a model's captions against those that people wrote.

    BLEU-1 to 4, ROUGE-L and CIDEr-D, as pycocoevalcap counts them, and the share of sentences that differ.
    """
    refuse_unwritable(json=json_file, captions=captions)
    refuse_overwriting([data], json=json_file, captions=captions)
    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r}: expected {', '.join(SPLITS)}", param_hint="--split")
    if captions and not captions.lower().endswith(PER_CAPTION):
        raise typer.BadParameter(
            f"{captions!r}: expected a name in {' or '.join(PER_CAPTION)}", param_hint="--captions"
        )
    if model == FREQUENT and shuffle:
        raise typer.BadParameter("one caption for all is the same for every picture", param_hint="--shuffle")
    from foveal.models.generation import load_describer
    from foveal.training.evaluate import evaluate as run
    from foveal.training.evaluate import most_frequent

    if model == FREQUENT:
        scores = most_frequent(data, split=split, language=language, captions_file=captions, limit=limit)
    else:
        describer = load_describer(None if model == DEFAULT else model)
        refuse_language(describer, language)
        with progress("describing") as move:
            scores = run(
                describer,
                data,
                split=split,
                language=language,
                beams=beams,
                batch=batch,
                shuffle=shuffle,
                captions_file=captions,
                limit=limit,
                progress=move,
            )
    write_json(json_file, scores)
    if json_file != STANDARD:
        _show(scores)


def _show(scores: dict[str, Any]) -> None:
    for key, name in NAMES.items():
        print(f"{name:<9} {scores[key]:.4f}")
    print(f"{scores['pictures']} pictures of {scores['split']} in {scores['language']}")
    if scores["pictures"] == 1:
        print("CIDEr-D weighs words by how few pictures have them; of one picture it is always 0")
