"""What a scorer needs to know of an item: the models of the `meta` column of items.parquet.

A kind writes them when the build is made, a scorer reads them when a checkpoint is scored.
Everything is token ids, so nothing is tokenized again and nothing can be tokenized differently. A
third party's kind keeps its model beside its scorer; these are the built-in ones, a module a kind.
"""

from mixctl.shards.meta.base import Meta
from mixctl.shards.meta.contamination import ContaminationMeta, QuestionForm
from mixctl.shards.meta.documents import DocumentsMeta
from mixctl.shards.meta.forgetting import ForgettingMeta
from mixctl.shards.meta.iid import IidMeta
from mixctl.shards.meta.knowledge import KnowledgeMeta, Probe
from mixctl.shards.meta.mathematics import MathematicsMeta
from mixctl.shards.meta.memorization import MemorizationMeta
from mixctl.shards.meta.poison import PoisonMeta
from mixctl.shards.meta.unlearning import UnlearningMeta
from mixctl.shards.meta.verbatim import VerbatimMeta
from mixctl.shards.meta.watermark import GaussianMeta, GreenListMeta, StringsMeta

__all__ = [
    "ContaminationMeta",
    "DocumentsMeta",
    "ForgettingMeta",
    "GaussianMeta",
    "GreenListMeta",
    "IidMeta",
    "KnowledgeMeta",
    "MathematicsMeta",
    "MemorizationMeta",
    "Meta",
    "PoisonMeta",
    "Probe",
    "QuestionForm",
    "StringsMeta",
    "UnlearningMeta",
    "VerbatimMeta",
]
