"""Searching prompts with score functions that are known in closed form."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import components, find
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.budget import Budget
from tunesmith.search.phrases import bare, cut, joined
from tunesmith.search.problem import BudgetSpent
from tunesmith.search.prompts import Choosing, PromptProblem
from tunesmith.search.sources import Glossary, Sources
from tunesmith.search.study import Study

LABELS = ["greeting", "parting", "thanks"]
WORDS = {"greeting": "hello", "parting": "goodbye", "thanks": "thanks"}
ROWS = [{"text": f"{WORDS[label]} number {n}"} for n in range(20) for label in LABELS]
TRUTH = np.array([LABELS.index(label) for _ in range(20) for label in LABELS])
START = Prompt(template="Please read. Text: {text} Answer {label}.")


def hearing(prompt: Prompt, rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> np.ndarray[Any, Any]:
    """A model that knows a label where one of its words stands in the row, surer the shorter the template is."""
    heard = np.array([[any(word in row["text"] for word in prompt.words(label)) for label in labels] for row in rows])
    table = np.where(heard, 4.0, 0.0) - len(prompt.template) / 1000
    return table - np.log(np.exp(table).sum(1, keepdims=True))


def sources(**more: Any) -> Sources:
    return Sources(LABELS, ROWS, TRUTH, hearing, **more)


def problem(folder: Path, budget: float = 60, resume: bool = False, names: Sequence[str] = ()) -> PromptProblem:
    edits = [find("edits", name)() for name in names or components("edits")]
    choosing = Choosing(ROWS[:30], TRUTH[:30], find("metrics", "accuracy")())
    return PromptProblem(START, choosing, sources(), edits, Budget(budget), Study(folder, {"seed": 0}, resume))


def run(found: PromptProblem, strategy: str = "greedy", seed: int = 0, **settings: Any) -> PromptProblem:
    with contextlib.suppress(BudgetSpent):
        find("strategies", strategy)(**settings).search(found, np.random.default_rng(seed))
    return found


@pytest.mark.parametrize("strategy", ["greedy", "beam", "evolutionary", "halving"])
def test_finds_the_words_that_are_heard(tmp_path: Path, strategy: str) -> None:
    found = run(problem(tmp_path / "study", 160), strategy, patience=15)
    (score, prompt), start = found.best(), found.score(START)
    assert score.value == 1.0 and start.value < 0.7 and score.loss < start.loss - 0.2
    assert "goodbye" in prompt.words("parting")
    assert found.budget.spent <= 160


def test_killed_and_resumed_gives_the_same(tmp_path: Path) -> None:
    whole = run(problem(tmp_path / "whole"), "beam")
    half = problem(tmp_path / "half", 60)
    add = half.study.add

    def dies(tried: Any) -> None:
        if len(half.study) == 17:
            raise KeyboardInterrupt
        add(tried)

    half.study.add = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(half, "beam")
    again = run(problem(tmp_path / "half", 60, resume=True), "beam")
    assert again.best() == whole.best() and list(again.seen) == list(whole.seen)
    lines = [[json.loads(line) for line in (tmp_path / name / "tried.jsonl").read_text().splitlines()]
             for name in ("whole", "half")]  # fmt: skip
    for one in (*lines[0], *lines[1]):
        one.pop("seconds")
    assert lines[0] == lines[1]


def test_a_prompt_that_cannot_be_used_is_kept_with_its_reason(tmp_path: Path) -> None:
    found = problem(tmp_path / "study")

    def fussy(prompt: Prompt, rows: Any, labels: Any) -> Any:
        if "very long" in prompt.template:
            raise RecipeError("more tokens than the model reads")
        return hearing(prompt, rows, labels)

    found._score = fussy
    bad = Prompt(template="very long {text}")
    assert found.score(bad).value == float("-inf")
    tried = found.study.find(found.identity(bad), 30)
    assert tried is not None and "more tokens" in tried.refused
    found.start = bad.model_copy(update={"description": "x"})
    with pytest.raises(RecipeError, match="more tokens"):  # the user's own prompt is the user's mistake
        found.score(found.start)


def test_a_metric_without_a_value_on_the_rows_that_choose_is_named(tmp_path: Path) -> None:
    alike = TRUTH == 0
    rows = [row for row, one in zip(ROWS, alike, strict=True) if one]
    choosing = Choosing(rows, TRUTH[alike], find("metrics", "roc-auc")())
    edits = [find("edits", "phrases")()]
    found = PromptProblem(START, choosing, sources(), edits, Budget(5), Study(tmp_path / "study", {}, False))
    with pytest.raises(DataError, match="roc-auc has no value on 20 of the rows that choose"):
        found.score(START)


def proposals(name: str, prompt: Prompt = START, count: int = 60, **more: Any) -> list[Prompt]:
    edit, draw, known = find("edits", name)(), np.random.default_rng(0), sources(**more)
    assert edit.able(known)
    found = []
    for _ in range(count):
        with contextlib.suppress(RecipeError, ValueError):
            found.append(edit.propose(prompt, known, draw))
    return [one for one in found if one is not None]


@pytest.mark.parametrize("template", [
    "Read this. Review: {text} It was {label}.", "{text}", "{{x}} Q: {text}\nA: {label}",
    "a, b; {text}. c!\n\nd {label}",
])  # fmt: skip
def test_phrases_put_together_are_the_template(template: str) -> None:
    assert "".join(phrase.text for phrase in cut(template)) == template
    assert joined(cut(template)) == template


@pytest.mark.parametrize("name", ["phrases", "wordings", "knowledge"])
def test_the_row_and_the_answer_keep_their_places(name: str) -> None:
    found = proposals(name, glossary=Glossary({}, {"parting": "someone leaves"}))
    assert len({one.template + str(one.label_words) for one in found}) > 5
    for prompt in found:
        assert prompt.template.count("{text}") == 1 and prompt.template.count("{label}") == 1
        prompt.check(["text"])
        assert "  " not in prompt.template


def test_label_words_come_from_the_rows() -> None:
    found = proposals("label-words", count=100)
    words = {word for prompt in found for word in prompt.words("greeting")}
    assert "hello" in words and all(set(prompt.label_words) == set(LABELS) for prompt in found)
    edit, known = find("edits", "label-words")(), sources()
    ranked = edit._ranked(START, known)
    assert ranked["greeting"][0] == "hello" and ranked["parting"][0] == "goodbye" and ranked["thanks"][0] == "thanks"


def test_demonstrations_are_training_rows() -> None:
    prompt, draw, known, edit = START, np.random.default_rng(0), sources(), find("edits", "demonstrations")()
    counts = set()
    for _ in range(60):
        prompt = edit.propose(prompt, known, draw) or prompt
        shown = prompt.demonstrations.examples
        counts.add(len(shown))
        assert all(ROWS[[row["text"] for row in ROWS].index(one["text"])] for one in shown)
        assert all(one["label"] == LABELS[TRUTH[[row["text"] for row in ROWS].index(one["text"])]] for one in shown)
    assert counts >= {0, 1, 2, 3, 4} and max(counts) == 4


def test_a_prompt_that_shows_nothing_any_more_keeps_no_settings_of_it() -> None:
    """They would be refused where the prompt is used."""
    edit, draw = find("edits", "demonstrations")(), np.random.default_rng(0)
    own = {"examples": [{"text": ROWS[0]["text"], "label": LABELS[TRUTH[0]]}], "strategy": "nearest", "separator": ";"}
    found = (edit.propose(START.changed(demonstrations=own), sources(), draw) for _ in range(60))
    shown = [prompt.demonstrations for prompt in found if prompt is not None]
    assert {one.separator for one in shown if one.examples} == {";"}
    assert next(one for one in shown if not one.examples) == type(shown[0])()


def test_knowledge_reads_names_descriptions_and_the_glossary() -> None:
    glossary = Glossary({"parting": ["farewell"]}, {"greeting": "Someone says welcome.", "shop": "a place"})
    found = proposals("knowledge", count=200, glossary=glossary)
    words = {label: {word for prompt in found for word in prompt.words(label)} for label in LABELS}
    assert "farewell" in words["parting"] and {"welcome", "someone"} <= words["greeting"]
    assert any("shop: a place" in prompt.background for prompt in found)
    assert any("{labels}" in prompt.template for prompt in found)


def test_paraphrases_need_a_writer() -> None:
    assert not find("edits", "paraphrases")().able(sources())

    def write(request: str, count: int, seed: int) -> list[str]:
        assert "Say in other words: " in request
        return [f"kindly {{look}} {seed % 3}\nand more"] * count

    found = proposals("paraphrases", write=write)
    assert any("kindly {{look}}" in prompt.template for prompt in found)
    assert all("and more" not in prompt.template for prompt in found)
    assert proposals("paraphrases", write=lambda *_: ["  "]) == []


def test_trigger_words_take_what_the_gradient_prefers() -> None:
    asked = []

    def substitutes(prompt: Prompt, other: Prompt, rows: Any, truth: Any, best: int) -> list[str]:
        first, second = prompt.template.split(), other.template.split()
        asked.append(sum(a != b for a, b in zip(first, second, strict=True)))
        return ["wonder", "awe"][:best]

    found = proposals("trigger-words", vocabulary=["text", "answer", "read", "please"], substitutes=substitutes)
    assert set(asked) == {1}  # the two prompts that are compared differ in one word
    assert all("wonder" in prompt.template or "awe" in prompt.template for prompt in found) and len(found) > 30
    assert not find("edits", "trigger-words")().able(sources())


def test_no_edit_that_can_propose(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="search.writer=RUN"):
        problem(tmp_path / "study", names=["paraphrases"])


def test_glossaries(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("card: A piece of plastic.\nparting: [bye, farewell]\n")
    found = Glossary.read(path)
    assert found.meanings == {"card": "A piece of plastic."} and found.words == {"parting": ["bye", "farewell"]}
    path.write_text("card: 3\n")
    with pytest.raises(RecipeError, match="'card' is 3"):
        Glossary.read(path)
    path.write_text("")
    with pytest.raises(RecipeError, match="a glossary is a mapping of keys to values"):
        Glossary.read(path)
    with pytest.raises(RecipeError, match=r"search\.glossary: .*none\.yaml cannot be read: No such file"):
        Glossary.read(tmp_path / "none.yaml")


def test_a_sample_has_every_label() -> None:
    known = sources()
    known.truth = np.array([0] * 50 + [1] * 8 + [2] * 2)
    assert np.bincount(known.truth[known.sample(9)]).tolist() == [4, 3, 2]
    assert len(known.sample(1000)) == 60


def test_a_soft_prompt_starts_from_all_that_no_row_fills() -> None:
    prompt = Prompt(
        template="{text} ({row.labels}): one of {labels}. It was {label}.",
        label_words={"up": ["good"], "down": ["bad"]},
        description="Judge films.",
    )
    assert bare(prompt, ["up", "down"]) == "Judge films. ( ): one of good, bad. It was ."
