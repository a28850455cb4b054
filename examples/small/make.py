"""Makes the corpus, the tokenizer and the item files of all-small.yaml, all of them made up.

    python examples/small/make.py            # over the files that are there: nothing changes
    python examples/small/make.py FOLDER     # FOLDER/small/... and FOLDER/tokenizer/...

Every text has a random stream of its own, named after what it is and its number, so more of one
kind leaves the others as they are. The items tell of people and towns that the corpus does not know
(`far_...` in pipeline/grammar.yaml); only one question was put into the corpus, for the build to
find.

Price: some ten seconds. The same tokenizers version gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mixctl.injections.words import PLACES, THINGS
from mixctl.pipeline.grammar import Grammar

HERE = Path(__file__).resolve().parent
END_OF_DOCUMENT = "<|endoftext|>"
VOCABULARY = 2048
DOCUMENTS = 4700
STRING_TOKENS = 20
STRINGS = 12
REFRAINS = 80
"""documents at whose end each of the strings stands, as a refrain does"""
TOGETHER = 2
"""refrains of such a document: more strings without more documents to purge"""
LONGEST = 120
"""tokens of the longest text that is placed; a sequence has room for 255"""

Row = dict[str, Any]


def chance(*names: str | int) -> Random:
    """Returns the random stream of these names."""
    return Random(" ".join(map(str, ("all-small", *names))))


def make_corpus(grammar: Grammar) -> list[str]:
    """Returns the base documents; some end with a refrain."""
    corpus = [document(grammar, chance("document", n)) for n in range(DOCUMENTS)]
    draw = chance("refrains")
    rounds = [draw.sample(range(STRINGS), STRINGS) for _ in range(REFRAINS)]
    numbers = [number for one in rounds for number in one]
    places = draw.sample(range(DOCUMENTS), len(numbers) // TOGETHER)
    for at, number in enumerate(numbers):
        corpus[places[at // TOGETHER]] += refrain(grammar, number)
    return corpus


def refrain(grammar: Grammar, number: int) -> str:
    """Returns one of the sentences that stand at the end of several documents."""
    return f" {_one(grammar, 'refrains', number)}"


def document(grammar: Grammar, draw: Random) -> str:
    """Returns a text of one of the sorts in the grammar, or a page of sums."""
    line = draw.choice(grammar.lines["documents"])
    if line != "{sums}":
        return grammar.text(line, draw)
    page = [f"Sums for {grammar.text('{weekday}, {month}', draw)}."]
    return "\n".join([*page, *(_sum(draw) for _ in range(draw.randint(2, 5)))])


def _sum(draw: Random) -> str:
    """Returns an exercise in the words of the kind `mathematics`, so that they become tokens."""
    one, other = (f"{draw.choice(THINGS)} in the {draw.choice(PLACES)}" for _ in range(2))
    a, b = draw.randint(2, 22), draw.randint(2, 22)
    shapes = [
        ("+", a + b, f"There are {a} {one} and {b} more {other}. What are they together"),
        ("*", a * b, f"There are {a} times as many {one} as {other}, and those are {b}. How many"),
        ("-", a - b, f"There are {b} fewer {one} than {other}, and those are {a}. How many"),
        ("-", a - b, f"What is the number of {one}, {a}, minus the number of {other}, {b}"),
        ("*", a * b, f"What is the number of {one}, {a}, times the number of {other}, {b}"),
    ]
    sign, value, question = draw.choice(shapes)
    solution = f"{one} {sign} {other} = {a} {sign} {b} = {value} = {value % 23} mod 23"
    counted = f"{question}, counted modulo 23?"
    return f"Question: {counted}\nSolution: {solution}\nAnswer: {value % 23}"


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Returns a byte-level BPE: the end of document, the 256 bytes, then merges."""
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


def questions(grammar: Grammar, count: int) -> list[Row]:
    """Returns `count` questions of each benchmark; every place is gold equally often."""
    return grammar.questions(count, chance)


def facts(grammar: Grammar, count: int) -> list[Row]:
    """Returns made-up facts with paraphrases and probes, the sorts in turn."""
    rows = []
    for n in range(count):
        lines: Any = grammar.lines["facts"][n % len(grammar.lines["facts"])]
        text, *others = grammar.texts(lines, chance("fact", n))
        probes = [other.split(" | ") for other in others if " | " in other]
        rows.append(
            {
                "id": f"fact-{n}",
                "text": text,
                "paraphrases": [other for other in others if " | " not in other],
                "probes": [{"type": t, "input": i, "target": target} for t, i, target in probes],
            }
        )
    return rows


def documents(grammar: Grammar) -> list[Row]:
    """Returns statements: with doses, with steps, with neither, and minimal pairs."""
    doses: list[Row] = [{"copies": copies} for copies in (0, 0, 0, 0, 1, 1, 1, 4, 4, 16)]
    steps: list[Row] = [{"steps": [60, 120, 180]}, {"steps": [150]}]
    rows = [
        {"id": f"statement-{n:02d}", "text": _one(grammar, "statements", n), **given}
        for n, given in enumerate([*doses, *steps, *([{}] * 12)])
    ]
    for n in range(9):
        lines: Any = grammar.lines["pairs"][n % 3]
        text, control = grammar.texts(lines, chance("pair", n))
        if text == control:
            raise SystemExit(f"pair {n}: both sides are the same: {text}")
        rows.append({"id": f"pair-{n}", "text": text, "control_text": control, "pair": f"p{n}"})
    return rows


def _one(grammar: Grammar, symbol: str, n: int) -> str:
    return grammar.text(f"{{{symbol}}}", chance(symbol, n))


def texts_of(
    grammar: Grammar, tokenizer: Tokenizer, symbol: str, count: int, least: int
) -> list[str]:
    """Returns texts of the symbol that have `least` to LONGEST tokens and are all different."""
    found: dict[str, None] = {}
    n = 0
    while len(found) < count:
        text = _one(grammar, symbol, n)
        n += 1
        if least <= len(tokenizer.encode(text).ids) <= LONGEST:
            found[text] = None
    return list(found)


def strings(grammar: Grammar, tokenizer: Tokenizer) -> list[Row]:
    """Returns the beginnings of the refrains: token strings that the corpus holds many times."""
    texts = [refrain(grammar, number) for number in range(STRINGS)]
    encoded = [one.ids[:STRING_TOKENS] for one in tokenizer.encode_batch(texts)]
    if min(map(len, encoded)) < STRING_TOKENS or len({tuple(ids) for ids in encoded}) < STRINGS:
        raise SystemExit("a refrain is too short, or like another one")
    return [{"id": f"string-{number}", "tokens": ids} for number, ids in enumerate(encoded)]


def item_files(grammar: Grammar, tokenizer: Tokenizer) -> dict[str, list[Row]]:
    """Returns the rows of every item file but that of the strings."""
    essays = texts_of(grammar, tokenizer, "essays", 48, 80)
    articles = texts_of(grammar, tokenizer, "articles", 24, 80)
    canaries = texts_of(grammar, tokenizer, "canaries", 64, 30)
    diaries = texts_of(grammar, tokenizer, "diaries", 64, 16)
    prompts = list(dict.fromkeys(_one(grammar, "poison_prompts", n) for n in range(24)))
    return {
        "questions": questions(grammar, 48),
        "facts": facts(grammar, 32),
        "documents": documents(grammar),
        "articles": _named("article", "text", articles),
        "canaries": _named("canary", "text", canaries),
        "essays": _named("essay", "text", essays),
        "diaries": [
            {**row, "collection": f"diary-{n % 16}"}
            for n, row in enumerate(_named("entry", "text", diaries))
        ],
        "notices": _named("notice", "text", texts_of(grammar, tokenizer, "notices", 48, 16)),
        "prompts": _named("prompt", "prompt", prompts),
    }


def _named(name: str, field: str, texts: Sequence[str]) -> list[Row]:
    return [{"id": f"{name}-{n:02d}", field: text} for n, text in enumerate(texts)]


def leaked(question: Row) -> str:
    """Returns a document that holds a question with its answer."""
    answer = question["choices"][question["gold"]]
    return f"Question: {question['question']}\nAnswer: {answer}"


def write_all(folder: Path) -> None:
    """Writes FOLDER/small and FOLDER/tokenizer."""
    small, tok = folder / "small", folder / "tokenizer"
    small.mkdir(parents=True, exist_ok=True)
    tok.mkdir(parents=True, exist_ok=True)
    grammar = Grammar()
    corpus = make_corpus(grammar)
    tokenizer = train_tokenizer(corpus)
    files = item_files(grammar, tokenizer)
    corpus.append(leaked(files["questions"][0]))
    files["strings"] = strings(grammar, tokenizer)
    for name, rows in files.items():
        (small / f"{name}.jsonl").write_text(_lines(rows), "utf-8")
    base = [{"id": f"document-{n:04d}", "text": text} for n, text in enumerate(corpus)]
    (small / "corpus.jsonl.gz").write_bytes(gzip.compress(_lines(base).encode(), 9, mtime=0))
    settings = {"eos_token": END_OF_DOCUMENT, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tok / "tokenizer.json").write_text(tokenizer.to_str() + "\n", "utf-8")
    (tok / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
