"""A data module for `litgpt pretrain` that trains Gaussian marks in: `LitData`, and noise.

    data:
      class_path: mixctl.trainer_configs.gaussian.GaussianLitData
      init_args: {data_path: DIR, split_names: [train, val], seed: 42, num_workers: 4}

The loader is the stock one. Before it hands out a batch it looks up which of its sequences are
marked in the manifest of the build; their noise is added to the output of the token embedding when
the model reads that batch to train on it. LitGPT and its command stay as they are: torch lets a
hook see modules as they are put together, and that is how the model's embedding is found, before
it is compiled or sharded.

Exactly the marked sequences get noise, the same for any number of devices, with gradient
accumulation and after `--resume`, since a batch's sequences follow from how many batches its rank
was given (`mixctl.shards.order`). A batch without a mark goes through the graph that the model has
without this module: nothing is added, not even zeros. With `torch.compile` the first marked batch
compiles a second graph; later ones compile nothing.

Price: the noise is made and copied to the device while the trainer waits, 10 ns a number: 0.08 s
for a marked sequence of 4,096 tokens at width 2,048; unmarked batches cost a look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata.streaming import StreamingDataLoader
from litgpt.data import LitData
from litgpt.model import GPT
from torch.nn.modules.module import register_module_module_registration_hook

from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.marks import Marks, read_marks
from mixctl.shards.record import Geometry, read_record

RUN = "train"
"""the split whose marks are trained in; control/train is the twin and has none"""


class Embedding:
    """The token embedding of the model that is trained, and the noise of the batch at hand."""

    def __init__(self) -> None:
        """Waits for the next `litgpt.GPT` that is built in this process."""
        self.noise: torch.Tensor | None = None
        self.module: torch.nn.Embedding | None = None
        self._waiting = register_module_module_registration_hook(self._see)

    def _see(self, module: torch.nn.Module, name: str, submodule: Any) -> None:
        if isinstance(module, GPT) and name == "transformer":
            self._waiting.remove()
            self.module = submodule["wte"]
            self.module.register_forward_hook(self._add)

    def _add(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if self.noise is None or not module.training:
            return output
        return output + self.noise.to(output.dtype)

    def set_noise(self, marks: Marks, sequence: I64, n_tokens: int) -> None:
        """Takes the noise of the next batch: that of these sequences."""
        if self.module is None:
            raise RuntimeError("no litgpt.GPT was built after this data module: nothing to mark")
        made = marks.noise(sequence, (n_tokens, self.module.embedding_dim))
        device = self.module.weight.device
        self.noise = None if made is None else torch.from_numpy(made).to(device)


class MarkedLoader(StreamingDataLoader):
    """The stock loader of train/, which also sets the noise of each batch it yields."""

    def __init__(
        self, stock: StreamingDataLoader, embedding: Embedding, marks: Marks, n_tokens: int
    ) -> None:
        """Takes the place of a stock loader.

        Args:
            stock: the loader that LitData made.
            embedding: where the noise goes.
            marks: of the build.
            n_tokens: input tokens of a sequence.
        """
        super().__init__(
            stock.dataset,
            batch_size=stock.batch_size,
            num_workers=stock.num_workers,
            pin_memory=stock.pin_memory,
            drop_last=True,
        )
        self.embedding, self.marks, self.n_tokens = embedding, marks, n_tokens

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yields the stock loader's batches."""
        for batch in super().__iter__():
            self.embedding.set_noise(self.marks, self.sequences(), self.n_tokens)
            yield batch

    def sequences(self) -> I64:
        """Returns the sequences of the run in the batch that was yielded last: int64 (M,)."""
        environment = self.dataset.distributed_env
        iteration = self.state_dict()["num_samples_yielded"] // self.batch_size - 1
        micro_batch = iteration * environment.world_size + environment.global_rank
        first = int(micro_batch) * int(self.batch_size)
        return np.arange(first, first + int(self.batch_size), dtype=np.int64)


@dataclass
class GaussianLitData(LitData):
    """LitData on a build of mixctl, with the noise of its Gaussian marks."""

    embedding: Embedding = field(init=False, repr=False, default_factory=Embedding)

    def train_dataloader(self) -> StreamingDataLoader:
        """Returns the loader of the run; the stock one for any other split, and without marks.

        Raises:
            InputError: when what LitGPT was told differs from what the build was made for.
        """
        stock = super().train_dataloader()
        if not self.split_names or self.split_names[0] != RUN:
            return stock
        build = Path(self.data_path)
        geometry = read_record(build).geometry
        world_size = stock.dataset.distributed_env.world_size
        if problems := self._differences(geometry, world_size):
            raise InputError([f"{build}: {problem}" for problem in problems])
        marks = read_marks(build, geometry.global_batch)
        if not len(marks):
            return stock
        return MarkedLoader(stock, self.embedding, marks, geometry.max_seq_length)

    def _differences(self, geometry: Geometry, world_size: int) -> list[str]:
        """Returns what would put the noise on other sequences than those marked."""
        told = {
            "devices x num_nodes": (world_size, geometry.devices * geometry.nodes),
            "micro_batch_size": (self.batch_size, geometry.micro_batch),
            "max_seq_length": (self.seq_length - 1, geometry.max_seq_length),
            "data.seed": (self.seed, geometry.data_seed),
            "data.num_workers": (self.num_workers, geometry.workers),
        }
        return [
            f"{name} is {found}, the build was made for {expected}"
            for name, (found, expected) in told.items()
            if found != expected
        ]
