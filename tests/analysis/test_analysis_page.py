"""The page of an analysis stands alone, says its own numbers, and believes nothing that comes from outside."""

import base64
import doctest
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from torch import nn

from foveal.analysis import analysis_page as page_module
from foveal.analysis.analysis_page import analysis_page
from foveal.analysis.analysis_text import merged, short
from foveal.analysis.analyze import analyze
from foveal.analysis.effective_field import unit_field
from foveal.analysis.foveated_cost import foveated_cost
from foveal.analysis.layer_table import depths_of

HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror='alert(\"2\")'>&\x00\ud800"
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Reader(HTMLParser):
    """Reads a page into its elements: (tag, attributes, words), and refuses what is not closed where it was opened."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"an attribute of <{tag}> stands twice"
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element[0] == tag and all(element[1].get(name) == value for name, value in attributes.items())
        ]


def network():
    stage = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), stage, head).eval()


@pytest.fixture(scope="module")
def small():
    return analyze(network(), 64, time=True)


@pytest.fixture(scope="module")
def foveated():
    return foveated_cost(network(), 64, size=16, levels=3)


@pytest.fixture(scope="module")
def unit():
    torch.manual_seed(0)
    return unit_field(network(), "1.0", 64, samples=1)


@pytest.fixture(scope="module")
def whole(small, foveated, unit):
    return analysis_page(small, title="A network", foveated=foveated, unit=unit)


def rows_of_table(read, depth):
    """The cells of a body of the table: (words, what it is sorted by)."""
    rows, inside = [], False
    for tag, attributes, said in read.elements:
        if tag in ("tbody", "tfoot"):
            inside = attributes.get("data-depth") == str(depth)
        elif inside and tag == "tr":
            rows.append([])
        elif inside and tag in ("td", "th"):
            rows[-1].append((said, attributes.get("data-v")))
    return rows


def cards(read):
    """What each card says: its number in short, and exactly where that is another."""
    found, numbers = {}, []
    for tag, attributes, said in read.elements:
        if tag == "dt":
            numbers = found.setdefault(said, [])  # the notes on the table's columns have some of the same names
        elif tag == "dd" and attributes.get("class") in ("much", "exact"):
            numbers.append(said)
    return found


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(page_module, extraglobs={"analyze": analyze, "nn": nn}).failed == 0


def test_every_element_is_closed_and_identifiers_are_there_once(whole):
    read = Reader(whole)
    identifiers = [element[1]["id"] for element in read.elements if "id" in element[1]]
    assert len(identifiers) == len(set(identifiers))
    assert read.all("html", lang="en")
    assert read.all("meta", name="viewport")
    assert len(read.all("h1")) == 1


def test_the_page_needs_nothing_from_elsewhere(whole):
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", whole).replace("(() => {", ""))
    read = Reader(whole)
    assert not read.all("link")
    assert not any("src" in one[1] for one in read.all("script"))
    assert all(one[1]["src"].startswith("data:image/png;base64,") for one in read.all("img"))
    (policy,) = read.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[1]["content"].startswith("default-src 'none'")


def test_totals_on_the_page_are_those_of_the_analysis(whole, small):
    told = cards(Reader(whole))
    assert told["Parameters"] == [str(small.parameters)] == ["794"]
    assert told["MACs"] == [short(small.macs), f"{small.macs:,}"]
    assert told["FLOPs"] == [short(small.flops), f"{small.flops:,}"]
    assert told["Activations"] == [f"{short(small.activation_bytes)}B", f"{small.activation_bytes:,} bytes"]
    assert told["Activations at once"] == [f"{short(small.peak_bytes)}B", f"{small.peak_bytes:,} bytes"]
    assert told["Receptive field"] == ["9", "9 x 9 pixels"]
    assert told["Time"][0] == f"{sum(layer.milliseconds for layer in small.layers):.3g} ms"


def test_macs_and_flops_are_told_apart(whole):
    says = [one[2] for one in Reader(whole).all("dd", **{"class": "says"})]
    assert any(line.startswith("Multiply-accumulates") for line in says)
    assert any(line.startswith("Floating-point operations") and "2 for each MAC" in line for line in says)


def test_the_table_has_every_layer_with_its_numbers(whole, small):
    read = Reader(whole)
    heads = [one[2] for one in read.all("button") if one[2] not in ("Dark",)]
    rows = rows_of_table(read, 0)
    for place, (row, layer) in enumerate(zip(rows, small.layers, strict=True), 1):
        found = dict(zip(heads, row, strict=True))
        assert found["#"] == (str(place), str(place))
        assert found["Layer"][0] == (layer.name or "(network)")
        assert found["Kind"][0] == layer.kind
        assert found["Output"][0] == " x ".join(map(str, layer.output[1:]))
        of = {
            "Parameters": layer.parameters,
            "MACs": layer.macs,
            "FLOPs": layer.flops,
            "Memory": layer.activation_bytes,
        }
        assert {name: int(found[name][1]) for name in of} == of
        assert float(found["FLOPs/byte"][1]) == pytest.approx(layer.intensity)
        assert float(found["ms"][1]) == pytest.approx(layer.milliseconds)
        if layer.field.whole:
            assert found["Field"][0] == "global"
            assert found["Jump"] == ("", "")
        else:
            assert found["Field"][0] == str(layer.field.size[0])
            assert float(found["Jump"][1]) == layer.field.jump[0]
            assert float(found["Padded"][1]) == pytest.approx(layer.field.padded)


def test_the_table_shows_layers_together_on_demand(whole, small):
    read = Reader(whole)
    depths = depths_of(small)
    assert set(depths) == {0, 1}
    assert [one[1]["data-depth"] for one in read.all("tbody") if "data-depth" in one[1]] == ["0", "1"]
    assert [one[1]["value"] for one in read.all("option")] == ["0", "1"]
    assert [row[1][0] for row in rows_of_table(read, 1)] == [layer.name for layer in merged(small.layers, 1)]
    hidden = [one[1]["data-depth"] for one in read.all("tbody") if "hidden" in one[1]]
    assert hidden == ["1"]


def test_a_head_that_sorts_is_a_button_and_the_script_says_how_it_is_sorted(whole):
    read = Reader(whole)
    heads = [one for one in read.all("th", scope="col") if "title" in one[1]]
    assert len(heads) == 15
    assert all(one[2] for one in read.all("button", type="button"))
    assert whole.count('<button type="button">') == len(heads)
    (script,) = read.all("script")
    assert 'setAttribute("aria-sort"' in script[2]


def test_remarks_what_is_not_counted_and_what_is_not_used_are_told(small):
    told = replace(small, remarks=("A remark.",), uncounted=("a.b: strange",), unused={"aux.weight": 1234})
    page = analysis_page(told, title="t")
    lines = [one[2] for one in Reader(page).all("li")]
    assert lines == ["A remark.", "a.b: strange", "aux.weight: 1,234"]
    assert "1,234 more are not used" in page
    silent = analysis_page(replace(small, remarks=(), uncounted=(), unused={}), title="t")
    assert not Reader(silent).all("li")


def test_what_comes_from_outside_cannot_become_markup(small, unit, foveated):
    layers = tuple(replace(layer, name=f"{HOSTILE}.{place}", kind=HOSTILE) for place, layer in enumerate(small.layers))
    strange = replace(
        small, network=HOSTILE, layers=layers, remarks=(HOSTILE,), uncounted=(HOSTILE,), unused={HOSTILE: 1}
    )
    page = analysis_page(strange, title=HOSTILE, foveated=foveated, unit=replace(unit, layer=HOSTILE))
    page.encode("utf-8")
    read = Reader(page)
    assert len(read.all("script")) == 1
    assert len(read.all("img")) == 1
    assert not any(name.startswith("on") for one in read.elements for name in one[1])
    assert "\x00" not in page
    assert read.all("h1")[0][2] == HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")


def test_the_map_of_heat_is_a_picture_within_the_page(whole, unit):
    (image,) = Reader(whole).all("img")
    file = io.BytesIO(base64.b64decode(image[1]["src"].split(",")[1]))
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == (int(image[1]["width"]), int(image[1]["height"]))
    top, bottom, left, right = unit.box
    assert f"rows {top} to {bottom}, columns {left} to {right}" in image[1]["alt"]
    assert f"{unit.effective:.1f} pixels" in image[1]["alt"]


def test_a_look_is_set_beside_the_dense_network_level_by_level(whole, foveated):
    read = Reader(whole)
    told = cards(read)
    assert told["MACs of a look"] == [short(foveated.macs), f"{foveated.macs:,}"]
    assert told["MACs, dense"] == [short(foveated.dense.macs), f"{foveated.dense.macs:,}"]
    assert told["Dense / look"] == [f"{foveated.ratio:.1f} x", f"{foveated.ratio:.3f}"]
    assert told["Cells"][1] == f"{foveated.cells:,} of {foveated.pixels:,}"
    assert told["Tokens"] == [str(sum(level.tokens for level in foveated.levels))]
    cells = [one[2] for one in read.all("td", **{"class": "number"})]
    for level in foveated.levels:
        side = 16 << level.level
        at = cells.index(f"{side} x {side} pixels")
        assert cells[at - 1] == ("periphery" if level.level else "fovea")
        assert cells[at + 1 : at + 4] == [str(level.windows), str(level.tokens), short(level.macs).strip()]
        assert cells[at + 4] == f"{level.macs / foveated.macs:.1%}"
    (bar,) = read.all("div", **{"class": "parts"})
    assert f"once a picture {foveated.once / foveated.macs:.1%}" in bar[1]["aria-label"]


def test_sections_that_were_not_asked_for_are_not_there(small):
    read = Reader(analysis_page(small, title="t"))
    assert [one[2] for one in read.all("h2") if one[2] != "Remarks"] == [
        "Where the cost lies",
        "How the receptive field grows",
        "Layers",
    ]
    assert not read.all("img")


def test_dark_and_light_have_the_same_colours_to_set(whole):
    style = whole.split("<style>")[1].split("</style>")[0]
    light, system, chosen = re.findall(r"color-scheme: (?:light|dark);\n([^}]*)}", style)
    names = [set(re.findall(r"(--\w+): #", block)) for block in (light, system, chosen)]
    assert names[0] == names[1] == names[2]
    assert system.split() == chosen.split()
    used = set(re.findall(r"var\((--\w+)\)", style))
    assert used == names[0]
    assert style.count("{") == style.count("}")


def test_every_class_of_the_plots_has_a_colour_of_the_theme(whole):
    style = whole.split("<style>")[1].split("</style>")[0]
    within = "".join(re.findall(r"<svg.*?</svg>", whole, re.DOTALL))
    for kind in set(re.findall(r'class="([\w-]+)"', within)):
        assert f".plot .{kind} {{" in style


def test_a_page_of_a_large_network_stays_small(small, unit, foveated):
    many = [small.layers[place % len(small.layers)] for place in range(176)]
    layers = tuple(
        replace(layer, name=f"layer{place // 40}.{place // 4}.conv{place}") for place, layer in enumerate(many)
    )
    page = analysis_page(replace(small, layers=layers), title="t", foveated=foveated, unit=unit)
    assert len(page.encode("utf-8")) < 500_000


@pytest.mark.parametrize("layers", [0, 1])
def test_a_network_of_hardly_any_layers_has_a_page_too(layers, small):
    Reader(analysis_page(replace(small, layers=small.layers[:layers], picture=(1, 7)), title="t"))


@pytest.mark.full
def test_the_page_of_a_resnet_50_has_less_than_a_megabyte():
    network = pytest.importorskip("torchvision").models.resnet50().eval()
    page = analysis_page(
        analyze(network),
        title="torchvision:resnet50",
        foveated=foveated_cost(network, 256),
        unit=unit_field(network, "layer4.2.conv3", samples=1),
    )
    assert len(page.encode("utf-8")) < 1_000_000
    assert cards(Reader(page))["MACs"] == ["4.09 G", "4,089,184,256"]
    assert cards(Reader(page))["Parameters"] == ["25.6 M", "25,557,032"]
