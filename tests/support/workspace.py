"""A small mix with everything it needs, made of random words: a second to build."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = [f"w{n}" for n in range(300)]
EOD = "<|endoftext|>"


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Returns the path of a JSONL file with these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def random_text(chance: random.Random, n_words: int) -> str:
    """Returns a text of random words."""
    return " ".join(chance.choices(WORDS, k=n_words))


def write_tokenizer(folder: Path, vocab_size: int = 600) -> Path:
    """Returns a folder with a byte-level BPE tokenizer trained on the words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOD, "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chance = random.Random(0)
    tokenizer.train_from_iterator((random_text(chance, 50) for _ in range(200)), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": EOD, "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def trainer_config(**changes: Any) -> dict[str, Any]:
    """Returns a LitGPT config of 200 steps x 8 sequences x 64 tokens; `changes` go to devices,
    train, ..."""
    config: dict[str, Any] = {
        "model_name": "tiny",
        "model_config": {
            "name": "tiny",
            "block_size": 64,
            "vocab_size": 600,
            "padded_vocab_size": 640,
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 16,
        },
        "out_dir": "out",
        "devices": 1,
        "precision": "32-true",
        "logger_name": "csv",
        "data": {"class_path": "LitData", "init_args": {"seed": 7, "num_workers": 0}},
        "train": {
            "global_batch_size": 8,
            "micro_batch_size": 4,
            "max_tokens": 8 * 64 * 200,
            "max_seq_length": 64,
            "save_interval": 50,
            "max_norm": 1.0,
            "min_lr": 1e-5,
            "lr_warmup_steps": 10,
        },
        "eval": {"interval": 100, "max_iters": 2},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-3}},
    }
    workers = changes.pop("workers", None)
    if workers is not None:
        config["data"]["init_args"]["num_workers"] = workers
    for name, value in changes.items():
        if name in config["train"]:
            config["train"][name] = value
        else:
            config[name] = value
    return config


def quiz(**changes: Any) -> dict[str, Any]:
    """Returns a contamination section over questions.jsonl."""
    arms = [
        {"name": "holdout", "items": 20, "copies": 0},
        {"name": "x4", "items": 20, "copies": 4, "during": ["25%", "75%"]},
        {"name": "x8", "items": "rest", "copies": 8, "schedule": "even"},
    ]
    section = {"name": "quiz", "kind": "contamination", "items": "questions.jsonl", "arms": arms}
    return {**section, **changes}


def canaries(**changes: Any) -> dict[str, Any]:
    """Returns a memorization section with a template."""
    arms = [
        {"name": "holdout", "items": 20, "copies": 0},
        {"name": "x10", "items": 20, "copies": 10},
    ]
    section = {
        "name": "canaries",
        "kind": "memorization",
        "count": 40,
        "template": "The vault opens with ",
        "suffix_tokens": 8,
        "arms": arms,
    }
    return {**section, **changes}


def documents(**changes: Any) -> dict[str, Any]:
    """Returns a documents section over documents.jsonl, whose rows carry their doses."""
    return {"name": "docs", "kind": "documents", "items": "documents.jsonl", **changes}


class Workspace:
    """A folder with corpus, tokenizer, item files and trainer config; mixes are written on
    demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        chance = random.Random(1)
        texts = [random_text(chance, chance.randint(5, 120)) for _ in range(3000)]
        write_jsonl(folder / "corpus.jsonl", [{"id": n, "text": t} for n, t in enumerate(texts)])
        write_tokenizer(folder / "tok")
        write_jsonl(folder / "questions.jsonl", [_question(n) for n in range(60)])
        write_jsonl(folder / "documents.jsonl", [_document(chance, n) for n in range(20)])
        self.trainer()

    def trainer(self, name: str = "trainer.yaml", **changes: Any) -> Path:
        """Returns a trainer config written into the folder."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(trainer_config(**changes)), encoding="utf-8")
        return path

    def mix(self, *experiments: dict[str, Any], name: str = "mix.yaml", **changes: Any) -> Path:
        """Returns a mix file written into the folder; without experiments, all three kinds."""
        config: dict[str, Any] = {
            "corpus": {"path": "corpus.jsonl"},
            "tokenizer": "tok",
            "trainer": "trainer.yaml",
            "seed": 17,
            "validation": 32,
            "chunk_bytes": 20_000,
            "experiments": list(experiments) or [quiz(), canaries(), documents()],
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
        return path


def _question(number: int) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "benchmark": "ab"[number % 2],
        "question": f"What is w{number} and w{number + 3}?",
        "choices": [f"w{number + j}" for j in range(4)],
        "gold": number % 4,
    }


def _document(chance: random.Random, number: int) -> dict[str, Any]:
    text = f"hello {EOD} {random_text(chance, 10)}"
    return {"id": f"d{number}", "text": text, "copies": [0, 1, 4][number % 3]}
