"""Caption sets: reading them, in the formats that people keep them in, and finding what is wrong with them."""

from foveal.data.captions import load_captions, record_picture
from foveal.data.check import check_captions
from foveal.data.formats import UNDERSTOOD
from foveal.data.records import Problem

__all__ = ["UNDERSTOOD", "Problem", "check_captions", "load_captions", "record_picture"]
