"""Steps of labelled and unlabelled rows against the same losses computed row by row, in float64."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.core.seeds import seed_everything
from tunesmith.data.tokens import TokenRows
from tunesmith.fewshot.dual_learning.dual_augmentation import DualAugmentation
from tunesmith.fewshot.dual_learning.dual_classifier import DualClassifier, classes_of
from tunesmith.fewshot.dual_learning.dual_network import DualNetwork
from tunesmith.fewshot.pseudo_labels import choose
from tunesmith.fewshot.schemes import Given, SchemeTrial, risen
from tunesmith.fewshot.semi_supervised.consistency import Consistency
from tunesmith.fewshot.semi_supervised.self_training import SelfTraining
from tunesmith.fewshot.views import HalvedRows, ThinnedRows
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.layout import ragged
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Split, Unlabelled
from tunesmith.training.loop import Loop

NAMES = ("a", "b", "c")


def rows_of(count: int, seed: int) -> TokenRows:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(4, 12, count)
    ids = draw.integers(5, 90, lengths.sum()).astype(np.int32)
    return TokenRows(ids, np.concatenate([[0], np.cumsum(lengths)]), lengths)


def split_of(count: int, seed: int, labelled: bool) -> Split:
    rows = rows_of(count, seed)
    places: Any = SimpleNamespace(where=[f"line {n}" for n in range(count)], path="rows")
    labels = np.array([int(rows[n][0]) % 3 for n in range(count)]) if labelled else np.full(count, -1)
    audit: Any = None
    return Split("train" if labelled else "unlabelled", places, np.arange(count), labels, rows, audit)


def backbone(dropout: float = 0.0) -> Backbone:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return Backbone(transformers.BertModel(config).double().eval())


def trial(scheme: Any, dropout: float = 0.0, unlabelled: bool = True, **settings: Any) -> SchemeTrial:
    core = backbone(dropout)
    task = TextClassification(head_start="random", head_dropout=0.0, head_scale=3.0).prepare(core.model, {})
    seed_everything(1)
    delta = Lora(rank=2).attach(core.seams, "default")
    for name, parameter in delta.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.1)
    tuned = Tuned(core, task, task.head(16, 3).double(), delta)
    found = split_of(20, 1, labelled=False)
    others = Unlabelled(found, 20, {}, np.arange(20) % 3) if unlabelled else None
    facts = {
        "tuned": tuned, "split": split_of(12, 0, labelled=True), "seed": 3, "method": Lora(rank=2),
        "settings": TrainingSettings(**{"epochs": 2, "batch_size": 4, "warmup_fraction": 0, **settings}),
        "validate": lambda: {"validation loss": 1.0}, "best": ("last", False),
    }  # fmt: skip
    return scheme.trial(Given(NAMES, None, others), facts)  # type: ignore[arg-type]


def logits(made: Any, ids: Any, tuned: Tuned | None = None) -> Tensor:
    """One row alone."""
    tuned = tuned or made.tuned
    tuned.backbone.seams.use(tuned.delta.name)
    batch = ragged([torch.as_tensor(ids)])
    return tuned.head(tuned.task.read(tuned.backbone, batch))[0]


def gradients(loss: Tensor, made: Any) -> list[Tensor]:
    found = torch.autograd.grad(loss, made.optimizer.parameters, allow_unused=True)
    return [torch.zeros(()) if one is None else one for one in found]


def assert_alike(made: Any, numbers: list[int], slow: Tensor, limit: int | None) -> None:
    """The step as the loop makes it, in one pass or in several, against the slow loss."""
    passes = [numbers]
    if limit is not None:
        made.most_tokens = limit
        passes = made.passes(numbers)
        assert len(passes) > 2
    loop = Loop([made])
    total: Any = sum(loop.losses([(made, part)])[0] * (len(part) / len(numbers)) for part in passes)
    assert total.item() == pytest.approx(slow.item(), rel=1e-10)
    wanted = gradients(slow, made)
    for one, other in zip(gradients(total, made), wanted, strict=True):
        assert (one - other).abs().max() <= 1e-10 * other.abs().max().clamp_min(1e-6)


def entropy(answer: Tensor, target: Tensor) -> Tensor:
    return -(target * answer.log_softmax(-1)).sum()


def kl(first: Tensor, second: Tensor) -> Tensor:
    p = first.softmax(-1)
    return (p * (p.log() - second.softmax(-1).log())).sum()


@pytest.mark.parametrize("limit", [None, 40])
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_consistency_equals_the_paper_row_by_row(targets: str, limit: int | None) -> None:
    made: Any = trial(Consistency(targets=targets, threshold=0.5, ratio=2, weight=0.7, ramp_fraction=0.0))
    numbers = made.take()
    own, others = [n for n in numbers if n < 12], [n - 12 for n in numbers if n >= 12]
    assert len(others) == 2 * len(own) == 8
    with torch.no_grad():
        sureness = sorted(float(logits(made, made.beside.views[0].tokens[row]).softmax(-1).max()) for row in others)
    threshold = (sureness[3] + sureness[4]) / 2  # half of the rows are sure enough
    made.how = made.how.model_copy(update={"threshold": threshold})
    taught = torch.stack(
        [entropy(logits(made, made.split.tokens[n]), torch.eye(3).double()[made.split.labels[n]]) for n in own]
    ).mean()
    losses, sure = [], 0
    for row in others:
        weak = logits(made, made.beside.views[0].tokens[row]).detach()
        strong = logits(made, made.beside.views[1].tokens.seen(row, made.draw).ids)
        target = torch.eye(3).double()[weak.argmax()] if targets == "hard" else (weak / 0.5).softmax(-1)
        held = weak.softmax(-1).max() >= threshold
        sure += int(held)
        losses.append(entropy(strong, target) * held)
    assert sure == 4
    assert_alike(made, numbers, taught + 0.7 * torch.stack(losses).mean(), limit)


@pytest.mark.parametrize("limit", [None, 40])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_self_training_weighs_every_row(labels: str, limit: int | None) -> None:
    how = SelfTraining(labels=labels, threshold=0.0, balance="none", weight=0.5, ramp_fraction=0.0)
    made: Any = trial(how, batch_size=16)
    made._begin_round(made._labelled())
    assert made.rounds[0]["accepted"] == 20 and 0 <= made.rounds[0]["right_share"] <= 1
    numbers, losses = made.take(), []
    assert any(n >= 12 for n in numbers) and any(n < 12 for n in numbers)
    for n in numbers:
        if n < 12:
            losses.append(entropy(logits(made, made.split.tokens[n]), torch.eye(3).double()[made.split.labels[n]]))
            continue
        found = torch.from_numpy(made.probabilities[n - 12])
        target = torch.eye(3).double()[found.argmax()] if labels == "hard" else found
        losses.append(0.5 * entropy(logits(made, made.beside.views[0].tokens[n - 12]), target))
    assert_alike(made, numbers, torch.stack(losses).mean(), limit)


@pytest.mark.parametrize("limit", [None, 60])
def test_dual_augmentation_equals_its_formula(limit: int | None) -> None:
    made: Any = trial(DualAugmentation(weight=0.6, ratio=2))
    numbers, taught, apart = made.take(), [], []
    for n in numbers:
        splits = [view.labelled if n < 12 else view.others for view in made.views]
        first, second = (logits(made, one.tokens.seen(n % 12 if n < 12 else n - 12, made.draw).ids) for one in splits)
        apart.append((kl(first, second) + kl(second, first)) / 2)
        if n < 12:
            target = torch.eye(3).double()[made.split.labels[n]]
            taught.append((entropy(first, target) + entropy(second, target)) / 2)
    assert len(taught) == 4 and len(apart) == 12
    slow = torch.stack(taught).mean() + 0.6 * torch.stack(apart).mean()
    assert_alike(made, numbers, slow, limit)


@pytest.mark.parametrize("views", ["same", "halves"])
def test_each_network_learns_from_the_other(views: str) -> None:
    made: Any = trial(DualNetwork(views=views, weight=0.6, ratio=1))
    numbers, taught, apart = made.take(), [], []
    for n in numbers:
        row = n if n < 12 else n - 12
        mine, theirs = (
            (view.labelled if n < 12 else view.others).tokens.seen(row, made.draw).ids for view in made.views
        )
        first, second = logits(made, mine), logits(made, theirs, made.peer)
        apart.append(kl(second.detach(), first) + kl(first.detach(), second))
        if n < 12:
            target = torch.eye(3).double()[made.split.labels[n]]
            taught.append(entropy(first, target) + entropy(second, target))
    slow = torch.stack(taught).mean() + 0.6 * torch.stack(apart).mean()
    assert_alike(made, numbers, slow, None)


def test_dual_classifier_equals_its_formula(tmp_path: Any) -> None:
    (tmp_path / "table.csv").write_text("class,x,y\na,1,0\nb,0,1\nc,1,1\n")
    made: Any = trial(DualClassifier(table=str(tmp_path / "table.csv"), weight=0.6, ratio=1))
    signatures = torch.tensor([[1.0, 0], [0, 1], [1, 1]]).double()
    numbers, taught, apart = made.take(), [], []
    for n in numbers:
        tokens = made.split.tokens[n] if n < 12 else made.others.tokens[n - 12]
        made.tuned.backbone.seams.use("default")
        features = made.tuned.task.read(made.tuned.backbone, ragged([torch.as_tensor(tokens)]))
        answer = made.tuned.head(features)[0]
        q = made.attribute_head(10 * features[0] / features[0].norm()).sigmoid()
        said = torch.stack([(s * q.log() + (1 - s) * (1 - q).log()).sum() for s in signatures])
        apart.append((kl(answer, said) + kl(said, answer)) / 2)
        if n < 12:
            s = signatures[made.split.labels[n]]
            binary = -(s * q.log() + (1 - s) * (1 - q).log()).mean()
            taught.append(binary + entropy(answer, torch.eye(3).double()[made.split.labels[n]]))
    slow = torch.stack(taught).mean() + 0.6 * torch.stack(apart).mean()
    assert_alike(made, numbers, slow, None)


def test_attributes_name_the_class_that_has_them() -> None:
    signatures = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    assert classes_of(torch.tensor([[3.0, -3, -3], [-3, 3, 3]]), signatures).argmax(1).tolist() == [0, 1]


def test_every_unlabelled_row_comes_up_before_one_comes_again() -> None:
    made: Any = trial(Consistency(ratio=1))
    taken = [n for _ in range(5) for n in made.take() if n >= 12]
    assert len(taken) == 20 and len(set(taken)) == 20


def test_two_views_that_are_one_are_refused() -> None:
    made: Any = trial(Consistency(view="dropout"))
    with pytest.raises(RecipeError, match="nothing drops"):
        Loop([made]).losses([(made, made.take())])


def test_thinned_rows_keep_their_ends_and_something_between() -> None:
    whole = rows_of(30, 2)
    thinned = ThinnedRows(whole, 0.9, 0)
    for row in range(30):
        ids = thinned.seen(row, 5).ids
        assert ids[0] == whole[row][0] and ids[-1] == whole[row][-1] and 2 < len(ids) <= len(whole[row])
        assert np.array_equal(ids, thinned.seen(row, 5).ids)
    assert any(len(thinned.seen(row, 5).ids) != len(thinned.seen(row, 6).ids) for row in range(30))


def test_halves_share_no_inner_token_and_lose_none() -> None:
    lengths = np.array([2, 3, 4, 9])
    whole = TokenRows(np.arange(18, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), lengths)
    first, second = HalvedRows(whole, 0, 7), HalvedRows(whole, 1, 7)
    for row in (2, 3):
        one, other = (set(half.seen(row, 1).ids[1:-1].tolist()) for half in (first, second))
        assert not one & other and one | other == set(whole[row][1:-1].tolist())
    assert all(np.array_equal(half.seen(row, 1).ids, whole[row]) for half in (first, second) for row in (0, 1))


def test_choice_of_pseudo_labels_by_count_and_prior() -> None:
    sure = np.array([[0.9, 0.1], [0.99, 0.01], [0.8, 0.2], [0.4, 0.6], [0.55, 0.45], [0.1, 0.9]])
    even = np.array([0.5, 0.5])
    assert choose(sure, 0.6, "none", 1, even).tolist() == [0, 1, 2, 3, 5]
    assert choose(sure, 0.6, "count", 2, even).tolist() == [0, 1, 3, 5]
    assert choose(sure, 0.6, "prior", 1, np.array([0.2, 0.8])).tolist() == [1, 3, 5]
    assert choose(sure, 0.999, "count", 2, even).tolist() == []


def test_weights_rise() -> None:
    assert [risen(step, 10, 0.5) for step in (0, 1, 5, 9)] == [0, 0.2, 1, 1] and risen(0, 10, 0.0) == 1


def wrong(made: Any) -> float:
    found = made.tuned.probabilities(made.split.tokens)
    return float(-found[torch.arange(12), torch.from_numpy(made.split.labels)].log().mean())


def test_every_scheme_learns_the_labels(tmp_path: Any) -> None:
    (tmp_path / "table.csv").write_text("class,x,y\na,1,0\nb,0,1\nc,1,1\n")
    schemes = [
        Consistency(threshold=0.3), SelfTraining(threshold=0.3, rounds=1), DualAugmentation(), DualNetwork(),
        DualClassifier(table=str(tmp_path / "table.csv")),
    ]  # fmt: skip
    for scheme in schemes:
        made: Any = trial(scheme, dropout=0.1, epochs=25, learning_rate=1e-2)
        before = wrong(made)
        Loop([made]).fit(lambda *_: None)
        assert wrong(made) < 0.8 * before, type(scheme).name
        assert made.findings(NAMES)
