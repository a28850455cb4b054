"""The sub-command `mixctl init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  mixctl init first                                      on made-up texts and questions
  mixctl init first --corpus texts --questions quiz.jsonl
  mixctl init first --corpus s3://bucket/base --text-key content
"""
)
@click.argument("directory", metavar="DIR", type=_PATH)
@click.option(
    "--corpus",
    help="Your own text: a file, a folder or an address; jsonl, parquet, or a file a document.",
)
@click.option(
    "--questions",
    type=_PATH,
    help="Your own questions: a line each, with question, choices and gold.",
)
@click.option(
    "--text-key", default="text", show_default=True, help="The field that holds the text."
)
@click.option("--json", "as_json", is_flag=True, help="Print the path of the mix file as JSON.")
def init(
    directory: Path, corpus: str | None, questions: Path | None, text_key: str, as_json: bool
) -> None:
    """Writes a commented starter mix into DIR, with all it needs: it builds as it is.

    Asks nothing and overwrites nothing. A tokenizer is trained on the corpus, and the trainer
    config is that of a small model, which two CPU cores train in two minutes.
    """
    from mixctl.pipeline.init import init as write_starter
    from mixctl.pipeline.text import print_starter

    mix = write_starter(directory, corpus, questions, text_key)
    if as_json:
        click.echo(json.dumps({"mix": str(mix)}))
    else:
        print_starter(mix)
