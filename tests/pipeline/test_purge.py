"""Strings that must occur nowhere, and documents that are dropped: planted, built, looked for."""

import json
import random
import shutil
from importlib.metadata import EntryPoint

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from mixctl.injections import registry
from mixctl.pipeline import build as build_module
from mixctl.pipeline.build import build
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.order import TrainingOrder
from mixctl.shards.record import read_record
from mixctl.shards.verify import verify
from tests.pipeline.test_modes import reseal
from tests.support.slow_mix import SlowBase, rows_of, run_blocks, slow_blocks
from tests.support.workspace import Workspace, documents, random_text, write_jsonl

BATCH, WIDTH, STEPS = 8, 65, 40
PHRASES = ["w11 w22 w33 w44 w55", "w22 w33 w44 w55 w66 w77", "w101 w102 w103 w104"]
ITEM = "w201 w5 w202 w6 w203 w7 w204 w8"


def planted(chance, number):
    """Returns a document; some hold phrases inside, some the whole text of an item."""
    words = random_text(chance, chance.randint(20, 120)).split(" ")
    for phrase in PHRASES[:2] if number % 5 == 0 else PHRASES[2:] if number % 31 == 0 else []:
        words.insert(chance.randint(1, len(words) - 1), phrase)
    if number % 40 == 7:
        words.insert(chance.randint(1, len(words) - 1), ITEM)
    return " ".join(words)


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """Registers the kind `absent` as another package would."""
    points = [EntryPoint("absent", "tests.support.plugin:ABSENT", registry.GROUP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: points)
        registry._plugins.cache_clear()
        yield
    registry._plugins.cache_clear()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, plugin):
    made = Workspace(tmp_path_factory.mktemp("purge") / "work")
    chance = random.Random(8)
    rows = [{"id": n, "text": planted(chance, n)} for n in range(500)]
    write_jsonl(made.folder / "corpus.jsonl", rows)
    write_jsonl(made.folder / "leaked.jsonl", [{"id": "i", "text": ITEM, "copies": 3}])
    made.trainer(max_tokens=BATCH * 64 * STEPS)
    return made


@pytest.fixture(scope="module")
def strings(workspace):
    """Returns the tokens of the phrases inside a text."""
    tokenizer = Tokenizer.from_file(str(workspace.folder / "tok/tokenizer.json"))
    return [tokenizer.encode(f" {phrase}").ids for phrase in PHRASES]


def absent(strings, **changes):
    return {"name": "never", "kind": "absent", "strings": strings, **changes}


def sections(strings):
    bound = {"name": "bound", "kind": "documents", "items": "documents.jsonl"}
    again = [{"name": "no", "items": 3, "copies": 0}, {"name": "x2", "items": 4, "copies": 2}]
    chosen = [{"name": "x1", "items": "rest", "copies": 1}]
    return [
        absent(strings[:2]),
        absent(strings[2:], name="also"),
        {**bound, "placement": "boundary"},
        documents(),
        {"name": "again", "kind": "iid", "arms": again},
        {"name": "chosen", "kind": "iid", "selected": list(range(0, 60, 3)), "arms": chosen},
    ]


@pytest.fixture(scope="module")
def purged(workspace, strings):
    out = workspace.folder / "purged"
    build(
        workspace.mix(*sections(strings), name="purged.yaml", seed=1), out, control=True, workers=2
    )
    return out


@pytest.fixture(scope="module")
def base(workspace, purged):
    return SlowBase(workspace.folder, purged)


def holds(row, string):
    """Returns whether a list holds another, place by place."""
    return any(row[n : n + len(string)] == string for n in range(len(row) - len(string) + 1))


def with_any(rows, strings):
    """Returns the numbers of the rows that hold one of the strings."""
    return {n for n, row in enumerate(rows) if any(holds(row, string) for string in strings)}


def test_no_block_of_the_run_holds_a_string_and_all_are_in_the_twin(purged, base, strings):
    run, twin = run_blocks(purged).tolist(), run_blocks(purged, "control/train").tolist()
    assert with_any(run, strings) == set()
    assert twin == [base.block(n) for n in range(len(twin))]
    held = with_any(twin, strings)
    assert len(held) > 30
    assert {*range(base.needed, len(twin))} <= held, "what fills the blocks after the run has one"
    held = {min(n, base.needed) for n in held}
    assert {r["sequence"] for r in rows_of(purged, "replacements")} == held


def test_every_block_is_what_a_slow_reconstruction_gives(purged, base):
    expected, found = slow_blocks(base, purged), run_blocks(purged).tolist()
    assert [n for n in range(len(found)) if found[n] != expected[n]] == []
    touched = {r["sequence"] for r in rows_of(purged, "replacements")}
    rows = rows_of(purged, "placements")
    for mode in ("boundary", "overwrite"):
        assert any(r["mode"] == mode and r["sequence"] in touched for r in rows)


def test_replacements_are_clean_spare_sequences_used_once(purged, base, strings):
    rows = [r for r in rows_of(purged, "replacements") if r["sequence"] < base.needed]
    spare = [r["source_sequence"] for r in rows_of(purged, "placements")]
    chosen = {r["source"] for r in rows}
    used = {s for s in spare if s is not None and s >= base.needed}
    assert len(chosen) == len(rows)
    assert all(base.needed <= s < len(base.rows) for s in chosen | used)
    assert not with_any([base.sequence(s) for s in chosen | used], strings)
    named = {
        r["source_sequence"] for r in rows_of(purged, "placements") if r["experiment"] == "again"
    }
    assert len(named) == 4
    assert not named & chosen
    for row in rows:
        old = base.sequence(row["sequence"])
        lowest = next(n for n in (2, 0, 1) if holds(old, strings[n]))  # `also` before `never`
        assert row["reason"] == ("purge:also" if lowest == 2 else "purge:never")


def test_a_selected_sequence_that_was_replaced_is_placed_as_it_is_now(purged, base):
    replaced = {r["sequence"]: r["source"] for r in rows_of(purged, "replacements")}
    rows = [r for r in rows_of(purged, "placements") if r["experiment"] == "chosen"]
    wanted = [replaced.get(int(r["item"].removeprefix("selected-")), None) for r in rows]
    assert any(one is not None for one in wanted)
    for row, source in zip(rows, wanted, strict=True):
        assert source in (None, row["source_sequence"])


def test_held_out_spares_are_written_down_and_in_no_sequence(purged, base, strings):
    run = {tuple(row) for row in run_blocks(purged)[: base.needed].tolist()}
    held_out = [r["tokens"] for r in rows_of(purged, "items") if r["arm"] == "no"]
    assert len(held_out) == 3
    assert not {tuple(row) for row in held_out} & run
    assert not with_any(held_out, strings)


def test_the_totals_count_replaced_sequences(purged, base):
    record = read_record(purged)
    assert record.absent == ["also", "never"]
    rows = [r for r in rows_of(purged, "replacements") if r["sequence"] < base.needed]
    for name in record.absent:
        mine = [r for r in rows if r["reason"] == f"purge:{name}"]
        total = record.totals[name]
        assert (total.replaced_sequences, total.placements, total.tokens) == (len(mine), 0, 0)
        assert total.share == pytest.approx(len(mine) * WIDTH / (STEPS * BATCH * 64))
    assert record.totals["docs"].replaced_sequences == 0


def test_it_verifies(purged):
    assert verify(purged, full=True).blocks == read_record(purged).geometry.layout().n_blocks


def test_a_payload_with_a_forbidden_string_is_refused(workspace, strings):
    rows = [{"id": f"d{n}", "text": f"w1 w2 {PHRASES[n]} w3", "copies": 1} for n in range(3)]
    write_jsonl(workspace.folder / "bad.jsonl", rows)
    mix = workspace.mix(absent(strings[:1]), documents(items="bad.jsonl"), name="bad.yaml")
    with pytest.raises(InputError) as error:
        build(mix, workspace.folder / "never")
    assert error.value.problems == [
        f"{mix}: experiment 'docs': item 'd0': the payload holds the string of item 'string-0', "
        "which experiment 'never' wants nowhere in the run: drop one of the two"
    ]
    assert not (workspace.folder / "never").exists()


def test_a_string_over_the_seam_of_two_payloads_is_none(workspace, strings):
    """The search of payloads end to end must not see what lies in two of them."""
    half = len(strings[0]) // 2
    halves = [strings[0][:half], strings[0][half:]]
    rows = [{"id": f"d{n}", "tokens": ids, "copies": 1} for n, ids in enumerate(halves)]
    write_jsonl(workspace.folder / "halves.jsonl", rows)
    out = workspace.folder / "halves"
    sections = [absent(strings[:1]), documents(items="halves.jsonl")]
    build(workspace.mix(*sections, name="halves.yaml"), out)
    assert with_any(run_blocks(out).tolist(), strings[:1]) == set()


def test_too_few_clean_sequences_are_counted_and_nothing_is_left(workspace, strings):
    iid = {"name": "again", "kind": "iid", "arms": [{"name": "x", "items": 5000, "copies": 0}]}
    out = workspace.folder / "few"
    with pytest.raises(
        InputError, match=r"5000 more are asked for as spare base data \(.*\) and \d+ to"
    ):
        build(workspace.mix(absent(strings), iid, name="few.yaml"), out)
    assert not out.exists()


def test_a_string_that_was_left_is_not_sealed(workspace, strings, monkeypatch):
    """Were a replacement forgotten, the search of what was written would stop the build."""

    def forgetful(*arguments):
        plan, stream, dirty = arguments
        return resolve(plan, stream, tuple(part[1:] for part in dirty))

    resolve = build_module.resolve
    monkeypatch.setattr(build_module, "resolve", forgetful)
    out = workspace.folder / "left"
    with pytest.raises(
        VerificationError, match=r"train/chunk-\d+.bin: holds \d+ forbidden strings"
    ):
        build(workspace.mix(absent(strings), name="left.yaml"), out)
    assert not (out / "mix.json").exists()


@pytest.fixture(scope="module")
def dropped(workspace, strings):
    out = workspace.folder / "dropped"
    rule = {"action": "drop"}
    sections = [absent(strings), documents(items="leaked.jsonl")]
    mix = workspace.mix(*sections, name="dropped.yaml", decontamination=rule)
    build(mix, out, control=True)
    return out


def test_dropped_documents_are_in_neither_run_nor_twin(workspace, dropped, strings):
    texts = [json.loads(t)["text"] for t in (workspace.folder / "corpus.jsonl").open()]
    with_item = {n for n, text in enumerate(texts) if ITEM in text}
    assert len(with_item) == 12 + 1
    slow = SlowBase(workspace.folder, dropped, dropped=with_item)
    record = read_record(dropped)
    assert record.corpus["documents"] == len(texts) - len(with_item)
    assert record.decontamination["documents_dropped"] == len(with_item)
    twin = run_blocks(dropped, "control/train").tolist()
    assert twin == [slow.block(n) for n in range(len(twin))]
    assert run_blocks(dropped).tolist() == slow_blocks(slow, dropped)
    held = {min(n, slow.needed) for n in with_any(twin, strings)}
    assert {r["sequence"] for r in rows_of(dropped, "replacements")} == held
    tokenizer = Tokenizer.from_file(str(workspace.folder / "tok/tokenizer.json"))
    item = tokenizer.encode(f" {ITEM}").ids[2:]
    val = [list(row) for row in slow.val]
    assert not with_any([*twin, *val], [item])
    placed = [r["sequence"] for r in rows_of(dropped, "placements")]
    assert with_any(run_blocks(dropped).tolist(), [item]) == set(placed)
    verify(dropped, full=True)


def test_what_was_there_is_listed(dropped):
    rows = pq.read_table(dropped / "manifest/decontamination.parquet").to_pylist()
    assert {(r["experiment"], r["item"], r["dropped"]) for r in rows} == {("docs", "i", True)}
    assert len({r["document"] for r in rows}) == 13
    assert {r["document"] % 40 for r in rows} == {7}


def test_a_changed_token_of_a_replaced_sequence_is_found(purged, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(purged, out)
    placed = {r["sequence"] for r in rows_of(out, "placements")}
    record = read_record(out)
    geometry = record.geometry
    order = TrainingOrder(geometry.topology(), geometry.layout())
    sequence = next(
        r["sequence"] for r in rows_of(out, "replacements") if r["sequence"] not in placed
    )
    chunk, block = (int(x) for x in order.slots(sequence))
    path = out / "train" / f"chunk-{chunk:06d}.bin"
    data = bytearray(path.read_bytes())
    data[12 + 2 * (block * WIDTH + 30)] ^= 1
    path.write_bytes(bytes(data))
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        text = (out / name).read_text().replace(str(purged.resolve()), str(out.resolve()))
        (out / name).write_text(text)
    reseal(out)
    with pytest.raises(VerificationError, match="is not the base data that replaces"):
        verify(out, full=True)
