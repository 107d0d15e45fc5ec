"""What every block must hold: it runs, has the shapes that it says, the right gradients, compiles, exports, and works
on glimpses. Each test module of a family lists its blocks in `CASES` and calls `checked(CASES)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foveal.blocks.registry import create_block
from foveal.convert.foveate import foveate
from foveal.layout import Layout
from foveal.retina import Retina


@dataclass(frozen=True)
class Case:
    """A block with the options to test it with.

    Args:
        name: in the registry.
        options: for `create_block`.
        channels: of the maps that it takes.
        out: channels and side that come out of maps of (channels, side); the same by default; () for (B,) answers.
        sides: (height, width) of maps to try.
        glimpses: whether it works on glimpses through `foveate`; "one" where it is equal to the dense block for one
            window only (and says why in its docstring).
        exports: whether ONNX has all that it needs; if not, why not.
        gradients: tolerance-free double precision check; False only where the block draws at random in training.
        head: of its family: checked in the ordinary tests; all others under `-m full`.
        within: a network around the block, for one that takes something else than one map: it makes from one map what
            the block takes, and gives one tensor.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 4
    out: Callable[[int, int, int], tuple[int, ...]] = lambda channels, height, width: (channels, height, width)
    sides: tuple[tuple[int, int], ...] = ((16, 16), (8, 24))
    glimpses: bool | str = True
    exports: bool | str = True
    gradients: bool = True
    head: bool = False
    within: Callable[[nn.Module], nn.Module] | None = None

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        block = create_block(self.name, **self.options)
        block = block if self.within is None else self.within(block)
        for parameter in block.parameters():  # away from special starts, such as zeros that hide a branch
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.data += 0.05 * torch.randn_like(parameter)
        return block.eval()


def maps(case: Case, *, batch: int = 2, side: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, case.channels, *(side or case.sides[0]), generator=generator, dtype=dtype)


def checked(cases: list[Case]) -> Callable[[Any], Any]:
    """Parametrises a test by cases; those that are no head of their family are slow proofs."""
    rows = [pytest.param(c, id=_id(c, cases), marks=() if c.head else pytest.mark.full) for c in cases]
    return pytest.mark.parametrize("case", rows)


def _id(case: Case, cases: list[Case]) -> str:
    alike = [other for other in cases if other.name == case.name]
    return case.name if len(alike) == 1 else f"{case.name}-{alike.index(case)}"


def check_shapes(case: Case) -> None:
    """Smoke and shapes, in evaluation and in training; cheap, so for every block in the ordinary tests."""
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
    x = maps(case, batch=3).requires_grad_()
    block.train()(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    for name, parameter in block.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, f"no gradient reaches {name}"


def check_gradients(case: Case) -> None:
    """Against finite differences in float64, for the maps and for every parameter."""
    block = case.make().double()
    x = maps(case, batch=1, side=(8, 8), dtype=torch.float64).requires_grad_()
    parameters = [p for p in block.parameters() if p.requires_grad]
    torch.manual_seed(0)
    weigh = torch.randn_like(block(x))

    def loss(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return (block(x) * weigh).sum()

    assert torch.autograd.gradcheck(loss, (x, *parameters), fast_mode=True)


def check_compiles(case: Case) -> None:
    """One graph without a break, with the same result and gradient."""
    torch._dynamo.reset()
    block, x = case.make(), maps(case)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    torch.testing.assert_close(compiled(x), block(x))
    one, other = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled, block))
    torch.testing.assert_close(one, other)


def check_exports(case: Case, folder: Any) -> None:
    """ONNX Runtime gives the same, for another batch than the one that was exported."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    block, x = case.make(), maps(case)
    file = folder / "block.onnx"
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    torch.onnx.export(block, (x,), **options).save(file)
    session = runtime.InferenceSession(file)
    other = maps(case, batch=3)
    (result,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(result, block(other).detach().numpy(), atol=1e-5, rtol=1e-4)


def check_glimpses(case: Case) -> None:
    """One window that fills the picture is the dense block bit for bit; a tiling is it to rounding; a fovea runs."""
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
