"""The example of a datatrove pipeline with mixctl's steps, run as its first lines say."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_it_counts_the_tokens_of_the_documents_that_are_kept(tmp_path):
    rows = [json.loads(line) for line in gzip.open(EXAMPLES / "small/corpus.jsonl.gz", "rt")][:400]
    rows[::7] = [{**row, "text": row["text"][:150]} for row in rows[::7]]
    (tmp_path / "documents").mkdir()
    for part in range(3):
        lines = "".join(json.dumps(row) + "\n" for row in rows[part::3])
        (tmp_path / f"documents/{part}.jsonl").write_text(lines)
    command = [sys.executable, EXAMPLES / "own_pipeline.py", "documents", EXAMPLES / "tokenizer"]
    done = subprocess.run(
        [*command, "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tokenizer = Tokenizer.from_file(str(EXAMPLES / "tokenizer/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    kept = [row["text"] for row in rows if len(row["text"]) >= 200]
    assert 0 < len(kept) < len(rows)
    n_tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in kept)
    assert done.stdout.splitlines()[-1] == f"{len(kept)} documents, {n_tokens} tokens"
