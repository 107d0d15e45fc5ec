"""foveal: pictures into sentences, with computation spent where the picture matters."""

__version__ = "0.1.0"
