"""mixctl's steps in a datatrove pipeline of one's own: filter documents, then count their tokens.

    python examples/own_pipeline.py DOCUMENTS TOKENIZER OUT

reads the jsonl files of the folder DOCUMENTS (any fsspec address), drops short documents with a
step of datatrove, and lets the step of `mixctl build` tokenize the rest into OUT. It prints how
many tokens the documents have: what `corpus: {tokens: ...}` of `mixctl plan` asks for.

Any executor of datatrove runs it; here one process a task on this machine.
"""

import sys
from pathlib import Path

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader

from mixctl.injections.encode import load_encoder
from mixctl.pipeline.tokenize import TokenizeDocuments, lengths_path

N_TASKS = 2
SHORTEST = 200
"""characters"""


def is_long(document):
    """Returns whether a document is kept."""
    return len(document.text) >= SHORTEST


def main(documents: str, tokenizer: str, out: str) -> None:
    """Runs the pipeline and prints what it made."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [
        JsonlReader(documents),
        LambdaFilter(is_long),
        TokenizeDocuments(folder, load_encoder(Path(tokenizer))),
    ]
    LocalPipelineExecutor(steps, tasks=N_TASKS, logging_dir=str(folder / "log")).run()
    lengths = np.concatenate([np.load(lengths_path(folder, task)) for task in range(N_TASKS)])
    print(f"{len(lengths)} documents, {lengths.sum()} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
