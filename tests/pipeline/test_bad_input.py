"""Bad input: one clear message each, exit code 2, no traceback, nothing left behind."""

import json

import pytest
from click.testing import CliRunner

from mixctl.pipeline.cli import cli
from mixctl.shards.errors import InputError
from tests.support.workspace import canaries, documents, quiz


def problems_of(workspace, mix):
    """Returns the messages of `mixctl build`, having checked that it left nothing."""
    out = workspace.folder / "never"
    before = sorted(p for p in workspace.folder.rglob("*"))
    with pytest.raises(InputError) as error:
        CliRunner().invoke(cli, ["build", str(mix), "--out", str(out)], catch_exceptions=False)
    assert sorted(p for p in workspace.folder.rglob("*")) == before
    return error.value.problems


ARM = {"name": "a", "items": 3, "copies": 3}

MIX_PROBLEMS = {
    "misspelt key": (
        [quiz(itms="q")],
        {"validaton": 3},
        [
            "unknown key 'validaton' (did you mean 'validation'?)",
            "unknown key 'itms' (did you mean 'items'?)",
        ],
    ),
    "misspelt arm key": (
        [quiz(arms=[ARM | {"copis": 1}])],
        {},
        ["experiments[0] ('quiz'): unknown key 'arms.0.copis' (did you mean 'copies'?)"],
    ),
    "negative copies": (
        [quiz(arms=[ARM | {"copies": -3}])],
        {},
        ["arms.0.copies: input should be greater than or equal to 0 (got -3)"],
    ),
    "unknown kind": (
        [quiz(kind="contaminaton")],
        {},
        ["kind: unknown kind 'contaminaton' (did you mean 'contamination'?)"],
    ),
    "kind missing": ([{"name": "x"}], {}, ["key 'kind' is missing"]),
    "wrong types": (
        [quiz()],
        {"seed": "a", "validation": 0},
        [
            "seed: input should be a valid integer (got 'a')",
            "validation: input should be greater than",
        ],
    ),
    "window outside the run": (
        [quiz(during=["20%", 900])],
        {},
        ["arm 'holdout': during: 900 is step 900: the run has steps 0 to 200"]
        + ["arm 'x8': during: 900 is step 900: the run has steps 0 to 200"],
    ),
    "unknown schedule": (
        [quiz(schedule="evenly")],
        {},
        [
            "schedule: must be uniform, even, {steps: [10, 20]}, {every: 100}, {ramp: [0, 1]} or "
            "{windows: [[0%, 25%], [50%, 75%]]} (got 'evenly')"
        ],
    ),
    "schedule of zero steps": (
        [quiz(schedule={"every": 0})],
        {},
        ["schedule.every: input should be greater than or equal to 1 (got 0)"],
    ),
    "window of one": ([quiz(during=[5])], {}, ["during: List should have at least 2 items"]),
    "items of an arm": (
        [quiz(arms=[ARM | {"items": "all"}])],
        {},
        ["arms.0.items: must be a number of items, 0 or more, or 'rest' (got 'all')"],
    ),
    "two rests": (
        [quiz(arms=[ARM | {"items": "rest"}, ARM | {"name": "b", "items": "rest"}])],
        {},
        ["only one arm can take the rest of the items"],
    ),
    "arms named alike": (
        [quiz(arms=[ARM, ARM | {"name": "A"}])],
        {},
        ["arm names must differ by more than case: a"],
    ),
    "a path as a name": ([quiz(name="../x")], {}, ["'../x' is not a valid name: letters, digits"]),
    "a name twice": (
        [quiz(), quiz(name="QUIZ")],
        {},
        ["name 'quiz' is used 2 times (case is ignored)"],
    ),
    "two secrets": (
        [canaries(secret={"alphabet": "01", "length": 3})],
        {},
        ["exactly one of 'suffix_tokens' and 'secret' must be given"],
    ),
    "a secret space that is too small": (
        [canaries(suffix_tokens=None, secret={"alphabet": "01", "length": 3})],
        {},
        ["40 items with 0 candidates each need 40 different secrets, but there are only 8"],
    ),
    "payload longer than a sequence": (
        [canaries(suffix_tokens=60)],
        {},
        [f"item 'canary-00000{n}': the payload has 8" for n in range(5)]
        + ["... and 35 more such items"],
    ),
    "validation too small": (
        [quiz()],
        {"validation": 7},
        ["validation: 7 sequences are too few: LitGPT checks the validation loader"],
    ),
    "corpus missing": ([quiz()], {"corpus": {"path": "nope"}}, ["nope: no such file or folder"]),
    "corpus format": (
        [quiz()],
        {"corpus": {"path": "corpus.jsonl", "format": "josnl"}},
        ["corpus: format: unknown format 'josnl' (did you mean 'jsonl'?)"],
    ),
    "corpus of tokens only": (
        [quiz()],
        {"corpus": {"tokens": "1B"}},
        ["corpus: 'tokens' is for mixctl plan alone; a build needs 'path'"],
    ),
    "missing text key": (
        [quiz()],
        {"corpus": {"path": "corpus.jsonl", "text_key": "txt"}},
        ["corpus.jsonl: row 1: no key 'txt' (did you mean 'text'?)"],
    ),
    "tokenizer missing": ([quiz()], {"tokenizer": "tk"}, ["tk/tokenizer.json: no such file"]),
    "end-of-document token unknown": (
        [quiz()],
        {"eod": "<|endofdoc|>"},
        ["has no token '<|endofdoc|>' (did you mean '<|endoftext|>'?)"],
    ),
    "trainer missing": ([quiz()], {"trainer": "no.yaml"}, ["no.yaml: no such file"]),
    "chunks too small": (
        [quiz()],
        {"chunk_bytes": 3},
        ["chunk_bytes: input should be greater than or equal to 1024"],
    ),
    "more copies than memory holds": (
        [documents(arms=[{"name": "a", "items": 0, "copies": 10**9}], items="huge.jsonl")],
        {},
        ["experiment 'docs': 100000000 copies in steps 2 to 200 do not fit: these 1592 sequences"],
    ),
    "an arm that takes nothing": (
        [quiz(arms=[{"name": "a", "copies": 3}])],
        {},
        ["experiment 'quiz', arm 'a': takes no items: say items:"],
    ),
    "a given step outside the window": (
        [quiz(schedule={"steps": [5, 300, 6]}, arms=[ARM])],
        {},
        ["arm 'a': schedule: copy 2 of 3 would fall in step 300"],
    ),
    "an unknown protocol": (
        [quiz()],
        {"corpus": {"path": "foo://bar"}},
        ["foo://bar: cannot be opened"],
    ),
    "items among the corpus": (
        [quiz(), documents()],
        {"corpus": {"path": "."}},
        ["corpus: path: reads"] * 2,
    ),
    "an empty path": (
        [quiz()],
        {"corpus": {"path": ""}},
        ["corpus.path: String should have at least 1 character"],
    ),
    "a window of words": (
        [quiz(during=["a", "b"], arms=[ARM])],
        {},
        ["'a' is no window bound: use steps"],
    ),
    "row asks for an unknown arm": (
        [documents(items="arms.jsonl", arms=[{"name": "high", "copies": 3}])],
        {},
        ["item 'd': there is no arm 'hihg' (did you mean 'high'?)"],
    ),
}


@pytest.mark.parametrize("name", MIX_PROBLEMS)
def test_wrong_mixes(workspace, name):
    sections, changes, expected = MIX_PROBLEMS[name]
    (workspace.folder / "huge.jsonl").write_text('{"id": "d", "text": "x", "copies": 100000000}\n')
    (workspace.folder / "arms.jsonl").write_text('{"id": "d", "text": "x", "arm": "hihg"}\n')
    mix = workspace.mix(*sections, **changes)
    found = problems_of(workspace, mix)
    assert len(found) == len(expected), found
    for message, part in zip(found, expected, strict=True):
        assert part in message
        assert str(workspace.folder) in message or "more such items" in message


TRAINER_PROBLEMS = {
    "devices auto": (
        {"devices": "auto"},
        "devices: the training order depends on the number of devices",
    ),
    "devices a list": ({"devices": [1]}, "devices: input should be a valid integer (got [1])"),
    "a list for a number": (
        {"global_batch_size": [8]},
        "train.global_batch_size: input should be a valid integer (got [8])",
    ),
    "a batch that does not divide": (
        {"global_batch_size": 10},
        "global_batch_size 10 is not a multiple of devices x num_nodes x micro_batch_size = 1 x 1 "
        "x 4 = 4: "
        "LitGPT would round it down without a word (nearest valid: 8 or 12)",
    ),
    "max_steps": ({"train": {"max_steps": 5}}, "litgpt pretrain only warns about max_steps"),
    "longer than the model": (
        {"max_seq_length": 128},
        "train.max_seq_length is 128, the model's block_size is 64",
    ),
    "another data module": ({"data": "TinyLlama"}, "data: class_path must be LitData"),
    "a model that is too small": (
        {"model_config": {"block_size": 64, "padded_vocab_size": 128}},
        "the model embeds 128 token ids, the tokenizer",
    ),
    "no length": (
        {"max_seq_length": None, "model_config": {"padded_vocab_size": 640}},
        "train.max_seq_length is missing, and the model has no block_size",
    ),
    "too short": ({"max_tokens": 600}, "gives 1 whole steps: at least 2 are needed"),
    "what only LitGPT checks": (
        {"eval": {"interval": [3]}},
        'litgpt pretrain refuses it: Parser key "eval.interval"',
    ),
    "no model name": ({"model_name": None}, 'Key "model_name" is required'),
    "an unknown model": (
        {"model_name": "pythia-14n", "model_config": None},
        "LitGPT knows no model 'pythia-14n' (did you mean 'pythia-14m'?)",
    ),
    "misspelt": ({"num_node": 1}, "unknown key 'num_node' (did you mean 'num_nodes'?)"),
}


@pytest.mark.parametrize("name", TRAINER_PROBLEMS)
def test_wrong_trainer_configs(workspace, name):
    changes, expected = TRAINER_PROBLEMS[name]
    workspace.trainer(**changes)
    found = problems_of(workspace, workspace.mix(quiz()))
    assert any(expected in message and "trainer.yaml" in message for message in found), found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no documents with text"),
        ('{"text": ""}\n', "holds no documents with text"),
        ('{"text": "a"}\nnot json\n', "bad.jsonl: row 2: not JSON"),
        ('{"text": "a"}\n{"txt": "b"}\n', "bad.jsonl: row 2: no key 'text' (did you mean 'txt'?)"),
        ('{"text": "a"}\n{"text": 5}\n', "bad.jsonl: row 2: 'text' is a int, not a text"),
        ('{"text": "a"}\n["b"]\n', "bad.jsonl: row 2: a list, not a JSON object"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "bad.jsonl: row 2: not JSON"),
        ('{"text": "a b c"}\n', "too few: validation takes 2080"),
    ],
)
def test_wrong_corpora(workspace, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (workspace.folder / "bad.jsonl").write_bytes(data)
    mix = workspace.mix(quiz(), corpus={"path": "bad.jsonl"})
    (found,) = problems_of(workspace, mix)
    assert message in found


def test_a_bad_line_met_by_two_workers(workspace):
    folder = workspace.folder / "parts"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.jsonl").write_text('{"text": "a"}\n' + ("oops\n" if n == 2 else ""))
    out = workspace.folder / "out"
    mix = workspace.mix(quiz(), corpus={"path": "parts"})
    with pytest.raises(InputError, match="2.jsonl: row 2: not JSON"):
        arguments = ["build", str(mix), "--out", str(out), "--workers", "2"]
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpus: [\n", "not valid YAML"),
        ("seed: 1\nseed: 2\n", "key 'seed' stands twice"),
        ("[1, 2]", "must hold a mapping"),
        ("{}", "key 'corpus' is missing"),
        ("? [x]\n: 1\n", "a key must be a plain value"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_no_mix(workspace, text, message):
    path = workspace.folder / "mix.yaml"
    path.write_text(text)
    found = problems_of(workspace, path)
    assert message in found[0]
    assert str(path) in found[0]


def test_a_tokenizer_without_an_end_of_document_token(workspace):
    (workspace.folder / "tok/tokenizer_config.json").write_text("{}")
    (found,) = problems_of(workspace, workspace.mix(quiz()))
    assert (
        "tokenizer_config.json: no eos_token, so no end-of-document token; name one with eod:"
        in found
    )


def test_numbers_as_litgpt_reads_them(workspace):
    path = workspace.folder / "trainer.yaml"
    path.write_text(path.read_text().replace("min_lr: 1.0e-05", "min_lr: 1e-5"))
    result = CliRunner().invoke(cli, ["check", str(workspace.mix(quiz()))], catch_exceptions=False)
    assert result.exit_code == 0
    assert "nothing wrong" in result.output


def test_question_rows(workspace):
    rows = [
        '{"id":"a","question":"x","choices":["a","b"],"gold":2}',
        '{"id":"b","question":"x","choices":["a","b"],"gold":1}',
        '{"id":"B","question":"y","choices":["a","b"],"gold":1}',
        '{"question":"x","choices":["a"],"gold":0}',
        '{"question":"x","choises":["a","b"],"gold":"1"}',
        "3",
        "xx",
        '{"id":1.5,"question":"x","choices":["a","b"],"gold":1}',
        '{"id":"../up","question":"x","choices":["a","b"],"gold":1}',
        '{"question":"x","choices":["a","a"],"gold":1}',
    ]
    (workspace.folder / "q.jsonl").write_text("\n".join(rows))
    found = problems_of(workspace, workspace.mix(quiz(items="q.jsonl")))
    for part in (
        "q.jsonl:1: item 'a': gold is 2: it must be the index of a choice, 0 to 1",
        "q.jsonl:3: id 'B' was used in line 2",
        "q.jsonl:4: field 'choices': List should have at least 2 items",
        "q.jsonl:5: field 'choices' is missing",
        "q.jsonl:5: field 'gold': Input should be a valid integer",
        "q.jsonl:5: unknown field 'choises' (did you mean 'choices'?)",
        "q.jsonl:6: a row must be a JSON object, this is a int",
        "q.jsonl:7: not JSON",
        "q.jsonl:8: field 'id': must be a text or a whole number (got 1.5)",
        "q.jsonl:9: item '../up': '../up' is not a valid name",
        "q.jsonl:10: two choices are the same text",
    ):
        assert any(part in message for message in found), (part, found)


def test_document_rows(workspace):
    rows = [
        {"id": "both", "text": "x", "tokens": [1]},
        {"id": "none"},
        {"id": "two", "text": "x", "arm": "a", "copies": 1},
    ]
    path = workspace.folder / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = problems_of(workspace, workspace.mix(documents(items="d.jsonl")))
    assert len(found) == 3
    path.write_text(json.dumps({"id": "far", "tokens": [600], "copies": 1}))
    (found,) = problems_of(workspace, workspace.mix(documents(items="d.jsonl")))
    assert "item 'far': token 600 is outside the vocabulary of" in found
    for wrong in ({"tokens": [2**63]}, {"text": "x", "copies": 3 * 10**9}):
        path.write_text(json.dumps({"id": "big"} | wrong))
        (found,) = problems_of(workspace, workspace.mix(documents(items="d.jsonl")))
        assert "d.jsonl:1:" in found
    path.write_text(json.dumps({"id": "end", "tokens": [5, 0], "copies": 1}))
    (found,) = problems_of(workspace, workspace.mix(documents(items="d.jsonl")))
    assert "item 'end': holds the end-of-document token 0" in found


def test_parents_of_a_build_that_could_not_be_made_are_removed(workspace):
    (workspace.folder / "bad.jsonl").write_text('{"text": "a"}\n' * 5 + "oops\n")
    mix = workspace.mix(quiz(), corpus={"path": "bad.jsonl"})
    with pytest.raises(InputError, match="row 6"):
        arguments = ["build", str(mix), "--out", str(workspace.folder / "new/deep/out")]
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert not (workspace.folder / "new").exists()


def test_a_build_folder_inside_the_corpus_is_refused(workspace):
    folder = workspace.folder / "texts"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.jsonl").write_text((workspace.folder / "corpus.jsonl").read_text())
    mix = workspace.mix(quiz(), corpus={"path": "texts"})
    with pytest.raises(InputError, match="lies in the corpus folder"):
        arguments = ["build", str(mix), "--out", str(folder / "out")]
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
