"""Engines: what turns documents into token ids. The ids are those of `tokenizers`, always.

`tokenizers` is the reference. `fast` (fastokens, Crusoe AI) encodes some twenty times as much a
second, and is used where it provably agrees: on adversarial texts before the build begins, and on
one document in a thousand while it runs. Where it differs even once, the stage is done again with
`tokenizers`: one build never holds the ids of two engines.

    engine = load_engine("fast", encoder)
    batch = engine.encode(["one document", "another"])
    batch.ids[: batch.ends[0]]                     of the first

The string of a control token inside a text stays text, as in `injections/encode.py`. Payloads are
encoded there, or many at once as payload_encoder.py says.

Price: the check takes 0.3 s of processor a build; a sampled document as long as twenty others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mixctl.injections.encode import Encoder
from mixctl.pipeline.adversarial import adversarial_texts
from mixctl.shards.draws import I64
from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text

EngineName = Literal["auto", "fast", "tokenizers"]
FAST_PACKAGE = "fastokens"
_SHOWN = 60


@dataclass(frozen=True)
class TokenBatch:
    """The ids of several texts, one after another.

    Attributes:
        ids: uint32.
        ends: where the ids of each text end in `ids`; int64.
    """

    ids: NDArray[np.uint32]
    ends: I64

    def of(self, number: int) -> NDArray[np.uint32]:
        """Returns the ids of one text."""
        begin = int(self.ends[number - 1]) if number else 0
        return self.ids[begin : int(self.ends[number])]


class Engine(Protocol):
    """Encodes texts without control tokens, as `Encoder.texts` does."""

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the ids of the texts."""
        ...


class EngineDiffers(Exception):
    """An engine failed, or gave other ids than `tokenizers`; the message says where."""


class TokenizersEngine:
    """The reference: the `tokenizers` library."""

    def __init__(self, encoder: Encoder) -> None:
        """Takes the tokenizer with its rule."""
        self._encoder = encoder

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the ids of the texts."""
        found = self._encoder.texts(texts)
        ids = np.concatenate([np.empty(0, dtype=np.uint32), *found])
        return TokenBatch(ids, np.cumsum([len(one) for one in found], dtype=np.int64))


class FastEngine:
    """fastokens. Text that holds the string of a control token stays text here too."""

    def __init__(self, tokenizer_json: str) -> None:
        """Loads the tokenizer.

        Raises:
            EngineDiffers: when fastokens cannot read it.
        """
        import fastokens

        self._tokenizer = _guarded(lambda: fastokens.Tokenizer.from_json_str(tokenizer_json))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the ids of the texts.

        Raises:
            EngineDiffers: when fastokens fails.
        """
        ids, ends = _guarded(
            lambda: self._tokenizer.encode_batch_flat(
                list(texts), add_special_tokens=False, split_special_tokens=True
            )
        )
        return TokenBatch(
            np.frombuffer(ids, dtype="<u4"), np.frombuffer(ends, dtype="<u8")[1:].astype(np.int64)
        )


def _guarded(call: Callable[[], Any]) -> Any:
    """Returns what a call into fastokens returns; a failure, panics included, is a difference."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        raise EngineDiffers(f"fails: {' '.join(str(error).split())[:200]}") from None


_LOADING = Lock()
_KEPT = 2
_loaded: dict[str, FastEngine] = {}
"""fast engines by tokenizer, the last ones"""


def load_engine(name: str, encoder: Encoder) -> Engine:
    """Returns an engine by name, `fast` or `tokenizers`; loaded once in a process."""
    return load_fast(encoder.tokenizer_json) if name == "fast" else TokenizersEngine(encoder)


def load_fast(tokenizer_json: str) -> FastEngine:
    """Returns the fast engine, loaded once in a process: whoever asks meanwhile waits for it."""
    with _LOADING:
        if tokenizer_json not in _loaded:
            engine = FastEngine(tokenizer_json)
            for oldest in list(_loaded)[: len(_loaded) + 1 - _KEPT]:
                del _loaded[oldest]
            _loaded[tokenizer_json] = engine
        return _loaded[tokenizer_json]


def loaded_fast(tokenizer_json: str) -> FastEngine | None:
    """Returns the fast engine, None where it would have to be loaded or waited for."""
    return _loaded.get(tokenizer_json)


@dataclass(frozen=True)
class EngineChoice:
    """The engine that a build uses, and why it is not the fast one."""

    name: Literal["fast", "tokenizers"]
    version: str
    why: str = ""

    def __str__(self) -> str:
        """Returns what mix.json says."""
        package = FAST_PACKAGE if self.name == "fast" else "tokenizers"
        return f"{package} {self.version}" + (f" ({self.why})" if self.why else "")


def installed_fast() -> str | None:
    """Returns the version of fastokens that is installed, None without it."""
    try:
        return version(FAST_PACKAGE)
    except PackageNotFoundError:
        return None


def engine_problems(asked: EngineName) -> list[str]:
    """Returns why an engine that a mix file asks for cannot be had."""
    if asked != "fast" or installed_fast():
        return []
    return [
        f"engine: fast needs {FAST_PACKAGE}, which is not installed: "
        f"pip install {FAST_PACKAGE}, or say engine: auto"
    ]


def choose_engine(asked: EngineName, encoder: Encoder) -> EngineChoice:
    """Returns the engine to begin with, after the check on adversarial texts.

    Raises:
        InputError: when `fast` is asked for and not installed.
    """
    if problems := engine_problems(asked):
        raise InputError(problems)
    found = installed_fast()
    if asked == "tokenizers":
        return reference("")
    if found is None:
        return reference(f"{FAST_PACKAGE} is not installed")
    try:
        texts = adversarial_texts(encoder.added_tokens)
        batch = load_engine("fast", encoder).encode(texts)
        compare([batch.of(number) for number in range(len(batch.ends))], texts, encoder)
    except EngineDiffers as difference:
        return reference(f"{FAST_PACKAGE} {found} {difference}")
    return EngineChoice("fast", found)


def reference(why: str) -> EngineChoice:
    """Returns the choice of `tokenizers`, with the reason."""
    return EngineChoice("tokenizers", version("tokenizers"), why)


def compare(found: Sequence[NDArray[np.uint32]], texts: Sequence[str], encoder: Encoder) -> None:
    """Returns nothing: the ids found for the texts are those of `tokenizers`.

    Raises:
        EngineDiffers: showing the first text whose ids differ.
    """
    if len(found) != len(texts):
        raise EngineDiffers(f"gives {len(found)} texts back for {len(texts)}")
    for text, ids, other in zip(texts, encoder.texts(texts), found, strict=True):
        if not np.array_equal(ids, other):
            raise EngineDiffers(f"differs on {_shown(text, ids, other)}")


def _shown(text: str, ids: NDArray[np.uint32], found: NDArray[np.uint32]) -> str:
    """Returns the text, or its beginning, and the first id that is another."""
    n = min(len(ids), len(found))
    other = np.flatnonzero(ids[:n] != found[:n])
    at = int(other[0]) if len(other) else n
    shown = ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
    return f"{shown}, from token {at} of {len(ids)} on"


def save_choice(choice: EngineChoice, path: Path) -> None:
    """Writes the choice, all or nothing."""
    write_text(path, json.dumps(asdict(choice)))


def load_choice(path: Path) -> EngineChoice | None:
    """Returns the choice that was written, None when there is none."""
    try:
        return EngineChoice(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
