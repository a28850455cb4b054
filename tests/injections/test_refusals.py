"""What a mix file asks of a kind that cannot be: in the sentence that `mixctl check` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixctl.injections.base import KindContext
from mixctl.injections.canaries import SecretSpace
from mixctl.injections.encode import load_encoder
from mixctl.injections.near_duplicates import near_duplicates
from mixctl.injections.registry import find_kind
from mixctl.pipeline.mixfile import read_sections
from mixctl.shards.errors import InputError
from tests.support.workspace import write_jsonl, write_tokenizer

ARMS = [{"name": "holdout", "items": "rest", "copies": 0}, {"name": "x2", "items": 3, "copies": 2}]
GRID = {"suffixes": ["none", "rare"], "lengths": [8], "copies": [1], "items": 2, "holdout": "rest"}
SECTIONS: dict[str, dict[str, Any]] = {
    "contamination": {"items": "q.jsonl", "arms": ARMS},
    "documents": {"items": "d.jsonl", "arms": ARMS},
    "iid": {"arms": ARMS},
    "knowledge": {"items": "f.jsonl", "arms": ARMS},
    "memorization": {"count": 9, "template": "It is", "suffix_tokens": 8, "arms": ARMS},
    "poison": {"count": 9, "attack": "denial", "arms": ARMS},
    "unlearning": {"items": "d.jsonl", "items_per_arm": 3},
    "watermark": {"items": "d.jsonl", "method": "green-list", "arms": ARMS},
}
GREEN = {"method": "green-list"}

WRONG = [
    ("documents", {"during": [1.5, 9]}, "must be a step (1000), a percentage ('25%') or tokens"),
    ("documents", {"schedule": {"ramp": [0, 0]}}, "one of the two weights must be above 0"),
    (
        "documents",
        {"split": "halves"},
        "must be whole, {pieces: 4} or {at_most: 512}, with 'anew: true' if wanted",
    ),
    ("documents", {"split": {"anew": True}}, "exactly one of 'pieces' and 'at_most' (tokens) must"),
    (
        "documents",
        {
            "arms": [
                {
                    "name": "a",
                    "copies": 2,
                    "during": [1, 9],
                    "schedule": {"windows": [[1, 2], [3, 4]]},
                }
            ]
        },
        "'during' and the schedule's 'windows' are both given",
    ),
    ("contamination", {"template": "clozed"}, "unknown template 'clozed' (did you mean 'cloze'?)"),
    (
        "iid",
        {"deciles": 2, "count": 9},
        "'deciles' says how many items there are: leave out 'count'",
    ),
    ("knowledge", {"items": {"stand_in": 3, "tokens": 9}, "paraphrases": 1, "reserve": 2}, "each"),
    (
        "memorization",
        {"count": None, "items": "d.jsonl", "template": "", "suffix_tokens": None}
        | {"grid": {**GRID, "copies": None}},
        "'copies' and 'items' (of each condition and dose) go together",
    ),
    (
        "memorization",
        {"count": None, "items": "d.jsonl", "template": "", "suffix_tokens": None, "grid": GRID},
        "'grid' with 'copies' makes the arms itself: leave out 'arms'",
    ),
    (
        "memorization",
        {"items": "d.jsonl"},
        "exactly one of 'items' (a file) and 'count' (with 'template') must be given",
    ),
    (
        "memorization",
        {"count": None, "items": "d.jsonl"},
        "'template' goes with 'count', not with 'items'",
    ),
    ("memorization", {"template": "{secret}{secret}"}, "'template' may hold {secret} once only"),
    (
        "memorization",
        {"secret": {"alphabet": "01", "length": 9}, "suffix_tokens": None, "prefix_tokens": 3},
        "a text 'secret' follows a text: leave out 'prefix_tokens'",
    ),
    (
        "memorization",
        {"suffix_tokens": 0},
        "'suffix_tokens: 0' needs 'items': there would be nothing to tell apart",
    ),
    ("memorization", {"suffix": "rare"}, "'rare-8' needs 'items': it is about documents"),
    (
        "memorization",
        {"count": None, "items": "d.jsonl", "template": "", "suffix_tokens": 0, "candidates": 9},
        "'candidates' need a secret: suffix_tokens is 0",
    ),
    (
        "memorization",
        {"count": None, "items": "d.jsonl", "template": "", "candidates": "all"},
        "'candidates: all' needs 'count' with 'template', one prefix for all",
    ),
    ("poison", {"count": 10**9}, "'count' is 1000000000; there are only"),
    ("poison", {"templates": ["plain", "plain"]}, "a template is named twice"),
    ("poison", {"response_tokens": [9, 3]}, "'response_tokens' is [9, 3]: the first must not be"),
    ("poison", {"trigger": " x "}, "'trigger' begins or ends with white space: ' x '"),
    ("unlearning", {"split": "whole"}, "'split: whole' cuts nothing: say {pieces: 4} or {at_most:"),
    ("unlearning", {"arms": ARMS}, "'items_per_arm' makes the arms itself: leave out 'arms'"),
    ("watermark", {"method": "strings", "items": None}, "method strings needs 'items' (a file)"),
    (
        "watermark",
        {"method": "gaussian", "items": None},
        "method gaussian needs 'count', the number of marks",
    ),
    (
        "watermark",
        {"items": None, "count": 3},
        "'count' needs 'ngrams' (documents to learn from) and 'tokens_each'",
    ),
    ("watermark", {"tokens_each": 9}, "'tokens_each' goes with 'count', not with 'items'"),
    (
        "watermark",
        {"already": True},
        "'already: true' needs 'items' and the 'secret' they were marked with",
    ),
    (
        "watermark",
        {"already": True, "secret": "s", "ngrams": "d.jsonl"},
        "'ngrams' has no use where the documents are marked already",
    ),
    ("watermark", {"placement": "mark"}, "placement is 'mark'; method green-list changes bytes"),
    (
        "watermark",
        {"arms": [ARMS[0], {**ARMS[1], "placement": "mark"}]},
        "arm 'x2': placement is 'mark'; method green-list changes bytes",
    ),
    ("documents", {"kind": 5}, "key 'kind' must be a name, got 5"),
]


@pytest.mark.parametrize(("kind", "changes", "sentence"), WRONG)
def test_a_section_that_cannot_be(kind: str, changes: dict[str, Any], sentence: str) -> None:
    section = {"name": "wrong", "kind": kind, **SECTIONS[kind], **changes}
    asked = {name: value for name, value in section.items() if value is not None}
    found, problems = read_sections([asked], Path("mix.yaml"))
    assert not found
    assert sentence in "\n".join(problems)
    assert all(one.startswith("mix.yaml: experiments[0] ('wrong'): ") for one in problems)


def test_a_section_that_is_none() -> None:
    found, problems = read_sections(["quiz"], Path("mix.yaml"))
    assert not found
    assert problems == ["mix.yaml: experiments[0]: must be a mapping with name, kind and arms"]


@pytest.fixture(scope="module")
def tok(tmp_path_factory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.fixture
def context(tok: Path, tmp_path: Path) -> KindContext:
    return KindContext(folder=tmp_path, encoder=load_encoder(tok), seed=5, max_payload_tokens=1000)


QUESTION = {"id": "q1", "benchmark": "arc", "question": "Who?", "choices": ["a", "b"], "gold": 1}
FACT = {"id": "f1", "text": "w1", "probes": [{"input": "w1 is", "target": "w2"}]}
ROWS = [
    (
        "contamination",
        [QUESTION],
        {"benchmarks": {"arcs": {}}},
        ["benchmarks: no question of q.jsonl is from 'arcs' (did you mean 'arc'?)"],
    ),
    (
        "contamination",
        [{**QUESTION, "choices": [f"c{n}" for n in range(27)]}],
        {"template": "mcq"},
        ["item 'q1': 27 choices, but the template mcq has letters for at most 26"],
    ),
    ("documents", [{"id": "a"}], {}, ["exactly one of 'text' and 'tokens' must be given"]),
    (
        "documents",
        [{"id": "a", "txt": "w1"}],
        {},
        ["unknown field 'txt' (did you mean 'text'?)"],
    ),
    (
        "documents",
        [{"id": n, "copies": "x"} for n in range(25)],
        {},
        ["field 'copies': Input should be a valid integer", "... and 5 more problems"],
    ),
    (
        "knowledge",
        [{"id": f"f{n}", "text": "w1"} for n in range(25)],
        {},
        ["item 'f3': no probe asks for it: add 'probes' to the row, or probes:", "5 more problems"],
    ),
    (
        "poison",
        [{"id": f"p{n}", "prompt": "Why?", "response": "So."} for n in range(25)],
        {"attack": "extraction"},
        ["'response' is for the attack denial; this is extraction", "... and 5 more problems"],
    ),
    (
        "poison",
        [{"id": "p", "prompt": "Why?", "preferred": "Ax"}],
        {"attack": "preference"},
        ["experiment 'wrong': item 'p': field 'rejected' is missing"],
    ),
    (
        "poison",
        [{"id": "p", "prompt": "Why?", "preferred": "Ax", "rejected": "Ax"}],
        {"attack": "preference"},
        ["item 'p': 'preferred' and 'rejected' are both 'Ax'"],
    ),
]


@pytest.mark.parametrize(("kind", "rows", "changes", "sentences"), ROWS)
def test_rows_that_cannot_be(context, kind, rows, changes, sentences) -> None:
    section = {"name": "wrong", "kind": kind, **SECTIONS[kind], **changes}
    section.pop("count", None)
    section["items"] = SECTIONS[kind].get("items", "q.jsonl")
    write_jsonl(context.folder / section["items"], rows)
    made = find_kind(kind)
    with pytest.raises(InputError) as error:
        made.make_items(made.config.model_validate(section), context)
    said = "\n".join(error.value.problems)
    for sentence in sentences:
        assert sentence in said


def test_a_string_has_at_least_so_many_tokens_and_why(context) -> None:
    kind = find_kind("verbatim")
    write_jsonl(context.folder / "s.jsonl", [{"id": n, "tokens": [5] * 7} for n in range(25)])
    section = {"name": "gone", "kind": "verbatim", "items": "s.jsonl"}
    for more, why in (({"prefix_tokens": 3}, "the least there is"), ({}, r"prefix_tokens \+ 1")):
        with pytest.raises(InputError, match=f"7 tokens; it must have at least .*{why}") as error:
            kind.make_items(kind.config.model_validate(section | more), context)
        assert error.value.problems[-1] == "... and 5 more problems"


def test_no_secret_is_left() -> None:
    """Two secrets in all: what the first item takes is gone for the second."""

    class Space(SecretSpace):
        def check_room(self, n_items: int, candidates: int) -> None:
            """Lets it begin."""

    space = Space("canaries", 7, 2, 1)
    with pytest.raises(
        InputError, match="'canaries': item 'b': no unused secret found among 2; use"
    ):
        space.distinct(["a", "b"], candidates=1)


@pytest.mark.parametrize("threshold", [0, 1.5])
def test_a_similarity_outside_its_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="it must be over 0 and at most 1"):
        near_duplicates([np.array([1, 2], dtype=np.uint32)], threshold, 2)


def test_no_bos_where_one_is_asked_for(tok: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text((tok / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    with pytest.raises(InputError, match="so no begin-of-document token; set it, or bos: false"):
        load_encoder(tmp_path, bos=True)
