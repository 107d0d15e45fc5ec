"""The page on the analyser: its code runs, and says what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torchvision")
PAGE = Path(__file__).parents[2] / "docs" / "analyzer.md"


def test_code_of_the_page_prints_what_stands_beside_it(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, PAGE.name, "exec"), {})
    counted, field, effective, ratio = capsys.readouterr().out.splitlines()
    assert f"# {counted}" in code
    assert f"# {field}" in code
    assert 0 < float(effective) < 99
    assert f"# {float(ratio):.2f}" in code
