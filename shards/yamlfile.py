"""Reads YAML files: plain values alone, nothing in them is run, and none is larger than it looks.

The safe loader makes texts, numbers, lists and mappings and nothing else. Beyond that,

- a key given twice is an error (YAML would keep the last one without a word), and so is one that is
  no text or number;
- aliases are followed up to a million values: nine lines of `b: &b [*a, *a, *a, ...]` are a billion
  (a "YAML bomb"), and `a: &a [*a]` has no end;
- a whole number has at most 18 digits, a text neither zero nor half characters
  (lone surrogates).

Price: the tree of a file is gone through twice; 10 ms a thousand lines.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from mixctl.shards.errors import InputError

MOST_VALUES = 1_000_000
"""in a file, with what its aliases repeat"""
MOST_DIGITS = 18
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
"""the zero character, and half characters (lone surrogates)"""


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing what is no plain value or has no end."""

    def construct_document(self, node: yaml.Node) -> Any:
        _count(node, {})
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *arms`
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise _refusal(key_node, "a key must be a plain value, a text or a number")
            if key in seen:
                raise _refusal(key_node, f"key '{key}' stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        wrong = _NO_TEXT.search(value) if isinstance(value, str) else None
        if wrong is not None:
            raise _refusal(
                node, f"holds {ascii(wrong[0])}, the zero character or half a character: no text"
            )
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 10**MOST_DIGITS:
            raise _refusal(node, f"a whole number may have at most {MOST_DIGITS} digits")
        return int(value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(  # 4e-5 is a number to LitGPT's parser, a string to YAML 1.1
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _refusal(node: yaml.Node, why: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Returns how many values a node stands for, what aliases repeat counted each time.

    Args:
        node: where to begin.
        known: node -> its number of values; None while it is being counted.
    """
    if id(node) in known:
        counted = known[id(node)]
        if counted is None:
            raise _refusal(node, "holds itself: it has no end")
        return counted
    known[id(node)], n_values = None, 1
    if isinstance(node, yaml.SequenceNode):
        n_values += sum(_count(part, known) for part in node.value)
    elif isinstance(node, yaml.MappingNode):
        n_values += sum(_count(part, known) for pair in node.value for part in pair)
    if n_values > MOST_VALUES:
        raise _refusal(node, f"its aliases make more than {MOST_VALUES:,} values of it")
    known[id(node)] = n_values
    return n_values


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file.

    Raises:
        InputError: when the file is missing, is not YAML, or holds no mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a safe loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())[:500]}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold a mapping of keys to values")
    return raw
