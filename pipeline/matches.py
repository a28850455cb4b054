"""What of the items the base corpus held: the table that shows every match, and what is dropped.

A row of manifest/decontamination.parquet is a stretch of one base document that matches one item.
Parts of an item that overlap in a document are one row with the range they cover together. The text
is that of the corpus, so that a reader can tell a leaked question from a common phrase.

    item q1 looked for as tokens 0-50, 25-75, 50-100; document 17 holds its tokens 10-90 at 400
    row: q1, document 17, offset 415, length 50 (tokens 25-75)

Price: some int64 a match; the text of each different stretch is decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mixctl.injections.encode import Encoder
from mixctl.pipeline.decontamination import Decontamination, Patterns
from mixctl.pipeline.searching import BaseDocuments, Hits
from mixctl.shards.columns import arrow_column
from mixctl.shards.draws import I64
from mixctl.shards.search import expand

SHOWN_CHARACTERS = 200

DECONTAMINATION = pa.schema(
    [
        ("experiment", pa.string()),
        ("item", pa.string()),
        ("document", pa.int64()),
        ("offset", pa.int32()),
        ("length", pa.int32()),
        ("dropped", pa.bool_()),
        ("text", pa.string()),
    ]
)


@dataclass(frozen=True)
class Ranges:
    """Stretches of base documents that match items, sorted; int64 arrays of shape (n,).

    Attributes:
        item: its number in `Patterns.items`.
        task: of the tokenize stage.
        document: its number in the task's file.
        offset: of the first token.
        length: in tokens.
    """

    item: I64
    task: I64
    document: I64
    offset: I64
    length: I64


def documents_to_drop(found: Hits) -> dict[int, I64]:
    """Returns the sorted numbers of the documents with a match (int64), by task; others absent."""
    return {
        int(task): np.unique(found.document[found.task == task]) for task in np.unique(found.task)
    }


def hits_table(
    found: Hits,
    searched: Patterns,
    documents: BaseDocuments,
    encoder: Encoder,
    rule: Decontamination,
) -> pa.Table:
    """Returns manifest/decontamination.parquet: a row an item, document and range, sorted so.

    Documents are numbered over all files of the corpus in order: the cut into tasks shows nowhere.
    """
    ranges = covered(found, searched)
    names = np.array(searched.items, dtype=object).reshape(-1, 2)[ranges.item]
    columns = [
        names[:, 0].tolist(),
        names[:, 1].tolist(),
        documents.number(ranges.task, ranges.document),
        ranges.offset,
        ranges.length,
        np.full(len(ranges.item), rule.action == "drop"),
        _texts(ranges, documents, encoder),
    ]
    arrays = [
        arrow_column(values, one.type) for values, one in zip(columns, DECONTAMINATION, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=DECONTAMINATION)


def covered(found: Hits, searched: Patterns) -> Ranges:
    """Returns the ranges that the parts of each item cover; parts that overlap are one range."""
    row, owner = expand(searched.first[found.pattern], searched.n_owners[found.pattern])
    item, task, document = searched.owner[owner], found.task[row], found.document[row]
    begin = found.offset[row]
    end = begin + searched.strings.length[found.pattern[row]]
    order = np.lexsort((end, begin, document, task, item))
    item, task, document, begin, end = (
        column[order] for column in (item, task, document, begin, end)
    )
    other = np.ones(len(order), dtype=np.bool_)
    for column in (item, task, document):
        other[1:] &= column[1:] == column[:-1]
    other[1:] = ~other[1:]
    span = int(end.max(initial=0)) + 1
    group = np.cumsum(other) * span  # so that an end of one document is below those of the next
    reached = np.maximum.accumulate(group + end)
    fresh = other.copy()
    fresh[1:] |= (group + begin)[1:] >= reached[:-1]
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(order))[: len(first)] - 1
    offset = begin[first]
    length = (reached - group)[last] - offset
    return Ranges(item[first], task[first], document[first], offset, length)


def _texts(ranges: Ranges, documents: BaseDocuments, encoder: Encoder) -> list[str]:
    """Returns the text of each range, at most 200 characters of it."""
    known: dict[bytes, str] = {}
    texts = []
    places = zip(ranges.task, ranges.document, ranges.offset, ranges.length, strict=True)
    for task, document, offset, length in places:
        shown = min(int(length), SHOWN_CHARACTERS)  # tokens without a character are rare
        ids = documents.tokens(int(task), int(document), int(offset), shown)
        key = ids.tobytes()
        if key not in known:
            known[key] = encoder.decode(ids)[:SHOWN_CHARACTERS]
        texts.append(known[key])
    return texts
