"""Tasks that predict tokens with the model's own head: texts that go on, and conversations that are answered."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.registry import components
from tunesmith.core.settings import Settings, setting
from tunesmith.data.conversations import check_columns, find_format
from tunesmith.data.formats.base import Format
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch
from tunesmith.tasks.base import Task

OF_SAMPLING = ("top_k", "top_p", "min_p")  # settings that nothing reads at temperature 0


class Decoding(Settings):
    """How text is generated."""

    max_new_tokens: int = setting(128, "Longest answer.", unit="tokens", ge=1)
    temperature: float = setting(0.0, "Sharpness of sampling; 0 takes the most probable token.", ge=0)
    top_k: int | None = setting(None, "Sample among so many most probable tokens; all when empty.", unit="count", ge=1)
    top_p: float | None = setting(
        None, "Sample among the most probable tokens that make up this share; all when empty.", gt=0, le=1
    )
    min_p: float | None = setting(
        None, "Sample among tokens of at least this share of the highest probability; all when empty.", gt=0, le=1
    )
    beams: int = setting(1, "Beams of the search; with a temperature above 0 they are drawn.", unit="count", ge=1)
    repetition_penalty: float = setting(1.0, "Above 1, tokens that stand in the text become less probable.", gt=0)
    stop: list[Annotated[str, Field(min_length=1)]] = setting(
        [], "Texts that end an answer besides the end token; they are left out of it."
    )

    @model_validator(mode="after")
    def _draws(self) -> Self:
        unread = [key for key in OF_SAMPLING if getattr(self, key) is not None and self.temperature == 0]
        if unread:
            raise ValueError(
                f"{unread[0]}={getattr(self, unread[0])} is for sampling, and temperature=0 takes the most probable "
                "token; set a temperature above 0, or leave it out"
            )
        return self


class LanguageTask(Task):
    """Base of tasks whose loss is -log p of tokens, the mean over all learned tokens of a step."""

    scored_by: ClassVar[tuple[str, ...]] = ("likelihood", "answers", "texts")
    baselines: ClassVar[tuple[str, ...]] = ("untuned",)
    family: ClassVar[str] = "generating"

    decoding: Decoding = setting(Decoding(), "How text is generated.")
    samples: int = setting(3, "Texts in the report, written before and after tuning.", unit="count", ge=0)

    @property
    def opens(self) -> str:
        """A model that writes."""
        return "causal"

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> LanguageTask:
        """Leave the task as it is: nothing depends on the model."""
        return self

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Take the hidden states before the learned tokens; the head will run on no others."""
        assert isinstance(backbone, LanguageModel) and batch.learned is not None
        return backbone.before_learned(batch)

    def loss_of(
        self, backbone: Backbone, head: nn.Module, delta: Delta, outputs: Tensor, batch: RaggedBatch, smoothing: float
    ) -> Tensor:
        """Run the model's head on them and take the mean over the tokens."""
        assert isinstance(backbone, LanguageModel)
        targets = batch.targets.to(outputs.device)
        exact = torch.promote_types(outputs.dtype, torch.float32)  # a share of thousands has few digits in 16 bits
        weights = outputs.new_full((len(targets),), 1 / max(1, len(targets)), dtype=exact)
        with backbone.seams.routing.only(delta.name):
            return backbone.loss(outputs, targets, weights, smoothing, delta.parameters())


class AnswerTask(LanguageTask):
    """Base of tasks that learn the answers of conversations."""

    formats: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "token-f1", "rouge-l", "chrf")

    learn: Literal["all", "last"] = setting("all", "Which answers of a conversation are learned.")
    columns: dict[str, str] = setting(
        {}, "Columns of the file by the name that its format gives them, for example answer: reply."
    )
    cut: Literal["end", "start"] = setting("end", "Where rows that are longer than data.max_tokens lose tokens.")
    answered_rows: int = setting(
        64, "Rows per evaluated split that are answered to score the answers; drawn once; 0 for none.", unit="count",
        ge=0,
    )  # fmt: skip

    def form(self, columns: list[str], path: str) -> Format:
        """Choose how a file's rows become conversations.

        Args:
            columns: of the file.
            path: of the file, for errors.
        Returns:
            The format.
        Raises:
            DataError: the columns fit none that the task reads.
            RecipeError: task.columns names what is not there, or not read.
        """
        known = {column for name in self.formats for column in components("formats")[name].columns}
        foreign = [name for name in self.columns if name not in known]
        if foreign:
            raise RecipeError(f"task.columns: {unknown('name', foreign[0], known)}. Formats name their columns so.")
        check_columns({f"task.columns.{name}": column for name, column in self.columns.items()}, columns, path)
        found = find_format([*columns, *self.columns], self.formats, path)
        unread = [name for name in self.columns if name not in found.columns]
        if unread:
            raise RecipeError(
                f"task.columns.{unread[0]}: the rows of {path} are read as {found.name} ({found.holds}), which has no "
                f"'{unread[0]}'. Leave it out, or name the columns of another format."
            )
        return found
