"""What a recipe needs in memory before its first row: model, tokenizer, task, prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import Scratch
from tunesmith.core.threads import settle_threads
from tunesmith.data.pictures import Pictures
from tunesmith.models.backbone import Backbone
from tunesmith.models.dropout import set_dropout
from tunesmith.models.loading import (
    Source,
    beside,
    choose_device,
    first_place,
    hollow_model,
    load_config,
    load_model,
    load_tokenizer,
    locate,
    sentence_settings,
)
from tunesmith.models.new import build_model
from tunesmith.models.pictures import ImageBackbone, image_tokens, load_pictures
from tunesmith.models.quantized import Quantised, quantise
from tunesmith.models.sequences import open_language
from tunesmith.prompts.chat import Chat
from tunesmith.prompts.prompt import Prompt
from tunesmith.prompts.template import Template, Wordings, parse
from tunesmith.recipe.loading import Checked
from tunesmith.recipe.schema import PromptSettings
from tunesmith.tasks.base import Task
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.texts import training_texts

_CONTEXT = 1024  # of a new model whose recipe sets no data.max_tokens
_ENDLESS = 1_000_000  # tokenizers that know no limit report a number far above


class NewModel:
    """A new model in a folder that lives as long as the object.

    Args:
        checked: the recipe, with `model.new`.
    """

    def __init__(self, checked: Checked) -> None:
        recipe = checked.recipe
        assert recipe.model.new is not None
        self._folder = Scratch()
        self.path = self._folder.path
        texts = training_texts(recipe.data, checked.task, recipe.split_seed, checked.folder)
        context = recipe.data.max_tokens or _CONTEXT
        build_model(recipe.model.new, checked.task.opens, texts, context, recipe.seed, self.path)
        self.source = Source("new", str(self.path), True)


@dataclass
class Reading:
    """What turns a recipe's data into the tokens that its model reads.

    Args:
        source: where the model comes from.
        tokenizer: of the model; None for a model of images.
        task: with every setting decided.
        template: of the prompt.
        chat: template of conversations; None for tasks that do not write.
        max_tokens: longest row. [tokens]
        made: the folder of a model that was made for this recipe; None for one that exists.
        pictures: what reads the model's images; None for a model of texts.
    """

    source: Source
    tokenizer: Any
    task: Task
    template: Template
    chat: Chat | None
    max_tokens: int
    made: NewModel | None
    pictures: Pictures | None

    @property
    def reads(self) -> Any:
        """What makes rows of cells: the tokenizer, or what reads images."""
        return self.tokenizer if self.pictures is None else self.pictures


@dataclass
class Session(Reading):
    """A recipe's model, ready to run.

    Args:
        source: as for `Reading`.
        tokenizer: as for `Reading`.
        task: as for `Reading`.
        template: as for `Reading`.
        chat: as for `Reading`.
        max_tokens: as for `Reading`. [tokens]
        made: as for `Reading`.
        pictures: as for `Reading`.
        model_hash: of its weights.
        tokenizer_hash: of its vocabulary and rules, or of how its images are scaled.
        backbone: the opened model.
        quantised: what quantising the model did; None for a model in full precision.
    """

    model_hash: str
    tokenizer_hash: str
    backbone: Backbone
    quantised: Quantised | None


def open_reading(checked: Checked) -> Reading:
    """Open what reads a recipe's data; no weights are loaded.

    Args:
        checked: the recipe.
    Returns:
        Tokenizer, task and templates.
    Raises:
        RecipeError: a pooling or a length that the model does not have.
        CheckpointError: the tokenizer or the model's config cannot be read.
    """
    made, source, reads = _found(checked)
    checked = _suited(checked, source)
    return _reading(checked, made, source, reads, hollow_model(source, checked.task.opens))


def _suited(checked: Checked, source: Source) -> Checked:
    """Settle what of the model the task opens."""
    return replace(checked, task=checked.task.suited(load_config(source)))


def _found(checked: Checked) -> tuple[NewModel | None, Source, Any]:
    """Find the model, and what reads its input: a tokenizer, or `Pictures`."""
    recipe = checked.recipe
    made = None if recipe.model.new is None else NewModel(checked)
    source = locate(beside(recipe.model.name, checked.folder)) if made is None else made.source
    images = checked.task.reads == "images"
    return made, source, load_pictures(source, load_config(source)) if images else load_tokenizer(source)


def _reading(checked: Checked, made: NewModel | None, source: Source, reads: Any, model: PreTrainedModel) -> Reading:
    recipe, facts = checked.recipe, sentence_settings(source)
    pictures = reads if isinstance(reads, Pictures) else None
    tokenizer = reads if pictures is None else None
    if pictures is None:
        _check_vocabulary(tokenizer, model, source)
    task = checked.task.prepare(model, facts)
    if pictures is None:
        limit = _limit(recipe.data.max_tokens, model, tokenizer, facts)
    else:
        limit = pictures.length = image_tokens(model, pictures)
    return Reading(
        source=source,
        tokenizer=tokenizer,
        task=task,
        template=_template(recipe.prompt, task),
        chat=None if task.family != "generating" else _chat(tokenizer, recipe.prompt, model, task),
        max_tokens=limit,
        made=made,
        pictures=pictures,
    )


def open_session(checked: Checked, processes: Processes = ALONE) -> Session:
    """Load what a recipe names.

    Args:
        checked: the recipe.
        processes: that train together; they share the base out where training.shard_base says so.
    Returns:
        The session, no delta attached.
    Raises:
        RecipeError: a device, a pooling or a length that the model does not have.
        CheckpointError: the model cannot be loaded.
        MissingDependency: a quantised model without torchao.
    """
    recipe = checked.recipe
    settle_threads()
    device = choose_device(recipe.model.device)
    made, source, reads = _found(checked)
    checked = _suited(checked, source)
    rules = _rules(reads)
    shares = recipe.training.shard_base and processes.several
    first = torch.device("cpu") if shares else device  # no GPU ever holds a whole base that is shared out
    model = load_model(source, first, getattr(torch, recipe.model.dtype), checked.task.opens)
    model_hash = source.hash(model.config)
    reading = _reading(checked, made, source, reads, model)
    if recipe.training.dropout is not None:
        set_dropout(model, recipe.training.dropout)
    bits, methods = recipe.model.quantization, [checked.method, *(other.method for other in checked.candidates)]
    keep = any(method.wants_full_precision for method in methods)
    quantised = quantise(model, bits, keep) if bits else None
    if shares:
        processes.share_base(model, device)
    backbone = _opened(model, reading)
    backbone.seams.tokenizer = reading.tokenizer
    return Session(
        **vars(reading),
        model_hash=model_hash,
        tokenizer_hash="sha256:" + hashlib.sha256(rules.encode()).hexdigest(),
        backbone=backbone,
        quantised=quantised,
    )


def _opened(model: PreTrainedModel, reading: Reading) -> Backbone:
    if reading.pictures is not None:
        return ImageBackbone(model, reading.pictures)
    return Backbone(model) if reading.task.opens == "body" else open_language(model)


def _rules(reads: Any) -> str:
    """Say by what rules cells are read, before anything changes them."""
    if isinstance(reads, Pictures):
        return json.dumps([reads.shape, reads.facts])
    return str(reads.backend_tokenizer.to_str() if reads.is_fast else repr(reads))


def _check_vocabulary(tokenizer: Any, model: nn.Module, source: Source) -> None:
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"model: the tokenizer of {source.wanted} knows {len(tokenizer):,} tokens, the model {rows:,}: they do not "
            "belong together, or tokens were added to one only. Take the tokenizer of the model, or add the tokens to "
            "the model (tunesmith.add_tokens)."
        )


def worded(prompt: PromptSettings) -> list[Prompt]:
    """Return a recipe's prompt with each of its templates.

    Args:
        prompt: of a recipe.
    Returns:
        Prompts, the one of `prompt.template` first.
    """
    own = Prompt.of(prompt)
    return [own, *(own.changed(template=text) for text in prompt.templates)]


def _template(prompt: PromptSettings, task: Task) -> Template:
    """Make what names the columns that are read, and writes rows for tasks that do so by themselves."""
    if task.family == "prompting":
        fields = list(dict.fromkeys(name for one in worded(prompt) for name in one.fields))
        return Template("".join(f"{{row.{name}}}" for name in fields or ("text",)))
    own = {name: getattr(prompt, name) for name in ("description", "background") if getattr(prompt, name)}

    def whole(text: str) -> str:
        placed = {part.value for part in parse(text, own)}
        return "".join(f"{{{name}}}\n" for name in own if name not in placed) + text

    return Wordings([whole(text) for text in (prompt.template, *prompt.templates)], own)


def _chat(tokenizer: Any, prompt: PromptSettings, model: PreTrainedModel, task: Task) -> Chat:
    """Settle the chat template, and the token that ends answers."""
    if prompt.end_token is not None:
        if prompt.end_token not in tokenizer.get_vocab():
            raise RecipeError(f"prompt.end_token: the tokenizer has no token '{prompt.end_token}'.")
        tokenizer.eos_token = prompt.end_token
    if tokenizer.eos_token is None and task.opens == "causal":
        raise RecipeError(
            "prompt.end_token: the model's tokenizer names no end token, so answers would never stop. Name the token "
            "that ends a text."
        )
    return Chat(tokenizer, prompt.chat, prompt.system, bool(getattr(model.config, "is_encoder_decoder", False)))


def check_apart(checked: Checked, output: Path) -> None:
    """Refuse to replace a folder that holds the model which the new run starts from.

    Args:
        checked: the recipe.
        output: folder of the new run.
    Raises:
        CheckpointError: the model lies in it, as that of a run that was made with `model.new` does.
    """
    if checked.recipe.model.new is not None:
        return
    model = Path(beside(checked.recipe.model.name, checked.folder)).expanduser()
    if model.is_dir() and model.resolve().is_relative_to(output.resolve()):
        raise CheckpointError(
            f"output: {output} holds the model that the run starts from ({model}), which would be lost. Choose another "
            "output."
        )


def _limit(wanted: int | None, model: nn.Module, tokenizer: Any, facts: dict[str, Any]) -> int:
    places = getattr(model.config, "max_position_embeddings", None) or _ENDLESS
    able = min(places - first_place(model), tokenizer.model_max_length)
    if wanted is None:
        return int(min(able, facts.get("max_tokens", able), 8192))
    if wanted > able:
        raise RecipeError(
            f"data.max_tokens={wanted} is more than the model can read; at most {able} tokens are allowed."
        )
    return wanted
