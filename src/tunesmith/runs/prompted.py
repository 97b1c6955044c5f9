"""Carry out recipes that classify by a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.core.files import write_text
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived
from tunesmith.data.audit import length_facts
from tunesmith.data.tokens import TokenRows, VariedRows
from tunesmith.evaluation.predictions import Predictions
from tunesmith.prompts.demonstrating import Demonstrator
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Cost, Meter, Scored
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.prompting import PromptScorer
from tunesmith.runs.session import Reading, Session, worded
from tunesmith.tasks.prompt_classification import PromptClassification
from tunesmith.tasks.running import extract_features, probabilities
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split, load_corpus, load_labelled

POOL = "demonstrations.jsonl"  # in a run whose rows are shown training rows of their own
_WHOLE = 10**9  # tokens: the prompt is cut, not the row
_EMPTY = ("N/A", "...", "-")  # what stands in the row's fields where nothing is asked


@dataclass
class Prompted(Labelling):
    """Tasks whose labels are words that the model is asked for."""

    @classmethod
    def read(cls, checked: Checked, session: Reading, known: Sequence[str] = ()) -> Corpus:
        """Read labelled rows, choose demonstrations, and write the rows as prompts."""
        recipe, prompt = checked.recipe, Prompt.of(checked.recipe.prompt)
        named = list(dict.fromkeys([*known, *prompt.label_words]))
        corpus = load_corpus(
            recipe.data, session.template, session.tokenizer, _WHOLE, recipe.split_seed, checked.folder, named
        )
        train = corpus.splits["train"]
        for one in worded(recipe.prompt):
            one.check([*train.examples.columns.all(), "text"], recipe.data.label)
        prompt.check_labels(corpus.label_names)
        names = [corpus.label_names[code] for code in train.labels]
        corpus.warnings += _unseen(corpus.label_names, names, session.task)
        if recipe.data.label_descriptions is not None:
            corpus.warnings.append(
                "data.label_descriptions is not read by a prompt; write the sentences as prompt.label_descriptions."
            )
        rows = list(train.examples.rows(train.index))
        seed = derived(recipe.seed, "demonstrations")
        bind(session, checked, corpus.label_names, _demonstrator(session, prompt, rows, names, seed))
        for name, split in corpus.splits.items():
            corpus.splits[name] = _written(split, session, corpus.warnings)
        return corpus

    @classmethod
    def read_file(cls, path: str, checked: Checked, session: Session, labels: Sequence[str] = ()) -> Split:
        """Read labelled rows and write them as prompts."""
        split = load_labelled(path, checked.recipe.data, labels, session.template, session.tokenizer, _WHOLE)
        return _written(split, session, split.remarks)

    @classmethod
    def encode(cls, session: Reading, rows: Iterable[Mapping[str, str]]) -> tuple[TokenRows, list[str]]:
        """Write rows as prompts."""
        return _encoded(session, list(rows), "input")

    @classmethod
    def remind(cls, session: Session, checked: Checked, labels: Sequence[str], folder: Path) -> None:
        """Tell the task its labels, and what may be shown to rows."""
        prompt, demonstrator = Prompt.of(checked.recipe.prompt), None
        if prompt.demonstrates:
            rows, names = _pool(folder) if not prompt.demonstrations.examples else ([], [])
            seed = derived(checked.recipe.seed, "demonstrations")
            demonstrator = _demonstrator(session, prompt, rows, names, seed)
        bind(session, checked, labels, demonstrator)

    @property
    def _task(self) -> PromptClassification:
        assert isinstance(self.session.task, PromptClassification)
        return self.session.task

    def look(self, names: Sequence[str], meter: Meter, progress: Progress) -> None:
        """Read the untuned model's answers where somebody wants them."""
        super().look(names, meter, progress)
        if self._task.calibration == "batch" and "train" not in self.frozen.features:
            super().look(["majority"], meter, progress)

    def baselines(self, names: Sequence[str], meter: Meter, progress: Progress, seed: int) -> list[Scored]:
        """Ask the untuned model, and carry out baselines on what is read of it."""
        unfit = [name for name in names if name == "zero-shot"]
        if unfit:
            raise RecipeError("evaluation.baselines: a prompt is zero-shot by itself; take 'untuned' for 'zero-shot'.")
        others = super().baselines([name for name in names if name != "untuned"], meter, progress, seed)
        found = {scored.name: scored for scored in others}
        if "untuned" in names:
            with meter.stage() as cost:
                head = self._task.head(self.session.backbone.width, len(self.corpus.label_names))
                head = head.to(self.session.backbone.device)
                self._begin(head, None)
                answers = {
                    split: Predictions(
                        probabilities(head, self.frozen.features[split]).numpy(), self.corpus.splits[split].labels
                    )
                    for split in self.judge.splits
                }
            for split in self.judge.splits:
                cost = cost.plus(self.frozen.costs[split])
            found["untuned"] = self.judge.score(Scored("untuned", {**answers}, 0.0, cost))
        return [found[name] for name in names]

    def start(self, head: nn.Module, checked: Checked, earlier: Earlier | None) -> None:
        """Start the head at words or prototypes, and take priors off."""
        fresh = checked.method.neutral and earlier is None
        self._begin(head, self.frozen.features.get("train") if fresh else None)
        if earlier is not None:
            earlier.fill_head(head, self.corpus.label_names)

    def _begin(self, head: nn.Module, features: Tensor | None) -> None:
        """Give a head its starting values with the delta in use."""
        task, backbone, train = self._task, self.session.backbone, self._seen
        task.start_from_texts(head, backbone, self.session.tokenizer)
        if features is None and (task.starts_from_features or task.calibration == "batch"):
            features = extract_features(backbone, task, train.tokens)
        if task.starts_from_features:
            assert features is not None
            task.start(head, features.to(backbone.device), torch.from_numpy(train.labels).to(backbone.device))
        if task.calibration != "none":
            given = features if task.calibration == "batch" else self._contentless()
            assert given is not None
            calibrate(head, given)

    def _contentless(self) -> Tensor:
        """Read the model's answers to prompts without content."""
        fields = self._task.labels.reader.prompt.fields
        tokens, _ = _encoded(self.session, [dict.fromkeys(fields, text) for text in _EMPTY], "input")
        return extract_features(self.session.backbone, self._task, tokens)

    def first_recall(self, earlier: Earlier, tuned: Tuned, split: Split) -> Predictions:
        """Answer with the earlier run's own head, which knows the words of its labels alone."""
        own, session = self._task.labels, self.session
        prompt, shown = own.reader.prompt, own.demonstrator
        task = self._task.bound(prompt, session.tokenizer, session.max_tokens, earlier.labels, shown)
        old = replace(self, session=replace(session, task=task))
        return Labelling.first_recall(old, earlier, replace(tuned, task=task), split)

    def learned(self, cost: Cost) -> Cost:
        """Add the pass over training rows that the head's start was read from."""
        read = self._task.starts_from_features or self._task.calibration == "batch"
        return cost.plus(self.frozen.costs["train"]) if read and "train" in self.frozen.costs else cost


def bind(session: Reading, checked: Checked, labels: Sequence[str], demonstrator: Demonstrator | None) -> None:
    """Tell a session's task its labels.

    Args:
        session: whose task is prompt-classification.
        checked: the recipe, with the prompt to ask with and its further templates.
        labels: in the order of their codes.
        demonstrator: chooses what rows are shown, or None.
    """
    assert isinstance(session.task, PromptClassification)
    prompt = Prompt.of(checked.recipe.prompt)
    task = session.task.bound(prompt, session.tokenizer, session.max_tokens, labels, demonstrator)
    session.task = task.also_by(checked.recipe.prompt.templates)


@torch.no_grad()
def calibrate(head: nn.Module, given: Tensor) -> None:
    """Take off each label's prior: log of its mean probability over some rows.

    Args:
        head: of a verbalizer.
        given: what it reads of the rows, (rows, W) or (rows, D).
    Source: Zhao et al. 2021, arXiv:2102.09690; Zhou et al. 2023, arXiv:2309.17249. Differs: the logarithm of the mean
        probability is subtracted in both.
    """
    prior: Tensor = head.prior  # type: ignore[assignment]
    prior.zero_()
    prior.copy_(probabilities(head, given).mean(0).clamp_min(1e-30).log().to(prior))


def write_prompt(session: Session, folder: Path) -> None:
    """Write a run's prompt as it was used, and what its rows may be shown.

    Args:
        session: of the run.
        folder: of the run.
    """
    prompt, demonstrator = used_prompt(session), _of(session).labels.demonstrator
    write_text(folder / "prompt.yaml", prompt.to_yaml())
    if demonstrator is not None and not demonstrator.fixed:
        rows = zip(demonstrator.rows, demonstrator.labels, strict=True)
        fields = dict.fromkeys([*prompt.fields, *prompt.shown_fields])
        told = [{**{name: row[name] for name in fields}, "label": label} for row, label in rows]
        write_text(folder / POOL, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told))


def used_prompt(session: Session) -> Prompt:
    """Return a run's prompt with the demonstrations that all its rows were shown.

    Args:
        session: of the run.
    Returns:
        The prompt.
    """
    bound = _of(session).labels
    prompt, demonstrator = bound.reader.prompt, bound.demonstrator
    if demonstrator is None or not demonstrator.fixed or prompt.demonstrations.examples:
        return prompt
    return prompt.changed(demonstrations={"examples": demonstrator.examples()})


def _of(session: Reading) -> PromptClassification:
    assert isinstance(session.task, PromptClassification)
    return session.task


def _pool(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Read what rows of a run may be shown."""
    try:
        lines = (folder / POOL).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return found, [row.pop("label") for row in found]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / POOL} is missing or damaged: {error}. Restore it or train again.") from None


def _demonstrator(
    session: Reading, prompt: Prompt, rows: Sequence[Mapping[str, str]], labels: Sequence[str], seed: int
) -> Demonstrator | None:
    """Make what chooses demonstrations; where no weights are loaded, none that compares or rates rows."""
    if not prompt.demonstrates:
        return None
    if not isinstance(session, Session):
        return Demonstrator(prompt, rows, labels, seed)
    scorer = PromptScorer(session, seed)
    return scorer.demonstrator(prompt, rows, labels)


def _encoded(session: Reading, rows: Sequence[Mapping[str, str]], name: str) -> tuple[TokenRows, list[str]]:
    bound = _of(session).labels
    shown = None if bound.demonstrator is None else bound.demonstrator.shown(rows)
    tokens, said = list[TokenRows](), dict[str, None]()
    for reader in bound.readers:
        found, cuts = reader.encode(rows, shown)
        tokens.append(found)
        said |= dict.fromkeys(cuts.told(name, reader.limit))
    return tokens[0] if len(tokens) == 1 else VariedRows(tokens), list(said)


def _written(split: Split, session: Reading, warnings: list[str]) -> Split:
    """Write a split's rows as prompts."""
    tokens, said = _encoded(session, list(split.examples.rows(split.index)), split.name)
    warnings += said
    facts = replace(
        split.audit,
        tokens=length_facts(tokens.full_lengths),
        truncated=tokens.truncated,
        max_tokens=_of(session).labels.reader.limit,
    )
    return replace(split, tokens=tokens, audit=facts, kept_in=None)


def _unseen(labels: Sequence[str], given: Sequence[str], task: Any) -> list[str]:
    """Refuse labels without an example where they are needed, and remark on them else."""
    missing = [label for label, count in zip(labels, np.isin(labels, list(set(given))), strict=True) if not count]
    if not missing:
        return []
    if task.starts_from_features:
        raise DataError(
            f"the label '{missing[0]}' ({len(missing)} of {len(labels)}) has no training row, and "
            f"task.verbalizer={task.verbalizer} starts each label at its rows. Add examples, leave its words out, or "
            "choose the verbalizer words."
        )
    return [f"{len(missing)} labels of prompt.label_words have no training row: {', '.join(missing[:5])}."]
