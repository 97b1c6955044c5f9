"""Vision encoders: how their images are scaled, and the model opened so that images are rows of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor

from tunesmith.core.errors import CheckpointError, CompatibilityError
from tunesmith.data.images import Pixels
from tunesmith.data.pictures import Pictures
from tunesmith.models.backbone import Backbone, Proof
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.loading import Source, quiet
from tunesmith.models.structure import stacks

_PROCESSOR = "preprocessor_config.json"
_PLAIN = {"rescale_factor": 1 / 255, "image_mean": 0.5, "image_std": 0.5}  # of a model without an image processor


def load_pictures(source: Source, config: Any) -> Pictures:
    """Find out how a model's images are made of files.

    Args:
        source: of the model.
        config: of the model.
    Returns:
        What reads images: by the model's own image processor, or scaled to the config's size where it has none.
    Raises:
        CompatibilityError: the config names no size of images.
        CheckpointError: the image processor cannot be loaded.
    """
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    if size is None or channels not in (1, 3):
        raise CompatibilityError(
            f"task image-classification: the config.json of {source.wanted} has no image_size with 1 or 3 "
            "num_channels, so it is no model of images. Choose a vision encoder, for example a ViT."
        )
    height, width = (size, size) if isinstance(size, int) else map(int, size)
    if not source.local or not (Path(source.path) / _PROCESSOR).is_file():
        return Pictures((channels, height, width), _stretched(height, width), _PLAIN)
    try:
        with quiet():
            processor = AutoImageProcessor.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"model: the image processor of {source.wanted} cannot be loaded: {str(error).splitlines()[0]} Copy "
            f"{_PROCESSOR} again."
        ) from error
    facts = {
        "rescale_factor": processor.rescale_factor if processor.do_rescale else 1.0,
        "image_mean": processor.image_mean if processor.do_normalize else 0.0,
        "image_std": processor.image_std if processor.do_normalize else 1.0,
        "processor": json.loads(processor.to_json_string()),
    }
    return Pictures((channels, height, width), _processed(processor), facts)


def _stretched(height: int, width: int) -> Callable[[Any], Pixels]:
    def scaled(image: Any) -> Pixels:
        array = np.asarray(image.resize((width, height), resample=2), np.uint8)  # 2: bilinear
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    return scaled


def _processed(processor: Any) -> Callable[[Any], Pixels]:
    """Scale and crop by the model's own processor; rescaling and normalising follow in the model's type."""

    def scaled(image: Any) -> Pixels:
        array = np.asarray(image, np.uint8)
        array = array[..., None] if array.ndim == 2 else array
        given = processor([array], do_rescale=False, do_normalize=False, input_data_format="channels_last")
        return np.clip(np.rint(np.asarray(given["pixel_values"][0])), 0, 255).astype(np.uint8)

    return scaled


class ImageBackbone(Backbone):
    """A vision encoder opened at its seams: an image is a row of as many tokens as the encoder makes of it.

    Where the encoder is a stack of blocks, all rows' tokens run through it as one flat row, as those of texts do; that
    is proved at load, and else images run as the model takes them.

    Args:
        model: a transformers model of `pixel_values`.
        pictures: that its rows' numbers stand for.
    """

    def __init__(self, model: nn.Module, pictures: Pictures) -> None:
        self.pictures = pictures
        self._places: Tensor | None = None  # (N,), which of the images' tokens a flat pass reads
        found = stacks(getattr(model, "base_model", model))
        self._stack = [model.base_model.get_submodule(path) for path in found[0]] if len(found) == 1 else []  # type: ignore[union-attr]
        if self._stack:
            self._stack[0].register_forward_pre_hook(self._flatten, with_kwargs=True)
        super().__init__(model)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return self._width

    def three_rows(self) -> RaggedBatch:
        """Return three images of noise."""
        rows = self.pictures.samples()
        return ragged([torch.from_numpy(rows[number]) for number in range(len(rows))])

    def _prove(self) -> Proof:
        batch, training = self.three_rows().to(self.device), self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                self._width = self._padded(batch).shape[1]
                if not self._stack or not self.seams.attention:
                    return Proof(False, 0, 0.0, "the encoder is not one stack of blocks with transformers' attention")
                return self._compare(batch)
        finally:
            self.model.train(training)

    def _images(self, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """Return the rows' images, (R, C, H, W), as the model takes them, and which of their tokens are read, (N,)."""
        length = self.pictures.length
        firsts = torch.tensor(batch.layout.starts[:-1], device=batch.ids.device)
        numbers = (batch.ids[firsts] // length).tolist()
        rows = torch.arange(batch.layout.rows, device=batch.ids.device)
        lengths = torch.tensor(batch.layout.lengths, device=batch.ids.device)
        places = torch.repeat_interleave(rows * length, lengths) + batch.ids % length
        dtype = next(self.model.parameters()).dtype
        pixels = torch.from_numpy(self.pictures.pixels(numbers)).to(self.device)
        return normalised(pixels, self.pictures.facts, dtype), places

    def _run_flat(self, batch: RaggedBatch, positions: Tensor) -> Tensor:
        """Run images as one flat row of tokens; a row may leave some of its image's tokens out."""
        pixels, self._places = self._images(batch)
        try:
            hidden: Tensor = self.body(pixel_values=pixels).last_hidden_state
        finally:
            self._places = None
        return hidden[0]

    def _flatten(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Lay the tokens of all images out as one row where the blocks begin."""
        if self._places is None:
            return None
        hidden = args[0] if args else named["hidden_states"]
        flat = hidden.flatten(0, 1)
        whole = len(self._places) == len(flat)
        flat = (flat if whole else flat[self._places])[None]
        return ((flat, *args[1:]), named) if args else (args, {**named, "hidden_states": flat})

    def _padded(self, batch: RaggedBatch) -> Tensor:
        """Run images as the model takes them."""
        batch = batch.to(self.device)
        pixels, places = self._images(batch)
        with self._sparingly():
            hidden = tokens_of(self.body(pixel_values=pixels).last_hidden_state)
        flat = hidden.flatten(0, 1)
        if len(places) != len(flat):
            raise CompatibilityError(
                f"{type(self.model).__name__} does not run on some tokens of an image alone. Choose a view that leaves "
                "no tokens out (view: dropout)."
            )
        return flat


def normalised(pixels: Tensor, facts: dict[str, Any], dtype: torch.dtype) -> Tensor:
    """Turn pixels into what a model takes: (x factor - mean) / deviation.

    Args:
        pixels: (R, C, H, W), uint8.
        facts: rescale_factor, image_mean and image_std, of all channels or of each.
        dtype: of the answer.
    Returns:
        (R, C, H, W).
    """
    mean, deviation = (
        torch.tensor(facts[key], dtype=dtype, device=pixels.device).reshape(-1, 1, 1)
        for key in ("image_mean", "image_std")
    )
    found: Tensor = (pixels.to(dtype) * facts["rescale_factor"] - mean) / deviation
    return found


def tokens_of(hidden: Tensor) -> Tensor:
    """See an encoder's states as tokens of rows.

    Args:
        hidden: (R, T, D), or a map (R, D, h, w) of a convolutional encoder.
    Returns:
        (R, T, D).
    """
    return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden


@torch.no_grad()
def image_tokens(model: nn.Module, pictures: Pictures) -> int:
    """Count the tokens that an encoder makes of an image.

    Args:
        model: of `pixel_values`; may be without weights, on torch's meta device.
        pictures: with the images' shape.
    Returns:
        T. [count]
    Raises:
        CompatibilityError: the model does not take images of that shape.
    """
    own = next(model.parameters())
    try:
        found = model.base_model(pixel_values=torch.zeros(1, *pictures.shape, dtype=own.dtype, device=own.device))  # type: ignore[operator]
        return int(tokens_of(found.last_hidden_state).shape[1])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CompatibilityError(
            f"task image-classification: {type(model).__name__} gives no hidden states of images of "
            f"{' x '.join(map(str, pictures.shape))}: {str(error).splitlines()[0][:200]} Choose a vision encoder."
        ) from None
