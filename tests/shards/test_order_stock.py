"""The closed form of the training order against the stock loader, set up as LitGPT does."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mixctl.shards.layout import Layout, train_layout, val_layout
from mixctl.shards.order import TrainingOrder
from mixctl.shards.topology import Topology
from tests.support.ranks import read_in_group
from tests.support.slots import (
    as_rank,
    expected_slots,
    read_slots,
    stock_loader,
    write_slots,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]

LENGTH = 6
TOKEN_BYTES = 2
SEEDS = (42, 0, 7, 2**32 - 1)
MICRO_BATCHES = (1, 2, 3, 4, 8)


def _topology(ranks: int, workers: int, micro_batch: int, variant: int, nodes: int = 1) -> Topology:
    """Returns a topology; the variant turns accumulation, steps, seed and unused iterations."""
    accumulation = (1, 2, 3)[variant % 3]
    steps = 2 + (variant // 2) % 3 + 4 // accumulation
    unused = (0, 1, 2)[variant % 3]
    iterations = steps * accumulation + min(unused, accumulation - 1)
    return Topology(
        devices=ranks // nodes,
        nodes=nodes,
        workers=workers,
        micro_batch=micro_batch,
        global_batch=ranks * micro_batch * accumulation,
        max_seq_length=LENGTH,
        max_tokens=iterations * ranks * micro_batch * LENGTH,
        data_seed=SEEDS[variant % 4],
    )


def _layout(topology: Topology, variant: int) -> Layout:
    """Returns the layout of train/ for chunks of one to four micro-batches."""
    micro_batch_bytes = topology.micro_batch * topology.sequence_tokens * TOKEN_BYTES
    per_worker = -(-(topology.iterations + 1) // topology.loader_workers)
    per_chunk = max(1 + variant % 4, -(-per_worker // 4))
    return train_layout(topology, TOKEN_BYTES, per_chunk * micro_batch_bytes)


def _write(folder: Path, layout: Layout) -> Path:
    write_slots(folder, layout, LENGTH + 1)
    return folder.parent


def _grid(ranks: int, pairs: list[tuple[int, int]], nodes: int = 1) -> dict[str, tuple]:
    """Returns name -> (topology, layout) for the pairs of workers and micro-batch."""
    cases = {}
    for variant, (workers, micro_batch) in enumerate(pairs):
        topology = _topology(ranks, workers, micro_batch, variant + workers, nodes)
        assert topology.problems() == []
        name = f"ranks{ranks}-nodes{nodes}-workers{workers}-micro{micro_batch}"
        cases[name] = (topology, _layout(topology, variant))
    return cases


ALL_PAIRS = list(product(range(5), MICRO_BATCHES))
GROUPS = {
    2: _grid(2, ALL_PAIRS[::2]) | _grid(2, [(0, 2), (2, 1), (3, 4)], nodes=2),
    4: _grid(4, [(0, 3), (1, 2), (2, 1), (3, 8), (4, 4)]) | _grid(4, [(2, 2)], nodes=2),
}


def test_grid_covers_what_it_should() -> None:
    cases = [case for group in GROUPS.values() for case in group.values()]
    cases += [case for case in _grid(1, ALL_PAIRS).values()]
    assert {topology.workers for topology, _ in cases} == {0, 1, 2, 3, 4}
    assert {topology.micro_batch for topology, _ in cases} == set(MICRO_BATCHES)
    assert {topology.accumulation for topology, _ in cases} == {1, 2, 3}
    assert {topology.data_seed for topology, _ in cases} == set(SEEDS)
    assert {layout.chunks_per_worker for _, layout in cases} >= {1, 2, 3, 4}
    assert len({layout.blocks_per_chunk for _, layout in cases}) >= 8
    assert any(topology.iterations % topology.accumulation for topology, _ in cases)


@pytest.mark.parametrize("workers", range(5))
def test_one_rank(tmp_path: Path, workers: int) -> None:
    pairs = [pair for pair in ALL_PAIRS if pair[0] == workers]
    for name, (topology, layout) in _grid(1, pairs).items():
        root = _write(tmp_path / name / "train", layout)
        got = read_slots(stock_loader(root, topology))
        _check(name, topology, layout, got[None])


@pytest.mark.gloo
@pytest.mark.parametrize("ranks", GROUPS)
def test_several_ranks(tmp_path: Path, ranks: int) -> None:
    cases = GROUPS[ranks]
    jobs = {
        name: (_write(tmp_path / name / "train", layout), topology, True)
        for name, (topology, layout) in cases.items()
    }
    found = read_in_group(ranks, jobs)
    for name, (topology, layout) in cases.items():
        _check(name, topology, layout, found[name])
    for name in list(cases)[:: max(1, len(cases) // 5)]:
        alone = _read_alone(jobs[name][0], cases[name][0], train=True)
        np.testing.assert_array_equal(alone, found[name], err_msg=f"{name}: told in one process")


def _check(name: str, topology: Topology, layout: Layout, found: np.ndarray) -> None:
    """Compares every batch of every rank with the closed form, spares included, both ways."""
    assert sorted(found.ravel()) == list(range(layout.n_blocks)), name
    order = TrainingOrder(topology, layout)
    for rank, slots in enumerate(found):
        expected = expected_slots(topology, layout, rank)
        np.testing.assert_array_equal(slots, expected, err_msg=f"{name}, rank {rank}")
        chunk, block = np.divmod(slots, layout.blocks_per_chunk)
        step, row = order.steps(order.sequences(chunk, block))
        t = np.arange(len(slots))
        np.testing.assert_array_equal(
            step, np.tile(t // topology.accumulation + 1, (slots.shape[1], 1)).T
        )
        in_rank = (t % topology.accumulation) * topology.ranks + rank
        rows = in_rank[:, None] * topology.micro_batch + np.arange(topology.micro_batch)
        np.testing.assert_array_equal(row, rows)


def _read_alone(root: Path, topology: Topology, *, train: bool) -> np.ndarray:
    """Returns what each rank's loader yields when this process plays the ranks in turn."""
    ranks, nodes = topology.ranks, topology.nodes
    loaders = [
        as_rank(stock_loader(root, topology, train=train), ranks, rank, nodes)
        for rank in range(ranks)
    ]
    return np.stack([read_slots(loader) for loader in loaders])


VALIDATION = [(1, 0, 4, 8), (1, 3, 2, 13), (2, 0, 3, 12), (2, 2, 1, 11), (2, 4, 2, 40)]


@pytest.mark.gloo
def test_validation_covers_every_block_once(tmp_path: Path) -> None:
    cases, jobs = {}, {}
    for ranks, workers, micro_batch, sequences in VALIDATION:
        topology = _topology(ranks, workers, micro_batch, 0)
        layout = val_layout(topology, sequences, TOKEN_BYTES, 2 * micro_batch * (LENGTH + 1) * 2)
        name = f"ranks{ranks}-workers{workers}"
        root = _write(tmp_path / name / "val", layout)
        cases[name], jobs[name] = (topology, layout), (root, topology, False)
    found = read_in_group(2, {name: job for name, job in jobs.items() if job[1].ranks == 2})
    for name, (topology, layout) in cases.items():
        alone = _read_alone(jobs[name][0], topology, train=False)
        np.testing.assert_array_equal(found.get(name, alone), alone)
        assert sorted(alone.ravel()) == list(range(layout.n_blocks)), name
        assert (
            layout.n_blocks >= 2 * topology.ranks * max(topology.workers, 1) * topology.micro_batch
        )


RESUMED = [(1, 0, 3), (1, 1, 2), (1, 2, 2), (1, 3, 4), (1, 4, 1), (2, 0, 2), (2, 3, 1)]


@pytest.mark.parametrize(("ranks", "workers", "micro_batch"), RESUMED)
def test_resumed_loader_continues(
    tmp_path: Path, ranks: int, workers: int, micro_batch: int
) -> None:
    topology = _topology(ranks, workers, micro_batch, 4)
    layout = _layout(topology, workers % 2)
    root = _write(tmp_path / "train", layout)
    rank = ranks - 1
    expected = expected_slots(topology, layout, rank)

    def loader() -> object:
        return as_rank(stock_loader(root, topology), ranks, rank)

    states = _states(loader())
    assert len(states) == len(expected)
    for stop in sorted({*range(1, len(expected), max(1, len(expected) // 7)), len(expected) - 1}):
        fresh = loader()
        fresh.load_state_dict(states[stop - 1])
        rest = read_slots(fresh)
        np.testing.assert_array_equal(rest, expected[stop:], err_msg=f"after {stop} batches")


def test_resumed_twice_continues(tmp_path: Path) -> None:
    topology = _topology(1, 3, 2, 4)
    layout = _layout(topology, 0)
    root = _write(tmp_path / "train", layout)
    expected = expected_slots(topology, layout, 0)
    first, then = 4, 3
    states = _states(stock_loader(root, topology))
    second = stock_loader(root, topology)
    second.load_state_dict(states[first - 1])
    third = stock_loader(root, topology)
    third.load_state_dict(_states(second)[then - 1])
    np.testing.assert_array_equal(read_slots(third), expected[first + then :])


def _states(loader: object) -> list[dict]:
    """Returns the loader's state after each batch, as a checkpoint would hold it."""
    return [pickle.loads(pickle.dumps(loader.state_dict())) for _ in loader]
