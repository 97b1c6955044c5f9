"""A small convolutional encoder of images, made new from a seed: the four blocks that few-shot papers compare on.

Each block is a 3 x 3 convolution, a normalisation, ReLU and 2 x 2 max pooling. Where the papers normalise a batch by
its own statistics, this encoder normalises every image by itself (in groups of channels), so that a row does not
depend on its neighbours and no running statistics have to be kept.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, DataError
from tunesmith.core.files import read_json, write_atomic, write_json
from tunesmith.core.seeds import derived, seeded
from tunesmith.core.settings import Settings, setting

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_KIND = "tunesmith-conv"


class ConvSettings(Settings):
    """Shape of the encoder."""

    size: int = setting(28, "Height and width of the images.", unit="pixels", ge=4, le=1024)
    image_channels: int = setting(1, "Channels of the images: 1 grey, 3 colour.", ge=1)
    blocks: int = setting(4, "Blocks, each of which halves height and width.", unit="count", ge=1, le=9)
    channels: int = setting(64, "Channels of every block.", unit="count", ge=1)
    groups: int = setting(8, "Groups of channels that are normalised together.", unit="count", ge=1)


class ConvEncoder(nn.Module):
    """Images to feature vectors; `conv_encoder` makes one.

    Args:
        settings: of its shape.
    Source: Vinyals et al. 2016, arXiv:1606.04080, section 4.1. Differs: group instead of batch normalisation.
    """

    def __init__(self, settings: ConvSettings) -> None:
        super().__init__()
        if settings.size < 2**settings.blocks:
            raise DataError(
                f"images of {settings.size} x {settings.size} pixels cannot be halved {settings.blocks} times. Take at "
                f"most {settings.size.bit_length() - 1} blocks, or larger images."
            )
        if settings.channels % settings.groups:
            raise DataError(f"{settings.channels} channels do not split into {settings.groups} groups of one size.")
        self.settings = settings
        widths = [settings.image_channels, *[settings.channels] * settings.blocks]
        self.blocks = nn.ModuleList(ConvBlock(inside, outside, settings.groups) for inside, outside in pairwise(widths))

    @property
    def width(self) -> int:
        """D of the features."""
        return self.settings.channels * (self.settings.size // 2**self.settings.blocks) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (rows, channels, height, width); uint8 from 0 to 255, or floating-point numbers from -1 to 1.
        Returns:
            (rows, D).
        """
        own = self.settings
        if images.dim() != 4 or images.shape[1:] != (own.image_channels, own.size, own.size):
            raise DataError(
                f"images of shape {tuple(images.shape)}; the encoder reads (rows, {own.image_channels}, {own.size}, "
                f"{own.size}). Scale them, or make an encoder for their size."
            )
        kind = next(self.parameters()).dtype
        x = images.to(kind) / 127.5 - 1 if images.dtype == torch.uint8 else images.to(kind)
        for block in self.blocks:
            x = block(x)
        return x.flatten(1)

    def save(self, folder: Path) -> None:
        """Write config and weights.

        Args:
            folder: made when absent.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomic(folder / WEIGHTS, lambda place: save_file(tensors, place, metadata={"format": "pt"}))
        write_json(folder / CONFIG, {"model_type": _KIND, **self.settings.model_dump()})


class ConvBlock(nn.Module):
    """3 x 3 convolution, group normalisation, ReLU, 2 x 2 max pooling.

    Args:
        inside: channels in.
        outside: channels out.
        groups: of channels that are normalised together.
    """

    def __init__(self, inside: int, outside: int, groups: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm = nn.GroupNorm(groups, outside)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, inside, height, width) to (rows, outside, height // 2, width // 2)."""
        pooled = nn.functional.max_pool2d(self.norm(self.convolution(x)), 2)
        return nn.functional.relu(pooled)  # the same as before pooling, on a quarter of the numbers


def conv_encoder(settings: ConvSettings | None = None, seed: int = 0) -> ConvEncoder:
    """Make an encoder with random weights.

    Args:
        settings: of its shape; four blocks of 64 channels for grey images of 28 x 28 when None.
        seed: of the weights; the same seed gives the same ones, whatever was drawn before.
    Returns:
        The encoder, not opened yet.
    Raises:
        DataError: images too small for so many blocks, or channels that do not split into the groups.
    Example:
        >>> conv_encoder().width
        64
    """
    with seeded(derived(seed, "new model")):
        return _ready(ConvEncoder(settings or ConvSettings()))


def is_conv_folder(folder: Path) -> bool:
    """Say whether a folder holds an encoder that `ConvEncoder.save` wrote.

    Args:
        folder: any path.
    Returns:
        True when its config says so.
    """
    place = folder / CONFIG
    return place.is_file() and read_json(place, dict).get("model_type") == _KIND


def load_conv(folder: Path) -> ConvEncoder:
    """Read an encoder.

    Args:
        folder: that `ConvEncoder.save` wrote.
    Returns:
        The encoder, not opened yet.
    Raises:
        CheckpointError: missing, damaged, or another kind of model.
    """
    values: dict[str, Any] = read_json(folder / CONFIG, dict)
    if values.pop("model_type", None) != _KIND:
        raise CheckpointError(f"{folder / CONFIG}: not a convolutional encoder of Tunesmith.")
    try:
        model = ConvEncoder(ConvSettings(**values))
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (ValidationError, DataError, SafetensorError, OSError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise CheckpointError(f"{folder} is damaged ({why}). Train again or restore the folder.") from None
    return _ready(model)


def _ready(model: ConvEncoder) -> ConvEncoder:
    """Hold kernels with the channels innermost, which CPUs convolve a third faster."""
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
