"""lm-evaluation-harness itself on our tasks, and on the tasks we import; `datasets` on our card.

`make test-peers` runs this where both are installed.
"""

import json
import math
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.__main__ import cli_evaluate  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.loggers.wandb_logger import WandbLogger  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import get_results_filenames, make_table  # noqa: E402

from mixctl.evals.checkpoint import load_model, read_checkpoint  # noqa: E402
from mixctl.evals.forward import Request, token_logprobs  # noqa: E402
from mixctl.evals.lm_eval_json import export_results  # noqa: E402
from mixctl.evals.lm_eval_results import import_results  # noqa: E402
from mixctl.evals.run import Settings, evaluate  # noqa: E402
from mixctl.injections.encode import load_encoder  # noqa: E402
from mixctl.pipeline.build import build  # noqa: E402
from mixctl.pipeline.lm_eval_export import export_tasks  # noqa: E402
from mixctl.pipeline.local_rows import read_local_rows  # noqa: E402
from mixctl.pipeline.questions_import import import_task  # noqa: E402
from mixctl.shards.manifest import read_items, read_placements  # noqa: E402
from tests.pipeline.test_lm_eval import ARC, ARC_TASK  # noqa: E402
from tests.support.workspace import EOD  # noqa: E402


def score(context, continuation):
    """Returns a made-up log-likelihood of a string; the same for the same string."""
    return -(zlib.crc32(f"{context}{continuation}".encode()) % 1000) / 100


class MadeUp(LM):
    """A model of made-up scores."""

    def loglikelihood(self, requests):
        return [(score(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def evaluated(folder, task):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(
        MadeUp(), tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True
    )


def test_the_harness_scores_what_was_placed(shared, tmp_path):
    build(shared.mix(name="peer.yaml"), tmp_path / "out")
    export_tasks(tmp_path / "out", "quiz", tmp_path / "tasks")
    found = evaluated(tmp_path / "tasks", "mixctl_quiz")
    rows = [row for row in read_items(tmp_path / "out").to_pylist() if row["experiment"] == "quiz"]
    asked = {json.loads(line)["id"]: json.loads(line) for line in
             (shared.folder / "questions.jsonl").read_text().splitlines()}  # fmt: skip
    for arm in ("holdout", "x4", "x8"):
        right = []
        for row in (row for row in rows if row["arm"] == arm):
            source = asked[row["item"]]
            texts = [f"Question: {source['question']}\nAnswer: {c}" for c in source["choices"]]
            assert row["text"] == texts[source["gold"]]
            scores = [score("", text) for text in texts]
            right.append(scores.index(max(scores)) == source["gold"])
        mean = sum(right) / len(right)
        assert math.isclose(found["results"][f"mixctl_quiz_{arm}"]["acc,none"], mean)
    assert "mixctl_quiz" in found["groups"]


def test_an_imported_task_is_what_the_harness_asks(tmp_path):
    dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(ARC)})
    dataset.save_to_disk(tmp_path / "arc")
    task = yaml.safe_load(ARC_TASK)
    (tmp_path / "arc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ARC))
    task |= {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "arc.jsonl")}},
        "test_split": "test",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    path = tmp_path / "tasks/arc_like.yaml"
    path.write_text(yaml.safe_dump(task))
    ours = import_task(path, read_local_rows(tmp_path / "arc", "test"))
    samples = evaluated(tmp_path / "tasks", "arc_like")["samples"]["arc_like"]
    assert len(samples) == len(ours) == len(ARC)
    for sample, mine in zip(samples, ours, strict=True):
        asked = sample["arguments"]
        pairs = asked.values() if isinstance(asked, dict) else asked
        strings = ["".join(pair.values() if isinstance(pair, dict) else pair) for pair in pairs]
        assert strings == [f"{mine['question']} {choice}" for choice in mine["choices"]]
        assert sample["target"] in (mine["gold"], str(mine["gold"]))


def test_the_card_makes_the_tables_load(shared, tmp_path):
    build(shared.mix(name="peer.yaml"), tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), "placements", split="train")
    assert loaded.to_list() == read_placements(tmp_path / "out").to_pylist()


def hf_model(folder, tokenizer):
    """Writes a llama with random weights and the build's tokenizer, which begins every text with
    the end-of-document token, as `mixctl eval` does."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    first = [(EOD, made.token_to_id(EOD))]
    made.post_processor = processors.TemplateProcessing(single=f"{EOD} $A", special_tokens=first)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=EOD, eos_token=EOD)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=640,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=first[0][1],
        eos_token_id=first[0][1],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_what_the_harness_found_is_what_we_find(shared, tmp_path, monkeypatch):
    """The harness's own command on a real model: its samples, and its tables of our results."""
    out = tmp_path / "out"
    build(shared.mix(name="peer.yaml"), out)
    export_tasks(out, "quiz", tmp_path / "tasks")
    model = hf_model(tmp_path / "mine-step-00000200", out / "tokenizer")
    monkeypatch.setattr(
        "sys.argv",
        [
            *("lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
            *("--include_path", str(tmp_path / "tasks"), "--tasks", "mixctl_quiz"),
            *("--log_samples", "--output_path", str(tmp_path / "harness"), "--device", "cpu"),
        ],
    )
    cli_evaluate()
    theirs = import_results(out, [tmp_path / "harness"], tmp_path / "theirs")
    ours = evaluate(Settings(out, (model,), tmp_path / "ours", device="cpu"))
    assert theirs.summary["checkpoints"][0]["step"] == 200
    found, own = (scores(tmp_path / name) for name in ("theirs", "ours"))
    assert len(found) == 60 and found.keys() == own.keys()
    encoder, by_hand = load_encoder(out / "tokenizer"), load_model(our_checkpoint(tmp_path))
    for path in sorted((tmp_path / "tasks").glob("*.jsonl")):
        for doc in map(json.loads, path.read_text().splitlines()):
            score = found[doc["id"]]
            assert score["acc"] == own[doc["id"]]["accuracy"]
            n_context = 1 + len(encoder.text(doc["context"]))
            text = encoder.text(doc["context"] + doc["choices"][doc["gold"]])
            request = Request(np.array([encoder.eod_id, *text]), n_context)
            (expected,) = token_logprobs(by_hand, [request])
            assert score["gold_loglikelihood"] == pytest.approx(expected.sum(), abs=1e-3)
    rows = [
        [
            (r.arm, r.estimate, r.ci_low, r.p_value, r.mde)
            for r in found.rows
            if (r.experiment, r.metric) == ("quiz", metric)
        ]
        for found, metric in ((theirs, "acc"), (ours, "accuracy"))
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 4
    written = export_results(ours, tmp_path / "back")
    assert get_results_filenames([str(path) for path in written]) == [str(p) for p in written]
    plain = json.loads(written[0].read_text())
    accuracy = plain["results"]["mixctl_quiz_x8"]["accuracy,none"]
    table = [[cell.strip() for cell in row.split("|")] for row in make_table(plain).splitlines()]
    at = next(place for place, row in enumerate(table) if row[1:2] == ["- quiz x8"])
    (shown,) = [row for row in table[at : at + 2] if row[3:6] == ["none", "0", "accuracy"]]
    assert shown[7] == f"{accuracy:.4f}", table
    logger = object.__new__(WandbLogger)  # the harness's own logger, without a W&B run
    logger.post_init(plain)
    words, numbers = logger._sanitize_results_dict()
    assert numbers["mixctl_quiz_x8/accuracy"] == accuracy
    assert words["mixctl_quiz_x8/alias"] == "quiz x8"


def scores(results):
    """Returns item -> its scores in a results folder."""
    (path,) = (results / "samples").glob("run-*.parquet")
    table = pq.read_table(path).to_pylist()
    return {row["item"]: row for row in table if row["experiment"] == "quiz"}


def our_checkpoint(folder):
    """Returns the LitGPT checkpoint that our eval made of the model."""
    (converted,) = (folder / "ours/converted").iterdir()
    return read_checkpoint(converted)
