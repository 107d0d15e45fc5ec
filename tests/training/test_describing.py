import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.models import MultiModalTransformer, MultiModalTransformerConfig
from foveal.models.processing import glimpse_tensors
from foveal.retina import Retina
from foveal.training.describing import Describing


@pytest.fixture
def model() -> MultiModalTransformer:
    torch.manual_seed(0)
    config = MultiModalTransformerConfig(
        vocab_size=50, backbone="nano", dim=32, heads=2, encoder_layers=1, decoder_layers=2, feedforward=64, dropout=0.0
    )
    return MultiModalTransformer(config).eval()


@pytest.fixture
def looks() -> dict[str, Tensor]:
    """Three pictures, two prompts for each."""
    glimpse = Retina(size=32, levels=2)(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    return {**glimpse_tensors(glimpse), "input_ids": torch.tensor([[3], [4]] * 3)}


@pytest.fixture
def labels() -> Tensor:
    """Two texts for each prompt, of 1 to 12 tokens."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(5, 50, (12, 12), generator=generator)
    for row, length in enumerate((12, 3, 7, 1, 5, 5, 9, 2, 4, 11, 6, 8)):
        labels[row, length:] = -100
    return labels


def gradients(model: MultiModalTransformer, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("buckets", [1, 4, 50])
def test_the_loss_in_buckets_is_that_of_the_model_and_so_are_the_gradients(
    buckets: int, model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor
) -> None:
    expected = model(**looks, labels=labels).loss
    loss = Describing(model, buckets=buckets)(labels=labels, **looks)["loss"]

    torch.testing.assert_close(loss, expected)
    wanted = gradients(model, expected)
    given = gradients(model, Describing(model, buckets=buckets)(labels=labels, **looks)["loss"])
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(given[name], value, atol=1e-6, rtol=1e-3)


def test_smoothing_is_torchs_own(model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor) -> None:
    logits = model(**looks, labels=labels).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)

    loss = Describing(model, smoothing=0.1)(labels=labels, **looks)["loss"]

    torch.testing.assert_close(loss, expected)
    assert not torch.allclose(loss, model(**looks, labels=labels).loss)
    wanted, given = (
        gradients(model, expected),
        gradients(model, Describing(model, smoothing=0.1)(labels, **looks)["loss"]),
    )
    for name, value in wanted.items():
        torch.testing.assert_close(given[name], value, atol=1e-6, rtol=1e-3)


def test_labels_that_are_not_counted_may_stand_anywhere(
    model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor
) -> None:
    labels[0, 2] = labels[2, 0] = -100
    labels[5] = -100

    torch.testing.assert_close(Describing(model)(labels, **looks)["loss"], model(**looks, labels=labels).loss)


def test_pictures_are_looked_at_once_and_short_texts_are_not_padded_to_the_longest(
    model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor
) -> None:
    seen, decoded, predicted = [], [], []
    model.encoder.backbone.register_forward_hook(lambda *_: seen.append(1))
    model.decoder.norm.register_forward_hook(lambda module, inputs, output: decoded.append(output.shape[:2].numel()))
    model.head.register_forward_hook(lambda module, inputs, output: predicted.append(len(output)))

    Describing(model, buckets=4)(labels, **looks)

    assert seen == [1]
    assert sum(decoded) < 0.7 * labels.numel()
    assert sum(predicted) == int((labels != -100).sum())


def test_nothing_to_learn_is_refused(model: MultiModalTransformer, looks: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(6, 3\) are all -100"):
        Describing(model)(torch.full((6, 3), -100), **looks)


def test_texts_that_do_not_share_out_over_the_prompts_are_refused(
    model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor
) -> None:
    with pytest.raises(ValueError, match="11 texts for 6 pictures"):
        Describing(model)(labels[:11], **looks)


def test_tied_weights_are_kept_once_and_all_come_back(model: MultiModalTransformer) -> None:
    task = Describing(model)
    state = task.state_dict()
    storages = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(storages)) == len(storages)

    torch.manual_seed(1)
    other = Describing(MultiModalTransformer(model.config))
    other.load_state_dict({name: value.clone() for name, value in state.items()})

    assert other.model.head.weight is other.model.embed.weight is other.model.encoder.embed.weight
    for name, value in model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name


def test_a_backbone_that_does_not_learn_keeps_its_statistics(
    model: MultiModalTransformer, looks: dict[str, Tensor], labels: Tensor
) -> None:
    task = Describing(model)
    before = {name: value.clone() for name, value in model.encoder.backbone.state_dict().items()}

    model.encoder.backbone.requires_grad_(False)
    task.train()(labels, **looks)["loss"].backward()
    assert all(torch.equal(before[name], value) for name, value in model.encoder.backbone.state_dict().items())
    assert model.decoder.training

    model.encoder.backbone.requires_grad_(True)
    task.train()(labels, **looks)
    after = model.encoder.backbone.state_dict()
    assert not torch.equal(before["stem_norm.running_mean"], after["stem_norm.running_mean"])
