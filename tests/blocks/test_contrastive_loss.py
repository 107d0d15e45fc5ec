import math

import numpy as np
import pytest
import torch
from torch import nn

from foveal.blocks.registry import create_block

NO_MAPS = ("contrastive_loss",)


def embeddings(batch=5, width=7, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(batch, width, dtype=dtype), torch.randn(batch, width, dtype=dtype)


def by_hand(pictures, texts, temperature):
    pictures = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    total = 0.0
    for one, other in ((pictures, texts), (texts, pictures)):
        for row in range(len(one)):
            logits = other @ one[row] / temperature
            total += np.log(np.exp(logits).sum()) - logits[row]
    return total / (2 * len(pictures))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_it_is_the_mean_of_both_cross_entropies(temperature):
    pictures, texts = embeddings()
    found = create_block("contrastive_loss", temperature=temperature).double()(pictures, texts)
    assert found.shape == ()
    assert found.item() == pytest.approx(by_hand(pictures.numpy(), texts.numpy(), temperature), rel=1e-6)


def test_it_is_the_loss_of_clip_in_transformers():
    transformers = pytest.importorskip("transformers")
    narrow = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**narrow, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19}
    vision = {**narrow, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    torch.manual_seed(0)
    clip = transformers.CLIPModel(config).eval()
    said = clip(torch.randint(0, 20, (5, 6)), torch.rand(5, 3, 8, 8), return_loss=True)
    block = create_block("contrastive_loss", temperature=1 / clip.logit_scale.exp().item())
    torch.testing.assert_close(block(said.image_embeds, said.text_embeds), said.loss)


def test_gradients_are_right_for_both_and_for_the_temperature():
    block = create_block("contrastive_loss", temperature=0.3).double()
    given = [x.requires_grad_() for x in embeddings(3, 4)]
    assert torch.autograd.gradcheck(lambda *x: block(*x[:2]), (*given, block.log_sharpness))


def test_it_compiles_in_one_graph():
    torch._dynamo.reset()
    block, given = create_block("contrastive_loss"), embeddings(dtype=torch.float32)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), block(*given))


@pytest.mark.full
def test_onnx_runtime_gives_the_same(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    block, given = create_block("contrastive_loss").eval(), embeddings(dtype=torch.float32)
    torch.onnx.export(block, given, dynamo=True, verbose=False).save(tmp_path / "loss.onnx")
    session = runtime.InferenceSession(tmp_path / "loss.onnx")
    (found,) = session.run(None, {n.name: x.numpy() for n, x in zip(session.get_inputs(), given, strict=True)})
    np.testing.assert_allclose(found, block(*given).detach().numpy(), rtol=1e-5)


def test_its_only_parameter_is_the_temperature_and_stays_in_its_range():
    block = create_block("contrastive_loss", temperature=0.07)
    assert [p.numel() for p in block.parameters()] == [1]
    assert block.temperature.item() == pytest.approx(0.07)
    block.log_sharpness.data.fill_(50.0)
    assert block.temperature.item() == pytest.approx(0.01)
    assert block(*embeddings(dtype=torch.float32)).isfinite()
    fixed = create_block("contrastive_loss", learnable=False)
    assert not any(p.requires_grad for p in fixed.parameters())


def test_training_brings_pairs_together():
    torch.manual_seed(0)
    one, other = nn.Linear(6, 4), nn.Linear(6, 4)
    block = create_block("contrastive_loss")
    x = torch.randn(8, 6)
    tuned = torch.optim.Adam([*one.parameters(), *other.parameters(), *block.parameters()], 0.02)
    first = block(one(x), other(x)).item()
    for _ in range(150):
        tuned.zero_grad()
        loss = block(one(x), other(x))
        loss.backward()
        tuned.step()
    assert loss.item() < 0.3 * first
    assert first > 0.5 * math.log(8)
    found = nn.functional.normalize(one(x)) @ nn.functional.normalize(other(x)).T
    assert found.argmax(1).tolist() == found.argmax(0).tolist() == list(range(8))


def test_half_precision_is_worked_out_in_single():
    pictures, texts = embeddings(dtype=torch.float32)
    found = create_block("contrastive_loss")(pictures.bfloat16(), texts.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, create_block("contrastive_loss")(pictures, texts), rtol=0.05, atol=0.05)


def test_autocast_does_not_round_the_products():
    pictures, texts = embeddings(dtype=torch.float32)
    block = create_block("contrastive_loss", temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(pictures, texts)
    assert torch.equal(found, block(pictures, texts))


@pytest.mark.parametrize("start", [-math.log(0.01), 6.0])
def test_the_temperature_is_learned_from_its_least_on(start):
    torch.manual_seed(0)
    block = create_block("contrastive_loss", temperature=0.01)
    block.log_sharpness.data.fill_(start)
    tuned = torch.optim.Adam(block.parameters(), 0.1)
    for _ in range(40):  # no text is that of its picture: a sharp loss is a large one
        tuned.zero_grad()
        block(*embeddings(dtype=torch.float32)).backward()
        assert block.log_sharpness.grad > 0
        tuned.step()
    assert block.temperature > 0.02


@pytest.mark.parametrize("temperature", [0, -1, 0.001, math.inf, math.nan])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        create_block("contrastive_loss", temperature=temperature)


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((3,), (3,)), ((0, 3), (0, 3))])
def test_embeddings_of_unlike_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected \(B, D\) twice"):
        create_block("contrastive_loss")(*(torch.rand(shape) for shape in shapes))
