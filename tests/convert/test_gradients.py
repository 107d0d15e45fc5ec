"""Gradients through steps whose backward pass is not PyTorch's own: checkpoints, functions of a network's own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveal import Glimpse, Layout, Retina, UnsupportedModule, foveate


class Lambda(nn.Module):
    def __init__(self, call: object, channels: int = 3) -> None:
        super().__init__()
        self.call, self.conv = call, nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.call(self.conv(x))  # type: ignore[operator]


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def look() -> Glimpse:
    return Retina(16, levels=2)(torch.rand(2, 3, 32, 32))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.sigmoid() * (1 + x * (1 - x.sigmoid()))


class Mean(torch.autograd.Function):
    """Whose context is set up apart."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.mean((2, 3))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad[..., None, None].expand(ctx.shape) / (ctx.shape[2] * ctx.shape[3])


@pytest.mark.parametrize("options", [{}, {"periphery_channels": 0.5}])
def test_with_a_periphery_of_its_own_too_they_are_refused(options: dict[str, Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Lambda(lambda x: Swish.apply(x), 4))
    with pytest.raises(UnsupportedModule, match="Swish is a torch"):
        foveate(network, **options)(Retina(32, levels=2)(torch.rand(1, 3, 64, 64)))


@pytest.mark.parametrize("function", [Swish, Mean])
def test_functions_with_a_backward_pass_of_their_own_are_refused_where_gradients_are_kept(function: Any) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Lambda(lambda x: function.apply(x), 4))
    made, x = foveate(network), torch.rand(1, 3, 32, 32)
    with pytest.raises(UnsupportedModule, match=rf"^1 \(Lambda\): {function.__name__} is a torch.autograd.Function"):
        made(look())
    with torch.no_grad():
        tiled = made(Retina(32)(x, layout=Layout.tiling(picture=(32, 32), size=32)))
        torch.testing.assert_close(tiled.flatten(), network(x).flatten())


def test_steps_without_gradients_and_functions_of_weights_are_taken() -> None:
    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = x.mean((2, 3), keepdim=True).sigmoid()
        return mean(x * gate * Swish.apply(torch.ones(1, requires_grad=True)))

    made = foveate(Lambda(call))
    made(look()).sum().backward()
    assert made.conv.weight.grad.isfinite().all()


def test_checkpoints_give_the_same_gradients_or_are_refused() -> None:
    class Saving(nn.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.other, self.options = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), options

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return mean(checkpoint(self.other, x, **self.options) if self.options else self.other(x))

    glimpse, gradients = look(), []
    for options in ({}, {"use_reentrant": False}):
        made = foveate(Saving(**options))
        made(glimpse).square().sum().backward()
        gradients.append([value.grad for value in made.parameters()])
    torch.testing.assert_close(*gradients)
    with pytest.raises(UnsupportedModule, match=r"CheckpointFunction.*use_reentrant=False"):
        foveate(Saving(use_reentrant=True))(glimpse)
