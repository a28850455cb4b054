"""LitGPT's `LitData` from its installed source, without the packages that LitGPT imports beside it.

`from litgpt.data import LitData` imports lightning and what stands on that: over three seconds of
processor, most of what a sampled `verify` of a small build took. To make a loader the class needs
none of it. So its file is loaded alone, with the two names that it imports from LitGPT itself put
in their place: the base class (a LightningDataModule, of which LitData uses nothing) and
`Tokenizer`, which stands in an annotation only.

    from litgpt.data import DataModule  ->  DataModule = object
    everything else                     ->  as it is: the lines that make a loader are LitGPT's

The tests compare code and loaders with those of the class itself. Price: a millisecond, once in a
process.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from mixctl.shards.errors import InputError

_FILE = "data/lit_data.py"
_IMPORT = re.compile(r"^from litgpt\.[\w.]+ import (\w+)$", re.MULTILINE)
_NAME = "mixctl_litgpt_data"


class _Alone(InspectLoader):
    """Loads a module of LitGPT that takes no more than single names from LitGPT itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_source(self, fullname: str) -> str:
        """Returns the file's text, its imports from LitGPT as stand-ins."""
        return _IMPORT.sub(r"\1 = object", self.path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def litdata_class() -> Any:
    """Returns the class `LitData` of the installed LitGPT.

    Raises:
        InputError: when LitGPT is not installed, or has no such file.
    """
    package = importlib.util.find_spec("litgpt")
    if package is None or package.origin is None:
        raise InputError("litgpt is not installed: pip install 'mixctl'")
    path = Path(package.origin).parent / _FILE
    module = importlib.util.module_from_spec(ModuleSpec(_NAME, None, origin=str(path)))
    try:
        _Alone(path).exec_module(module)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): reinstall litgpt") from error
    return module.LitData
