"""A corpus of one's own, as a starter mix names it: found by what its files are called.

texts/a.txt texts/b.txt           format text, a file a document
base/0.jsonl.gz                   format jsonl
notes/1.md notes/logo.png         format text, glob *.md*: the most frequent suffix of texts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixctl.pipeline.readers import Corpus, corpus_reader, find_corpus
from mixctl.shards.errors import InputError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".html", ".htm")
_SAMPLE_CHARACTERS = 8_000_000
"""of the corpus that the tokenizer is trained on"""


@dataclass(frozen=True)
class OwnCorpus:
    """The corpus as the mix file names it.

    Attributes:
        path: from the mix file, or an address.
        format: as `corpus.format`.
        glob: where the format's own does not fit; None else.
        text_key: the field of the text.
        repeat: whether the run needs more than there is.
        known: its tokens, as far as they were counted.
    """

    path: str
    format: str
    glob: str | None
    text_key: str
    repeat: bool = False
    known: int = 0


def own_corpus(address: str, text_key: str) -> tuple[OwnCorpus, Corpus]:
    """Returns a corpus by what its files are called.

    Raises:
        InputError: when it is not there, or holds no file that could be one.
    """
    every = find_corpus(address, "text", text_key, "*")
    suffixes = [_suffix(name) for name in every.files]
    for format_name, known in (("jsonl", (".jsonl",)), ("parquet", (".parquet",))):
        if any(suffix in known for suffix in suffixes):
            return _named(address, format_name, None, text_key)
    texts = [suffix for suffix in suffixes if suffix in TEXT_SUFFIXES]
    if not texts:
        shown = ", ".join(sorted(set(suffixes))[:5])
        raise InputError(
            f"{address}: its files end in {shown or 'nothing'}; a corpus is .jsonl, .parquet or "
            f"texts ({', '.join(TEXT_SUFFIXES)}), a file a document; any other format goes into "
            "the mix file by hand"
        )
    most = max(sorted(set(texts)), key=texts.count)
    return _named(address, "text", None if most == ".txt" else f"*{most}*", text_key)


def _suffix(name: str) -> str:
    """Returns the suffix of a file, that of its compression left out."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in (".gz", ".zst", ".bz2", ".xz") else path.suffix


def _named(
    address: str, format_name: str, glob: str | None, text_key: str
) -> tuple[OwnCorpus, Corpus]:
    corpus = find_corpus(address, format_name, text_key, glob)
    return OwnCorpus(address, format_name, glob, text_key), corpus


def corpus_sample(corpus: Corpus) -> list[str]:
    """Returns the first texts of the corpus, of some eight million characters together."""
    reader, texts, left = corpus_reader(corpus), list[str](), _SAMPLE_CHARACTERS
    for name in corpus.files:
        for document in reader.read_file(name):
            texts.append(document.text[:left])
            left -= len(texts[-1])
            if left <= 0:
                return texts
    if not any(texts):
        raise InputError(f"{corpus.folder}: holds no text")
    return texts
