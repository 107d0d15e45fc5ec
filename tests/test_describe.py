"""Pictures in, sentences out: every picture gets its answer, whatever happens to its neighbours."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import save_pictures, save_tiny_model

import foveal
from foveal import open_picture
from foveal.describe import Description, demo_pictures, describe, describe_each, find_pictures, load_model
from foveal.models.generation import ModelError, load_describer, together
from foveal.models.saliency import salient_fixation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("pictures"), 5)


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the model's folder, to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


# ---- what a description says ---------------------------------------------------------------------------------------


def test_a_description_tells_what_was_looked_at_and_how(files, model):
    (told,) = describe(files[3], model=model, language="en", fixation=(0.25, 0.75), levels=3)
    height, width = Image.open(files[3]).size[::-1]
    assert told.name == str(files[3])
    assert told.error is None
    assert told.text
    assert told.text[-1] in ".!?"
    assert (told.language, told.fixation, told.levels, told.windows) == ("en", (0.25, 0.75), 3, 3)
    assert told.size == (height, width)
    assert max(told.read_size) == 32 * 4
    assert told.read_size[0] / told.read_size[1] == pytest.approx(height / width, abs=0.02)
    assert 0 < told.seconds < 60


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_pictures_of_any_precision_stand_in_one_batch(dtype, model):
    picture = torch.rand(3, 40, 50)
    first, second = describe([picture, picture.to(dtype)], model=model)
    assert first.text
    assert second.text
    assert (first.error, second.error) == (None, None)


def test_the_language_chooses_the_prompt_and_the_stop(files, model, monkeypatch):
    prompts = []
    kept = type(model.processor).__call__
    monkeypatch.setattr(
        type(model.processor), "__call__", lambda self, images, text: prompts.append(text) or kept(self, images, text)
    )
    assert describe(files[0], model=model, language="zh")[0].text.endswith("。")
    assert not describe(files[0], model=model, language="en")[0].text.endswith("。")
    assert prompts == ["lang=zh", "lang=en"]


def test_levels_are_the_model_s_own_unless_given(files, model):
    assert describe(files[0], model=model)[0].levels == 2
    assert describe(torch.rand(3, 200, 250), model=model, levels="auto")[0].levels == 4
    assert describe(files[0], model=model, levels=1)[0].windows == 1


def test_auto_looks_where_a_person_would(model):
    picture = open_picture(next(file for file in demo_pictures() if file.name == "astronaut.png"))
    y, x = describe(picture, model=model, fixation="auto")[0].fixation
    assert (y, x) == salient_fixation(picture)
    assert 0.05 < y < 0.6  # her face
    assert 0.3 < x < 0.6


def test_descriptions_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Description("a.png").text = "another"


# ---- what may be described -----------------------------------------------------------------------------------------


def test_anything_that_can_be_opened_may_be_described_alone_or_in_numbers(files, model):
    array = np.asarray(Image.open(files[0]))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    with open(files[0], "rb") as file:
        sources = [files[0], str(files[0]), files[0].read_bytes(), Image.open(files[0]), array, tensor, file]
        alone = [describe(source, model=model)[0] for source in sources]
    assert len({told.text for told in alone}) == 1
    assert [told.error for told in alone] == [None] * 7
    assert {told.size for told in alone} == {array.shape[:2]}
    assert len(describe(tensor[None].repeat(3, 1, 1, 1), model=model)) == 3
    assert len(describe(iter(files), model=model)) == len(files)
    assert describe([], model=model) == []


def test_the_public_function_is_this_one(files, folder):
    assert foveal.describe is describe
    assert foveal.describe(files[0], model=folder)[0].text


def test_the_text_of_a_picture_does_not_depend_on_its_neighbours(files, model):
    alone = [describe(file, model=model, levels="auto")[0].text for file in files]
    assert len(set(alone)) > 1, "these pictures cannot tell whether answers were mixed up"
    large = torch.rand(3, 300, 200)  # more levels than the others: their places are filled
    for batch in (2, 6):
        told = describe([*files[:2], large, *files[2:]], model=model, batch=batch, levels="auto")
        assert [one.text for number, one in enumerate(told) if number != 2] == alone
        assert told[2].levels > told[0].levels


def test_a_bad_picture_never_stops_or_spoils_the_others(files, model, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:-400])
    bad = [
        tmp_path / "empty.png",
        tmp_path / "text.jpg",
        tmp_path / "cut.png",
        tmp_path / "lost.png",
        torch.rand(1, 9, 9),
    ]
    mixed = [source for pair in zip(bad, files, strict=True) for source in pair]
    told = describe(mixed, model=model, batch=4)
    assert [one.text for one in told[1::2]] == [one.text for one in describe(files, model=model, batch=1)]
    for source, one in zip(bad, told[::2], strict=True):
        assert one.text == ""
        assert one.error is not None
        assert "\n" not in one.error
        assert one.error.startswith(one.name)
        assert one.name == ("tensor" if isinstance(source, torch.Tensor) else str(source))
    assert "channels" in told[8].error
    assert [one.error for one in describe(bad[:2], model=model)] == [told[0].error, told[2].error]


def test_a_batch_is_read_only_when_it_is_its_turn(files, model):
    read = []

    def watched():
        for file in files:
            read.append(file)
            yield file

    answers = describe_each(watched(), model=model, batch=2)
    assert read == []
    next(answers)
    assert len(read) == 2


def test_seconds_share_the_network_s_time_and_add_up_to_less_than_the_clock(files, model):
    import time

    started = time.perf_counter()
    told = describe(files, model=model, batch=5)
    assert sum(one.seconds for one in told) <= time.perf_counter() - started
    assert min(one.seconds for one in told) > 0


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"language": "fr"}, "language 'fr': this model writes en, zh"),
        ({"fixation": "left"}, "expected 'center', 'auto'"),
        ({"fixation": (0.5, 1.5)}, r"fixation is \(0\.5, 1\.5\)"),
        ({"fixation": 0.5}, "fixation is 0.5"),
        ({"levels": 0}, "levels is 0; expected a whole number from 1 to 16"),
        ({"levels": "many"}, "levels is 'many'"),
        ({"beams": 0}, "beams is 0; expected a whole number of at least 1"),
        ({"beams": "3"}, "beams is .3.; expected a whole number"),
        ({"beams": True}, "beams is True"),
        ({"batch": 1.5}, "batch is 1.5"),
        ({"batch": 0}, "batch is 0; expected a whole number of at least 1"),
    ],
)
def test_impossible_arguments_are_refused_before_any_picture_is_read(model, wrong, message):
    def never():
        pytest.fail("a picture was asked for")
        yield

    with pytest.raises(ValueError, match=message):
        describe_each(never(), model=model, **wrong)


def test_a_model_is_loaded_in_full_precision_ready_to_write(folder, model):
    assert {value.dtype for value in model.model.parameters()} == {torch.float32}
    assert not model.model.training
    assert model.languages == ("en", "zh")
    assert load_describer(model) is model
    assert load_describer(str(folder)).name == str(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_a_model_that_lacks_a_file_is_refused_by_its_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"is not a whole model; it lacks {name}"):
        load_model(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_a_model_with_a_damaged_file_is_refused_in_one_line(copy, name, capfd):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_pickled_weights_are_refused_and_never_read(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights, which could run code"):
        load_model(copy)


def test_weights_that_do_not_fit_are_refused_and_not_made_up(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "decoder_layers": 2}))
    with pytest.raises(ModelError, match=r"do not fit config\.json; missing: decoder\.layers\.1"):
        load_model(copy)
    (copy / "config.json").write_text(json.dumps({**config, "dim": 64}))
    with pytest.raises(ModelError):
        load_model(copy)


def test_a_model_of_another_type_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="a model of type 'bert'; expected 'foveal'"):
        load_model(copy)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        load_model(tmp_path / "lost")


# ---- glimpses, files and the demo ----------------------------------------------------------------------------------


def test_glimpses_put_together_are_those_of_one_look(model):
    pictures = [torch.rand(3, 60, 50), torch.rand(3, 200, 300), torch.rand(3, 20, 20)]
    both = model.look(pictures, levels="auto")
    each = together([model.look([picture], levels="auto") for picture in pictures])
    assert torch.equal(both.pixels, each.pixels)
    for name in ("origins", "levels", "pictures", "fixations", "valid"):
        assert torch.equal(getattr(both.layout, name), getattr(each.layout, name))


def test_files_folders_and_globs_are_found_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.webp", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "void").mkdir()
    assert find_pictures(["."]) == (["a.JPG", "b.png", "deep/c.webp", "odd[1].png"], [])
    assert find_pictures(["*.png"])[0] == ["b.png", "odd[1].png"]
    assert find_pictures(["odd[1].png", "lost.png"]) == (["odd[1].png", "lost.png"], [])
    files, faults = find_pictures(["void", "b.png", "*.bmp"])
    assert files == ["b.png"]
    assert [fault.split(":")[0] for fault in faults] == ["void", "*.bmp"]


def test_the_demo_s_photographs_are_on_this_machine_and_can_be_opened():
    files = demo_pictures()
    assert len(files) >= 4
    for file in files:
        assert min(foveal.open_picture(file).height, foveal.open_picture(file).width) >= 300


def test_a_demo_without_its_photographs_says_what_brings_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        demo_pictures()


def test_hidden_files_are_no_pictures(tmp_path):
    save_pictures(tmp_path, 1)
    (tmp_path / "._a.png").write_bytes(b"x")
    (tmp_path / ".hidden").mkdir()
    save_pictures(tmp_path / ".hidden", 1)
    files, faults = find_pictures([tmp_path])
    assert (len(files), faults) == (1, [])


@pytest.mark.parametrize("values", [float("nan"), float("inf"), 200.0, -3.0])
def test_floats_that_are_no_pictures_are_told_and_not_described(values, model):
    answers = describe([torch.full((3, 40, 40), values), torch.rand(3, 40, 40)], model=model)
    assert "0 to 1" in answers[0].error
    assert not answers[0].text
    assert answers[1].text


def test_memory_that_does_not_suffice_for_one_picture_stops_no_other(files, model, monkeypatch):
    look = type(model).look

    def failing(describer, pictures, **how):
        if pictures[0].name == str(files[0]):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return look(describer, pictures, **how)

    monkeypatch.setattr(type(model), "look", failing)
    answers = describe(files[:2], model=model)
    assert "not enough memory" in answers[0].error
    assert answers[1].text
