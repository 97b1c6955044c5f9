"""Find out by a tiny forward pass which attention layers a model calls, in which order and how wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.attention import Call
from tunesmith.models.loading import first_place
from tunesmith.models.soft_prompts import Layer

if TYPE_CHECKING:
    from tunesmith.models.seams import Seams

_ROW, _TARGET = 3, 2  # tokens; different, so that cross attention shows


@torch.no_grad()
def attention_layers(seams: Seams) -> list[Layer]:
    """Return the attention layers in the order of their calls, each once.

    Args:
        seams: of the model.
    Returns:
        The layers.
    Raises:
        CompatibilityError: the model does not open at the attention seam, reads neither tokens nor pixels, or has
            keys and values of unlike widths.
    """
    model, name = seams.model, type(seams.model).__name__
    if not seams.attention:
        raise CompatibilityError(
            f"{name} does not use transformers' attention interface, so nothing can stand in front of its keys and "
            "values. Choose a method at the linear maps, for example lora."
        )
    training = model.training
    model.eval()
    try:
        with seams.attending.recording() as calls, seams.routing.only(None):
            model(**_tiny_inputs(model))
    finally:
        model.train(training)
    paths = {module: path for path, module in model.named_modules()}
    unlike = next((call for call in calls if call.key.shape[3] != call.value.shape[3]), None)
    if unlike is not None:
        raise CompatibilityError(
            f"{name} has heads with keys of {unlike.key.shape[3]} and values of {unlike.value.shape[3]} numbers, and a "
            "prefix holds both in one width. Choose a method at the linear maps, for example lora."
        )
    once: dict[nn.Module, Call] = {}
    for call in calls:  # ALBERT runs one layer again and again
        once.setdefault(call.module, call)
    return [
        Layer(c.module, paths[c.module], c.key.shape[1], c.key.shape[3], (c.queries, c.key.shape[2]) == (_TARGET, _ROW))
        for c in once.values()
    ]


@torch.no_grad()
def recorded_keys(seams: Seams, layers: list[Layer], ids: Tensor) -> Tensor:
    """Return the keys and values that a row of real tokens leaves, as a prefix matrix.

    Args:
        seams: of the model.
        layers: that the prefix is for.
        ids: (P,), the tokens; a decoder beside an encoder reads them too.
    Returns:
        (P, numbers), on the CPU.
    Raises:
        CompatibilityError: more tokens than the model can read.
    """
    model = seams.model
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator,union-attr]
    limit = None if limit is None else limit - first_place(model)
    if limit is not None and len(ids) > limit:
        raise CompatibilityError(
            f"the soft prompt is longer than {type(model).__name__} can read: {len(ids)} virtual tokens, at most "
            f"{limit}. Shorten it (length)."
        )
    row = ids[None].to(next(model.parameters()).device)
    inputs = {"input_ids": row} | ({"decoder_input_ids": row} if seams.encoder is not None else {})
    training = model.training
    model.eval()
    try:
        with seams.attending.recording() as calls, seams.routing.only(None):
            model(**inputs)
    finally:
        model.train(training)
    found = {call.module: (call.key, call.value) for call in calls}
    parts = [part[0].transpose(0, 1).flatten(1) for layer in layers for part in found[layer.module]]
    return torch.cat(parts, dim=1).cpu()  # (P, heads * width for each key and each value)


def _tiny_inputs(model: nn.Module) -> dict[str, Tensor]:
    config: Any = model.config
    weight = next(model.parameters())
    wanted = getattr(model, "main_input_name", "input_ids")
    if wanted == "pixel_values":
        size = getattr(config, "image_size", None)
        if size is None:
            raise CompatibilityError(
                f"{type(model).__name__} does not say the size of its images (image_size), so its attention layers "
                "are not found. Choose a method at the linear maps, for example lora."
            )
        height, width = (size, size) if isinstance(size, int) else size
        return {
            "pixel_values": torch.zeros(1, config.num_channels, height, width, dtype=weight.dtype, device=weight.device)
        }
    if wanted != "input_ids":
        raise CompatibilityError(
            f"{type(model).__name__} reads '{wanted}'; a prefix needs a model of tokens or pixels."
        )
    ids = torch.arange(1, 1 + _ROW, device=weight.device)[None] % config.get_text_config().vocab_size
    if config.is_encoder_decoder:
        return {"input_ids": ids, "decoder_input_ids": ids[:, :_TARGET]}
    return {"input_ids": ids}
