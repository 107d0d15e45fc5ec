from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEXTS, save_pictures
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from foveal.models import MultiModalTransformer, MultiModalTransformerConfig
from foveal.models.processing import glimpse_tensors, labels_of
from foveal.retina import Retina
from foveal.training.caption_steps import CaptionSteps
from foveal.training.self_critical import Rewards, SelfCritical
from foveal.training.vocabulary import train_vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_vocabulary(TEXTS * 3, size=330, languages=["en", "zh"])


@pytest.fixture
def captions(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> CaptionSteps:
    """Two pictures with a caption in each language."""
    files = save_pictures(tmp_path / "pictures", 2)
    records = [
        {"image": str(file), "language": language, "texts": [TEXTS[number + 2 * (language == "zh")]]}
        for number, file in enumerate(files)
        for language in ("en", "zh")
    ]
    return CaptionSteps(records, tokenizer, languages=["en", "zh"], longest=40)


@pytest.fixture
def model() -> MultiModalTransformer:
    torch.manual_seed(0)
    config = MultiModalTransformerConfig(
        vocab_size=30, backbone="nano", dim=32, heads=2, encoder_layers=1, decoder_layers=1, feedforward=64, dropout=0.5
    )
    return MultiModalTransformer(config)


@pytest.fixture
def looks() -> dict[str, Tensor]:
    """Three pictures, two prompts for each."""
    glimpse = Retina(size=32, levels=2)(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    inputs = {**glimpse_tensors(glimpse), "input_ids": torch.tensor([[3], [4]] * 3)}
    return {**inputs, "rows": torch.tensor([4, 0, 2])}


class Told:
    """Rewards that are told beforehand; remembers what was drawn."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.drawn = reward, torch.empty(0)

    def __call__(self, texts: Tensor, rows: Sequence[int]) -> Tensor:
        self.drawn, self.rows = texts, rows
        return self.reward(texts) if callable(self.reward) else self.reward


# ---- rewards --------------------------------------------------------------------------------------------------------


def rows_of(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, end: bool = True) -> Tensor:
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = labels_of([row + [tokenizer.eos_token_id] * end for row in tokens])
    return rows.masked_fill(rows == -100, tokenizer.pad_token_id)


def test_what_a_person_wrote_in_that_language_is_worth_most(
    captions: CaptionSteps, tokenizer: PreTrainedTokenizerBase
) -> None:
    rewards = Rewards(captions, tokenizer)
    own = rewards(rows_of(tokenizer, [TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[3]]), [0, 1])
    torch.testing.assert_close(own, torch.full((4,), 10.0))
    assert rewards(rows_of(tokenizer, [TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[3]]), [1, 0]).max() < 3
    assert rewards(rows_of(tokenizer, [TEXTS[2], TEXTS[0]]), [0]).max() < 1


def test_several_texts_of_a_prompt_stand_in_a_row(captions: CaptionSteps, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[3]]
    first, second, third, fourth = Rewards(captions, tokenizer)(rows_of(tokenizer, texts), [0]).tolist()
    assert first == third == pytest.approx(10)
    assert max(second, fourth) < 3


def test_a_text_that_does_not_end_is_worth_less_and_what_follows_its_end_counts_for_nothing(
    captions: CaptionSteps, tokenizer: PreTrainedTokenizerBase
) -> None:
    rewards = Rewards(captions, tokenizer)
    whole = rows_of(tokenizer, [TEXTS[0], TEXTS[2]])
    cut = rows_of(tokenizer, [TEXTS[0], TEXTS[2]], end=False)
    more = torch.cat([whole, cut], 1)
    assert bool((rewards(cut, [0]) < rewards(whole, [0])).all())
    assert torch.equal(rewards(more, [0]), rewards(whole, [0]))


# ---- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_advantage_times_the_surprise_of_every_token_that_was_chosen(
    model: MultiModalTransformer, looks: dict[str, Tensor]
) -> None:
    rewards = torch.rand(18, generator=torch.Generator().manual_seed(1))
    told = Told(rewards)
    task = SelfCritical(model, told, samples=3, longest=9).train()  # type: ignore[arg-type]

    out = task(**looks)

    drawn, end = told.drawn, model.config.eos_token_id
    assert drawn.shape[0] == 18
    assert drawn.shape[1] <= 9
    assert told.rows == [4, 0, 2]
    labels = drawn.clone()
    for row in labels:
        ends = (row == end).nonzero()
        if len(ends):
            row[int(ends[0]) + 1 :] = -100
    inputs = {name: value for name, value in looks.items() if name != "rows"}
    logits = model.eval()(**inputs, labels=labels).logits
    surprise = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    groups = rewards.view(6, 3)
    advantage = groups - torch.stack([(groups.sum(1) - groups[:, i]) / 2 for i in range(3)], 1)
    expected = (surprise.sum(1) * advantage.flatten()).sum() / (labels != -100).sum()
    torch.testing.assert_close(out["loss"], expected)
    torch.testing.assert_close(out["reward"], rewards.mean())


def test_texts_that_are_all_worth_the_same_teach_nothing(
    model: MultiModalTransformer, looks: dict[str, Tensor]
) -> None:
    loss = SelfCritical(model, Told(torch.full((12,), 0.7)), samples=2, longest=5)(**looks)["loss"]  # type: ignore[arg-type]
    loss.backward()
    assert max(float(value.grad.abs().max()) for value in model.parameters() if value.grad is not None) < 1e-6


def test_what_is_rewarded_becomes_likelier(model: MultiModalTransformer, looks: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    told = Told(lambda texts: (texts == 7).float().mean(1))
    task = SelfCritical(model, told, samples=4, longest=6).train()  # type: ignore[arg-type]
    learning = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(learning, 3e-3)
    rewards = []
    for _ in range(20):
        out = task(**looks)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        rewards.append(float(out["reward"]))
    assert rewards[0] < 0.1
    assert min(rewards[-5:]) > 0.6


def test_nothing_is_dropped_out_and_the_backbone_stays(model: MultiModalTransformer, looks: dict[str, Tensor]) -> None:
    task = SelfCritical(model, Told(torch.rand(12)), samples=2, longest=5)  # type: ignore[arg-type]
    task.train()
    assert not any(module.training for module in task.modules())
    task(**looks)["loss"].backward()
    seeing = [value.grad for name, value in model.named_parameters() if name.startswith("encoder.backbone.")]
    assert seeing == [None] * len(seeing)
    assert model.encoder.tokenizer.project.weight.grad is not None


def test_one_sample_has_nothing_to_be_measured_against(model: MultiModalTransformer) -> None:
    with pytest.raises(ValueError, match="samples is 1; at least 2"):
        SelfCritical(model, Told(0), samples=1)  # type: ignore[arg-type]


def test_in_half_precision_the_decoder_learns_too(model: MultiModalTransformer, looks: dict[str, Tensor]) -> None:
    task = SelfCritical(model, Told(torch.rand(12)), samples=2, longest=5)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(**looks)["loss"]
    loss.backward()
    learning = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    assert [name for name, value in learning if value.grad is None] == []
    assert all(float(value.grad.abs().max()) > 0 for name, value in learning if "decoder" in name and "weight" in name)
