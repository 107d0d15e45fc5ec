"""`foveal analyze`: tables, files and refusals."""

import csv
import json
import xml.etree.ElementTree as ET

import pytest
import torch
from PIL import Image
from torch import nn

from foveal.cli import main

LAYERS = "conv k7 s2 p3; pool k3 s2 p1; conv k3 p1 c8"


def network():
    """For MODULE:FUNCTION."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1))


class Deciding(nn.Module):
    """Takes another way where numbers say so, which no graph can hold."""

    def forward(self, x):
        return x.sin() if x.sum() > 0 else x.cos()


class Picking(nn.Module):
    """Gives as many numbers as are positive."""

    def forward(self, x):
        return x[x > 0]


def failing():
    return {}["key"]


class Hungry(nn.Module):
    def forward(self, x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("Picking", 2, "its shapes depend on the numbers in its maps"),
        ("failing", 2, f"{__name__}:failing: raised KeyError: 'key'"),
        ("Hungry", 1, "foveal: there is not enough memory for this"),
    ],
)
def test_networks_that_fail_are_told_in_one_line(name, code, says, capsys):
    assert main(["analyze", f"{__name__}:{name}", "--size", "16"]) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_list_of_layers_is_told_layer_by_layer_and_in_total(capsys):
    assert main(["analyze", LAYERS, "--size", "64,96"]) == 0
    said = capsys.readouterr().out
    assert "conv1" in said
    assert "64x32x48" in said
    assert "Sequential on 1 x 3 x 64 x 96" in said
    macs = 32 * 48 * 64 * 147 + 16 * 24 * 8 * 576
    assert f"{macs / 1e6:.3g} M  multiply-accumulates" in said
    assert "field" in said


def test_json_and_csv_hold_what_the_table_says(tmp_path, capsys):
    files = {name: str(tmp_path / f"made.{name}") for name in ("json", "csv")}
    name = f"{__name__}:network"
    assert main(["analyze", name, "--size", "32", "--json", files["json"], "--csv", files["csv"]]) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["totals"]["parameters"] == sum(p.numel() for p in network().parameters())
    assert made["totals"]["macs"] == 32 * 32 * 4 * 27 + 16 * 16 * 8 * 36
    rows = list(csv.DictReader((tmp_path / "made.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert [int(row["macs"]) for row in rows] == [layer["macs"] for layer in made["layers"]]
    assert [int(row["field_height"]) for row in rows] == [3, 3, 5]


def test_json_on_standard_output_is_alone_there(capsys):
    assert main(["analyze", LAYERS, "--size", "32", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == [1, 3, 32, 32]


def test_levels_tell_what_a_fovea_costs(capsys):
    assert main(["analyze", f"{__name__}:network", "--size", "64", "--levels", "3", "--window", "16"]) == 0
    said = capsys.readouterr().out
    assert "5.33 times fewer" in said
    assert "level" in said


def test_a_unit_is_told_with_its_box(capsys):
    assert main(["analyze", f"{__name__}:network", "--size", "32", "--unit", "2:4,5"]) == 0
    said = capsys.readouterr().out
    assert "rows 6 to 10, columns 8 to 12" in said
    assert "5 x 5 pixels" in said


def test_a_unit_in_the_padding_is_told_to_see_no_pixel(tmp_path, capsys):
    line = ["analyze", "conv k3 p9", "--size", "16", "--unit", "conv1:0,0"]
    assert main([*line, "--json", str(tmp_path / "made.json"), "--plot", str(tmp_path / "plots")]) == 0
    assert "can see  no pixel" in capsys.readouterr().out
    assert json.loads((tmp_path / "made.json").read_text())["unit"]["box"] is None


def test_page_and_plots_are_whole(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    line = ["analyze", f"{__name__}:network", "--size", "32", "--html", str(page), "--plot", str(plots)]
    assert main([*line, "--picture", str(tmp_path / "photo.png")]) == 0
    assert page.read_text().lower().startswith("<!doctype html>")
    drawn = {file.name for file in plots.iterdir()}
    assert drawn == {"cost.svg", "field_growth.svg", "receptive_field.png", "effective_field.png"}
    for name in drawn:
        if name.endswith("svg"):
            ET.fromstring((plots / name).read_text())
        else:
            Image.open(plots / name).load()


def test_an_onnx_file_is_read(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    torch.onnx.export(network(), (torch.rand(1, 3, 32, 32),), dynamo=True, verbose=False).save(tmp_path / "n.onnx")
    assert main(["analyze", str(tmp_path / "n.onnx"), "--size", "32"]) == 0
    said = capsys.readouterr().out
    assert f"parameters   {sum(p.numel() for p in network().parameters()):,}" in said


@pytest.mark.parametrize("written", ["n.onnx", "n.bin", "photo.jpg", "taught.safetensors"])
def test_what_is_read_is_not_written_over(written, tmp_path, capsys, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    weight = onnx.helper.make_tensor("w", 1, [1], b"\0\0\0\0", raw=True)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save_model(
        onnx.helper.make_model(graph), "n.onnx", save_as_external_data=True, location="n.bin", size_threshold=0
    )
    for name in ("photo.jpg", "taught.safetensors"):
        (tmp_path / name).write_bytes(b"kept")
    before = (tmp_path / written).read_bytes()
    line = ["analyze", "n.onnx", "--weights", "taught.safetensors", "--plot", "plots", "--picture", "photo.jpg"]
    assert main([*line, "--csv", written]) == 2
    assert f"--csv: {written} is what is read" in capsys.readouterr().err
    assert (tmp_path / written).read_bytes() == before


def test_a_picture_among_the_plots_is_not_drawn_over(tmp_path, capsys):
    photo = tmp_path / "receptive_field.png"
    Image.new("RGB", (8, 8)).save(photo)
    assert main(["analyze", LAYERS, "--plot", str(tmp_path), "--picture", str(photo)]) == 2
    assert "is what is read" in capsys.readouterr().err


def test_a_look_that_costs_more_is_told_so(capsys):
    assert main(["analyze", f"{__name__}:network", "--size", "32", "--levels", "2", "--window", "32"]) == 0
    assert "2.00 times MORE" in capsys.readouterr().out


def test_random_weights_are_told_where_the_field_depends_on_them(capsys):
    assert main(["analyze", LAYERS, "--size", "32", "--unit", "conv2"]) == 0
    assert "random weights; give --weights" in capsys.readouterr().out
    assert main(["analyze", f"{__name__}:network", "--size", "32", "--unit", "2"]) == 0
    assert "random weights" not in capsys.readouterr().out


def test_an_onnx_file_is_read_at_its_own_size(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    grey, file = nn.Sequential(nn.Conv2d(1, 4, 3)).eval(), str(tmp_path / "n.onnx")
    torch.onnx.export(grey, (torch.rand(2, 1, 20, 28),), file, dynamo=True, verbose=False)
    assert main(["analyze", file]) == 0
    assert "on 2 x 1 x 20 x 28" in capsys.readouterr().out
    assert main(["analyze", file, "--size", "224"]) == 2
    error = capsys.readouterr().err
    assert "takes pictures of 20 x 28; a size of 224 x 224 contradicts it" in error
    assert len(error.strip().splitlines()) == 1


def test_a_saved_model_is_read(capsys):
    assert main(["analyze", "default", "--size", "64", "--depth", "1"]) == 0
    assert "VisionSide on 1 x 3 x 64 x 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["resnett50"], "no network is called 'resnett50'"),
        (["conv k3; pol k2"], "pol"),
        ([LAYERS, "--size", "0"], "expected H,W"),
        ([LAYERS, "--size", "many"], "expected H,W"),
        ([LAYERS, "--levels", "auto"], "give the number"),
        ([LAYERS, "--unit", "conv9"], "did you mean"),
        ([LAYERS, "--unit", "conv1:x"], "LAYER:Y,X"),
        ([LAYERS, "--unit", "conv1:900,0"], "has a map of"),
        ([LAYERS, "--json", "no/such/folder/x.json"], "no/such/folder"),
        (["there_is_no.onnx"], "there_is_no.onnx"),
        ([f"{__name__}:Deciding"], "cannot be recorded"),
        ([f"{__name__}:network", "--levels", "3", "--window", "7"], "7"),
        ([LAYERS, "--size", "16", "--levels", "3", "--window", "4096"], "larger than the picture"),
        ([LAYERS, "--picture", "photo.jpg"], "--plot"),
        ([LAYERS, "--plot", "/proc/no/such"], "--plot: /proc/no/such cannot be made a folder"),
        (["relu;gell"], "gell"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(line, said, capsys):
    assert main(["analyze", *line]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert len(streams.err.strip().splitlines()) == 1, streams.err
