import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.models import CenterFocusCNN
from foveal.training.recipe import STRIDE, Recipe, RecipeError, as_tree, load_recipe

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_recipe(text: str) -> Path:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write_recipe


def keys_of(kind: type = Recipe, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every key of a recipe that holds a value, with its field."""
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.default_factory):
            yield from keys_of(item.default_factory, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + item.name, item


RANGES = [(key, *item.metadata["range"]) for key, item in keys_of() if "range" in item.metadata]


def test_what_is_not_given_has_its_default(write: Write, tmp_path: Path) -> None:
    assert load_recipe(write("captions: set")) == Recipe(captions=str(tmp_path / "set"))


def test_values_are_read_at_every_depth(write: Write) -> None:
    recipe = load_recipe(write("captions: set\nlanguages: [zh, en]\nhalf: false\nlook: {size: 32}\ncaption: {rate: 1}"))

    assert (recipe.languages, recipe.half, recipe.look.size, recipe.caption.rate) == (("zh", "en"), False, 32, 1.0)
    assert isinstance(recipe.caption.rate, float)


def test_numbers_that_yaml_reads_as_text_are_numbers(write: Write) -> None:
    recipe = load_recipe(write("captions: set\ncaption: {rate: 1e-3}"), ["distil.rate=5e-4"])

    assert (recipe.caption.rate, recipe.distil.rate) == (0.001, 0.0005)


def test_overrides_go_before_the_file_the_last_one_first(write: Write) -> None:
    file = write("captions: set\ncaption: {steps: 5, batch: 6}")

    recipe = load_recipe(file, ["caption.steps=7", "caption.steps=8", "look.halo=false", "languages=en,zh"])

    assert (recipe.caption.steps, recipe.caption.batch) == (8, 6)
    assert (recipe.look.halo, recipe.languages) == (False, ("en", "zh"))


def test_paths_of_the_file_are_taken_from_its_folder_and_others_from_the_working_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = write("captions: ../set\ndistil: {pictures: [a, b.zip], weights: /w.safetensors}")

    recipe = load_recipe(file)
    assert recipe.captions == str(tmp_path.parent / "set")
    assert recipe.distil.pictures == (str(tmp_path / "a"), str(tmp_path / "b.zip"))
    assert recipe.distil.weights == "/w.safetensors"

    given = load_recipe(file, ["captions=set", "distil.pictures=c, d.zip", "distil.weights=w"])
    here = tmp_path / "elsewhere"
    assert given.captions == str(here / "set")
    assert given.distil.pictures == (str(here / "c"), str(here / "d.zip"))
    assert given.distil.weights == str(here / "w")


def test_what_is_written_down_is_read_back_the_same(write: Write) -> None:
    recipe = load_recipe(
        write("captions: set\nlanguages: [zh, en]\ndistil: {steps: 3, pictures: [a, b], weights: w}"),
        ["look.extra_level=0.25", "caption.rate=1e-05", "captions=other"],
    )

    assert load_recipe(write(yaml.safe_dump(as_tree(recipe)))) == recipe


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_values_in_range_are_read_back_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree: dict[str, Any] = {"captions": "/set"}
    for key, item in keys_of():
        if "range" not in item.metadata or key in ("look.size", "model.heads", "model.vocabulary", "distil.steps"):
            continue
        low, high = item.metadata["range"]
        numbers = st.integers(low, high) if isinstance(item.default, int) else st.floats(low, high)
        part, _, name = key.rpartition(".")
        (tree.setdefault(part, {}) if part else tree)[name] = data.draw(numbers, key)
    tree["model"]["dim"] = 4 * max(4, tree["model"]["dim"] // 4)
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"

    file.write_text(yaml.safe_dump(tree))
    recipe = load_recipe(file)
    file.write_text(yaml.safe_dump(as_tree(recipe)))

    assert load_recipe(file) == recipe


@pytest.mark.parametrize(("key", "low", "high"), RANGES, ids=[key for key, *_ in RANGES])
def test_values_out_of_range_are_refused_with_the_range(key: str, low: float, high: float, write: Write) -> None:
    file = write("captions: set")

    for value in (low - 1, high + 1):
        with pytest.raises(RecipeError) as caught:
            load_recipe(file, [f"{key}={value}"])
        assert str(caught.value) == f"{key}: {value!r} is out of range; expected {low} to {high}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("captoins: set", "unknown key captoins; did you mean captions?"),
        ("captions: set\nmodel: {dims: 64}", "unknown key model.dims; did you mean model.dim?"),
        ("captions: set\ncaption: {step: 1}", "unknown key caption.step; did you mean caption.steps?"),
        ("captions: set\nlook: {x: 1}", "unknown key look.x; did you mean look."),
        ("captions: set\nbatch: 5", "unknown key batch; did you mean distil.batch or caption.batch or reward.batch?"),
        ("captions: set\nlook: {dropout: 0}", "unknown key look.dropout; did you mean model.dropout?"),
        ("captions: set\n5: 5", "unknown key 5; did you mean"),
        ("seed: 1", "missing key captions"),
        ("", "recipe.yaml: expected keys and values at the top, found nothing"),
        ("[1, 2]", "expected keys and values at the top, found a list"),
        ("just text", "expected keys and values at the top, found a str"),
        ("captions: [", "recipe.yaml: is not YAML: "),
        ("captions: 2024-13-45", "recipe.yaml: is not YAML: month must be in 1..12"),
        ("captions: set\nlook:", "look: expected keys and values, found None"),
        ("captions: set\nlook: 5", "look: expected keys and values, found 5"),
        ("captions: set\nmodel: [dim]", "model: expected keys and values, found ['dim']"),
        ("captions:", "captions: expected a text, given None"),
        ("captions: 5", "captions: expected a text, given 5"),
        ("captions: ''", "captions: is empty; give a caption set"),
        ("captions: set\nseed: true", "seed: expected a whole number, given True"),
        ("captions: set\nseed: 1.5", "seed: expected a whole number, given 1.5"),
        ("captions: set\nseed: null", "seed: expected a whole number, given None"),
        ("captions: set\nseed: [1]", "seed: expected a whole number, given [1]"),
        ("captions: set\ncaption: {steps: 1e3}", "caption.steps: expected a whole number, given '1e3'"),
        ("captions: set\nema: true", "ema: expected a number, given True"),
        ("captions: set\nema: much", "ema: expected a number, given 'much'"),
        ("captions: set\nema: [0.5]", "ema: expected a number, given [0.5]"),
        ("captions: set\nema: .nan", "ema: nan is out of range; expected 0 to 0.99999"),
        ("captions: set\nema: nan", "ema: nan is out of range"),
        ("captions: set\nema: -.inf", "ema: -inf is out of range"),
        (f"captions: set\nema: {10**400}", "is out of range; expected 0 to 0.99999"),
        ("captions: set\nhalf: 1", "half: expected true or false, given 1"),
        ("captions: set\nhalf: maybe", "half: expected true or false, given 'maybe'"),
        (
            "captions: set\nmodel: {backbone: smal}",
            "model.backbone: 'smal' is not one of small, nano, tiny, base; did you",
        ),
        ("captions: set\nmodel: {backbone: 5}", "model.backbone: expected a text, given 5"),
        ("captions: set\nlanguages: 5", "languages: expected a list of texts, given 5"),
        ("captions: set\nlanguages: [en, no]", "languages: expected a list of texts, given ['en', False]"),
        ("captions: set\nlanguages: []", "languages: is empty; give at least one"),
        ("captions: set\nlanguages: [en, zh, en]", "languages: 'en' is there twice"),
        ("captions: set\nlanguages: [english]", "languages: unknown language 'english'"),
        ("captions: set\nlook: {size: 40}", "look.size: 40 is not a multiple of the backbone's stride 16"),
        ("captions: set\nmodel: {dim: 64, heads: 6}", "model.heads: 6 heads do not divide model.dim 64"),
        ("captions: set\nlanguages: [en, zh]\nmodel: {vocabulary: 260}", "260 is too small; expected at least 261"),
        (
            "captions: set\nmodel: {gating: true, periphery_channels: 0.5}",
            "the captions; distil.steps is 0: give it, or no gating",
        ),
        ("captions: set\ndistil: {steps: 5, weights: w}", "distil.pictures: is empty, and distil.steps is 5"),
        ("captions: set\ndistil: {steps: 5, pictures: [a]}", "distil.weights: is empty, and distil.steps is 5"),
        ("captions: set\ndistil: {pictures: [a, 5]}", "distil.pictures: expected a list of texts, given"),
    ],
)
def test_what_is_wrong_is_refused_with_the_key_and_what_would_be_right(text: str, message: str, write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("caption.steps", "'caption.steps': expected key=value, for example caption.steps=100"),
        ("caption.stesp=5", "unknown key caption.stesp; did you mean caption.steps?"),
        ("captoin.steps=5", "unknown key captoin; did you mean caption"),
        ("caption.steps=", "caption.steps: expected a whole number, given None"),
        ("caption.steps=[", "'caption.steps=[': the value is not YAML"),
        ("caption.steps.more=5", "caption.steps.more: steps holds a value, not further keys"),
        ("caption=5", "caption: expected keys and values, found 5"),
        ("=5", "unknown key"),
    ],
)
def test_an_override_that_cannot_be_is_refused(override: str, message: str, write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("captions: set\ncaption: {steps: 3}"), [override])

    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00captions")

    for name in ("absent.yaml", "bytes.yaml", "."):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(tmp_path / name)


def test_every_number_has_a_range() -> None:
    numbers = [key for key, item in keys_of() if item.type in ("int", "float")]

    assert len(numbers) > 20
    assert numbers == [key for key, *_ in RANGES]


def test_the_stride_is_that_of_the_backbone() -> None:
    assert CenterFocusCNN.stride == STRIDE
