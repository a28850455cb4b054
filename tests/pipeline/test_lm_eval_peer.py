"""lm-evaluation-harness itself on our tasks, and on the tasks we import; `datasets` on our card.

`make test-peers` runs this where both are installed.
"""

import json
import math
import zlib

import pytest
import yaml

pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from mixctl.pipeline.build import build  # noqa: E402
from mixctl.pipeline.lm_eval_export import export_tasks  # noqa: E402
from mixctl.pipeline.local_rows import read_local_rows  # noqa: E402
from mixctl.pipeline.questions_import import import_task  # noqa: E402
from mixctl.shards.manifest import read_items, read_placements  # noqa: E402
from tests.pipeline.test_lm_eval import ARC, ARC_TASK  # noqa: E402


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
