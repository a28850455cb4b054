"""mix.json: canonical text, its own digest, and one clear message for whatever else lies there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from mixctl.shards.errors import InputError
from mixctl.shards.layout import Layout
from mixctl.shards.record import (
    RECORD_NAME,
    parse_record,
    read_record,
    record_text,
    write_record,
)
from tests.support.sample import CONFIG, record, topology

FIELDS = type(record()).model_fields


def test_written_record_is_read_back(tmp_path: Path) -> None:
    write_record(tmp_path, record())
    found = read_record(tmp_path)
    assert found.model_copy(update={"self_digest": ""}) == record()
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_NAME]


def test_text_is_canonical() -> None:
    text = record_text(record())
    assert text.endswith("}\n")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    turned = record(config=dict(reversed(CONFIG.items())))
    assert record_text(turned) == text
    assert record_text(record(corpus={"tokens": 4000, "documents": 12})) == text


def test_record_read_back_has_the_same_text(tmp_path: Path) -> None:
    write_record(tmp_path, record(config={**CONFIG, "name": "Grüße"}))
    assert record_text(read_record(tmp_path)) == (tmp_path / RECORD_NAME).read_text("utf-8")


def test_only_the_records_own_digest_is_filled_in() -> None:
    nested = {"self_digest": "", "text": '\n "self_digest": ""', "of": [{"self_digest": ""}]}
    made = record().model_copy(update={"config": nested})
    read = json.loads(record_text(made))
    assert read["config"] == nested
    blank = json.dumps({**read, "self_digest": ""}, sort_keys=True, indent=1, ensure_ascii=False)
    assert read["self_digest"] == blake3((blank + "\n").encode()).hexdigest(length=16)


def test_self_digest_is_of_the_text_with_the_digest_left_empty() -> None:
    text = record_text(record())
    digest = json.loads(text)["self_digest"]
    blank = text.replace(f'"self_digest": "{digest}"', '"self_digest": ""')
    assert digest == blake3(blank.encode()).hexdigest(length=16)


def test_any_flipped_byte_shows(tmp_path: Path) -> None:
    """Either the record cannot be read, or its canonical text is not the file's."""
    write_record(tmp_path, record())
    path = tmp_path / RECORD_NAME
    good = path.read_bytes()
    for place in range(len(good)):
        mask = (0x01, 0x20, 0x80, 0x04)[place % 4]
        bad = good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :]
        path.write_bytes(bad)
        try:
            found = read_record(tmp_path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert record_text(found).encode() != bad, f"byte {place} ^ {mask}"


def _raw(**changes: Any) -> str:
    plain = json.loads(record_text(record())) | changes
    return json.dumps({name: value for name, value in plain.items() if value != "(left out)"})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not a build record"),
        ("{", "not a build record"),
        ("[]", "must hold a JSON object, holds a list"),
        ("null", "must hold a JSON object, holds a NoneType"),
        ("\x00\x01", "not a build record"),
        (_raw(format_version=99), "format_version is 99"),
        (_raw(format_version="(left out)"), "format_version is None"),
        (_raw(geometry="(left out)"), "geometry"),
        (_raw(tokenizer={"digest": "x"}), "tokenizer.vocab_size"),
        (_raw(surplus=1), "surplus"),
        (_raw(files={"a": {"bytes": "many", "digest": ""}}), "files.a.bytes"),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / RECORD_NAME
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_record(tmp_path)
    assert len(caught.value.problems) == 1
    assert str(path) in str(caught.value) and word in str(caught.value)


@pytest.mark.parametrize("field", [name for name, f in FIELDS.items() if f.is_required()])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    (tmp_path / RECORD_NAME).write_text(_raw(**{field: "(left out)"}))
    with pytest.raises(InputError, match=field):
        read_record(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=RECORD_NAME):
        read_record(tmp_path)


def test_missing_record_folder_and_file_in_place_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mix\.json: missing; .* is not a finished build"):
        read_record(tmp_path)
    with pytest.raises(InputError, match=r"mix\.json"):
        read_record(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"mix\.json"):
        read_record(tmp_path / "file")
    (tmp_path / "odd" / RECORD_NAME).mkdir(parents=True)
    with pytest.raises(InputError, match=r"mix\.json"):
        read_record(tmp_path / "odd")


def test_geometry_gives_back_topology_and_layouts() -> None:
    geometry = record().geometry
    assert geometry.topology() == topology(workers=0)
    assert geometry.layout() == Layout(2, 1, 2, 44)
    assert geometry.val_layout() == Layout(2, 1, 1, 8)
    assert geometry.layout().n_chunks == geometry.chunks
    assert geometry.steps == geometry.topology().steps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequence_tokens": 0}, "sequence_tokens is 0, of the others follows 9"),
        ({"chunks": 10**9}, "chunks is 1000000000, of the others follows 4"),
        ({"val_chunks": 3}, "val_chunks is 3, of the others follows"),
        ({"steps": 11}, "steps is 11, of the others follows 10"),
        ({"data_seed": -7}, "data seed is -7: it must be at least 0"),
        ({"devices": 0}, "devices is 0: it must be at least 1"),
        ({"global_batch": 4}, "global_batch_size 4 is not a multiple"),
        ({"blocks_per_chunk": 0}, "a worker's share is less than a block"),
    ],
)
def test_a_geometry_of_no_build(changes: dict[str, Any], words: str) -> None:
    geometry = {**record().geometry.model_dump(), **changes}
    with pytest.raises(InputError, match=f"mix.json: not a build record .geometry: .*{words}"):
        parse_record(_raw(geometry=geometry).encode(), "mix.json")


_ARM = CONFIG["experiments"][0]["arms"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiments": 2.5}, "Input should be a valid list"),
        ({"experiments": [["name"]]}, "Input should be a valid dictionary"),
        ({"experiments": [{"name": "a", "kind": "b", "arms": [{}]}]}, "Field required"),
        (
            {"experiments": [{"name": "a", "kind": "b", "arms": [_ARM | {"copies": None}]}]},
            "has no dose",
        ),
        ({"chunk_bytes": "s3://b/x"}, "should be a valid integer"),
        ({"chunk_bytes": 0}, "should be greater than 0"),
    ],
)
def test_a_config_of_no_mix(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"mix.json: not a build record .config.*{words}"):
        parse_record(_raw(config=CONFIG | changes).encode(), "mix.json")
