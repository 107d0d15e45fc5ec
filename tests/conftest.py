"""Fixtures that many tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (FOVEAL_DATA, else `shared/data` beside the project); absent, the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FOVEAL_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} is no folder (set FOVEAL_DATA to the folder that holds flickr8k/)")
    return folder
