r"""Errors that a user can act on.

Wrong input is collected, never met one at a time: `InputError` carries every problem found, each a
sentence that names the file, the field, the value and the limit. The command line prints them and
ends with exit code 2; a build that does not verify ends with exit code 1.

Messages quote what files hold, so they are made fit to be printed: what would steer a terminal is
shown as an escape (`\x1b`), and a message has at most 2,000 characters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_MOST_LISTED = 20
_MOST_CHARACTERS = 2_000


def printable(message: str) -> str:
    """Returns the message without control characters and half characters, its middle left out."""
    if len(message) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        message = f"{message[:half]} ... {message[-half:]}"
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)


class InputError(Exception):
    """Wrong usage or wrong input: one message per problem, exit code 2, nothing written."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        """Keeps the problems in the order they were found."""
        given = [problems] if isinstance(problems, str) else problems
        self.problems: list[str] = [printable(problem) for problem in given]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        """Survives the trip from a worker process."""
        return (type(self), (self.problems,))


class VerificationError(Exception):
    """A finished build that is not what its record says: one message per finding, exit code 1."""

    def __init__(self, findings: Sequence[str]) -> None:
        """Keeps the findings in the order they were found."""
        self.findings = [printable(finding) for finding in findings]
        super().__init__("\n".join(self.findings))

    def __reduce__(self) -> tuple[type[VerificationError], tuple[list[str]]]:
        """Survives the trip from a worker process."""
        return (type(self), (self.findings,))


class StageError(Exception):
    """Work that ended elsewhere before it was done; what is done is kept, exit code 1."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the closest valid name, else the valid names if few."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(names)})" if 0 < len(names) <= _MOST_LISTED else ""
