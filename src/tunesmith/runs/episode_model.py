"""The model of meta-training: opened, with its rows in front of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.core.threads import settle_threads
from tunesmith.data.tokens import tokenize
from tunesmith.fewshot.rows import ImageRows, Rows, TextRows
from tunesmith.models.convolution import ConvSettings, conv_encoder, load_conv
from tunesmith.models.loading import choose_device
from tunesmith.models.seams import Seams, open_seams
from tunesmith.recipe.episodes import CheckedEpisodes
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.session import Session, open_session
from tunesmith.tasks.labelling import LabelTask


@dataclass(frozen=True)
class EpisodeModel:
    """A model that turns images or texts into features.

    Args:
        seams: of the model.
        width: D of the features.
        session: of a text model; None for images.
        name: as the user wrote it.
        base_hash: of the weights that a delta belongs to.
    """

    seams: Seams
    width: int
    session: Session | None
    name: str
    base_hash: str

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.seams.model

    def rows(self, content: Any) -> Rows:
        """Put rows in front of the model.

        Args:
            content: images (rows, channels, height, width), or texts.
        Returns:
            Rows by number.
        """
        if self.session is None:
            return ImageRows(self.model, torch.from_numpy(np.ascontiguousarray(content)))
        task = self.session.task
        assert isinstance(task, LabelTask)
        tokens = tokenize(self.session.tokenizer, content, self.session.max_tokens)
        return TextRows(self.session.backbone, task, tokens)


def open_episode_model(checked: CheckedEpisodes, base: Path | None = None) -> EpisodeModel:
    """Load or make the model of a recipe.

    Args:
        checked: the recipe.
        base: folder of an encoder that was made before; made anew from the seed when None.
    Returns:
        The model, no delta attached.
    Raises:
        DataError: images too small for so many blocks.
        CheckpointError: the model cannot be loaded.
    """
    settle_threads()
    own = checked.recipe.model
    if checked.recipe.images:
        shape = ConvSettings(
            size=own.size, image_channels=3 if own.colour else 1, blocks=own.blocks, channels=own.channels,
            groups=next(count for count in (8, 4, 2, 1) if own.channels % count == 0),
        )  # fmt: skip
        made = conv_encoder(shape, checked.recipe.seed) if base is None else load_conv(base)
        encoder = made.to(choose_device(own.device))
        return EpisodeModel(open_seams(encoder), encoder.width, None, "conv", _hash(encoder))
    data = checked.recipe.data
    inner = {
        "task": "text-classification",
        "model": {"name": own.name, "device": own.device},
        "data": {"train": data.train, "text": data.text, "label": data.label, "max_tokens": data.max_tokens},
    }
    session = open_session(replace(load_recipe(inner), folder=checked.folder))
    return EpisodeModel(session.backbone.seams, session.backbone.width, session, own.name, session.model_hash)


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return "sha256:" + digest.hexdigest()
