"""Small changes to bytes and to trees of plain values, drawn from a `random.Random`."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PIECES = (
    *(b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b"\n", b"\r"),
    *(b"\\ud800", b"\\u0000", b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"-", b"- "),
    *(b"&a ", b"*a", b"<<: ", b"!!python/object:os.system", b"!!binary ", b"!!set ", b"? ", b"| "),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0x", b"0b", b"1:2:3", b"~"),
    *(b"9" * 30, b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"{a: " * 300, b" " * 4000),
    *(b"../", b"/etc/passwd", b"%s%n", b"{0.__class__}", b"{{7*7}}", b"<script>", b"\x1b[31m"),
    *("é".encode(), "漢".encode(), "\u2028".encode(), "\U0001f600".encode(), b"\x7f", b"\x08"),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, "", " ", "x", "a" * 5000, "../../up", "/etc/passwd", "a/b", "C:\\x"),
    *("\ud800", "a\ud800b", "\x00", "a\nb", "\x1b[31m", "{0}", "%s", "{{7*7}}", "<b>", "é", "漢字"),
    *("[/]", "[bold]", "file:///etc/passwd", "foo://bar", "s3://b/x", "~", "$HOME", "*", "**/*"),
    *(-1, 0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**30, -(10**30)),
    *(0.0, -0.0, 0.5, 1e-300, 1e9, 1e308, math.nan, math.inf, -math.inf),
    *("1e9", "30B", "1.5M", "9999999999T", "-5%", "0%", "25%", "100%", "200%", "1/0%", "1e999%"),
    *("rest", "auto", "all", "uniform", "even", "null", "jsonl", "parquet", "text", "csv", "warc"),
    *([], {}, [[]], [None], [1], ["a"], {"a": 1}, {"": None}, {1: 2}, [0] * 300),
    *({"steps": [1]}, {"every": 1}, {"ramp": [0, 1]}, {"windows": [[1, 2]]}, [1, 2], ["0%", "50%"]),
    *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), b"\x00\xff"),
)
"""values that stand where others are expected"""


def mutated_bytes(chance: random.Random, data: bytes, most: int = 3) -> bytes:
    """Returns the data after one to `most` small changes."""
    for _ in range(chance.randint(1, most)):
        data = _changed(chance, data)
    return data


def _changed(chance: random.Random, data: bytes) -> bytes:
    begin = chance.randint(0, len(data))
    end = min(len(data), begin + chance.choice((1, 1, 2, 4, 8, 64, 1000)))
    way = chance.randrange(8)
    if way == 0 and data:  # one bit
        at = min(begin, len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if way == 1:  # less
        return data[:begin] + data[end:]
    if way == 2:  # twice
        return data[:end] + data[begin:]
    if way == 3:  # cut off
        return data[:begin]
    if way == 4:  # noise
        return data[:begin] + chance.randbytes(end - begin) + data[end:]
    if way == 5:  # elsewhere
        to = chance.randint(0, len(data))
        return data[:to] + data[begin:end] + data[to:]
    return data[:begin] + chance.choice(PIECES) + data[begin if way == 6 else end :]


def mutated_tree(chance: random.Random, tree: Any, most: int = 2) -> Any:
    """Returns a copy of a tree of dicts, lists and values after one to `most` changes."""
    made = copy.deepcopy(tree)
    for _ in range(chance.randint(1, most)):
        places = list(_places(made))
        if not places:
            return chance.choice(ODD)
        _change_at(chance, *chance.choice(places))
    return made


def _places(node: Any) -> Any:
    """Yields (container, key) of everything in a tree."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def _change_at(chance: random.Random, holder: Any, key: Any) -> None:
    value, way = holder[key], chance.randrange(8)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and chance.random() < 0.5:
        holder[key] = _near(chance, value)
    elif way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[_misspelt(chance, key)] = holder.pop(key) if chance.random() < 0.5 else value
    elif way == 2 and isinstance(holder, list):
        holder.insert(chance.randint(0, len(holder)), copy.deepcopy(value))
    elif way == 3:
        holder[key] = chance.choice(([value], {"a": value}, str(value), [value, value]))
    elif way == 4 and isinstance(value, str):
        text = mutated_bytes(chance, value.encode("utf-8", "replace"), 1)
        holder[key] = text[:20_000].decode("utf-8", "replace")
    else:
        holder[key] = copy.deepcopy(chance.choice(ODD))


def _near(chance: random.Random, value: float) -> float:
    """Returns another number, which may pass for this one."""
    near = (-value, value + 1, value - 1, value * 2, value * 1000, value * 10**9, value / 7)
    return chance.choice((*near, 0, 1, 2, float(value)))


def _misspelt(chance: random.Random, key: Any) -> Any:
    if not isinstance(key, str) or chance.random() < 0.2:
        return copy.deepcopy(chance.choice([one for one in ODD if isinstance(one, str | int)]))
    at = chance.randint(0, len(key))
    return key[:at] + chance.choice("aeX_. ") + key[at + 1 :]


def write_rows(rows: Any, schema: pa.Schema, path: Path) -> None:
    """Writes the rows as a table of the schema where they fit, else of types of their own."""
    for one in (schema, None):
        with contextlib.suppress(Exception):
            pq.write_table(pa.Table.from_pylist(rows, schema=one), path)
            return
    pq.write_table(pa.table({"experiment": [1, 2]}), path)
