"""Texts, your own too: their documents are normalised and dealt to splits, near-copies dropped, a tokenizer learned."""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from genai.core.config import Seed, Share, Strict, UserError
from genai.core.dataset import SPLITS, Description, encode, read_utf8, write_json, write_text

LONGEST = 2500  # characters, about a printed page: no paragraph is longer
SECTION = 20_000  # characters of a section of a text that has no documents
NEAR = 8  # words in a row that make two paragraphs near-duplicates
VERBATIM = 13  # words in a row that count as copied, as is customary since GPT-3 (Brown et al., 2020, appendix C)


class Cut(Strict):
    """How a text is cut into tokens and windows."""

    vocabulary_size: Annotated[int, Field(ge=257, le=65536)] = Field(
        description="tokens of the byte-level BPE: the 256 bytes and merges of them"
    )
    window: Annotated[int, Field(ge=2)] = Field(description="tokens in an example")


class TextConfig(Cut):
    """How a text is cut into tokens, windows and splits."""

    validation: Share = Field(0.05, description="share of the characters, in whole documents")
    test: Share = Field(0.05, description="share of the characters, in whole documents")
    seed: Seed = Field(0, description="of the documents' assignment to splits")


class Config(TextConfig):
    """Of a text of the user's: nothing of its own."""


def prepare(config: Config, directory: Path, path: Path) -> None:
    """Write the data set of a UTF-8 file, or of a folder of them, hidden ones left out.

    Form feeds end the documents of a file; without any, each file of a folder is a document, and a single file is cut
    into sections. Raises UserError where a file is not text or a split would hold too little.
    """
    at = f"datasets.{directory.name}"
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        files = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if not files:
            raise UserError(f"{at}.source: the folder {path} holds no file; it should hold texts")
        documents = [document for file in files for document in read_utf8(file, f"{at}.source").split("\f")]
        origin = (
            f"The {len(files):,} files of the user's folder `{path}`; each is a document, or as many as form feeds end."
        )
    else:
        content = read_utf8(path, f"{at}.source")
        documents = content.split("\f") if "\f" in content else sections(content, config)
        origin = f"The user's file `{path}`. Form feeds end its documents; without any, they are consecutive parts."
    write(documents, config, directory, f"# {path.stem}\n\n## Origin\n\n{origin} Licence: the user knows.")


def normalise(text: str) -> str:
    """Return the text as every source's text is written.

    Line ends are LF; there is no byte-order mark, no control character but tab and LF, no blank at the
    end of a line, and no more than one empty line in a row.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def paragraphs(document: str) -> list[str]:
    """Cut a normalised document into its paragraphs, each with the separator that followed it.

    One longer than LONGEST is cut further: at a line's end, else at a blank, else anywhere.
    """
    found = []
    for paragraph in document.split("\n\n"):
        paragraph += "\n\n"
        while len(paragraph) > LONGEST + 2:
            cut = paragraph.rfind("\n", 0, LONGEST) + 1 or paragraph.rfind(" ", 0, LONGEST) + 1 or LONGEST
            found.append(paragraph[:cut])
            paragraph = paragraph[cut:]
        found.append(paragraph)
    return found


def sections(text: str, config: TextConfig) -> list[str]:
    """Cut a text without documents into consecutive sections, at the ends of paragraphs.

    Of SECTION characters, or of a quarter of the smaller split where that is less, so that a split holds several.
    """
    text = normalise(text)
    size = min(SECTION, max(LONGEST, int(min(config.validation, config.test) * len(text) / 4)))
    found, length = [""], 0
    for paragraph in paragraphs(text):
        if length >= size:
            found.append("")
            length = 0
        found[-1] += paragraph
        length += len(paragraph)
    return found


def deal(lengths: list[int], config: TextConfig) -> list[str]:
    """Return the split of each document: drawn in random order into test, then validation, until each has its share.

    lengths: in characters. A document that would take a split beyond its share by more than a tenth is passed over:
    it goes to training, as the rest does.
    """
    order = np.random.default_rng(config.seed).permutation(len(lengths)).tolist()
    total, dealt = sum(lengths), dict.fromkeys(range(len(lengths)), "train")
    for split, share in (("test", config.test), ("validation", config.validation)):
        held = 0
        for i in order:
            if dealt[i] == "train" and held < share * total and held + lengths[i] <= 1.1 * share * total:
                dealt[i] = split
                held += lengths[i]
    return [dealt[i] for i in range(len(lengths))]


def key(paragraph: str) -> str:
    """Two paragraphs are the same where only their blanks and line ends differ."""
    return " ".join(paragraph.split())


def words(text: str) -> list[str]:
    """Return a text's words, lower-case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def grams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    """Return the runs of n words of a text."""
    found = words(text)
    return zip(*(itertools.islice(found, i, None) for i in range(n)), strict=False)


def without_copies(documents: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    """Return the documents of each split, lists of paragraphs, without copies and near-copies; one may be left empty.

    A paragraph is dropped where it stood in its split before or stands in a later one, from validation also where it
    shares NEAR words in a row with test, from training where it does so with either: what is measured is then
    what a model makes of text that it has not read. Exact sets of word runs do it in seconds for a corpus of some
    millions of characters, and miss nothing; MinHash (`datasketch`) estimates the likeness of whole paragraphs,
    for corpora that do not fit into memory.
    """
    held_out: set[tuple[str, ...]] = set()
    kept: dict[str, list[list[str]]] = {}
    seen: set[str] = {""}
    for split in reversed(SPLITS):
        kept[split] = []
        for document in documents[split]:
            fresh = []
            for paragraph in document:
                if key(paragraph) not in seen and held_out.isdisjoint(grams(paragraph, NEAR)):
                    fresh.append(paragraph)
                    seen.add(key(paragraph))
            kept[split].append(fresh)
        held_out.update(gram for document in kept[split] for paragraph in document for gram in grams(paragraph, NEAR))
    return kept


def overlap(text: str, other: str) -> tuple[float, float]:
    """Return how much of a text stands in another text, `other`, too.

    First the share of its paragraphs of NEAR words or more of which NEAR in a row do, then the share of its words that
    lie in a run of VERBATIM words that does.
    """
    near, verbatim = (set(grams(text, n)).intersection(grams(other, n)) for n in (NEAR, VERBATIM))
    long = [p for p in text.split("\n\n") if len(words(p)) >= NEAR]
    shared = sum(not near.isdisjoint(grams(p, NEAR)) for p in long)
    copied = np.zeros(len(words(text)), dtype=bool)
    for i, gram in enumerate(grams(text, VERBATIM)):
        if gram in verbatim:
            copied[i : i + VERBATIM] = True
    return shared / max(len(long), 1), float(copied.mean()) if len(copied) else 0.0


def join(documents: list[list[str]]) -> str:
    """Return documents, lists of paragraphs, as one text."""
    return "".join("".join(document).strip("\n") + "\n\n" for document in documents).strip("\n") + "\n"


def begins(documents: list[list[str]]) -> list[int]:
    """Return the character of the joined text at which each of its documents, none of them empty, begins."""
    lengths = [len("".join(document).strip("\n")) + 2 for document in documents]
    return [0, *itertools.accumulate(lengths)][:-1]


def learn_tokenizer(text: str, vocabulary_size: int) -> Any:
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


def write(documents: list[str], config: TextConfig, directory: Path, card: str, names: list[str] | None = None) -> None:
    """Write the splits of the documents, a tokenizer, description and card into `directory`.

    `card` tells title, origin and licence; what was counted and checked is added to it. Where the documents have names,
    documents.json tells where each begins. Raises UserError where there are too few documents for three splits or a
    split would hold less than one window.
    """
    directory = Path(directory)
    at = f"datasets.{directory.name}"
    named = [(text, name) for text, name in zip(map(normalise, documents), names or documents, strict=True) if text]
    documents = [text for text, _ in named]
    dealt = deal([len(text) for text in documents], config)
    before = {s: [paragraphs(t) for t, d in zip(documents, dealt, strict=True) if d == s] for s in SPLITS}
    kept = without_copies(before)
    after = {split: [document for document in kept[split] if document] for split in SPLITS}
    if empty := [split for split in SPLITS if not after[split]]:
        if before[empty[0]]:
            raise UserError(
                f"{at}: every paragraph of the {empty[0]} split's {len(before[empty[0]])} documents repeats what stands "
                f"before it or in another split, {NEAR} words in a row; give text that repeats itself less"
            )
        total = sum(map(len, documents))
        raise UserError(
            f"{at}: {len(documents)} documents of {total} characters leave none for the {empty[0]} split; "
            "give more or shorter documents, or it a larger share"
        )
    splits = {split: join(after[split]) for split in SPLITS}
    size, counts = write_splits(splits, config, directory)
    if names:
        where = {}
        for split in SPLITS:
            of_split = [name for (_, name), d in zip(named, dealt, strict=True) if d == split]
            not_empty = [name for name, document in zip(of_split, kept[split], strict=True) if document]
            where[split] = dict(zip(not_empty, begins(after[split]), strict=True))
        write_json(directory / "documents.json", where)
    raw = {split: join(before[split]) for split in SPLITS}
    rows = [
        f"| {split} | {len(after[split]):,} | {len(raw[split]):,} | {len(splits[split]):,} | {counts[split]:,} |"
        for split in SPLITS
    ]
    left = []
    for split, other in (("validation", "train"), ("test", "train"), ("validation", "test")):
        shares = [f"{share:.2%}" for texts in (raw, splits) for share in overlap(texts[split], texts[other])]
        left.append(f"| {split} | {other} | {shares[0]} | {shares[2]} | {shares[1]} | {shares[3]} |")
    write_text(
        directory / "card.md",
        f"""{card.strip()}

## Preparation

Line ends are LF; there are no control characters and no blanks at the ends of lines. Whole documents are dealt to the
splits (seed {config.seed}). Paragraphs that stood in the same split before or stand in a later one are
dropped, and so are paragraphs of training (of validation) that share {NEAR} words in a row with validation or test
(with test).
A byte-level BPE of {size:,} tokens was learned on the training part alone.

| split | documents | characters before | characters after | tokens |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

## What of a split stands in another too

| split | other | near, before dropping | after | verbatim, before dropping | after |
| --- | --- | ---: | ---: | ---: | ---: |
{chr(10).join(left)}

Near: paragraphs of {NEAR} words or more of which {NEAR} in a row stand in the other split. Verbatim: words that lie in a
run of {VERBATIM} that does. Both count over the other's running text, so that runs across the end of a paragraph count too.
""",
    )


def write_splits(splits: dict[str, str], config: Cut, directory: Path) -> tuple[int, dict[str, int]]:
    """Write the splits' texts, a tokenizer learned on training and the description; return its size and their tokens.

    Raises UserError where a split would hold less than one window.
    """
    tokenizer = learn_tokenizer(splits["train"], config.vocabulary_size)
    size, counts = tokenizer.get_vocab_size(), {}
    for split, text in splits.items():
        ids, _ = encode(tokenizer, text)
        counts[split] = len(ids)
        if len(ids) < config.window:
            at = f"datasets.{directory.name}.window"
            raise UserError(f"{at}: {config.window} tokens are more than the {split} split has ({len(ids)})")
        assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text, "byte-level BPE is lossless"
    for split, text in splits.items():
        write_text(directory / f"{split}.txt", text)
    write_text(directory / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    description = Description(kind="text", shape=[config.window], vocabulary_size=size)
    write_json(directory / "description.json", description.model_dump())
    return size, counts
