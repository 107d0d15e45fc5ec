"""What every block must hold: it has the shapes that it says and the right gradients, compiles, exports, and works on
glimpses."""

import numpy as np
import pytest
import torch
from cases import gathered, maps

from foveal.blocks.registry import find_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina

GATHERED = gathered()


def is_head(case):
    return case.head


def is_head_or_treats_windows_itself(case):
    """Convolutions leave windows to rules that the tests of `foveate` prove; other families bring their own."""
    return case.head or find_block(case.name).family not in {"convolutions", "structures"}


def every_case(applies=lambda case: True, *, ordinary=is_head):
    """Parametrises a test by all cases to which it applies; those that are not ordinary are slow proofs."""
    rows = [
        pytest.param(case, id=f"{name}-{at}", marks=() if ordinary(case) else pytest.mark.full)
        for name, cases in GATHERED.items()
        for at, case in enumerate(cases)
        if applies(case)
    ]
    return pytest.mark.parametrize("case", rows)


@every_case(ordinary=lambda case: True)
def test_it_has_the_shapes_that_it_says_and_its_parameters_learn(case):
    block = case.make()
    for batch in (1, 3):
        for side in case.sides:
            x = maps(case, batch=batch, side=side)
            before = x.clone()
            wanted = (batch, *case.out(case.channels, *side))
            result = block(x)
            assert result.shape == wanted, (result.shape, wanted)
            assert result.dtype == x.dtype
            assert torch.isfinite(result).all()
            assert torch.equal(x, before), "the block wrote into its input"
    if not case.gradients:
        return
    x = maps(case, batch=3).requires_grad_()
    block.train()(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    for name, parameter in block.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, f"no gradient reaches {name}"


@every_case(lambda case: case.gradients)
def test_its_gradients_are_those_of_finite_differences(case):
    """In float64, for the maps and for every parameter."""
    block = case.make().double()
    x = maps(case, batch=1, side=(8, 8), dtype=torch.float64).requires_grad_()
    parameters = [p for p in block.parameters() if p.requires_grad]
    torch.manual_seed(0)
    weigh = torch.randn_like(block(x))

    def loss(x, *_):
        return (block(x) * weigh).sum()

    assert torch.autograd.gradcheck(loss, (x, *parameters), fast_mode=True)


@every_case()
def test_it_compiles_to_one_graph_with_the_same_result_and_gradient(case):
    torch._dynamo.reset()
    block, x = case.make(), maps(case)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    torch.testing.assert_close(compiled(x), block(x))
    one, other = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled, block))
    torch.testing.assert_close(one, other)


@every_case(lambda case: case.exports is True)
def test_onnx_runtime_gives_the_same_for_another_batch_than_was_exported(case, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    block, x = case.make(), maps(case)
    file = tmp_path / "block.onnx"
    options = {"dynamo": True, "verbose": False, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    torch.onnx.export(block, (x,), **options).save(file)
    session = runtime.InferenceSession(file)
    other = maps(case, batch=3)
    (result,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(result, block(other).detach().numpy(), atol=1e-5, rtol=1e-4)


@every_case(lambda case: case.glimpses, ordinary=is_head_or_treats_windows_itself)
def test_one_window_is_the_dense_block_bit_for_bit_and_a_tiling_to_rounding(case):
    """A window that fills the picture, four that tile it, and a fovea, which runs."""
    block = case.make()
    foveated = foveate(block)
    picture = torch.randn(2, case.channels, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        dense = block(picture)
        one = foveated(Retina(32, levels=1)(picture))
        one = one if one.shape == dense.shape else one.flatten(0, 1)
        torch.testing.assert_close(one, dense, rtol=0, atol=0)
        fovea = foveated(Retina(16, levels=2)(picture))
        assert torch.isfinite(fovea).all()
        if case.glimpses == "one":
            return
        layout = Layout.stack([Layout.tiling(picture=(32, 32), size=16)] * 2)
        tiled = foveated(Retina(16, levels=1)(picture, layout=layout))
        if tiled.shape != dense.shape:  # maps: the four tiles side by side
            tiled = torch.cat([torch.cat([tiled[:, 2 * row + at] for at in (0, 1)], -1) for row in (0, 1)], -2)
            # Of a step without padding windows give whole maps; what the dense map lacks is at the right and bottom.
            assert all(0 <= more - cells < 16 for more, cells in zip(tiled.shape[2:], dense.shape[2:], strict=True))
            tiled = tiled[..., : dense.shape[2], : dense.shape[3]]
        torch.testing.assert_close(tiled, dense, rtol=1e-4, atol=1e-5)
