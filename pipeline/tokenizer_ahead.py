"""The tokenizer of a mix, loaded by other threads while this one reads the experiments.

The fast engine takes as long to load as everything else that a build prepares, and lets Python go
on meanwhile; so does comparing it with `tokenizers`.

    with TokenizerAhead(asked) as tokenizer:
        mix = read_mix(path, head=tokenizer.begin)
        encoder = tokenizer.encoder()                 waits for it
        choice = tokenizer.engine()                   waits for the check as well

Price: three threads.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mixctl.injections.encode import Encoder, encoder_of, read_tokenizer
from mixctl.pipeline.engines import (
    EngineChoice,
    EngineDiffers,
    EngineName,
    choose_engine,
    engine_problems,
    installed_fast,
    load_fast,
    reference,
)
from mixctl.pipeline.mixfile import MixConfig, resolved


class TokenizerAhead:
    """The encoder of a mix file's tokenizer and the engine to begin with, as threads load them."""

    def __init__(self, asked: EngineName | None) -> None:
        """Takes the engine to use; None takes what the mix file says."""
        self.asked: EngineName = asked or "auto"
        self._given = asked
        self._threads = ThreadPoolExecutor(3)
        self._encoder: Future[Encoder] = Future()
        self._engine: Future[EngineChoice] = Future()

    def __enter__(self) -> TokenizerAhead:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def begin(self, head: MixConfig, folder: Path) -> None:
        """Lets the threads load the tokenizer that a mix file in this folder names."""
        self.asked = self._given or head.engine
        place = Path(resolved(head.tokenizer, folder))
        self._encoder = self._threads.submit(self._load, place, head.eod, head.bos)
        self._engine = self._threads.submit(self._choose)

    def encoder(self) -> Encoder:
        """Returns the encoder; raises InputError where it is none."""
        return self._encoder.result()

    def engine(self) -> EngineChoice:
        """Returns the engine to begin with: not one that differed."""
        return self._engine.result()

    @property
    def tries_fast(self) -> bool:
        """Returns whether the fast engine is tried at all."""
        return self.asked != "tokenizers" and installed_fast() is not None

    def _load(self, place: Path, eod: str | None, bos: bool) -> Encoder:
        files = read_tokenizer(place, eod, bos)
        if self.tries_fast:
            self._threads.submit(self._load_fast, files.tokenizer_json)
        return encoder_of(files)

    def _load_fast(self, tokenizer_json: str) -> None:
        with suppress(EngineDiffers):  # who asks for it next is told
            load_fast(tokenizer_json)

    def _choose(self) -> EngineChoice:
        encoder = self._encoder.result()
        return reference("") if engine_problems(self.asked) else choose_engine(self.asked, encoder)
