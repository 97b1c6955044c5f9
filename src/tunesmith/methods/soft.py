"""What the methods of soft prompts share: length, start, PEFT's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, CompatibilityError
from tunesmith.core.settings import setting
from tunesmith.methods.base import Method, PeftFolder, whole_modules
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams
from tunesmith.models.soft_prompts import Place, Plain, SoftPrompt, TokenPrompt

Start = Literal["vocabulary", "text", "random"]
_HEADS = "base_model."  # of names of modules that train beside a soft prompt, which has no name of this kind
_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


class SoftPromptMethod(Method):
    """Base of methods that train what rows see besides their own tokens; the model's weights are untouched."""

    mergeable: ClassVar[bool] = False
    neutral: ClassVar[bool] = False

    length: int = setting(20, "Virtual tokens.", unit="tokens", ge=1, le=4096)
    start: Start = setting(
        "vocabulary", "Where they start: tokens drawn from the vocabulary, the tokens of start_text, or random numbers."
    )
    start_text: str | None = setting(None, "Text that virtual tokens start from, repeated or cut to the length.")
    modules_to_save: tuple[str, ...] = setting(
        (), "Modules that train whole beside the prompt, by name or end of name, for example a model's own head."
    )

    @field_validator("start_text")
    @classmethod
    def _is_read(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("start", "text") != "text":
            raise ValueError("It is read only with start: text; set that too, or leave the text out")
        return value

    def build(self, seams: Seams) -> SoftPrompt:
        """Build the prompt.

        Args:
            seams: of the model.
        Returns:
            A fresh prompt.
        """
        raise NotImplementedError

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a soft prompt.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            CompatibilityError: the model has no place for it.
        """
        with seams.bare():
            prompt = self.build(seams)
        prompt.to(dtype=torch.float64 if next(seams.model.parameters()).dtype == torch.float64 else torch.float32)
        whole = whole_modules(seams, self.modules_to_save)
        return seams.attach(name, parameters=whole, prompt=prompt, alone=whole)

    # Starts ---------------------------------------------------------------------------------------------------

    def check_reads_tokens(self, seams: Seams) -> None:
        """Refuse models that do not read token ids.

        Args:
            seams: of the model.
        Raises:
            CompatibilityError: it reads something else.
        """
        wanted = getattr(seams.model, "main_input_name", None)
        if wanted != "input_ids" or not hasattr(seams.model, "get_input_embeddings"):
            raise CompatibilityError(
                f"method {self.name}: {type(seams.model).__name__} reads '{wanted or 'no named input'}', not tokens, "
                "so it has no place for virtual ones. Choose another method, for example lora."
            )

    def warnings(self, seams: Seams) -> list[str]:
        """Say where the start text is cut, or holds what the tokenizer does not know.

        Args:
            seams: of the model.
        Returns:
            Sentences, possibly none.
        """
        if self.start != "text" or not self.start_text or seams.tokenizer is None:
            return []
        ids, found = self._text_ids(seams.tokenizer), list[str]()
        if len(ids) > self.length:
            found.append(
                f"method.start_text has {len(ids)} tokens and method.length is {self.length}: the last "
                f"{len(ids) - self.length} are cut."
            )
        if strange := ids.count(seams.tokenizer.unk_token_id):
            found.append(
                f"method.start_text: the model's tokenizer does not know {strange} of {len(ids)} tokens; virtual "
                "tokens start from its token for unknown words there."
            )
        return found

    def _text_ids(self, tokenizer: Any) -> list[int]:
        found: list[int] = tokenizer(self.start_text, add_special_tokens=False)["input_ids"]
        return found

    def start_ids(self, seams: Seams) -> Tensor:
        """Choose the tokens that virtual ones start from.

        Args:
            seams: of the model.
        Returns:
            (P,), int64.
        Raises:
            CompatibilityError: start is `text` and there is no text, no tokenizer, or no token that it knows.
        """
        tokenizer = seams.tokenizer
        if self.start == "text":
            if not self.start_text or tokenizer is None:
                missing = "start_text is empty" if not self.start_text else "the model's tokenizer is not known"
                raise CompatibilityError(
                    f"method {self.name}: start=text, but {missing}. Give start_text, and without a recipe the "
                    "tokenizer: tunesmith.attach(model, ..., tokenizer=tokenizer); or choose start=vocabulary."
                )
            ids = self._text_ids(tokenizer)
            if not set(ids) - {tokenizer.unk_token_id}:
                raise CompatibilityError(
                    f"method.start_text: the model's tokenizer knows no token of {self.start_text!r}, so virtual "
                    "tokens would start from nothing. Write it in words of the model, or choose start=vocabulary."
                )
            return torch.tensor((ids * (self.length // len(ids) + 1))[: self.length])
        special = set(tokenizer.all_special_ids) if tokenizer is not None else set()
        usable = torch.tensor([i for i in range(len(seams.embedding_weight)) if i not in special])
        return usable[torch.randint(len(usable), (self.length,))]

    def start_embeddings(self, seams: Seams) -> Tensor:
        """Return where virtual tokens start.

        Args:
            seams: of the model.
        Returns:
            (P, D), float32 or wider.
        """
        table = seams.embedding_weight
        if self.start == "random":
            return torch.randn(self.length, table.shape[1]) * table.float().std().cpu()
        return table[self.start_ids(seams).to(table.device)].detach().cpu()

    def blank(self) -> Self:
        """Return the method without a start that needs a tokenizer or a pass through the model."""
        return self.model_copy(update={"start": "random", "start_text": None})

    # Saving ---------------------------------------------------------------------------------------------------

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return what the prompt comes to, under PEFT's names.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor, on the CPU.
        """
        return {**_prompt(delta).exported(), **_heads(delta)}

    def extras(self, delta: Delta) -> dict[str, Tensor]:
        """Return everything training needs, where that is more than the prompt itself.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor; empty when `tensors` holds it all.
        """
        state = {name: tensor.detach().cpu().clone() for name, tensor in _prompt(delta).state_dict().items()}
        return {} if state.keys() == _prompt(delta).exported().keys() else {**state, **_heads(delta)}

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over a saved prompt.

        Args:
            delta: freshly attached by this method.
            tensors: as `tensors` or `extras` return them.
            where: their file, for errors.
        """
        prompt = _prompt(delta)
        heads = {name: tensor for name, tensor in tensors.items() if name.startswith(_HEADS)}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in heads}
        delta.load_copies({name.removeprefix(_HEADS): tensor for name, tensor in heads.items()}, where)
        if tensors.keys() == prompt.state_dict().keys():
            try:
                prompt.load_state_dict(tensors)
            except RuntimeError as error:
                raise CheckpointError(f"{where} does not fit the model: {error}") from None
        elif any("." in name for name in prompt.state_dict()):
            raise CheckpointError(
                f"{where} holds only what the network made; the network itself, reparameterisation.safetensors, is "
                "missing beside it. Restore it; or, to use the prompt without it, delete method.json: the folder then "
                "reads as PEFT's."
            )
        else:
            prompt.load_exported(tensors, where)

    # PEFT -----------------------------------------------------------------------------------------------------

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word what all soft prompts of PEFT share.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; no peft_type where PEFT would put the tokens elsewhere.
        """
        seams = delta.seams
        elsewhere = getattr(delta.prompt, "place", "start") != "start"
        task = self._task_type(seams)
        config: Any = seams.model.config
        return {
            **({"peft_type": None} if elsewhere or task is None else {}),
            "task_type": task,
            "modules_to_save": list(self.modules_to_save) or None,
            "num_virtual_tokens": self.length,
            "num_transformer_submodules": 1,
            "token_dim": int(_prompt(delta).exported()["prompt_embeddings"].shape[1]),
            "num_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
        }

    def _task_type(self, seams: Seams) -> str | None:
        """Say which class of PEFT wraps the model; those of classifiers alone train modules beside a soft prompt."""
        if self.modules_to_save:
            return next((task for name, task in _TASKS.items() if name in type(seams.model).__name__), None)
        if seams.encoder is not None:
            return "SEQ_2_SEQ_LM"
        output = getattr(seams.model, "get_output_embeddings", lambda: None)()
        return "CAUSAL_LM" if output is not None else "FEATURE_EXTRACTION"

    @staticmethod
    def peft_heads(folder: PeftFolder) -> tuple[str, ...]:
        """Read which modules were trained beside the prompt.

        Args:
            folder: as read.
        Returns:
            Their names in the model.
        """
        named = [name.removeprefix(_HEADS).rpartition(".")[0] for name in folder.tensors if name.startswith(_HEADS)]
        return tuple(dict.fromkeys(named))

    @classmethod
    def peft_length(cls, folder: PeftFolder) -> int:
        """Read the number of virtual tokens.

        Args:
            folder: as read.
        Returns:
            P.
        """
        length = folder.config.get("num_virtual_tokens")
        if not isinstance(length, int) or length < 1:
            raise CheckpointError(
                f"{folder.where}: num_virtual_tokens is {length!r}; a whole number above 0 is needed."
            )
        return length


class VirtualTokenMethod(SoftPromptMethod):
    """Base of methods whose soft prompt is virtual tokens."""

    needs: ClassVar[frozenset[str]] = frozenset({"tokens", "attention"})

    place: Literal["auto", "start", "after-first"] = setting(
        "auto",
        "Where they stand in an encoder's rows; auto: after the first token, which heads may read; PEFT: start.",
    )

    def build(self, seams: Seams) -> SoftPrompt:
        """Build the prompt.

        Args:
            seams: of the model.
        Returns:
            A fresh prompt.
        """
        self.check_reads_tokens(seams)
        return self.prompt(self.start_embeddings(seams), seams.place_of_virtual_tokens(self.place))

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over a saved prompt; of the one that PEFT makes for encoder and decoder it reads the encoder's half.

        Args:
            delta: freshly attached by this method.
            tensors: as `tensors` or `extras` return them.
            where: their file, for errors.
        """
        rows = tensors.get("prompt_embeddings")
        if rows is not None and delta.seams.encoder is not None and len(rows) == 2 * self.length:
            tensors = {**tensors, "prompt_embeddings": rows[: self.length]}
        super().load(delta, tensors, where)

    def prompt(self, start: Tensor, place: Place) -> SoftPrompt:
        """Build the prompt from where it starts.

        Args:
            start: (P, D).
            place: in an encoder's rows.
        Returns:
            A fresh prompt.
        """
        return TokenTable(start, place)


class TokenTable(Plain, TokenPrompt):
    """Virtual tokens held as their embeddings."""

    def __init__(self, start: Tensor, place: Place) -> None:
        super().__init__(len(start), place)
        self.prompt_embeddings = nn.Parameter(start.clone())


def _heads(delta: Delta) -> dict[str, Tensor]:
    return {_HEADS + name: copy.detach().cpu().clone() for name, copy in delta.copies.items()}


def _prompt(delta: Delta) -> SoftPrompt:
    assert isinstance(delta.prompt, SoftPrompt)
    return delta.prompt
