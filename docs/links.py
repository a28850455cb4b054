"""A hook of mkdocs: files of the repository that pages link to come along with the site.

A link such as ../examples/own_pipeline.py leads out of docs/, which mkdocs takes for a mistake. The
file becomes a page of the site's `files/` if it is there, so a link to a missing one still fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Returns the site's files, and those outside of docs/ that a page links to."""
    texts = Path(config["docs_dir"]).glob("*.md")
    linked = {match[1] for path in texts for match in _OUTSIDE.finditer(path.read_text("utf-8"))}
    for name in sorted(linked):
        if (ROOT / name).is_file():
            content = (ROOT / name).read_text("utf-8")
            files.append(File.generated(config, f"files/{name}.txt", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page whose links out of docs/ lead to the files that came along."""
    return _OUTSIDE.sub(r"](files/\1.txt)", markdown)
