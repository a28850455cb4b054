"""Do the shards hold what placements.parquet says? Some of its rows are looked up.

Up to 2,048 placements, spread evenly over the table (all of them where there are fewer), are read
from train/ and compared with their digests. A build whose train/ was left behind (manifest and
checkpoints are all that scoring needs) is scored all the same, and that is said.

    a build of 900 placements -> all 900; one of 8 million -> every 3,900th

Price: a page a row, well below a second from a local disk; one chunk is open at a time, however
many there are. `mixctl verify` compares them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from mixctl.shards.chunks import Tokens, open_chunk
from mixctl.shards.errors import InputError
from mixctl.shards.manifest import payload_digest, read_placements
from mixctl.shards.record import BuildRecord

SAMPLE_ROWS = 2048
_MOST_NAMED = 5
_COLUMNS = ["experiment", "item", "copy", "chunk", "block", "offset", "length", "digest"]


def check_shards(build: Path, record: BuildRecord) -> list[str]:
    """Returns a note where the shards are not there.

    Raises:
        InputError: when a placement that was looked up is not where its row says.
    """
    if not (build / "train").is_dir():
        return [f"{build}: train/ is not here: whether it holds the placements was not checked"]
    placements = read_placements(build).select(_COLUMNS)
    n_rows = placements.num_rows
    chosen = np.unique(np.linspace(0, n_rows - 1, min(n_rows, SAMPLE_ROWS)).round().astype(int))
    rows = list(zip(chosen.tolist(), placements.take(chosen).to_pylist(), strict=True))

    @lru_cache(maxsize=1)
    def opened(name: str) -> Tokens:
        geometry = record.geometry
        return open_chunk(build / "train" / name, geometry.sequence_tokens, geometry.dtype)

    problems = {}
    for number, row in sorted(rows, key=lambda numbered: str(numbered[1]["chunk"])):
        try:
            wrong = _problem(row, opened)
        except (OSError, ValueError, IndexError) as error:
            wrong = f"train/{row['chunk']}, block {row['block']} cannot be read ({error})"
        if wrong:
            name = f"experiment {row['experiment']}, item {row['item']}, copy {row['copy']}"
            problems[number] = f"placements.parquet, row {number} ({name}): {wrong}"
    if problems:
        by_row = [problems[number] for number in sorted(problems)]
        raise InputError(_named(build, by_row, len(chosen)))
    return []


def _problem(row: dict[str, object], opened: Callable[[str], Tokens]) -> str | None:
    name, block = str(row["chunk"]), int(str(row["block"]))
    begin = int(str(row["offset"]))
    tokens = opened(name)[block][begin : begin + int(str(row["length"]))]
    if payload_digest(tokens) == row["digest"]:
        return None
    return f"train/{name}, block {block}, offset {begin} holds other tokens"


def _named(build: Path, problems: list[str], n_looked_up: int) -> list[str]:
    """Returns the first problems and how many there are."""
    more = f"{build}: {len(problems)} of {n_looked_up} placements that were looked up do not match"
    return [*problems[:_MOST_NAMED], f"{more}; see: mixctl verify {build} --full"]
