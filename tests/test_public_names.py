"""The public surface of the package: which names it has, and what importing it costs."""

import subprocess
import sys

import pytest

import foveal

PUBLIC = {
    "FoveatedAvgPool2d",
    "FoveatedConv2d",
    "FoveatedMaxPool2d",
    "Glimpse",
    "Layout",
    "Picture",
    "PictureError",
    "Retina",
    "UnsupportedModule",
    "__version__",
    "describe",
    "foveate",
    "halo_pad",
    "open_picture",
    "planned",
    "unfoveate",
}


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_public_names_are_these():
    assert set(foveal.__all__) == PUBLIC
    assert list(foveal.__all__) == sorted(foveal.__all__)
    assert set(dir(foveal)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_is_there_is_documented_and_calls_itself_so(name):
    thing = getattr(foveal, name)
    assert callable(thing)
    assert thing.__name__ == name
    assert thing.__doc__
    assert thing.__module__.startswith("foveal.")


def test_another_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="module 'foveal' has no attribute 'foveat'"):
        _ = foveal.foveat
    with pytest.raises(ImportError, match="foveat"):
        exec("from foveal import foveat")


def test_importing_foveal_brings_no_heavy_package_and_describe_stays_the_function():
    heavy = "{'torch', 'transformers', 'PIL', 'numpy', 'typer', 'rich', 'skimage', 'datasets'}"
    code = f"""
import sys, foveal
print(sorted({heavy} & set(sys.modules)))
from foveal.describe import find_pictures
import foveal.describe
print(type(foveal.describe).__name__)
foveal.Retina
print(sorted({heavy} & set(sys.modules) - {{'torch', 'PIL', 'numpy'}}))
"""
    assert fresh(code).splitlines() == ["[]", "function", "[]"]


def test_star_import_gives_the_public_names():
    names = {}
    exec("from foveal import *", names)
    assert names.keys() >= PUBLIC
