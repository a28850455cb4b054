"""Draws architecture.svg: the steps of a build and of an eval, what each reads and writes.

    python docs/make_architecture.py       # a test runs it and compares

The steps and their order are read from the code (`build` and `evaluate`, the private functions of
their modules followed where they are called); the words and files beside them stand here, and a
test compares the files with those that a real build and a real eval write, step by step.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Step:
    """What a step does, in words; what it reads from disk and what it leaves there."""

    words: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


BUILD = {
    "pipeline.prepare.prepare": Step(
        "check; items to arms; copies to steps",
        ("mix.yaml, trainer config", "item files, tokenizer/"),
    ),
    "pipeline.stages.tokenize": Step(
        "datatrove: token files, items looked for in them",
        ("corpus",),
        (".work/tokens-*/, .work/search-*/",),
    ),
    "pipeline.stages.search": Step(
        "items that the corpus holds", (".work/tokens-*/, .work/search-*/",)
    ),
    "pipeline.base_stream.lay": Step("base documents into training order", (".work/tokens-*/",)),
    "pipeline.resolve.resolve": Step("offsets, clean spare sequences: settled"),
    "pipeline.stages.mix": Step(
        "datatrove: base sequences, payloads over them",
        (".work/tokens-*/",),
        (".work/mix-*/", "train/, val/, control/"),
    ),
    "pipeline.seal.seal": Step(
        "indexes, digests; the record last",
        (".work/mix-*/",),
        ("manifest/, tokenizer/", "litgpt.yaml, litgpt-control.yaml", "README.md, mix.json"),
    ),
}
TRAIN = Step(
    "unmodified; loader, order and all",
    ("litgpt.yaml, train/, val/",),
    ("step-*/lit_model.pth",),
)
EVAL = {
    "evals.experiments.read_experiments": Step(
        "items, arms, copies seen by each step", ("manifest/, mix.json",)
    ),
    "evals.checkpoint.find_checkpoints": Step("runs and twins, by step", ("step-*/lit_model.pth",)),
    "evals.work.gather": Step("what all scorers ask, once"),
    "evals.scoring.scored_checkpoint": Step("a model loaded once, one pass", (), ("samples/",)),
    "evals.estimation.estimate": Step("estimates, intervals, tests"),
    "evals.primary.with_q_values": Step("the primary rows: one family"),
    "evals.results.write_results": Step(
        "the table, and then the summary", (), ("results.parquet, results.json",)
    ),
}
REPORT = {"evals.report.write_report": Step("verdicts, pictures, rows", (), ("report.html",))}


def steps_of(module: str, function: str) -> list[str]:
    """Returns the functions of mixctl that a function calls, in order, each at its first call.

    Private functions of the module are followed; names are PACKAGE.MODULE.FUNCTION.
    """
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    imported = _imports(tree)
    own = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found: dict[str, None] = {}

    def follow(name: str) -> None:
        calls = [node for node in ast.walk(own[name]) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda one: (one.lineno, one.col_offset)):
            called = ast.unparse(call.func)
            if called in own and called.startswith("_"):
                follow(called)
            head, _, rest = called.partition(".")
            if head in imported and imported[head].startswith("mixctl."):
                found[".".join(filter(None, [imported[head], rest])).removeprefix("mixctl.")] = None

    follow(function)
    return list(found)


def _imports(tree: ast.Module) -> dict[str, str]:
    """Returns what each imported name stands for, imports inside functions included."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def lane(module: str, function: str, steps: dict[str, Step]) -> list[tuple[str, Step]]:
    """Returns the steps in the order in which the function takes them.

    Raises:
        LookupError: when it does not take one of them.
    """
    order = steps_of(module, function)
    if missing := [name for name in steps if name not in order]:
        raise LookupError(f"{module}.{function} does not call {', '.join(missing)}")
    return [(name, steps[name]) for name in order if name in steps]


LEFT, MIDDLE, RIGHT, WIDTH, BOX, ROW = 8, 252, 660, 920, 44, 62
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:13px;fill:#1b1b1f}"
    ".what{font-size:12px;fill:#4a4a55}.file{font-family:ui-monospace,monospace;font-size:12px}"
    ".head{font-weight:600;font-size:14px}rect{fill:#eef1f8;stroke:#5b6b95}"
    ".stock{fill:#f7f0e2;stroke:#97772f}path{stroke:#5b6b95;fill:none;marker-end:url(#a)}"
)


def picture() -> str:
    """Returns the SVG."""
    lanes = [
        ("mixctl build", lane("pipeline.build", "build", BUILD)),
        ("the trainer", [("litgpt pretrain", TRAIN)]),
        (
            "mixctl eval",
            [
                *lane("evals.run", "evaluate", EVAL),
                *lane("evals.cli", "eval_command", REPORT),
            ],
        ),
    ]
    parts: list[str] = []
    y = 12
    for title, steps in lanes:
        parts.append(_text(MIDDLE, y + 14, title, "head"))
        y += 26
        for number, (name, step) in enumerate(steps):
            parts += _row(y, name, step, is_last=number == len(steps) - 1)
            y += ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
            "<title>From a mix file to a report: what each step reads and writes</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="a" markerWidth="7" markerHeight="7" refX="6" refY="3.5" '
            'orient="auto"><polygon points="0 0,7 3.5,0 7" fill="#5b6b95"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{y}" style="fill:#fff;stroke:none"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _row(y: int, name: str, step: Step, is_last: bool) -> list[str]:
    """Returns a step's box, its files and its arrows."""
    centre, end = y + BOX // 2, RIGHT - 40
    kind = "" if "." in name else ' class="stock"'
    parts = [f'<rect x="{MIDDLE}" y="{y}" width="{end - MIDDLE}" height="{BOX}" rx="5"{kind}/>']
    parts.append(_text(MIDDLE + 10, y + 18, name))
    parts.append(_text(MIDDLE + 10, y + 35, step.words, "what"))
    for files, x in ((step.reads, LEFT), (step.writes, RIGHT)):
        top = centre + 4 - 8 * (len(files) - 1)
        parts += [_text(x, top + 16 * n, line, "file") for n, line in enumerate(files)]
    if step.reads:
        parts.append(f'<path d="M{MIDDLE - 34} {centre}H{MIDDLE - 3}"/>')
    if step.writes:
        parts.append(f'<path d="M{end} {centre}H{RIGHT - 6}"/>')
    if not is_last:
        parts.append(f'<path d="M{(MIDDLE + end) // 2} {y + BOX}v{ROW - BOX - 3}"/>')
    return parts


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{named}>{escape(text)}</text>'


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    (target / "architecture.svg").write_text(picture(), encoding="utf-8")
