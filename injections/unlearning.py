"""unlearning: articles placed whole or in pieces, and a retain set that is kept out.

    items: articles.jsonl          # rows as for `documents`
    items_per_arm: 90              # for each of the arms below
    doses: [1, 10, 100]
    split: {pieces: 4}             # how the arms `once` and `anew` cut an article
    retain: rest                   # items of the arm `retain`

makes the arms `whole-x1`, `once-x1`, `anew-x1`, `whole-x10`, ... and `retain` (copies 0): an
article is placed whole, cut once so that every copy is the same pieces, or cut anew for every copy.
Written-out `arms:` take the place of these keys. For the scorer every article comes with the
prefixes to prompt with: `prefix_lengths`, each followed by `suffix_tokens` tokens of the article.

Source of the design: Bordt & Pawelczyk, arXiv 2509.23383, with the articles of MUSE (Shi et al.,
arXiv 2407.06460). Price: as for documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from mixctl.injections.base import Item, Kind, KindContext, TokenIds
from mixctl.injections.config import MOST_COPIES, Arm, ExperimentConfig, Split, Splitting, Strict
from mixctl.injections.documents import (
    NOT_COMPARED,
    DocumentRow,
    check_steps,
    document_files,
    find_documents,
)
from mixctl.injections.sources import ItemFile, StandIn
from mixctl.shards.meta.unlearning import UnlearningMeta

RETAIN = "retain"
_DEFAULT_SPLIT = Split(pieces=4)
Doses = Annotated[list[Annotated[int, Field(ge=1, le=MOST_COPIES)]], Field(min_length=1)]
Retained = Annotated[int, Field(ge=0)] | Literal["rest"]
PerArm = Annotated[int, Field(ge=1)]


class _Conditions(Strict):
    """The keys that stand for arms."""

    items_per_arm: PerArm
    doses: Doses = [1, 10, 100]
    retain: Retained = "rest"
    split: Split = _DEFAULT_SPLIT

    def arms(self) -> list[Arm]:
        """Returns an arm for each way of cutting and each dose, and the retain set."""
        ways: dict[str, Splitting] = {
            "whole": "whole",
            "once": self.split.model_copy(update={"anew": False}),
            "anew": self.split.model_copy(update={"anew": True}),
        }
        made = [
            Arm(name=f"{word}-x{copies}", items=self.items_per_arm, copies=copies, split=split)
            for copies in self.doses
            for word, split in ways.items()
        ]
        return [*made, Arm(name=RETAIN, items=self.retain, copies=0, split="whole")]


class UnlearningConfig(ExperimentConfig):
    """The section of an `unlearning` experiment."""

    kind: Literal["unlearning"]
    """this kind"""
    items: ItemFile
    """the articles, rows as for `documents`"""
    items_per_arm: PerArm | None = None
    """articles of each arm; makes the arms whole-x1, once-x1, anew-x1, ... and retain"""
    doses: Doses | None = None
    """copies, an arm each"""
    retain: Retained | None = None
    """articles of the arm that is never placed"""
    prefix_lengths: list[Annotated[int, Field(ge=1)]] = [25, 50, 100]
    """tokens of an article that the model is asked to go on from"""
    suffix_tokens: Annotated[int, Field(ge=1)] = 50
    """tokens of its answer that are scored"""

    @model_validator(mode="before")
    @classmethod
    def _arms_by_default(cls, raw: Any) -> Any:
        """Adds the arms that the keys stand for; wrong keys are left for their own errors."""
        if not isinstance(raw, dict) or "arms" in raw or "items_per_arm" not in raw:
            return raw
        given = {name: raw[name] for name in _Conditions.model_fields if raw.get(name) is not None}
        try:
            return {**raw, "arms": _Conditions.model_validate(given).arms()}
        except ValidationError:
            return raw

    @field_validator("doses")
    @classmethod
    def _each_dose_once(cls, doses: list[int] | None) -> list[int] | None:
        twice = sorted({dose for dose in doses or [] if (doses or []).count(dose) > 1})
        if twice:
            raise ValueError(f"given more than once: {', '.join(map(str, twice))} copies")
        return doses

    @model_validator(mode="after")
    def _one_set_of_arms(self) -> UnlearningConfig:
        if self.items_per_arm is None:
            if not self.arms:
                raise ValueError("no arms: say 'items_per_arm', or write 'arms' out")
            given = [name for name in ("doses", "retain") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"'{given[0]}' goes with 'items_per_arm', not with 'arms'")
            return self
        if self.split == "whole":
            raise ValueError("'split: whole' cuts nothing: say {pieces: 4} or {at_most: 512}")
        if self.arms != self._conditions().arms():
            raise ValueError("'items_per_arm' makes the arms itself: leave out 'arms'")
        return self

    def _conditions(self) -> _Conditions:
        names = _Conditions.model_fields
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        return _Conditions.model_validate(given)


def _make_items(config: ExperimentConfig, context: KindContext) -> list[Item]:
    config = cast(UnlearningConfig, config)
    found = find_documents(config.items, config.name, context)
    check_steps([(name, row) for name, row, _ in found], config.name, context.steps)
    made_up = isinstance(config.items, StandIn)
    return [_item(name, row, ids, config, made_up) for name, row, ids in found]


def _item(
    name: str, row: DocumentRow, ids: TokenIds, config: UnlearningConfig, made_up: bool
) -> Item:
    lengths = sorted(set(config.prefix_lengths))
    meta = UnlearningMeta(
        n_characters=None if row.text is None else len(row.text),
        prefix_lengths=[n for n in lengths if n + config.suffix_tokens <= len(ids)],
        suffix_length=config.suffix_tokens,
    )
    return Item(
        item=name,
        variants=(ids,),
        meta=meta,
        stratum=row.stratum,
        cluster=row.cluster_name,
        text=row.text,
        arm=row.arm,
        copies=row.dose,
        steps=None if row.steps is None else tuple(row.steps),
        compared=NOT_COMPARED if made_up else None,
    )


def _inputs(config: ExperimentConfig, folder: Path) -> list[Path]:
    return document_files(cast(UnlearningConfig, config).items, folder)


KIND = Kind("unlearning", 1, UnlearningConfig, _make_items, _inputs)
