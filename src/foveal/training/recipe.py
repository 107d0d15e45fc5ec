"""A recipe: everything that a training run is, in one YAML file, every key checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the key, what was given and what would be right."""


def _in(low: float, high: float, default: Any) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _of(*choices: str) -> Any:
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class Look:
    """How pictures are looked at."""

    size: int = _in(16, 4096, 64)
    levels: int = _in(1, 16, 3)
    halo: bool = True
    off_centre: float = _in(0, 1, 0.5)
    extra_level: float = _in(0, 1, 0.1)
    crop: float = _in(0.05, 1, 0.5)
    colour: float = _in(0, 1, 0.15)


@dataclass(frozen=True)
class Model:
    """The network; see `MultiModalTransformerConfig`."""

    backbone: str = _of("small", "nano", "tiny", "base")
    periphery_channels: float = _in(0.05, 1, 1.0)
    dim: int = _in(16, 4096, 256)
    heads: int = _in(1, 64, 4)
    encoder_layers: int = _in(0, 48, 2)
    decoder_layers: int = _in(1, 48, 3)
    feedforward: int = _in(16, 16384, 1024)
    dropout: float = _in(0, 0.9, 0.1)
    max_tokens: int = _in(4, 4096, 40)
    vocabulary: int = _in(259, 200_000, 6000)


@dataclass(frozen=True)
class Distil:
    """The first stage: the backbone learns a teacher's features. No steps, no stage."""

    steps: int = _in(0, 10_000_000, 0)
    batch: int = _in(1, 4096, 64)
    rate: float = _in(1e-6, 1, 2e-3)
    weight_decay: float = _in(0, 1, 0.05)
    pictures: tuple[str, ...] = ()
    teacher: str = "vit_tiny_patch16_224"
    weights: str = ""


@dataclass(frozen=True)
class Caption:
    """The second stage: the whole network learns to describe."""

    steps: int = _in(1, 10_000_000, 1000)
    batch: int = _in(1, 4096, 64)
    texts: int = _in(1, 100, 2)
    rate: float = _in(1e-6, 1, 1e-3)
    backbone_rate: float = _in(0, 1, 3e-4)
    weight_decay: float = _in(0, 1, 0.05)
    smoothing: float = _in(0, 0.5, 0.1)


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Example:
        >>> load_recipe("recipes/flickr8k.yaml", ["caption.steps=100"]).caption.steps
        100
    """

    captions: str
    languages: tuple[str, ...] = ("en",)
    seed: int = _in(0, 2**31 - 1, 0)
    warmup: float = _in(0, 0.9, 0.05)
    ema: float = _in(0, 0.99999, 0.998)
    half: bool = True
    save_every: int = _in(1, 10_000_000, 250)
    look: Look = field(default_factory=Look)
    model: Model = field(default_factory=Model)
    distil: Distil = field(default_factory=Distil)
    caption: Caption = field(default_factory=Caption)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; relative paths in it are taken from its own folder.

    Args:
        path: of the YAML file.
        overrides: "key=value", nested keys with dots; a path given so is taken from the working folder.

    Raises:
        RecipeError: for an unreadable file, an unknown key (naming the nearest valid one) or a value out of range.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("training needs PyYAML; run: pip install 'foveal[train]'") from error
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error.__class__.__name__}); give a YAML file") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: expected keys and values at the top, found {type(tree).__name__}")
    _resolve_paths(tree, path.resolve().parent)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise RecipeError(f"{override!r}: expected key=value, for example caption.steps=100")
        place = tree
        *parents, last = key.strip().split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{key}: {parent} holds a value, not further keys")
        place[last] = yaml.safe_load(text)
    return _build(Recipe, tree, "")


def as_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dicts and lists, to be written down."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _resolve_paths(tree: dict[str, Any], folder: Path) -> None:
    def resolved(text: Any) -> Any:
        return str((folder / text).resolve()) if isinstance(text, str) and text else text

    if "captions" in tree:
        tree["captions"] = resolved(tree["captions"])
    distil = tree.get("distil")
    if isinstance(distil, dict):
        if isinstance(distil.get("pictures"), list):
            distil["pictures"] = [resolved(item) for item in distil["pictures"]]
        if "weights" in distil:
            distil["weights"] = resolved(distil["weights"])


def _build(kind: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise RecipeError(f"{prefix.rstrip('.') or 'recipe'}: expected keys and values, found {tree!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
            raise RecipeError(f"unknown key {prefix}{key}; did you mean {prefix}{near[0]}?")
        values[key] = _value(hints[key], fields[key], value, f"{prefix}{key}")
    missing = [
        name
        for name, item in fields.items()
        if name not in values and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"missing key {prefix}{missing[0]}")
    return kind(**values)


def _value(hint: Any, item: dataclasses.Field[Any], value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, types.GenericAlias):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise RecipeError(f"{name}: expected a list of texts, given {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            raise RecipeError(f"{name}: expected a number, given {value!r}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise RecipeError(f"{name}: expected {hint.__name__}, given {value!r}")
    if "range" in item.metadata:
        low, high = item.metadata["range"]
        if not low <= value <= high:
            raise RecipeError(f"{name}: {value!r} is out of range; expected {low:g} to {high:g}")
    if "choices" in item.metadata and value not in item.metadata["choices"]:
        near = difflib.get_close_matches(value, item.metadata["choices"], n=1, cutoff=0.0)[0]
        raise RecipeError(
            f"{name}: {value!r} is not one of {', '.join(item.metadata['choices'])}; did you mean {near!r}?"
        )
    return value
