"""Measures how well the base order shuffles a corpus that is sorted on disk, against uniform.

    .venv/bin/python benchmarks/shuffle_quality.py [--json FILE]

A corpus of 5 billion tokens (10 GB of uint16) in 10 million documents, sorted into ten equal
domains, one behind the other, as dumps and crawls are. Its token files are sparse: only lengths
matter. For every global batch of 1,024 sequences: the share of the first domain, how many of 100
equal stretches of the corpus it draws from and how evenly (chi-square over its degrees of freedom,
1 when uniform), how many different strips, and how far apart on disk neighbours in the run are (1/3
of the corpus when uniform). The same is measured for a uniform permutation, and for the stored
order shuffled through a buffer as large as a window, as streaming loaders do it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from mixctl.pipeline.base_order import STRIP_TOKENS
from mixctl.pipeline.base_stream import BaseSource, BaseStream, lay
from mixctl.pipeline.tokenize import lengths_path, tokens_path

N_FILES, N_DOCUMENTS, MEAN_TOKENS = 8, 10_000_000, 500
WIDTH, BATCH, DOMAINS, STRETCHES = 2049, 1024, 10, 100


def main() -> None:
    """Prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stream = _sparse_corpus(Path(folder))
        n = stream.n_sequences // BATCH * BATCH
        stored = _stored(stream, np.arange(n)) / stream.n_tokens
        uniform = np.random.default_rng(1).permutation(stored)
        buffered = _buffered(np.sort(stored), (1 << 27) // WIDTH)
    rows = {"mixctl": stored, "uniform": uniform, "buffer of the same size": buffered}
    strip = STRIP_TOKENS / stream.n_tokens
    results = {name: _measure(values, strip) for name, values in rows.items()}
    print(json.dumps(results, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _sparse_corpus(folder: Path) -> BaseStream:
    """Returns the base stream of documents without content."""
    rng = np.random.default_rng(0)
    for task in range(N_FILES):
        lengths = rng.exponential(MEAN_TOKENS, N_DOCUMENTS // N_FILES).astype(np.int64) + 1
        np.save(lengths_path(folder, task), lengths)
        with tokens_path(folder, task).open("wb") as file:
            file.truncate(2 * int(lengths.sum()))
    n_needed = N_DOCUMENTS * MEAN_TOKENS // WIDTH * 99 // 100
    return lay(BaseSource(folder, N_FILES, "uint16", WIDTH, 17, 512, n_needed, repeat=False))


def _stored(stream: BaseStream, sequence: np.ndarray) -> np.ndarray:
    """Returns where on disk the document of each sequence's first token begins, in tokens."""
    low = stream._train_begin + stream.base_sequence(sequence) * WIDTH
    place = np.searchsorted(stream._order.ends, low, side="right")
    return np.asarray(stream._order.begin[place])


def _buffered(line: np.ndarray, n: int) -> np.ndarray:
    """Returns the stored order, shuffled inside stretches of n sequences."""
    rng = np.random.default_rng(2)
    return np.concatenate([rng.permutation(line[at : at + n]) for at in range(0, len(line), n)])


def _measure(stored: np.ndarray, strip: float) -> dict[str, float]:
    batches = stored[: len(stored) // BATCH * BATCH].reshape(-1, BATCH)
    share = (batches < 1 / DOMAINS).mean(axis=1)
    stretch = np.minimum((batches * STRETCHES).astype(int), STRETCHES - 1)
    counts = np.stack([np.bincount(row, minlength=STRETCHES) for row in stretch])
    expected = BATCH / STRETCHES
    chi_square = ((counts - expected) ** 2 / expected).sum(axis=1) / (STRETCHES - 1)
    strips = [len(np.unique((row / strip).astype(int))) for row in batches]
    return {
        "share of a domain, mean": round(float(share.mean()), 4),
        "share of a domain, standard deviation over batches": round(float(share.std()), 4),
        "its correlation with the next batch": round(_autocorrelation(share), 3),
        "stretches of 100 in a batch": round(float((counts > 0).sum(axis=1).mean()), 1),
        "chi-square over degrees of freedom": round(float(chi_square.mean()), 3),
        "different strips in a batch of 1,024": round(float(np.mean(strips)), 1),
        "distance of neighbours, of the corpus": round(float(np.abs(np.diff(stored)).mean()), 4),
    }


def _autocorrelation(values: np.ndarray) -> float:
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


if __name__ == "__main__":
    main()
