"""The commands, as a person types them: what they print, where, and how they end."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import save_captions, save_pictures, save_tiny_model

import foveal
from foveal.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return [str(file) for file in save_pictures(tmp_path_factory.mktemp("pictures"), 3)]


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    return str(save_captions(tmp_path_factory.mktemp("set"), train=2, val=3))


@pytest.fixture
def foveal_says(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty folder; gives its exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def is_one_line(text):
    return text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text


# ---- help and wrong usage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_shows_every_command_with_examples(foveal_says, arguments):
    code, out, err = foveal_says(*arguments)
    assert (code, err) == (0, "")
    for word in ("describe", "view", "train", "evaluate", "data", "foveal describe --demo", "--version"):
        assert word in out


@pytest.mark.parametrize("command", [["describe"], ["view"], ["train"], ["evaluate"], ["data"], ["data", "check"]])
def test_every_command_explains_itself(foveal_says, command):
    code, out, err = foveal_says(*command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: foveal {' '.join(command)}" in out


def test_the_version_is_the_package_s(foveal_says):
    assert foveal_says("--version") == (0, f"foveal {foveal.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["descibe"], ["descibe", "describe"]),
        (["describe"], ["give a picture", "--demo"]),
        (["describe", "a.png", "--lnag", "en"], ["--lnag", "--lang"]),
        (["describe", "a.png", "--levels", "0"], ["--levels", "1 to 16, or auto"]),
        (["describe", "a.png", "--fixation", "left"], ["--fixation", "center, auto"]),
        (["describe", "a.png", "--fixation", "2,2"], ["outside the picture"]),
        (["describe", "a.png", "--beams", "none"], ["--beams", "integer"]),
        (["describe", "a.png", "--batch", "0"], ["--batch", "1"]),
        (["describe", "a.png", "--json", "no/such/folder/a.json"], ["--json", "there is no folder"]),
        (["describe", "a.png", "--csv", "."], ["--csv", "is a folder"]),
        (["describe", "a.png", "--json", "-", "--csv", "-"], ["--json and --csv", "standard output"]),
        (["view"], ["PICTURE"]),
        (["view", "a.png", "--size", "33"], ["--size", "odd"]),
        (["train"], ["RECIPE"]),
        (["train", "lost.yaml"], ["lost.yaml", "cannot be read"]),
        (["evaluate", "default"], ["DATA"]),
        (["data", "chekc"], ["chekc", "check"]),
        (["data", "check"], ["PATH"]),
    ],
)
def test_wrong_usage_is_one_line_of_what_to_do_and_exit_code_2(foveal_says, arguments, words):
    code, out, err = foveal_says(*arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err), err
    assert err.startswith("foveal")
    assert "--help" in err
    for word in words:
        assert word in err


# ---- describe ------------------------------------------------------------------------------------------------------


def test_describe_prints_sentence_name_fixation_and_seconds(foveal_says, files, model):
    code, out, err = foveal_says("describe", *files, "--model", model, "--fixation", "0.25,0.5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 2 * len(files) + 1
    for file, sentence, facts in zip(files, lines[::2], lines[1::2], strict=False):
        assert sentence[-1] in ".!?"
        assert file in facts
        assert "(0.25, 0.50)" in facts
        assert facts.endswith(" s")
    assert lines[-1].startswith("3 pictures in ")


def test_json_and_csv_files_hold_all_that_is_known(foveal_says, files, model):
    code, out, _ = foveal_says(
        "describe", *files, "--model", model, "--json", "said.json", "--csv", "said.csv", "--lang", "zh"
    )
    assert code == 0
    said = json.loads(Path("said.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in said] == files
    assert all(one["text"] in out for one in said if one["text"].isprintable())
    assert all(one["fixation"] == [0.5, 0.5] and one["error"] is None and one["language"] == "zh" for one in said)
    with open("said.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == files
    assert [int(row["height"]) for row in table] == [one["size"][0] for one in said]
    assert [row["text"] for row in table] == [one["text"] for one in said]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_on_standard_output_there_is_nothing_beside_json_or_csv(foveal_says, files, model, form):
    code, out, err = foveal_says("describe", files[0], "lost.png", "--model", model, f"--{form}", "-")
    rows = json.loads(out) if form == "json" else list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == [files[0], "lost.png"]
    assert rows[0]["text"]
    assert "No such file" in rows[1]["error"]
    assert code == 1
    assert is_one_line(err)


def test_bad_files_are_named_on_standard_error_and_the_others_described(foveal_says, files, model, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "void").mkdir()
    code, out, err = foveal_says("describe", "empty.png", files[0], "void", "*.bmp", "--model", model)
    assert code == 1
    assert files[0] in out
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["void", "*.bmp", "empty.png"]
    assert all(line.startswith("foveal: ") for line in err.splitlines())


def test_names_from_outside_are_shown_harmlessly(foveal_says, model, tmp_path):
    name = "[bold]x\x1b[31m\nnew.png"
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / name)
    (tmp_path / "bad\x07\n.png").touch()
    code, out, err = foveal_says("describe", ".", "--model", model)
    assert code == 1
    assert "[bold]x\\x1b[31m\\nnew.png" in out
    assert len(out.splitlines()) == 2
    assert is_one_line(err)
    assert "\x1b" not in out
    assert "\x07" not in err


def test_the_demo_describes_real_photographs_and_says_how_long_it_took(foveal_says, model):
    code, out, err = foveal_says("describe", "--demo", "--model", model, "--lang", "zh", "--fixation", "auto")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        assert any(line.startswith(f"  {name} · looked at auto (") for line in lines)
    assert all(line.endswith("。") for line in lines[:-1:2])
    assert "pictures in" in lines[-1]
    assert "the model was loaded in" in lines[-1]


def test_a_language_that_the_model_lacks_is_wrong_usage(foveal_says, files, model):
    code, out, err = foveal_says("describe", files[0], "--model", model, "--lang", "fr")
    assert (code, out) == (2, "")
    assert is_one_line(err)
    assert "--lang" in err
    assert "this model writes en, zh" in err


def test_a_model_that_cannot_be_loaded_is_failed_work(foveal_says, files):
    code, out, err = foveal_says("describe", files[0], "--model", "lost")
    assert (code, out) == (1, "")
    assert is_one_line(err)
    assert "lost: there is no such folder" in err
    with pytest.raises(ValueError, match="no such folder"):
        foveal_says("--traceback", "describe", files[0], "--model", "lost")


# ---- view ----------------------------------------------------------------------------------------------------------


def test_view_draws_the_glimpse_at_the_picture_s_aspect(foveal_says, tmp_path):
    Image.linear_gradient("L").resize((300, 200)).convert("RGB").save(tmp_path / "photo.jpg")
    code, out, err = foveal_says("view", "photo.jpg", "--fixation", "0.25,0.75", "--levels", "3", "--size", "32")
    assert (code, err) == (0, "")
    assert "photo.glimpse.png" in out
    assert "3 windows of 32 x 32, looked at (0.25, 0.75)" in out
    drawing = Image.open("photo.glimpse.png")
    assert drawing.format == "PNG"
    assert drawing.size == (1024, 683)
    red, green, blue = np.moveaxis(np.asarray(drawing).astype(int), 2, 0)
    yellow = np.argwhere((red > 200) & (abs(green - 190) < 40) & (blue < 110))
    # The lattice lets the fovea lie up to half its side (of 256 here) beside the fixation.
    assert yellow.mean(0).tolist() == pytest.approx([0.25 * 683, 0.75 * 1024], abs=140)
    assert np.ptp(yellow, 0).tolist() == pytest.approx([256, 256], abs=8)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.glimpse.png", "photo.jpg"]


def test_view_never_overwrites_the_picture(foveal_says, tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    code, _, err = foveal_says("view", "a.png", "-o", "./a.png")
    assert code == 2
    assert "the picture itself" in err
    assert (tmp_path / "a.png").read_bytes() == before


def test_view_of_a_bad_picture_writes_nothing(foveal_says, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    code, out, err = foveal_says("view", "bad.png")
    assert (code, out) == (1, "")
    assert is_one_line(err)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.png"]


# ---- evaluate, data, train -----------------------------------------------------------------------------------------


def test_evaluate_prints_every_score_or_json_alone(foveal_says, model, captions):
    code, out, err = foveal_says("evaluate", model, captions, "--beams", "1", "--captions", "each.jsonl")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:7]] == [
        "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "distinct",
    ]  # fmt: skip
    assert len(Path("each.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    code, out, _ = foveal_says("evaluate", "most-frequent", captions, "--lang", "zh", "--limit", "2", "--json", "-")
    assert code == 0
    assert json.loads(out)["pictures"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lang", "fr"], "language 'fr': this model writes en, zh"),
        (["--split", "eval"], "'eval': expected train, val, test"),
        (["--captions", "each.txt"], "'each.txt': expected a name in .jsonl or .csv"),
    ],
)
def test_evaluate_refuses_wrong_usage(foveal_says, model, captions, arguments, message):
    code, out, err = foveal_says("evaluate", model, captions, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_one_caption_for_all_cannot_be_shuffled(foveal_says, captions):
    code, _, err = foveal_says("evaluate", "most-frequent", captions, "--shuffle")
    assert code == 2
    assert "the same for every picture" in err


def test_evaluate_on_what_is_no_set_is_one_line(foveal_says, model, tmp_path):
    code, out, err = foveal_says("evaluate", model, tmp_path)
    assert (code, out) == (1, "")
    assert is_one_line(err)


def test_data_check_prints_problems_caps_repeats_and_counts(foveal_says, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [{"image": "a.png", "text": "same"}] * 9 + [{"image": "lost.png", "text": "x"}]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = foveal_says("data", "check", "set.jsonl")
    assert code == 1
    lines = out.splitlines()
    assert sum("repeats a caption" in line and line.startswith("set.jsonl:") for line in lines) == 5
    assert any("3 more warnings: 'repeats a caption ...'; --all" in line for line in lines)
    assert any(line.startswith("set.jsonl:10: error: ") for line in lines)
    assert lines[-1].startswith("set.jsonl: 1 error, ")
    _, out, _ = foveal_says("data", "check", "set.jsonl", "--all")
    assert sum("repeats a caption" in line for line in out.splitlines()) == 8
    code, out, _ = foveal_says("data", "check", "set.jsonl", "--json", "-")
    assert code == 1
    assert json.loads(out)["errors"] == 1
    assert len(json.loads(out)["problems"]) == 1 + json.loads(out)["warnings"]


def test_data_check_of_a_sound_set_ends_well(foveal_says, captions):
    code, out, err = foveal_says("data", "check", captions)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith("no errors, no warnings")


def test_train_refuses_a_wrong_key_and_a_full_folder_in_one_line(foveal_says, captions, tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"captions": captions}))
    code, _, err = foveal_says("train", "r.yaml", "caption.step=3")
    assert code == 2
    assert is_one_line(err)
    assert "did you mean caption.steps?" in err
    code, _, err = foveal_says("train", "r.yaml", "--out", ".")
    assert code == 2
    assert is_one_line(err)
    assert "--resume" in err


def test_train_leaves_a_model_that_describe_reads(foveal_says, captions, files, tmp_path):
    tree = {
        "captions": captions,
        "look": {"size": 32, "levels": 2},
        "model": {
            "backbone": "nano",
            "dim": 32,
            "heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "vocabulary": 300,
        },
        "caption": {"steps": 1, "batch": 2, "texts": 1},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    code, out, _ = foveal_says("train", "tiny.yaml", "seed=3")
    assert code == 0
    assert "foveal describe --demo --model runs/tiny/model" in out
    assert yaml.safe_load((tmp_path / "runs/tiny/recipe.yaml").read_text())["seed"] == 3
    code, out, _ = foveal_says("describe", files[0], "--model", "runs/tiny/model")
    assert code == 0
    assert out


# ---- as a process of its own ---------------------------------------------------------------------------------------


def start(*arguments, locale=None, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if locale:
        environment |= {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "foveal", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **options,
    )


def test_help_needs_neither_torch_nor_transformers():
    code = """
import sys
from foveal.cli import main
assert main(["--help"]) == main(["describe", "--help"]) == 0
assert main(["describe"]) == 2
print(sorted({"torch", "transformers", "numpy", "PIL"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_picture_on_standard_input_is_described_in_utf_8_whatever_the_locale(files, model):
    with open(files[0], "rb") as picture:
        process = start("describe", "-", "--model", model, "--lang", "zh", stdin=picture, locale="C")
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    sentence, facts = out.decode("utf-8").splitlines()
    assert sentence.endswith("。")
    assert "<stdin>" in facts


def test_a_bad_picture_on_standard_input_does_not_stop_the_others(foveal_says, files, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no picture")))
    code, out, err = foveal_says("describe", files[0], "-", files[1], "--model", model, "--json", "-")
    assert code == 1
    assert [bool(one["text"]) for one in json.loads(out)] == [True, False, True]
    assert "is not a picture" in err


def test_view_draws_a_picture_from_standard_input_to_standard_output(files, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(files[0]).read_bytes())))
    assert main(["view", "-", "-o", "-", "--size", "16"]) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    assert Image.open(io.BytesIO(out)).format == "PNG"


@pytest.mark.parametrize("lines", [0, 900])  # what fits into a buffer breaks only at the end, more on the way
def test_a_reader_who_leaves_is_no_traceback(tmp_path, lines):
    rows = [{"image": f"lost{number}.png", "text": "x"} for number in range(lines)]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    process = start(*(["data", "check", str(tmp_path / "set.jsonl")] if lines else ["--version"]))
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1
    assert err == b""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc to see how far the process is")
def test_ctrl_c_is_exit_code_130_without_a_traceback(model):
    process = start(
        *("describe", "-", "--model", model),
        stdin=subprocess.PIPE,  # waits for its picture
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run where Ctrl-C is ignored
    )
    while b"torch" not in Path(f"/proc/{process.pid}/maps").read_bytes():  # until it is at work, not still starting
        time.sleep(0.1)
    waited = 0
    while waited < 5:  # and waits: an interrupt while libraries are loaded is told by whichever of them catches it
        before = Path(f"/proc/{process.pid}/stat").read_text().split()
        time.sleep(0.2)
        after = Path(f"/proc/{process.pid}/stat").read_text().split()
        waited = waited + 1 if after[2] == "S" and before[13:15] == after[13:15] else 0
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err


# ---- nothing that is read is written over --------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_describe_never_writes_over_a_picture(foveal_says, files, model, option):
    before = Path(files[0]).read_bytes()
    for source in (files[0], str(Path(files[0]).parent)):
        code, _, err = foveal_says("describe", source, "--model", model, option, files[0])
        assert (code, is_one_line(err)) == (2, True)
        assert "give another name" in err
    assert Path(files[0]).read_bytes() == before


def test_one_file_for_two_options_is_refused(foveal_says, files, model):
    code, _, err = foveal_says("describe", files[0], "--model", model, "--json", "same", "--csv", "./same")
    assert (code, is_one_line(err)) == (2, True)
    assert "--json and --csv" in err
    assert not Path("same").exists()


def test_a_caption_set_is_never_written_over(foveal_says, model, tmp_path):
    picture = save_pictures(tmp_path, 1)[0]
    line = json.dumps({"image": picture.name, "text": "a dog", "split": "val"}) + "\n"
    (tmp_path / "set.jsonl").write_text(line, encoding="utf-8")
    for command in (
        ["data", "check", "set.jsonl", "--json", "set.jsonl"],
        ["evaluate", model, "set.jsonl", "--captions", "set.jsonl"],
        ["evaluate", model, ".", "--captions", "set.jsonl"],
    ):
        code, _, err = foveal_says(*command)
        assert (code, is_one_line(err)) == (2, True), command
    assert (tmp_path / "set.jsonl").read_text(encoding="utf-8") == line


def test_a_drawing_has_a_png_s_name(foveal_says, files):
    code, _, err = foveal_says("view", files[0], "-o", "drawing.jpg")
    assert (code, is_one_line(err)) == (2, True)
    assert ".png" in err


def test_memory_that_does_not_suffice_is_one_line(foveal_says, files, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr("foveal.retina.Retina.__call__", failing)
    code, _, err = foveal_says("view", files[0])
    assert (code, is_one_line(err)) == (1, True)
    assert "not enough memory" in err
    monkeypatch.setattr("foveal.retina.Retina.__call__", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["view", files[0]])


def test_a_name_that_starts_like_the_program_is_still_told_by_it(foveal_says):
    code, _, err = foveal_says("view", "foveal-nope\nx.bmp")
    assert (code, is_one_line(err)) == (1, True)
    assert err.startswith("foveal: foveal-nope")


def test_a_run_that_is_not_there_is_not_resumed_and_a_refused_one_leaves_nothing(foveal_says, captions, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"captions": captions, "languages": ["en"], "distil": {"steps": 0}}))
    code, _, err = foveal_says("train", recipe, "--out", tmp_path / "nowhere", "--resume")
    assert (code, is_one_line(err)) == (2, True)
    assert "no run that could be resumed" in err
    for change in ("captions=nope.jsonl", "languages=en,xx"):
        code, _, err = foveal_says("train", recipe, change, "--out", tmp_path / "run")
        assert code
        assert is_one_line(err)
        assert not (tmp_path / "run").exists()
