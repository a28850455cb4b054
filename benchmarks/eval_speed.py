"""Prints how fast evals are beside the bare forward pass and lm-evaluation-harness.

    bare      token_logprobs on texts of one length against `model(tokens)` at the same batch
    questions multiple-choice questions, all choices of all questions in one call, against the
              harness's model class with the same weights and tokens, at its best batch size of
              several. Batch size 1 is what `litgpt evaluate` asks that class for by itself

All sides take turns within a round; of each the best of the rounds counts. Ratios are of wall time
and of processor time, which is the steadier one where other programs run.

    make bench-eval                          (or: BENCH_EVAL="--questions 20 --threads 1")
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import eval_peers
import numpy as np
import real_model
import torch

from mixctl.evals.forward import Request, token_logprobs, tokens_to_read

OUT = real_model.ROOT / "build/bench-eval.json"
BATCH_SIZES = (1, 8)
TEXT_TOKENS, TEXTS = 256, 8


def timed(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Returns the least wall and processor seconds of each side, which take turns."""
    best = {name: {"wall": float("inf"), "processor": float("inf")} for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            wall, processor = time.perf_counter(), time.process_time()
            side()
            taken = {"wall": time.perf_counter() - wall}
            taken["processor"] = time.process_time() - processor
            best[name] = {key: min(best[name][key], taken[key]) for key in taken}
    return best


def against_bare(model: torch.nn.Module, rounds: int) -> dict[str, Any]:
    """Returns the tokens a second of scoring over those of the forward pass alone."""
    rng = np.random.default_rng(0)
    texts = rng.integers(3, 40_000, (TEXTS, TEXT_TOKENS + 1))
    requests = [Request(text, 1) for text in texts]
    read = torch.from_numpy(texts[:, :-1])

    def bare() -> None:
        with torch.inference_mode():
            model(read)

    found = timed({"bare": bare, "mixctl": lambda: token_logprobs(model, requests)}, rounds)
    ratios = {key: found["bare"][key] / found["mixctl"][key] for key in ("wall", "processor")}
    return {"tokens": int(read.numel()), "seconds": found, "mixctl over bare": ratios}


def against_harness(
    model: torch.nn.Module, harness: Any, folder: Path, benchmark: str, n: int, rounds: int
) -> dict[str, Any]:
    """Returns seconds of both on the same questions, and how far their scores agree."""
    asked = eval_peers.requests_of(folder, benchmark, n)
    requests = [request for choices in asked for request in choices]
    scores: dict[str, list[float]] = {}

    def harness_side(batch_size: int) -> Callable[[], None]:
        def side() -> None:
            scores["theirs"] = eval_peers.harness_scores(harness, requests, batch_size)

        return side

    def mine() -> None:
        scores["mine"] = eval_peers.mixctl_scores(model, requests)

    sides: dict[str, Callable[[], Any]] = {"mixctl": mine}
    sides |= {f"lm-eval, batch size {size}": harness_side(size) for size in BATCH_SIZES}
    found = timed(sides, rounds)
    theirs = [name for name in found if name != "mixctl"]
    ratios = {
        key: min(found[name][key] for name in theirs) / found["mixctl"][key]
        for key in ("wall", "processor")
    }
    return {
        "agreement": asdict(
            eval_peers.agreement(benchmark, asked, scores["mine"], scores["theirs"])
        ),
        "tokens": sum(request.n_read for request in requests),
        "distinct tokens": tokens_to_read(requests, model.config),
        "seconds": found,
        "best of lm-eval over mixctl": ratios,
    }


def main() -> None:
    """Runs both comparisons, prints them and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=40, help="of each benchmark")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = real_model.smollm2()
    model, harness = eval_peers.mixctl_model(folder), eval_peers.harness(folder)
    found: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{options.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}",
        "bare": against_bare(model, options.rounds),
    }
    print(found["machine"], found["bare"], sep="\n", flush=True)
    for name in ("openbookqa", "piqa", "mmlu"):
        found[name] = against_harness(
            model, harness, folder, name, options.questions, options.rounds
        )
        print(name, json.dumps(found[name], indent=1), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
