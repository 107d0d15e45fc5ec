"""The order of the rooms, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_no_room_imports_from_a_room_above_it():
    pytest.importorskip("importlinter")
    # In a process of its own: it sets up logging for the whole process that it runs in.
    options = f"config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True"
    code = f"import sys, importlinter.cli as command; sys.exit(command.lint_imports({options}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_importing_foveal_leaves_heavy_packages_alone():
    heavy = {"transformers", "timm", "datasets", "skimage", "rich", "typer", "torchvision"}
    code = f"import sys, foveal; foveal.Retina; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
