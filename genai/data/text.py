"""What every text source does with its text: normalise, drop duplicates, split by blocks, learn a tokenizer, check."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from genai.core.config import Fraction, Seed, Strict, UserError
from genai.core.dataset import SPLITS, Description, split_indices, write_json, write_text

BLOCK = 2500  # characters, about a printed page: what the splits are dealt in


class TextConfig(Strict):
    """How a text is cut into tokens, windows and splits."""

    vocabulary_size: Annotated[int, Field(ge=257, le=65536)] = Field(
        description="tokens of the byte-level BPE: the 256 bytes and merges of them"
    )
    window: Annotated[int, Field(ge=2)] = Field(description="tokens in an example")
    validation: Fraction = Field(0.05, description="share of the blocks")
    test: Fraction = Field(0.05, description="share of the blocks")
    seed: Seed = Field(0, description="of the blocks' assignment to splits")

    @model_validator(mode="after")
    def _some_for_training(self):
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} should leave something for training")
        return self


def normalise(text: str) -> str:
    """Return the text as every source's text is written.

    Line ends are LF; there is no byte-order mark, no control character but tab and LF, no blank at the
    end of a line, and no more than one empty line in a row.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def key(paragraph: str) -> str:
    """Two paragraphs are the same where only their blanks and line ends differ."""
    return " ".join(paragraph.split())


def pieces(text: str) -> list[str]:
    """Cut a normalised text into its distinct paragraphs, each with the separator that followed it.

    A paragraph longer than a block is cut further: at a line's end, else at a blank, else anywhere.
    """
    found = {}
    for paragraph in text.split("\n\n"):
        paragraph += "\n\n"
        while len(paragraph) > BLOCK + 2:
            cut = paragraph.rfind("\n", 0, BLOCK) + 1 or paragraph.rfind(" ", 0, BLOCK) + 1 or BLOCK
            found.setdefault(key(paragraph[:cut]), paragraph[:cut])
            paragraph = paragraph[cut:]
        found.setdefault(key(paragraph), paragraph)
    found.pop("", None)
    return list(found.values())


def blocks(parts: list[str]) -> list[str]:
    """Join consecutive pieces to blocks of at least 2,500 characters (the last one may be shorter)."""
    joined, size = [[]], 0
    for part in parts:
        if size >= BLOCK:
            joined.append([])
            size = 0
        joined[-1].append(part)
        size += len(part)
    return ["".join(block) for block in joined]


def learn_tokenizer(text: str, vocabulary_size: int):
    """Return a byte-level BPE `tokenizers.Tokenizer` learned on `text`: decode(encode(any str)) gives it back.

    Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units" (2016),
    over bytes as in Radford et al., "Language models are unsupervised multitask learners" (2019).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread, as every stage says of itself
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def write(text: str, config: TextConfig, directory: Path, card: str) -> None:
    """Write the splits of `text`, its tokenizer, description and card into `directory`.

    `card` tells title, origin and licence; what was counted and checked is added to it. Raises
    UserError where a split would hold less than one window, or a paragraph stands in two splits.
    """
    directory = Path(directory)
    at = f"datasets.{directory.name}"
    text = normalise(text)
    parts = pieces(text)
    pages = blocks(parts)
    if len(pages) < 3:
        raise UserError(f"{at}: {len(text)} characters of text are too few for three splits of {BLOCK} or more")
    indices = split_indices(len(pages), config.validation, config.test, config.seed)
    splits = {split: "".join(pages[i] for i in indices[split]).strip("\n") + "\n" for split in SPLITS}
    tokenizer = learn_tokenizer(splits["train"], config.vocabulary_size)
    counts = {}
    for split, part in splits.items():
        ids = tokenizer.encode(part).ids
        counts[split] = len(ids)
        if len(ids) < config.window:
            raise UserError(f"{at}.window: {config.window} tokens are more than the {split} split has ({len(ids)})")
        assert tokenizer.decode(ids, skip_special_tokens=False) == part, "byte-level BPE is lossless"
    _refuse_shared_paragraphs(splits, at)
    for split, part in splits.items():
        write_text(directory / f"{split}.txt", part)
    write_text(directory / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    size = tokenizer.get_vocab_size()
    rows = "\n".join(f"| {s} | {len(splits[s]):,} | {counts[s]:,} | {len(indices[s]):,} |" for s in SPLITS)
    write_text(
        directory / "card.md",
        f"""{card.strip()}

## Preparation

{len(text):,} characters after normalisation (LF line ends, no control characters, no blanks at the ends of lines),
of which {len(text) - sum(map(len, parts)):,} were paragraphs seen before and dropped. Cut into blocks of about
{BLOCK:,} characters, each block dealt to one split (seed {config.seed}).
A byte-level BPE of {size:,} tokens was learned on the training part alone.

| split | characters | tokens | blocks |
| --- | ---: | ---: | ---: |
{rows}

## Checks

No paragraph stands in two splits; every split decodes from its tokens to itself; every split holds at least one
window of {config.window} tokens.
""",
    )
    description = Description(kind="text", shape=[config.window], vocabulary_size=size)
    write_json(directory / "description.json", description.model_dump())


def _refuse_shared_paragraphs(splits: dict[str, str], at: str) -> None:
    seen: dict[str, str] = {}
    for split, text in splits.items():
        for paragraph in {key(p) for p in text.split("\n\n")}:
            if seen.setdefault(paragraph, split) != split:
                raise UserError(f"{at}: paragraph {paragraph[:40]!r} stands in {seen[paragraph]} and in {split}")
