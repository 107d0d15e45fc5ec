"""ONNX files as networks: of exporters, and hurt ones."""

from __future__ import annotations

import copy
import doctest
import importlib
import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import by_runtime, called, check_graph, exported, random, save_graph
from torch import nn

from foveal.analysis.from_onnx import names as onnx_names
from foveal.analysis.from_onnx.names import is_made_up, layer_of
from foveal.analysis.from_onnx.network import UnknownOperator, network_from_onnx
from foveal.analysis.from_onnx.weights import KIND, weight_of
from foveal.zoo import load_network

pytestmark = pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript", "ignore:It is recommended that")

STYLES = ("graph", "trace")
"""The two exporters of PyTorch: torch.export's graph (dynamo), and TorchScript's trace."""

X = random(1, 3, 32, 32)


class Small(nn.Module):
    """A convolution with its norm, a residual branch, a view whose shape is computed, a linear layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.branch = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.scale = nn.Parameter(torch.full((1, 8, 1, 1), 0.5))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.scale * self.branch(x)
        batch, channels, height, width = x.shape
        tokens = x.view(batch, channels, height * width).transpose(1, 2)
        return self.head(self.norm(tokens)).mean(1)


def made(model: nn.Module) -> nn.Module:
    """With weights that all differ, as trained ones do: equal ones would be stored once."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data += 0.02 * (2 * torch.rand(tensor.shape, generator=generator) - 1)
    return model.eval()


def export(model: nn.Module, file: Path, style: str, side: int = 32, **options: Any) -> Path:
    example = (torch.rand(1, 3, side, side),)
    if style == "graph":
        torch.onnx.export(model, example, file, dynamo=True, verbose=False, opset_version=18, **options)
    else:
        torch.onnx.export(model, example, file, dynamo=False, opset_version=17, input_names=["x"], **options)
    return file


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return made(Small())


@pytest.fixture(scope="module")
def small(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model by each exporter."""
    folder = tmp_path_factory.mktemp("small")
    return {style: export(model, folder / f"{style}.onnx", style) for style in STYLES}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def norm_parameters_folded(model: nn.Module) -> int:
    """How many parameters go when each convolution takes up the batch norm behind it, and gets a bias by it."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return sum(module.num_features for module in norms)  # a scale and a shift go, a bias comes


@pytest.mark.parametrize("style", STYLES)
def test_a_small_network_is_what_it_was(style: str, model: nn.Module, small: dict[str, Path]) -> None:
    network = check_graph(small[style], {"x": X})
    torch.testing.assert_close(network(torch.from_numpy(X)), model(torch.from_numpy(X)), atol=1e-5, rtol=1e-5)
    assert parameters(network) == parameters(model) - norm_parameters_folded(model)
    assert not list(network.buffers())
    assert not network.training
    ours, theirs = dict(network.named_parameters()), dict(model.named_parameters())
    # "scale" alone may be counted through by an exporter; the folded norm's kernel is another, of the same shape.
    kept = {name: theirs[name] for name in theirs if not name.startswith(("stem.1", "scale"))}
    assert {name: ours[name].shape for name in kept} == {name: weight.shape for name, weight in kept.items()}
    torch.testing.assert_close(ours["head.weight"], theirs["head.weight"])
    torch.testing.assert_close(ours["branch.weight"], theirs["branch.weight"])


@pytest.mark.parametrize("style", STYLES)
def test_a_network_with_open_sizes_runs_at_others(style: str, tmp_path: Path) -> None:
    model, file = made(Small()), tmp_path / "small.onnx"
    if style == "graph":
        batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
        sides = {0: batch, 2: 2 * height, 3: 2 * width}
        torch.onnx.export(
            model,
            (torch.rand(2, 3, 32, 32),),
            file,
            dynamo=True,
            verbose=False,
            dynamic_shapes=(sides,),
            opset_version=18,
        )
    else:
        export(model, file, style, dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}})
    network = network_from_onnx(file)
    assert network.input_shape == (None, 3, None, None)
    # The graph exporter keeps the norm here, since the size of what goes into it is asked for.
    kept = "BatchNormalization" in {node.op_type for node in onnx.load(file).graph.node}
    assert kept == (style == "graph")
    assert parameters(network) == parameters(model) - (0 if kept else norm_parameters_folded(model))
    for shape in ((3, 3, 24, 40), (1, 3, 8, 8)):
        check_graph(file, {"x": random(*shape)}, export=shape[0] == 3)


@pytest.mark.parametrize("style", STYLES)
def test_each_node_is_one_function_under_its_layer(style: str, small: dict[str, Path]) -> None:
    file = small[style]
    network = network_from_onnx(file)
    rows = called(exported(network, [torch.from_numpy(X)]))
    assert max(Counter(path for _, path in rows).values()) == 1
    assert {path for _, path in rows} <= set(network.nodes)
    assert set(network.nodes.values()) <= {node.name for node in onnx.load(file).graph.node}
    layers = {path.rpartition(".")[0]: target for target, path in rows}
    wanted = {"stem.0": "conv2d", "stem.2": "hardswish", "branch": "conv2d", "norm": "layer_norm", "head": "linear"}
    assert {layer: layers[layer].split(".")[1] for layer in wanted} == wanted


def test_batch_norms_that_are_kept_have_their_parameters(tmp_path: Path) -> None:
    model = made(Small())
    file = export(model, tmp_path / "small.onnx", "trace", training=torch.onnx.TrainingMode.PRESERVE)
    if "BatchNormalization" not in {node.op_type for node in onnx.load(file).graph.node}:
        file = export(
            model, tmp_path / "s.onnx", "trace", do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE
        )
    network = check_graph(file, {"x": X})
    assert parameters(network) == parameters(model)
    assert {name for name, _ in network.named_buffers()} >= {"stem.1.running_mean", "stem.1.running_var"}


FAMILIES = [
    ("torchvision:resnet18", 64),
    ("torchvision:mobilenet_v3_small", 64),
    ("timm:convnext_atto", 64),
    ("timm:vit_tiny_patch16_224", 224),
    ("torchvision:googlenet", 96),
    ("torchvision:shufflenet_v2_x0_5", 64),
    ("timm:swin_tiny_patch4_window7_224", 224),
    ("timm:mobilevit_xxs", 64),
    ("torchvision:densenet121", 64),
]


@pytest.mark.full
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("name", "side"), FAMILIES)
def test_networks_of_many_families_are_what_they_were(name: str, side: int, style: str, tmp_path: Path) -> None:
    model = made(load_network(name))
    file = export(model, tmp_path / "model.onnx", style, side)
    x = random(1, 3, side, side)
    network = network_from_onnx(file)
    with torch.no_grad():
        given, wanted = network(torch.from_numpy(x)), model(torch.from_numpy(x))
        again = exported(network, [torch.from_numpy(x)]).module()(torch.from_numpy(x))
    scale = max(1.0, float(wanted.abs().max()))  # answers of weights that nobody trained may be large
    for result in (given, again):
        torch.testing.assert_close(result / scale, wanted / scale, atol=1e-5, rtol=0)
        (array,) = by_runtime(file, {network.input_name: x})
        np.testing.assert_allclose(result.numpy() / scale, array / scale, atol=1e-5, rtol=0)
    if name in ("torchvision:resnet18", "torchvision:mobilenet_v3_small", "timm:convnext_atto"):
        assert parameters(network) == parameters(model) - norm_parameters_folded(model)
    if "vit_tiny" in name:
        assert parameters(network) == parameters(model)


def test_the_input_is_as_the_file_says(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["picture"], ["y"])
    file = save_graph(tmp_path / "a.onnx", [relu], {"picture": X}, shapes={"picture": ["batch", 3, None, 32]})
    network = network_from_onnx(file)
    assert network.input_name == "picture"
    assert network.input_shape == (None, 3, None, 32)
    assert network.input_dtype == torch.float32
    assert network.inputs == {"picture": (None, 3, None, 32)}
    assert network.outputs == ["y"]
    assert network(torch.rand(5, 3, 7, 9)).shape == (5, 3, 7, 9)
    half = save_graph(tmp_path / "b.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": X.astype(np.float16)})
    assert network_from_onnx(half).input_dtype == torch.float16


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    inputs = {"a": X, "b": X[:, :1]}
    network = check_graph(save_graph(tmp_path / "a.onnx", nodes, inputs, outputs=["difference", "sum"]), inputs)
    with pytest.raises(ValueError, match=r"takes 2 inputs \(a, b\); 1 given"):
        network(torch.from_numpy(X))


def test_shapes_that_are_computed_are_followed_at_any_size(tmp_path: Path) -> None:
    """Shape -> Gather -> Concat -> Reshape, and a mask made of sizes: nothing of it is left in an export."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axis"], ["batch_1"]),
        helper.make_node("Concat", ["batch_1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Shape", ["flat"], ["sides"]),
        helper.make_node("ConstantOfShape", ["sides"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("Slice", ["sides", "axis", "two"], ["rows"]),
        helper.make_node("Cast", ["batch_1"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["as_float"], ["root"]),
        helper.make_node("Mul", ["flat", "root"], ["scaled"]),
        helper.make_node("Add", ["scaled", "ones"], ["y"]),
    ]
    fixed = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1, 4]), "two": np.array([2])}
    file = save_graph(tmp_path / "a.onnx", nodes, {"x": X}, fixed, shapes={"x": [None, 3, None, None]})
    for shape in ((1, 3, 32, 32), (3, 3, 8, 6)):
        network = check_graph(file, {"x": random(*shape)})
    targets = [target for target, _ in called(exported(network, [torch.rand(3, 3, 8, 6)]))]
    assert [target.split(".")[1] for target in targets if "clone" not in target] == ["view", "mul", "add"]
    assert not list(network.parameters())


def test_weights_that_pass_a_view_are_parameters_in_the_form_that_is_used(tmp_path: Path) -> None:
    kernel, table = random(4, 3, 3, 3), (random(5, 4) * 30).astype(np.int8)
    nodes = [
        helper.make_node("Transpose", ["conv.turned"], ["kernel"], perm=[3, 2, 0, 1]),
        helper.make_node("Conv", ["x", "kernel"], ["maps"], "conv"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("DequantizeLinear", ["fc.weight", "scale"], ["weight"], "read"),
        helper.make_node("Gemm", ["flat", "weight"], ["y"], "fc", transB=1),
    ]
    weights = {"conv.turned": kernel.transpose(2, 3, 1, 0), "fc.weight": table, "scale": np.float32(0.05)}
    network = check_graph(save_graph(tmp_path / "a.onnx", nodes, {"x": X}, weights), {"x": X})
    assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {
        "conv.turned": (4, 3, 3, 3),
        "fc.weight": (5, 4),
    }
    assert not list(network.buffers())


def test_weights_that_are_shared_are_counted_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "table"], ["a"], "first"),
        helper.make_node("Identity", ["table"], ["again"]),
        helper.make_node("MatMul", ["a", "again"], ["b"], "second"),
        helper.make_node("Gather", ["table", "at"], ["row"], "look_up"),
        helper.make_node("Add", ["b", "row"], ["y"]),
    ]
    x = random(2, 4)
    network = check_graph(
        save_graph(tmp_path / "a.onnx", nodes, {"x": x}, {"table": random(4, 4), "at": np.array(1)}), {"x": x}
    )
    assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {"table": (4, 4)}


def test_a_weight_that_is_an_answer_too_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    x = random(2, 4)
    file = save_graph(tmp_path / "a.onnx", nodes, {"x": x}, {"w": random(3, 4)}, outputs=["y", "w"])
    assert check_graph(file, {"x": x}).w.shape == (3, 4)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    file = save_graph(tmp_path / "b.onnx", [product], {"x": x}, {"w": random(4, 3)}, outputs=["y", "w"])
    assert check_graph(file, {"x": x}).w.shape == (4, 3)


def test_tables_are_buffers_and_single_numbers_are_not(tmp_path: Path) -> None:
    at = np.arange(70).reshape(7, 10) % 9 - 4
    nodes = [
        helper.make_node("Gather", ["x", "at"], ["picked"], "pick", axis=1),
        helper.make_node("Mul", ["picked", "val_1"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low.bound", ""], ["y"]),
    ]
    x = random(2, 9)
    fixed = {"at": at, "val_1": np.array([0.5], np.float32), "low.bound": np.float32(-0.1)}
    network = check_graph(save_graph(tmp_path / "a.onnx", nodes, {"x": x}, fixed), {"x": x})
    assert {name: tuple(b.shape) for name, b in network.named_buffers()} == {"pick.constant_1": (7, 10)}
    assert not list(network.parameters())


def test_a_branch_that_is_known_is_taken(tmp_path: Path) -> None:
    def branch(name: str, weight: np.ndarray) -> Any:
        node = helper.make_node("Mul", ["x", "w"], ["inside"], name)
        out = helper.make_empty_tensor_value_info("inside")
        return helper.make_graph([node], name, [], [out], [numpy_helper.from_array(weight, "w")])

    then, other = branch("then", random(4)), branch("other", random(4, seed=3))
    nodes = [
        helper.make_node("If", ["yes"], ["a"], "first", then_branch=then, else_branch=other),
        helper.make_node("If", ["no"], ["b"], "second", then_branch=then, else_branch=other),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    x = random(2, 4)
    fixed = {"yes": np.array(True), "no": np.array(False)}
    network = check_graph(save_graph(tmp_path / "a.onnx", nodes, {"x": x}, fixed), {"x": x})
    assert sorted(tuple(p.shape) for p in network.parameters()) == [(4,), (4,)]
    nodes[0] = helper.make_node("If", ["c"], ["a"], "first", then_branch=then, else_branch=other)
    file = save_graph(tmp_path / "b.onnx", nodes, {"x": x, "c": np.array(True)}, fixed)
    with pytest.raises(ValueError, match=r"'first' \(If\): its branch is chosen when the network runs"):
        network_from_onnx(file)


def test_functions_of_the_file_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Add", ["r", "b"], ["c"])]
    function = helper.make_function("own", "Unit", ["a", "b"], ["c"], body, [helper.make_opsetid("", 18)])
    node = helper.make_node("Unit", ["x", "w"], ["y"], domain="own")
    file = save_graph(tmp_path / "a.onnx", [node], {"x": X}, {"w": random(32)}, domains=["own"], functions=[function])
    check_graph(file, {"x": X})
    calls = helper.make_node("Unit", ["a", "b"], ["c"], domain="own")
    endless = helper.make_function("own", "Unit", ["a", "b"], ["c"], [calls], [helper.make_opsetid("own", 1)])
    save_graph(file, [node], {"x": X}, {"w": random(32)}, domains=["own"], functions=[endless])
    with pytest.raises(ValueError, match="'Unit' calls itself"):
        network_from_onnx(file)


def test_functions_that_blow_up_are_refused(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for level in range(1, 3000):
        inner = [helper.make_node(f"f{level - 1}", [name], [to], domain="own") for name, to in ("am", "mb")]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], inner, opsets))
    for last, message in (("f39", "unfold to more than 1,000,000 nodes"), ("f2999", "recursion")):
        node = helper.make_node(last, ["x"], ["y"], domain="own")
        file = save_graph(tmp_path / "a.onnx", [node], {"x": X}, domains=["own"], functions=functions)
        with pytest.raises(ValueError, match=message):
            network_from_onnx(file)


def test_all_unknown_operators_are_named_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["b"], "where_is_it"),
        helper.make_node("Magic", ["a"], ["c"], "spell", domain="com.acme"),
        helper.make_node("Magic", ["c"], ["y"], "spell_2", domain="com.acme"),
    ]
    file = save_graph(tmp_path / "a.onnx", nodes, {"x": X}, domains=["com.acme"])
    with pytest.raises(UnknownOperator) as caught:
        network_from_onnx(file)
    assert caught.value.operators == [("", "NonZero", "where_is_it"), ("com.acme", "Magic", "spell")]
    message = str(caught.value)
    assert "NonZero (domain 'ai.onnx', node 'where_is_it')" in message
    assert "Magic (domain 'com.acme', node 'spell' and 1 more)" in message
    assert "\n" not in message


def test_a_size_that_does_not_fit_names_the_node(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "to"], ["y"], "to_rows")
    file = save_graph(tmp_path / "a.onnx", [node], {"x": X}, {"to": np.array([1, 3, 1024])})
    network = network_from_onnx(file)
    with pytest.raises(
        ValueError, match=r"'to_rows' \(Reshape\) does not run on \(1, 3, 16, 16\).*input is x \(1, 3, 32, 32\)"
    ):
        network(torch.rand(1, 3, 16, 16))


def test_shapes_that_depend_on_data_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "to"], ["y"], "to_rows")
    file = save_graph(tmp_path / "a.onnx", [node], {"x": X, "to": np.array([3, 1024])})
    with pytest.raises(ValueError, match=r"'to_rows' .* its sides are computed from data"):
        network_from_onnx(file)(torch.from_numpy(X), torch.tensor([3, 1024]))


def test_names_that_pytorch_cannot_have_are_changed(tmp_path: Path) -> None:
    awkward = [
        "forward",
        "a.training.weight",
        "a",
        "a.b",
        "x/y z:0",
        "...",
        "__class__",
        "_parameters.x",
        "a" + ".a" * 99,
    ]
    nodes = [
        helper.make_node("Add", [f"v{at}" if at else "x", name], [f"v{at + 1}"], name="forward")  # all of one name
        for at, name in enumerate(awkward)
    ]
    weights = {name: random(32, seed=at) for at, name in enumerate(awkward)}
    network = network_from_onnx(save_graph(tmp_path / "a.onnx", nodes, {"x": X}, weights, outputs=[f"v{len(awkward)}"]))
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(X)), X + sum(weights.values()), atol=1e-5)
    assert len(list(network.parameters())) == len(network.nodes) == len(awkward)
    assert "a.training_.weight" in dict(network.named_parameters())
    assert max(path.count(".") for path, _ in network.named_parameters()) < 32


@pytest.mark.parametrize(
    ("name", "made_up"),
    [("onnx::Conv_193", True), ("val_12", True), ("_val_3", True), ("77", True), ("fc.weight", False), ("w", False)],
)
def test_names_that_an_exporter_counted_through_are_told_from_those_of_layers(name: str, made_up: bool) -> None:
    assert is_made_up(name) == made_up


@pytest.mark.parametrize(
    ("name", "array", "uses", "noted", "learned"),
    [
        ("prelu.weight", np.ones(1, np.float32), [("PRelu", 1)], {}, True),
        ("val_3", np.ones(1, np.float32), [("Conv", 2)], {}, True),
        ("val_3", np.ones(1, np.float32), [("Mul", 1)], {}, None),
        ("val_3", np.ones(4, np.float32), [("Mul", 1)], {}, True),
        ("scale", np.float32(2), [("Mul", 1)], {}, None),
        ("head.scale", np.float32(2), [("Mul", 1)], {}, True),
        ("x", np.ones(4, np.float32), [("Resize", 2)], {}, None),
        ("x", np.ones(4, np.float32), [("Resize", 2), ("Mul", 1)], {}, True),
        ("table", np.arange(9), [("Gather", 1)], {}, None),
        ("running_mean", np.ones(4, np.float32), [("BatchNormalization", 3)], {}, False),
        ("mask", np.ones(4, np.float32), [("Add", 1)], {KIND: "BUFFER"}, False),
    ],
)
def test_which_initializers_are_weights(
    name: str, array: np.ndarray, uses: list[tuple[str, int]], noted: dict[str, str], learned: bool | None
) -> None:
    weight = weight_of(name, np.asarray(array), uses, noted)
    assert (None if weight is None else weight.learned) == learned


def test_the_layer_of_a_node() -> None:
    noted = "['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'batch_norm']"
    assert layer_of("/layer1/layer1.0/conv1/Conv", "Conv", [(1, "x.weight")], "") == "layer1.0.conv1"
    assert layer_of("node_Conv_3", "Conv", [(1, "layer1.0.conv1.weight")], noted) == "layer1.0.conv1"
    assert layer_of("node_relu", "Relu", [], noted) == "layer1.0.bn1"
    assert layer_of("node_norm", "LayerNormalization", [(1, "shared.weight")], noted) == "layer1.0.bn1"
    assert layer_of("LayerNorm_3", "LayerNormalization", [(1, "norm.weight")], "") == "norm"
    assert layer_of("Relu_3", "Relu", [], "") == ""


def test_the_network_can_be_copied_moved_and_kept(small: dict[str, Path]) -> None:
    network = network_from_onnx(small["trace"])
    x = torch.from_numpy(X)
    wanted = network(x)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other(x), wanted, rtol=0, atol=0)
    wanted.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(network.double()(x.double()).float(), wanted)


def test_half_precision_weights_keep_their_type(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    x = random(2, 4).astype(np.float16)
    network = check_graph(
        save_graph(tmp_path / "a.onnx", nodes, {"x": x}, {"w": random(4, 3).astype(np.float16)}), {"x": x}, atol=1e-3
    )
    assert network.w.dtype == torch.float16
    bfloat = helper.make_tensor("w", TensorProto.BFLOAT16, [4], [1.0, -2.0, 0.5, 3.0])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), helper.make_node("Mul", ["x", "f"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [bfloat],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "b.onnx")
    x = torch.rand(2, 4)
    torch.testing.assert_close(network_from_onnx(tmp_path / "b.onnx")(x), x * torch.tensor([1.0, -2.0, 0.5, 3.0]))


# files


def matmul(file: Path, *, location: str = "weights.bin", **entries: int) -> Path:
    """A graph whose weight lies in another file."""
    save_graph(file, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": random(2, 4)}, {"w": random(4, 3)})
    model = onnx.load(file)
    weight = model.graph.initializer[0]
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 0, "length": len(data), **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    file.write_bytes(model.SerializeToString())
    (file.parent / "weights.bin").write_bytes(data)
    return file


def test_weights_in_a_file_beside_are_read(small: dict[str, Path], tmp_path: Path) -> None:
    check_graph(matmul(tmp_path / "a.onnx"), {"x": random(2, 4)})
    assert small["graph"].with_name("graph.onnx.data").exists()
    check_graph(small["graph"], {"x": X})


def test_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    outside = tmp_path / "weights.bin"
    outside.write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(outside)
    for location in ("../weights.bin", str(outside), "sub/../../weights.bin", "link.bin", "", "..\\weights.bin", "C:w"):
        file = matmul(folder / "a.onnx", location=location)
        with pytest.raises(ValueError, match="only files beside it are read") as caught:
            network_from_onnx(file)
        assert "\n" not in str(caught.value)


def test_a_cache_that_links_both_files_into_one_folder_is_read(tmp_path: Path) -> None:
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    matmul(tmp_path / "blobs" / "1f", location="weights.bin")
    (tmp_path / "snapshot" / "model.onnx").symlink_to(tmp_path / "blobs" / "1f")
    (tmp_path / "snapshot" / "weights.bin").symlink_to(tmp_path / "blobs" / "weights.bin")
    assert network_from_onnx(tmp_path / "snapshot" / "model.onnx").w.shape == (3, 4)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 4}, "is cut off: 'w' lies at 4 \\+ 48 of 48 bytes"),
        ({"offset": -8}, "is cut off"),
        ({"length": 2**60}, "is cut off"),
        ({"length": 40}, "'w' is hurt"),
        ({"location": "none.bin"}, "its weights are missing: .*none.bin is no file"),
    ],
)
def test_weights_that_are_hurt_or_missing_are_named(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = matmul(tmp_path / "a.onnx", **entries)
    with pytest.raises(ValueError, match=message) as caught:
        network_from_onnx(file)
    assert "\n" not in str(caught.value)


def test_what_is_no_onnx_file_is_refused_in_one_line(tmp_path: Path) -> None:
    good = save_graph(
        tmp_path / "good.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": X}, {"w": random(32, 9)}
    )
    whole = good.read_bytes()
    files = {
        "empty": b"",
        "text": b"this is no network at all\n" * 20,
        "pickle": pickle.dumps({"weights": [1, 2, 3]}),
        "cut": whole[: len(whole) // 2],
        "noise": np.random.default_rng(0).bytes(4096),
        "zeros": bytes(4096),
        "no graph": onnx.ModelProto(ir_version=10).SerializeToString(),
    }
    for name, content in files.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no ONNX file|is hurt|no graph") as caught:
            network_from_onnx(file)
        assert "\n" not in str(caught.value), name
        assert str(file) in str(caught.value)
    for missing in (tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(ValueError, match="no such file"):
            network_from_onnx(missing)


def test_bytes_that_flip_never_give_anything_but_a_network_or_one_line(small: dict[str, Path], tmp_path: Path) -> None:
    whole, generator = bytearray(small["trace"].read_bytes()), np.random.default_rng(0)
    # Outside the weights, where a flip is only another number.
    for _ in range(60):
        hurt = bytearray(whole)
        for place in generator.integers(0, len(hurt), 20):
            hurt[place] = generator.integers(0, 256)
        file = tmp_path / "hurt.onnx"
        file.write_bytes(hurt)
        try:
            network_from_onnx(file)(torch.from_numpy(X))
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Unheard", ["x"], ["a"]), helper.make_node("Unsaid!", ["a"], ["y"])]
    file = save_graph(tmp_path / "a.onnx", nodes, {"x": X})
    file.write_bytes(file.read_bytes().replace(b"Unsaid!", b"Uns\xff\xfed!"))
    with pytest.raises(ValueError, match="a name in it is no text"):
        network_from_onnx(file)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Conv", ["x"], ["y"], "lone")], "input size 1"),
        ([helper.make_node("MaxPool", ["x"], ["y"])], "kernel_shape"),
        ([helper.make_node("Relu", ["nobody"], ["y"])], "nobody"),
        ([helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Relu", ["x"], ["z"])], "z"),
        ([helper.make_node("Identity", ["x"], ["z"])], "y"),
    ],
)
def test_graphs_that_are_hurt_are_refused(nodes: list[Any], message: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    file = tmp_path / "a.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message) as caught:
        network_from_onnx(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("ConstantOfShape", [[2**20, 2**20]]),
        ("Expand", [[1], [2**40]]),
        ("Tile", [[1], [2**40]]),
        ("Range", [0, 2**40, 1]),
    ],
)
def test_constants_that_would_fill_the_memory_are_refused(operator: str, inputs: list[Any], tmp_path: Path) -> None:
    fixed = {f"c{at}": np.array(value, dtype=np.int64) for at, value in enumerate(inputs)}
    nodes = [helper.make_node(operator, list(fixed), ["big"], "bomb"), helper.make_node("Shape", ["big"], ["s"])]
    nodes.append(helper.make_node("Reshape", ["x", "s"], ["y"]))
    file = save_graph(tmp_path / "a.onnx", nodes, {"x": X}, fixed)
    with pytest.raises(ValueError, match=r"'bomb'.*makes a constant of 1,099,511,627,776 numbers"):
        network_from_onnx(file)


def test_old_files_are_refused_by_their_set(tmp_path: Path) -> None:
    file = save_graph(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": X}, opset=6)
    with pytest.raises(ValueError, match="operator set 6; expected 7 or newer"):
        network_from_onnx(file)


def test_too_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    with file.open("wb") as handle:
        handle.truncate(2**31)  # a hole, which takes no place on the disk
    with pytest.raises(ValueError, match="has 2,147,483,648 bytes; an ONNX file has 2,147,483,647 at most"):
        network_from_onnx(file)


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(onnx_names) == (0, 3)


def test_without_onnx_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("foveal.analysis.from_onnx")]:
        monkeypatch.delitem(sys.modules, name)  # nor may its modules need it to be imported
    monkeypatch.setitem(sys.modules, "onnx", None)
    network = importlib.import_module("foveal.analysis.from_onnx.network")
    with pytest.raises(ImportError, match=r"pip install 'foveal\[export\]'"):
        network.network_from_onnx("a.onnx")
