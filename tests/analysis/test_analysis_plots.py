"""Plots of an analysis are documents that anything can show, with the analysis's own numbers."""

import doctest
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from foveal.analysis import analysis_plots, field_pictures
from foveal.analysis.analysis_plots import MANY, MOST, cost_plot, growth_plot, rows_of
from foveal.analysis.analysis_text import short
from foveal.analysis.analyze import Field, analyze
from foveal.analysis.effective_field import UnitField, unit_field
from foveal.analysis.field_pictures import field_picture, heat_picture
from foveal.analysis.picture_panel import EDGE
from foveal.analysis.svg_parts import round_steps, shortened

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(\"&amp;')</script>\x00\x1b\ud800"


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def network(blocks=2):
    body = nn.Sequential(*(Residual(8) for _ in range(blocks)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), body, head).eval()


@pytest.fixture(scope="module")
def small():
    return analyze(network(), 32)


@pytest.fixture(scope="module")
def unit():
    torch.manual_seed(0)
    return unit_field(network(), "1.0.second", (24, 32), samples=1)


def many_layers(analysis, count, name="layer{}"):
    layers = tuple(replace(analysis.layers[place % 4], name=name.format(place)) for place in range(count))
    return replace(analysis, layers=layers)


def words(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def drawn(picture):
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("module", [analysis_plots, field_pictures])
def test_the_examples_in_the_docstrings_are_true(module):
    assert doctest.testmod(module, extraglobs={"analyze": analyze, "unit_field": unit_field, "nn": nn}).failed == 0


@pytest.mark.parametrize("plot", [cost_plot, growth_plot])
def test_plots_are_xml_whatever_the_layers_are_called(plot, small):
    layers = tuple(replace(layer, name=f"{HOSTILE}.{place}") for place, layer in enumerate(small.layers))
    svg = plot(replace(small, network=HOSTILE, layers=layers))
    root = ElementTree.fromstring(svg.encode("utf-8"))
    assert not list(root.iter(f"{SVG}script"))
    assert any("alert" in (element.text or "") for element in root.iter(f"{SVG}title"))


@pytest.mark.parametrize("plot", [cost_plot, growth_plot])
def test_a_network_without_layers_has_plots_too(plot, small):
    ElementTree.fromstring(plot(replace(small, layers=())))


def test_bars_are_as_long_as_the_numbers_that_stand_beside_them(small):
    root = ElementTree.fromstring(cost_plot(small))
    bars = [float(rect.get("width")) for rect in root.iter(f"{SVG}rect") if rect.get("class") == "one"]
    macs = [layer.macs for layer in small.layers if layer.macs]
    assert bars == pytest.approx([max(0.8, max(bars) * number / max(macs)) for number in macs], abs=0.1)
    said = words(cost_plot(small))
    assert all(short(number).strip() in said for number in macs)
    assert f"MACs: {short(small.macs).strip()}" in said
    assert f"Parameters: {short(small.parameters).strip()}" in said
    assert f"Activations: {short(small.activation_bytes)}B" in said
    assert not any("Time" in word for word in said)


def test_measured_layers_have_bars_of_time(small):
    layers = tuple(replace(layer, milliseconds=1.5) for layer in small.layers)
    assert f"Time: {1.5 * len(layers):.3g} ms" in words(cost_plot(replace(small, layers=layers)))


@pytest.mark.parametrize("count", [1, MANY, 200, 1000])
@pytest.mark.parametrize("name", ["layer{}", "body.layer{}", "stage.block{}.conv"])
def test_rows_are_few_enough_to_be_read_and_nothing_of_the_cost_is_lost(count, name, small):
    analysis = many_layers(small, count, name)
    rows, how = rows_of(analysis.layers)
    assert min(count, 8) <= len(rows) <= MOST
    assert ("every layer" in how) == (len(rows) == count)
    for part in ("macs", "parameters", "activation_bytes"):
        assert sum(getattr(row, part) for row in rows) == sum(getattr(layer, part) for layer in analysis.layers)


def test_names_are_shortened_so_that_they_stay_beside_the_bars(small):
    named = replace(small, layers=tuple(replace(layer, name="a" * 200 + layer.name) for layer in small.layers))
    assert max(map(len, (word for word in words(cost_plot(named)) if word.startswith("…")))) == 28
    assert shortened("layer1.0.conv1", 8) == "…0.conv1"


def test_dots_stand_at_the_fields_and_the_line_at_the_picture_s_side(small):
    svg = growth_plot(small)
    root = ElementTree.fromstring(svg)
    local = [layer for layer in small.layers if not layer.field.whole]
    dots = [float(circle.get("cy")) for circle in root.iter(f"{SVG}circle")]
    titles = [circle.find(f"{SVG}title").text for circle in root.iter(f"{SVG}circle")]
    for layer, title in zip(local, titles, strict=True):
        assert title.startswith(f"{layer.name}: field {layer.field.size[0]} pixels")
    sizes = np.array([layer.field.size[0] for layer in local])
    per_pixel, zero = np.polyfit(sizes, dots, 1)
    line = next(path for path in root.iter(f"{SVG}path") if path.get("class") == "stroke-mark")
    at = float(re.match(r"M[\d.]+ ([\d.]+)", line.get("d"))[1])
    assert per_pixel < 0
    assert at == pytest.approx(zero + per_pixel * 32, abs=0.3)
    assert {"picture: 32", "global", f"field: {sizes.max()}"} <= set(words(svg))


def test_uneven_fields_and_pictures_have_a_line_for_either_side():
    analysis = analyze(nn.Sequential(nn.Conv2d(3, 4, (1, 7)), nn.Conv2d(4, 4, (3, 1))), (20, 40))
    assert {"height: 3", "width: 7", "picture's height: 20", "picture's width: 40"} <= set(words(growth_plot(analysis)))


def test_an_input_that_is_no_picture_has_no_field_and_says_so():
    analysis = analyze(nn.Sequential(nn.Linear(6, 4)), inputs=[torch.zeros(1, 6)])
    assert any("no layer has a field" in word for word in words(growth_plot(analysis)))


@pytest.mark.parametrize(
    ("most", "steps"), [(0, [0]), (7, [0, 2, 4, 6]), (100, [0, 20, 40, 60, 80, 100]), (3, [0, 1, 2, 3])]
)
def test_steps_are_round(most, steps):
    assert round_steps(most) == steps


def test_the_box_is_drawn_around_its_pixels(unit):
    image = drawn(field_picture(unit))
    scale = 760 / 32
    yellow = (abs(image - (255, 206, 64)).sum(-1) == 0)[:570]
    rows, columns = np.nonzero(yellow)
    top, bottom, left, right = unit.box
    x, y = EDGE + 16, 16
    assert unit.box == unit.nominal
    assert (rows.min(), columns.min()) == pytest.approx((y + scale * top, x + scale * left), abs=2)
    assert (rows.max(), columns.max()) == pytest.approx((y + scale * (bottom + 1), x + scale * (right + 1)), abs=2)


def test_a_picture_lies_under_the_box_cut_to_the_sides_ratio(unit):
    picture = Image.new("RGB", (100, 300), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 100, 100))  # above what remains: 75 of 300 rows, from the middle
    image = drawn(field_picture(unit, picture))[20:580, 70:800]
    assert (image == (0, 0, 255)).all(-1).mean() > 0.9
    assert not (image == (255, 0, 0)).all(-1).any()


def test_what_lies_beyond_the_picture_is_shown_and_told():
    field = unit_field(network(), "1.0.second", 32, unit=(0, 15), samples=1)
    assert field.nominal[0] < 0 == field.box[0]
    image = drawn(field_picture(field))
    assert (image == (214, 217, 222)).all(-1).mean() > 0.02
    inside = drawn(field_picture(replace(field, nominal=field.box)))
    assert not (inside == (214, 217, 222)).all(-1).any()


def test_boxes_of_several_layers_have_their_own_colours(unit):
    wider = replace(unit, box=(0, 23, 0, 31), nominal=(-2, 25, 0, 31))
    image = drawn(field_picture([unit, wider]))
    for colour in ((255, 206, 64), (86, 204, 242)):
        assert (image == colour).all(-1).sum() > 500
    with pytest.raises(ValueError, match="expected one or more, all in the same"):
        field_picture([unit, replace(unit, heat=torch.zeros(9, 9))])
    with pytest.raises(ValueError, match="expected one or more"):
        field_picture([])


def test_heat_is_brighter_where_the_unit_looks_more():
    heat = torch.zeros(8, 8)
    heat[2, 5], heat[6, 1] = 1.0, 0.25
    field = UnitField("a", (0, 0), (1, 1), (0, 7, 0, 7), (0, 7, 0, 7), heat, False)
    cells = drawn(heat_picture(field))[16:776, 62:822].reshape(8, 95, 8, 95, 3)[:, 47, :, 47].sum(-1)
    assert cells[2, 5] > cells[6, 1] > cells[0, 0]
    assert cells[2, 5] == 252 + 246 + 170
    assert np.unique(cells).size == 3


def test_a_small_box_is_shown_enlarged_besides(unit):
    small = replace(unit, box=(10, 12, 10, 12))
    assert heat_picture(small).width > heat_picture(replace(unit, box=(0, 23, 0, 31))).width


@pytest.mark.parametrize("box", [(1 << 28, -(1 << 28), 1 << 28, -(1 << 28)), (0, 0, 0, 0), (23, 23, 31, 31)])
@pytest.mark.parametrize("layer", ["", HOSTILE, "層" * 300])
def test_odd_boxes_and_names_are_drawn_all_the_same(box, layer, unit):
    odd = replace(unit, box=box, layer=layer, heat=torch.zeros(24, 32))
    for image in (field_picture(odd), heat_picture(odd)):
        assert image.mode == "RGB"
        assert 700 < image.width < 2000


def test_a_field_that_is_known_of_no_layer_is_left_out(small):
    layers = (
        replace(small.layers[0], field=None),
        replace(small.layers[1], field=Field((3, 3), (1, 1), (0, 0), 0, False)),
    )
    root = ElementTree.fromstring(growth_plot(replace(small, layers=layers)))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
