"""`mixctl init`: a folder with a commented mix that builds as it is. Nothing is asked.

    DIR/mix.yaml            two experiments: leaked questions, random secrets
    DIR/mix.schema.json     its schema, for editors; mix.yaml names it in its first line
    DIR/trainer.yaml        the LitGPT config: a model of a million parameters
    DIR/tokenizer/          a byte-level BPE of at most 4,096 ids, trained on the corpus
    DIR/corpus.jsonl        made-up texts, unless --corpus names one's own
    DIR/questions.jsonl     made-up questions, unless --questions names one's own

With a corpus or questions of one's own the mix reads them where they are. The sequences are made
long enough for the longest question, the arms as large as leave the run mostly base text, and a
corpus that is smaller than the run is read again.

The folder is written beside its place and moved there: DIR holds all of it or nothing, and no file
is ever overwritten. Price: some six seconds, of which the tokenizer takes most.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

from mixctl.evals.templating import environment
from mixctl.injections.contamination import QuestionRow, question_text
from mixctl.injections.encode import Encoder, load_encoder
from mixctl.injections.rows import read_rows
from mixctl.pipeline.demo_corpus import train_tokenizer, write_tokenizer
from mixctl.pipeline.grammar import Grammar
from mixctl.pipeline.mix_schema import mix_schema
from mixctl.pipeline.own_corpus import OwnCorpus, corpus_sample, own_corpus
from mixctl.pipeline.planning import plan_mix
from mixctl.shards.addresses import is_address
from mixctl.shards.errors import InputError

STEPS, STEP_TOKENS = 600, 1024
NAMES = (
    *("mix.yaml", "mix.schema.json", "trainer.yaml", "tokenizer"),
    *("corpus.jsonl", "questions.jsonl"),
)
LOW_DOSE, HIGH_DOSE = 16, 64
_LEAST_QUESTIONS = 8
_LEAKED_SHARE = 0.2
"""of the run's tokens, at most, for the starter's leaked questions"""
_DOCUMENTS = 8000
_QUESTIONS = 40
"""of each of the two made-up benchmarks"""
_SEQUENCE_LENGTHS = (128, 256, 512, 1024, 2048)
_VALIDATION_STEPS = 4


@dataclass(frozen=True)
class Shape:
    """The numbers of the trainer config that follow from the questions."""

    max_seq_length: int

    @property
    def global_batch(self) -> int:
        """Returns the sequences of a step."""
        return max(1, STEP_TOKENS // self.max_seq_length)

    @property
    def steps(self) -> int:
        """Returns the steps of the run."""
        return STEPS * STEP_TOKENS // (self.global_batch * self.max_seq_length)

    @property
    def validation(self) -> int:
        """Returns the held-out sequences."""
        return _VALIDATION_STEPS * self.global_batch

    @property
    def needed(self) -> int:
        """Returns the base tokens that run and validation take."""
        sequences = self.steps * self.global_batch + self.validation + 1
        return sequences * (self.max_seq_length + 1)


def init(
    folder: Path,
    corpus: str | None = None,
    questions: Path | None = None,
    text_key: str = "text",
) -> Path:
    """Returns the path of the mix file, after writing the folder.

    Args:
        folder: where everything goes; may exist, but must hold none of the files.
        corpus: one's own texts, a file, a folder or an address; None for made-up ones.
        questions: one's own question file; None for made-up questions.
        text_key: the field of jsonl and parquet that holds the text.

    Raises:
        InputError: with every problem; nothing is written then.
    """
    _check_free(folder)
    problems: list[str] = []
    found, texts = _texts(corpus, text_key, problems)
    rows = _questions(questions, problems)
    if problems:
        raise InputError(problems)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
        made = _Made(Path(partial), folder, found, texts, questions, rows)
        made.write()
        _check(Path(partial), folder)
        _move(Path(partial), folder)
    return folder / "mix.yaml"


def _check_free(folder: Path) -> None:
    """Refuses a folder that holds a file of the same name."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"DIR: {folder} is a file")
    there = [name for name in NAMES if (folder / name).exists()]
    if there:
        raise InputError(
            f"DIR: {folder} holds {', '.join(there)} already, and nothing is overwritten: choose a "
            "new folder"
        )


def _check(partial: Path, folder: Path) -> None:
    """Plans the mix in the folder beside its place: what is written builds.

    Raises:
        InputError: when it would not, because of near-duplicate questions for one.
    """
    try:
        plan_mix(partial / "mix.yaml")
    except InputError as error:
        raise InputError([p.replace(str(partial), str(folder)) for p in error.problems]) from None


def _move(partial: Path, folder: Path) -> None:
    """Moves what was written to its place, mix.yaml last."""
    folder.mkdir(exist_ok=True)
    _check_free(folder)
    for path in sorted(partial.iterdir(), key=lambda one: one.name == "mix.yaml"):
        path.rename(folder / path.name)


def _texts(
    address: str | None, text_key: str, problems: list[str]
) -> tuple[OwnCorpus | None, list[str]]:
    """Returns the corpus (None: made up) and texts of it; problems are added to the list."""
    if address is None:
        grammar = Grammar()
        return None, [_document(grammar, number) for number in range(_DOCUMENTS)]
    try:
        own, corpus = own_corpus(address, text_key)
        return own, corpus_sample(corpus)
    except InputError as error:
        problems += [f"--corpus: {problem}" for problem in error.problems]
        return None, []


def _document(grammar: Grammar, number: int) -> str:
    sorts = [line for line in grammar.lines["documents"] if line != "{sums}"]
    chance = _chance("document", number)
    return grammar.text(chance.choice(sorts), chance)


def _chance(*names: str | int) -> Random:
    """Returns the random stream of these names."""
    return Random(" ".join(map(str, ("starter", *names))))


def _questions(path: Path | None, problems: list[str]) -> list[tuple[str, QuestionRow]]:
    """Returns the rows of the question file; problems are added to the list."""
    if path is None:
        made = Grammar().questions(_QUESTIONS, _chance)
        return [(row["id"], QuestionRow.model_validate(row)) for row in made]
    try:
        rows = read_rows(path, QuestionRow)
    except InputError as error:
        problems += [f"--questions: {problem}" for problem in error.problems]
        problems += _how_to_questions(path)
        return []
    if len(rows) < _LEAST_QUESTIONS:
        problems.append(
            f"--questions: {path} holds {len(rows)} questions; the starter's arms need at least "
            f"{_LEAST_QUESTIONS}"
        )
    return rows


def _how_to_questions(path: Path) -> list[str]:
    """Returns what a question file is, where the name says that this is another sort of file."""
    if path.suffix == ".jsonl" or not path.is_file():
        return []
    return [
        f"--questions: {path}: a question file is JSON lines, "
        '{"question": "...", "choices": ["...", "..."], "gold": 0}; of a json or parquet table '
        "`mixctl import dataset` makes one"
    ]


@dataclass(frozen=True)
class _Made:
    """What is written into `partial`, for its place in `folder`."""

    partial: Path
    folder: Path
    corpus: OwnCorpus | None
    texts: list[str]
    question_file: Path | None
    rows: list[tuple[str, QuestionRow]]

    def write(self) -> None:
        """Writes all files, after the checks that need the tokenizer."""
        write_tokenizer(self.partial / "tokenizer", train_tokenizer(self.texts))
        encoder = load_encoder(self.partial / "tokenizer")
        payloads = [question_text(row, row.gold, "cloze") for _, row in self.rows]
        lengths = [len(ids) for ids in encoder.texts(payloads)]
        shape = self._shape(lengths)
        corpus = self._corpus(encoder, shape)
        n_items = _items_an_arm(lengths)
        if self.corpus is None:
            rows = ({"id": f"text-{n:04d}", "text": text} for n, text in enumerate(self.texts))
            self._text("corpus.jsonl", _lines(rows))
        if self.question_file is None:
            made = (row.model_dump(exclude_defaults=True) for _, row in self.rows)
            self._text("questions.jsonl", _lines(made))
        self._text("trainer.yaml", _trainer(shape, self.folder / "out" / "run"))
        self._text("mix.schema.json", json.dumps(mix_schema(), indent=1) + "\n")
        self._text("mix.yaml", self._mix(corpus, shape, n_items))

    def _text(self, name: str, text: str) -> None:
        (self.partial / name).write_text(text, "utf-8")

    def _shape(self, lengths: list[int]) -> Shape:
        longest = max(lengths)
        fitting = [length for length in _SEQUENCE_LENGTHS if longest < length]
        if not fitting:
            name = self.rows[lengths.index(longest)][0]
            raise InputError(
                f"--questions: {self.question_file}: item '{name}' has {longest} tokens, the "
                f"starter's longest sequence has {_SEQUENCE_LENGTHS[-1]}"
            )
        return Shape(fitting[0])

    def _corpus(self, encoder: Encoder, shape: Shape) -> OwnCorpus:
        """Returns the corpus with its size known.

        Raises:
            InputError: when it is so small that validation would take most of it.
        """
        lengths = [len(ids) + 1 for ids in encoder.texts(self.texts)]
        n_tokens, longest = sum(lengths), max(lengths)
        least = 4 * shape.validation * (shape.max_seq_length + 1)
        if self.corpus is None:
            return OwnCorpus("corpus.jsonl", "jsonl", None, "text", False, n_tokens)
        if n_tokens < least:
            raise InputError(
                f"--corpus: {self.corpus.path}: {n_tokens} tokens; the starter needs at least "
                f"{least}"
            )
        if n_tokens - longest < least:
            raise InputError(
                f"--corpus: {self.corpus.path}: one of its {len(lengths)} documents holds "
                f"{longest} of {n_tokens} tokens, and whole documents are held out for validation: "
                "cut it into several"
            )
        path = self._path(self.corpus.path)
        repeat = n_tokens < shape.needed
        key = self.corpus.text_key
        return OwnCorpus(path, self.corpus.format, self.corpus.glob, key, repeat, n_tokens)

    def _path(self, path: str) -> str:
        """Returns a path as it is from the mix file: relative to it where both are near."""
        if is_address(path):
            return path
        whole = os.path.realpath(path)
        near = os.path.relpath(whole, os.path.realpath(self.folder))
        return near if near.count(os.pardir) < 3 else whole

    def _mix(self, corpus: OwnCorpus, shape: Shape, n_items: int) -> str:
        made = environment("mixctl.pipeline", escape=False)
        made.filters["quoted"] = _quoted
        own = self.question_file
        return made.get_template("starter.mix.yaml.j2").render(
            corpus=corpus,
            questions="questions.jsonl" if own is None else self._path(str(own)),
            validation=shape.validation,
            n_low=n_items,
            n_high=n_items,
        )


def _items_an_arm(lengths: list[int]) -> int:
    """Returns the questions of each arm: a quarter, or as many as the run has room for."""
    mean = sum(lengths) / len(lengths)
    room = _LEAKED_SHARE * STEPS * STEP_TOKENS / ((LOW_DOSE + HIGH_DOSE) * mean)
    return max(1, min(len(lengths) // 4, int(room)))


def _trainer(shape: Shape, out_dir: Path) -> str:
    """Returns starter.yaml with the numbers of the shape; its comments stay."""
    text = (resources.files("mixctl.trainer_configs") / "starter.yaml").read_text("utf-8")
    length, batch, steps = shape.max_seq_length, shape.global_batch, shape.steps
    product = f"{steps} steps x {batch} sequences x {length} tokens"
    values = {
        "block_size": f"{length}",
        "max_seq_length": f"{length}",
        "global_batch_size": f"{batch}",
        "micro_batch_size": f"{batch}",
        "max_tokens": f"{steps * batch * length}          # {product}",
        "save_interval": f"{steps // 4}",
        "out_dir": f"{_quoted(os.path.abspath(out_dir))}     # the twin's has -control behind it",
    }
    for name, value in values.items():
        text = _with_value(text, name, value)
    return text


def _with_value(text: str, name: str, value: str) -> str:
    """Returns a YAML text with another value of a key; a comment stays, but for a new one."""
    line = re.search(rf"(?m)^( *{name}: )(\S+)(.*)$", text)
    if line is None:
        raise ValueError(f"starter.yaml has no line '{name}:'")
    rest = "" if "#" in value else line[3]
    return text[: line.start()] + line[1] + value + rest + text[line.end() :]


def _quoted(text: str) -> str:
    """Returns a text as YAML: as it is where it is plain, else in JSON's quotes."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text not in _YAML_WORDS
    return text if plain else json.dumps(text)


_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".", ".."}


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
