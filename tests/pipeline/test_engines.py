"""Engines: the ids are those of `tokenizers`, text stays text, a difference is never built in."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer

from mixctl.injections.encode import load_encoder
from mixctl.pipeline import engines, payload_encoder
from mixctl.pipeline.adversarial import adversarial_texts
from mixctl.pipeline.build import build
from mixctl.pipeline.engines import EngineDiffers, FastEngine, choose_engine, load_engine
from mixctl.pipeline.tokenize import TokenizeDocuments, with_control_tokens
from mixctl.shards.errors import InputError
from mixctl.shards.record import read_record
from tests.support.tokenizers import FAMILIES, write_family
from tests.support.workspace import EOD, write_jsonl

BYTE_LEVEL = {"plain", "gpt2", "neox", "llama3"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("families")
    return {name: write_family(base / name, name) for name in ("plain", *FAMILIES)}


def random_texts(seed: int, n: int) -> list[str]:
    """Returns texts of any characters, many of them the tokenizer's own strings."""
    chance = random.Random(seed)
    parts = [
        EOD,
        "<s>",
        " w1",
        "w2 ",
        "\n",
        "  ",
        "'s",
        "12345",
        "é",
        "e\u0301",
        "漢",
        "👩‍👩‍👧",
        "\x00",
    ]

    def text() -> str:
        picked = chance.choices(parts, k=chance.randint(0, 30))
        picked.append(chr(chance.choice([*range(0x300), chance.randrange(0xE000, 0x110000)])))
        chance.shuffle(picked)
        return "".join(picked)

    return [text() for _ in range(n)]


@pytest.mark.parametrize("family", ["plain", *FAMILIES])
def test_the_chosen_engine_gives_the_ids_of_the_library(folders, family):
    encoder = load_encoder(folders[family])
    chosen = choose_engine("auto", encoder)
    assert chosen.name == "fast" or family not in BYTE_LEVEL, chosen
    library = Tokenizer.from_str(encoder.tokenizer_json)
    library.encode_special_tokens = True
    texts = [*random_texts(1, 1500), *adversarial_texts(["</s>"])]
    engine = load_engine(chosen.name, encoder)
    together = engine.encode(texts)
    for number, text in enumerate(texts):
        ids = library.encode(text, add_special_tokens=False).ids
        assert together.of(number).tolist() == ids, text
        if number % 40 == 0:
            assert engine.encode([text]).of(0).tolist() == ids, text


@pytest.mark.parametrize("name", ["fast", "tokenizers"])
def test_control_tokens_in_text_stay_text(folders, name):
    encoder = load_encoder(folders["neox"], bos=True)
    engine = load_engine(name, encoder)
    texts = [EOD, f"a{EOD}b", f"{EOD}{EOD}<s>", f" {EOD}\n", "<s>", ""] * 50
    for batch in (engine.encode(texts), *(engine.encode([text]) for text in texts[:6])):
        assert not set(batch.ids.tolist()) & {encoder.eod_id, encoder.bos_id}
    assert encoder.decode(engine.encode([f"a{EOD}b"]).ids) == f"a{EOD}b"


def test_nothing_to_encode_is_nothing(folders):
    encoder = load_encoder(folders["plain"])
    for name in ("fast", "tokenizers"):
        empty = load_engine(name, encoder).encode([])
        assert (len(empty.ids), len(empty.ends)) == (0, 0)
        assert load_engine(name, encoder).encode(["", "w1", ""]).ends[0] == 0


@pytest.mark.parametrize("bos", [False, True])
def test_control_tokens_stand_around_every_document(folders, bos):
    encoder = load_encoder(folders["plain"], bos=bos)
    texts = ["w1 w2", "", "w3", "", ""]
    batch = load_engine("fast", encoder).encode(texts)
    expected = [
        token
        for text in texts
        for token in [*([1] if bos else []), *encoder.text(text).tolist(), encoder.eod_id]
    ]
    tokens = with_control_tokens(batch, encoder, np.dtype("<u2"))
    assert (tokens.dtype, tokens.tolist()) == (np.dtype("<u2"), expected)


def test_adversarial_texts_hold_what_they_promise():
    texts = adversarial_texts([EOD])
    assert texts == adversarial_texts([EOD])
    together = "".join(texts)
    for part in (EOD, EOD[:-1], "\x00", "\ufeff", "\ud7ff", "\ue000", "e\u0301", "‍👦", " " * 130):
        assert part in together, part
    assert max(len(word) for text in texts for word in text.split()) > 2000
    assert not any("\ud800" <= letter <= "\udfff" for letter in together)


def test_an_engine_that_is_not_there(folders, monkeypatch):
    encoder = load_encoder(folders["plain"])
    monkeypatch.setattr(engines, "installed_fast", lambda: None)
    with pytest.raises(InputError, match=r"engine: fast needs fastokens.*pip install fastokens"):
        choose_engine("fast", encoder)
    assert str(choose_engine("auto", encoder)).endswith("(fastokens is not installed)")
    assert choose_engine("tokenizers", encoder).why == ""


def test_the_mix_file_says_which_engine(workspace, monkeypatch):
    monkeypatch.setattr(engines, "installed_fast", lambda: None)
    mix = workspace.mix(engine="fast")
    with pytest.raises(InputError, match=re.escape(f"{mix}: engine: fast needs fastokens")):
        build(mix, workspace.folder / "out")
    with pytest.raises(InputError, match="engine: input should be 'auto', 'fast' or 'tokenizers'"):
        build(workspace.mix(engine="quick"), workspace.folder / "out")


def lies_about(word: str):
    """Returns FastEngine.encode, with another last id for texts that hold the word."""
    honest = FastEngine.encode

    def encode(self, texts):
        batch = honest(self, texts)
        ids = batch.ids.copy()
        for number, text in enumerate(texts):
            if word in text:
                ids[batch.ends[number] - 1] += 1
        return engines.TokenBatch(ids, batch.ends)

    return encode


def test_a_difference_at_the_start_is_said(folders, monkeypatch):
    encoder = load_encoder(folders["plain"])
    monkeypatch.setattr(FastEngine, "encode", lies_about("can’t"))
    chosen = choose_engine("auto", encoder)
    assert chosen.name == "tokenizers"
    assert re.search(r"fastokens [\d.]+ differs on .* from token \d+ of \d+ on", chosen.why)


def test_a_tokenizer_that_it_cannot_read_is_a_difference(folders, monkeypatch):
    import fastokens

    def panics(_: str) -> None:
        raise BaseException("panicked at src/lib.rs")

    engines._loaded.clear()
    monkeypatch.setattr(fastokens.Tokenizer, "from_json_str", panics, raising=False)
    encoder = load_encoder(folders["gpt2"])
    assert "fails: panicked" in choose_engine("auto", encoder).why


def test_some_texts_do_not_wait_for_the_fast_engine(folders: dict[str, Path]) -> None:
    encoder = load_encoder(folders["plain"])
    fast = payload_encoder.FastEncoder.of(encoder)
    texts = ["a word or two, and (3) more " * 20] * 10
    assert sum(map(len, texts)) > payload_encoder._FEW_CHARACTERS
    engines._loaded.clear()
    with engines._LOADING:  # as while another thread loads it
        found = fast.many_texts(texts)
    assert engines.loaded_fast(encoder.tokenizer_json) is None
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in encoder.texts(texts)]
    engines.load_fast(encoder.tokenizer_json)
    assert [ids.tolist() for ids in fast.many_texts(texts)] == [ids.tolist() for ids in found]


def test_the_last_fast_engines_are_kept(folders: dict[str, Path]) -> None:
    texts = [load_encoder(folders[name]).tokenizer_json for name in ("plain", "gpt2")]
    engines._loaded.clear()
    kept = [engines.load_fast(one) for one in texts]
    assert [engines.loaded_fast(one) for one in texts] == kept
    engines.load_fast(texts[0] + " ")
    assert engines.loaded_fast(texts[0]) is None
    assert engines.loaded_fast(texts[1]) is kept[1]


def contents(out: Path) -> dict[str, bytes]:
    """Returns every file of a build whose bytes do not depend on where it lies."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix not in {".yaml", ".json"} and ".work" not in path.parts
    }


def test_bytes_and_digests_do_not_depend_on_the_engine(shared, built):
    out = shared.folder / "reference"
    build(shared.mix(name="reference.yaml", engine="tokenizers"), out, control=True)
    assert contents(out) == contents(built)
    fast, reference = read_record(built), read_record(out)
    assert fast.digests == reference.digests
    assert fast.engine.startswith("fastokens 0.")
    assert reference.engine.startswith("tokenizers 0.")


def test_a_difference_in_the_sample_redoes_the_stage(workspace, monkeypatch, capsys):
    """Only the first document of a task is sampled here, and only it is encoded wrongly."""
    honest = workspace.folder / "honest"
    build(workspace.mix(), honest, control=True)
    text = orjson.loads((workspace.folder / "corpus.jsonl").read_bytes().splitlines()[0])["text"]
    monkeypatch.setattr(FastEngine, "encode", lies_about(text))
    out = workspace.folder / "out"
    build(workspace.mix(), out, control=True)
    assert contents(out) == contents(honest)
    record = read_record(out)
    assert re.match(r"tokenizers [\d.]+ \(fastokens [\d.]+ differs on '", record.engine)
    assert "tokenizing again from the start" in capsys.readouterr().err
    assert record.digests == read_record(honest).digests


def payload_texts(workspace) -> list[str]:
    rows = (workspace.folder / "documents.jsonl").read_bytes().splitlines()
    return [orjson.loads(row)["text"] for row in rows]


@pytest.mark.parametrize("bos", [False, True])
def test_many_payloads_have_the_ids_of_the_library(folders, bos, monkeypatch):
    encoder = load_encoder(folders["neox"], bos=bos)
    fast = payload_encoder.FastEncoder.of(encoder)
    texts = [text for text in random_texts(2, 300) if text]
    engines.load_fast(encoder.tokenizer_json)
    expected = [ids.tolist() for ids in encoder.payloads(texts)]
    assert [ids.tolist() for ids in encoder.many_payloads(texts)] == expected
    encoded = []
    honest = FastEngine.encode
    monkeypatch.setattr(FastEngine, "encode", lambda *a: encoded.append(a) or honest(*a))
    monkeypatch.setattr(payload_encoder, "_FEW_CHARACTERS", sum(map(len, texts)) + 1)
    assert [ids.tolist() for ids in fast.many_payloads(texts)] == expected
    assert not encoded
    monkeypatch.setattr(payload_encoder, "_FEW_CHARACTERS", 100)
    assert [ids.tolist() for ids in fast.many_payloads(texts)] == expected
    assert len(encoded) == 1


def test_a_difference_in_a_payload_is_built_in_nowhere(workspace, monkeypatch, capsys):
    honest, out = workspace.folder / "honest", workspace.folder / "out"
    build(workspace.mix(), honest, control=True)
    monkeypatch.setattr(payload_encoder, "_FEW_CHARACTERS", 0)
    monkeypatch.setattr(payload_encoder, "_SOME_CHARACTERS", 0)
    monkeypatch.setattr(FastEngine, "encode", lies_about(payload_texts(workspace)[0]))
    build(workspace.mix(), out, control=True)
    assert contents(out) == contents(honest)
    assert re.match(r"tokenizers [\d.]+ \(fastokens [\d.]+ differs on '", read_record(out).engine)
    assert "engine: tokenizers" in capsys.readouterr().err


def test_a_difference_in_the_corpus_redoes_the_payloads(workspace, monkeypatch):
    """The payload that is encoded wrongly is not sampled; the document of the corpus is."""
    honest, out = workspace.folder / "honest", workspace.folder / "out"
    build(workspace.mix(), honest, control=True)
    monkeypatch.setattr(payload_encoder, "_FEW_CHARACTERS", 0)
    monkeypatch.setattr(payload_encoder, "_SOME_CHARACTERS", 0)
    unsampled = payload_texts(workspace)[2]
    text = orjson.loads((workspace.folder / "corpus.jsonl").read_bytes().splitlines()[0])["text"]
    about_payload = lies_about(unsampled)
    monkeypatch.setattr(FastEngine, "encode", about_payload)
    build(workspace.mix(name="other.yaml"), workspace.folder / "wrong", control=True)
    assert contents(workspace.folder / "wrong") != contents(honest)
    monkeypatch.setattr(FastEngine, "encode", lies_about(text))
    about_both = FastEngine.encode

    def both(self, texts):
        lies = about_payload if unsampled in texts else about_both
        return lies(self, texts)

    monkeypatch.setattr(FastEngine, "encode", both)
    build(workspace.mix(), out, control=True)
    assert contents(out) == contents(honest)


def test_the_steps_serve_in_a_pipeline_of_ones_own(tmp_path, folders):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader

    texts = [f"w{n} {EOD} w1" for n in range(40)]
    write_jsonl(tmp_path / "docs.jsonl", [{"text": text} for text in texts])
    encoder = load_encoder(folders["plain"])
    steps = [
        JsonlReader(str(tmp_path), glob_pattern="docs.jsonl"),
        lambda data, rank, world_size: (one for one in data if "w3 " not in one.text),
        TokenizeDocuments(tmp_path / "out", encoder, "fast"),
    ]
    LocalPipelineExecutor(steps, tasks=1, logging_dir=str(tmp_path / "log")).run()
    kept = [text for text in texts if "w3 " not in text]
    expected = [token for text in kept for token in [*encoder.text(text), encoder.eod_id]]
    assert np.fromfile(tmp_path / "out/00000.tokens", "<u2").tolist() == expected
    lengths = np.load(tmp_path / "out/00000.lengths.npy")
    assert lengths.tolist() == [len(encoder.text(text)) + 1 for text in kept]


def test_a_failing_engine_is_a_difference(folders):
    encoder = load_encoder(folders["plain"])
    with pytest.raises(EngineDiffers, match="fails"):
        load_engine("fast", encoder).encode(["\ud800"])
