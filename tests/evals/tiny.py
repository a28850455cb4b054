"""A build and checkpoints small enough to make in a test: no trainer, no tokenizer, no corpus.

The build holds manifest tables, val/ and mix.json; checkpoints have the files and the records that
LitGPT writes. 10 steps of 4 sequences of 32 tokens; vocabulary 64; end-of-document is token 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from litgpt import GPT, Config

from mixctl.shards import manifest
from mixctl.shards.chunks import chunk_bytes, chunk_name, open_chunk
from mixctl.shards.layout import train_layout
from mixctl.shards.meta import ContaminationMeta, DocumentsMeta, MemorizationMeta
from mixctl.shards.record import BuildRecord, Geometry, TokenizerRecord, Totals, write_record
from mixctl.shards.topology import Topology

VOCABULARY = 64
STEPS = 10
TOPOLOGY = Topology(
    devices=1,
    nodes=1,
    workers=0,
    micro_batch=2,
    global_batch=4,
    max_seq_length=32,
    max_tokens=STEPS * 4 * 32,
    data_seed=42,
)
CONFIG = Config(
    name="tiny",
    block_size=32,
    vocab_size=VOCABULARY,
    padded_vocab_size=VOCABULARY,
    n_layer=1,
    n_head=2,
    n_embd=32,
)


@dataclass
class TinyItem:
    """An item to be; `steps` are the steps of its copies."""

    name: str
    arm: str
    tokens: list[int]
    meta: str
    steps: list[int] = field(default_factory=list)
    stratum: str = "all"
    cluster: str = ""
    text: str | None = None


def canaries(arms: dict[str, tuple[int, int]], seed: int = 1) -> list[TinyItem]:
    """Returns canaries of 4 + 6 random tokens; arm -> (items, copies), copies at steps 1, 2, ..."""
    rng = np.random.default_rng(seed)
    items = []
    for arm, (n_items, copies) in arms.items():
        for number in range(n_items):
            tokens = rng.integers(1, VOCABULARY, 10).tolist()
            meta = MemorizationMeta(
                condition="random",
                prefix_length=4,
                suffix_length=6,
                candidates=rng.integers(1, VOCABULARY, (7, 6)).tolist(),
                space_size=float(VOCABULARY - 1) ** 6,
            )
            steps = [copy % STEPS + 1 for copy in range(copies)]
            name = f"{arm}-{number:03d}"
            items.append(TinyItem(name, arm, tokens, meta.model_dump_json(), steps))
    return items


def questions(arms: dict[str, tuple[int, int]], seed: int = 2) -> list[TinyItem]:
    """Returns questions with 3 choices from two benchmarks, which are their strata."""
    rng = np.random.default_rng(seed)
    items = []
    for arm, (n_items, copies) in arms.items():
        for number in range(n_items):
            context = rng.integers(1, VOCABULARY, 6).tolist()
            choices = [rng.integers(1, VOCABULARY, 3).tolist() for _ in range(3)]
            gold = int(rng.integers(3))
            meta = ContaminationMeta(
                benchmark=f"b{number % 2}",
                context_tokens=context,
                choice_tokens=choices,
                choice_characters=[9, 10, 11],
                gold=gold,
                normalisation="none",
            )
            steps = [copy % STEPS + 1 for copy in range(copies)]
            item = TinyItem(f"{arm}-{number:03d}", arm, context + choices[gold], "", steps)
            item.meta, item.stratum = meta.model_dump_json(), f"b{number % 2}"
            items.append(item)
    return items


def documents(arms: dict[str, tuple[int, int]], seed: int = 3) -> list[TinyItem]:
    """Returns documents of 12 tokens."""
    rng = np.random.default_rng(seed)
    items = []
    for arm, (n_items, copies) in arms.items():
        for number in range(n_items):
            tokens = rng.integers(1, VOCABULARY, 12).tolist()
            meta = DocumentsMeta(n_characters=40).model_dump_json()
            steps = [copy % STEPS + 1 for copy in range(copies)]
            items.append(TinyItem(f"{arm}-{number:03d}", arm, tokens, meta, steps))
    return items


def make_build(folder: Path, experiments: dict[str, tuple[str, Sequence[TinyItem]]]) -> Path:
    """Returns the folder of a build with these experiments: name -> (kind, items)."""
    rows: list[dict[str, Any]] = []
    placed: list[dict[str, Any]] = []
    for name, (kind, items) in sorted(experiments.items()):
        for item in sorted(items, key=lambda item: item.name):
            rows.append(_item_row(name, kind, item))
            placed += [_placement_row(name, item, copy) for copy in range(len(item.steps))]
    names = ("items", "placements", "replacements", "blocks")
    schemas = (manifest.ITEMS, manifest.PLACEMENTS, manifest.REPLACEMENTS, manifest.BLOCKS)
    for table, schema, content in zip(names, schemas, (rows, placed, [], []), strict=True):
        path = folder / "manifest" / f"{table}.parquet"
        manifest.write_table(pa.Table.from_pylist(content, schema=schema), path)
    held_out = np.random.default_rng(4).integers(1, VOCABULARY, (4, 33)).astype(np.uint16)
    (folder / "val").mkdir()
    (folder / "val" / chunk_name(0)).write_bytes(chunk_bytes(held_out))
    write_record(folder, tiny_record(experiments))
    return folder


def into_shards(build: Path, experiment: str) -> Path:
    """Returns the chunk file that now holds the placed items of the experiment, as base data.

    Their tokens, whole sequences, go from items.parquet to train/, a block and a part a sequence;
    every copy points to the same blocks. Other placed items get a block each.
    """
    items = manifest.read_items(build).to_pylist()
    placed = manifest.read_placements(build).to_pylist()
    blocks: list[list[int]] = []
    for item in items:
        if item["experiment"] != experiment or not item["copies"]:
            continue
        sequences = [item["tokens"][at : at + 33] for at in range(0, len(item["tokens"]), 33)]
        mine = [r for r in placed if (r["experiment"], r["item"]) == (experiment, item["item"])]
        placed = [row for row in placed if row not in mine]
        for row in mine:
            for part, tokens in enumerate(sequences):
                at = {
                    "chunk": chunk_name(0),
                    "block": len(blocks) + part,
                    "offset": 0,
                    "length": 33,
                }
                digest = manifest.payload_digest(np.array(tokens))
                placed.append({**row, **at, "part": part, "digest": digest, "mode": "sequence"})
        blocks += sequences
        item["tokens"] = None
    own = {(item["experiment"], item["item"]): item["tokens"] for item in items}
    for row in placed:
        if row["experiment"] != experiment:
            tokens = own[row["experiment"], row["item"]][:32]
            row |= {"chunk": chunk_name(0), "block": len(blocks), "offset": 1}
            row["length"] = len(tokens)
            row["digest"] = manifest.payload_digest(np.array(tokens))
            blocks.append([0, *tokens, *[0] * 32][:33])
    key = itemgetter("experiment", "item", "copy", "part")
    for name, schema, rows in (
        ("items", manifest.ITEMS, items),
        ("placements", manifest.PLACEMENTS, sorted(placed, key=key)),
    ):
        table = pa.Table.from_pylist(rows, schema=schema)
        manifest.write_table(table, build / "manifest" / f"{name}.parquet")
    path = build / "train" / chunk_name(0)
    path.parent.mkdir()
    path.write_bytes(chunk_bytes(np.array(blocks, dtype=np.uint16)))
    return path


def a_block_a_chunk(build: Path) -> None:
    """Cuts the one chunk of train/ into chunks of a block each; the placements follow."""
    path = build / "train" / chunk_name(0)
    blocks = np.array(open_chunk(path, 33, "uint16"))
    for number, block in enumerate(blocks):
        (path.parent / chunk_name(number)).write_bytes(chunk_bytes(block[None]))
    rows = manifest.read_placements(build).to_pylist()
    for row in rows:
        row |= {"chunk": chunk_name(row["block"]), "block": 0}
    table = pa.Table.from_pylist(rows, schema=manifest.PLACEMENTS)
    manifest.write_table(table, build / "manifest" / "placements.parquet")


def _item_row(experiment: str, kind: str, item: TinyItem) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "kind": kind,
        "item": item.name,
        "arm": item.arm,
        "stratum": item.stratum,
        "cluster": item.cluster or item.name,
        "copies": len(item.steps),
        "tokens": item.tokens,
        "text": item.text,
        "meta": item.meta,
    }


def _placement_row(experiment: str, item: TinyItem, copy: int) -> dict[str, Any]:
    blank: dict[str, Any] = {name: 0 for name in manifest.PLACEMENTS.names}
    blank.update(chunk="chunk-0-0.bin", digest="", mode="overwrite", source_sequence=None)
    blank.update(experiment=experiment, item=item.name, arm=item.arm, copy=copy)
    blank.update(step=item.steps[copy], length=len(item.tokens))
    return blank


def tiny_record(experiments: dict[str, tuple[str, Sequence[TinyItem]]]) -> BuildRecord:
    """Returns mix.json of such a build."""
    layout = train_layout(TOPOLOGY, 2, 2**20)
    totals = {
        name: Totals(items=len(items), placements=0, tokens=0, share=0.0)
        for name, (_, items) in experiments.items()
    }
    return BuildRecord(
        config={"chunk_bytes": 1000, "trainer_config": {}, "experiments": []},
        geometry=Geometry(
            max_seq_length=32,
            sequence_tokens=33,
            micro_batch=2,
            global_batch=4,
            devices=1,
            nodes=1,
            workers=0,
            data_seed=42,
            max_tokens=TOPOLOGY.max_tokens,
            steps=TOPOLOGY.steps,
            sequences=TOPOLOGY.sequences,
            chunks=layout.n_chunks,
            chunks_per_worker=layout.chunks_per_worker,
            blocks_per_chunk=layout.blocks_per_chunk,
            val_sequences=4,
            val_chunks=1,
            val_chunks_per_worker=1,
            val_blocks_per_chunk=4,
            dtype="uint16",
            litdata=TOPOLOGY.litdata,
        ),
        tokenizer=TokenizerRecord(
            digest="0", vocab_size=VOCABULARY, eod="<eod>", eod_id=0, bos_id=None
        ),
        control=True,
        corpus={},
        digests={},
        versions={},
        files={},
        totals=totals,
    )


def tiny_model(seed: int = 0) -> GPT:
    """Returns a random model."""
    torch.manual_seed(seed)
    return GPT(CONFIG).eval()


def teach(model: GPT, texts: Sequence[tuple[list[int], int]], rounds: int = 60) -> GPT:
    """Returns the model after training on texts, each as often as its number of copies says."""
    rows = [tokens for tokens, copies in texts if copies]
    weight = torch.tensor([float(copies) for _, copies in texts if copies])[:, None]
    longest = max(map(len, rows))
    batch = torch.zeros((len(rows), longest + 1), dtype=torch.long)
    for at, tokens in enumerate(rows):
        batch[at, 1 : len(tokens) + 1] = torch.tensor(tokens)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(rounds):
        logits = model(batch[:, :-1])
        targets = batch[:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        loss = (losses * weight).sum() / (weight.sum() * targets.shape[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def loader_state(build: Path, split: str, step: int, extra: int = 0) -> dict[str, Any]:
    """Returns what litdata 0.2.59 saves after `step` steps and `extra` micro-batches."""
    layout = train_layout(TOPOLOGY, 2, 2**20)
    yielded = step * TOPOLOGY.global_batch + extra * TOPOLOGY.micro_batch
    dataset = {
        "num_samples_yielded": yielded,
        "num_workers": 1,
        "batch_size": 2,
        "current_epoch": 1,
        "input_dir_path": str(build.resolve() / split),
        "input_dir_url": None,
        "cache_dir_path": None,
        "item_loader": {"block_size": 33},
        "drop_last": True,
        "seed": 42,
        "world_size": 1,
        "shuffle": True,
        "subsampled_files": [f"chunk-0-{c}.bin" for c in range(layout.n_chunks)],
        "region_of_interest": [(0, layout.blocks_per_chunk)] * layout.n_chunks,
    }
    return {
        "dataset": dataset,
        "current_epoch": 1,
        "num_samples_yielded": yielded,
        "latest_worker_idx": 0,
    }


def hyperparameters(build: Path, split: str) -> dict[str, Any]:
    """Returns the part of LitGPT's hyperparameters.yaml that matters."""
    arguments = {
        "data_path": str(build.resolve()),
        "split_names": [split, "val"],
        "seed": 42,
        "num_workers": 0,
    }
    return {
        "model_name": "tiny",
        "data": {"class_path": "litgpt.data.LitData", "init_args": arguments},
        "train": {
            "global_batch_size": 4,
            "micro_batch_size": 2,
            "max_seq_length": 32,
            "max_tokens": TOPOLOGY.max_tokens,
        },
        "devices": 1,
        "num_nodes": 1,
    }


def make_checkpoint(
    folder: Path,
    model: GPT,
    build: Path | None = None,
    step: int | None = None,
    split: str = "train",
    changes: dict[str, Any] | None = None,
    prefix: str = "",
    extra: int = 0,
) -> Path:
    """Returns the folder of a checkpoint; with a build it carries LitGPT's records.

    `changes` sets values by dotted path, below `loader.` or `hyperparameters.`.
    """
    folder.mkdir(parents=True)
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    state: dict[str, Any] = {"model": weights, "optimizer": {}}
    records: dict[str, Any] = {}
    if build is not None and step is not None:
        records = {
            "loader": loader_state(build, split, step, extra),
            "hyperparameters": hyperparameters(build, split),
            "iter_num": step * TOPOLOGY.accumulation,
        }
        for path, value in (changes or {}).items():
            _set(records, path, value)
        state.update(train_dataloader=records["loader"], iter_num=records["iter_num"])
        text = yaml.safe_dump(records["hyperparameters"])
        (folder / "hyperparameters.yaml").write_text(text)
    if step is not None:
        state["step_count"] = step
    torch.save(state, folder / "lit_model.pth")
    (folder / "model_config.yaml").write_text(yaml.safe_dump(asdict(CONFIG)))
    return folder


def _set(records: dict[str, Any], path: str, value: object) -> None:
    *above, last = path.split(".")
    for name in above:
        records = records[name]
    records[last] = value
