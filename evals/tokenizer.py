"""Token ids -> text, with the tokenizer that the build carries. Nothing is ever encoded here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mixctl.evals.scorers.base import Decode
from mixctl.shards.errors import InputError
from mixctl.shards.files import digest_file
from mixctl.shards.record import BuildRecord

TOKENIZER_NAME = "tokenizer/tokenizer.json"


def decoder(build: Path, record: BuildRecord) -> Decode | None:
    """Returns the function from token ids to text, or None when the build carries no tokenizer.

    Raises:
        InputError: when the tokenizer is not the one that the build was sealed with.
    """
    path = build / TOKENIZER_NAME
    if not path.is_file():
        return None
    sealed = record.files.get(TOKENIZER_NAME)
    if sealed is not None and digest_file(path) != sealed.digest:
        raise InputError(
            f"{path}: does not match its digest in mix.json; see: mixctl verify {build}"
        )
    return _Decoder(path)


class _Decoder:
    """Loads the tokenizer when the first text is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.path))

    def __call__(self, tokens: Sequence[int]) -> str:
        """Returns the text of the tokens; control tokens are shown as their strings."""
        ids = [int(token) for token in tokens]
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))
