import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)
from transformers.cache_utils import DynamicCache

from foveal.models import GlimpseProcessor, MultiModalProcessor, MultiModalTransformer
from foveal.models.encoder import Encoder, glimpse_of
from foveal.models.multimodal import CACHE
from foveal.retina import Retina

PROMPTS = ["lang=en", "a dog on the grass", "lang=zh"]


def some_labels(rows: int, length: int = 6) -> Tensor:
    return torch.randint(5, 300, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def inputs(processor: MultiModalProcessor, pictures: list[Tensor]) -> BatchFeature:
    """Three pictures of unlike windows and tokens, prompts of unlike lengths."""
    return processor(pictures, PROMPTS, levels="auto")


@pytest.fixture
def saved(tmp_path: Path, model: MultiModalTransformer, processor: MultiModalProcessor) -> Path:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def alone(processor: MultiModalProcessor, pictures: list[Tensor], row: int) -> BatchFeature:
    return processor(pictures[row], PROMPTS[row], levels="auto")


# ---- what is read, and what is not ----------------------------------------------------------------------------------


def test_the_text_to_be_predicted_never_enters_the_encoder(model: MultiModalTransformer, inputs: BatchFeature) -> None:
    first, second = model(**inputs, labels=some_labels(3)), model(**inputs, labels=some_labels(3).flip(1))

    assert torch.equal(first.encoder_last_hidden_state, second.encoder_last_hidden_state)
    assert not torch.equal(first.logits, second.logits)


def test_a_token_is_predicted_from_those_before_it_alone(model: MultiModalTransformer, inputs: BatchFeature) -> None:
    labels = some_labels(3)
    changed = labels.clone()
    changed[:, 3] += 1

    logits, others = model(**inputs, labels=labels).logits, model(**inputs, labels=changed).logits

    torch.testing.assert_close(logits[:, :4], others[:, :4])  # the fourth prediction is that of the changed label
    assert (logits[:, 4:] - others[:, 4:]).abs().amax((1, 2)).min() > 1e-3


def test_picture_and_prompt_both_change_what_is_predicted(
    model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    def logits(picture: Tensor, prompt: str) -> Tensor:
        return model(**processor(picture, prompt), labels=some_labels(1)).logits

    here = logits(pictures[0], "lang=en")
    assert (here - logits(pictures[1], "lang=en")).abs().max() > 1e-3
    assert (here - logits(pictures[0], "lang=zh")).abs().max() > 1e-3


def test_the_encoder_tells_image_tokens_from_prompt_tokens(make_model: Callable[..., MultiModalTransformer]) -> None:
    encoder = make_model(encoder_layers=0).encoder
    tokens, prompt = torch.randn(1, 3, 32), torch.tensor([[5, 6]])
    before = encoder(prompt, image_tokens=tokens).last_hidden_state

    with torch.no_grad():
        encoder.modality.weight[1] += torch.randn(32)
    after = encoder(prompt, image_tokens=tokens).last_hidden_state

    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax(2).min() > 1e-3


def test_a_picture_in_a_batch_gives_the_logits_that_it_gives_alone(
    model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    labels = some_labels(3)
    for side in ("right", "left"):
        processor.tokenizer.padding_side = side
        batch = processor(pictures, PROMPTS, levels="auto")
        assert not bool(batch["attention_mask"].all()), "no prompt is padded, which would show nothing"
        assert not bool(batch["window_valid"].all()), "no window is missing, which would show nothing"
        logits = model(**batch, labels=labels).logits
        for row in range(3):
            expected = model(**alone(processor, pictures, row), labels=labels[row : row + 1]).logits
            torch.testing.assert_close(logits[row : row + 1], expected, atol=1e-5, rtol=1e-4)
    processor.tokenizer.padding_side = "right"


@pytest.mark.parametrize("how", [{"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2, "num_beams": 3}], ids=str)
def test_a_picture_in_a_batch_gets_the_text_that_it_gets_alone(
    how: dict[str, int], model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    texts = model.generate(**processor(pictures, PROMPTS, levels="auto"), **how)

    assert len({tuple(text) for text in texts.tolist()}) == 3, "texts that are alike show nothing"
    for row in range(3):
        expected = model.generate(**alone(processor, pictures, row), **how)[0]
        assert texts[row, : len(expected)].tolist() == expected.tolist()


def test_padding_of_a_text_changes_nothing_before_it(model: MultiModalTransformer, inputs: BatchFeature) -> None:
    labels = some_labels(3)
    padded = torch.cat([labels, torch.full((3, 4), -100)], 1)

    short, long = model(**inputs, labels=labels), model(**inputs, labels=padded)

    torch.testing.assert_close(long.logits[:, :6], short.logits)
    torch.testing.assert_close(long.loss, short.loss)


def test_masked_tokens_of_a_text_are_not_looked_at(model: MultiModalTransformer, inputs: BatchFeature) -> None:
    ids = some_labels(3)
    mask = torch.ones_like(ids)
    mask[:, 2] = 0
    changed = ids.clone()
    changed[:, 2] += 1

    logits, others = (
        model(**inputs, decoder_input_ids=given, decoder_attention_mask=mask).logits for given in (ids, changed)
    )

    torch.testing.assert_close(logits[:, 3:], others[:, 3:])
    assert not torch.allclose(logits[:, 3:], model(**inputs, decoder_input_ids=ids).logits[:, 3:])


def test_one_window_of_224_is_the_plain_dense_model_in_the_same_code(model: MultiModalTransformer) -> None:
    glimpse = Retina(size=224, levels=1)(torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0)))
    layout = glimpse.layout

    dense = model(pixel_values=glimpse.pixels, labels=some_labels(1))
    same = model(
        pixel_values=glimpse.pixels,
        window_origins=layout.origins,
        window_levels=layout.levels,
        picture_sizes=layout.pictures,
        labels=some_labels(1),
    )

    assert dense.encoder_last_hidden_state.shape == (1, 196, 32)
    assert torch.equal(dense.logits, same.logits)


# ---- one look for several prompts and texts -------------------------------------------------------------------------


def test_texts_of_one_picture_share_a_look_and_cost_what_each_costs(
    model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    looks = []
    handle = model.encoder.backbone.register_forward_hook(lambda *_: looks.append(1))
    inputs = processor(pictures[:2], text=None)
    prompts = torch.tensor([[3], [4]] * 2)  # English and Chinese for each of two pictures
    labels = some_labels(8)  # two texts for each prompt
    labels[1, 4:] = labels[6, 2:] = -100

    together = model(**inputs, input_ids=prompts, labels=labels)
    assert len(looks) == 1
    handle.remove()

    total = torch.zeros(())
    for row in range(8):
        one = {name: value[row // 4 : row // 4 + 1] for name, value in inputs.items()}
        kept = labels[row : row + 1, : int((labels[row] != -100).sum())]
        single = model(**one, input_ids=prompts[row // 2 : row // 2 + 1], labels=kept)
        torch.testing.assert_close(together.logits[row : row + 1, : kept.shape[1]], single.logits, atol=1e-5, rtol=1e-4)
        total = total + single.loss * kept.numel()
    torch.testing.assert_close(together.loss, total / (labels != -100).sum())


def test_the_loss_is_the_mean_cross_entropy_of_what_is_labelled(
    model: MultiModalTransformer, inputs: BatchFeature
) -> None:
    labels = some_labels(3)
    labels[0, 2] = labels[1, 4:] = -100

    output = model(**inputs, labels=labels)

    chances = output.logits.log_softmax(-1)
    told = [-chances[row, place, labels[row, place]] for row, place in (labels != -100).nonzero().tolist()]
    torch.testing.assert_close(output.loss, torch.stack(told).mean())


def test_gradient_reaches_every_parameter(
    make_model: Callable[..., MultiModalTransformer], inputs: BatchFeature
) -> None:
    model = make_model(dropout=0.0).train()

    model(**inputs, labels=some_labels(3)).loss.backward()

    without = [name for name, value in model.named_parameters() if value.grad is None or not bool(value.grad.any())]
    # A bias before a softmax over keys shifts all scores alike.
    assert [name for name in without if not name.endswith("key.bias")] == []


# ---- caches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 3},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "num_beams": 3},
    ],
    ids=str,
)
def test_cached_text_equals_uncached(
    how: dict[str, object], model: MultiModalTransformer, inputs: BatchFeature
) -> None:
    # Texts that vary, and end at a token that one of them holds, so that rows of the batch end at unlike lengths.
    end = model.generate(**inputs, no_repeat_ngram_size=2)[1, 6].item()
    stop = {"eos_token_id": end, "max_new_tokens": 16, "no_repeat_ngram_size": 2}

    torch.manual_seed(3)
    cached = model.generate(**inputs, **how, **stop)
    torch.manual_seed(3)
    rest = {name: value for name, value in how.items() if name != "cache_implementation"}
    uncached = model.generate(**inputs, **rest, **stop, use_cache=False)

    assert len(cached) == 3 * how.get("num_return_sequences", 1)
    assert len(cached.unique()) > 5, "texts of a few tokens show little"
    assert cached.tolist() == uncached.tolist()


def test_a_cache_handed_from_pass_to_pass_gives_the_logits_of_one_pass(
    model: MultiModalTransformer, inputs: BatchFeature
) -> None:
    ids = some_labels(3)
    whole = model(**inputs, decoder_input_ids=ids)

    for name, cache in ((CACHE, None), (CACHE, DynamicCache()), ("past_key_values", None), ("cache", DynamicCache())):
        parts = []
        for start, stop in ((0, 2), (2, 3), (3, 6)):
            output = model(**inputs, decoder_input_ids=ids[:, start:stop], use_cache=True, **{name: cache})
            cache = output[CACHE]
            parts.append(output.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole.logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="two names of the same"):
        model(**inputs, decoder_input_ids=ids, cache=cache, past_key_values=cache)


# ---- generating -----------------------------------------------------------------------------------------------------


def test_texts_are_as_long_as_the_model_can_write_and_no_longer(
    model: MultiModalTransformer, inputs: BatchFeature
) -> None:
    def length(**how: object) -> int:
        return model.generate(**inputs, eos_token_id=None, **how).shape[1]

    assert length() == 24
    assert length(max_new_tokens=500) == 24
    assert length(max_length=500) == 24
    assert length(generation_config=GenerationConfig(max_new_tokens=500)) == 24
    assert length(max_new_tokens=5) == 6
    assert length(max_length=5) == 5
    assert length(generation_config=GenerationConfig(max_length=5)) == 5
    assert length(decoder_input_ids=torch.full((3, 4), 9), max_new_tokens=500) == 24
    assert length(decoder_input_ids=torch.full((3, 4), 9), max_length=7) == 7


def test_a_length_that_was_asked_for_goes_before_the_models_own(
    make_model: Callable[..., MultiModalTransformer], inputs: BatchFeature, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model()
    model.generation_config.max_new_tokens = 12

    assert model.generate(**inputs, eos_token_id=None).shape[1] == 13
    assert model.generate(**inputs, eos_token_id=None, max_length=5).shape[1] == 5
    assert model.generate(**inputs, generation_config=GenerationConfig(max_length=5)).shape[1] == 5
    assert model.generate(**inputs, eos_token_id=None, max_new_tokens=7).shape[1] == 8
    assert caplog.messages == []


def test_a_text_that_was_begun_is_continued(model: MultiModalTransformer, inputs: BatchFeature) -> None:
    text = model.generate(**inputs, max_new_tokens=8)

    assert torch.equal(model.generate(**inputs, decoder_input_ids=text[:, :4], max_new_tokens=5), text)


def test_without_a_prompt_the_picture_is_read_alone(
    model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    looks = processor(pictures, text=None)

    texts = model.generate(**looks, max_new_tokens=3)

    start = torch.ones(3, 1, dtype=torch.int64)
    assert torch.equal(texts[:, 1], model(**looks, decoder_input_ids=start).logits[:, -1].argmax(-1))


def test_several_prompts_of_one_picture_are_each_answered(
    model: MultiModalTransformer, processor: MultiModalProcessor, pictures: list[Tensor]
) -> None:
    looks = processor(pictures[:2], text=None)

    texts = model.generate(**looks, input_ids=torch.tensor([[3], [4]] * 2), num_beams=2, max_new_tokens=6)

    one_by_one = [
        model.generate(**processor(picture, prompt), num_beams=2, max_new_tokens=6)[0].tolist()
        for picture in pictures[:2]
        for prompt in ("lang=en", "lang=zh")
    ]
    assert texts.tolist() == one_by_one


def test_text_streams_as_it_is_written(
    model: MultiModalTransformer,
    processor: MultiModalProcessor,
    pictures: list[Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs, tokenizer = processor(pictures[0]), processor.tokenizer
    expected = tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True)

    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
    thread = Thread(target=model.generate, kwargs={**inputs, "streamer": pieces})
    thread.start()
    streamed = list(pieces)
    thread.join()
    model.generate(**inputs, streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True))

    assert len(streamed) > 2
    assert "".join(streamed) == expected
    assert capsys.readouterr().out.rstrip("\n") == expected.rstrip("\n")


# ---- saving and loading ---------------------------------------------------------------------------------------------


def test_what_is_saved_loads_through_transformers_and_writes_the_same(
    saved: Path, model: MultiModalTransformer, inputs: BatchFeature, pictures: list[Tensor]
) -> None:
    loaded, processor = AutoModelForImageTextToText.from_pretrained(saved), AutoProcessor.from_pretrained(saved)

    assert type(loaded) is MultiModalTransformer
    assert type(processor) is MultiModalProcessor
    again = processor(pictures, PROMPTS, levels="auto")
    assert again.keys() == inputs.keys()
    assert all(torch.equal(again[name], inputs[name]) for name in inputs)
    assert torch.equal(loaded.generate(**again), model.generate(**inputs))


def test_tied_weights_are_saved_once_and_stay_tied(
    saved: Path, make_model: Callable[..., MultiModalTransformer]
) -> None:
    names = [name for name, value in load_file(saved / "model.safetensors").items() if value.shape == (320, 32)]
    assert names == ["embed.weight"]

    loaded = MultiModalTransformer.from_pretrained(saved)
    for model in (loaded, make_model()):
        assert model.head.weight is model.embed.weight is model.encoder.embed.weight is model.decoder.embed.weight


def test_a_half_precision_file_loads_in_full_precision(
    tmp_path: Path, make_model: Callable[..., MultiModalTransformer], inputs: BatchFeature
) -> None:
    half = make_model().half()
    half.save_pretrained(tmp_path)

    loaded = MultiModalTransformer.from_pretrained(tmp_path, dtype=torch.float32)

    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    state = half.state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype)), name
    assert loaded(**inputs, labels=some_labels(3)).loss.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predicts_what_full_precision_does(
    dtype: torch.dtype, make_model: Callable[..., MultiModalTransformer], inputs: BatchFeature
) -> None:
    model = make_model()
    full = model(**inputs, labels=some_labels(3)).loss

    half = model.to(dtype)(**inputs.to(dtype), labels=some_labels(3)).loss

    torch.testing.assert_close(half, full, atol=0.1, rtol=0)


def test_an_enlarged_vocabulary_stays_tied(make_model: Callable[..., MultiModalTransformer]) -> None:
    model = make_model()

    model.resize_token_embeddings(330, mean_resizing=False)

    assert model.encoder.embed.weight is model.decoder.embed.weight is model.head.weight
    assert model(pixel_values=torch.rand(1, 1, 3, 32, 32), labels=torch.tensor([[329, 2]])).logits.shape[-1] == 330


def test_the_pipeline_of_transformers_describes_one_picture_and_many(
    saved: Path, model: MultiModalTransformer, processor: MultiModalProcessor
) -> None:
    images = [Image.effect_noise((60, 50), 90).convert("RGB"), Image.effect_noise((40, 100), 60).convert("RGB")]
    images[0].save(saved / "picture.png")
    expected = [
        processor.decode(model.generate(**processor(image, prompt))[0], skip_special_tokens=True)
        for image, prompt in zip(images, ["lang=en", "lang=zh"], strict=True)
    ]
    describe = pipeline("image-text-to-text", model=str(saved))

    one = describe(images[0], text="lang=en", return_full_text=False)
    many = describe(images, text=["lang=en", "lang=zh"], return_full_text=False)
    file = describe(str(saved / "picture.png"), text="lang=en", return_full_text=False)
    short = describe(images[0], text="lang=en", return_tensors=True, max_new_tokens=4)

    assert [item["generated_text"].strip() for item in (*one, *many)] == [expected[0], *expected]
    assert file[0]["generated_text"] == one[0]["generated_text"]
    assert len(short[0]["generated_token_ids"]) == 5


IMPORTING = """
import importlib, importlib.metadata, importlib.util, logging, sys, warnings
warnings.simplefilter("error")
absent = sys.argv[1]
if absent:
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Absent())
    find, version = importlib.util.find_spec, importlib.metadata.version
    importlib.util.find_spec = lambda name, package=None: None if name == absent else find(name, package)
    def known(name):
        if name == absent:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)
    importlib.metadata.version = known
import foveal.models
importlib.reload(foveal.models)
for name in [name for name in sys.modules if name.partition(".")[0] == "foveal"]:
    del sys.modules[name]
import foveal.models
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
folder = sys.argv[2]
assert type(AutoProcessor.from_pretrained(folder)).__name__ == "MultiModalProcessor"
assert type(AutoImageProcessor.from_pretrained(folder)).__name__ == "GlimpseProcessor"
assert len(AutoTokenizer.from_pretrained(folder)) == 320
if absent:
    assert absent not in sys.modules
"""


@pytest.mark.parametrize("absent", [pytest.param("", marks=pytest.mark.full), "torchvision"])
def test_importing_registers_once_or_again_without_a_word(absent: str, saved: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, absent, str(saved)], capture_output=True, text=True, timeout=300, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- what cannot be done is refused ---------------------------------------------------------------------------------


def looks(**changes: Tensor | None) -> dict[str, Tensor]:
    """The tensors of two pictures, two windows each, some of them changed or left out."""
    given: dict[str, Tensor | None] = {
        "pixel_values": torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        "window_origins": torch.zeros(2, 2, 2, dtype=torch.int64),
        "window_levels": torch.tensor([[0, 1]] * 2),
        "window_valid": torch.ones(2, 2, dtype=torch.bool),
        "picture_sizes": torch.full((2, 2), 64),
        "fixations": torch.full((2, 1, 2), 0.5),
        "input_ids": torch.tensor([[3], [4]]),
        "labels": torch.tensor([[5, 2], [6, 2]]),
    }
    return {name: value for name, value in {**given, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values": None}, "needs pixel_values with their layout, or image_tokens"),
        ({"pixel_values": torch.rand(2, 3, 32, 32)}, r"shape \(2, 3, 32, 32\); expected \(B, K, 3, S, S\)"),
        ({"pixel_values": torch.rand(2, 2, 3, 32, 16)}, r"expected \(B, K, 3, S, S\)"),
        ({"window_origins": None}, r"2 window\(s\) came without window_origins; pass all"),
        ({"picture_sizes": None, "window_levels": None}, "came without window_levels, picture_sizes"),
        (
            {"pixel_values": torch.rand(2, 1, 3, 32, 32), "picture_sizes": None},
            r"1 window\(s\) came without picture_sizes",
        ),
        ({"window_levels": torch.tensor([[0, 1]])}, r"window_levels has shape \(1, 2\) .* expected \(2, 2\)"),
        ({"window_origins": torch.zeros(2, 3, 2).long()}, r"window_origins has shape \(2, 3, 2\)"),
        ({"window_valid": torch.ones(2, 1).bool()}, r"window_valid has shape \(2, 1\)"),
        ({"picture_sizes": torch.full((3, 2), 64)}, r"picture_sizes has shape \(3, 2\)"),
        ({"fixations": torch.full((2, 2), 0.5)}, r"fixations has shape \(2, 2\)"),
        ({"pixel_values": torch.rand(2, 2, 3, 24, 24)}, "windows of 24 cells are not a multiple of .* stride 16"),
        ({"input_ids": torch.tensor([[3], [4], [3]])}, "3 prompts for 2 pictures; expected the same number"),
        ({"labels": torch.tensor([[5, 2]] * 3)}, "3 texts for 2 pictures"),
        ({"labels": None}, "needs decoder_input_ids or labels"),
        ({"labels": torch.full((2, 25), 7)}, "a text of 25 tokens; at most 24 can be written"),
        ({"input_ids": torch.full((2, 25), 7)}, "a prompt of 25 tokens; this model reads at most 24"),
        ({"attention_mask": torch.ones(2, 2)}, r"attention_mask has shape \(2, 2\), input_ids \(2, 1\)"),
        ({"decoder_input_ids": torch.tensor([[5]] * 2)}, r"labels have shape \(2, 2\), decoder_input_ids \(2, 1\)"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused_in_words(
    changes: dict[str, Tensor | None], message: str, model: MultiModalTransformer
) -> None:
    assert model(**looks()).loss.isfinite()

    with pytest.raises(ValueError, match=message):
        model(**looks(**changes))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"decoder_input_ids": torch.full((3, 24), 7)}, "hold 25 tokens, and this model writes at most 24"),
        ({"decoder_input_ids": torch.full((3, 4), 7), "max_length": 5}, "max_length=5 leaves no room after the 5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 leaves no room"),
    ],
)
def test_a_text_without_room_is_refused(
    how: dict[str, object], message: str, model: MultiModalTransformer, inputs: BatchFeature
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs, **how)


def test_generating_from_nothing_is_refused(model: MultiModalTransformer) -> None:
    with pytest.raises(ValueError, match="needs pixel_values"):
        model.generate()


def test_a_tuple_is_given_to_those_who_ask_for_one(model: MultiModalTransformer) -> None:
    output = model(**looks(), return_dict=False)

    assert isinstance(output, tuple)
    assert torch.equal(output[1], model(**looks()).logits)


# ---- compiling and exporting ----------------------------------------------------------------------------------------


class Vision(nn.Module):
    """Backbone and tokens: all that looks."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        pixel_values: Tensor,
        window_origins: Tensor,
        window_levels: Tensor,
        window_valid: Tensor,
        picture_sizes: Tensor,
        fixations: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self.encoder.look(
            glimpse_of(pixel_values, window_origins, window_levels, window_valid, picture_sizes, fixations)
        )


def assert_same_tokens(given: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Equal where there are tokens; a graph of fixed shape has more places that only fill the batch."""
    count = expected[1].shape[1]
    assert torch.equal(given[1][:, :count], expected[1])
    assert not bool(given[1][:, count:].any())
    torch.testing.assert_close(given[0][given[1]], expected[0][expected[1]], atol=1e-5, rtol=1e-4)


@pytest.mark.full
@torch.no_grad()
def test_the_vision_side_compiles_into_one_graph_that_sees_the_same(
    make_model: Callable[..., MultiModalTransformer], pictures: list[Tensor]
) -> None:
    vision, processor = Vision(make_model().encoder).eval(), GlimpseProcessor(size=32, levels=2)
    torch.compiler.reset()
    compiled = torch.compile(vision, backend="aot_eager", fullgraph=True, dynamic=False)

    for fixation in ("center", (0.1, 0.9)):
        looks = processor(pictures[:2], fixation=fixation)
        assert_same_tokens(compiled(**looks), vision(**looks))


@pytest.mark.full
@torch.no_grad()
def test_the_vision_side_exports_to_onnx_and_sees_the_same_wherever_it_looks(
    tmp_path: Path, model: MultiModalTransformer, pictures: list[Tensor]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    vision, processor = Vision(model.encoder).eval(), GlimpseProcessor(size=32, levels=3)
    program = torch.onnx.export(vision, (), kwargs=dict(processor(pictures[:1])), dynamo=True, verbose=False)
    assert program is not None
    program.save(tmp_path / "vision.onnx")
    session = runtime.InferenceSession(tmp_path / "vision.onnx", providers=["CPUExecutionProvider"])

    for picture, fixation in ((pictures[0], "center"), (pictures[1], (0.1, 0.9)), (pictures[2], (1.0, 0.0))):
        looks = processor(picture, fixation=fixation)
        given = session.run(None, {name: value.numpy() for name, value in looks.items()})
        assert_same_tokens(tuple(map(torch.from_numpy, given)), vision(**looks))
