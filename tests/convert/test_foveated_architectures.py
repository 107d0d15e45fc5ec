import re

import pytest
from architectures import ARCHITECTURES, TABLE, TILING, Architecture, findings, row

pytest.importorskip("timm")
pytest.importorskip("torchvision")


def check(architecture: Architecture) -> None:
    found = findings(architecture)
    if architecture.refused:
        assert re.search(architecture.refused.replace("(", r"\(").replace(")", r"\)"), found.refused)
        assert re.match(r"\S+( network itself)? \(\w+\): ", found.refused)
        return
    assert not found.refused
    assert found.keys
    assert found.one_window
    assert found.tiling <= TILING
    assert found.backward


def named(ordinary: bool) -> list[object]:
    return [pytest.param(a, id=a.name) for a in ARCHITECTURES if a.ordinary is ordinary]


@pytest.mark.parametrize("architecture", named(ordinary=True))
def test_one_of_each_family(architecture: Architecture) -> None:
    check(architecture)


@pytest.mark.full
@pytest.mark.parametrize("architecture", named(ordinary=False))
def test_all_others(architecture: Architecture) -> None:
    check(architecture)


def test_the_table_names_them_all_and_enough_of_them_convert() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert re.findall(r"^\| [^|]+ \| `([^`]+)` ", text, re.MULTILINE) == [a.name for a in ARCHITECTURES]
    converted = [a for a in ARCHITECTURES if not a.refused]
    assert len(ARCHITECTURES) >= 60
    assert len(converted) >= 50
    assert len({a.family for a in converted}) >= 20
    assert "NO" not in text
    refused = next(a for a in ARCHITECTURES if a.refused)
    assert row(refused, findings(refused)) in text
