"""Rows made of others, against plain formulas in float64, row by row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tests.training.test_many import Rows, backbone, trial
from tests.training.test_regularizers import fresh, goes_on, run, same
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.models.backbone import Backbone
from tunesmith.recipe.loading import load_recipe
from tunesmith.training.loop import Loop
from tunesmith.training.synthesizing import Synthesizing
from tunesmith.training.synthetic import base

CASES = {
    "mixup": "mixup",
    "manifold-mixup": {"name": "manifold-mixup", "layers": [0]},
    "smote": "smote",
    "delta-encoder": "delta-encoder",
}
STEP = [3, 14, 15, 9, 26, 5]  # rows of the step that is looked at


def two_blocks() -> transformers.BertModel:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertModel(config).double().eval()


def plainly_mixed(model: nn.Module, rows: list[Tensor], layer: int, lam: float, partners: list[int]) -> list[Tensor]:
    """Mean-pooled features of rows mixed at a layer, every row through the plain model alone."""
    place = model.embeddings.word_embeddings if layer == 0 else model.encoder.layer[layer - 1]
    seen: list[Tensor] = []

    def run_with(ids: Tensor, hook: Any) -> Tensor:
        handle = place.register_forward_hook(hook)
        try:
            return model(input_ids=ids[None]).last_hidden_state[0].mean(0)
        finally:
            handle.remove()

    def hidden(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    for ids in rows:
        run_with(ids, lambda _, __, output: seen.append(hidden(output)[0].detach()) or None)
    found = []
    for own, other, ids in zip(seen, [seen[j] for j in partners], rows, strict=True):
        new = own.clone()
        for token in range(min(len(own), len(other))):
            new[token] = lam * own[token] + (1 - lam) * other[token]
        put = new[None]
        found.append(
            run_with(ids, lambda _, __, output, put=put: (put, *output[1:]) if isinstance(output, tuple) else put)
        )
    return found


def expected_loss(head: nn.Module, features: list[Tensor], targets: list[list[float]]) -> float:
    total = 0.0
    for row, target in zip(features, targets, strict=True):
        logits = head(row[None])[0].tolist()
        log_sum = np.log(np.sum(np.exp(logits)))
        total -= sum(q * (value - log_sum) for q, value in zip(target, logits, strict=True))
    return total / len(features)


@pytest.mark.parametrize(("how", "layer"), [("mixup", None), ("manifold-mixup", 0), ("manifold-mixup", 1)])
def test_mixtures_are_their_formulas(how: str, layer: int | None) -> None:
    model = two_blocks()
    written = {"name": how, "alpha": 1.0, **({} if layer is None else {"layers": [layer]})}
    one = trial(Backbone(model), Lora(rank=2), "a", 0, batch_size=8, synthetic=written)
    one.tuned.head.dropout = 0.0
    one.tuned.train(True)
    (loss,) = Loop([one]).losses([(one, STEP)])

    batch = one.batch(STEP)
    order = batch.index.tolist()  # rows as they lie in the batch
    draw = one.synthesizing.draw(0)
    if layer is not None:
        assert one.synthesizing.how.layer(draw) == layer
    pairs = one.synthesizing.how.pairs(len(STEP), draw)
    assert 0.01 < pairs.lam < 0.99 and sorted(pairs.partners) == list(range(6))
    rows = Rows(64)
    ids = [torch.as_tensor(rows[number]) for number in order]
    partners, lam = pairs.partners.tolist(), pairs.lam
    plain = two_blocks()
    with torch.no_grad():
        if layer is None:
            alone = [plain(input_ids=one_row[None]).last_hidden_state[0].mean(0) for one_row in ids]
            features = [lam * alone[i] + (1 - lam) * alone[partners[i]] for i in range(6)]
        else:
            features = plainly_mixed(plain, ids, layer, lam, partners)
        eye = np.eye(3)
        targets = [(lam * eye[rows.labels[order[i]]] + (1 - lam) * eye[rows.labels[order[partners[i]]]]).tolist()
                   for i in range(6)]  # fmt: skip
        wanted = expected_loss(one.tuned.head.eval(), features, targets)
    assert loss.item() == pytest.approx(wanted, rel=1e-10)
    loss.backward()
    assert all(p.grad is not None for p in one.tuned.head.parameters())


def test_synthetic_rows_lie_between_near_rows_of_their_class_and_even_classes_out() -> None:
    draw = np.random.default_rng(0)
    counts = np.array([60, 20, 6])
    labels = np.repeat(np.arange(3), counts)
    features = torch.from_numpy(draw.standard_normal((86, 3)) + 10 * labels[:, None]).requires_grad_()
    how = build_named("synthetic", {"name": "smote", "neighbours": 2, "most": 100.0})
    made = np.zeros(3)
    for step in range(30):
        rows = base.Rows(
            features, torch.eye(3, dtype=torch.float64)[torch.from_numpy(labels)], counts, np.arange(86),
            lambda code: (features.detach()[np.flatnonzero(labels == code)], np.flatnonzero(labels == code)),
        )  # fmt: skip
        new, targets, origin = how.make(rows, np.random.default_rng(step))
        made += np.bincount(targets.argmax(1).numpy(), minlength=3)
        assert torch.equal(new[:86], features)
        for place in range(86, len(new)):
            own, x = features[origin[place]].detach(), new[place].detach()
            alike = features.detach()[np.flatnonzero(labels == labels[origin[place]])]
            near = alike[(alike - own).square().sum(1).argsort()[1:3]]
            on_line = [
                float((torch.linalg.vector_norm(x - own) + torch.linalg.vector_norm(x - n))
                      / torch.linalg.vector_norm(n - own)) for n in near
            ]  # fmt: skip
            assert min(on_line) == pytest.approx(1.0, abs=1e-9)
    assert made[0] == 30 * 60 and np.abs(made / 30 - 60).max() < 6
    new.sum().backward()
    assert bool((features.grad[80:] > 1.0).all())  # synthetic rows teach the rows they begin at


def test_generated_rows_differ_as_rows_of_common_classes_do() -> None:
    """Rows of every class spread along one axis; the rare class has two rows, and gets rows along that axis."""
    draw = np.random.default_rng(0)
    counts = np.array([60, 60, 2])
    labels = np.repeat(np.arange(3), counts)
    centres = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 4.0, 0.0]])[labels]
    features = torch.from_numpy(centres + draw.standard_normal((122, 1)) * [0.0, 0.0, 1.0])

    def bank(code: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
        return features[np.flatnonzero(labels == code)], np.flatnonzero(labels == code)

    settings = {"name": "delta-encoder", "inner": 32, "code": 4, "most": 50.0, "rate": 1e-2}
    how, targets = build_named("synthetic", settings), torch.eye(3, dtype=torch.float64)[torch.from_numpy(labels)]
    torch.manual_seed(0)
    network, rate = how.network(3)
    network.double()
    rows = base.Rows(features, targets, counts, np.arange(122), bank, network)
    before, _, _ = how.make(rows, np.random.default_rng(0))
    assert torch.equal(before[122:], features[120:].repeat_interleave((len(before) - 122) // 2, 0))  # copies
    learning = torch.optim.AdamW(network.parameters(), lr=rate)
    for step in range(200):
        learning.zero_grad()
        loss = how.learn(rows, np.random.default_rng(step))
        loss.backward()
        learning.step()
    made, new_targets, origin = how.make(rows, np.random.default_rng(0))
    made = made[122:]
    assert len(made) == 58 and bool((new_targets[122:].argmax(1) == 2).all()) and set(origin[122:]) == {120, 121}
    assert (made[:, :2] - 4.0).abs().mean() < 0.4 < 0.6 < made[:, 2].std() < 2.0


def test_the_bank_holds_what_was_last_seen(tmp_path: Path) -> None:
    from tests.training.test_many import trial as make

    one = make(backbone(0.0), Lora(rank=2), "a", 0, batch_size=16, synthetic="smote")
    run([one], 4)
    synthesizing: Synthesizing = one.synthesizing
    features, numbers = synthesizing._of_class(1)
    assert set(numbers.tolist()) == set(np.flatnonzero(one.split.labels == 1).tolist())  # an epoch has gone by
    again = Synthesizing("smote", one.split.labels, 1)
    again.resume(synthesizing.state(), features)
    assert torch.equal(again._of_class(1)[0], features)


@pytest.mark.parametrize("case", CASES)
def test_they_change_training_and_go_on_from_a_checkpoint_to_the_bit(case: str) -> None:
    plain = fresh()
    run([plain])
    assert not same(plain, goes_on(synthetic=CASES[case]))


def test_every_way_is_tried() -> None:
    assert set(CASES) == set(components("synthetic"))


def test_rows_of_one_trial_are_mixed_among_themselves() -> None:
    core = Backbone(two_blocks())
    short = {"epochs": 2, "learning_rate": 5e-3}
    ways: list[Any] = [
        {"name": "manifold-mixup", "layers": [1]},
        None,
        "mixup",
        {"name": "manifold-mixup", "layers": [0, 1]},
    ]
    together = [trial(core, Lora(rank=2), f"t{n}", n, synthetic=way, **short) for n, way in enumerate(ways)]
    run(together)
    for number, way in enumerate(ways):
        alone = trial(Backbone(two_blocks()), Lora(rank=2), f"t{number}", number, synthetic=way, **short)
        run([alone])
        for a, b in zip(alone.tuned.parameters(), together[number].tuned.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_a_run_with_each(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["evaluation"] = {"resamples": 100, "baselines": False}
    for name, written in CASES.items():
        training = {**recipe["training"], "synthetic": written}
        run = tunesmith.train({**recipe, "training": training, "output": str(tmp_path / name)})
        assert run.metrics["test"]["accuracy"]["value"] > 0.5


def test_what_is_refused() -> None:
    data: dict[str, Any] = {"data": {"train": "train.csv"}}
    task = {"name": "text-classification"}
    for training, more, said in (
        ({"synthetic": "mixpu"}, {}, "did you mean 'mixup'"),
        (
            {"synthetic": "mixup"},
            {"task": {**task, "losses": ["focal"]}},
            "the loss focal cannot learn what mixup makes",
        ),
        ({"synthetic": "smote"}, {"task": {**task, "head_kind": "prototypes"}}, "a head that keeps rows cannot"),
        ({"synthetic": "smote", "balance": "oversample"}, {}, "smote evens classes out"),
        ({"synthetic": "mixup", "class_weights": "root"}, {}, "a mixed row has two labels"),
        ({"synthetic": "mixup"}, {"task": "text-generation", "data": {"train": "x.txt"}}, "cannot learn"),
        ({"synthetic": {"name": "manifold-mixup", "layers": [-1]}}, {}, "counted from 0"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe({**data, **more, "training": training})
    for method, layers, said in ((Lora(rank=2), [1], "has 1 blocks"), (PromptTuning(length=2), [0], "soft prompt")):
        written = {"name": "manifold-mixup", "layers": layers}
        with pytest.raises(CompatibilityError, match=said):
            Loop([trial(backbone(0.0), method, "a", 0, synthetic=written)])
