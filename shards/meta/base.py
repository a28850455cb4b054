"""The base of the meta models: what a scorer needs to know of an item."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Meta(BaseModel):
    """Base of the meta models: unknown fields are an error, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
