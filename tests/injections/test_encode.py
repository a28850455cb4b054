"""The tokenizer's rule: text stays text, control tokens are explicit, ids are those of
`tokenizers`."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mixctl.injections.encode import load_encoder
from mixctl.injections.whole_tokens import are_whole
from mixctl.shards.errors import InputError
from tests.support.workspace import EOD, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tok"))


@settings(max_examples=200)
@given(
    parts=st.lists(
        st.sampled_from([EOD, "<s>", "w1 w2", " ", "é", "<|endof", "text|>"]) | st.text(max_size=8)
    )
)
def test_no_text_gives_a_control_token_and_every_text_comes_back(folder, parts):
    encoder = load_encoder(folder, bos=True)
    text = "".join(parts)
    ids = encoder.text(text)
    assert ids.dtype == np.uint32
    assert not set(ids.tolist()) & {encoder.eod_id, encoder.bos_id}
    assert encoder.decode(ids) == text


def test_ids_are_those_of_the_library(folder):
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = load_encoder(folder)
    for text in ("w1 w2 w3", "hello\n world", "", "ünïcödé ☃"):
        assert encoder.text(text).tolist() == plain.encode(text, add_special_tokens=False).ids
    assert plain.encode(EOD).ids == [0], "the library itself would make it the control token"


def test_bos_only_when_asked(folder):
    ids = load_encoder(folder).payloads(["w1"])[0].tolist()
    assert load_encoder(folder, bos=True).payloads(["w1"])[0].tolist() == [1, *ids]
    assert load_encoder(folder).bos_id is None


def test_a_template_of_the_tokenizer_adds_nothing(folder, tmp_path):
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    raw["truncation"] = {
        "max_length": 2,
        "stride": 0,
        "strategy": "LongestFirst",
        "direction": "Right",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    (tmp_path / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text())
    expected = load_encoder(folder).text("w1 w2 w3 w4").tolist()
    assert load_encoder(tmp_path).text("w1 w2 w3 w4").tolist() == expected


def test_an_end_token_that_is_not_marked_special_is_still_kept_out_of_text(folder, tmp_path):
    raw = json.loads((folder / "tokenizer.json").read_text())
    for token in raw["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": EOD}}))
    encoder = load_encoder(tmp_path)
    assert encoder.eod_id not in encoder.text(f"a{EOD}b").tolist()


def test_a_tokenizer_that_cannot_keep_text_text_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "END": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "END"}')
    with pytest.raises(InputError, match="turns the text 'END' into the eod token itself"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "cannot be read as JSON"),
        ("tokenizer.json", "[]", "must hold a JSON object"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "{}", "no eos_token"),
        ("tokenizer_config.json", '{"eos_token": "</s>"}', "has no token '</s>'"),
        ("tokenizer_config.json", '{"eos_token": 5}', "no eos_token"),
    ],
)
def test_broken_folders_name_the_file(folder, tmp_path, name, content, message):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_text((folder / file).read_text())
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(error.value)


def _changed(folder, tmp_path, change):
    """Returns the folder with a changed tokenizer.json."""
    raw = json.loads((folder / "tokenizer.json").read_text())
    change(raw)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    settings = (folder / "tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(settings)
    return tmp_path


def test_a_prefix_that_cuts_a_character_in_two(folder, tmp_path):
    """The tokenizers library ends the process over it: Python hears of no exception."""

    def change(raw):
        raw["model"]["vocab"]["wé"] = len(raw["model"]["vocab"])
        raw["model"]["merges"] = [["w", "é"]]
        raw["model"]["continuing_subword_prefix"] = "*"

    with pytest.raises(
        InputError, match=r"prefix is '\*', but a merge ends in 'é', which does not"
    ):
        load_encoder(_changed(folder, tmp_path, change))


def test_an_id_that_would_make_a_table_of_gigabytes(folder, tmp_path):
    def change(raw):
        raw["added_tokens"][0]["id"] = 10**9

    with pytest.raises(InputError, match="has token ids up to 1000000000, at most 16777215"):
        load_encoder(_changed(folder, tmp_path, change))


def test_the_digest_is_of_the_content_and_the_rule(folder, tmp_path):
    again = write_tokenizer(tmp_path / "same")
    assert load_encoder(folder).digest == load_encoder(again).digest
    assert load_encoder(folder).digest != load_encoder(folder, bos=True).digest
    other = write_tokenizer(tmp_path / "other", vocab_size=500)
    assert load_encoder(folder).digest != load_encoder(other).digest


def test_the_order_of_keys_changes_nothing(folder, tmp_path):
    raw = json.loads((folder / "tokenizer.json").read_text())
    turned = json.dumps(dict(reversed(raw.items())), indent=2)
    (tmp_path / "tokenizer.json").write_text(turned)
    settings = (folder / "tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(settings)
    assert load_encoder(tmp_path) == load_encoder(folder)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_a_number_that_is_none_is_refused_and_not_left_out(folder, tmp_path, number):
    """Where it may stand, and nothing may stand in its place."""
    _changed(folder, tmp_path, lambda raw: raw["model"].update(dropout="here"))
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"here"', "null"))
    assert load_encoder(tmp_path).text("w1").tolist() == load_encoder(folder).text("w1").tolist()
    path.write_text(path.read_text().replace('"dropout": null', f'"dropout": {number}'))
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        load_encoder(tmp_path)


def test_an_encoder_survives_pickling(folder):
    encoder = load_encoder(folder)
    encoder.text("loaded")
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy == encoder
    assert copy.text("w1 w2").tolist() == encoder.text("w1 w2").tolist()


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=6), min_size=1, max_size=30))
def test_whole_tokens_are_those_that_decode_to_characters(spelled):
    """Against the library: a byte-level tokenizer whose tokens are any bytes."""
    alphabet = bytes_as_characters()
    tokens = ["".join(alphabet[byte] for byte in one) for one in spelled] + ["☃", "Ġ☃", "\ufffd"]
    decoder = decoders.ByteLevel()
    decoded = [decoder.decode([token]) for token in tokens]
    assert are_whole(tokens).tolist() == [bool(t) and "\ufffd" not in t for t in decoded]


def bytes_as_characters() -> list[str]:
    """Returns the character of each byte, as the library's own pre-tokenizer writes it."""
    written: dict[int, str] = {}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for code in range(256):
        ((piece, _),) = byte_level.pre_tokenize_str(chr(code))
        written.update(zip(chr(code).encode(), piece, strict=True))
    # bytes that these texts have not stand for themselves: they are what is left of the alphabet
    left = set(pre_tokenizers.ByteLevel.alphabet()) - set(written.values())
    assert left == {chr(byte) for byte in range(256) if byte not in written}
    return [written.get(byte, chr(byte)) for byte in range(256)]


def test_ordinary_ids_are_those_of_decoding_each_token(folder):
    encoder = load_encoder(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = set(plain.get_added_tokens_decoder())
    each = {i: plain.decode([i]) for i in plain.get_vocab().values() if i not in added}
    expected = sorted(i for i, text in each.items() if text and "\ufffd" not in text)
    assert encoder.ordinary_ids.tolist() == expected


def test_ordinary_ids_are_whole_characters_and_no_control_tokens(folder):
    encoder = load_encoder(folder)
    ids = encoder.ordinary_ids.tolist()
    assert 0 not in ids
    assert 1 not in ids
    assert all("\ufffd" not in encoder.decode([i]) for i in ids)
    assert len(ids) > 200
