"""Is a planted dependence found, and nothing else? Five whole matrices of runs on a tiny model.

    python benchmarks/cpdt.py [--work FOLDER] [--repeats 5] [--jobs 2]

Five experiments are built and trained to a checkpoint by stock `litgpt pretrain`. Two of them hold
the same questions in two templates (`leak-cloze`, `leak-plain`): what a model learns of one, it
knows of the other. The other three hold questions with words, answers and a last word of their own,
and every answer of theirs is the wrong one of other questions, so that nothing but their questions
can teach them. Then the whole of `mixctl cpdt` (build, run, score), `--repeats` times with other
seeds.

It must hold that the planted pair is found in every repetition, in one direction at least, and that
of the other pairs no more is flagged than the nominal rate lets expect: Holm's method bounds the
chance of any false finding in a matrix by 0.05, so two or more matrices with one (of five: 2%) are
too many. Ends with exit code 1 when either does not hold. What FOLDER holds is used again.

Price: 1 + 14 trainings a repetition of some seconds each, two side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from scipy import stats
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "TORCHDYNAMO_DISABLE": "1",
    "LITDATA_DISABLE_VERSION_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
WORDS = ["".join(parts) for parts in product("bdfgklmnpr", "aeiou", "bdfgklmnpr", "ao")][::2]
COMMON, RARE = WORDS[:200], WORDS[200:360]
"""a word is a token; the rare ones are answers, 40 to a set of questions"""
RARE_SHARE = 0.01
SETS = ("leak", "east", "north", "south")
PAIR = ("leak-cloze", "leak-plain")
METRICS = [f"{name}=gold_logprob" for name in PAIR]
"""accuracy of the others: their outcome is whether they know their answers"""
N_QUESTIONS = 160
FIRST_STEPS, RUN_STEPS, N_NO_OPS, SHARE = 200, 60, 8, "5%"
ALPHA, ENOUGH = 0.05, 0.01
LENGTH, BATCH = 128, 16
STEPS = FIRST_STEPS + 15 * RUN_STEPS


def main() -> int:
    """Returns 0 when all holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("cpdt-out"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    began = time.monotonic()
    checkpoint = prepare(work)
    print(f"checkpoint after {time.monotonic() - began:.0f} s")
    matrices = [repetition(work, checkpoint, seed, options.jobs) for seed in range(options.repeats)]
    print(f"all after {time.monotonic() - began:.0f} s")
    return judged(matrices)


def prepare(work: Path) -> Path:
    """Returns the checkpoint that all repetitions begin from, made where it is missing."""
    checkpoint = work / "out" / f"step-{FIRST_STEPS:08d}"
    if (checkpoint / "model_config.yaml").is_file():
        return checkpoint
    shutil.rmtree(work, ignore_errors=True)
    write_inputs(work)
    command("mixctl", "build", work / "mix.yaml", "--out", work / "build", "--control")
    train_until(work / "build" / "litgpt.yaml", checkpoint)
    return checkpoint


def repetition(work: Path, checkpoint: Path, seed: int, jobs: int) -> list[dict[str, Any]]:
    """Returns the entries of one matrix."""
    runs, results = work / f"runs-{seed}", work / f"results-{seed}"
    if not (results / "report.html").is_file():
        asked = ("--steps", RUN_STEPS, "--share", SHARE, "--replicates", N_NO_OPS, "--seed", seed)
        chosen = [part for metric in METRICS for part in ("--metric", metric)]
        begin = ("mixctl", "cpdt", "build", work / "build", checkpoint, "--out", runs)
        command(*begin, *asked, *chosen)
        command("mixctl", "cpdt", "run", runs, "--jobs", jobs)
        command("mixctl", "cpdt", "score", runs, "--out", results, "--device", "cpu")
    said = command("mixctl", "cpdt", "score", runs, "--out", results, "--json")
    entries: list[dict[str, Any]] = json.loads(said)["entries"]
    for row in entries:
        if row["role"] == "dependence" and (planted(row) or row["verdict"] == "found"):
            numbers = f"{row['estimate']:+.3f}, p {row['p_holm']:.2g}, mde {row['mde']:.3f}"
            kind = "planted" if planted(row) else "FALSE"
            print(f"seed {seed} {kind}: {row['run']} -> {row['experiment']}: {numbers}")
    return entries


def planted(row: dict[str, Any]) -> bool:
    """Returns whether an entry is of the pair."""
    return row["run"].removeprefix("only-") in PAIR and row["experiment"] in PAIR


def judged(matrices: list[list[dict[str, Any]]]) -> int:
    """Returns the exit code, after printing what was found."""
    tested = [[row for row in one if row["role"] == "dependence"] for one in matrices]
    flagged = [[row for row in one if row["verdict"] == "found"] for one in tested]
    n_found = sum(any(planted(row) for row in one) for one in flagged)
    n_false = sum(any(not planted(row) for row in one) for one in flagged)
    chance = float(stats.binom.sf(n_false - 1, len(matrices), ALPHA))
    untested = sum(row["p_value"] is None for one in tested for row in one)
    raw = [row["p_value"] for one in tested for row in one if not planted(row)]
    small = sum(p is not None and p <= ALPHA for p in raw)
    print(f"planted pair found in {n_found} of {len(matrices)} matrices")
    print(f"another pair flagged in {n_false} of {len(matrices)} (chance {chance:.2g})")
    print(
        f"uncorrected p <= 0.05 in {small} of {len(raw)} entries of other pairs; "
        f"no test in {untested}"
    )
    return int(n_found < len(matrices) or chance < ENOUGH or untested > 0)


def command(*arguments: object) -> str:
    """Returns what a command of this environment printed.

    Raises:
        SystemExit: with its output, when it fails.
    """
    done = subprocess.run(
        [BIN / str(arguments[0]), *map(str, arguments[1:])],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{arguments}\n{done.stdout}{done.stderr}")
    return done.stdout


def train_until(config: Path, checkpoint: Path) -> None:
    """Trains with stock LitGPT until a checkpoint is there."""
    begin = [BIN / "litgpt", "pretrain", "--config", config, "--out_dir", checkpoint.parent]
    with (checkpoint.parent.parent / "train.log").open("wb") as log:
        child = subprocess.Popen(begin, env=ENVIRONMENT, stdout=log, stderr=log)
        while child.poll() is None and not (checkpoint / "model_config.yaml").is_file():
            time.sleep(0.5)
        time.sleep(2.0)
        child.send_signal(signal.SIGTERM)
        child.wait()


def write_inputs(work: Path) -> None:
    """Writes corpus, tokenizer, questions, trainer config and mix file."""
    work.mkdir(parents=True)
    chance = random.Random(5)
    needed = (STEPS * BATCH + 400) * (LENGTH + 1)
    with (work / "corpus.jsonl").open("w") as file:
        n_words = 0
        while n_words < needed:
            text = base_text(chance, chance.randint(20, 200))
            n_words += text.count(" ") + 1
            file.write(json.dumps({"text": text}) + "\n")
    write_tokenizer(work / "tok")
    for number, name in enumerate(SETS):
        rare = RARE[40 * number : 40 * number + 40]
        rows = [question(chance, name, n, rare) for n in range(N_QUESTIONS)]
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "trainer.yaml").write_text(yaml.safe_dump(trainer(work)))
    (work / "mix.yaml").write_text(yaml.safe_dump(mix()))


def base_text(chance: random.Random, n_words: int) -> str:
    """Returns random words, a few of them rare ones."""
    return " ".join(
        chance.choice(RARE if chance.random() < RARE_SHARE else COMMON) for _ in range(n_words)
    )


def question(chance: random.Random, name: str, number: int, rare: list[str]) -> dict[str, Any]:
    """Returns a question of common words, its answers rare ones.

    Those of the leak have right and wrong answers of two lots, and end as `cloze` does.
    """
    leak = name == "leak"
    right = chance.choice(rare[:20] if leak else rare)
    wrong = chance.sample([word for word in (rare[20:] if leak else rare) if word != right], 3)
    gold = chance.randrange(4)
    return {
        "id": f"{name}-{number}",
        "question": " ".join([*chance.sample(COMMON, 5), "Answer:" if leak else name]),
        "choices": [*wrong[:gold], right, *wrong[gold:]],
        "gold": gold,
    }


def write_tokenizer(folder: Path) -> None:
    """Writes a byte-level BPE tokenizer in which a word is one token, with its space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = " ".join([*COMMON, *RARE, *SETS])
    tokenizer.train_from_iterator([f"{words} Question: Answer:"] * 20, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


def trainer(work: Path) -> dict[str, Any]:
    """Returns the trainer config: a GPT of two layers."""
    model = {"name": "cpdt", "block_size": LENGTH, "vocab_size": 2400, "padded_vocab_size": 2432}
    return {
        "model_name": "cpdt",
        "model_config": {**model, "n_layer": 2, "n_head": 4, "n_embd": 64},
        "out_dir": str(work / "out"),
        "devices": 1,
        "precision": "32-true",
        "logger_name": "csv",
        "seed": 1,
        "data": {"class_path": "LitData", "init_args": {"seed": 7, "num_workers": 0}},
        "train": {
            "global_batch_size": BATCH,
            "micro_batch_size": BATCH,
            "max_tokens": BATCH * LENGTH * STEPS,
            "max_seq_length": LENGTH,
            "save_interval": FIRST_STEPS,
            "log_interval": 20,
            "max_norm": 1.0,
            "min_lr": 1e-3,
            "lr_warmup_steps": 20,
        },
        "eval": {"interval": 100000, "max_iters": 2},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-3}},
    }


def mix() -> dict[str, Any]:
    """Returns the mix: the pair, and three experiments of their own."""
    holdout = {"name": "holdout", "items": N_QUESTIONS // 2, "copies": 0}
    early, late = [1, FIRST_STEPS], [FIRST_STEPS, STEPS]
    names = {PAIR[0]: "leak", PAIR[1]: "leak", "east": "east", "north": "north", "south": "south"}
    return {
        "corpus": {"path": "corpus.jsonl"},
        "tokenizer": "tok",
        "trainer": "trainer.yaml",
        "seed": 3,
        "validation": 64,
        "experiments": [
            {
                "name": name,
                "kind": "contamination",
                "items": f"{file}.jsonl",
                "template": "cloze" if name == PAIR[0] else "completion",
                "during": late if name in PAIR else early,
                "arms": [holdout, {"name": "x4", "items": "rest", "copies": 4}],
            }
            for name, file in names.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
