"""Multi-task prompt tuning: one shared soft prompt, and for each task a low-rank factor of it."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PeftFolder
from tunesmith.methods.soft import VirtualTokenMethod
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams
from tunesmith.models.soft_prompts import Place, SoftPrompt, TokenPrompt


@register("methods")
class MultitaskPrompt(VirtualTokenMethod):
    """Virtual tokens P_k = P* o (C_k R_k): a shared prompt times a factor of low rank per task.

    A row of task k is routed to the delta named `<name>:k`; `<name>` itself stands for `task`.

    Source: Wang et al. 2023, arXiv:2303.02861, eq. 1. Differs: factors start at one, so that every task starts at the
    shared prompt.
    """

    name: ClassVar[str] = "multitask-prompt"
    paper: ClassVar[str] = "Wang et al. 2023, arXiv:2303.02861"
    peft_type: ClassVar[str | None] = "MULTITASK_PROMPT_TUNING"

    tasks: int = setting(1, "How many tasks share the prompt.", unit="count", ge=1)
    rank: int = setting(1, "Rank of a task's factor.", unit="count", ge=1)
    task: int = setting(
        0, "The task that rows without a choice of their own belong to, from 0.", ge=0, validate_default=True
    )

    @field_validator("task")
    @classmethod
    def _one_of_them(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("tasks", value + 1):
            raise ValueError(f"There are tasks 0 to {info.data['tasks'] - 1}; raise tasks or choose one of them")
        return value

    def prompt(self, start: Tensor, place: Place) -> SoftPrompt:
        """Build the shared prompt and the factors.

        Args:
            start: (P, D).
            place: in an encoder's rows.
        Returns:
            A fresh prompt, set to `task`.
        """
        return SharedPrompt(start, place, self.tasks, self.rank, self.task)

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach the prompt, and a view of it for every task.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        """
        delta = super().attach(seams, name)
        assert isinstance(delta.prompt, SharedPrompt)
        for task in range(self.tasks):
            view = seams.attach(f"{name}:{task}", prompt=TaskView(delta.prompt, task))
            view.copies, view.places = delta.copies, delta.places
            seams.place(view)
            delta.views.append(view.name)
        seams.use(name)
        return delta

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT MultitaskPromptTuningConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; no peft_type where PEFT would put the tokens elsewhere.
        """
        return {
            **super().to_peft(delta),
            "prompt_tuning_init": "RANDOM",
            "num_tasks": self.tasks,
            "num_ranks": self.rank,
        }

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT MultitaskPromptTuningConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        config = folder.config
        if config.get("num_transformer_submodules") == 2:
            raise CheckpointError(
                f"{folder.where}: num_transformer_submodules = 2 puts virtual tokens before the decoder's too, which "
                "'multitask-prompt' does not. Train it with num_transformer_submodules=1."
            )
        return cls(
            length=cls.peft_length(folder),
            modules_to_save=cls.peft_heads(folder),
            start="random",
            place="start",
            tasks=int(config.get("num_tasks", 1)),
            rank=int(config.get("num_ranks", 1)),
        )


class SharedPrompt(TokenPrompt):
    """The shared prompt and every task's factors; the names are PEFT's."""

    def __init__(self, start: Tensor, place: Place, tasks: int, rank: int, task: int) -> None:
        super().__init__(len(start), place)
        self.task = task
        self.prompt_embeddings = nn.Parameter(start.clone())
        self.prefix_task_cols = nn.Parameter(torch.full((tasks, len(start), rank), 1.0 / rank))
        self.prefix_task_rows = nn.Parameter(torch.ones(tasks, rank, start.shape[1]))
        if rank > 1:  # equal columns would stay equal
            nn.init.normal_(self.prefix_task_cols, 1.0 / rank, 0.02)

    def of(self, task: int) -> Tensor:
        """Return the prompt of a task, (P, D)."""
        return self.prompt_embeddings * (self.prefix_task_cols[task] @ self.prefix_task_rows[task])

    def flat(self) -> Tensor:
        """Return the prompt of the chosen task, (P, D)."""
        return self.of(self.task)

    def exported(self) -> dict[str, Tensor]:
        """Return the shared prompt and the factors."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.named_parameters()}


class TaskView(TokenPrompt):
    """One task of a shared prompt."""

    def __init__(self, shared: SharedPrompt, task: int) -> None:
        super().__init__(shared.length, shared.place)
        self.shared, self.task = shared, task

    def flat(self) -> Tensor:
        """Return the prompt of the task, (P, D)."""
        return self.shared.of(self.task)
