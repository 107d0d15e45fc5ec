"""Every snippet of both READMEs runs, and both say the same; what other pages show runs, too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.zh-CN.md"]
RUN = [READMES[0], pytest.param(READMES[1], marks=pytest.mark.full)]
"""Their code is the same, which has a test of its own."""
PAGES = ["docs/where_to_look.md"]
BLOCK = re.compile(r"(<!-- [^\n]* -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    """The code of one language, without what is marked as not run and the lines that install."""
    found = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    return [
        code for mark, kind, code in found if kind == language and "not run" not in mark and "pip install" not in code
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    (tmp_path / "captions.jsonl").write_text('{"image": "photo.jpg", "text": "noise", "split": "train"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [*RUN, *PAGES])
def test_python_snippets_run(name, folder):
    codes = blocks(name, "python")
    assert len(codes) >= (3 if name in READMES else 2)
    for code in codes:
        exec(compile(code, name, "exec"), {})


@pytest.mark.parametrize("name", RUN)
def test_command_lines_run(name, folder):
    from typer.testing import CliRunner

    from foveal.cli import app

    lines = [line for code in blocks(name, "bash") for line in code.splitlines()]
    lines = [line.partition("#")[0].strip() for line in lines]
    assert len(lines) >= 4
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "foveal"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (line, result.output)
    assert (folder / "seen.png").exists()


def test_both_readmes_hold_the_same_code_and_links():
    """Comments may be translated; the code, pictures, marks and link targets may not differ."""

    def skeleton(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        code = [line.partition("#")[0].rstrip() for _, _, code in BLOCK.findall(text) for line in code.splitlines()]
        links = [link for link in re.findall(r"\]\(([^)#][^)]*)\)", text) if not link.startswith("README")]
        return [*code, *links, *re.findall(r"^#+", text, re.MULTILINE), *re.findall(r"<!-- .* -->", text)]

    assert skeleton(READMES[0]) == skeleton(READMES[1])


@pytest.mark.parametrize("name", [*READMES, *PAGES])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#][^)]*)\)", text):
        place = (ROOT / name).parent / link.partition("#")[0]
        assert link.startswith("http") or place.exists(), link
