"""`mixctl amend`: new placements in the steps that are still ahead, written into a finished build.

    stop the trainer after checkpoint S
    mixctl amend DIR additions.yaml --after-step S --checkpoint OUT/step-S
    litgpt pretrain --config DIR/litgpt.yaml --resume OUT/step-S/lit_model.pth

Written in place: the blocks that change, their digests, the chunk files' digests, the rows of
items.parquet and placements.parquet, mix.json; where there is no twin, what the blocks held before
goes to manifest/before-0001.parquet. Journal first (`shards.journal`): killed at any moment, the
build is the old one or the new one. A build made again from its mix file is brought to the same
bytes by `replay`: mix.json holds all that an amendment was made of.

Price: every chunk file that changes is read once, for its digest; tables and mix.json are written
anew.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mixctl.pipeline.additions import Additions
from mixctl.pipeline.amended import Changed, change_blocks, write_changed_tables
from mixctl.pipeline.amendment import plan_amendment
from mixctl.pipeline.consumed import check_consumed
from mixctl.pipeline.finished import FinishedBuild, open_build
from mixctl.pipeline.plan import Plan
from mixctl.shards.errors import InputError
from mixctl.shards.files import write_text
from mixctl.shards.journal import Journal, recover, writer_lock
from mixctl.shards.readers import readers_of
from mixctl.shards.record import (
    RECORD_NAME,
    Amendment,
    BuildRecord,
    Totals,
    read_record,
    record_text,
)


def amend(
    build: Path,
    additions: Additions,
    after_step: int,
    checkpoint: Path | None = None,
    time: str | None = None,
) -> BuildRecord:
    """Returns the record of the amended build; its last amendment is this one.

    Args:
        build: the folder of a finished build.
        additions: what is to be placed.
        after_step: the steps up to this one stay as they are.
        checkpoint: what it has consumed must not be changed either; None: not looked at.
        time: what is recorded as the time of the amendment; None for now.

    Raises:
        InputError: with every problem; nothing is changed then.
        VerificationError: when a file that would change is not what its record says.
    """
    read_record(build)  # no build, no lock
    with writer_lock(build):
        recover(build)
        _refuse_readers(build)
        found = open_build(build)
        if checkpoint is not None:
            check_consumed(checkpoint, build, found.record, after_step)
        _amend(found, additions, after_step, time or _now())
        return read_record(build)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _amend(build: FinishedBuild, additions: Additions, after_step: int, time: str) -> None:
    plan, resolved = plan_amendment(build, additions, after_step)
    number = len(build.record.amendments) + 1
    journal = Journal(build.folder)
    try:
        changed = change_blocks(build, plan, resolved, journal)
        write_changed_tables(build, plan, resolved, changed, number, journal)
        amendment = _amendment(number, plan, additions, after_step, changed, time)
        record = _record(build.record, plan, changed, amendment)
        write_text(journal.file(RECORD_NAME), record_text(record))
        _refuse_readers(build.folder)  # one may have been started meanwhile
    except BaseException:
        journal.forget()
        raise
    journal.commit(f"amendment {number}, after step {after_step}")


def _amendment(
    number: int, plan: Plan, additions: Additions, after_step: int, changed: Changed, time: str
) -> Amendment:
    batch = plan.topology.global_batch
    placed = [one.copies for one in plan.experiments]
    first = min(int(copies.sequence.min()) for copies in placed if len(copies))
    return Amendment(
        number=number,
        after_step=after_step,
        first_step=first // batch + 1,
        time=time,
        experiments=list(additions.sections),
        copies={name: dict(items) for name, items in additions.copies.items()},
        folder=str(additions.folder.resolve()),
        inputs=additions.inputs(),
        kinds={e.experiment.kind.name: e.experiment.kind.version for e in plan.experiments},
        placements=sum(len(copies) for copies in placed),
        tokens=sum(one.n_tokens for one in plan.experiments),
        sequences=len(changed.before),
    )


def _record(old: BuildRecord, plan: Plan, changed: Changed, amendment: Amendment) -> BuildRecord:
    """Returns the record of the amended build."""
    totals = dict(old.totals)
    for one in plan.experiments:
        name, known = one.config.name, one.assigned.earlier is not None
        was = totals.get(name, Totals(items=0, placements=0, tokens=0, share=0.0))
        totals[name] = was.model_copy(
            update={
                "items": was.items + (0 if known else len(one.assigned.items)),
                "placements": was.placements + len(one.copies),
                "tokens": was.tokens + one.n_tokens,
                "share": was.share + one.n_tokens / plan.run_tokens,
            }
        )
    update: dict[str, Any] = {
        "files": {**old.files, **changed.files},
        "totals": dict(sorted(totals.items())),
        "amendments": [*old.amendments, amendment],
    }
    return old.model_copy(update=update)


def replay(build: Path, source: Path) -> list[Amendment]:
    """Returns the amendments made: those that mix.json of another build lists and this one lacks.

    The two are then the same, byte for byte: a build made again from its mix file is brought to
    where the amended one is.

    Args:
        build: the build to be amended.
        source: the amended build, or the folder that holds its mix.json.

    Raises:
        InputError: when the two were not built alike, or an input is not what it was.
    """
    record, told = read_record(build), read_record(source)
    done = len(record.amendments)
    if record.digests["build"] != told.digests["build"]:
        raise InputError(f"{build}: was not built of what {source} was built of")
    if record.amendments != told.amendments[:done]:
        raise InputError(f"{build}: has other amendments than {source}: build it anew")
    for one in told.amendments[done:]:
        additions = _additions(one, source)
        _check_inputs(one, additions, source)
        amend(build, additions, one.after_step, time=one.time)
    return told.amendments[done:]


def _additions(amendment: Amendment, source: Path) -> Additions:
    path = source / f"{RECORD_NAME}: amendment {amendment.number}"
    sections = tuple(amendment.experiments)
    return Additions(Path(amendment.folder), sections, amendment.copies, path)


def _check_inputs(amendment: Amendment, additions: Additions, source: Path) -> None:
    """Refuses item files and kinds that would give other placements than they gave then."""
    place = f"{source / RECORD_NAME}: amendment {amendment.number}"
    kinds = {e.config.kind: e.kind.version for e in additions.experiments()}
    problems = [
        f"{place}: was made with version {version} of kind {name}, this mixctl has {kinds[name]}"
        for name, version in amendment.kinds.items()
        if kinds.get(name) != version
    ]
    found = additions.inputs()
    problems += [
        f"{place}: {name.partition(':')[2]} in {amendment.folder} is not the file it was then"
        for name, digest in amendment.inputs.items()
        if found.get(name) != digest
    ]
    if problems:
        raise InputError(problems)


def _refuse_readers(build: Path) -> None:
    """Refuses to change data that a process of this machine is reading."""
    readers = readers_of(build)
    if readers:
        named = "; ".join(f"process {one.pid}: {one.command}" for one in readers)
        raise InputError(
            f"{build}: its data is being read: stop the trainer first, its checkpoint holds where "
            f"it was ({named})"
        )
