"""Decontamination: which strings of the items are looked for, and what a planted corpus gives.

In the tests' tokenizer a word `w12` is two tokens: [w][12] where a text begins, [ w][12] elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mixctl.injections import documents as documents_kind
from mixctl.injections.base import BaseData, Item
from mixctl.injections.encode import Encoder, load_encoder
from mixctl.pipeline.decontamination import Decontamination, Patterns, patterns
from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.executors import run_stage
from mixctl.pipeline.matches import covered, documents_to_drop, hits_table
from mixctl.pipeline.parts import Part
from mixctl.pipeline.readers import find_corpus
from mixctl.pipeline.searching import BaseDocuments, Hits, SearchTokens, hits
from mixctl.pipeline.tokenize import ReadCorpus, TokenizeDocuments
from mixctl.shards.manifest import write_table
from mixctl.shards.meta.documents import DocumentsMeta
from mixctl.shards.search import TokenSearch, save_patterns
from tests.support.workspace import write_jsonl, write_tokenizer

KIND = documents_kind.KIND
RULE = Decontamination()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(write_tokenizer(tmp_path_factory.mktemp("tok") / "tok"))


def words(first: int, n: int) -> str:
    """Returns n words from `first` on: 'w3 w4 w5'."""
    return " ".join(f"w{number}" for number in range(first, first + n))


def text_item(encoder: Encoder, name: str, text: str) -> Item:
    return Item(
        item=name,
        variants=(encoder.payloads([text])[0],),
        meta=DocumentsMeta(n_characters=None),
        text=text,
    )


def ids_item(name: str, ids: Sequence[int], *forms: Sequence[int]) -> Item:
    variants = (np.array(ids, dtype=np.uint32), np.arange(50, dtype=np.uint32))
    other = tuple(np.array(form, dtype=np.uint32) for form in forms)
    return Item(item=name, variants=variants, meta=DocumentsMeta(n_characters=None), forms=other)


def owned(made: Patterns) -> set[tuple[str, tuple[int, ...]]]:
    """Returns (item, tokens) for every string of every item."""
    return {
        (made.items[int(owner)][1], tuple(made.strings[p].tolist()))
        for p in range(len(made.strings))
        for owner in made.owner[made.first[p] : made.first[p + 1]]
    }


def test_strings_are_whole_up_to_40_tokens_and_halves_above(encoder: Encoder) -> None:
    def of(n: int) -> set[tuple[int, int]]:
        """Returns (first token, length) of the strings of the item 100, 101, ..."""
        made = patterns([("e", KIND, [ids_item("i", range(100, 100 + n))])], encoder, RULE)
        strings = [made.strings[p] for p in range(len(made.strings))]
        assert all(np.array_equal(s, np.arange(s[0], s[0] + len(s))) for s in strings)
        return {(int(s[0]) - 100, len(s)) for s in strings}

    assert of(9) == set()
    assert of(10) == {(0, 10)}
    assert of(40) == {(0, 40)}
    assert of(41) == {(0, 20), (10, 20), (20, 20)}
    assert of(43) == {(0, 21), (10, 21), (20, 21)}
    assert of(290) == {(0, 145), (72, 145), (144, 145)}


def test_items_of_text_are_also_looked_for_without_their_first_token(encoder: Encoder) -> None:
    five, ten, many = (encoder.text(words(0, n)).tolist() for n in (5, 10, 30))
    items = [text_item(encoder, f"t{n}", words(0, n)) for n in (4, 5, 10, 30)]
    made = patterns([("e", KIND, items)], encoder, RULE)
    expected = {("t5", tuple(five)), ("t10", tuple(ten)), ("t10", tuple(ten[1:]))}
    expected |= {("t30", tuple(many[b : b + 30])) for b in (0, 15, 30)}
    expected |= {("t30", tuple(many[1:30]))}
    assert owned(made) == expected
    assert made.too_short == {"e": 1}
    assert [made.items[int(n)] for n in made.not_searched] == [("e", "t4")]


def test_equal_strings_are_looked_for_once_and_belong_to_all(encoder: Encoder) -> None:
    one, other = list(range(100, 112)), list(range(120, 135))
    made = patterns(
        [
            ("b", KIND, [ids_item("q2", one), ids_item("q1", other, one, other)]),
            ("a", KIND, [ids_item("q9", one)]),
            ("absent", replace(KIND, absent=True), [ids_item("v", range(200, 230))]),
            (
                "base",
                KIND,
                [
                    Item(
                        item="s",
                        variants=(),
                        meta=DocumentsMeta(n_characters=None),
                        base=BaseData(),
                    )
                ],
            ),
        ],
        encoder,
        RULE,
    )
    assert made.items == (("a", "q9"), ("b", "q1"), ("b", "q2"))
    assert len(made.strings) == 2
    assert sorted(made.n_owners.tolist()) == [1, 3]
    assert owned(made) == {
        ("q9", tuple(one)),
        ("q1", tuple(other)),
        ("q1", tuple(one)),
        ("q2", tuple(one)),
    }
    assert made.too_short == {"a": 0, "b": 0}
    assert made.not_searched.size == 0


def test_payloads_are_cut_where_documents_end_and_begin(tmp_path: Path) -> None:
    encoder = load_encoder(write_tokenizer(tmp_path / "tok"), bos=True)
    eod, bos = encoder.eod_id, encoder.bos_id
    assert bos is not None
    one, two = list(range(100, 115)), list(range(120, 131))
    packed = [bos, *one, eod, bos, *two, eod, eod, bos, 300, eod]
    made = patterns([("e", KIND, [ids_item("i", packed), ids_item("n", [eod])])], encoder, RULE)
    assert owned(made) == {("i", tuple(one)), ("i", tuple(two))}
    assert made.too_short == {"e": 1}
    assert [made.items[int(n)] for n in made.not_searched] == [("e", "n")]


def test_nothing_to_look_for(encoder: Encoder) -> None:
    made = patterns([], encoder, RULE)
    assert (len(made.strings), made.items, made.too_short) == (0, (), {})
    empty = np.empty(0, dtype=np.int64)
    assert len(covered(Hits(empty, empty, empty, empty), made).item) == 0


def test_the_rule_refuses_halves_that_are_too_short() -> None:
    assert Decontamination(shortest=20, exact=39).action == "report"
    with pytest.raises(ValidationError, match="exact is 18: it must be at least 19"):
        Decontamination(exact=18)
    with pytest.raises(ValidationError):
        Decontamination.model_validate({"actoin": "drop"})


CORPUS = [
    [
        f"{words(0, 10)} w200",  # 0: the whole item where the document begins
        f"w200 w201 {words(0, 10)} w202",  # 1: inside a text, its first token is another
        f"w250 {words(108, 22)}",  # 2: the last 22 words of the long item
        words(100, 30),  # 3: all of the long item
        f"{words(0, 9)} w77 w10",  # 4: one word is wrong
    ],
    [
        f"w250 {words(100, 30)} w251 {words(0, 10)}",  # 0: both items
        "w1 w2 w3",  # 1: nothing
        f"{words(0, 10)} {words(0, 10)}",  # 2: the item twice
    ],
]


def searched_corpus(
    folder: Path, encoder: Encoder, made: Patterns, together: bool = False
) -> tuple[Hits, BaseDocuments]:
    """Returns what is found in CORPUS, one file a task: while it is tokenized, or afterwards."""
    base, tokens, stage = folder / "base", folder / "tokens", folder / "search"
    base.mkdir()
    for number, texts in enumerate(CORPUS):
        write_jsonl(base / f"{number}.jsonl", [{"text": text} for text in texts])
    corpus = find_corpus(str(base), "jsonl", "text", None)
    tasks = [[Part(name, 0)] for name in corpus.files]
    saved = stage / "patterns.npz"
    save_patterns(made.strings, saved)
    steps = [ReadCorpus(corpus, tasks), TokenizeDocuments(tokens, encoder)]
    search = [SearchTokens(tokens, "uint16", saved, stage)]
    behind = search if together else []
    run_stage("tokenize", [*steps, *behind], tokens, len(tasks), ExecutorConfig())
    if not together:
        run_stage("search", search, stage, 2, ExecutorConfig())
    return hits(stage, 2), BaseDocuments(tokens, "uint16")


@pytest.mark.parametrize("together", [False, True])
def test_a_planted_corpus_gives_the_rows_counted_by_hand(
    tmp_path: Path, encoder: Encoder, together: bool
) -> None:
    whole, long = text_item(encoder, "whole", words(0, 10)), text_item(encoder, "a", words(100, 30))
    experiments = [("quiz", KIND, [whole, long]), ("again", KIND, [whole])]
    made = patterns(experiments, encoder, RULE)
    found, documents = searched_corpus(tmp_path, encoder, made, together)
    table = hits_table(found, made, documents, encoder, Decontamination(action="drop"))
    columns = ["experiment", "item", "document", "offset", "length"]
    rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    of_whole = [
        (0, 0, 20),  # [w][0][ w][1]...
        (1, 5, 19),  # two words are 4 tokens, then [ w] for [w], then 19 tokens
        (5, 65, 19),  # after 1 + 30 + 1 words, 64 tokens
        (7, 0, 20),
        (7, 21, 19),
    ]
    of_long = [
        # w108 is tokens 16 and 17 of the item, 2 and 3 of the document: tokens 30 to 59 are there
        (2, 16, 30),
        (3, 0, 60),
        (5, 3, 59),
    ]
    expected = [("again", "whole", *row) for row in of_whole]
    expected += [("quiz", "a", *row) for row in of_long]
    expected += [("quiz", "whole", *row) for row in of_whole]
    assert rows == expected
    assert set(table["dropped"].to_pylist()) == {True}
    texts = table["text"].to_pylist()
    assert texts[0] == words(0, 10)
    assert texts[1] == "0 " + words(1, 9)
    assert texts[6] == words(100, 30)[:200]
    dropped = {task: numbers.tolist() for task, numbers in documents_to_drop(found).items()}
    assert dropped == {0: [0, 1, 2, 3], 1: [0, 2]}
    write_table(table, tmp_path / "decontamination.parquet")
    assert pq.read_table(tmp_path / "decontamination.parquet").to_pydict() == table.to_pydict()


def test_without_drop_the_rows_say_that_nothing_was_dropped(
    tmp_path: Path, encoder: Encoder
) -> None:
    made = patterns([("e", KIND, [text_item(encoder, "i", words(0, 10))])], encoder, RULE)
    found, documents = searched_corpus(tmp_path, encoder, made)
    table = hits_table(found, made, documents, encoder, RULE)
    assert table.num_rows == 5
    assert set(table["dropped"].to_pylist()) == {False}


def test_a_form_inside_another_does_not_shorten_the_range(encoder: Encoder) -> None:
    whole = list(range(100, 130))
    made = patterns([("e", KIND, [ids_item("i", whole, whole[5:20])])], encoder, RULE)
    pattern, begin = TokenSearch(made.strings).find(np.array([7, *whole, 7], dtype=np.uint16))
    assert begin.tolist() == [1, 6]
    nowhere = np.zeros_like(begin)
    got = covered(Hits(pattern, nowhere, nowhere, begin), made)
    assert (got.offset.tolist(), got.length.tolist()) == ([1], [30])


def runs(marked: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns (offset, length) of the unions of overlapping [begin, end), one by one."""
    out: list[tuple[int, int]] = []
    for begin, end in sorted(marked):
        if out and begin < sum(out[-1]):
            out[-1] = (out[-1][0], max(sum(out[-1]), end) - out[-1][0])
        else:
            out.append((begin, end - begin))
    return out


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_the_unions_of_the_parts(seed: int, encoder: Encoder) -> None:
    chance = random.Random(seed)
    letters = [101, 102]
    items = {f"i{n}": chance.choices(letters, k=chance.randint(1, 16)) for n in range(6)}
    texts = [chance.choices(letters, k=chance.randint(0, 80)) for _ in range(4)]
    rule = Decontamination(shortest=3, exact=6)
    made = patterns([("e", KIND, [ids_item(n, ids) for n, ids in items.items()])], encoder, rule)
    search = TokenSearch(made.strings)
    found = [search.find(np.array(text, dtype=np.uint16)) for text in texts]
    document = np.repeat(np.arange(4), [len(pattern) for pattern, _ in found])
    pattern, offset = np.concatenate(found, axis=1)
    got = covered(Hits(pattern, np.zeros_like(pattern), document, offset), made)
    expected = []
    for name, ids in items.items():
        half, quarter = len(ids) // 2, len(ids) // 4
        parts = [ids] if 3 <= len(ids) <= 6 else []
        if len(ids) > 6:
            parts = [ids[b : b + half] for b in range(0, len(ids) - half + 1, quarter)]
        for number, text in enumerate(texts):
            marked = [
                (at, at + len(part))
                for part in parts
                for at in range(len(text))
                if text[at : at + len(part)] == part
            ]
            expected += [(name, number, *run) for run in runs(marked)]
    names = [made.items[int(n)][1] for n in got.item]
    columns = [names, got.document.tolist(), got.offset.tolist(), got.length.tolist()]
    assert list(zip(*columns, strict=True)) == expected
