"""Every head against its formula written out row by row, in float64, with gradients; every head in a run."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.tasks.heads.base import RowsHead, Start, load_head
from tunesmith.tasks.text_classification import TextClassification

ROWS, WIDTH, CLASSES, SCALE = 11, 6, 3, 7.0
Recipe = dict[str, Any]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a * a).sum().sqrt() / (b * b).sum().sqrt()


def made(written: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A head that kept rows or started from them; class 2 has one row only."""
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(ROWS, WIDTH, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 2, 0, 1, 0, 1, 1, 0])
    texts = torch.randn(CLASSES, WIDTH, generator=draw, dtype=torch.float64)
    head = build_named("heads", written)
    module = head.build(WIDTH, CLASSES, SCALE, 0.0).double()
    head.start(module, Start(features, labels, texts, texts), SCALE)
    return module, features, labels


@pytest.mark.parametrize("name", ["cosine", "proxies-and-matching"])
def test_a_loaded_head_answers_as_the_saved_one(name: str) -> None:
    module, features, _ = made(name)
    fresh = build_named("heads", name).build(WIDTH, CLASSES, SCALE, 0.0)
    assert load_head(fresh, module.state_dict())
    assert torch.equal(fresh.eval()(features), module.eval()(features))


def prototype(x: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    return SCALE * cosine(x, sum(row / row.norm() for row in rows))  # type: ignore[arg-type]


def euclidean(x: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    return -(x - sum(rows) / len(rows)).square().sum()


def matching(x: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(SCALE * cosine(x, row)).exp() for row in rows]).sum().log()


FORMULAS = {
    "prototypes": ("prototypes", prototype),
    "euclidean": ({"name": "prototypes", "distance": "euclidean"}, euclidean),
    "matching": ("matching", matching),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("training", [False, True])
def test_heads_that_keep_rows_equal_their_formula(name: str, training: bool) -> None:
    written, formula = FORMULAS[name]
    module, kept, labels = made(written)
    index = torch.tensor([4, 0, 1, 5])  # the only row of class 2 among them
    x = torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ours = module.learn(x, index) if training else module(x)
    live = {int(row): x[place] for place, row in enumerate(index)} if training else {}
    expected = []
    for place, own in enumerate(index.tolist()):
        line = []
        for code in range(CLASSES):
            rows = [row for row in range(ROWS) if labels[row] == code]
            alone = training and rows == [own]
            if training and own in rows and not alone:
                rows.remove(own)
            taken = [kept[row] if alone and name != "matching" else live.get(row, kept[row]) for row in rows]
            line.append(formula(x[place], taken))
        expected.append(torch.stack(line))
    assert torch.allclose(ours, torch.stack(expected), rtol=1e-10, atol=1e-12)
    weights = torch.randn(4, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (first,) = torch.autograd.grad((ours * weights).sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad((torch.stack(expected) * weights).sum(), x)
    assert torch.allclose(first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_nearest_neighbours_equal_their_formula(training: bool) -> None:
    module, kept, labels = made({"name": "nearest-neighbours", "k": 4})
    index = torch.tensor([4, 0, 1])
    x = torch.randn(3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ours = module.learn(x, index) if training else module(x)
    live = {int(row): x[place] for place, row in enumerate(index)} if training else {}
    given = x.detach()
    live = {row: own.detach() for row, own in live.items()}
    for place, own in enumerate(index.tolist()):
        others = [row for row in range(ROWS) if not training or row != own or labels[row] == 2]
        near = sorted(others, key=lambda row: -float(cosine(given[place], live.get(row, kept[row]))))[:4]
        for code in range(CLASSES):
            votes = [
                math.exp(SCALE * float(cosine(given[place], live.get(r, kept[r])))) for r in near if labels[r] == code
            ]
            expected = math.log(sum(votes) + math.exp(-SCALE))
            assert ours[place, code].item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: module.learn(x, index), [x])


def test_proxies_and_matching_equal_their_formula() -> None:
    module, kept, labels = made({"name": "proxies-and-matching", "rows_weight": 0.3, "sharpness": 11.0})
    x = torch.randn(3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    cosines = torch.stack([torch.stack([cosine(row, vector) for vector in module.weight]) for row in x])
    assert torch.allclose(module.learn(x, torch.tensor([0, 1, 2])), SCALE * cosines, rtol=1e-10)
    shares = torch.stack([torch.stack([(11.0 * cosine(row, one)).exp() for one in kept]) for row in x])
    votes = torch.stack([shares[:, labels == code].sum(1) for code in range(CLASSES)], 1)
    vectors = (SCALE * cosines).exp()
    expected = (vectors / vectors.sum(1, keepdim=True)).log() + 0.3 * (votes / votes.sum(1, keepdim=True)).log()
    assert torch.allclose(module(x), expected, rtol=1e-10)
    assert torch.autograd.gradcheck(module, [x])


def test_class_vectors_equal_their_formula() -> None:
    for written in ("cosine", "proxies"):
        module, features, labels = made(written)
        module.requires_grad_(False)
        x = torch.randn(2, WIDTH, dtype=torch.float64)
        expected = [[SCALE * cosine(row, vector) for vector in module.weight.detach()] for row in x]
        assert torch.allclose(module(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-10)
    means = [sum(f / f.norm() for f, code in zip(features, labels, strict=True) if code == c) for c in range(CLASSES)]
    head = build_named("heads", {"name": "proxies", "label_weight": 0.25})
    texts = torch.eye(CLASSES, WIDTH, dtype=torch.float64)
    head.start(module, Start(features, labels, texts), SCALE)
    mixed = torch.stack([0.75 * m / m.norm() for m in means]) + 0.25 * texts  # type: ignore[union-attr]
    assert torch.allclose(module.weight, mixed / mixed.norm(dim=1, keepdim=True), rtol=1e-12)


@pytest.mark.parametrize("name", components("heads"))
def test_every_head_trains_and_answers_alike_after_loading(recipe: Recipe, name: str) -> None:
    run = tunesmith.train({**recipe, "task": {"name": "text-classification", "head_kind": name}})
    loaded = tunesmith.Run.load(run.folder)
    scores = loaded.evaluate(recipe["data"]["test"])
    assert scores["log-loss"].value == pytest.approx(run.metrics["test"]["log-loss"]["value"], rel=1e-6)
    texts = ["hello friend", "thanks a lot for everything"]
    assert (loaded.predict_proba(texts) == tunesmith.Run.load(run.folder).predict_proba(texts)).all()
    (run.folder.parent / "train.csv").unlink()  # nothing but the run is needed
    module = tunesmith.Run.load(run.folder)._opened[1].head
    saved = load_file(run.folder / "head.safetensors")
    assert {key: value.shape for key, value in module.state_dict().items()} == {k: v.shape for k, v in saved.items()}
    assert all(torch.equal(value, saved[key]) for key, value in module.state_dict().items())
    if isinstance(module, RowsHead):
        assert len(module.labels) == run.summary["data"]["train"]["rows"]


def test_the_best_epochs_rows_are_kept(recipe: Recipe) -> None:
    run = tunesmith.train(recipe, ["task.head_kind=prototypes", "training.epochs=4", "training.learning_rate=0.05"])
    session, tuned = tunesmith.Run.load(run.folder)._opened
    from tunesmith.runs.opening import read_corpus
    from tunesmith.tasks.running import extract_features

    train = read_corpus(tunesmith.Run.load(run.folder).recipe, session).splits["train"]
    assert torch.equal(tuned.head.rows, extract_features(tuned.backbone, tuned.task, train.tokens))
    assert torch.equal(tuned.head.labels, torch.from_numpy(train.labels))


def test_what_does_not_fit_is_refused(recipe: Recipe) -> None:
    for task, message in (
        ({"head_kind": "cosin"}, "unknown head 'cosin'; did you mean 'cosine'"),
        ({"head_kind": {"name": "nearest-neighbours", "k": 0}}, "nearest-neighbours.k: 0 is not allowed"),
        ({"head_kind": {"name": "nearest-neighbours", "kk": 2}}, "unknown key 'kk'; did you mean 'k'"),
        ({"head_kind": {"k": 2}}, "a head is its name, or a mapping"),
        ({"losses": []}, "task.losses"),
        ({"losses": ["triplett"]}, "unknown loss 'triplett'; did you mean 'triplet'"),
        ({"losses": ["triplet"]}, "no loss reads the head cosine"),
        ({"losses": ["proxy-anchor"], "head_kind": "matching"}, "class vectors, which the head matching does not have"),
    ):
        with pytest.raises(RecipeError, match=message):
            tunesmith.train({**recipe, "task": {"name": "text-classification", **task}})
    too_many = {"name": "text-classification", "head_kind": {"name": "nearest-neighbours", "k": 48}}
    with pytest.raises(DataError, match="k=48 with 48 training rows; k must be smaller"):
        tunesmith.train({**recipe, "task": too_many})
    with pytest.raises(RecipeError, match="a step is one pass"):
        tunesmith.train(recipe, ["task.head_kind=matching", "training.tokens_per_pass=64"])
    run = tunesmith.train(recipe, ["task.head_kind=matching"])
    with pytest.raises(RecipeError, match="answers from rows it keeps"):
        tunesmith.train({"data": recipe["data"], "start_from": str(run.folder), "output": str(run.folder) + "-on"})


def test_starts_from_label_texts() -> None:
    features, labels = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    texts = torch.randn(2, 4)
    unit = torch.nn.functional.normalize
    for start, expected in (("label-text", unit(texts)), ("prototypes+label-text", None)):
        task = TextClassification(head_start=start)
        head = task.head(4, 2)
        task.start(head, features, labels, texts)
        means = unit(torch.stack([unit(features[labels == c]).sum(0) for c in (0, 1)]))
        wanted = unit(means + unit(texts)) if expected is None else expected
        assert torch.allclose(head.weight, wanted, atol=1e-6)
