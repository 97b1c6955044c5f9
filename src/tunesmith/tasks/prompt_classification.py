"""Classification by a prompt: the label whose words the model would most likely say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar, Literal

import torch
from pydantic import PrivateAttr, field_validator
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError, RecipeError, unknown
from tunesmith.core.registry import components, find, register
from tunesmith.core.settings import setting
from tunesmith.models.backbone import Backbone, pool
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.structure import is_causal
from tunesmith.prompts.demonstrating import Demonstrator
from tunesmith.prompts.prompt import Prompt
from tunesmith.tasks.answering import Reading, Words, check_wordings, mask_places, tokenize_words
from tunesmith.tasks.labelling import LabelTask
from tunesmith.tasks.prompted import Mode, PromptReader
from tunesmith.tasks.verbalizers.base import OutputHead, TextHead, Verbalizer, WordHead

_FILLS, _WRITES = ("ForMaskedLM", "ForPreTraining"), ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True)
class Bound:
    """A task's labels.

    Args:
        reader: writes rows as prompts.
        texts: that stand for each label.
        reading: where they are read, in models with a language-model head.
        demonstrator: chooses what rows are shown, or None.
        others: write the same rows by further templates.
    """

    reader: PromptReader
    texts: list[list[str]]
    reading: Reading | None
    demonstrator: Demonstrator | None = None
    others: tuple[PromptReader, ...] = ()

    @property
    def readers(self) -> list[PromptReader]:
        """Everything that writes rows, the prompt's own template first."""
        return [self.reader, *self.others]


@register("tasks")
class PromptClassification(LabelTask):
    """One label per text: the model is asked, and the probabilities of the label words are its answer.

    A word of m tokens scores log p / m (or log p), a label the log of the mean over its words, less the log of its
    prior where that is calibrated.

    Source: Schick and Schütze 2021, arXiv:2001.07676; calibration: Zhao et al. 2021, arXiv:2102.09690, and Zhou et al.
    2023, arXiv:2309.17249.
    """

    name: ClassVar[str] = "prompt-classification"
    family: ClassVar[str] = "prompting"
    own_settings: ClassVar[tuple[str, ...]] = ()  # it is bound to its labels, all trials alike
    scored_by: ClassVar[tuple[str, ...]] = ("labels", "texts")
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy", "macro-f1", "micro-f1", "precision", "recall", "roc-auc", "log-loss", "calibration-error",
    )  # fmt: skip
    baselines: ClassVar[tuple[str, ...]] = ("majority", "untuned", "linear-probe")

    scoring: Literal["auto", "masked", "causal", "similar"] = setting(
        "auto",
        "How the model answers: it fills in a mask, writes the word (encoder-decoders too), or its vector of the row "
        "is compared with those of the labels' texts; auto: what the model was made for.",
    )
    verbalizer: str = setting("words", "How labels are read off: words, descriptions, learned or prototypical.")
    by_length: bool = setting(True, "Score a word by the mean over its tokens instead of their sum.")
    calibration: Literal["none", "content-free", "batch"] = setting(
        "none", "Prior that is taken off: the answer to prompts without content, or the mean over training rows."
    )
    scale: float = setting(20.0, "Scale of cosines, with a sentence encoder or prototypes.", gt=0)
    pooling: Literal["auto", "mean", "cls", "last"] = setting(
        "auto", "How a sentence encoder's tokens become one vector; auto: what the model folder says, else as usual."
    )
    _bound: Bound | None = PrivateAttr(None)
    _mode: Mode = PrivateAttr("masked")

    @field_validator("verbalizer")
    @classmethod
    def _is_one(cls, value: str) -> str:
        if value not in components("verbalizers"):
            raise ValueError(unknown("verbalizer", value, components("verbalizers")))
        return value

    @property
    def opens(self) -> str:
        """What of the model is loaded; prototypes read no words."""
        if self.scoring in ("auto", "similar") or (self.scoring == "masked" and self.kind.reads == "state"):
            return "body"
        return self.scoring

    @property
    def kind(self) -> Verbalizer:
        """The verbalizer."""
        return find("verbalizers", self.verbalizer)()

    def suited(self, config: Any) -> PromptClassification:
        """Settle how the model answers.

        Args:
            config: of the model.
        Returns:
            The task with its scoring decided.
        """
        if self.scoring != "auto":
            return self
        names = [str(name) for name in getattr(config, "architectures", None) or ()]
        writes = getattr(config, "is_encoder_decoder", False) or any(name.endswith(_WRITES) for name in names)
        fills = any(name.endswith(_FILLS) for name in names)
        return self.model_copy(update={"scoring": "causal" if writes else "masked" if fills else "similar"})

    def prepare(self, model: nn.Module, facts: dict[str, Any]) -> PromptClassification:
        """Settle the pooling; leave what nobody reads out of training."""
        paired = bool(getattr(model.config, "is_encoder_decoder", False))
        if paired and self.scoring != "causal":
            raise CompatibilityError(
                f"task.scoring={self.scoring}: {type(model).__name__} has an encoder and a decoder, which writes its "
                "answers. Leave it out, or set causal."
            )
        pooling = self.pooling
        if pooling == "auto":
            pooling = facts.get("pooling") or ("last" if is_causal(model) else "mean")
        if self.opens == "body" and getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]
        if self.opens != "body" and self.kind.reads != "scores":
            _leave_out(model)
        found = self.model_copy(update={"pooling": pooling})
        found._mode = "paired" if paired else self.scoring  # type: ignore[assignment]
        return found

    # Labels ---------------------------------------------------------------------------------------------------

    def bound(
        self,
        prompt: Prompt,
        tokenizer: Any,
        max_tokens: int,
        labels: Sequence[str],
        demonstrator: Demonstrator | None = None,
    ) -> PromptClassification:
        """Tell the task its labels.

        Args:
            prompt: with their words.
            tokenizer: of the model.
            max_tokens: that the model reads. [tokens]
            labels: in the order of their codes.
            demonstrator: chooses what rows are shown, or None.
        Returns:
            The task that can read rows and make a head.
        Raises:
            RecipeError: words that cannot be scored, or a template that does not fit the model.
        """
        mode, texts = self._mode, self.kind.texts(prompt, labels)
        reading = None
        if mode == "similar" and not self.kind.from_rows:
            check_wordings(tokenizer, texts, self.kind.key)
        if mode != "similar":
            joiner = PromptReader(prompt, tokenizer, mode, max_tokens, labels).joiner
            reading = Reading(
                tokenize_words(tokenizer, texts, mode, joiner, self.kind.key), mode, tokenizer.mask_token_id
            )
        room = 0 if reading is None or mode == "paired" or self.kind.reads != "scores" else reading.words.longest - 1
        found = self.model_copy()
        found._mode = mode
        found._bound = Bound(
            PromptReader(prompt, tokenizer, mode, max_tokens, labels, room), texts, reading, demonstrator
        )
        return found

    def also_by(self, templates: Sequence[str]) -> PromptClassification:
        """Write rows by further templates too.

        Args:
            templates: of the prompt, besides its own.
        Returns:
            The task, bound as before.
        Raises:
            RecipeError: a template does not fit the model, or has other white space before the answer.
        """
        own, found = self.labels.reader, self.model_copy()
        found._mode = self._mode
        limits = (own.max_tokens, own.labels, own.max_tokens - own.limit)
        others = [
            PromptReader(own.prompt.changed(template=text), own.tokenizer, self._mode, *limits) for text in templates
        ]
        odd = next((one.prompt.template for one in others if one.joiner != own.joiner), None)
        if odd is not None and self._mode != "similar":
            raise RecipeError(
                f"prompt.templates: '{odd}' has other white space before the answer than prompt.template, so the "
                "labels' words would be other tokens there. Write the same before {label} in all of them."
            )
        found._bound = replace(self.labels, others=tuple(others))
        return found

    @property
    def labels(self) -> Bound:
        """What `bound` was told."""
        assert self._bound is not None, "bound before rows are read"
        return self._bound

    @property
    def words(self) -> Words:
        """The labels' words as tokens."""
        assert self.labels.reading is not None
        return self.labels.reading.words

    # Reading --------------------------------------------------------------------------------------------------

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Take what the verbalizer reads.

        Args:
            backbone: the model.
            batch: R prompts.
        Returns:
            log p of every word, (R, W), or a vector, (R, D).
        """
        reading = self.labels.reading
        if reading is None:
            return pool(backbone.hidden(batch), batch.layout, self.pooling)
        if self.kind.reads != "scores":
            return self._answer(backbone, batch, reading)
        states = reading.states(backbone, batch)
        with_names = [reading.scores(backbone, states[rows], self.by_length) for rows in _by_delta(backbone, batch)]
        return torch.cat(with_names)

    def _answer(self, backbone: Backbone, batch: RaggedBatch, reading: Reading) -> Tensor:
        """Take the state at the place of the answer."""
        if reading.kind == "masked":
            states = backbone.hidden_at(batch, mask_places(batch, reading.mask))
        else:
            assert isinstance(backbone, LanguageModel)
            states = backbone.hidden_behind(batch, [])[:, 0]
        if self.kind.reads == "state":
            return states
        assert isinstance(backbone, LanguageModel)
        return torch.cat([backbone.before_output(states[rows]) for rows in _by_delta(backbone, batch)])

    def head(self, width: int, classes: int) -> nn.Module:
        """Make the verbalizer's head.

        Args:
            width: D.
            classes: C.
        Returns:
            What the verbalizer reads to (R, C).
        Raises:
            RecipeError: a loss compares with class vectors, and words have none.
        """
        kind = self.kind
        if self._mode == "similar" or kind.reads == "state":
            return TextHead(width, classes, self.scale, kind.trains)
        if kind.reads == "said":
            return OutputHead(width, classes)
        compares = [loss.name for loss in self.loss_components if loss.reads == "vectors"]
        if compares:
            raise RecipeError(
                f"task.losses: {compares[0]} compares with class vectors, which label words do not have. Take "
                "cross-entropy, or the verbalizer learned or prototypical."
            )
        return WordHead(self.words.owners, classes)

    @property
    def starts_from_features(self) -> bool:
        """Prototypes start at training rows."""
        return self.kind.from_rows

    @property
    def answers_untrained(self) -> bool:
        """A prompt asks for no training."""
        return True

    @torch.no_grad()
    def start(self, head: nn.Module, features: Tensor, labels: Tensor, label_features: Tensor | None = None) -> None:
        """Start every label at the mean direction of its rows.

        Args:
            head: from `head`.
            features: (rows, D).
            labels: (rows,), int64.
            label_features: not read; verbalizers have words of their own.
        """
        head.weight.copy_(class_means(features, labels, len(head.weight)))  # type: ignore[operator,arg-type]

    @torch.no_grad()
    def start_from_texts(self, head: nn.Module, backbone: Backbone, tokenizer: Any) -> None:
        """Start labels at their texts, where the verbalizer does.

        Args:
            head: from `head`.
            backbone: without a delta in use.
            tokenizer: of the model.
        """
        if self.kind.from_rows or isinstance(head, WordHead):
            return
        if isinstance(head, OutputHead):
            assert isinstance(backbone, LanguageModel)
            output: Any = backbone.model.get_output_embeddings()  # type: ignore[operator]
            special = set(tokenizer.all_special_ids)
            for row, tokens in enumerate(_tokens_of(self.words)):
                own = [token for token in tokens if token not in special]
                head.weight[row] = output.weight[own].mean(0).to(head.weight)
                if getattr(output, "bias", None) is not None:
                    head.bias[row] = output.bias[own].mean().to(head.bias)
            return
        head.weight.copy_(self.prototypes(backbone).to(head.weight))  # type: ignore[operator,arg-type]

    @torch.no_grad()
    def prototypes(self, backbone: Backbone) -> Tensor:
        """Embed the labels' texts in the prompt's own wording, with the delta in use.

        Args:
            backbone: a sentence encoder.
        Returns:
            (C, D), the mean direction of each label's texts.
        """
        reader, texts = self.labels.reader, self.labels.texts
        wordings = [reader.prompt.wording(text) for some in texts for text in some]
        owners = torch.tensor([label for label, some in enumerate(texts) for _ in some])
        ids = [row[: reader.max_tokens] for row in reader.tokens(wordings)]
        batch = ragged([torch.tensor(row) for row in ids])
        vectors = pool(backbone.hidden(batch), batch.layout, self.pooling)
        return class_means(vectors, owners[batch.index], len(texts))


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean direction of every class.

    Args:
        features: (rows, D).
        labels: (rows,), int64.
        classes: C.
    Returns:
        (C, D), rows of length 1; zeros for a class without rows.
    """
    directions = nn.functional.normalize(features, dim=-1)
    sums = torch.zeros(classes, features.shape[-1], dtype=directions.dtype)
    sums.index_add_(0, labels.cpu(), directions.cpu())  # a GPU would add in another order at every run
    return nn.functional.normalize(sums, dim=-1).to(features.device)


def _tokens_of(words: Words) -> list[list[int]]:
    """Gather the tokens of each label's words."""
    pairs = zip(words.owners, words.ids, strict=True)
    return [[token for _, ids in some for token in ids] for _, some in groupby(pairs, key=lambda pair: pair[0])]


def _by_delta(backbone: Backbone, batch: RaggedBatch) -> Iterator[slice]:
    """Go through the rows of each delta, the delta in use while they are worked on."""
    row = 0
    names = batch.layout.names
    for name, rows in groupby(names or (None,) * batch.layout.rows):
        size = len(list(rows))
        with backbone.seams.routing.only(name) if names else nullcontext():
            yield slice(row, row + size)
        row += size


def _leave_out(model: nn.Module) -> None:
    """Keep what a head reads past out of training: the output map, where it is the model's own and not its table."""
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    if output is None:
        return
    table = model.get_input_embeddings()  # type: ignore[operator]
    for parameter in output.parameters():
        if parameter is not table.weight:
            parameter.requires_grad_(False)
