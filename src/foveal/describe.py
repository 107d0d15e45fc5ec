"""Pictures in, sentences out.

What this needs is imported when it is called: so `import foveal` and `foveal --help` cost next to nothing.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foveal.memory import is_out_of_memory

if TYPE_CHECKING:
    from foveal.models.generation import Describer
    from foveal.picture import Picture
    from foveal.policy.fixation import Fixation
    from foveal.retina import Glimpse

DEMO = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "camera.png")
"""Photographs inside the wheel of scikit-image; its other test pictures are drawings, textures and scans."""


@dataclass(frozen=True)
class Description:
    """What a model says about one picture.

    Attributes:
        name: the picture's: its file, or "tensor" and the like.
        text: a sentence; empty where there is an `error`.
        language: of the text.
        fixation: the point looked at, (y, x), relative to the picture.
        levels, windows: how many of each the look had.
        size: (height, width) of the picture, in pixels.
        read_size: (height, width) at which the look read it, in pixels of its finest level.
        seconds: from the opened model to the text: reading and looking at this picture, and its equal share of the
            time that the network took for its batch.
        error: why there is no text, in one line; None where there is one.
    """

    name: str
    text: str = ""
    language: str = "en"
    fixation: tuple[float, float] = (0.5, 0.5)
    levels: int = 0
    windows: int = 0
    size: tuple[int, int] = (0, 0)
    read_size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: str | None = None


def describe(
    pictures: Any,
    *,
    language: str = "en",
    fixation: Fixation = "center",
    levels: int | Literal["auto"] | None = None,
    beams: int = 3,
    batch: int = 16,
    model: Describer | str | os.PathLike[str] | None = None,
) -> list[Description]:
    """Describes pictures, each in one sentence.

    Args:
        pictures: one or several of what `open_picture` takes; or a tensor (B, C, H, W).
        language: "en", "zh", or what else the model was taught.
        fixation: "center", "auto" (where a person would likely look; see `salient_fixation`), or (y, x), relative.
        levels: windows of the look; "auto" takes the fewest with native pixels in the fovea. By default the model's.
        beams: width of the beam search.
        batch: pictures that go through the network together.
        model: a folder, or what `load_model` gave; the model that comes with the package by default.

    Returns:
        One description for each picture, in their order. A picture that cannot be read has an `error` and no text.

    Raises:
        ModelError: if the model cannot be loaded.
        ValueError: for an impossible language, fixation, levels, beams or batch.

    Example:
        >>> describe("photo.jpg")[0].text
        'A dog runs through the grass.'
    """
    return list(
        describe_each(
            _several(pictures),
            language=language,
            fixation=fixation,
            levels=levels,
            beams=beams,
            batch=batch,
            model=model,
        )
    )


def describe_each(
    pictures: Iterable[Any],
    *,
    language: str = "en",
    fixation: Fixation = "center",
    levels: int | Literal["auto"] | None = None,
    beams: int = 3,
    batch: int = 16,
    model: Describer | str | os.PathLike[str] | None = None,
) -> Iterator[Description]:
    """As `describe`, one batch after another: however many pictures there are, few are held in memory.

    Arguments and errors are those of `describe`; wrong arguments are refused at once, not at the first picture.
    """
    _refuse_impossible(fixation, levels, beams, batch)
    describer = load_model(model)
    describer.refuse_unknown(language)

    def batches() -> Iterator[Description]:
        waiting = iter(pictures)
        while group := list(itertools.islice(waiting, batch)):
            yield from _describe_batch(describer, group, language, fixation, levels, beams)

    return batches()


def load_model(folder: Describer | str | os.PathLike[str] | None = None) -> Describer:
    """Loads a model once, for many calls of `describe`; see `load_describer`.

    Example:
        >>> model = load_model("runs/flickr8k/model")
        >>> describe("photo.jpg", model=model, language="zh")[0].text
        '一只狗在草地上奔跑。'
    """
    from foveal.models.generation import load_describer

    return load_describer(folder)


def find_pictures(names: Iterable[str | os.PathLike[str]]) -> tuple[list[str], list[str]]:
    """The picture files that names stand for: files, folders (read through, in name order) and globs.

    Returns:
        files: their paths; a name that is no folder and no glob is taken as it is, whether or not it exists.
        faults: one line for each folder and glob that holds no picture.
    """
    from foveal.data.picture_set import SUFFIXES, is_picture_name

    files, faults = [], []
    for given in names:
        name = os.fsdecode(given)
        if os.path.isdir(name):
            inside = (file for file in Path(name).rglob("*") if is_picture_name(file.relative_to(name)))
            found = sorted(str(file) for file in inside if file.is_file())
            if not found:
                faults.append(f"{name}: no pictures in this folder; known are {', '.join(SUFFIXES)}")
        elif glob.has_magic(name) and not os.path.exists(name):
            found = sorted(file for file in glob.glob(name, recursive=True) if os.path.isfile(file))
            if not found:
                faults.append(f"{name}: no file has such a name")
        else:
            found = [name]
        files += found
    return files, faults


def demo_pictures() -> list[Path]:
    """The real photographs that come with scikit-image, as files on this machine.

    Raises:
        ImportError: if scikit-image is not installed, or has none of them.
    """
    found = importlib.util.find_spec("skimage")
    folder = Path(found.origin or "").parent / "data" if found is not None else None
    files = [folder / name for name in DEMO if (folder / name).is_file()] if folder is not None else []
    if not files:
        raise ImportError("the demo's photographs come with scikit-image; run: pip install scikit-image")
    return files


def _refuse_impossible(fixation: Any, levels: Any, beams: int, batch: int) -> None:
    if fixation not in ("center", "auto") if isinstance(fixation, str) else not _is_point(fixation):
        raise ValueError(f"fixation is {fixation!r}; expected 'center', 'auto', or (y, x), each from 0 to 1")
    from foveal.arguments import whole_number

    if not (levels is None or (isinstance(levels, str) and levels == "auto")):
        if isinstance(levels, str):
            raise ValueError(f"levels is {levels!r}; expected 1 to 16, or 'auto'")
        whole_number(levels, "levels", 1, 16)
    whole_number(beams, "beams", 1)
    whole_number(batch, "batch", 1)


def _is_point(fixation: Any) -> bool:
    try:
        y, x = (float(value) for value in fixation)
    except (TypeError, ValueError):
        return False
    return 0 <= y <= 1 and 0 <= x <= 1


def _several(pictures: Any) -> Iterable[Any]:
    """Many pictures as they are, one as a list of one."""
    from PIL import Image
    from torch import Tensor

    from foveal.picture import Picture

    if isinstance(pictures, Tensor):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    single = isinstance(pictures, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, Picture))
    if single or hasattr(pictures, "read") or hasattr(pictures, "__array__") or not isinstance(pictures, Iterable):
        return [pictures]
    return pictures


def _describe_batch(
    describer: Describer, pictures: list[Any], language: str, fixation: Any, levels: Any, beams: int
) -> list[Description]:
    from foveal.models.generation import together

    answers, glimpses = [], []
    for picture in pictures:
        answer, glimpse = _look(describer, picture, fixation, levels)
        answers.append(dataclasses.replace(answer, language=language))
        if glimpse is not None:
            glimpses.append(glimpse)
    if not glimpses:
        return answers
    started = time.perf_counter()
    texts = iter(describer.write(together(glimpses), language=language, beams=beams))
    share = (time.perf_counter() - started) / len(glimpses)
    return [answer if answer.error else _told(answer, next(texts), share) for answer in answers]


def _look(describer: Describer, source: Any, fixation: Any, levels: Any) -> tuple[Description, Glimpse | None]:
    """Everything about one picture but its text. Its pixels are let go of again, its glimpse is small."""
    from foveal.models.saliency import salient_fixation
    from foveal.picture import PictureError, open_picture

    started = time.perf_counter()
    name = _name(source)
    try:
        picture = open_picture(source)
        name = picture.name
        _refuse_other_channels(picture)
        if fixation == "auto":
            fixation = salient_fixation(picture)
        glimpse = describer.look([picture], fixation=fixation, levels=levels)
        _refuse_other_values(name, glimpse)
    except (PictureError, OSError, MemoryError, RuntimeError) as error:
        short = is_out_of_memory(error)
        if isinstance(error, RuntimeError) and not short:
            raise
        reason = "there is not enough memory for it" if short else " ".join(str(error).split()) or type(error).__name__
        reason = reason if reason.startswith(name) else f"{name}: {reason}"
        return Description(name, error=reason, seconds=time.perf_counter() - started), None
    layout = glimpse.layout
    y, x = layout.fixations[0, 0].tolist()
    height, width = layout.pictures[0].tolist()
    answer = Description(
        name,
        fixation=(y, x),
        levels=len(set(layout.levels[0][layout.valid[0]].tolist())),
        windows=int(layout.valid.sum()),
        size=(picture.height, picture.width),
        read_size=(height, width),
        seconds=time.perf_counter() - started,
    )
    return answer, glimpse


def _refuse_other_channels(picture: Picture) -> None:
    from foveal.picture import PictureError

    if picture.channels != 3:
        raise PictureError(f"{picture.name}: has {picture.channels} channels, expected 3 (RGB)")


def _refuse_other_values(name: str, glimpse: Glimpse) -> None:
    """Pictures given as floats must be numbers as a viewer's, from 0 to 1: others would give a confident sentence."""
    import torch

    from foveal.picture import PictureError

    if not bool(glimpse.pixels.isfinite().all()):
        raise PictureError(f"{name}: holds values that are no numbers; expected floats from 0 to 1, or uint8")
    mean, std = (
        torch.as_tensor(default if value is None else value).to(glimpse.pixels).view(-1, 1, 1)
        for value, default in ((glimpse.mean, 0.0), (glimpse.std, 1.0))
    )
    inside = (glimpse.pixels >= (-0.5 - mean) / std) & (glimpse.pixels <= (1.5 - mean) / std)
    if not bool(inside.all()):
        raise PictureError(f"{name}: holds values far outside 0 to 1; divide 0 to 255 by 255, or give uint8")


def _name(source: Any) -> str:
    """What a picture that cannot be opened is called."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source).encode("utf-8", "backslashreplace").decode()
    named = getattr(source, "name", None)
    return named if isinstance(named, str) else type(source).__name__


def _told(answer: Description, text: str, share: float) -> Description:
    from foveal.data.text import as_sentence

    return dataclasses.replace(answer, text=as_sentence(text, answer.language), seconds=answer.seconds + share)
