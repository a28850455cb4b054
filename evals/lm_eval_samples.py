"""What lm-evaluation-harness wrote with `--log_samples`, joined to the items of a build.

    OUTPUT_PATH/MODEL/samples_mixctl_leak_x16_2026-01-31T12-00-00.123456.jsonl     a line an item
    OUTPUT_PATH/MODEL/results_2026-01-31T12-00-00.123456.json

A folder stands for one model, or holds the folders of several. Nothing is taken on trust: every
item of an experiment must be there exactly once, and each question must be word for word that of
the manifest. Where a task was run again into the same folder, the newest run counts.

Price: a line of a file in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from mixctl.evals.experiments import Experiment
from mixctl.evals.lm_eval_question import task_name
from mixctl.shards.errors import InputError, nearest
from mixctl.shards.jsonfile import parse_json, read_json

_STEP = re.compile(r"step-(\d+)")
_FILE = re.compile(r"samples_(mixctl_.+)_(\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
_MOST_PROBLEMS = 5
_FILTER = "none"
HARNESS_METRICS = ("acc", "acc_norm")


class _Pair(BaseModel):
    """What was asked: context and continuation."""

    arg_0: str
    arg_1: str


class _Sample(BaseModel):
    """A line of the samples; the harness writes most numbers as text."""

    doc: dict[str, Any]
    arguments: dict[str, _Pair] | list[tuple[str, str]]
    filtered_resps: list[tuple[FiniteFloat, Any]]
    acc: FiniteFloat
    acc_norm: FiniteFloat
    filter: str = _FILTER

    @property
    def prompts(self) -> set[str]:
        """Returns what stood before the choices: one string, however a version writes it."""
        if isinstance(self.arguments, dict):
            return {pair.arg_0 for pair in self.arguments.values()}
        return {context for context, _ in self.arguments}


Questions = Mapping[str, Mapping[str, dict[str, Any]]]
"""experiment -> item -> the question as it was exported"""


@dataclass(frozen=True)
class Answered:
    """What the harness found for one item.

    Attributes:
        loglikelihoods: of the choices in nats, in their order.
        metrics: the harness's own values of the item: acc and acc_norm.
        own_prompt: whether the model was asked more than the question (examples, a chat template).
    """

    loglikelihoods: list[float]
    metrics: Mapping[str, float]
    own_prompt: bool


@dataclass(frozen=True)
class HarnessModel:
    """A model that the harness has scored.

    Attributes:
        folder: what the harness wrote of it.
        step: completed steps; None when nothing says it.
        step_source: what said it.
        answers: experiment -> item -> what was found.
        version: of the harness; None where its results file is not there.
        repeated: tasks that were run more than once, of which the newest run counts.
    """

    folder: Path
    step: int | None
    step_source: str
    answers: Mapping[str, Mapping[str, Answered]]
    version: str | None = None
    repeated: list[str] = field(default_factory=list)


def find_models(
    paths: Sequence[Path], step: int | None, experiments: Sequence[Experiment], asked: Questions
) -> list[HarnessModel]:
    """Returns the models whose samples the paths hold, by step, unknown steps last.

    Args:
        paths: folders that the harness wrote: of one model, or of several.
        step: of models whose folder does not say it.
        experiments: of the kind contamination.
        asked: their questions.

    Raises:
        InputError: when a path holds no samples of the build's tasks, or they are not whole.
    """
    found: list[HarnessModel] = []
    problems: list[str] = []
    for folder in dict.fromkeys(folder for path in paths for folder in _folders(path, problems)):
        try:
            found.append(_read_model(folder, step, experiments, asked))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return sorted(found, key=lambda one: (one.step is None, one.step or 0, one.folder.as_posix()))


def _folders(path: Path, problems: list[str]) -> list[Path]:
    """Returns the folders of models: the path itself, or those in it."""
    if not path.is_dir():
        problems.append(f"{path}: no such folder (lm_eval writes one to its --output_path)")
        return []
    inside = [path, *sorted(one for one in path.iterdir() if one.is_dir())]
    found = [one for one in inside if any(_FILE.fullmatch(file.name) for file in one.iterdir())]
    if not found:
        problems.append(
            f"{path}: holds no samples_mixctl_*.jsonl; run lm_eval with --log_samples and "
            "--output_path on tasks that `mixctl export lm-eval` wrote"
        )
    return found


def _read_model(
    folder: Path, step: int | None, experiments: Sequence[Experiment], asked: Questions
) -> HarnessModel:
    files, repeated = _newest(folder)
    tasks = {task_name(one.name, arm): (one, arm) for one in experiments for arm in one.all_arms}
    problems = [
        f"{files[name]}: the build has no such experiment and arm{nearest(name, tasks)}"
        for name in sorted(files.keys() - tasks.keys())
    ]
    answers: dict[str, dict[str, Answered]] = {}
    for name in sorted(files.keys() & tasks.keys()):
        experiment, _ = tasks[name]
        known = answers.setdefault(experiment.name, {})
        problems += _read_file(files[name], asked[experiment.name], known)[:_MOST_PROBLEMS]
    for one in experiments:
        if one.name in answers and not problems:
            problems += _missing(folder, one, answers[one.name])
    if problems:
        raise InputError(problems)
    number, source = _step(folder, step)
    return HarnessModel(folder, number, source, answers, _version(folder), repeated)


def _newest(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns task -> the newest file of its samples, and the tasks that have several."""
    by_task: dict[str, list[tuple[str, Path]]] = {}
    for path in folder.iterdir():
        if match := _FILE.fullmatch(path.name):
            by_task.setdefault(match[1], []).append((match[2], path))
    several = sorted(task for task, files in by_task.items() if len(files) > 1)
    return {task: max(files)[1] for task, files in by_task.items()}, several


def _step(folder: Path, given: int | None) -> tuple[int | None, str]:
    """Returns the step that the folder's name says (the harness names it after the model)."""
    if named := _STEP.findall(folder.name):
        return int(named[-1]), "the folder's name"
    return (given, "--step") if given is not None else (None, "unknown")


def _version(folder: Path) -> str | None:
    for path in sorted(folder.glob("results_*.json"), reverse=True):
        said = read_json(path).get("lm_eval_version")
        return str(said) if said is not None else None
    return None


def _read_file(
    path: Path, asked: Mapping[str, dict[str, Any]], answers: dict[str, Answered]
) -> list[str]:
    """Returns what is wrong with a file, after adding what it says of each item to `answers`."""
    problems: list[str] = []
    for place, plain in _lines(path):
        try:
            sample = _Sample.model_validate(plain)
        except ValidationError as error:
            problems += [
                f"{place}: no sample of lm_eval: {'.'.join(map(str, e['loc']))}: {e['msg']}"
                for e in error.errors()
            ]
            continue
        if sample.filter != _FILTER:
            continue
        name = str(sample.doc.get("id"))
        if wrong := _wrong(sample, name, asked):
            problems.append(f"{place}: {wrong}")
        elif name in answers:
            problems.append(f"{place}: item '{name}' is there twice")
        else:
            answers[name] = _answered(sample, asked[name])
    return problems


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the object of every line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                place = f"{path}, line {number}"
                yield place, parse_json(line, place)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _wrong(sample: _Sample, name: str, asked: Mapping[str, dict[str, Any]]) -> str | None:
    """Returns why a sample is not one of a question of the build; None: it is."""
    if name not in asked:
        return f"the experiment has no item '{name}'{nearest(name, asked)}"
    wanted = asked[name]
    if wrong := [key for key, value in wanted.items() if sample.doc.get(key) != value]:
        are = "is" if len(wrong) == 1 else "are"
        return (
            f"item '{name}': {', '.join(wrong)} {are} not that of the build: the task was exported "
            "from another one, or changed"
        )
    if len(sample.filtered_resps) != len(wanted["choices"]):
        n_found, n_wanted = len(sample.filtered_resps), len(wanted["choices"])
        return f"item '{name}': {n_found} log-likelihoods of {n_wanted} choices"
    return None


def _answered(sample: _Sample, wanted: Mapping[str, Any]) -> Answered:
    return Answered(
        loglikelihoods=[response[0] for response in sample.filtered_resps],
        metrics={name: getattr(sample, name) for name in HARNESS_METRICS},
        own_prompt=sample.prompts != {wanted["context"]},
    )


def _missing(folder: Path, experiment: Experiment, answers: Mapping[str, Answered]) -> list[str]:
    """Returns what the samples lack: statistics are of all items or of none."""
    names = [item.name for item in experiment.items]
    absent = [name for name in names if name not in answers]
    if not absent:
        return []
    arms = sorted({str(experiment.arms[names.index(name)]) for name in absent})
    return [
        f"{folder}: {len(absent)} of {len(names)} items of experiment '{experiment.name}' have no "
        f"sample ('{absent[0]}' first; arms {', '.join(arms)}); run the whole group "
        f"{task_name(experiment.name)}, without --limit"
    ]
