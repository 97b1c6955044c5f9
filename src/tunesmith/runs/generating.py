"""Carry out recipes whose model writes: likelihoods of what is to be written, and answers to some rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Array
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.data.conversations import Conversation
from tunesmith.data.tokens import LearnedRows
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.statistics import metrics_by_name
from tunesmith.evaluation.written import Written
from tunesmith.models.backbone import length_sorted
from tunesmith.models.language import LanguageModel
from tunesmith.models.loading import load_model
from tunesmith.models.placing import widest
from tunesmith.models.sequences import open_language
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Meter, Scored
from tunesmith.runs.family import Family
from tunesmith.runs.session import Reading, Session
from tunesmith.tasks.decoding import Writer
from tunesmith.tasks.generating import AnswerTask, LanguageTask
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.batching import seen_together
from tunesmith.training.corpus import Corpus, Split
from tunesmith.training.texts import load_texts, read_texts

_TOKENS, _ROWS = 2048, 64  # of one batch of an evaluation
_BEGINNING = 32  # tokens of a held-out text that the samples go on from


def writer_of(session: Session) -> Writer:
    """Make what generates text.

    Args:
        session: of a language task.
    Returns:
        The writer; it uses the delta that is active.
    """
    assert isinstance(session.backbone, LanguageModel) and session.chat is not None
    return Writer(
        session.backbone,
        session.tokenizer,
        session.chat.closing(),
        session.max_tokens,
        exact=not isinstance(session.task, AnswerTask),
    )


@torch.no_grad()
def likelihoods(
    backbone: LanguageModel, task: LanguageTask, rows: LearnedRows, advance: Callable[[int], None] | None = None
) -> Array:
    """Compute -log p of every row's learned tokens, with the delta that is active; no logits are kept.

    Args:
        backbone: the model.
        task: knows which tokens are predicted from where.
        rows: of a split.
        advance: told how many rows were done.
    Returns:
        (rows,), sums over the row's learned tokens. [nats]
    """
    training = backbone.model.training
    backbone.model.eval()
    found = np.zeros(len(rows))
    for numbers in length_sorted(rows.lengths.tolist(), _TOKENS, _ROWS):
        batch = seen_together([rows.seen(number) for number in numbers], numbers).to(backbone.device)
        nats = backbone.nats(task.read(backbone, batch), batch.targets)
        sums = torch.stack([part.to(widest(part.device)).sum() for part in nats.split(batch.items)])
        found[batch.index.cpu().numpy()] = sums.cpu().numpy()
        if advance is not None:
            advance(len(numbers))
    backbone.model.train(training)
    return found


@dataclass
class _Material:
    """What baselines may use: the untuned model's answers."""

    answer: Callable[[str], Written]


@dataclass
class Generating(Family):
    """Tasks whose rows are texts or conversations: the model's own head.

    Args:
        session: the model.
        corpus: the data.
        judge: how all is scored.
        before: what the untuned model wrote for the report.
    """

    before: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, checked: Checked, session: Reading, known: Sequence[str] = ()) -> Corpus:
        """Read texts or conversations."""
        recipe, chat = checked.recipe, session.chat
        assert chat is not None
        return load_texts(recipe.data, session.task, chat, session.max_tokens, recipe.split_seed, checked.folder)  # type: ignore[arg-type]

    @classmethod
    def read_file(cls, path: str | Path, checked: Checked, session: Session, labels: Sequence[str] = ()) -> Split:
        """Read texts or conversations."""
        assert session.chat is not None
        return read_texts(path, checked.recipe.data, session.task, session.chat, session.max_tokens)  # type: ignore[arg-type]

    def look(self, names: Sequence[str], meter: Meter, progress: Progress) -> None:
        """Let the untuned model write the samples, and say which prompts will be cut."""
        for split in dict.fromkeys(["validation", *self.judge.splits]):
            self.corpus.warnings.extend(self.crowded(split))
        with progress.stage("samples before tuning", self._task.samples, "texts") as bar:
            self.before = self._sampled(bar)

    def crowded(self, name: str) -> list[str]:
        """Say how many prompts of a split leave no room for an answer, or for less than is asked for.

        Args:
            name: of the split.
        Returns:
            Sentences.
        """
        task, split, chat = self._task, self.corpus.splits[name], self.session.chat
        if not isinstance(task, AnswerTask) or chat is None:
            return []
        found = [Conversation.of(split.text(int(row))) for row in self._answered(name)]
        writer, wanted = writer_of(self.session), task.decoding.max_new_tokens
        rooms = writer.rooms([chat.asked(one.question) for one in found], wanted)
        less, said = [room for room in rooms if 0 < room < wanted], list[str]()
        if 0 in rooms:
            said.append(
                f"{name}: {rooms.count(0)} of {len(found)} prompts to be answered leave no room in {writer.room} "
                f"tokens and lose their {task.cut} (task.cut); the answers come from what is left."
            )
        if less:
            said.append(
                f"{name}: {len(less)} of {len(found)} prompts leave less room in {writer.room} tokens than "
                f"max_new_tokens={wanted}, the longest of them {min(less)}; an answer ends where the room is full."
            )
        return said

    def samples(self, tuned: Tuned) -> list[dict[str, str]]:
        """Write the samples again."""
        tuned.backbone.seams.use(tuned.delta.name)
        after = self._sampled(None)
        return [
            {"asked": asked, "right": right, "before": before, "after": now}
            for (asked, right), before, now in zip(self._prompts(), self.before, after, strict=True)
        ]

    def _sampled(self, told: Callable[[int], None] | None) -> list[str]:
        prompts = [prompt for prompt, _ in self._prompts()]
        if not prompts:
            return []
        return self._answers(prompts, told)

    def _answers(self, prompts: Sequence[str], told: Callable[[int], None] | None) -> list[str]:
        """Answer held-out prompts; what is too long is cut as rows are for training."""
        cut = self._task.cut if isinstance(self._task, AnswerTask) else "end"
        found = writer_of(self.session).answer(prompts, self._task.decoding, advance=told, cut=cut)
        return [one.text for one in found]

    @property
    def _task(self) -> LanguageTask:
        task = self.session.task
        assert isinstance(task, LanguageTask)
        return task

    def _prompts(self) -> list[tuple[str, str]]:
        """Return beginnings and ends of a few validation rows."""
        task, split, chat = self._task, self.corpus.splits["validation"], self.session.chat
        assert chat is not None
        if task.opens == "masked":  # it fills in, and writes nothing
            return []
        if isinstance(task, AnswerTask):
            rows = [Conversation.of(split.text(int(row))) for row in self._asked("validation")[: task.samples]]
            return [(chat.asked(one.question), one.answer) for one in rows]
        places = np.linspace(0, len(split.tokens) - 1, task.samples, dtype=int)
        ids = [split.tokens[int(row)] for row in places]
        cuts = [max(1, min(_BEGINNING, len(row) // 2)) for row in ids]
        decode = self.session.tokenizer.decode
        return [(decode(row[:cut]), decode(row[cut:])) for row, cut in zip(ids, cuts, strict=True)]

    def baselines(self, names: Sequence[str], meter: Meter, progress: Progress, seed: int) -> list[Scored]:
        """Ask the untuned model."""
        results = []
        for name in names:
            with meter.stage() as cost, progress.stage(f"baseline {name}", self._work(), "rows") as bar:
                material = _Material(lambda split, told=bar: self._written(self.corpus.splits[split], told))  # type: ignore[misc]
                found = find("baselines", name)().predict(material, self.judge.splits)
            results.append(self.judge.score(Scored(name, found, 0.0, cost)))
        return results

    def _work(self) -> int:
        return sum(len(self.corpus.splits[name].tokens) + len(self._asked(name)) for name in self.judge.splits)

    def best(self, wanted: str) -> tuple[str, bool]:
        """Let the validation loss decide unless told otherwise."""
        return super().best("validation loss" if wanted == "auto" else wanted)

    def validate(self, tuned: Tuned) -> dict[str, float]:
        """Compute the likelihood of the validation rows; nothing is generated."""
        split = self.corpus.splits["validation"]
        tuned.backbone.seams.use(tuned.delta.name)
        found = self._likely(split, None)
        sample = found.sample()
        scores = {m.name: m.compute(sample) for m in self.judge.metrics if m.reads == "likelihood"}
        return {"validation loss": found.loss, **scores}

    def answer(self, tuned: Tuned, split: Split) -> Written:
        """Compute likelihoods and generate answers."""
        tuned.backbone.seams.use(tuned.delta.name)
        return self._written(split, None)

    def recall(self, tuned: Tuned, split: Split) -> Written:
        """Compute likelihoods."""
        tuned.backbone.seams.use(tuned.delta.name)
        return self._likely(split, None)

    def recall_metrics(self) -> list[Metric]:
        """Return the run's metrics of likelihood, and nats per token."""
        own = [metric for metric in self.judge.metrics if metric.reads == "likelihood"]
        named = {metric.name: metric for metric in [*own, *metrics_by_name(["nats-per-token"])]}
        return list(named.values())

    def _likely(self, split: Split, told: Callable[[int], None] | None) -> Written:
        rows, backbone, task = split.tokens, self.session.backbone, self.session.task
        assert isinstance(rows, LearnedRows) and isinstance(backbone, LanguageModel) and isinstance(task, LanguageTask)
        return Written(likelihoods(backbone, task, rows, told), rows.targets, rows.characters)

    def _written(self, split: Split, told: Callable[[int], None] | None) -> Written:
        likely, asked, chat = self._likely(split, told), self._asked(split.name), self.session.chat
        if not len(asked) or chat is None or not self._scores_answers:
            return likely
        found = [Conversation.of(split.text(int(row))) for row in asked]
        prompts = [chat.asked(one.question) for one in found]
        answers = self._answers(prompts, told)
        right = [[one.answer, *one.references] for one in found]
        return Written(likely.nats, likely.tokens, likely.characters, asked, answers, right)

    def _asked(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the rows of a split that are answered, always the same ones."""
        task, rows = self.session.task, len(self.corpus.splits[name].tokens)
        if not isinstance(task, AnswerTask):
            return np.zeros(0, np.int64)
        draw = np.random.default_rng(derived(0, f"answered {name}"))
        return np.sort(draw.permutation(rows)[: task.answered_rows]).astype(np.int64)

    def _answered(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the rows of a split that will be answered, for a metric or as samples."""
        rows = self._asked(name)
        return rows if self._scores_answers else rows[: self._task.samples if name == "validation" else 0]

    @property
    def _scores_answers(self) -> bool:
        return any(metric.reads == "answers" for metric in self.judge.metrics)

    def on_base(self, progress: Progress) -> dict[str, Any]:
        """Compare the untuned model's likelihood of the validation rows with full precision's."""
        session, task, split = self.session, self.session.task, self.corpus.splits["validation"]
        if session.quantised is None:
            return {}
        model, rows = session.backbone.model, split.tokens
        whole = open_language(load_model(session.source, session.backbone.device, model.dtype, task.opens))  # type: ignore[arg-type]
        assert isinstance(session.backbone, LanguageModel) and isinstance(task, LanguageTask)
        assert isinstance(rows, LearnedRows)
        session.backbone.seams.use(None)
        with progress.stage("full precision", 2 * len(rows)) as bar:
            losses = [float(likelihoods(one, task, rows, bar).sum() / rows.targets.sum()) for one in
                      (session.backbone, whole)]  # fmt: skip
        bits = session.quantised.bits
        sentence = (
            f"quantised base ({bits}): untuned, it takes {losses[0]:.4f} nats per token of validation against "
            f"{losses[1]:.4f} in full precision."
        )
        return {**asdict(session.quantised), "split": "validation", "nats_per_token": losses[0],
                "full_precision_nats_per_token": losses[1], "sentence": sentence}  # fmt: skip

    def told(self) -> list[str]:
        """Say rows, learned tokens and lengths."""
        found = []
        for name, split in self.corpus.splits.items():
            facts, lengths = split.audit, split.audit.tokens
            share = facts.learned / max(1, int(split.tokens.lengths.sum()))
            found.append(
                f"{name}: {facts.rows:,} rows, {facts.learned:,} learned tokens ({100 * share:.0f} % of all), tokens "
                f"median {lengths['median']} / p95 {lengths['p95']} / longest {lengths['longest']}, "
                f"{facts.truncated} truncated, {facts.duplicates} duplicates{split.origin}"
            )
        return found
