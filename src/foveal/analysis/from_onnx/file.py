"""Reads an ONNX file with nothing but its own bytes and weights that lie beside it, and refuses what is hurt.

The format: onnx.ai/onnx/repo-docs/IR.html. Nothing of a file is run here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 2**31 - 1
"""Bytes of a protobuf message; larger networks keep their weights in files beside."""

OLDEST = 7
"""The first operator set whose operators broadcast as NumPy does (ONNX 1.2, 2018)."""

MOST_NODES = 10**6


@dataclass(frozen=True)
class OnnxFile:
    """A file that was read: its model without the weights of the main graph, and those as arrays by their names."""

    model: Any
    weights: dict[str, np.ndarray]
    opsets: dict[str, int]


def import_onnx() -> Any:
    """The library `onnx`.

    Raises:
        ImportError: with what to install.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.inliner
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError("onnx is needed to read ONNX files; run: pip install 'foveal[export]'") from error
    return onnx


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """Reads a file, its weights and those in files beside it, and inlines the functions that it brings.

    Raises:
        ValueError: for a file that is missing, no ONNX file, hurt, too large or too old, or whose weights are not
            beside it; one line that names the file.
        ImportError: if `onnx` is missing.
    """
    onnx, path = import_onnx(), Path(path)
    model = _parsed(path, onnx)
    if not model.graph.node and not model.graph.output:
        raise ValueError(f"{path} is no ONNX file, or it is cut off: it holds no graph")
    opsets = {own_domain(entry.domain): entry.version for entry in model.opset_import}
    if opsets.get("", OLDEST) < OLDEST:
        raise ValueError(f"{path} is of operator set {opsets['']}; expected {OLDEST} or newer: export it again")
    try:
        if not all(
            isinstance(name, str) for name in _names(model)
        ):  # protobuf hands out bytes that are no text as such
            raise ValueError("it is hurt: a name in it is no text")
        for tensor in _tensors(model.graph, onnx):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _load_from_beside(tensor, path, onnx)
        if model.graph.sparse_initializer:
            raise ValueError("sparse weights are not read; store them dense")
        weights = {tensor.name: _array(tensor, onnx) for tensor in model.graph.initializer}
        del model.graph.initializer[:]
        return OnnxFile(_inlined(model, onnx), weights, opsets)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {_line(error)}") from error


def files_beside(path: str | os.PathLike[str]) -> list[Path]:
    """The files that a model says its weights are in.

    Raises:
        ValueError: for what is no ONNX file.
        ImportError: if `onnx` is missing.
    """
    onnx = import_onnx()
    model = _parsed(Path(path), onnx)
    entries = [entry for tensor in _tensors(model.graph, onnx) for entry in tensor.external_data]
    return [Path(path).parent / name for name in sorted({one.value for one in entries if one.key == "location"})]


def _parsed(path: Path, onnx: Any) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes; an ONNX file has {LARGEST:,} at most, larger networks keep "
            "their weights in a file beside it (torch.onnx.export(..., external_data=True))"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # of protobuf, whose error class depends on its version
        raise ValueError(f"{path} is no ONNX file, or it is cut off or hurt: {_line(error)}") from error
    return model


def check(file: OnnxFile, path: str | os.PathLike[str]) -> None:
    """Lets `onnx` check the graph: every operator's inputs and attributes, the order, the names.

    Raises:
        ValueError: with the first thing that is wrong.
    """
    onnx = import_onnx()
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    graph = model.graph
    there = {entry.name for entry in graph.input}
    for name, array in file.weights.items():  # which were taken out, so that gigabytes are not checked with the graph
        if name not in there:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    for entry in (*graph.input, *graph.output):
        if entry.type.HasField("tensor_type"):
            entry.type.tensor_type.shape.SetInParent()  # the checker wants one, though nobody needs it
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # of the checker, or of protobuf for text that is none
        if "is deprecated in" in str(error):  # which every runtime still runs
            return
        raise ValueError(f"{path} is hurt, or newer than onnx {onnx.__version__}: {_line(error)}") from error


def own_domain(domain: str) -> str:
    """ONNX's own domain has two names."""
    return "" if domain == "ai.onnx" else domain


def array_of(tensor: Any) -> np.ndarray:
    """The numbers of a tensor of the file.

    Raises:
        ValueError: if they are not as many as its sides say, or of an unknown type.
    """
    return _array(tensor, import_onnx())


def _array(tensor: Any, onnx: Any) -> np.ndarray:
    try:
        array: np.ndarray = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise ValueError(f"the tensor {tensor.name!r} is hurt: {_line(error)}") from error
    if list(array.shape) != list(tensor.dims):
        raise ValueError(f"the tensor {tensor.name!r} is hurt: it says {list(tensor.dims)}, holds {list(array.shape)}")
    return array


def graphs_of(node: Any) -> Iterator[Any]:
    """The graphs inside a node, such as the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _names(model: Any) -> Iterator[Any]:
    for function in model.functions:
        yield from (function.domain, function.name, *function.input, *function.output)
    parts = [model.graph, *model.functions]
    while parts:
        part = parts.pop()
        if hasattr(part, "initializer"):
            yield from (entry.name for entry in (*part.initializer, *part.input, *part.output))
        for node in part.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (entry.name for entry in node.attribute)
            parts += graphs_of(node)
    yield from (entry.domain for entry in model.opset_import)


def _tensors(graph: Any, onnx: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in graphs_of(node):
            yield from _tensors(inner, onnx)


def _load_from_beside(tensor: Any, path: Path, onnx: Any) -> None:
    """Fills in a tensor from a file beside; a name that leads elsewhere, itself or by a link, is refused."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folders = {path.parent.resolve(), path.resolve().parent}  # a cache links both files into one folder of its own
    beside = path.parent / location
    if not location or os.path.isabs(location) or ".." in Path(location).parts or "\\" in location or ":" in location:
        raise ValueError(f"its weights are said to be at {location!r}; only files beside it are read")
    if not beside.is_file():
        raise ValueError(f"its weights are missing: {beside} is no file")
    if not any(beside.resolve().is_relative_to(folder) for folder in folders):
        raise ValueError(
            f"its weights are said to be at {location!r}, a link to elsewhere; only files beside it are read"
        )
    try:
        numbers, item = math.prod(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", numbers * item))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the tensor {tensor.name!r} is hurt: {_line(error)}") from error
    there = beside.stat().st_size
    if min(offset, length) < 0 or offset + length > there:
        raise ValueError(f"{beside} is cut off: {tensor.name!r} lies at {offset:,} + {length:,} of {there:,} bytes")
    with beside.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT


def _inlined(model: Any, onnx: Any) -> Any:
    """The model without functions of its own; those that call themselves, or blow up, are refused first."""
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, within: tuple[tuple[str, str], ...]) -> int:
        total = len(nodes)
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in within:
                raise ValueError(f"the function {node.op_type!r} calls itself")
            if called in bodies and called not in sizes:
                sizes[called] = size(bodies[called], (*within, called))
            total += sizes.get(called, 0) + sum(size(graph.node, within) for graph in graphs_of(node))
            if total > MOST_NODES:
                raise ValueError(f"its functions unfold to more than {MOST_NODES:,} nodes")
        return total

    size(model.graph.node, ())
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise ValueError(f"its functions are hurt: {_line(error)}") from error


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
