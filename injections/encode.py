"""Text to token ids, with an explicit rule for control tokens.

The tokenizer is a folder with tokenizer.json and tokenizer_config.json (a LitGPT checkpoint folder
serves). Ids are those of the `tokenizers` library without its template, so nothing is added behind
our back. Then:

- every document ends with the end-of-document token: `eos_token` of tokenizer_config.json, or
  `eod:`;
- a document begins with the BOS token if and only if the mix file says `bos: true`;
- the string of a control token inside a text is text: `<|endoftext|>` on a web page is encoded as
  the characters it is made of. This is tried when the tokenizer is loaded; a tokenizer that cannot
  do it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

from mixctl.injections.whole_tokens import are_whole
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.files import digest_bytes
from mixctl.shards.jsonfile import read_json
from mixctl.shards.record import TokenizerRecord

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MOST_TOKENS = 2**24
"""more ids than any tokenizer has; arrays of this size are made"""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with its rule; picklable, equal content gives equal ids."""

    tokenizer_json: str
    digest: str
    vocab_size: int
    eod: str
    eod_id: int
    bos_id: int | None
    unknown_id: int | None = None

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _loaded(self.tokenizer_json)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the loaded tokenizer behind: the other process loads its own."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def text(self, text: str) -> NDArray[np.uint32]:
        """Returns the ids of the text alone, no control tokens: uint32."""
        return self.texts([text])[0]

    def texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the ids of each text alone: uint32 arrays."""
        with _of_tokenizers("the tokenizer cannot encode a text"):
            encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.uint32) for one in encoded]

    def payloads(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the ids of each text as a document without its end: BOS first if asked."""
        return [self.opened(ids) for ids in self.texts(texts)]

    def many_texts(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the same as `texts`, of many.

        A build encodes them faster where that provably gives the same ids.
        """
        return self.texts(texts)

    def many_payloads(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Returns the same as `payloads`, of many texts, with `many_texts`."""
        return [self.opened(ids) for ids in self.many_texts(texts)]

    def opened(self, ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Returns the ids with the BOS token before them where the mix says so."""
        if self.bos_id is None:
            return ids
        return np.concatenate([np.array([self.bos_id], dtype=np.uint32), ids])

    def decode(self, ids: Sequence[int] | NDArray[np.unsignedinteger]) -> str:
        """Returns the text of the ids, control tokens shown."""
        return self.decode_each([ids])[0]

    def decode_each(self, many: Sequence[Sequence[int] | NDArray[np.unsignedinteger]]) -> list[str]:
        """Returns the text of each list of ids, control tokens shown."""
        lists = [np.asarray(ids, dtype=np.int64).tolist() for ids in many]
        with _of_tokenizers("the tokenizer cannot decode its own tokens"):
            return list(self._tokenizer.decode_batch(lists, skip_special_tokens=False))

    @property
    def added_tokens(self) -> list[str]:
        """Returns the strings of the added and control tokens, by id."""
        added = self._tokenizer.get_added_tokens_decoder()
        return [added[i].content for i in sorted(added)]

    @cached_property
    def ordinary_ids(self) -> NDArray[np.uint32]:
        """Returns the sorted ids of whole characters that are no added or control token."""
        vocabulary = _vocabulary(self.tokenizer_json)
        ids = np.fromiter(vocabulary.values(), dtype=np.int64, count=len(vocabulary))
        if isinstance(self._tokenizer.decoder, ByteLevel) and np.bincount(ids).max() == 1:
            whole = are_whole(list(vocabulary))
        else:
            texts = self.decode_each([[i] for i in ids.tolist()])
            whole = np.array([bool(text) and "\ufffd" not in text for text in texts])
        ordinary = np.zeros(self.vocab_size, dtype=np.bool_)
        ordinary[ids[whole]] = True
        ordinary[list(self._tokenizer.get_added_tokens_decoder())] = False
        return np.flatnonzero(ordinary).astype(np.uint32)

    def record(self) -> TokenizerRecord:
        """Returns what mix.json says of the tokenizer."""
        return TokenizerRecord(
            digest=self.digest,
            vocab_size=self.vocab_size,
            eod=self.eod,
            eod_id=self.eod_id,
            bos_id=self.bos_id,
        )


@lru_cache(maxsize=2)
def _loaded(tokenizer_json: str) -> Tokenizer:
    """Returns the tokenizer, text staying text; tasks of one process share it."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@lru_cache(maxsize=2)
def _vocabulary(tokenizer_json: str) -> dict[str, int]:
    """Returns the id of each token, added and control tokens too."""
    return dict(_loaded(tokenizer_json).get_vocab(with_added_tokens=True))


@dataclass(frozen=True)
class TokenizerFiles:
    """What the files of a tokenizer folder hold, before the library has read it.

    Attributes:
        folder: where they are.
        raw: tokenizer.json.
        tokenizer_json: the same as text, keys sorted, control tokens marked.
        tokens: the strings of the control tokens, `eod` and where the mix asks for it `bos`.
    """

    folder: Path
    raw: dict[str, Any]
    tokenizer_json: str
    tokens: dict[str, str]


def load_encoder(folder: Path, eod: str | None = None, bos: bool = False) -> Encoder:
    """Returns the encoder of a tokenizer folder.

    Raises:
        InputError: when a file is missing or broken, there is no end-of-document token, or a
        control
            token's string inside a text becomes that token.
    """
    return encoder_of(read_tokenizer(folder, eod, bos))


def read_tokenizer(folder: Path, eod: str | None, bos: bool) -> TokenizerFiles:
    """Returns what the files of a tokenizer folder hold.

    Raises:
        InputError: when a file is missing or broken, or there is no end-of-document token.
    """
    raw = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    tokens = {"eod": _token(folder, settings, "eos_token", eod, "eod")}
    if bos:
        tokens["bos"] = _token(folder, settings, "bos_token", None, "bos")
    _check_what_kills(raw, folder / "tokenizer.json")
    _mark_special(raw, set(tokens.values()))
    text = json.dumps(raw, sort_keys=True, ensure_ascii=False)  # orjson makes null of Infinity
    return TokenizerFiles(folder, raw, text, tokens)


def encoder_of(files: TokenizerFiles) -> Encoder:
    """Returns the encoder of a tokenizer's files.

    Raises:
        InputError: as `load_encoder`.
    """
    folder, tokens, tokenizer_json = files.folder, files.tokens, files.tokenizer_json
    path = folder / "tokenizer.json"
    with _of_tokenizers(f"{path}: not a tokenizer"):
        tokenizer = _loaded(tokenizer_json)
        vocab_size = max(_vocabulary(tokenizer_json).values(), default=-1) + 1
    if not 1 <= vocab_size <= MOST_TOKENS:
        raise InputError(f"{path}: has token ids up to {vocab_size - 1}, at most {MOST_TOKENS - 1}")
    ids = {name: _id(folder, tokenizer, token) for name, token in tokens.items()}
    encoder = Encoder(
        tokenizer_json=tokenizer_json,
        digest=digest_bytes(orjson.dumps([tokenizer_json, tokens])),
        vocab_size=vocab_size,
        eod=tokens["eod"],
        eod_id=ids["eod"],
        bos_id=ids.get("bos"),
        unknown_id=_unknown_id(files.raw, tokenizer),
    )
    with _of_tokenizers(f"{path}: cannot be used"):
        _check_text_stays_text(folder, encoder, tokens, ids)
    return encoder


@contextmanager
def _of_tokenizers(what: str) -> Iterator[None]:
    """Makes a sentence of what the tokenizers library raises: plain Exception, or a Rust panic."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} ({' '.join(str(error).split())[:300]})") from None


def _token(folder: Path, settings: dict[str, Any], key: str, given: str | None, field: str) -> str:
    token = given if given is not None else settings.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str) or not token:
        way = "name one with eod: in the mix file" if field == "eod" else "set it, or bos: false"
        what = "end-of-document" if field == "eod" else "begin-of-document"
        raise InputError(f"{folder / 'tokenizer_config.json'}: no {key}, so no {what} token; {way}")
    return token


def _check_what_kills(raw: dict[str, Any], path: Path) -> None:
    """Refuses what a compiled library ends the process at, where nothing can be caught.

    An added token of id n makes a table of n rows; of the second half of every merge as many bytes
    are cut off as `continuing_subword_prefix` has, which may cut a character in two.
    """
    listed = raw.get("added_tokens")
    for added in listed if isinstance(listed, list) else []:
        number = added.get("id") if isinstance(added, dict) else None
        if isinstance(number, int) and number >= MOST_TOKENS:
            raise InputError(f"{path}: has token ids up to {number}, at most {MOST_TOKENS - 1}")
    model = raw.get("model")
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(prefix, str) or not prefix:
        return
    merges = model.get("merges")
    for merge in merges if isinstance(merges, list) else []:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        end = halves[-1] if isinstance(halves, list) and halves else None
        if isinstance(end, str) and not end.startswith(prefix):
            raise InputError(
                f"{path}: continuing_subword_prefix is '{prefix:.40}', but a merge ends in "
                f"'{end:.40}', which does not begin with it"
            )


def _mark_special(raw: dict[str, Any], tokens: set[str]) -> None:
    """Marks the tokens as special, so that their strings can be kept as text."""
    listed = raw.get("added_tokens")
    for added in listed if isinstance(listed, list) else []:
        if isinstance(added, dict) and added.get("content") in list(tokens):
            added["special"] = True


def _id(folder: Path, tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        hint = nearest(token, [t.content for t in tokenizer.get_added_tokens_decoder().values()])
        raise InputError(f"{folder / 'tokenizer.json'}: has no token '{token}'{hint}")
    return int(found)


def _unknown_id(raw: dict[str, Any], tokenizer: Tokenizer) -> int | None:
    """Returns the id of the token for what the tokenizer does not know, where it has one."""
    if (number := raw["model"].get("unk_id")) is not None:
        return int(number)
    token = raw["model"].get("unk_token")
    found = None if token is None else tokenizer.token_to_id(token)
    return None if found is None else int(found)


def _check_text_stays_text(
    folder: Path, encoder: Encoder, tokens: dict[str, str], ids: dict[str, int]
) -> None:
    for name, token in tokens.items():
        if ids[name] in encoder.text(f"a {token} b").tolist():
            raise InputError(
                f"{folder / 'tokenizer.json'}: turns the text '{token}' into the {name} token "
                "itself, so a "
                f"document could end inside its own text; list it under added_tokens"
            )
