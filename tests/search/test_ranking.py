"""Rankings and ensembles of predictions that are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core.registry import find
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, holm
from tunesmith.search.ensembles import average, diversity, kappa, vote, weighted
from tunesmith.search.ranking import Judged, rank, rows_of, sentences, write_ranking

pytestmark = pytest.mark.usefixtures("pictures")

ROWS, CLASSES = 300, 4


def member(accuracy: float, seed: int, confidence: float = 0.6) -> Predictions:
    """Predictions that are right on about a share of the rows, errors of different seeds being independent."""
    draw = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(CLASSES, size=ROWS)
    wrong = (truth + draw.integers(1, CLASSES, size=ROWS)) % CLASSES
    shown = np.where(draw.random(ROWS) < accuracy, truth, wrong)
    table = np.full((ROWS, CLASSES), (1 - confidence) / (CLASSES - 1))
    table[np.arange(ROWS), shown] = confidence
    return Predictions(table, truth)


def accuracy(found: Predictions) -> float:
    return float(found.correct.mean())


def judged(name: str = "accuracy") -> Judged:
    return Judged(find("metrics", name)(), Bootstrap(1000, 0.95, 0))


def test_ensembles_beat_their_members() -> None:
    members = [member(0.7, seed) for seed in range(5)]
    best = max(map(accuracy, members))
    for found in (vote(members), average(members), weighted(members, 0)[0]):
        assert np.allclose(found.probabilities.sum(1), 1)
        assert accuracy(found) > best + 0.1


def test_weights_find_the_one_that_knows() -> None:
    members = [member(0.3, 1), member(0.95, 2), member(0.3, 3)]
    found, weights = weighted(members, 0)
    assert weights[1] > 0.8 and weights.sum() == pytest.approx(1)
    assert accuracy(found) > accuracy(average(members)) and accuracy(found) >= accuracy(members[1]) - 0.02


def test_no_row_is_scored_with_weights_that_it_chose() -> None:
    """A row's own truth never changes its own prediction."""
    members = [member(0.5, 1), member(0.6, 2)]
    before, _ = weighted(members, 0)
    changed = [Predictions(one.probabilities, one.references.copy()) for one in members]
    row = int(np.flatnonzero(members[0].correct & ~members[1].correct)[0])
    for one in changed:
        one.references[row] = members[1].predicted[row]
    after, _ = weighted(changed, 0)
    assert np.array_equal(before.probabilities[row], after.probabilities[row])
    assert not np.array_equal(before.probabilities, after.probabilities)


def test_votes_are_counted_before_means() -> None:
    truth = np.array([0])
    shown = [Predictions(np.array([row]), truth) for row in ([0.51, 0.49], [0.51, 0.49], [0.0, 1.0])]
    assert vote(shown).predicted[0] == 0 and average(shown).predicted[0] == 1
    tied = [Predictions(np.array([row]), truth) for row in ([0.9, 0.1], [0.4, 0.6])]
    assert vote(tied).predicted[0] == 0


def test_diversity() -> None:
    one = member(0.7, 1)
    same, other = diversity([one, one]), diversity([one, member(0.7, 2)])
    assert same["disagreement"] == 0 and same["kappa"] == 1 and same["oracle"] == pytest.approx(accuracy(one))
    assert other["disagreement"] > 0.3 and 0.2 < other["kappa"] < 0.8
    assert other["oracle"] + other["all_wrong"] == pytest.approx(1)
    constant = np.zeros(5, int)
    assert kappa(constant, constant) == 1 and kappa(constant, np.array([0, 0, 1, 1, 1])) == 0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_ranking(tmp_path: Path) -> None:
    found = {"plain": member(0.5, 1), "good": member(0.8, 2), "like plain": member(0.52, 3)}
    ranking = rank(found, judged(), {"good": "7 tokens"}, ["few rows"])
    lines = {line.name: line for line in ranking.lines}
    assert [line.name for line in ranking.lines if not line.ensemble] == ["good", "plain", "like plain"]
    assert lines["good"].to_best is None and lines["plain"].to_first is None
    gain = lines["good"].to_first
    assert gain is not None and gain.estimate.low > 0.15 and gain.p_value < 0.02
    alike = lines["like plain"].to_first
    assert alike is not None and alike.estimate.low < 0 < alike.estimate.high and alike.p_value > 0.2
    write_ranking(ranking, tmp_path)
    plain = json.loads((tmp_path / "ranking.json").read_text())
    assert plain["rows"] == ROWS and plain["warnings"] == ["few rows"] and len(plain["prompts"]) == 6
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page and "like plain" in page and "http" not in page.replace("http://www.w3.org", "")
    assert "kappa" in (tmp_path / "ranking.md").read_text()


def test_lower_is_better_where_the_metric_says_so() -> None:
    found = {"shy": member(0.9, 1, 0.3), "sure": member(0.9, 1, 0.8)}
    ranking = rank(found, judged("log-loss"), {})
    assert next(line.name for line in ranking.lines if not line.ensemble) == "sure"
    assert rows_of(ranking)[0][1].startswith("0.")
    single = rank({"sure": found["sure"]}, judged(), {})
    assert len(rank(found, judged(), {}, ensembles=False).lines) == 2
    assert len(single.lines) == 1 and not single.diversity and len(sentences(single)) == 1
