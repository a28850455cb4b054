"""Writes the calibration mix: items of every kind, for any tokenizer.

The texts come from the grammar of `examples/small`, with draws of their own, so that there are as
many as are asked for. Rows carry what the tests must respect:

    questions    two benchmarks (strata); every third question shares a cluster with the one before
    canaries     clusters of three, whose members the grid deals to different strata
    documents    three strata, clusters of one to three

Price: seconds; the build of it some ten seconds a tokenizer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from mixctl.pipeline.grammar import Grammar

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "examples/small"
MIX = Path(__file__).with_name("mix.yaml")
STEPS = 300
STRING_TOKENS = 20

Row = dict[str, Any]


def write_mix(folder: Path, tokenizer: Path, model: dict[str, Any] | None = None) -> Path:
    """Returns the mix file in `folder`, with its items, its tokenizer and its trainer beside it.

    Args:
        folder: where everything goes.
        tokenizer: a folder with tokenizer.json and tokenizer_config.json.
        model: changes to the model of examples/small/trainer.yaml, such as its vocabulary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / "tokenizer" / name)
    shutil.copyfile(SMALL / "corpus.jsonl.gz", folder / "corpus.jsonl.gz")
    for name, rows in item_files(tokenizer).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    trainer = trainer_config(model or {})
    (folder / "trainer.yaml").write_text(yaml.safe_dump(trainer, sort_keys=False), "utf-8")
    shutil.copyfile(MIX, folder / "mix.yaml")
    return folder / "mix.yaml"


def build(mix: Path, out: Path) -> Path:
    """Returns the folder of the build with its control twin; one that is there already is kept."""
    if not (out / "mix.json").is_file():
        command = [sys.executable, "-m", "mixctl.pipeline.cli", "build", str(mix), "--out"]
        subprocess.run([*command, str(out), "--control"], check=True, stdout=subprocess.DEVNULL)
    return out


def trainer_config(model: dict[str, Any]) -> dict[str, Any]:
    """Returns the trainer of examples/small for fewer steps, with changes to its model."""
    config: dict[str, Any] = yaml.safe_load((SMALL / "trainer.yaml").read_text("utf-8"))
    config["model_config"] |= model
    train = config["train"]
    train["max_tokens"] = STEPS * train["global_batch_size"] * train["max_seq_length"]
    train["save_interval"] = 10 * STEPS
    return config


def item_files(tokenizer: Path) -> dict[str, list[Row]]:
    """Returns the rows of every item file of the mix."""
    sys.path.insert(0, str(SMALL))
    try:
        from make import facts, questions  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(SMALL))
    grammar = Grammar()

    def texts(symbol: str, count: int, least: int) -> list[str]:
        """Returns different texts of the symbol of at least so many characters."""
        found: dict[str, None] = {}
        n = 0
        while len(found) < count:
            text = grammar.text(f"{{{symbol}}}", Random(f"calibration {symbol} {n}"))
            if least <= len(text) <= 2 * least + 200:
                found[text] = None
            n += 1
        return list(found)

    return {
        "questions": _with_clusters(questions(grammar, 36), (1, 1, 2)),
        "facts": facts(grammar, 24),
        "canaries": _with_clusters(_named("canary", "text", texts("canaries", 56, 60)), (3, 1)),
        "documents": _documents(texts("essays", 54, 330)),
        "essays": _named("essay", "text", texts("essays", 86, 330)[54:]),
        "articles": _named("article", "text", texts("articles", 24, 330)),
        "prompts": _named("prompt", "prompt", texts("poison_prompts", 24, 20)),
        "diaries": [
            {**row, "collection": f"diary-{n % 16:02d}"}
            for n, row in enumerate(_named("entry", "text", texts("diaries", 48, 60)))
        ],
        "strings": _strings(tokenizer),
    }


def _named(name: str, field: str, values: Sequence[str]) -> list[Row]:
    return [{"id": f"{name}-{n:03d}", field: value} for n, value in enumerate(values)]


def _with_clusters(rows: list[Row], sizes: Sequence[int]) -> list[Row]:
    """Returns the rows in clusters of these sizes, in turn."""
    found: list[Row] = []
    turn = 0
    while len(found) < len(rows):
        for row in rows[len(found) :][: sizes[turn % len(sizes)]]:
            found.append({**row, "cluster": f"cluster-{turn:03d}"})
        turn += 1
    return found


def _documents(texts: Sequence[str]) -> list[Row]:
    rows = _named("document", "text", texts)
    thirds = len(rows) // 3
    strata = [{**row, "stratum": f"s{n // thirds}"} for n, row in enumerate(rows)]
    return _with_clusters(strata, (1, 2, 1, 3, 2))


def _strings(tokenizer: Path) -> list[Row]:
    """Returns strings of tokens that the corpus holds, each from another document."""
    import gzip

    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    lines = gzip.decompress((SMALL / "corpus.jsonl.gz").read_bytes()).decode().splitlines()
    found: list[Row] = []
    for line in lines[::200]:
        tokens = encode(json.loads(line)["text"]).ids
        if len(tokens) > STRING_TOKENS + 5 and len(found) < 8:
            found.append({"id": f"string-{len(found)}", "tokens": tokens[5 : 5 + STRING_TOKENS]})
    return found
