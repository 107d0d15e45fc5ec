"""A byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) trained on the captions: every language, one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from foveal.models.processing import language_prompt

PAD, START, END = "<pad>", "<s>", "</s>"
LONGEST = 12  # bytes in a piece: at most four Chinese characters, so that no phrase becomes a word of its own


def train_vocabulary(texts: Iterable[str], *, size: int, languages: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `size` pieces; it can spell any text, also in scripts that it never saw.

    Args:
        texts: to learn from.
        size: of the vocabulary; at least 259 and one for each language.
        languages: each gets a prompt token, "lang=en" and so on.

    Raises:
        ValueError: if the size leaves no room for the 256 bytes and the special tokens.

    Example:
        >>> tokenizer = train_vocabulary(["a dog runs"], size=300, languages=["en"])
        >>> tokenizer.decode(tokenizer("狗 and a dog")["input_ids"]).strip()
        '狗 and a dog'
    """
    special = [PAD, START, END, *(language_prompt(language) for language in languages)]
    if size < 256 + len(special):
        raise ValueError(f"a vocabulary of {size} is too small; 256 bytes and {len(special)} special tokens need room")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
        max_token_length=LONGEST,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
    )
