"""Layer lists as one types them on a command line, `conv k7 s2 p3; pool k3 s2 p1; conv k3`, as modules of PyTorch."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from foveal.analysis.listed_layer import ACTIVATIONS, POINTWISE, ListedLayer, Pair
from foveal.arguments import whole_number

KINDS: dict[str, tuple[str, ...]] = {
    "conv": ("k", "s", "p", "d", "c", "g"),
    "pointwise": ("c", "s", "g"),
    "depthwise": ("k", "s", "p", "d", "c"),
    "separable": ("k", "s", "p", "d", "c"),
    "transposed": ("k", "s", "p", "op", "d", "c", "g"),
    "pool": ("k", "s", "p", "d"),
    "avgpool": ("k", "s", "p"),
    "global": (),
    "globalmax": (),
    "upsample": ("s",),
    "flatten": (),
    "linear": ("c",),
    "norm": (),
    "relu": (),
    "gelu": (),
    "silu": (),
    "sigmoid": (),
    "tanh": (),
}
"""Kinds of layers and the options of each: k(ernel), s(tride), p(adding), d(ilation), c(hannels that come out),
g(roups), op (cells that a transposed convolution puts after its output)."""

ALIASES = {
    **dict.fromkeys(("conv2d", "convolution"), "conv"),
    **dict.fromkeys(("pw", "conv1x1"), "pointwise"),
    "dw": "depthwise",
    **dict.fromkeys(("deconv", "transpose", "upconv", "convtranspose"), "transposed"),
    **dict.fromkeys(("maxpool", "max"), "pool"),
    **dict.fromkeys(("averagepool", "avg", "average"), "avgpool"),
    **dict.fromkeys(("gap", "globalpool", "globalavg", "globalavgpool"), "global"),
    **dict.fromkeys(("gmp", "globalmaxpool"), "globalmax"),
    **dict.fromkeys(("fc", "dense"), "linear"),
    **dict.fromkeys(("bn", "batchnorm"), "norm"),
    "swish": "silu",
}

_SPOKEN = {"k": "kernel", "s": "stride", "p": "padding", "d": "dilation", "c": "channels", "g": "groups"}
_MIXING = ("conv", "pointwise", "separable", "transposed")
_WORD = re.compile(r"(op|[kspdcg])?=?(same|\d{1,6}(?:x\d{1,6})?)")
_FIRST_CHANNELS = 64


def parse_layers(text: str, *, channels: int = 3, size: Pair | None = None) -> nn.Sequential:
    """A network from a list of layers.

    Layers are parted by `;` (or `,` or a line's end), each a kind and its options: `conv k7 s2 p3 c64`. Kernels and
    strides of two numbers are down x across: `conv k3x1 p1x0`. A number alone is the kernel, or the channels of a
    linear layer: `conv 5 s2; global; linear 10`. A pool's stride is its kernel unless said, as in PyTorch; channels
    are 64 after the first convolution and then as before. `p same` with a stride gives ceil(size / stride) cells.
    `input c1` in the first place says what goes in.

    Args:
        text: the list.
        channels: that go in.
        size: height and width of the picture, which a linear layer on a map of more than one cell needs.

    Returns:
        The layers in order, named `conv1`, `pool1`, `conv2`, ...

    Raises:
        ValueError: for what cannot be read or does not fit, in one line that names the layer and the word.

    Example:
        >>> parse_layers("conv k7 s2 p3; pool k3 s2 p1; conv k3")(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 64, 54, 54])
    """
    layers = read_layers(text, channels=channels, size=size)
    counts: Counter[str] = Counter()
    made: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        counts[layer.kind] += 1
        made[f"{layer.kind}{counts[layer.kind]}"] = layer.make()
    return nn.Sequential(made)


def read_layers(text: str, *, channels: int = 3, size: Pair | None = None) -> tuple[ListedLayer, ...]:
    """The layers of a list as data; see `parse_layers`, whose linear layers have a `flatten` put before them.

    Raises:
        ValueError: as `parse_layers`.

    Example:
        >>> [layer.out_channels for layer in read_layers("conv k3; depthwise k3 p same; conv k1 c8")]
        [64, 64, 8]
    """
    whole_number(channels, "channels", 1)
    typed = [" ".join(part.split()) for part in re.split(r"[;,\n]|->|→", text)]
    typed = [part for part in typed if part]
    shape: tuple[int, ...] | None = None if size is None else (channels, *size)
    layers: list[ListedLayer] = []
    for number, part in enumerate(typed, 1):
        where = f"layer {number}, {part!r}"
        kind, *words = part.lower().split()
        if kind == "input" and number == 1:
            channels = _input_channels(words, where, channels)
            shape = shape and (channels, *shape[1:])
            continue
        kind = _kind(kind, where)
        flat = any(layer.kind == "flatten" for layer in layers)
        if flat and kind not in ("linear", *ACTIVATIONS):
            raise ValueError(f"{where}: there is no map left for it; only linear layers and activations can follow")
        options = _options(kind, words, where)
        if kind in ("flatten", "linear") and not flat:
            numbers = _numbers(layers, channels, shape, where)
            layers.append(ListedLayer("flatten", "flatten", channels, numbers))
            channels, shape = numbers, shape and (numbers,)
        if kind == "flatten":
            continue
        layer = _layer(kind, part, options, channels, where, first=not any(made.kind in _MIXING for made in layers))
        shape = _shape_after(layer, shape, where)
        channels = layer.out_channels
        layers.append(layer)
    if not layers:
        raise ValueError("the list of layers is empty; an example: 'conv k7 s2 p3; pool k3 s2 p1; conv k3'")
    return tuple(layers)


def _kind(word: str, where: str) -> str:
    kind = ALIASES.get(word, word)
    if kind not in KINDS:
        near = difflib.get_close_matches(word, [*KINDS, *ALIASES], 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"{where}: no kind of layer is called {word!r}; {hint}")
    return kind


def _input_channels(words: Sequence[str], where: str, channels: int) -> int:
    for word in words:
        found = re.fullmatch(r"c=?(\d{1,6})", word)
        if not found or not int(found[1]):
            raise ValueError(f"{where}: the word {word!r} is not known here; expected channels, such as c1")
        channels = int(found[1])
    return channels


def _options(kind: str, words: Sequence[str], where: str) -> dict[str, str]:
    """Letter -> its number, pair or "same", as typed."""
    takes, found = KINDS[kind], dict[str, str]()
    joined = re.sub(r"\b(op|[kspdcg]) (?=same\b|\d)", r"\1", " ".join(words)).split()  # "p same" is "psame"
    for place, word in enumerate(joined):
        match = _WORD.fullmatch(word)
        letter = match and (match[1] or (takes[0] if place == 0 and takes[:1] in (("k",), ("c",), ("s",)) else None))
        if not match or not letter:
            raise ValueError(f"{where}: the word {word!r} is not known here; {_taken(kind)}")
        if letter not in takes:
            raise ValueError(f"{where}: it takes no {_SPOKEN.get(letter, letter)} ({word!r}); {_taken(kind)}")
        if letter in found:
            raise ValueError(f"{where}: {letter!r} is given twice, the second time as {word!r}")
        value = match[2]
        if (value == "same" and letter != "p") or ("x" in value and letter in ("c", "g")):
            raise ValueError(f"{where}: the word {word!r} is wrong; expected a number, such as {letter}4")
        if "0" in {part.lstrip("0") or "0" for part in value.split("x")} and letter not in ("p", "op"):
            raise ValueError(f"{where}: the word {word!r} is wrong; expected at least 1")
        found[letter] = value
    for letter in ("k",) if "k" in takes else ("c",) if kind == "linear" else ("s",) if kind == "upsample" else ():
        if letter not in found:
            raise ValueError(f"{where}: {_SPOKEN[letter]} missing; say it as in '{kind} {letter}3'")
    return found


def _taken(kind: str) -> str:
    takes = KINDS[kind]
    if not takes:
        return f"{kind} takes no options, and ';' goes between layers"
    named = ", ".join(f"{letter} ({_SPOKEN.get(letter, 'output padding')})" for letter in takes)
    return f"{kind} takes {named}, and ';' goes between layers"


def _pair(value: str) -> Pair:
    down, _, across = value.partition("x")
    return int(down), int(across or down)


def _layer(kind: str, text: str, options: dict[str, str], channels: int, where: str, *, first: bool) -> ListedLayer:
    default = _FIRST_CHANNELS if first and kind in _MIXING else channels
    out_channels = int(options.get("c", default))
    kernel = _pair(options.get("k", "1"))
    stride = _pair(options.get("s", options["k"] if kind in ("pool", "avgpool") else "1"))
    dilation = _pair(options.get("d", "1"))
    groups = channels if kind == "depthwise" else int(options.get("g", 1))
    for count, name in ((channels, "that go in"), (out_channels, "that come out")):
        if count % groups:
            word = f"c{out_channels}" if kind == "depthwise" else f"g{groups}"
            raise ValueError(f"{where}: {word!r} does not fit: the {count} channels {name} are no multiple of {groups}")
    before = after = _pair(options["p"]) if options.get("p", "same") != "same" else (0, 0)
    if options.get("p") == "same":
        before, after = _same(kind, kernel, stride, dilation, where)
    if kind == "pool" and any(2 * p > d * (k - 1) + 1 for p, d, k in zip(before, dilation, kernel, strict=True)):
        raise ValueError(f"{where}: padding 'p{options['p']}' is more than half of the kernel 'k{options['k']}'")
    if kind == "avgpool" and any(2 * p > k for p, k in zip(before, kernel, strict=True)):
        raise ValueError(f"{where}: padding 'p{options['p']}' is more than half of the kernel 'k{options['k']}'")
    extra = _pair(options.get("op", "0"))
    if any(o >= max(s, d) for o, s, d in zip(extra, stride, dilation, strict=True) if o):
        raise ValueError(f"{where}: output padding 'op{options['op']}' must be less than the stride or the dilation")
    return ListedLayer(kind, text, channels, out_channels, kernel, stride, before, after, dilation, groups, extra)


def _same(kind: str, kernel: Pair, stride: Pair, dilation: Pair, where: str) -> tuple[Pair, Pair]:
    """Padding that keeps ceil(size / stride) cells, spread as evenly as it can be."""
    if kind == "transposed":
        raise ValueError(f"{where}: 'same' is not meant for a transposed convolution; give p as a number")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    uneven = any(cells % 2 for cells in total)
    if uneven and (kind in ("pool", "avgpool") or stride != (1, 1)):
        raise ValueError(f"{where}: 'same' needs an odd kernel here; give p as a number")
    return (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)


def _numbers(layers: Sequence[ListedLayer], channels: int, shape: tuple[int, ...] | None, where: str) -> int:
    """How many numbers a map holds."""
    if shape is not None:
        return math.prod(shape)
    wide = [layer.kind for layer in layers if layer.kind not in ("pointwise", *POINTWISE)]
    if wide and wide[-1] in ("global", "globalmax"):
        return channels
    raise ValueError(
        f"{where}: how many numbers go in is not known; put 'global' before it, or give the picture's size"
    )


def _shape_after(layer: ListedLayer, shape: tuple[int, ...] | None, where: str) -> tuple[int, ...] | None:
    if shape is None or len(shape) == 1:
        return None if shape is None else (layer.out_channels,)
    with torch.device("meta"):
        try:
            return tuple(layer.make().eval()(torch.empty(1, *shape)).shape[1:])
        except RuntimeError:
            raise ValueError(
                f"{where}: its window does not fit into the map of {shape[1]} x {shape[2]} cells"
            ) from None
