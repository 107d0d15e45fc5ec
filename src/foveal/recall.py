"""What was worked out for one look, kept for the next look that is the same: most pictures are looked at alike."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

FEW_WINDOWS = 64
"""Looks of more windows (the batches of a training) are hardly ever the same again, and are not kept."""

LOOKS = 32
"""How many looks are kept, the latest; each holds a few megabytes at the most."""

_kept: OrderedDict[Hashable, dict[Any, Any]] = OrderedDict()
_lock = threading.Lock()


def recall(look: Hashable) -> dict[Any, Any]:
    """What is known of a look so far, to be read and added to; empty for a new one.

    Args:
        look: all that tells it from others.

    Example:
        >>> recall("a look") is recall("a look")
        True
    """
    with _lock:
        known = _kept.setdefault(look, {})
        _kept.move_to_end(look)
        if len(_kept) > LOOKS:
            _kept.popitem(last=False)
    return known
