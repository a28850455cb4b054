"""Token ids -> text, with the tokenizer that the build carries. Nothing is ever encoded here.

A checkpoint folder with a tokenizer.json of its own must mean the same tokens by the same ids; its
other rules (merges, normalisation) do not matter to a model that is given ids.
"""

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
FILE_NAME = "tokenizer.json"


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


def other_tokens(folder: Path, build: Path) -> str | None:
    """Returns how the tokenizer of a checkpoint folder differs from the build's; None: it does not.

    Tokens that only the checkpoint has, at ids of their own, are no difference. Where one of the
    two folders has no tokenizer.json there is nothing to compare.
    """
    theirs, ours = folder / FILE_NAME, build / TOKENIZER_NAME
    if not theirs.is_file() or not ours.is_file():
        return None
    if theirs.read_bytes() == ours.read_bytes():
        return None
    found, wanted = _tokens(theirs), _tokens(ours)
    wrong = [number for number in sorted(wanted) if found.get(number) != wanted[number]]
    if not wrong:
        return None
    first = wrong[0]
    return (
        f"{theirs}: token {first} is {found.get(first)!r}, in the build's tokenizer it is "
        f"{wanted[first]!r} ({len(wrong)} of {len(wanted)} tokens differ)"
    )


def _tokens(path: Path) -> dict[int, str]:
    """Returns the tokens by id."""
    from tokenizers import Tokenizer

    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:200]})"
        ) from error
    return {number: token for token, number in vocabulary.items()}
