"""A closed loop that searches prompts: on training rows alone, for confused labels first, the same after a kill."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.prompting import PromptScorer
from tunesmith.search.attempts import Attempt, Record, Round
from tunesmith.search.budget import Budget
from tunesmith.search.changes import words_of
from tunesmith.search.designing import changed
from tunesmith.search.designs import Design
from tunesmith.search.loop import ClosedLoop
from tunesmith.search.loop_wanted import LoopSettings, facts_of, read_loop
from tunesmith.search.opening import open_prompts
from tunesmith.search.prompts import PromptProblem
from tunesmith.search.sources import Sources
from tunesmith.search.study import Study

Recipe = dict[str, Any]
SETTINGS: dict[str, Any] = {"trials": 7, "width": 3, "prompt_share": 0.3, "members": 1}


@pytest.fixture(scope="module")
def asked(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("designed")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcdef"]
    write_csv(folder / "train.csv", train)
    write_csv(folder / "test.csv", [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts])
    return {
        "task": "prompt-classification",
        "model": str(masked),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "validation": 0.25},
        "prompt": {
            "template": "{text} so {label}",
            "label_words": {"greeting": "you", "parting": "friend", "thanks": "now"},
        },
        "method": {"name": "lora", "rank": 2},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4},
        "evaluation": {"resamples": 100, "baselines": False},
    }


@dataclass
class Looped:
    """A loop's folder and result, every text that a prompt was scored on or showed, and its one search."""

    folder: Path
    result: dict[str, Any]
    read: set[str]
    problem: PromptProblem


@pytest.fixture(scope="module")
def found(asked: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Looped:
    folder, read, problems = tmp_path_factory.mktemp("found") / "loop", set[str](), list[PromptProblem]()
    score, begin = PromptScorer.log_probabilities, PromptProblem.__init__

    def listening(
        self: PromptScorer, prompt: Prompt, rows: Sequence[Mapping[str, str]], labels: Sequence[str], shown: Any = ()
    ) -> Any:
        read.update(row["text"] for row in [*rows, *prompt.demonstrations.examples, *(row for row, _ in shown)])
        return score(self, prompt, rows, labels, shown)

    def keeping(self: PromptProblem, *given: Any) -> None:
        problems.append(self)
        begin(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptScorer, "log_probabilities", listening)
        patch.setattr(PromptProblem, "__init__", keeping)
        result = tunesmith.loop({**asked, "output": str(folder)}, **SETTINGS)
    (problem,) = problems
    return Looped(folder, result, read, problem)


def rounds(folder: Path) -> list[Round]:
    return [Round.of(json.loads(line)) for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]


def attempts(folder: Path) -> list[Attempt]:
    return [one for ended in rounds(folder) for one in ended.attempts]


def designs(folder: Path) -> list[Design]:
    return [Design.of(json.loads(line)) for line in (folder / "designs.jsonl").read_text(encoding="utf-8").splitlines()]


def told(folder: Path) -> list[Any]:
    """What must not depend on time."""
    tried = [json.loads(line) for line in (folder / "prompts/00/tried.jsonl").read_text().splitlines()]
    return [
        [replace(one, outcome=replace(one.outcome, seconds=0.0)) for one in attempts(folder)],
        [replace(one, seconds=0.0) for one in designs(folder)],
        [{**one, "seconds": 0.0} for one in tried],
    ]


def test_a_found_prompt_is_trained_and_tested_like_any_other_change(found: Looped, asked: Recipe) -> None:
    (design,) = designs(found.folder)
    (one,) = [one for one in attempts(found.folder) if one.by == "prompt-search"]
    assert not design.refused and design.before == 2 and design.tried > 3 and design.found > design.start
    assert one.values == design.values and one.test is not None and one.test.against == 0
    assert design.scores() in one.change.why
    run = tunesmith.train(asked, [*words_of(one.values), f"output={found.folder.parent / 'alone'}"])
    assert run.metrics["validation"]["accuracy"] == one.outcome.scores["accuracy"]
    assert run.metrics["validation"]["log-loss"] == one.outcome.scores["log-loss"]


def test_what_was_searched_stands_in_result_and_report(found: Looped) -> None:
    (design,) = designs(found.folder)
    assert found.result["designs"] == [{**design.plain(), "said": design.said()}]
    for name in ("loop.md", "report.html"):
        page = (found.folder / name).read_text(encoding="utf-8")
        assert design.said()[1:] in page and "Searches of a prompt" in page and "in prompts/00" in page


def test_a_search_is_paid_from_the_budget(found: Looped) -> None:
    (design,), ended = designs(found.folder), rounds(found.folder)
    assert 1 < design.trials <= SETTINGS["prompt_share"] * SETTINGS["trials"]
    assert found.result["attempts"]["all"] == int(SETTINGS["trials"] - design.trials) == 5
    assert ended[2].ended >= ended[1].ended + design.seconds > ended[1].ended


def test_validation_and_test_are_not_read_and_rows_that_propose_do_not_choose(found: Looped, asked: Recipe) -> None:
    opened = open_prompts(asked, [])
    train, validation = ({row["text"] for row in table.rows} for table in (opened.train, opened.validation))
    choosing, proposing = (
        {row["text"] for row in rows} for rows in (found.problem.choosing.rows, found.problem.sources.rows)
    )
    assert len(choosing) == len(proposing) == 27 and not choosing & proposing
    assert found.read == choosing | proposing == train and not found.read & validation


def test_the_search_aims_at_what_the_best_attempt_confuses_most(found: Looped) -> None:
    errors = attempts(found.folder)[0].errors
    assert errors is not None
    pairs = [label for pair in errors.confused[:3] for label in (pair.true, pair.predicted)]
    assert list(found.problem.sources.aimed) == designs(found.folder)[0].aimed == list(dict.fromkeys(pairs))


def killed(recipe: Recipe, patch: pytest.MonkeyPatch, what: Any, name: str, when: Callable[[Any, Any], bool]) -> None:
    """Run a loop that is killed by the call of a method."""
    whole = getattr(what, name)

    def dies(self: Any, given: Any) -> None:
        if when(self, given):
            raise KeyboardInterrupt
        whole(self, given)

    with patch.context() as inner, pytest.raises(KeyboardInterrupt):
        inner.setattr(what, name, dies)
        tunesmith.loop(recipe, **SETTINGS)


def test_a_loop_that_was_killed_in_a_search_ends_as_one_that_was_not(
    found: Looped, asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "loop"
    recipe = {**asked, "output": str(folder)}
    killed(recipe, monkeypatch, Study, "add", lambda study, _: len(study) == 5)
    assert not (folder / "designs.jsonl").exists() and len(rounds(folder)) == 2
    tunesmith.loop(recipe, **SETTINGS, resume=True)
    assert told(folder) == told(found.folder)


def test_a_search_that_ended_before_a_kill_is_not_made_again_and_its_time_counts(
    found: Looped, asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "loop"
    recipe = {**asked, "output": str(folder)}
    killed(recipe, monkeypatch, Record, "add", lambda _, ended: ended.number == 2)
    (design,) = designs(folder)
    (folder / "designs.jsonl").write_text(json.dumps(replace(design, seconds=1000.0).plain()) + "\n", encoding="utf-8")
    monkeypatch.setattr(Study, "add", None)  # whoever searches fails
    tunesmith.loop(recipe, **SETTINGS, resume=True)
    assert told(folder) == told(found.folder)
    assert rounds(folder)[2].ended > 1000
    settings = LoopSettings(width=3, prompt_share=0.3, members=1)
    wanted = read_loop(recipe, [], settings)
    loop = ClosedLoop(
        wanted, settings, Budget(7), Record(folder, facts_of(wanted, settings), True), Progress(lambda said: None)
    )
    loop.run()
    assert 0 < loop.pace < 100  # seconds of an epoch, the search left out


@pytest.mark.parametrize(
    ("overrides", "settings", "why"),
    [
        (["task=text-classification", "prompt={template: '{text}'}"], {}, "task: text-classification has no prompt"),
        (["task.verbalizer=prototypical"], {}, "task.verbalizer: prototypical starts each label at its training rows"),
        ([], {"prompt_share": 0.01}, "(search.prompt_share=0.01) is too short for 8 prompts"),
        (["data.validation=0.8"], {}, "train holds 14 rows; at least 16 are needed"),
    ],
)
def test_why_nothing_is_searched_is_said_once(
    asked: Recipe, tmp_path: Path, overrides: list[str], settings: dict[str, Any], why: str
) -> None:
    out = [*overrides, f"output={tmp_path / 'loop'}", "training.epochs=1"]
    result = tunesmith.loop(asked, out, **{"trials": 6, "width": 2, "members": 1, "patience": 9, **settings})
    (one,) = designs(tmp_path / "loop")
    assert why in one.refused and not one.values and result["rounds"] >= 3
    assert not (tmp_path / "loop/prompts").exists()
    assert (tmp_path / "loop/loop.md").read_text(encoding="utf-8").count("no prompt was searched") == 1


def test_a_search_has_its_share_of_the_time_as_far_as_other_things_leave_it(
    found: Looped, asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = list[float | None]()

    def only_the_start(problem: PromptProblem, *given: Any) -> None:
        allowed.append(problem.budget.seconds)
        problem.budget.begin()
        problem.score(problem.start)

    monkeypatch.setattr("tunesmith.search.designing.run_search", only_the_start)
    settings, budget = LoopSettings(prompt_share=0.25), Budget(seconds=4000)
    wanted = read_loop({**asked, "output": str(tmp_path / "loop")}, [], settings)
    record = Record(tmp_path / "loop", facts_of(wanted, settings), False)
    loop = ClosedLoop(wanted, settings, budget, record, Progress(lambda said: None))
    best, checked = attempts(found.folder)[0], wanted.load({})
    slow = replace(best, outcome=replace(best.outcome, seconds=200.0))  # 6 or 7 prompts take as long
    first = loop.designer.design(checked, best, ["thanks"], Budget(seconds=1e6))
    record.designs[0] = replace(first, seconds=400.0)
    loop.designer.design(checked, best, ["parting"], Budget(seconds=1e6))
    record.designs[1] = replace(record.designs[1], seconds=0.0)
    loop.designer.design(checked, best, ["greeting"], Budget(seconds=50.0))
    assert allowed == [1000, 600, 50]
    for attempt, seconds in ((slow, 50.0), (best, 0.0), (best, -5.0)):
        refused = loop.designer.design(checked, attempt, ["thanks", "parting"], Budget(seconds=seconds)).refused
        assert (
            refused
            == "budget: what is left of the share for prompts (search.prompt_share=0.25) is too short for 8 prompts."
        )
    assert loop.designer.design(checked, best, ["thanks"], Budget(seconds=0.0)) == record.designs[0]  # it is known
    assert len(record.designs) == 4


def test_without_a_share_nothing_is_searched(asked: Recipe, tmp_path: Path) -> None:
    result = tunesmith.loop(asked, [f"output={tmp_path / 'loop'}"], trials=5, width=3, members=1, prompt_share=0)
    assert result["designs"] == [] and not (tmp_path / "loop/designs.jsonl").exists()
    assert len(attempts(tmp_path / "loop")) == 5


def test_edits_change_the_labels_aimed_at_more_often() -> None:
    labels = ["a", "b", "c", "d"]
    rows = [{"text": f"{label} {word}"} for label in labels for word in ("red", "blue", "green")]
    sources = Sources(labels, rows, np.repeat(np.arange(4), 3), scores, aimed=["c"])
    assert sources.aimed_rows().tolist() == [6, 7, 8] and len(replace(sources, aimed=()).aimed_rows()) == 12
    start, draw = Prompt(template="{text} {label}"), np.random.default_rng(0)
    shown = find("edits", "demonstrations")()
    for aimed, least, most in ((["c"], 0.75, 0.88), ((), 0.15, 0.35)):
        drawn = [shown.propose(start, replace(sources, aimed=aimed), draw) for _ in range(300)]
        share = np.mean([one is not None and one.demonstrations.examples[0]["label"] == "c" for one in drawn])
        assert least < share < most


def test_labels_aimed_at_choose_their_words_first() -> None:
    """Of the words that all labels like alike, the best goes to the one that chooses first."""
    labels = ["a", "b", "c", "d"]
    rows = [{"text": "many words stand here for all"} for _ in range(8)]
    sources = Sources(labels, rows, np.repeat(np.arange(4), 2), scores, aimed=["c"])
    edit, draw = find("edits", "label-words")(every=1.0, best=1), np.random.default_rng(0)
    found = [edit.propose(Prompt(template="{text} {label}"), sources, draw) for _ in range(20)]
    first = sources.seen["label-words"]["c"][0]
    assert all(one is not None and one.words("c") == [first] for one in found)


def scores(prompt: Prompt, rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> Any:
    return np.zeros((len(rows), len(labels)))


def test_every_label_with_rows_has_its_words_ranked_by_some_of_them() -> None:
    """Also where there are more labels than rows that the model is asked about; a label without rows has names."""

    def hearing(prompt: Prompt, rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> Any:
        return np.array([[4.0 * (word in row["text"]) for word in labels] for row in rows])

    labels = [f"label {number}" for number in range(6)]
    rows = [{"text": f"word{'abcde'[number]} of some text"} for number in range(5)]
    sources, edit = Sources(labels, rows, np.arange(5), hearing), find("edits", "label-words")(rows=2, every=1.0)
    assert edit.propose(Prompt(template="{text} {label}"), sources, np.random.default_rng(0)) is not None
    ranked = sources.seen["label-words"]
    assert [ranked[label][0] for label in labels] == ["worda", "wordb", "wordc", "wordd", "worde", "label 0"]


@pytest.mark.parametrize(
    "values",
    [
        {"template": "It's: {{x}}\n'{text}', # no \"{label}\"", "description": "yes"},
        {"label_words": {"a": ["yes", "no: never"], "b": ["12", "{'}"]}, "background": "[1, 2]"},
        {"demonstrations": {"examples": [{"text": "null, {x}: y", "label": "a"}]}},
    ],
)
def test_a_change_of_a_prompt_makes_that_prompt_in_a_recipe(asked: Recipe, values: dict[str, Any]) -> None:
    start = Prompt.of(load_recipe(asked).recipe.prompt)
    wanted = start.changed(**values)
    words = words_of(changed(start, wanted))
    assert len(words) == len(values)
    assert Prompt.of(load_recipe(asked, words).recipe.prompt) == wanted
    assert changed(start, start) == {}


def test_a_design_without_a_better_prompt_says_so() -> None:
    design = Design(3, "hash", ["a", "b"], tried=9, choosing=40, metric="accuracy", start=0.5, found=0.5, seconds=2.2)
    assert design.said() == (
        "before round 3 9 prompts were tried in 2 s, aimed at a, b: none is better on 40 training rows held aside"
    )
    assert Design.of(json.loads(json.dumps(design.plain()))) == design
