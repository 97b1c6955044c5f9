"""Attribute tables, measurements, and three ways to classes that were never seen."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import real
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.evaluation.statistics import Bootstrap
from tunesmith.fewshot.attribute_table import make_table, read_table
from tunesmith.fewshot.attributes.base import learnable, likelihood
from tunesmith.fewshot.attributes.clusters import Clusters, found_attributes
from tunesmith.fewshot.attributes.model import Model
from tunesmith.fewshot.attributes.rules import Rules
from tunesmith.fewshot.measurements.figures import Figures
from tunesmith.fewshot.measurements.words import Words
from tunesmith.fewshot.unseen import fewest_taught, measure_unseen

CLASSES = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (1, 1, 0), "d": (0, 0, 1), "e": (1, 0, 1), "f": (0, 1, 1)}
TABLE = make_table([(name, dict(zip("xyz", row, strict=True))) for name, row in CLASSES.items()])
BOOTSTRAP = Bootstrap(resamples=100)


def rows(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rows that show their class's attributes in three numbers, with noise."""
    draw = np.random.default_rng(seed)
    names = [name for name in CLASSES for _ in range(count)]
    return np.array([CLASSES[name] for name in names]) + draw.normal(0, 0.2, (len(names), 3)), names


def parts(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rows of three parts; part p shows attribute p beside its place."""
    values, names = rows(count, seed)
    places = np.broadcast_to(5.0 * np.eye(3), (len(values), 3, 3))
    return np.concatenate([values[:, :, None] * 3, places], axis=2), names


class Numbers(Figures):
    """Three numbers, taken as they are."""

    name = "numbers"

    def names(self) -> list[str]:
        return ["x", "y", "z"]


WAYS = {
    "rules": (Rules(measurements=Numbers(), rules={name: f"{name} > 0.5" for name in "xyz"}), rows),
    "linear": (Model(), rows),
    "network": (Model(kind="network", epochs=60), rows),
    "bilinear": (Model(kind="bilinear", gamma=1.0), rows),
    "clusters": (Clusters(clusters=6, ridge=0.1), parts),
}


@pytest.mark.parametrize("name", ["rules", "linear", "bilinear"])
@pytest.mark.parametrize("count", [1, 2])
def test_few_rows_of_a_class_are_enough(name: str, count: int) -> None:
    for seed in range(6):
        way, make = WAYS[name]
        found = measure_unseen(way, TABLE, ["c", "e"], make(count, seed), make(4, 9), Bootstrap(100, seed=seed))
        assert 0 <= found.harmonic.value <= 1


@pytest.mark.parametrize("each", [1, 3])
def test_the_smallest_training_is_known_before(each: int) -> None:
    """Leaving classes out may leave too few parts where all rows have enough."""
    taught, names = parts(each, 0)
    known, count = [name for name in names if name not in "ce"], taught.shape[1]
    fewest = fewest_taught(known, BOOTSTRAP.seed)
    assert 0 < fewest < len(known)
    way = Clusters(clusters=fewest * count)
    way.check_rows(fewest, count)
    measure_unseen(way, TABLE, ["c", "e"], (taught, names), parts(4, 1), BOOTSTRAP)
    way = Clusters(clusters=fewest * count + 1)
    with pytest.raises(DataError, match="parts. Lower it"):
        way.check_rows(fewest, count)
    with pytest.raises(DataError, match="parts. Lower it"):
        measure_unseen(way, TABLE, ["c", "e"], (taught, names), parts(4, 1), BOOTSTRAP)


@pytest.mark.parametrize("name", WAYS)
def test_every_way_tells_unseen_classes_apart(name: str) -> None:
    way, make = WAYS[name]
    found = measure_unseen(way, TABLE, ["c", "e"], make(40, 0), make(40, 1), BOOTSTRAP)
    assert found.chance == 0.5 and found.zero_shot.low > 0.6
    assert found.zero_shot.low <= found.zero_shot.value <= found.zero_shot.high
    assert found.harmonic.value > 0.2 and set(found.plain()) == {
        "zero_shot",
        "seen",
        "unseen",
        "harmonic",
        "chance",
        "alike",
    }
    assert found.alike == ()


@pytest.mark.parametrize("name", WAYS)
def test_no_row_of_an_unseen_class_is_learned_from(name: str) -> None:
    way, make = WAYS[name]
    (values, names), tested = make(20, 0), make(20, 1)
    spoiled = values.copy()
    spoiled[np.isin(names, ["c", "e"])] = 99.0
    first, second = (
        measure_unseen(way, TABLE, ["c", "e"], (one, names), tested, BOOTSTRAP) for one in (values, spoiled)
    )
    assert first == second


def test_likelihood_is_the_product_over_attributes() -> None:
    p, s = np.array([[0.7, 0.4, 0.9]]), np.array([[1.0, 0, 1], [0, 1, 0.5]])
    expected = np.log([0.7 * 0.6 * 0.9, 0.3 * 0.4 * np.sqrt(0.9 * 0.1)])
    assert likelihood(p, s)[0] == pytest.approx(expected, rel=1e-12)


def test_bilinear_equals_the_minimum_of_its_objective() -> None:
    """The closed form against gradients of the objective: they vanish."""
    values, names = rows(10, 0)
    codes = np.array([list(CLASSES).index(name) for name in names])
    way = Model(kind="bilinear", gamma=2.0, smoothing=0.5)
    fitted = way.fit(values, codes, TABLE.values)
    x, s, form = fitted.scale.transform(values), TABLE.values, fitted.form  # type: ignore[attr-defined]
    y = np.where(codes[:, None] == np.arange(6), 1.0, -1.0)
    gradient = x.T @ (x @ form @ s.T - y) @ s + 2.0 * form @ s.T @ s + 0.5 * x.T @ x @ form + 2.0 * 0.5 * form
    assert abs(gradient).max() < 1e-9


def test_attributes_that_seen_classes_share_cannot_be_learned() -> None:
    assert learnable(np.array([0, 1]), TABLE.values).tolist() == [True, True, False]


@pytest.mark.parametrize(("name", "alike"), [("rules", ()), ("linear", tuple("adef")), ("clusters", tuple("adef"))])
def test_unseen_classes_that_nothing_learned_tells_apart_are_named(name: str, alike: tuple[str, ...]) -> None:
    """Where b and c are seen, x alone differs among them: a and e have it, d and f do not."""
    way, make = WAYS[name]
    found = measure_unseen(way, TABLE, ["a", "d", "e", "f"], make(40, 0), make(40, 1), BOOTSTRAP)
    assert found.alike == alike


def test_found_attributes_are_nearest_parts() -> None:
    found = found_attributes(np.array([[[0.0, 0], [3, 4]]]), np.array([[3.0, 4], [3, 3], [60, 60]]), 0.5)
    assert found[0] == pytest.approx([1.0, np.exp(-1.0), 0.0])


def test_figures_measure_what_their_names_say() -> None:
    ring = np.zeros((12, 12))
    ring[2:10, 3:9] = 1
    eight, cup = ring.copy(), ring.copy()
    ring[4:8, 5:7] = 0
    eight[[4, 7], 5:7] = 0
    cup[2:8, 5:7] = 0
    figures = Figures(smallest_hole=1)
    found = [dict(zip(figures.names(), row, strict=True)) for row in figures.measure(np.stack([ring, eight, cup]))]
    assert [one["holes"] for one in found] == [1, 2, 0]
    assert found[0]["hole_area"] == pytest.approx(8 / 48) and found[1]["hole_top"] == found[1]["hole_bottom"] == 1
    assert found[2]["bay_top_top"] == pytest.approx(8 / 24) and found[2]["bay_bottom_top"] == 0
    assert found[0]["mirror_lr"] == found[0]["mirror_tb"] == 1 and found[2]["mirror_tb"] < 1
    assert found[0]["aspect"] == 6 / 8 and found[2]["bar_bottom"] == 1 and found[0]["stem"] == 1
    with pytest.raises(DataError, match="no ink"):
        figures.measure(np.zeros((1, 8, 8)))
    with pytest.raises(DataError, match="grey images"):
        figures.measure(np.zeros((2, 3, 8, 8)))


def test_words_are_counted_whole() -> None:
    found = Words(lists={"money": ("fee", "pay*"), "card": ("card",)}).measure(
        ["A FEE, fees and paying by card", "discard"]
    )
    assert found.tolist() == [[2, 1], [0, 0]]


def test_rules_that_cannot_be_read() -> None:
    with pytest.raises(RecipeError, match="'hole is big' is no comparison"):
        Rules(rules={"x": "hole is big"}).check(("x",))
    with pytest.raises(RecipeError, match="unknown measurement 'hols'; did you mean 'holes'"):
        Rules(rules={"x": "hols > 1"}).check(("x",))
    with pytest.raises(RecipeError, match="the attribute 'y' has no rule"):
        Rules(rules={"x": "holes > 1"}).check(("x", "y"))
    with pytest.raises(RecipeError, match="unknown attribute 'z'"):
        Rules(rules={"x": "holes > 1", "z": "holes > 1"}).check(("x",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,x\na,1\nb,one\n", "class 'b', attribute 'x': 'one' is no number"),
        ("class,x\na,1\nb,\n", "attribute 'x': '' is no number"),
        ("class,x,y\na,1,0\nb,1,1\n", "the attribute 'x' is the same for all classes"),
        ("class,x\na,1\na,0\n", "the class 'a' has two rows"),
        ("name,x\na,1\n", "no column 'class'"),
        ("class,x\n", "is empty"),
        ("class,x,x\na,1,0\nb,0,1\n", "the column 'x' stands twice in the header"),
        ("class,x,y\na,1\nb,0,1\n", "line 2: 2 cells, but the header names 3 columns"),
        ("class,x,y\na,1,0\nb,0,1,1\n", "line 3: 4 cells, but the header names 3 columns"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "table.csv")


def test_a_table_in_yaml_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("a: {x: 1, y: 0.5}\nb: {x: 0, y: 1}\n")
    (tmp_path / "table.csv").write_text("class,x,y\na,1,0.5\nb,0,1\n")
    first, second = read_table(tmp_path / "table.yaml"), read_table(tmp_path / "table.csv")
    assert first.classes == second.classes and first.attributes == second.attributes
    assert np.array_equal(first.values, second.values) and not first.binary and TABLE.binary
    (tmp_path / "bad.yaml").write_text("a: {x: 1}\nb: {y: 1}\n")
    with pytest.raises(DataError, match="not every class has a value of 'x'"):
        read_table(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("a: {x: 1}\nb: {x: 0}\na: {x: 0}\n")
    with pytest.raises(DataError, match=r"bad\.yaml, line 3: 'a' stands twice"):
        read_table(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("- a\n")
    with pytest.raises(DataError, match="an attribute table is a mapping"):
        read_table(tmp_path / "bad.yaml")
    with pytest.raises(DataError, match="there is no attribute table"):
        read_table(tmp_path / "none.csv")


def test_tables_that_do_not_fit_the_classes() -> None:
    with pytest.raises(DataError, match="the data has the class 'aa', which the table lacks.*Did you mean 'a'"):
        TABLE.check(["aa", "b", "c", "d", "e"], ["f"])
    with pytest.raises(DataError, match="the table has the class 'f', which the data lacks"):
        TABLE.check(["a", "b", "c", "d"], ["e"])
    with pytest.raises(DataError, match="'a' is given as seen and as unseen"):
        TABLE.check(list("abcdef"), ["a"])
    with pytest.raises(DataError, match="at least two seen"):
        TABLE.check(["a"], ["b"])
    same = make_table(
        [("a", {"x": 1, "y": 0}), ("b", {"x": 0, "y": 0}), ("c", {"x": 0, "y": 1}), ("d", {"x": 0, "y": 1})]
    )
    with pytest.raises(DataError, match="the classes 'c' and 'd' have the same value in every attribute"):
        same.check(["a", "b"], ["c", "d"])
    same.check(["a", "c", "d"], ["b"])  # seen classes may be alike: rows tell them apart


def test_all_ways_find_themselves() -> None:
    assert set(components("attributes")) == {"clusters", "model", "rules"}
    assert set(components("measurements")) == {"figures", "words"}


@pytest.mark.real
def test_rules_on_digits_nobody_showed() -> None:
    import yaml

    folder = Path(__file__).parents[2] / "benchmarks" / "tables"
    table = read_table(folder / "digits.csv")
    way = Rules(rules=yaml.safe_load((folder / "digits_rules.yaml").read_text()))
    way.check(table.attributes)
    data = np.load(real("TUNESMITH_DATA") / "mnist" / "mnist.npz")
    parts = {}
    for part, count in (("train", 400), ("test", 300)):
        names = [str(digit) for digit in data[f"y_{part}"][:count]]
        parts[part] = way.measurements.measure(data[f"x_{part}"][:count]), names
    found = measure_unseen(way, table, ["6", "7", "8"], parts["train"], parts["test"], BOOTSTRAP)
    assert found.zero_shot.low > 0.7 > found.chance
