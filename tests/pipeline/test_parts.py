"""Parts of the corpus: every document in exactly one, in order, wherever the cuts are."""

from __future__ import annotations

import functools
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mixctl.pipeline import tokenize_stage
from mixctl.pipeline.build import build
from mixctl.pipeline.parts import Part, corpus_tasks, grouped, read_part
from mixctl.pipeline.readers import corpus_reader, find_corpus
from mixctl.shards.errors import InputError
from tests.pipeline.test_engines import contents

LINES = st.lists(
    st.one_of(
        st.text(max_size=30).map(lambda text: orjson.dumps({"text": text})),
        st.just(orjson.dumps({"text": "long " * 20})),
        st.just(b""),
        st.just(b"   "),
    ),
    max_size=12,
)


def texts_of(folder: Path, task_bytes: int, format_name: str = "jsonl") -> list[list[str]]:
    """Returns the texts that each task reads."""
    corpus = find_corpus(str(folder), format_name, "text", None)
    reader = corpus_reader(corpus)
    tasks = corpus_tasks(corpus, task_bytes)
    return [[d.text for part in task for d in read_part(reader, part)] for task in tasks]


@settings(max_examples=150)
@given(
    files=st.lists(LINES, min_size=1, max_size=3), task_bytes=st.integers(1, 400), data=st.data()
)
def test_every_line_is_read_once_and_in_order(tmp_path_factory, files, task_bytes, data):
    folder = tmp_path_factory.mktemp("lines")
    expected = []
    for number, lines in enumerate(files):
        newline = data.draw(st.sampled_from([b"\n", b"\r\n"]))
        last = data.draw(st.sampled_from([b"", newline]))
        (folder / f"{number}.jsonl").write_bytes(newline.join(lines) + last)
        expected += [orjson.loads(line)["text"] for line in lines if line.strip()]
    read = [text for task in texts_of(folder, task_bytes) for text in task]
    assert read == [text for text in expected if text]


def test_one_big_file_is_many_tasks_and_a_compressed_one_is_not(tmp_path):
    rows = b"".join(orjson.dumps({"text": f"w{n} " * 20}) + b"\n" for n in range(1000))
    (tmp_path / "a.jsonl").write_bytes(rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows, 0))
    tasks = texts_of(tmp_path, len(rows) // 10)
    assert len(tasks) == 11
    assert max(len(task) for task in tasks[:10]) < 130
    assert len(tasks[10]) == 1000
    assert [text for task in tasks[:10] for text in task] == tasks[10]


def test_small_files_share_a_task(tmp_path):
    for number in range(50):
        (tmp_path / f"{number:02d}.txt").write_text(f"text {number}")
    assert texts_of(tmp_path, 10_000, "text") == [[f"text {n}" for n in range(50)]]
    n_files = [len(task) for task in texts_of(tmp_path, 70, "text")]
    assert n_files == [11, 10, 10, 10, 9], "ten of 6 bytes and one of 7, then ten of 7 bytes"


@pytest.mark.parametrize(
    ("task_bytes", "n_tasks"), [(1, {13}), (10_000, range(2, 13)), (10**9, {1})]
)
def test_row_groups_are_dealt_to_tasks(tmp_path, task_bytes, n_tasks):
    texts = [f"w{n} " * (n % 50) for n in range(500)]
    table = pa.table({"id": list(range(500)), "text": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=40)
    tasks = texts_of(tmp_path, task_bytes, "parquet")
    assert [text for task in tasks for text in task] == [text for text in texts if text]
    assert len(tasks) in n_tasks


@given(sizes=st.lists(st.integers(0, 100), min_size=1), task_bytes=st.integers(1, 200))
def test_runs_keep_the_order_and_the_limit(sizes, task_bytes):
    parts = [Part(f"{n}", size) for n, size in enumerate(sizes)]
    runs = grouped(parts, task_bytes)
    assert [part for run in runs for part in run] == parts
    for run, after in zip(runs, runs[1:], strict=False):
        assert sum(part.n_bytes for part in run) + after[0].n_bytes > task_bytes
    assert all(len(run) == 1 or sum(p.n_bytes for p in run) <= task_bytes for run in runs)


def test_a_broken_line_is_named_by_its_row_in_the_file(tmp_path):
    lines = [orjson.dumps({"text": f"w{n}"}) for n in range(300)]
    lines[17], lines[251] = b"", b'{"text": 5}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"a.jsonl: row 252: 'text' is a int, not a text"):
        texts_of(tmp_path, 200)


def test_a_giant_line_is_one_document_of_one_task(tmp_path):
    """A line of 20 MB among tasks of 1,000 bytes: none of its bytes is read twice or lost."""
    texts = ["first " * 50, "giant " * 3_500_000, "last"]
    lines = [orjson.dumps({"text": text}) for text in texts]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    tasks = [task for task in texts_of(tmp_path, 1000) if task]
    assert [text for task in tasks for text in task] == texts
    (holding,) = [task for task in tasks if texts[1] in task]
    assert len(holding) <= 2


@pytest.mark.parametrize(
    "text", ["a\x00b", "\ufeffa", "a\u2028b\x85c", "\U0010ffff\uffff", "\x1b[31m"]
)
def test_odd_characters_are_text(tmp_path, text):
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps({"text": text}) + b'\n{"text": "b"}\n')
    assert texts_of(tmp_path, 10**9) == [[text, "b"]]


@pytest.mark.parametrize(
    "line",
    [rb'{"text": "\ud800"}', b'{"text": "a\x00b"}', b'{"text": "\xed\xa0\x80"}', b"\x00" * 4000],
    ids=["lone surrogate", "raw NUL", "surrogate in UTF-8", "a hole in the file"],
)
def test_what_is_no_character_is_refused(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(InputError, match="a.jsonl: row 2: not JSON"):
        texts_of(tmp_path, 10**9)


def test_a_null_in_parquet_is_named_by_its_row_in_the_file(tmp_path):
    texts = ["a", "", "b"] * 50
    texts[77] = None
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=20)
    with pytest.raises(InputError, match=r"a.parquet: row 78: 'text' is a NoneType, not a text"):
        texts_of(tmp_path, 1, "parquet")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"txt": ["a"]}, r"a.parquet: row 1: no key 'text' \(did you mean 'txt'\?\)"),
        ({"text": [1]}, r"a.parquet: row 1: 'text' is a int64, not a text"),
    ],
)
def test_a_parquet_file_without_texts(tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        texts_of(tmp_path, 10**9, "parquet")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="a.parquet: not parquet"):
        texts_of(tmp_path, 10**9, "parquet")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-9]),
        ("a.jsonl.gz", b"no gzip"),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "a"}\n' * 999)[:20] + b"xxxxxxxxxxxx"),
        ("a.csv", b"text\n\xff\xfe\n"),
        ("a.csv", b'text\n"' + b"a" * 200_000),
    ],
    ids=["gzip-cut", "no-gzip", "zstd-changed", "csv-bytes", "csv-field"],
)
def test_a_damaged_file_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    format_name = "csv" if name.endswith("csv") else "jsonl"
    with pytest.raises(InputError, match=rf"{name}: damaged, or not what it is taken for \("):
        texts_of(tmp_path, 10**9, format_name)


def test_a_text_in_parquet_that_is_no_text(tmp_path):
    texts = pa.array([b"sound", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: damaged, .*can't decode byte 0xff"):
        texts_of(tmp_path, 10**9, "parquet")


def small_tasks(monkeypatch) -> None:
    """Makes tasks of 20,000 bytes: some 35 of the workspace's corpus."""
    cut = functools.partial(corpus_tasks, task_bytes=20_000)
    monkeypatch.setattr(tokenize_stage, "corpus_tasks", cut)


def test_bytes_do_not_depend_on_the_cut(shared, built, monkeypatch):
    small_tasks(monkeypatch)
    out = shared.folder / "small-tasks"
    build(shared.mix(name="built.yaml"), out, control=True, workers=2)
    assert contents(out) == contents(built)


SLOW_BUILD = """
import functools, sys, time
from pathlib import Path
from mixctl.pipeline import build, tokenize, tokenize_stage
write = tokenize.TokenizeDocuments._write
def slow(*arguments):
    time.sleep(0.1)
    return write(*arguments)
tokenize.TokenizeDocuments._write = slow
cut = functools.partial(tokenize_stage.corpus_tasks, task_bytes=20_000)
tokenize_stage.corpus_tasks = cut
build.build(Path(sys.argv[1]), Path(sys.argv[2]), control=True)
"""


def test_killed_while_tokenizing_the_build_goes_on_from_the_tasks_that_are_done(
    shared, built, monkeypatch
):
    mix, out = shared.mix(name="built.yaml"), shared.folder / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(mix), str(out)])
    while len(list(out.glob(".work/tokens-*/log/completions/*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob(".work/tokens-*/*.tokens")}
    assert 3 <= len(done) < 35
    small_tasks(monkeypatch)
    remembered = {}
    run = tokenize_stage.run_with_one_engine

    def remember(*arguments):
        run(*arguments)
        remembered.update(
            {p.name: p.stat().st_mtime_ns for p in out.glob(".work/tokens-*/*.tokens")}
        )

    monkeypatch.setattr(tokenize_stage, "run_with_one_engine", remember)
    build(mix, out, control=True)
    kept = [name for name, when in done.items() if remembered[name] == when]
    assert len(kept) >= 3
    assert len(remembered) > len(done)
    assert contents(out) == contents(built)
