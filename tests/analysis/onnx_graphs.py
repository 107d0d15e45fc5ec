"""Small ONNX graphs made by hand, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from foveal.analysis.from_onnx.network import OnnxNetwork, network_from_onnx

Arrays = Mapping[str, np.ndarray]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + len(shape)).standard_normal(shape).astype(np.float32)


def save_graph(
    file: Path,
    nodes: Sequence[Any],
    inputs: Arrays,
    weights: Arrays | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    domains: Sequence[str] = (),
    functions: Sequence[Any] = (),
    shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Writes a graph whose outputs have whatever type follows, or `kind` where nothing does."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), (shapes or {}).get(name, array.shape)
            )
            for name, array in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))
    for output in model.graph.output:
        output.type.tensor_type.elem_type = TensorProto.UNDEFINED
    if not functions:  # in which onnx would follow every call
        inferred = onnx.shape_inference.infer_shapes(model)
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)
    for output in model.graph.output:  # which nothing follows for, as with operators of other domains
        output.type.tensor_type.elem_type = output.type.tensor_type.elem_type or kind
    onnx.save(model, file)
    return file


def by_runtime(file: Path, inputs: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))


def exported(network: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> torch.export.ExportedProgram:
    return torch.export.export(network, tuple(inputs), strict=False).run_decompositions({})


def called(program: torch.export.ExportedProgram) -> list[tuple[str, str]]:
    """What an exported network calls, each with the path of the module that did."""
    rows = []
    for node in program.graph.nodes:
        if node.op == "call_function" and "getitem" not in str(node.target):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            rows.append((str(node.target), stack[-1][0] if stack else ""))
    return rows


def check_graph(file: Path, inputs: Arrays, *, export: bool = True, atol: float = 1e-5) -> OnnxNetwork:
    """The network gives what ONNX Runtime gives, and so does its export."""
    network = network_from_onnx(file)
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    with torch.no_grad():
        given = network(*tensors)
        again = exported(network, tensors).module()(*tensors) if export else given
    for results in (given, again):
        results = results if isinstance(results, tuple) else (results,)
        wanted = by_runtime(file, inputs)
        assert len(results) == len(wanted)
        for result, array in zip(results, wanted, strict=True):
            assert result.detach().numpy().dtype == array.dtype
            np.testing.assert_allclose(result.detach().numpy(), array, atol=atol, rtol=1e-5)
    return network
