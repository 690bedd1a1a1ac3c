"""All that a method, a data source or a loss from outside may import. Everything else may move without notice.

Imports neither torch nor ray; what needs them imports them when it is called.
"""

from continual.contract.base import Strict, Version
from continual.contract.context import Context, StageRecord, Step
from continual.contract.loss import Loss, LossInputs, LossName
from continual.contract.mitigation import Candidate, Mitigation, Penalty
from continual.contract.models import ModelFacts, ModelRef
from continual.contract.registry import LOSSES, SOURCES
from continual.contract.replay import Replay, TeacherReplay
from continual.contract.requests import SampleRequest, least_samples, most_filled
from continual.contract.source import Document, Source, SourceItem
from continual.contract.stream import Stream
from continual.contract.view import StageView
from continual.contract.walk import Tried, Walk
from continual.data.chosen import chosen_from
from continual.data.documents import losses_by_document, mean_per_token
from continual.data.packing import Arrays
from continual.data.rows import ROW_COLUMNS, RowReader, column, fixed_column, row_facts, rows_table
from continual.errors import ConfigurationError, ContinualError
from continual.forgetting import ScoreLoss, as_limits, limits_by_name
from continual.forgetting.completion.complete import MODELS as COMPLETIONS
from continual.forgetting.completion.complete import probes as draw_probes
from continual.models import copy_settings, load_model, load_tokenizer, model_hash
from continual.models.template import chat_template
from continual.sampling.settings import sample_seed
from continual.sampling.start import template_start
from continual.store import Artefact, Store, digest, versions, write_atomic
from continual.store.artefact import Writer

__all__ = [
    "COMPLETIONS", "LOSSES", "ROW_COLUMNS", "SOURCES", "Arrays", "Artefact", "Candidate", "ConfigurationError",
    "Context", "ContinualError", "Document", "Loss", "LossInputs", "LossName", "Mitigation", "ModelFacts", "ModelRef",
    "Penalty", "Replay", "RowReader", "SampleRequest", "ScoreLoss", "Source", "SourceItem", "StageRecord", "StageView",
    "Step", "Store", "Stream", "Strict", "TeacherReplay", "Tried", "Version", "Walk", "Writer", "as_limits",
    "chat_template", "chosen_from", "column", "copy_settings", "digest", "draw_probes", "fixed_column",
    "least_samples", "limits_by_name", "load_model", "load_tokenizer", "losses_by_document", "mean_per_token",
    "model_hash", "most_filled", "row_facts", "rows_table", "sample_seed", "template_start", "versions", "write_atomic",
]  # fmt: skip
