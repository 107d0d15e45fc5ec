import copy

import pytest
import torch
from torch import nn

from foveal.blocks.kept_norm import norm_kept
from foveal.blocks.slim import SlimNorm2d, Split, split
from foveal.layout import Layout
from foveal.retina import Retina


def case(*, dtype: torch.dtype = torch.float64) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator)
        norm.bias.uniform_(-1, 1, generator=generator)
    x = torch.randn(3, 5, 4, 6, generator=generator, dtype=torch.float64) * 2 + 3
    kept = torch.rand(3, 4, 6, generator=generator) < 0.6
    x = x.permute(0, 2, 3, 1).masked_fill(~kept[..., None], 50.0).permute(0, 3, 1, 2)
    return norm.to(dtype), x.to(dtype).contiguous(memory_format=torch.channels_last), kept


def test_kept_cells_are_normalised_as_if_there_were_no_others() -> None:
    norm, x, kept = case()
    alone = copy.deepcopy(norm)

    result = norm_kept(norm, x, kept)
    expected = alone(x.permute(0, 2, 3, 1)[kept][:, :, None, None])[..., 0, 0]

    torch.testing.assert_close(result.permute(0, 2, 3, 1)[kept], expected)
    for name, value in alone.named_buffers():
        torch.testing.assert_close(dict(norm.named_buffers())[name], value)


def test_all_cells_are_normalised_by_the_same_statistics() -> None:
    norm, x, kept = case()
    rows = x.permute(0, 2, 3, 1)[kept]
    var, mean = torch.var_mean(rows, 0, correction=0)
    expected = nn.functional.batch_norm(x, mean, var, norm.weight, norm.bias, eps=norm.eps)
    torch.testing.assert_close(norm_kept(norm, x, kept), expected)


def test_its_gradients_are_those_of_the_formula() -> None:
    norm, x, kept = case()
    x.requires_grad_()

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        module = copy.deepcopy(norm)
        del module.weight, module.bias
        module.weight, module.bias = weight, bias  # type: ignore[assignment]
        return norm_kept(module, x, kept)

    assert torch.autograd.gradcheck(run, (x, norm.weight, norm.bias))


def test_an_earlier_pass_over_all_cells_can_still_be_gone_back_through() -> None:
    norm, x, kept = case()
    x.requires_grad_()
    both = norm(x).square().sum() + norm_kept(norm, x, kept).square().sum()
    both.backward()
    together, x.grad = x.grad, None
    for one in (norm(x), norm_kept(norm, x, kept)):
        one.square().sum().backward()
    torch.testing.assert_close(x.grad, together)


def test_half_precision_stays_half_precision() -> None:
    norm, x, kept = case(dtype=torch.float32)
    half = x.bfloat16()
    expected = norm_kept(copy.deepcopy(norm), half.float(), kept)
    result = norm_kept(norm, half.requires_grad_(), kept)
    result.float().square().sum().backward()
    assert result.dtype == half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, atol=0.05, rtol=0.01)


def test_too_few_cells_are_refused() -> None:
    norm, x, kept = case()
    kept = kept & False
    with pytest.raises(ValueError, match="at least 2 cells inside a picture, here are 0"):
        norm_kept(norm, x, kept)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_a_training_network_does_not_count_what_lies_beside_the_picture(width: float) -> None:
    layout = Layout.foveal(picture=(40, 200), size=16, levels=4)
    inside = layout.inside(4)[0]
    assert not bool(inside.all())
    x = torch.randn(4, 6, 4, 4)
    norm = SlimNorm2d(6, width=width)

    def run(x: torch.Tensor) -> None:
        if width == 1:
            norm(x, layout)
        else:
            parts = split(x, layout)
            norm(Split(parts.fine, parts.coarse[:, :3]), layout)

    run(x)
    seen = norm if width == 1 else norm.periphery
    assert seen is not None
    before = seen.running_mean.clone()
    rows = x.permute(0, 2, 3, 1)[inside] if width == 1 else x[1:, :3].permute(0, 2, 3, 1)[inside[1:]]
    torch.testing.assert_close(before, 0.1 * rows.mean(0))
    for module in (norm, norm.periphery):
        if module is not None:
            module.reset_running_stats()
    run(torch.where(inside[:, None], x, 1e6))
    torch.testing.assert_close(seen.running_mean, before)


def test_where_all_cells_lie_inside_it_is_torchs_own() -> None:
    glimpse = Retina(size=16, levels=2)(torch.rand(3, 32, 32))
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(SlimNorm2d(6)(x, glimpse.layout), nn.BatchNorm2d(6)(x))
    assert torch.equal(SlimNorm2d(6).eval()(x, glimpse.layout), nn.BatchNorm2d(6).eval()(x))


@pytest.mark.full
def test_compiled_it_is_the_same_and_without_a_graph_break() -> None:
    torch._dynamo.reset()
    norm, x, kept = case(dtype=torch.float32)
    other = copy.deepcopy(norm)
    x.requires_grad_()
    expected = norm_kept(norm, x, kept)
    gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    result = torch.compile(norm_kept, fullgraph=True, backend="aot_eager")(other, x, kept)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(result.square().sum(), x)[0], gradient, rtol=1e-3, atol=1e-3)
    for name, value in norm.named_buffers():
        torch.testing.assert_close(dict(other.named_buffers())[name], value, rtol=1e-4, atol=1e-5)


def test_a_width_that_no_window_has_is_left_alone() -> None:
    layout = Layout.windows(picture=(40, 200), size=16, windows=[(2, 0, 0), (1, 0, 0)])
    assert not bool(layout.inside(4).all())
    norm = SlimNorm2d(6, width=0.5)
    parts = split(torch.randn(2, 6, 4, 4), layout)
    norm(Split(parts.fine, parts.coarse[:, :3]), layout)
    assert norm.periphery is not None
    assert torch.equal(norm.running_mean, torch.zeros(6))
    assert not torch.equal(norm.periphery.running_mean, torch.zeros(3))
