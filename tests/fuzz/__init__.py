"""Broken input of every sort for everything that mixctl parses: `make fuzz` (see __main__.py)."""

from tests.fuzz.builds import Manifests, Records
from tests.fuzz.checkpoints import Checkpoints, HuggingFace
from tests.fuzz.corpora import Corpora
from tests.fuzz.harness import Samples
from tests.fuzz.loop import Parser
from tests.fuzz.mixes import Mixes, Trainers
from tests.fuzz.results import ResultsFolders
from tests.fuzz.rows import Rows
from tests.fuzz.tokenizers import Tokenizers

_ALL: tuple[type[Parser], ...] = (
    *(Mixes, Trainers, Rows, Corpora, Tokenizers),
    *(Records, Manifests, Checkpoints, HuggingFace, ResultsFolders, Samples),
)
PARSERS = {parser.name: parser for parser in _ALL}
