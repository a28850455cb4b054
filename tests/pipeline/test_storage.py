"""Corpora and builds at fsspec addresses: a folder as file://, and a real S3 server in a thread."""

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixctl.pipeline.executor_config import ExecutorConfig
from mixctl.pipeline.publish import build_at, publish
from mixctl.shards.addresses import digest_at, listing
from mixctl.shards.errors import InputError, VerificationError
from mixctl.shards.files import digest_file
from mixctl.shards.reading import read_batches
from mixctl.shards.record import read_record
from mixctl.shards.verify_address import verify_address
from tests.support.workspace import quiz
from tests.test_end_to_end import mixctl

LITGPT = Path(sys.executable).with_name("litgpt")
HERE = ExecutorConfig()


@pytest.fixture
def copy(built, tmp_path):
    """Returns a copy of a build, free to be uploaded and damaged."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_uploaded_is_the_build_with_its_own_configs(copy, tmp_path):
    there, address = tmp_path / "there", f"file://{tmp_path}/there"
    record = publish(copy, address, HERE)
    local = read_record(copy)
    assert listing(address).keys() == {*local.files, "mix.json"}
    configs = {"litgpt.yaml", "litgpt-control.yaml"}
    for name in local.files.keys() - configs:
        assert digest_file(there / name) == local.files[name].digest
        assert digest_at(address, name) == local.files[name].digest
    for name in configs:
        mine, theirs = (yaml.safe_load((f / name).read_text()) for f in (copy, there))
        assert theirs["data"]["init_args"].pop("data_path") == address
        mine["data"]["init_args"].pop("data_path")
        assert mine == theirs
    assert read_record(there) == record.model_copy(
        update={"self_digest": read_record(there).self_digest}
    )
    assert verify_address(address, full=True).files == len(local.files)
    assert 0 < verify_address(address).files < len(local.files)
    assert not (copy / ".work").exists()
    before = (there / "mix.json").stat().st_mtime_ns
    publish(copy, address, HERE)
    assert (there / "mix.json").stat().st_mtime_ns == before, "done is done"


def test_an_upload_that_stopped_goes_on(copy, tmp_path):
    """As after a kill: files are there, some of them short, and no mix.json."""
    there, address = tmp_path / "there", f"file://{tmp_path}/there"
    publish(copy, address, HERE)
    (there / "mix.json").unlink()
    (there / "train/chunk-000001.bin").unlink()
    (there / "train/chunk-000002.bin").write_bytes(b"half")
    with pytest.raises(InputError, match="mix.json: missing; no finished build is there"):
        verify_address(address)
    publish(copy, address, HERE)
    verify_address(address, full=True)


def test_what_is_damaged_is_found(copy, tmp_path):
    there, address = tmp_path / "there", f"file://{tmp_path}/there"
    publish(copy, address, HERE)
    chunk = there / "control/train/chunk-000002.bin"
    data = bytearray(chunk.read_bytes())
    data[50] ^= 1
    chunk.write_bytes(bytes(data))
    (there / "val/index.json").write_text("{}")
    (there / "train/more.bin").write_text("")
    with pytest.raises(VerificationError) as error:
        verify_address(address, full=True)
    assert [
        finding.partition(": ")[0].removeprefix(address) for finding in error.value.findings
    ] == [
        *("/val/index.json", "/train/more.bin", "/control/train/chunk-000002.bin"),
        "/val/index.json",
    ]
    (there / "mix.json").write_text(
        (there / "mix.json").read_text().replace('"seed": 17', '"seed": 18')
    )
    with pytest.raises(VerificationError, match="does not match its own digest"):
        verify_address(address)


def test_a_damaged_build_is_not_uploaded(copy, tmp_path):
    chunk = copy / "train/chunk-000001.bin"
    data = bytearray(chunk.read_bytes())
    data[50] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match="chunk-000001.bin: its content does not match"):
        publish(copy, f"file://{tmp_path}/there", ExecutorConfig(workers=2))
    assert not (tmp_path / "there/mix.json").exists()


def test_an_address_that_holds_something_else_is_refused(copy, tmp_path):
    there, address = tmp_path / "there", f"file://{tmp_path}/there"
    there.mkdir()
    (there / "photo.jpg").write_text("x")
    with pytest.raises(InputError, match=r"holds 1 files that are not of this build \(photo.jpg\)"):
        publish(copy, address, HERE)
    (there / "mix.json").write_text("{}")
    with pytest.raises(InputError, match="already holds another build"):
        publish(copy, address, HERE)


def test_wrong_usage_is_said_before_any_work(shared, tmp_path):
    mix = shared.mix(name="built.yaml")
    for arguments, said in (
        (["--out", "s3://bucket/run"], "is an address: name a folder with --stage"),
        (["--out", "run", "--stage", "x"], "--stage: is for addresses"),
        (["--out", "s4://bucket/run", "--stage", "x"], "s4://bucket/run: cannot be opened"),
    ):
        assert said in mixctl("build", mix, *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def s3():
    """Returns the address of an empty bucket of a server that speaks S3, here."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"bucket-{uuid.uuid4().hex}"  # litdata caches chunks by their address
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"
    server.stop()


@pytest.mark.s3
def test_corpus_and_build_on_s3(shared, built, tmp_path, s3):
    """The corpus is read from S3; what the stock loader reads from S3 is the local build."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(s3)
    filesystem.put_file(str(shared.folder / "corpus.jsonl"), f"{root}/texts/corpus.jsonl")
    mix = shared.mix(name="s3.yaml", corpus={"path": f"{s3}/texts"})
    address, stage = f"{s3}/runs/1", tmp_path / "stage"
    how = ("--stage", stage, "--control", "--workers", "2")
    mixctl("build", mix, "--out", address, *how, cwd=tmp_path)
    expected, found = read_record(built), read_record(stage)
    same = [name for name in expected.files if not name.endswith(".yaml")]
    assert {n: found.files[n] for n in same} == {n: expected.files[n] for n in same}
    topology = expected.geometry.topology()
    for split in ("train", "val", "control/train"):
        pairs = zip(
            read_batches(address, split, topology, 0, 3, 40),
            read_batches(built, split, topology, 0, 3, 40),
            strict=True,
        )
        equal = [np.array_equal(mine, theirs) for mine, theirs in pairs]
        assert len(equal) > 4
        assert all(equal)
    done = mixctl("verify", address, "--full", "--json", cwd=tmp_path)
    assert json.loads(done.splitlines()[-1])["files"] == len(expected.files)


@pytest.mark.s3
def test_stock_litgpt_trains_from_s3(workspace, tmp_path, s3):
    workspace.trainer(max_tokens=8 * 64 * 6)
    address, stage = f"{s3}/runs/trained", tmp_path / "stage"
    few = [{"name": "holdout", "items": 50, "copies": 0}, {"name": "x1", "items": 10, "copies": 1}]
    build_at(workspace.mix(quiz(arms=few)), address, stage)
    config = tmp_path / "litgpt.yaml"
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(address)
    filesystem.get_file(f"{root}/litgpt.yaml", str(config))
    command = [LITGPT, "pretrain", "--config", config]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = mixctl("eval", stage, "out/final", "--out", "results", cwd=tmp_path)
    assert "quiz" in said


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_said(shared, tmp_path, s3):
    with pytest.raises(InputError, match="s3://nobody-made-this/run: cannot be written"):
        build_at(shared.mix(name="built.yaml"), "s3://nobody-made-this/run", tmp_path / "stage")
    assert not (tmp_path / "stage").exists()
