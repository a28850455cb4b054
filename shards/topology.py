"""What the training order depends on, and the counts that follow from it.

LitGPT runs `(max_tokens div R) div (M * max_seq_length)` iterations a rank, R ranks, micro-batch M;
A = global batch / (R * M) of them make an optimizer step, and iterations after the last whole step
never reach the optimizer.

    Topology(devices=2, micro_batch=4, global_batch=16, max_seq_length=128, max_tokens=16*128*10,
    ...)
    -> A = 2, 20 iterations a rank, 10 steps, 160 sequences of 129 tokens
"""

from __future__ import annotations

from dataclasses import dataclass

KNOWN_LITDATA = ("0.2.59",)
"""litdata versions whose order is proven by the tests; another one may shuffle differently."""

_MAX_SEED = 2**32 - 1  # numpy's RandomState, which litdata seeds with it, takes no more
_MAX_TOKENS = 10**18  # steps and sequences are counted in int64


@dataclass(frozen=True)
class Topology:
    """The trainer's side of the training order; sizes in sequences or as named."""

    devices: int
    nodes: int
    workers: int
    micro_batch: int
    global_batch: int
    max_seq_length: int
    max_tokens: int
    data_seed: int
    litdata: str = KNOWN_LITDATA[-1]

    @property
    def ranks(self) -> int:
        """Returns R, the number of data-parallel processes."""
        return self.devices * self.nodes

    @property
    def loader_workers(self) -> int:
        """Returns W, the loader processes of a rank; the main process counts as one."""
        return max(self.workers, 1)

    @property
    def accumulation(self) -> int:
        """Returns A, the iterations of a rank that make one step."""
        return self.global_batch // (self.ranks * self.micro_batch)

    @property
    def iterations(self) -> int:
        """Returns I, the iterations that LitGPT runs on each rank."""
        return (self.max_tokens // self.ranks) // (self.micro_batch * self.max_seq_length)

    @property
    def steps(self) -> int:
        """Returns the number of whole optimizer steps."""
        return self.iterations // self.accumulation

    @property
    def sequences(self) -> int:
        """Returns the number of sequences that reach the optimizer."""
        return self.steps * self.global_batch

    @property
    def sequence_tokens(self) -> int:
        """Returns the tokens of a block on disk: max_seq_length + 1."""
        return self.max_seq_length + 1

    def problems(self) -> list[str]:
        """Returns what makes this topology impossible, a sentence each; empty when it is sound."""
        found = self.shape_problems()
        if self.litdata not in KNOWN_LITDATA:
            found.append(
                f"litdata {self.litdata} may shuffle differently: the order is proven for "
                f"{', '.join(KNOWN_LITDATA)} only"
            )
        return found

    def shape_problems(self) -> list[str]:
        """Returns which numbers no training has, a sentence each; the litdata version apart."""
        found = [
            f"{name} is {value}: it must be at least {least}"
            for name, value, least in self._bounds()
            if value < least
        ]
        if self.data_seed > _MAX_SEED:
            found.append(f"data seed is {self.data_seed}: it must be at most {_MAX_SEED}")
        if self.max_tokens > _MAX_TOKENS:
            found.append(f"max_tokens is {self.max_tokens}: it must be at most {_MAX_TOKENS}")
        return found or self._batch_problems()

    def _bounds(self) -> list[tuple[str, int, int]]:
        return [
            ("devices", self.devices, 1),
            ("num_nodes", self.nodes, 1),
            ("num_workers", self.workers, 0),
            ("micro_batch_size", self.micro_batch, 1),
            ("global_batch_size", self.global_batch, 1),
            ("max_seq_length", self.max_seq_length, 2),
            ("max_tokens", self.max_tokens, 1),
            ("data seed", self.data_seed, 0),
        ]

    def _batch_problems(self) -> list[str]:
        share = self.ranks * self.micro_batch
        if self.global_batch % share:
            lower, upper = (
                self.global_batch // share * share,
                -(-self.global_batch // share) * share,
            )
            valid = f"{lower} or {upper}" if lower else str(upper)
            return [
                f"global_batch_size {self.global_batch} is not a multiple of devices x num_nodes x "
                f"micro_batch_size = {self.devices} x {self.nodes} x {self.micro_batch} = {share}: "
                f"LitGPT would round it down without a word (nearest valid: {valid})"
            ]
        if self.steps < 2:
            need = 2 * self.global_batch * self.max_seq_length
            return [
                f"max_tokens {self.max_tokens} gives {self.steps} whole steps: at least 2 are "
                "needed "
                f"(max_tokens >= {need}), since LitGPT's warm-up gives the first a learning rate "
                "of 0"
            ]
        return []
