"""The order of the rooms, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_no_room_imports_from_a_room_above_it():
    pytest.importorskip("importlinter")
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("heavy", ["transformers", "timm", "datasets", "skimage", "rich", "typer", "torchvision"])
def test_importing_foveal_leaves_heavy_packages_alone(heavy):
    code = f"import sys, foveal; foveal.Retina; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
