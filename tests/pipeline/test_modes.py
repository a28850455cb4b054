"""One build with every placement mode, against a slow reconstruction of every block."""

import random
import re
import shutil
from importlib.metadata import EntryPoint

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixctl.injections import registry
from mixctl.pipeline.build import build
from mixctl.pipeline.mixfile import read_mix
from mixctl.pipeline.plan import make_plan
from mixctl.shards import verify_chunks
from mixctl.shards.chunks import block_digests, open_chunk
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_file
from mixctl.shards.manifest import write_table
from mixctl.shards.record import read_record, write_record
from mixctl.shards.verify import verify
from mixctl.shards.verify_manifest import check_manifest
from tests.pipeline.test_build import assert_same
from tests.support.slow_mix import SlowBase, rows_of, run_blocks, slow_blocks
from tests.support.workspace import Workspace, documents, quiz, random_text, write_jsonl

BATCH, WIDTH, STEPS = 8, 65, 150
EACH = {"items": "rest", "copies": 2}


def sections():
    """Returns experiments of every mode, in an order that is not that of their names."""
    long = [
        {"name": "holdout", "items": 4, "copies": 0},
        {"name": "once", "items": 6, "copies": 3, "split": {"pieces": 3}},
        {"name": "anew", "items": 6, "copies": 3, "split": {"at_most": 16, "anew": True}},
        {"name": "front", "items": 6, "share": "1%", "placement": "boundary"},
        {"name": "late", "items": "rest", "copies": 3, "schedule": {"ramp": [0, 1]}},
    ]
    again = [{"name": "no", "items": 5, "copies": 0}, {"name": "x3", "items": 7, "copies": 3}]
    return [
        quiz(arms=[{"name": "x3", "items": "rest", "copies": 3}]),
        {"name": "marks", "kind": "marks", "count": 9, "arms": [{"name": "x2", **EACH}]},
        {"name": "bound", "kind": "documents", "items": "documents.jsonl"}
        | {"placement": "boundary", "during": ["10%", "90%"]},
        documents(name="pieces", items="long.jsonl", arms=long),
        documents(
            name="rows", items="rows.jsonl", placement="sequence", arms=[{"name": "x", **EACH}]
        ),
        documents(
            name="steps", items="steps.jsonl", placement="batch", arms=[{"name": "x", **EACH}]
        ),
        {"name": "noisy", "kind": "marks", "count": 3, "whole_steps": True}
        | {"arms": [{"name": "x1", "items": "rest", "copies": 1}]},
        {"name": "again", "kind": "iid", "arms": again},
        {"name": "chosen", "kind": "iid", "selected": [3, 77, 1000]}
        | {"arms": [{"name": "x2", **EACH}]},
        {"name": "fresh", "kind": "forgetting", "steps": [20, 60], "holdout": 1},
    ]


def workspace_in(folder):
    """Returns a workspace with the item files and the kind of the sections."""
    made = Workspace(folder)
    chance = random.Random(5)
    rows = [{"id": f"l{n}", "text": random_text(chance, 14)} for n in range(30)]
    write_jsonl(folder / "long.jsonl", rows)

    def tokens(n):
        return [chance.randrange(300, 500) for _ in range(n)]

    write_jsonl(folder / "rows.jsonl", [{"id": f"r{n}", "tokens": tokens(65)} for n in range(4)])
    write_jsonl(folder / "steps.jsonl", [{"id": f"s{n}", "tokens": tokens(520)} for n in range(2)])
    noisy = {
        "class_path": "mixctl.trainer_configs.gaussian.GaussianLitData",
        "init_args": {"seed": 7, "num_workers": 0},
    }
    made.trainer(max_tokens=BATCH * 64 * STEPS, data=noisy)
    return made


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """Registers the kind `marks` as another package would."""
    points = [EntryPoint("marks", "tests.support.plugin:MARKS", registry.GROUP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: points)
        registry._plugins.cache_clear()
        yield
    registry._plugins.cache_clear()


@pytest.fixture(scope="module")
def modes(tmp_path_factory, plugin):
    """Returns the workspace and its build with the twin."""
    made = workspace_in(tmp_path_factory.mktemp("modes") / "work")
    out = made.folder / "out"
    build(made.mix(*sections()), out, control=True)
    return made, out


@pytest.fixture(scope="module")
def base(modes):
    return SlowBase(modes[0].folder, modes[1])


def test_every_block_is_what_a_slow_reconstruction_gives(modes, base):
    _, out = modes
    assert {r["mode"] for r in rows_of(out, "placements")} == {
        *("overwrite", "boundary", "sequence", "batch", "mark")
    }
    expected = slow_blocks(base, out)
    twin = [base.block(n) for n in range(len(expected))]
    assert run_blocks(out, "control/train").tolist() == twin
    found = run_blocks(out).tolist()
    assert [n for n in range(len(found)) if found[n] != expected[n]] == []
    assert sum(found[n] != twin[n] for n in range(len(found))) > 200


def test_it_verifies(modes):
    report = verify(modes[1], full=True)
    assert report.placements == len(rows_of(modes[1], "placements"))


def test_boundary_goes_behind_a_document_wherever_one_leaves_room(modes, base):
    kinds = set()
    for row in rows_of(modes[1], "placements"):
        if row["mode"] == "boundary":
            old = base.sequence(row["sequence"])
            ends = [n + 1 for n, t in enumerate(old) if t == 0 and n + row["length"] + 2 <= WIDTH]
            assert row["offset"] in (ends or [1])
            assert (row["changed_offset"], row["changed_length"]) == (
                row["offset"] - 1,
                WIDTH - row["offset"] + 1,
            )
            kinds.add(bool(ends))
    assert kinds == {True, False}


def test_doses_windows_and_given_steps_are_exact(modes):
    items = {(r["experiment"], r["item"]): r for r in rows_of(modes[1], "items")}
    placed = dict.fromkeys(items, 0)
    given = {"batch-000000020": 20, "batch-000000060": 60}
    for row in rows_of(modes[1], "placements"):
        placed[row["experiment"], row["item"]] += row["part"] == 0
        assert row["step"] == row["sequence"] // BATCH + 1 == given.get(row["item"], row["step"])
        low, high = (16, 135) if row["experiment"] == "bound" else (2, STEPS)
        assert low <= row["step"] <= high
        assert row["loss_tokens"] == row["length"] - (row["offset"] == 0)
    assert placed == {key: row["copies"] for key, row in items.items()}


def test_whole_sequences_and_steps_are_shared_with_nothing(modes):
    sequences, steps = {}, {}
    for row in rows_of(modes[1], "placements"):
        sequences.setdefault(row["sequence"], []).append(row)
        steps.setdefault(row["step"], []).append(row)
    for rows in sequences.values():
        assert len(rows) == 1 or {r["mode"] for r in rows} == {"overwrite"}
    whole = [rows for rows in steps.values() if "batch" in {r["mode"] for r in rows}]
    whole += [rows for rows in steps.values() if "noisy" in {r["experiment"] for r in rows}]
    assert len(whole) == 2 * 2 + 2 + 3
    for rows in whole:
        assert sorted(r["part"] for r in rows) == list(range(BATCH))
        assert sorted(r["sequence"] % BATCH for r in rows) == list(range(BATCH))
        assert len({(r["experiment"], r["item"], r["copy"]) for r in rows}) == 1


def test_spare_base_data_is_in_no_other_sequence_of_run_or_twin(modes, base):
    _, out = modes
    needed = base.needed
    run = {tuple(row) for row in run_blocks(out)[:needed].tolist()}
    twin = {tuple(row) for row in run_blocks(out, "control/train")[:needed].tolist()}
    used = [r for r in rows_of(out, "placements") if r["source_sequence"] is not None]
    spare = {r["source_sequence"] for r in used if r["source_sequence"] >= needed}
    assert len(spare) == 7 + 2 * BATCH
    assert {r["source_sequence"] for r in used} - spare == {3, 77, 1000}
    for number in spare:
        assert tuple(base.sequence(number)) in run - twin
    held_out = [r for r in rows_of(out, "items") if r["arm"] in ("no", "holdout") and r["tokens"]]
    held_out = [r for r in held_out if r["experiment"] in ("again", "fresh")]
    assert len(held_out) == 5 + 1
    for row in held_out:
        for begin in range(0, len(row["tokens"]), WIDTH):
            assert tuple(row["tokens"][begin : begin + WIDTH]) not in run | twin


def test_same_bytes_with_two_workers_from_another_folder(modes, tmp_path):
    other = workspace_in(tmp_path / "elsewhere" / "deep")
    build(other.mix(*reversed(sections())), tmp_path / "out", control=True, workers=2)
    assert_same(modes[1], tmp_path / "out")


def places(workspace, *experiments):
    """Returns {(experiment, item, copy, part): (sequence, offset, length, whole)} of a plan."""
    found = {}
    for e in make_plan(read_mix(workspace.mix(*experiments, name="planned.yaml"))).experiments:
        c = e.copies
        names = [item.item for item in e.assigned.items]
        for n in range(len(c)):
            key = (e.config.name, names[c.item[n]], int(c.copy[n]), int(c.part[n]))
            found[key] = (
                int(c.sequence[n]),
                int(c.offset[n]),
                int(c.length[n]),
                int(c.mode[n] > 0),
            )
    return found


def met(one, other):
    """Returns whether two placements touch; `whole` ones take all of their sequence."""
    if one[0] != other[0] or one[3] or other[3]:
        return one[0] == other[0]
    return one[1] - 1 <= other[1] + other[2] + 1 and other[1] - 1 <= one[1] + one[2] + 1


@pytest.mark.parametrize("removed", ["fresh", "noisy", "steps", "again", "bound", "pieces"])
def test_taking_an_experiment_away_moves_only_what_had_met_it(modes, removed):
    workspace, _ = modes
    both = places(workspace, *sections())
    fewer = places(workspace, *(s for s in sections() if s["name"] != removed))
    assert fewer.keys() == {key for key in both if key[0] != removed}
    moved = [key for key in fewer if fewer[key] != both[key]]
    left = [spot for key, spot in both.items() if key[0] == removed or key in moved]
    unmet = [key for key in moved if not any(met(fewer[key], s) for s in left if s != fewer[key])]
    assert len(unmet) <= len(moved) / 5, "only where the other's draw was lost in its turn"
    assert len(moved) < len(fewer) / 10
    batches = {"fresh", "steps", "noisy"}
    assert removed in batches or not batches & {key[0] for key in moved}


def test_taking_the_last_experiment_away_moves_nothing(modes):
    workspace, _ = modes
    last = documents(name="zz", items="long.jsonl", arms=[{"name": "x", **EACH}])
    both = places(workspace, *sections(), last)
    fewer = places(workspace, *sections())
    assert fewer == {key: spot for key, spot in both.items() if key[0] != "zz"}


def test_a_dense_run_beside_whole_batches_is_filled_to_the_last_place(modes):
    """Sequences inside a batch are not free: what is left over is exactly one a sequence."""
    workspace, _ = modes
    batches = {"name": "noisy", "kind": "marks", "count": 20, "whole_steps": True}
    batches["arms"] = [{"name": "x1", "items": "rest", "copies": 1}]
    free = (STEPS - 1 - 20) * BATCH
    rows = {"name": "single", "kind": "marks", "count": free + 1}
    rows["arms"] = [{"name": "all", "items": free, "copies": 1}]
    found = places(workspace, batches, rows)
    assert len({spot[0] for spot in found.values()}) == len(found) == free + 20 * BATCH
    rows["arms"] = [{"name": "all", "items": free + 1, "copies": 1}]
    with pytest.raises(InputError, match=rf"1 of {free + 1} copies lack a place in steps 2 to 150"):
        places(workspace, batches, rows)


def test_too_many_whole_batches_are_counted(modes):
    workspace, _ = modes
    section = {"name": "noisy", "kind": "marks", "count": 12, "whole_steps": True}
    arms = [{"name": "x1", "items": "rest", "copies": 1, "during": [10, 20]}]
    with pytest.raises(
        InputError, match=r"12 whole batches in steps 11 to 20 .* so 2 lack a place"
    ):
        places(workspace, {**section, "arms": arms})
    fresh = {"name": "fresh", "kind": "forgetting", "steps": [12, 15]}
    arms = [{"name": "x1", "items": 9, "copies": 1, "during": [10, 20]}]
    with pytest.raises(InputError, match=r"experiment 'noisy': 1 whole batches lack a step in"):
        places(workspace, fresh, {**section, "count": 9, "arms": arms})


def test_modes_that_do_not_fit_name_experiment_and_item(modes):
    workspace, _ = modes
    wrong = documents(items="rows.jsonl", placement="batch", arms=[{"name": "x", **EACH}])
    with pytest.raises(InputError) as error:
        places(workspace, wrong)
    assert error.value.problems[0] == (
        "experiment 'docs': item 'r0': the payload has 65 tokens; placement batch needs exactly 520"
    )


@pytest.fixture
def copy(modes, tmp_path, monkeypatch):
    """Returns a copy of the build that says it lives where it does; read five blocks at a time."""
    monkeypatch.setattr(verify_chunks, "_PIECE_BYTES", 5 * WIDTH * 2)
    out = tmp_path / "copy"
    shutil.copytree(modes[1], out)
    for name in ("litgpt.yaml", "litgpt-control.yaml"):
        text = (out / name).read_text().replace(str(modes[1].resolve()), str(out.resolve()))
        (out / name).write_text(text)
    reseal(out)
    return out


def reseal(out):
    """Writes the digests of all files and blocks as they are, as a forger would."""
    path = out / "manifest/blocks.parquet"
    rows = pq.read_table(path).to_pylist()
    blocks = {p.name: open_chunk(p, WIDTH, "uint16") for p in (out / "train").glob("*.bin")}
    digests = {name: block_digests(held) for name, held in blocks.items()}
    for row in rows:
        row["digest"] = digests[row["chunk"]][row["block"]]
    write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    record = read_record(out)
    files = {
        name: file.model_copy(
            update={"bytes": (out / name).stat().st_size, "digest": digest_file(out / name)}
        )
        for name, file in record.files.items()
    }
    write_record(out, record.model_copy(update={"files": files}))


def first(out, mode, **wanted):
    """Returns the first placement of a mode."""
    wanted = {"mode": mode, **wanted}
    return next(r for r in rows_of(out, "placements") if all(r[k] == v for k, v in wanted.items()))


def flip(out, row, offset, part="train"):
    """Changes one token of the sequence of a placement."""
    path = out / part / row["chunk"]
    data = bytearray(path.read_bytes())
    data[12 + 2 * (row["block"] * WIDTH + offset)] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("mode", ["overwrite", "boundary", "sequence", "batch", "mark"])
@pytest.mark.parametrize("which", ["first", "last"])
def test_a_changed_token_of_a_payload_is_found(copy, mode, which):
    row = first(copy, mode)
    within = {"first": 0, "last": row["length"] - 1}[which]
    flip(copy, row, row["offset"] + within)
    reseal(copy)
    place = f"{row['chunk']}: block {row['block']}, offset {row['offset']} "
    who = rf"\(experiment '{row['experiment']}', item '{row['item']}', copy {row['copy']}\)"
    with pytest.raises(VerificationError, match=f"{place}{who}: the tokens are not the payload"):
        verify(copy, full=True)


@pytest.mark.parametrize("mode", ["overwrite", "boundary"])
def test_a_missing_separator_is_found(copy, mode):
    row = first(copy, mode)
    for offset in (row["offset"] - 1, row["offset"] + row["length"]):
        flip(copy, row, offset)
        reseal(copy)
        with pytest.raises(VerificationError, match="no end-of-document token on both sides"):
            verify(copy, full=True)
        flip(copy, row, offset)


def test_a_changed_base_token_behind_a_spliced_payload_is_found(copy):
    row = next(
        r
        for r in rows_of(copy, "placements")
        if r["mode"] == "boundary" and r["offset"] + r["length"] < WIDTH - 5
    )
    flip(copy, row, WIDTH - 2)
    reseal(copy)
    with pytest.raises(VerificationError, match="differs from the twin"):
        verify(copy, full=True)


@pytest.fixture(scope="module")
def sealed(modes):
    """Returns the build with its record and the tables that are not changed."""
    out = modes[1]
    tables = [pq.read_table(out / f"manifest/{name}.parquet") for name in ("items", "blocks")]
    return out, read_record(out), *tables


def findings(sealed, change_rows):
    """Returns what verify says of the manifest when its placements are changed."""
    out, record, items, blocks = sealed
    rows = rows_of(out, "placements")
    change_rows(rows)
    schema = pq.read_schema(out / "manifest/placements.parquet")
    return check_manifest(out, record, items, pa.Table.from_pylist(rows, schema), len(blocks))


def test_what_was_built_has_no_findings(sealed):
    assert findings(sealed, lambda rows: None) == []


@pytest.mark.parametrize("mode", ["overwrite", "boundary", "sequence", "batch", "mark"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("step", lambda x: x + 1, "step .* not where the training order puts"),
        ("block", lambda x: (x + 1) % 4, "block .* not where the training order puts"),
        ("byte", lambda x: x + 2, "byte .* not where the training order puts"),
        ("chunk", "chunk-999999.bin", "chunk .* not where the training order puts"),
        ("sequence", lambda x: x + 1, "not where the training order puts"),
        ("sequence", 10**6, "outside the 1200 of the run"),
        ("changed_length", lambda x: x + 1, "changed range is not that of its mode"),
        ("changed_offset", lambda x: x + 1, "changed range is not that of its mode"),
        ("part", lambda x: x + 1, "parts of a copy do not follow|copies placed"),
        ("copy", lambda x: x + 50, "the copies of an item do not follow"),
        ("mode", lambda x: "mark" if x != "mark" else "sequence", "changed range|leaves its"),
        ("length", lambda x: x + 1, "leaves its sequence|changed range is not|totals of"),
    ],
)
def test_a_changed_row_is_found(sealed, mode, column, value, message):
    def change(rows):
        row = next(r for r in rows if r["mode"] == mode)
        row[column] = value(row[column]) if callable(value) else value

    assert re.search(message, "\n".join(findings(sealed, change)))


def test_rows_of_an_item_that_lie_apart_are_found(sealed):
    """Each stretch of them counts from copy 0, so that together they are too few or too many."""

    def change(rows):
        number = next(n for n, r in enumerate(rows) if r["mode"] == "overwrite" and r["copy"] == 1)
        row = rows.pop(number)
        rows.append({**row, "copy": 0})

    (said,) = [one for one in findings(sealed, change) if "lie apart" in one]
    assert f"row {sum(t.placements for t in sealed[1].totals.values()) - 1} (" in said
    assert said.endswith("the rows of an item lie apart (1 such rows)")


@pytest.mark.parametrize("mode", ["batch", "mark"])
def test_a_missing_part_of_a_step_is_found(sealed, mode):
    def change(rows):
        rows.remove(next(r for r in rows if r["mode"] == mode and r["part"] == BATCH - 1))

    assert "totals of" in "\n".join(findings(sealed, change))


@pytest.mark.parametrize("mode", ["boundary", "sequence", "batch", "mark"])
def test_a_payload_in_a_sequence_that_is_full_is_found(sealed, mode):
    where = ("step", "sequence", "chunk", "block")

    def change(rows):
        row = next(r for r in rows if r["mode"] == mode)
        other = next(r for r in rows if r["mode"] == "overwrite")
        other.update({name: row[name] for name in where})
        other["byte"] = 12 + 2 * (row["block"] * WIDTH + other["offset"])

    assert "touches another extent" in "\n".join(findings(sealed, change))
