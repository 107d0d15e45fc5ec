"""The pages of explanation: the subject's known figures come out of modules that are run, in both languages."""

import doctest
import io
import re

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from scipy import ndimage
from torch import nn

import foveal.analysis.explain.topics as topics_module
from foveal.analysis.explain.filters import KERNELS, filtered
from foveal.analysis.explain.measures import field, macs, parameters, pixels_read, size_after
from foveal.analysis.explain.page import Table
from foveal.analysis.explain.pooling import METHODS
from foveal.analysis.explain.printing import WIDTH, show, wrapped
from foveal.analysis.explain.topics import LANGUAGES, TOPICS, explain, topic_list
from foveal.analysis.explain.written_numbers import decimal, grid, percent, short, whole
from foveal.analysis.filter_picture import named_filter

both = pytest.mark.parametrize("language", LANGUAGES)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def rows(topic, language, table=0):
    """Those of a table, sizes written in one way."""
    found = explain(topic, language).tables[table].rows
    return tuple(tuple(re.sub(r"(?<=\d)×(?=\d)", " x ", cell) for cell in row) for row in found)


# ---- the figures ---------------------------------------------------------------------------------------------------


@both
def test_kernels_1_to_11_have_the_known_parameters(language):
    found = {row[0]: row[1] for row in rows("kernel", language)}
    assert found == {
        "1 x 1": "256",
        "3 x 3": "1,792",
        "5 x 5": "4,864",
        "7 x 7": "9,472",
        "9 x 9": "15,616",
        "11 x 11": "23,296",
    }
    assert all(row[4] for row in rows("kernel", language))
    assert rows("kernel", language)[1][2] == "86.7 M"  # 27 * 64 * 224 * 224


@both
def test_strides_1_to_4_with_both_paddings_on_224_pixels(language):
    found = {row[:2]: row[2] for row in rows("stride", language)}
    sides = {(s, p): (224 + 2 * p - 3) // s + 1 for s in (1, 2, 3, 4) for p in (0, 1)}
    assert found == {(str(s), str(p)): f"{side} x {side}" for (s, p), side in sides.items()}
    unread = {row[:2]: row[5] for row in rows("stride", language)}
    assert unread["2", "0"] == percent(1 - (223 / 224) ** 2)  # the last row and the last column
    assert unread["4", "0"] == percent(1 - (56 * 3 / 224) ** 2)  # every fourth one


@both
def test_padding_tells_sizes_and_what_lies_beside(language):
    sizes = {row[:2]: row[2:] for row in rows("padding", language)}
    assert sizes["3 x 3", "0"] == ("30", "28", "24", "16", "2")
    assert sizes["5 x 5", "2"] == ("32",) * 5
    modes = [row[1:] for row in rows("padding", language, 1)]
    row = np.array([1, 2, 3, 4])
    for (line, _), mode in zip(modes, ("constant", "edge", "reflect", "wrap"), strict=True):
        assert line == " ".join(map(str, np.pad(row, 2, mode=mode)))
    assert [corner for _, corner in modes] == ["0.44", "1", "1", "1"]


@both
def test_pooling_methods_on_a_map_with_one_peak(language):
    highest = [row[2] for row in rows("pooling", language)]
    assert highest == ["9", "3", "9", "4.58", "5.68", "7", "9", "1.22", "9"]
    taught = [row[4].split(" / ")[0] for row in rows("pooling", language)]
    assert taught[:2] == ["9", "36"]
    assert rows("pooling", language)[0][1] == "9 1 1\n1 1 1\n1 1 1"


def test_every_pooling_method_agrees_with_a_loop_in_numpy():
    x = torch.rand(1, 1, 6, 6, dtype=torch.float64) + 0.5
    blocks = x[0, 0].numpy().reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(3, 3, 4)
    wanted = {
        "max": blocks.max(2),
        "average": blocks.mean(2),
        "quadratic": np.sqrt((blocks**2).mean(2)),
        "gem": np.cbrt((blocks**3).mean(2)),
        "stochastic": (blocks * blocks / blocks.sum(2, keepdims=True)).sum(2),
        "global average": np.full((1, 1), x.numpy().mean()),
        "global max": np.full((1, 1), x.numpy().max()),
        "overlapping": ndimage.maximum_filter(x[0, 0].numpy(), 3, mode="constant", cval=-np.inf)[::2, ::2],
    }
    dense = ndimage.maximum_filter(x[0, 0].numpy(), 2, origin=-1, mode="nearest")
    line = np.array([1, 2, 1]) / 4
    wanted["blur"] = ndimage.correlate(dense, np.outer(line, line), mode="nearest")[::2, ::2]
    assert set(wanted) == set(METHODS)
    for name, values in wanted.items():
        pool = METHODS[name]
        out = pool(x.float() if name == "blur" else x)[0, 0].numpy()
        np.testing.assert_allclose(out, values, rtol=1e-6, err_msg=name)


@both
def test_receptive_fields_sizes_and_stacks(language):
    chain, sizes, stacks = (rows("receptive-field", language, table) for table in range(3))
    assert [row[0] for row in chain] == ["(7, 2)", "(3, 2)", "(3, 1)", "(3, 1)"]
    assert chain[-1][2:5] == ("27", "27", "4")
    assert all(row[2] == row[3] for row in chain)
    assert [row[1:3] for row in sizes] == [("99", "99 x 99"), ("97", "97 x 97"), ("97", "97 x 97")]
    assert [row[1:3] for row in stacks] == [
        ("5 x 5", "102,400"),
        ("5 x 5", "73,728"),
        ("7 x 7", "200,704"),
        ("7 x 7", "110,592"),
    ]


@both
def test_a_convolution_shares_what_a_fully_connected_layer_learns_apart(language):
    layers = rows("sharing", language)
    assert layers[0][1] == "1,792"
    assert layers[1][1] == whole(224 * 224 * 64 * (27 + 1))
    assert layers[2][1] == whole(3 * 224**2 * 64 * 224**2 + 64 * 224**2)
    assert layers[0][3] == layers[1][3]
    facts = [row[1] for row in rows("sharing", language, 1)]
    assert facts == ["4,096", whole((8 * 3 - 2) ** 2), "11.8 %", "9", "0"]


@both
def test_kinds_of_convolution_by_parameters_macs_and_field(language):
    c, n, cells = 64, 128, 56 * 56
    wanted = [
        (9 * c * n, 9 * c * n * cells, "56 x 56", "3 x 3"),
        (c * n, c * n * cells, "56 x 56", "1 x 1"),
        (9 * c * n // 4, 9 * c * n // 4 * cells, "56 x 56", "3 x 3"),
        (9 * c + c * n, (9 * c + c * n) * cells, "56 x 56", "3 x 3"),
        (9 * c * n, 9 * c * n * cells, "56 x 56", "5 x 5"),
        (16 * c * n, 16 * c * n * cells, "112 x 112", "2 x 2"),
        (3 * c * c + 3 * c * n, (3 * c * c + 3 * c * n) * cells, "56 x 56", "3 x 3"),
    ]
    found = [(row[1], row[3], row[4], row[5]) for row in rows("convolutions", language)]
    assert found == [(whole(weights), short(work), *rest) for weights, work, *rest in wanted]
    assert [row[1:] for row in rows("convolutions", language, 1)] == [("9", "81"), ("6", "72")]


@both
def test_filters_on_an_edge(language):
    answers = [row[3:] for row in rows("filters", language)]
    assert answers[0] == ("0 0 0 9 9 9", "0 0 0 9 9 9")
    assert answers[1] == ("0 0 3 6 9 9", "0 0 3 6 9 9")
    by_kernel = {row[1].split("\n")[0].split("/")[0].strip(): row[3:] for row in rows("filters", language)}
    assert by_kernel["-1 -2 -1"] == ("0 0 0 0 0 0", "0 0 36 36 0 0")
    assert by_kernel["sqrt(x*x + y*y)"] == ("0 0 36 36 0 0", "0 0 36 36 0 0")
    assert [row[2] for row in rows("filters", language) if row[2]] == ["1"] * 3 + ["0"] * 7
    assert by_kernel["-1  0"] == ("0 0 9 0 0 0", "0 0 9 0 0 0")
    assert by_kernel["0 -1"] == ("0 0 -9 0 0 0", "0 0 9 0 0 0")


@pytest.mark.parametrize(
    ("kind", "name", "direction", "divisor"),
    [
        ("roberts", "roberts p", "diagonal", 2**0.5),
        ("roberts", "roberts q", "antidiagonal", 2**0.5),
        ("prewitt", "prewitt", "x", 6),
        ("sobel", "sobel", "x", 8),
        ("sobel", "sobel y", "y", 8),
    ],
)
def test_the_kernels_are_those_of_the_command_but_for_what_its_note_says_they_are_divided_by(
    kind, name, direction, divisor
):
    x = torch.rand(7, 8)
    kernel = torch.tensor(KERNELS[name][0], dtype=torch.float64) / divisor
    made = named_filter(kind, direction=direction, border="replicate")(x[None, None])[0, 0]
    torch.testing.assert_close(filtered(x.double(), kernel).float(), made)


@pytest.mark.parametrize("topic", TOPICS)
def test_chinese_pages_write_sizes_in_one_way(topic):
    assert not re.search(r"\d x\b", repr(explain(topic, "zh")))


def test_what_the_texts_say_is_what_their_tables_show():
    sharing = rows("sharing", "en")
    assert int(sharing[1][1].replace(",", "")) < int(sharing[2][1].replace(",", ""))
    assert "The first saves work and parameters alike" in explain("sharing").text
    dimmed = [row[0] for row in rows("padding", "en", 1) if row[2] != "1"]
    assert dimmed == ["zeros"]
    assert "With zeros expect borders to be dimmer" in explain("padding").lesson


@pytest.mark.parametrize("name", KERNELS)
def test_a_filter_is_what_scipy_makes_of_it(name):
    numbers, divisor = KERNELS[name]
    kernel, x = np.array(numbers) / divisor, np.random.default_rng(0).random((9, 8))
    wanted = ndimage.correlate(x, kernel, mode="nearest", origin=-1 if len(kernel) == 2 else 0)
    np.testing.assert_allclose(filtered(torch.from_numpy(x), torch.from_numpy(kernel)).numpy(), wanted, atol=1e-12)


# ---- nothing is canned ---------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_modules_that_are_built(monkeypatch):
    import foveal.analysis.explain.kernel as kernel_page

    monkeypatch.setattr(kernel_page, "MAPS", 10)
    assert explain("kernel").tables[0].rows[1][1] == whole(3 * 3 * 3 * 10 + 10)


def test_measures_agree_with_counting_by_hand():
    layer = nn.Conv2d(4, 6, (3, 5), 2, 1, groups=2)
    assert parameters(layer) == 6 * 2 * 15 + 6
    assert size_after(layer, 4, 20, 30) == (6, 10, 14)
    assert macs(layer, 4, 20, 30) == 6 * 10 * 14 * 2 * 15
    assert macs(nn.ConvTranspose2d(4, 6, 4, 2, 1), 4, 5, 7) == 4 * 5 * 7 * 6 * 16
    assert field(layer, 4, 20, 30) == (3, 5)
    read = pixels_read(nn.Conv2d(1, 1, 1, 3), 1, 7, 7)
    assert read.nonzero()[:3].tolist() == [[0, 0], [0, 3], [0, 6]]
    before = layer.weight.clone()
    field(layer, 4, 20, 30)
    assert torch.equal(layer.weight, before)


# ---- how it is shown -----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_plain_whole_and_within_80_columns_where_it_is_piped(topic, language):
    file = io.StringIO()
    show(explain(topic, language), file)
    text = file.getvalue()
    assert "\x1b" not in text
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= WIDTH
    assert all(line == line.rstrip() for line in text.splitlines())
    page = explain(topic, language)
    squeezed = re.sub(r"\s", "", text)
    for part in (page.title, page.text, page.lesson, *(table.title for table in page.tables)):
        assert re.sub(r"\s", "", part) in squeezed
    for cell in (cell for table in page.tables for row in table.rows for cell in row):
        assert all(line in text for line in cell.split("\n"))
    assert 2 <= len(re.findall(r"[.。:：](?:\s|$|[^\d\s])", page.text + page.lesson)) <= 6


@both
@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_coloured_on_a_terminal_and_says_the_same(topic, language, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file, plain = Terminal(), io.StringIO()
    show(explain(topic, language), file)
    show(explain(topic, language), plain)
    assert "\x1b[" in file.getvalue()
    told = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).replace("─", "-")
    assert [line.rstrip() for line in told.splitlines()] == plain.getvalue().splitlines()


def test_pages_are_written_in_two_languages():
    for topic in TOPICS:
        english, chinese = (explain(topic, language) for language in LANGUAGES)
        assert not re.search(r"[\u4e00-\u9fff]", repr(english))
        for text in (chinese.title, chinese.text, chinese.lesson, *(table.title for table in chinese.tables)):
            assert re.search(r"[\u4e00-\u9fff]", text)
        shapes = [[(len(table.rows), len(table.columns)) for table in page.tables] for page in (english, chinese)]
        assert shapes[0] == shapes[1]
    assert [name for name, _ in topic_list("zh")] == list(TOPICS)


def test_lines_break_between_words_and_chinese_characters_but_not_before_a_full_stop():
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("卷积核是小的。", 12) == ["卷积核是小", "的。"]
    assert wrapped("卷积核（小）是", 8) == ["卷积核", "（小）是"]
    assert wrapped("用 3 x 3 的", 6) == ["用", "3 x 3", "的"]
    assert wrapped("", 10) == []
    text = "one 卷积 two，三 3 x 3 (four) 五。"
    for width in range(8, 40):
        assert re.sub(r"\s", "", "".join(wrapped(text, width))) == re.sub(r"\s", "", text)
        assert max(map(cell_len, wrapped(text, width))) <= width


def test_numbers_are_written_short_and_without_empty_digits():
    assert [short(n) for n in (7, 999, 999_999, 9_633_792, 1_170_000_000)] == ["7", "999", "1 M", "9.63 M", "1.17 G"]
    assert [decimal(n) for n in (1.0, 2.25, -0.001, 100.0)] == ["1", "2.25", "0", "100"]
    assert grid([[1, -10], [0.25, 3]], 2) == "   1  -10\n0.25    3"


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"no topic is called 'kernl'; did you mean 'kernel'\?"):
        explain("kernl")
    with pytest.raises(ValueError, match=r"no topic is called 'zzz'; there are kernel, stride"):
        explain("zzz")
    for call in (lambda: explain("kernel", "fr"), lambda: topic_list("fr")):
        with pytest.raises(ValueError, match="language 'fr': the pages are written in en, zh"):
            call()
    with pytest.raises(ValueError, match="unlike lengths"):
        Table("t", ("a", "b"), (("1",),), "ll")


def test_examples_hold():
    assert doctest.testmod(topics_module, extraglobs={"explain": explain}).failed == 0
