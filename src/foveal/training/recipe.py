"""A recipe: everything that a training run is, in one YAML file, every key checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveal.data.vocabulary import language_fault

STRIDE = 16  # of every `CenterFocusCNN`; written out, as a recipe is checked before a network is imported

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the key, what was given and what would be right."""


def _in(low: float, high: float, default: Any) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _of(*choices: str) -> Any:
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class Look:
    """How pictures are looked at."""

    size: int = _in(16, 4096, 64)  # a multiple of the backbone's stride
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
    gating: bool = False  # ranks the channels: a narrow periphery then keeps those that distillation found best
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
class Reward:
    """The third stage: the network learns from texts of its own, by their CIDEr-D. No steps, no stage."""

    steps: int = _in(0, 10_000_000, 0)
    batch: int = _in(1, 4096, 32)
    samples: int = _in(2, 100, 5)
    longest: int = _in(2, 4096, 24)  # tokens; never more than model.max_tokens allows
    rate: float = _in(1e-6, 1, 1e-4)


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
    reward: Reward = field(default_factory=Reward)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; relative paths in it are taken from its own folder.

    Args:
        path: of the YAML file.
        overrides: "key=value", nested keys with dots; a path given so is taken from the working folder.

    Raises:
        RecipeError: for an unreadable file, an unknown key (naming the nearest valid one), a value of the wrong type or
            out of range, and values that do not go together.
        ImportError: if PyYAML is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("training needs PyYAML; run: pip install 'foveal[train]'") from error
    # Its own errors; and what Python makes of a date or a number that cannot be, or of brackets without end.
    not_yaml = (yaml.YAMLError, ValueError, RecursionError)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error.__class__.__name__}); give a YAML file") from error
    try:
        tree = yaml.safe_load(text)
    except not_yaml as error:
        raise RecipeError(f"{path}: is not YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise RecipeError(f"{path}: expected keys and values at the top, found {found}")
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
        try:
            place[last] = yaml.safe_load(text)
        except not_yaml as error:
            raise RecipeError(f"{override!r}: the value is not YAML: {_one_line(error)}") from error
    _resolve_paths(tree, Path.cwd())  # those of the file are absolute by now
    recipe = _build(Recipe, tree, "")
    _refuse_mismatched(recipe)
    return typing.cast(Recipe, recipe)


def as_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dicts and lists, to be written down."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(recipe)))


def with_defaults(tree: Any) -> Any:
    """A tree that was written down, with the defaults of keys that have been added since."""

    def filled(given: Any, default: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(default, dict):
            return given
        return {**default, **{name: filled(value, default.get(name)) for name, value in given.items()}}

    return filled(tree, as_tree(Recipe(captions="")))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _resolve_paths(tree: dict[str, Any], folder: Path) -> None:
    def resolved(text: Any) -> Any:
        return str((folder / text).resolve()) if isinstance(text, str) and text else text

    if "captions" in tree:
        tree["captions"] = resolved(tree["captions"])
    distil = tree.get("distil")
    if isinstance(distil, dict):
        if "pictures" in distil:
            pictures = _listed(distil["pictures"])
            distil["pictures"] = [resolved(item) for item in pictures] if isinstance(pictures, list) else pictures
        if "weights" in distil:
            distil["weights"] = resolved(distil["weights"])


def _listed(value: Any) -> Any:
    """Texts with commas between them, as a command line gives a list; anything else as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _build(kind: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise RecipeError(f"{prefix.rstrip('.') or 'recipe'}: expected keys and values, found {tree!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in fields:
            raise RecipeError(f"unknown key {prefix}{key}; did you mean {_nearest(str(key), list(fields), prefix)}?")
        values[key] = _value(hints[key], fields[key], value, f"{prefix}{key}")
    missing = [
        name
        for name, item in fields.items()
        if name not in values and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"missing key {prefix}{missing[0]}; a recipe cannot do without it")
    return kind(**values)


def _nearest(key: str, names: list[str], prefix: str) -> str:
    """The key that was most likely meant: of the same name in another part, else the most alike here."""
    elsewhere = [name for name in _keys(Recipe, "") if name.rpartition(".")[2] == key]
    here = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if elsewhere and not here:
        return " or ".join(elsewhere)
    return prefix + (here or difflib.get_close_matches(key, names, n=1, cutoff=0.0))[0]


def _keys(kind: type, prefix: str) -> Iterator[str]:
    """Every key there is, nested ones with dots."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from _keys(typing.cast(type, hint), f"{prefix}{name}.")


def _refuse_mismatched(recipe: Recipe) -> None:
    """What every key alone cannot tell."""
    model, distil, languages = recipe.model, recipe.distil, recipe.languages
    if not recipe.captions:
        raise RecipeError("captions: is empty; give a caption set")
    if not languages:
        raise RecipeError("languages: is empty; give at least one, such as [en]")
    for place, language in enumerate(languages):
        if fault := language_fault(language):
            raise RecipeError(f"languages: {fault}")
        if language in languages[:place]:
            raise RecipeError(f"languages: {language!r} is there twice")
    if recipe.look.size % STRIDE:
        raise RecipeError(f"look.size: {recipe.look.size} is not a multiple of the backbone's stride {STRIDE}")
    if model.dim % model.heads:
        raise RecipeError(f"model.heads: {model.heads} heads do not divide model.dim {model.dim}")
    least = 256 + 3 + len(languages)
    if model.vocabulary < least:
        raise RecipeError(
            f"model.vocabulary: {model.vocabulary} is too small; expected at least {least}: every byte, three special "
            f"tokens and one for each language"
        )
    if model.gating and model.periphery_channels < 1:
        for name, what in (("distil.steps", distil.steps), ("caption.backbone_rate", recipe.caption.backbone_rate)):
            if not what:
                raise RecipeError(
                    f"model.gating: with a narrow periphery channels are ranked in distillation, and norms learn with "
                    f"the captions; {name} is 0: give it, or no gating"
                )
    if distil.steps:
        for name, value in (("pictures", distil.pictures), ("weights", distil.weights)):
            if not value:
                raise RecipeError(f"distil.{name}: is empty, and distil.steps is {distil.steps}; give it, or no steps")


def _value(hint: Any, item: dataclasses.Field[Any], value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, types.GenericAlias):
        value = _listed(value)
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise RecipeError(f"{name}: expected a list of texts, given {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            raise RecipeError(f"{name}: expected a number, given {value!r}") from None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, hint) and (hint is not int or whole)) and not (hint is float and whole):
        raise RecipeError(f"{name}: expected {_TYPES[hint]}, given {value!r}")
    if "range" in item.metadata:
        low, high = item.metadata["range"]
        if not low <= value <= high:
            raise RecipeError(f"{name}: {value!r} is out of range; expected {low} to {high}")
    if hint is float:
        value = float(value)
    if "choices" in item.metadata and value not in item.metadata["choices"]:
        near = difflib.get_close_matches(value, item.metadata["choices"], n=1, cutoff=0.0)[0]
        raise RecipeError(
            f"{name}: {value!r} is not one of {', '.join(item.metadata['choices'])}; did you mean {near!r}?"
        )
    return value
