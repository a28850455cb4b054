"""What a user would write today to make LitGPT's shards of a corpus, each run as a program.

    python benchmarks/tokenize_peers.py litdata CORPUS TOKENIZER OUT
    python benchmarks/tokenize_peers.py datatrove CORPUS TOKENIZER OUT

`litdata` is LitGPT's own way (its prepare scripts and data modules): litdata `optimize` over files,
LitGPT's Tokenizer on each document. `datatrove` is DocumentTokenizer, then `optimize` over its
token files. Both take a folder of JSONL files, one worker a file at a time, and write blocks of
2,049 tokens. Neither writes a twin, a manifest or digests.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

BLOCK = 2049
CHUNK_BYTES = "64MB"
WORKERS = 2
EOD = "<|endoftext|>"


def tokenized_lines(filename: str, tokenizer: object) -> Iterator[torch.Tensor]:
    """Yields the tokens of each document of a JSONL file, as LitGPT's prepare scripts do."""
    with open(filename, encoding="utf-8") as file:
        for row in file:
            yield tokenizer.encode(json.loads(row)["text"], bos=False, eos=True)  # type: ignore[attr-defined]


def run_litdata(corpus: Path, tokenizer: Path, out: Path) -> None:
    """Tokenizes and writes chunks in one pass."""
    from litgpt.tokenizer import Tokenizer

    _optimize(partial(tokenized_lines, tokenizer=Tokenizer(tokenizer)), _files(corpus), out)


def ready_tokens(filename: str) -> Iterator[torch.Tensor]:
    """Yields the documents of a datatrove token file, whose index holds the document ends."""
    tokens = np.memmap(filename, dtype=np.uint16, mode="r")
    ends = np.fromfile(f"{filename}.index", dtype=np.uint64).astype(np.int64)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        yield torch.from_numpy(tokens[begin:end].astype(np.int64))


def run_datatrove(corpus: Path, tokenizer: Path, out: Path) -> None:
    """Tokenizes with datatrove, then writes chunks from its files."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps = [
        JsonlReader(str(corpus), glob_pattern="*.jsonl"),
        DocumentTokenizer(
            str(out / "tokens"),
            tokenizer_name_or_path=str(tokenizer / "tokenizer.json"),
            eos_token=EOD,
            shuffle_documents=False,
        ),
    ]
    n_files = len(_files(corpus))
    LocalPipelineExecutor(steps, n_files, WORKERS, str(out / "log")).run()
    files = sorted(str(path) for path in (out / "tokens").glob("*.ds"))
    _optimize(ready_tokens, files, out / "shards")


def _files(corpus: Path) -> list[str]:
    return sorted(str(path) for path in corpus.glob("*.jsonl"))


def _optimize(function: object, files: list[str], out: Path) -> None:
    from litdata import TokensLoader, optimize

    optimize(
        fn=function,
        inputs=files,
        output_dir=str(out),
        num_workers=min(WORKERS, len(files)),
        chunk_bytes=CHUNK_BYTES,
        item_loader=TokensLoader(block_size=BLOCK),
    )


PEERS = {"litdata": run_litdata, "datatrove": run_datatrove}


def main() -> None:
    """Runs one peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    for name in ("corpus", "tokenizer", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    PEERS[given.peer](given.corpus, given.tokenizer, given.out)


if __name__ == "__main__":
    main()
