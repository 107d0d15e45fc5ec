"""What commands write: harmless lines, whole files, and a bar only where a person watches."""

import io
import sys

import pytest
import typer

from foveal.cli.output import one_line, progress, refuse_unwritable, speak_utf8, write_csv, write_json


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 狗", "plain 狗"),
        ("two\nlines\n", "two; lines"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("half \ud800", "half \\ud800"),
        ("turned \u202e round", "turned \\u202e round"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_text_from_outside_becomes_one_harmless_line(text, shown):
    assert one_line(text) == shown


def test_no_bar_is_drawn_where_nobody_watches(capsys):
    with progress("working", 3) as move:
        move(3, 3)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_drawn_on_standard_error_and_leaves_other_output_alone(monkeypatch):
    err, out = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    with progress("working", 3) as move:
        move(1, 3)
        print("a sentence")
        move(2, 3)
    assert out.getvalue() == "a sentence\n"
    assert "working" in err.getvalue()
    assert "3" in err.getvalue()


def test_chinese_survives_a_stream_of_another_encoding(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    speak_utf8()
    print("狗\ud800", flush=True)
    assert raw.getvalue().decode("utf-8") == "狗\\ud800\n"


def test_targets_that_cannot_be_written_are_refused_before_work(tmp_path):
    refuse_unwritable(json=None, csv="-")
    with pytest.raises(typer.BadParameter, match="is a folder"):
        refuse_unwritable(json=str(tmp_path))
    with pytest.raises(typer.BadParameter, match="only one of them"):
        refuse_unwritable(json="-", csv="-")


def test_without_the_option_nothing_is_written(capsys):
    write_json(None, [1])
    write_csv(None, [{"a": 1}], ["a"])
    assert capsys.readouterr() == ("", "")


def test_json_and_csv_are_utf_8_with_their_own_line_ends(tmp_path, capsys):
    write_json(str(tmp_path / "a.json"), {"text": "狗"})
    write_csv(str(tmp_path / "a.csv"), [{"text": "狗, 猫"}], ["text"])
    assert (tmp_path / "a.json").read_bytes() == '{\n  "text": "狗"\n}\n'.encode()
    assert (tmp_path / "a.csv").read_bytes() == 'text\r\n"狗, 猫"\r\n'.encode()
    write_csv("-", [{"text": "狗"}], ["text"])
    assert capsys.readouterr().out == "text\n狗\n"
