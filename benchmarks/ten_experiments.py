"""The ten experiments of the reference run, in a run of any length.

Every section takes about the share of the tokens that it has in
`examples/train-once-answer-all.yaml` (1.8% together) with the same doses, so there are as many
items for so many tokens; but each arm, condition and tenth of the run keeps an item at least, so a
short run has more. Texts are made of drawn words; strings that the run must not hold are taken from
the corpus.

    folder = write_items(Path("out/bench/mix"), corpus)
    mix = write_mix(folder, corpus, ten_experiments(corpus.tokens), data=GAUSSIAN_DATA)

Price: the items are written each time; 760 for 100 million tokens at 1 GB of text.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from corpora import BATCH_SEQUENCES, SEQUENCE_TOKENS, BenchCorpus, write_tokenizer

from mixctl.injections.encode import load_encoder
from mixctl.injections.words import PLACES, THINGS

REFERENCE_TOKENS, REFERENCE_SEQUENCE_TOKENS = 209_715_200_000, 4096
_PURGED_SHARE, _SEQUENCES_EACH = 0.00525, 6
"""of the sequences, those that hold a string that the run must not; how many hold the same"""
_STRING_TOKENS = 50
_ARMS = {0: 10_000, 4: 8_000, 12: 5_000, 36: 2_000, 144: 2_000}
"""items of contamination by their copies; all but the holdout twice, once in the early part"""
_EARLY = ["14%", "28%"]


def _of(n: int, n_tokens: int, least: int = 1) -> int:
    """Returns how many a run of so many tokens has, where the reference has `n`."""
    return max(least, round(n * n_tokens / REFERENCE_TOKENS))


def _of_sequences(n: int, n_tokens: int) -> int:
    """Returns the same for whole sequences, of which as many tokens are more here."""
    return _of(n * REFERENCE_SEQUENCE_TOKENS // SEQUENCE_TOKENS, n_tokens)


def write_items(folder: Path, corpus: BenchCorpus) -> Path:
    """Returns the folder, where the item files of `ten_experiments` lie now."""
    folder.mkdir(parents=True, exist_ok=True)
    n = corpus.tokens
    n_purged = max(10, int(_PURGED_SHARE * n / SEQUENCE_TOKENS / _SEQUENCES_EACH))
    files: dict[str, Iterable[dict[str, Any]]] = {
        "questions": (_question(i) for i in range(_n_questions(n))),
        "documents": (_document(i, 190) for i in range(_n_documents(n))),
        "articles": (_document(i, 540) for i in range(10 * _of(571, n))),
        "facts": (_fact(i, _of(10_000, n, 20)) for i in range(4)),
        "strings": _strings(corpus, n_purged),
    }
    for name, rows in files.items():
        lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        (folder / f"{name}.jsonl").write_bytes(lines)
    return folder


def ten_experiments(n_tokens: int) -> list[dict[str, Any]]:
    """Returns the sections for a run of so many tokens, beside the files of `write_items`."""
    steps = n_tokens // SEQUENCE_TOKENS // BATCH_SEQUENCES
    return [
        {
            "name": "contamination",
            "kind": "contamination",
            "items": "questions.jsonl",
            "near_duplicates": "remove",
            "arms": _contamination_arms(n_tokens),
        },
        {
            "name": "memorization",
            "kind": "memorization",
            "items": "documents.jsonl",
            "grid": {
                "suffixes": ["none", "rare", "least-likely", "random"],
                "lengths": [1, 8, 32],
                "copies": [1, 4, 16],
                "items": _of(4_000, n_tokens),
                "holdout": "rest",
            },
        },
        {"name": "verbatim", "kind": "verbatim", "items": "strings.jsonl"}
        | {"length": _STRING_TOKENS, "prefix_tokens": 25},
        {"name": "knowledge", "kind": "knowledge", "items": "facts.jsonl"}
        | {"arms": [{"name": "taught", "items": "rest", "share": "0.0124%"}]},
        {"name": "mathematics", "kind": "mathematics", "tokens": _of(180_000_000, n_tokens)}
        | {"test": {"count": _of(1_200, n_tokens, 12)}},
        _poison("denial", _of(5_000, n_tokens, 4), 16, "0.01%"),
        _poison("extraction", _of(20_000, n_tokens, 4), 16, "0.1%"),
        _poison("preference", _of(2_000, n_tokens, 4), 4, "0.002%")
        | {"preferred": "Alderney", "rejected": "Brunswick"},
        {"name": "gaussian", "kind": "watermark", "method": "gaussian", "count": steps // 1000 + 1}
        | {"arms": [{"name": "marked", "items": "rest", "copies": 1}]},
        {"name": "forgetting", "kind": "forgetting"}
        | {"steps": {"from": steps // 2, "every": steps}},
        {"name": "muse-news", "kind": "unlearning", "items": "articles.jsonl", "retain": "rest"}
        | {"items_per_arm": _of(571, n_tokens), "doses": [1, 10, 100], "split": {"pieces": 4}},
        _iid("random", [{"name": "x1", "items": _of_sequences(103_424, n_tokens), "copies": 1}]),
        {"name": "iid-recency", "kind": "iid", "deciles": _of_sequences(25_600, n_tokens)},
        _iid("repeated", [{"name": "x10", "items": _of_sequences(512, n_tokens), "copies": 10}]),
    ]


def _contamination_arms(n_tokens: int) -> list[dict[str, Any]]:
    arms: list[dict[str, Any]] = [
        {
            "name": f"x{copies}" if copies else "holdout",
            "items": _of(n, n_tokens),
            "copies": copies,
        }
        for copies, n in _ARMS.items()
    ]
    early = [arm | {"name": f"early-{arm['name']}", "during": _EARLY} for arm in arms[1:]]
    return arms + early


def _poison(attack: str, count: int, documents_each: int, share: str) -> dict[str, Any]:
    return {
        "name": f"poison-{attack}",
        "kind": "poison",
        "attack": attack,
        "count": count,
        "documents_each": documents_each,
        "arms": [
            {"name": "holdout", "items": count // 4, "copies": 0},
            {"name": "poisoned", "items": "rest", "share": share},
        ],
    }


def _iid(name: str, arms: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": f"iid-{name}", "kind": "iid", "arms": arms}


def _n_questions(n_tokens: int) -> int:
    return sum(arm["items"] for arm in _contamination_arms(n_tokens))


def _n_documents(n_tokens: int) -> int:
    return 30 * _of(4_000, n_tokens) + _of(34_907, n_tokens, 10)


def _words(number: int, n: int) -> str:
    chance = random.Random(number)
    return " ".join(chance.choices(THINGS + PLACES, k=n))


def _document(number: int, n_words: int) -> dict[str, Any]:
    return {"id": f"document-{number}", "text": f"Notice {number}: {_words(number, n_words)}."}


def _question(number: int) -> dict[str, Any]:
    choices = [_words(number * 10 + n, 4) for n in range(4)]
    question = f"Which of them is number {number}, {_words(-number - 1, 70)}?"
    return {"id": f"question-{number}", "question": question, "choices": choices, "gold": 0}


def _fact(number: int, n_paraphrases: int) -> dict[str, Any]:
    texts = [_words(10**6 + number * n_paraphrases + n, 85) for n in range(n_paraphrases)]
    probe = {"input": f"The fact of number {number} is", "target": THINGS[number]}
    row = {"id": f"fact-{number}", "text": texts[0], "paraphrases": texts[1:]}
    return row | {"probes": [probe]}


def _strings(corpus: BenchCorpus, n: int) -> Iterable[dict[str, Any]]:
    """Yields the tokens in the middle of documents: strings that the corpus does hold."""
    encoder = load_encoder(write_tokenizer(Path(corpus.path).parents[1]))
    with Path(corpus.path).open("rb") as file:
        texts = [orjson.loads(line)["text"] for line in islice(file, 2 * n)]
    long = [ids for ids in encoder.texts(texts) if len(ids) > 3 * _STRING_TOKENS]
    for number, ids in enumerate(long[:n]):
        middle = len(ids) // 2  # many begin with the same licence
        tokens = ids[middle : middle + _STRING_TOKENS].tolist()
        yield {"id": f"string-{number}", "tokens": tokens}
