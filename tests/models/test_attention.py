import pytest
import torch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from foveal.models.attention import Attention


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(16, 4, layer=0).eval()


def torchs_own(attention: Attention) -> nn.MultiheadAttention:
    """PyTorch's module with the same weights."""
    parts = attention.query, attention.key, attention.value
    module = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        module.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        module.out_proj.load_state_dict(attention.out.state_dict())
    return module


def test_equals_torchs_own_attention_to_itself_and_to_a_context(attention: Attention) -> None:
    x, context = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    module = torchs_own(attention)

    torch.testing.assert_close(attention(x), module(x, x, x)[0])
    torch.testing.assert_close(attention(x, context), module(x, context, context)[0])


def test_causal_attention_sees_nothing_that_comes_later(attention: Attention) -> None:
    x = torch.randn(1, 6, 16)
    changed = torch.cat([x[:, :3], torch.randn(1, 3, 16)], 1)

    torch.testing.assert_close(attention(x, causal=True)[:, :3], attention(changed, causal=True)[:, :3])
    assert not torch.allclose(attention(x)[:, :3], attention(changed)[:, :3])


def test_masked_places_count_as_if_they_were_not_there(attention: Attention) -> None:
    x, context = torch.randn(2, 3, 16), torch.randn(2, 7, 16)
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[0, ..., 4:] = False

    seen = attention(x, context, mask=mask)

    torch.testing.assert_close(seen[:1], attention(x[:1], context[:1, :4]))
    torch.testing.assert_close(seen[1:], attention(x[1:], context[1:]))


@pytest.mark.parametrize("half", [False, True])
def test_training_it_under_autocast_gives_the_gradients_of_full_precision(attention: Attention, half: bool) -> None:
    x = torch.randn(2, 6, 16)
    mask = torch.rand(2, 1, 6, 6) < 0.7
    mask |= torch.eye(6, dtype=torch.bool)

    def gradient(half: bool) -> torch.Tensor:
        attention.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            result = attention(x, mask=mask)
        assert result.dtype == (torch.bfloat16 if half else torch.float32)
        result.float().square().sum().backward()
        assert attention.query.weight.grad is not None
        return attention.query.weight.grad.clone()

    expected, given = gradient(False), gradient(half)
    assert float((given - expected).norm() / expected.norm()) < (0.03 if half else 1e-6)


def test_with_a_cache_step_by_step_equals_all_at_once(attention: Attention) -> None:
    x = torch.randn(2, 5, 16)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    steps = [attention(x[:, step : step + 1], cache=cache) for step in range(5)]

    torch.testing.assert_close(torch.cat(steps, 1), attention(x, causal=True))


def test_keys_of_a_context_are_worked_out_once(attention: Attention) -> None:
    x, context = torch.randn(2, 3, 16), torch.randn(2, 7, 16)
    cache, calls = EncoderDecoderCache(DynamicCache(), DynamicCache()), []
    attention.key.register_forward_hook(lambda *_: calls.append(1))

    steps = [attention(x[:, step : step + 1], context, cache=cache) for step in range(3)]

    assert len(calls) == 1
    torch.testing.assert_close(torch.cat(steps, 1), attention(x, context))


def test_gradients_are_those_of_differences() -> None:
    attention = Attention(4, 2).double()
    x, context = (torch.randn(1, n, 4, dtype=torch.double, requires_grad=True) for n in (2, 3))

    torch.autograd.gradcheck(attention, (x, context))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        Attention(16, 3)
