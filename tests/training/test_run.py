"""A recipe runs from end to end, whole or in pieces, to the same model."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import save_captions

from foveal.models.generation import load_describer
from foveal.retina import Retina
from foveal.training import run as run_module
from foveal.training.recipe import RecipeError, load_recipe
from foveal.training.run import train

STEPS, SAVE_EVERY, KILLED_AT = 6, 2, 4
TINY = {
    "captions": "captions.jsonl",
    "languages": ["en", "zh"],
    "save_every": SAVE_EVERY,
    "ema": 0.9,
    "look": {"size": 32, "levels": 2},
    "model": {
        "backbone": "nano",
        "dim": 32,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "feedforward": 64,
        "max_tokens": 14,
        "vocabulary": 300,
    },
    "distil": {"steps": STEPS, "batch": 2, "pictures": "pictures", "teacher": "test_vit", "weights": "vit.safetensors"},
    "caption": {"steps": STEPS, "batch": 2, "texts": 1},
    "reward": {"steps": STEPS, "batch": 2, "samples": 2},
}
STAGES = "distil", "caption", "reward"

# For each stage a process that trains until the step in which it is to be killed, says so, and waits for that. They are
# forks of one that imports all that they need, since importing takes longer than training.
UNTIL_KILLED = """
import os, sys, time, torch
torch.set_num_threads(1)
from foveal.training import stages
from foveal.training.recipe import load_recipe
from foveal.training.run import train
recipe, folder, killed_at = sys.argv[1:]
fit = stages.fit
def until_killed(stage):
    def waiting(model, draw, place, **how):
        def until(step):
            if place.name == stage and step == int(killed_at):
                print("waiting:", stage, os.getpid(), flush=True)
                time.sleep(600)
            return draw(step)
        return fit(model, until, place, **how)
    stages.fit = waiting
    train(load_recipe(recipe), os.path.join(folder, stage))
for stage in "distil", "caption", "reward":
    child = os.fork()
    if not child:
        until_killed(stage)
        sys.exit("it was not killed")
    print("ended:", stage, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    save_captions(folder)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=1000).state_dict(), folder / "vit.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def whole_run(recipe_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(load_recipe(recipe_file), folder)
    return folder


@pytest.fixture(scope="module")
def killed_runs(recipe_file, tmp_path_factory) -> Path:
    """A folder for each stage, of a run that was killed in it."""
    folder = tmp_path_factory.mktemp("killed")
    process = subprocess.Popen(
        [sys.executable, "-c", UNTIL_KILLED, str(recipe_file), str(folder), str(KILLED_AT)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    told = (line.split() for line in process.stdout if line.startswith(("waiting:", "ended:")))
    try:
        for stage in STAGES:
            what, which, child = next(told)
            assert (what, which) == ("waiting:", stage), "it ended before it could be killed"
            complete, deadline = (
                folder / stage / stage / f"checkpoint-{SAVE_EVERY}" / "ema.safetensors",
                time.time() + 60,
            )
            while not complete.exists() and time.time() < deadline:
                time.sleep(0.05)
            os.kill(int(child), signal.SIGKILL)
            assert next(told) == ["ended:", stage, str(-signal.SIGKILL)]
            assert complete.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    return folder


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_run_leaves_its_recipe_versions_metrics_and_a_whole_model(whole_run):
    inside = {file.name for file in whole_run.iterdir()}
    assert inside == {"recipe.yaml", "versions.json", "processor", "teacher", "model", *STAGES}
    written = yaml.safe_load((whole_run / "recipe.yaml").read_text())
    assert written["seed"] == 0
    assert written["caption"]["steps"] == STEPS
    assert Path(written["captions"]).is_absolute()
    versions = json.loads((whole_run / "versions.json").read_text())
    assert {"foveal", "python", "torch", "transformers"} <= set(versions)
    assert os.uname().nodename not in json.dumps(versions).split('"')
    assert not any(isinstance(value, str) and "/" in value for value in versions.values())
    told = {"distil": {"cells", "whole"}, "caption": set(), "reward": {"reward"}}
    for stage in STAGES:
        metrics = [json.loads(line) for line in (whole_run / stage / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in metrics if "loss" in row] == list(range(1, STEPS + 1))
        assert all(told[stage] <= row.keys() for row in metrics if "loss" in row)


def test_the_model_of_a_run_is_half_precision_and_describes(whole_run):
    weights = load_file(whole_run / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}
    settings = json.loads((whole_run / "model" / "generation_config.json").read_text())
    assert settings["num_beams"] == 3
    assert settings["max_new_tokens"] == TINY["model"]["max_tokens"] - 1
    describer = load_describer(whole_run / "model")
    assert describer.languages == ("en", "zh")
    assert describer.model.dtype == torch.float32
    assert describer.processor.image_processor.levels == 2
    glimpse = describer.look([torch.rand(3, 50, 60)])
    assert [type(text) for text in describer.write(glimpse, language="zh", beams=1)] == [str]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_killed_and_resumed_has_the_weights_of_one_that_was_not(
    stage, recipe_file, whole_run, killed_runs
):
    folder = killed_runs / stage
    assert not (folder / "model").exists()
    assert not (folder / stage / f"checkpoint-{STEPS}").exists()
    model = train(load_recipe(recipe_file), folder, resume=True)
    ours, theirs = (load_file(place / "model.safetensors") for place in (model, whole_run / "model"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for each in STAGES:
        last = f"{each}/checkpoint-{STEPS}/ema.safetensors"  # in full precision, where half would hide a difference
        ours, theirs = load_file(folder / last), load_file(whole_run / last)
        assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert digest(folder / "processor" / "tokenizer.json") == digest(whole_run / "processor" / "tokenizer.json")
    steps = [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == list(range(1, STEPS + 1))


def test_a_run_killed_while_it_saved_its_model_only_saves_it_again(recipe_file, whole_run, tmp_path):
    folder = tmp_path / "late"
    shutil.copytree(whole_run, folder)
    (folder / "model").rename(folder / "model.part")
    (folder / "model.part" / "model.safetensors").write_bytes(b"half a file")
    (folder / "model.part" / "left_over.json").touch()
    model = train(load_recipe(recipe_file), folder, resume=True)
    assert {file.name for file in model.iterdir()} == {file.name for file in (whole_run / "model").iterdir()}
    assert not (folder / "model.part").exists()
    assert digest(model / "model.safetensors") == digest(whole_run / "model" / "model.safetensors")


def test_resuming_a_finished_run_does_nothing(recipe_file, whole_run):
    before = {file: file.stat().st_mtime_ns for file in whole_run.rglob("*")}
    assert train(load_recipe(recipe_file), whole_run, resume=True) == whole_run / "model"
    assert {file: file.stat().st_mtime_ns for file in whole_run.rglob("*")} == before


def test_a_folder_that_holds_something_is_refused_and_left_alone(recipe_file, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty; give another folder, or --resume"):
        train(load_recipe(recipe_file), tmp_path)
    with pytest.raises(RecipeError, match=r"no run that could be resumed: it has no recipe\.yaml"):
        train(load_recipe(recipe_file), tmp_path, resume=True)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(RecipeError, match="is a file"):
        train(load_recipe(recipe_file), tmp_path / "letter.txt")


def test_resuming_with_another_recipe_is_refused_by_the_name_of_the_key(recipe_file, whole_run):
    with pytest.raises(RecipeError, match=r"was begun with caption\.rate: 0\.001, not 0\.002"):
        train(load_recipe(recipe_file, ["caption.rate=0.002"]), whole_run, resume=True)


def test_a_run_that_was_begun_before_a_key_was_known_can_be_resumed(recipe_file, whole_run):
    file = whole_run / "recipe.yaml"
    kept = file.read_text()
    older = yaml.safe_load(kept)
    del older["model"]["gating"], older["warmup"]
    file.write_text(yaml.safe_dump(older))
    try:
        assert train(load_recipe(recipe_file), whole_run, resume=True) == whole_run / "model"
        with pytest.raises(RecipeError, match=r"was begun with model\.gating: False, not True"):
            train(load_recipe(recipe_file, ["model.gating=true"]), whole_run, resume=True)
    finally:
        file.write_text(kept)


def test_several_processes_are_refused(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="2 processes were started"):
        train(load_recipe(recipe_file, ["distil.steps=0"]), tmp_path / "run")


def test_resuming_with_other_versions_is_said_but_not_refused(recipe_file, whole_run, caplog):
    file = whole_run / "versions.json"
    kept = file.read_text()
    file.write_text(json.dumps({**json.loads(kept), "torch": "0.0.1"}))
    try:
        train(load_recipe(recipe_file), whole_run, resume=True)
    finally:
        file.write_text(kept)
    assert any("torch 0.0.1" in record.getMessage() for record in caplog.records)


def test_weights_that_are_not_numbers_are_refused_and_no_model_is_written(recipe_file, tmp_path, monkeypatch):
    def diverged(recipe, folder, model, captions, *, resume):
        with torch.no_grad():
            model.embed.weight[0] = float("nan")

    monkeypatch.setattr(run_module, "caption_stage", diverged)
    with pytest.raises(ValueError, match="weights that half precision cannot hold"):
        train(load_recipe(recipe_file), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_missing_package_is_named_with_what_brings_it(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(ImportError, match=r"needs no_such_package.*pip install 'foveal\[train\]'"):
        train(load_recipe(recipe_file), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_captions_that_lack_a_language_are_refused(recipe_file, tmp_path):
    with pytest.raises(
        ValueError, match="no picture has captions in all of en, fr; the set has en, zh: give languages=en,zh"
    ):
        train(load_recipe(recipe_file, ["languages=en,fr"]), tmp_path / "run")


def test_the_retina_of_the_model_is_that_of_the_recipe(whole_run):
    retina = load_describer(whole_run / "model").processor.image_processor.retina()
    assert isinstance(retina, Retina)
    assert (retina.size, retina.levels, retina.enlarge) == (32, 2, True)
