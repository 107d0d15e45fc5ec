"""foveal: pictures into sentences, with computation spent where the picture matters."""

import importlib
from typing import TYPE_CHECKING, Any

from foveal.describe import describe  # by name, so that the function stands before the module of its name

if TYPE_CHECKING:
    from foveal.convert.foveate import foveate
    from foveal.convert.planned import planned
    from foveal.convert.unfoveate import unfoveate
    from foveal.convert.window_maps import UnsupportedModule
    from foveal.halo import FoveatedAvgPool2d, FoveatedConv2d, FoveatedMaxPool2d, halo_pad
    from foveal.layout import Layout
    from foveal.picture import Picture, PictureError, open_picture
    from foveal.retina import Glimpse, Retina

__version__ = "0.1.0"

__all__ = [
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
]

_HOMES = {
    "FoveatedAvgPool2d": "foveal.halo",
    "FoveatedConv2d": "foveal.halo",
    "FoveatedMaxPool2d": "foveal.halo",
    "Glimpse": "foveal.retina",
    "Layout": "foveal.layout",
    "Picture": "foveal.picture",
    "PictureError": "foveal.picture",
    "Retina": "foveal.retina",
    "UnsupportedModule": "foveal.convert.window_maps",
    "foveate": "foveal.convert.foveate",
    "halo_pad": "foveal.halo",
    "open_picture": "foveal.picture",
    "planned": "foveal.convert.planned",
    "unfoveate": "foveal.convert.unfoveate",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: the command line need not wait for torch to say a version."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foveal' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
