"""Recipes whose model writes, from file to run and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from pyarrow import parquet

import tunesmith
from tests.conftest import save_tiny_writer, write_jsonl
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError, TunesmithError
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.generating import likelihoods
from tunesmith.runs.opening import open_family
from tunesmith.tasks.tuned import Tuned

WORDS = ["red", "blue", "green", "black", "white", "gold"]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"question": f"what follows {word} {n}?", "answer": f"{WORDS[n % 6]}"} for n, word in enumerate(WORDS * 8)]
    return write_jsonl(tmp_path / "questions.jsonl", rows)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text("".join(f"the {WORDS[n % 6]} bird sings to the {WORDS[n % 5]} moon\n" for n in range(600)))
    return path


def recipe(folder: Path, train: Path, output: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": {"name": "question-answering-generative", "answered_rows": 3, "samples": 1,
                 "decoding": {"max_new_tokens": 4}},
        "model": str(folder),
        "data": {"train": str(train), "validation": 0.2},
        "method": {"name": "lora", "rank": 4, "layers": ["q_proj", "v_proj", "down_proj"]},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100},
        "output": str(output),
    }  # fmt: skip
    return {**base, **changes}


@pytest.mark.usefixtures("pictures")
def test_questions_are_learned_answered_and_scored(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run"))
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert history[-1]["train loss"] < history[0]["train loss"]
    assert list(run.metrics["validation"]) == ["exact-match", "token-f1", "perplexity"]
    before = run.summary["baselines"]["untuned"]["validation"]["perplexity"]["value"]
    assert run.metrics["validation"]["perplexity"]["value"] < before
    page = run.report().read_text()
    assert "Written before and after tuning" in page and "Least probable rows" in page
    table = parquet.read_table(run.folder / "predictions.parquet").to_pydict()
    assert sum(answer is not None for answer in table["answer"]) == 3
    assert not (run.folder / "head.safetensors").exists()
    (sample,) = run.summary["samples"]
    assert set(sample) == {"asked", "right", "before", "after"} and sample["asked"].endswith("Assistant:")


def test_a_loaded_run_answers_streams_chooses_and_scores(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run"))
    run = tunesmith.Run.load(tmp_path / "run")
    ((text,),) = run.generate("what follows red 0?")
    assert "".join(run.stream("what follows red 0?")).strip() == text
    assert run.chat([{"role": "user", "content": "what follows red 0?"}]) == text
    shares = run.choose("what follows red 0?", ["red", "blue", "a long answer"])
    assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values(), reverse=True)
    sampled = run.generate(["red?", "blue?"], samples=3, temperature=1.0, top_k=20, top_p=0.9, min_p=0.01)
    assert [len(texts) for texts in sampled] == [3, 3]
    assert sampled == run.generate(["red?", "blue?"], samples=3, temperature=1.0, top_k=20, top_p=0.9, min_p=0.01)
    assert sampled != run.generate(
        ["red?", "blue?"], samples=3, temperature=1.0, top_k=20, top_p=0.9, min_p=0.01, seed=1
    )
    assert len(run.generate("red?", beams=2)[0]) == 1
    scores = run.evaluate(str(questions))
    assert set(scores) == {"exact-match", "token-f1", "perplexity"}
    run.compare(run, str(questions))


def test_stop_texts_end_an_answer(tiny_writer: Path, prose: Path, tmp_path: Path) -> None:
    task = {"name": "text-generation", "samples": 1, "decoding": {"max_new_tokens": 30}}
    training = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-2}
    data = {"train": str(prose), "max_tokens": 64}
    given = recipe(tiny_writer, prose, tmp_path / "run", task=task, training=training, data=data, method="full")
    run = tunesmith.train(given)
    assert run.metrics["validation"]["perplexity"]["value"] < 3
    ((whole,),) = run.generate("the red bird")
    assert "sings" in whole and "\n" in whole
    ((cut,),) = run.generate("the red bird", stop=["sings"])
    assert cut == whole[: whole.index("sings")]
    assert "".join(run.stream("the red bird", stop=["sings"])) == cut


def test_rows_see_nothing_of_each_other(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    """Packed rows have the likelihood that each has alone."""
    family = open_family(load_recipe(recipe(tiny_writer, questions, tmp_path / "run", model={
        "name": str(tiny_writer), "dtype": "float64"})), None)  # fmt: skip
    rows: Any = family.corpus.splits["train"].tokens
    together = likelihoods(family.session.backbone, family.session.task, rows)  # type: ignore[arg-type]
    alone = [
        likelihoods(family.session.backbone, family.session.task, rows.take(np.array([row])))[0]  # type: ignore[arg-type]
        for row in range(len(rows))
    ]
    assert np.allclose(together, alone, rtol=1e-10, atol=0)


def test_candidates_of_a_language_task_equal_their_own_runs(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    model = {"name": str(tiny_writer), "dtype": "float64"}
    both = tunesmith.train(
        recipe(tiny_writer, questions, tmp_path / "both", model=model,
               candidates=[{"training.learning_rate": 1e-3}, {"training.learning_rate": 1e-2, "method.rank": 2}])
    )  # fmt: skip
    for number, changes in enumerate(
        [{"training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}},
         {"method": {"name": "lora", "rank": 2, "layers": ["q_proj", "v_proj", "down_proj"]}}]
    ):  # fmt: skip
        alone = tunesmith.train(recipe(tiny_writer, questions, tmp_path / f"alone-{number}", model=model, **changes))
        theirs = [json.loads(line)["validation loss"] for line in (alone.folder / "history.jsonl").open()]
        ours = [epoch["validation loss"] for epoch in both.summary["candidates"][number]["history"]]
        assert np.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"prompt": {"template": "Q: {question}"}}, RecipeError, "prompt.template: the task"),
        ({"prompt": {"chat": "model"}}, RecipeError, "no chat template"),
        ({"prompt": {"end_token": "<stop>"}}, RecipeError, "no token '<stop>'"),
        ({"evaluation": {"metrics": ["accuracy"]}}, RecipeError, "unknown metric 'accuracy'"),
        ({"evaluation": {"baselines": ["majority"]}}, RecipeError, "unknown baseline 'majority'"),
        ({"training": {"best": "exact-match"}}, RecipeError, "training.best"),
        ({"task": "dialogue"}, DataError, "holds question-answer rows"),
    ],
)  # fmt: skip
def test_recipes_that_do_not_go_together(
    tiny_writer: Path, questions: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_leakage_may_not_take_every_row(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    data = {"train": str(questions), "test": str(questions), "leakage": "drop"}
    with pytest.raises(DataError, match="data.leakage=drop leaves none"):
        tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run", data=data))


def test_a_quantised_base_is_compared_with_full_precision(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    model = {"name": str(tiny_writer), "quantization": "int8"}
    run = tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run", model=model))
    found = run.summary["quantization"]
    assert found["nats_per_token"] == pytest.approx(found["full_precision_nats_per_token"], rel=0.02)
    assert found["nats_per_token"] != found["full_precision_nats_per_token"]
    assert found["sentence"] in run.summary["warnings"]


def test_a_run_that_writes_is_merged_with_its_head(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run"))
    found = tunesmith.merge(run, tmp_path / "merged")
    assert found["argmax_agreement"] == 1.0 and "largest_logit_difference" in found
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    prompt = words("<s>User: what follows red 0?\nAssistant:", add_special_tokens=False, return_tensors="pt")
    written = merged.generate(**prompt, max_new_tokens=4, do_sample=False, eos_token_id=words.eos_token_id)
    text = words.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert [[text]] == run.generate("what follows red 0?")
    plain = tunesmith.merge(run.folder / "delta", tmp_path / "of-delta")  # the delta's folder alone keeps the head too
    assert plain["argmax_agreement"] == 1.0
    assert type(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "of-delta")) is type(merged)


def test_models_that_do_not_write_are_refused(tiny_folder: Path, questions: Path, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError):
        tunesmith.train(recipe(tiny_folder, questions, tmp_path / "run"))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(questions: Path, tmp_path: Path) -> None:
    folder = save_tiny_writer(tmp_path / "model")
    found = json.loads((folder / "tokenizer.json").read_text())
    found["added_tokens"].append({**found["added_tokens"][0], "id": 999, "content": "<more>"})
    found["added_tokens"] += [{**found["added_tokens"][0], "id": 320 + n, "content": f"<more-{n}>"} for n in range(90)]
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="do not belong together"):
        tunesmith.train(recipe(folder, questions, tmp_path / "run"))


def test_answers_lost_by_cutting_are_an_error_with_their_lines(
    tiny_writer: Path, questions: Path, tmp_path: Path
) -> None:
    data = {"train": str(questions), "validation": 0.2, "max_tokens": 16}
    with pytest.raises(DataError, match=r"no token of an answer is left .* line 1"):
        tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run", data=data))


def test_a_run_that_writes_gives_no_labels_and_the_other_way_round(
    tiny_writer: Path, questions: Path, tmp_path: Path
) -> None:
    run = tunesmith.train(
        recipe(tiny_writer, questions, tmp_path / "run", evaluation={"baselines": False, "resamples": 100})
    )
    for call in (lambda: run.predict("x"), lambda: run.predict_file(str(questions))):
        with pytest.raises(CompatibilityError, match="writes text and has no labels"):
            call()
    for call, match in (
        (lambda: run.generate(""), "empty"),
        (lambda: run.generate("x " * 400), "leave room"),
        (lambda: run.choose("x", ["a"]), "two or more"),
        (lambda: run.chat([{"role": "assistant", "content": "x"}]), "ends with a message of the user"),
    ):
        with pytest.raises(DataError, match=match):
            call()
    with pytest.raises(RecipeError, match="temperature above 0"):
        run.generate("x", samples=2)


def test_inspect_shows_what_is_learned_and_what_is_cut(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    given = recipe(tiny_writer, questions, tmp_path / "run")
    found = tunesmith.inspect(given, rows=1)
    pieces = found["rows"][0]["pieces"]
    assert "".join(text for text, kind in pieces if kind == "learned") in {f" {word}</s>" for word in WORDS}
    assert "".join(text for text, _ in pieces).startswith("<s>User: what follows")
    cut = tunesmith.inspect(given, ["data.max_tokens=25", "task.cut=start"], rows=1)["rows"][0]
    assert sum(kind == "cut" for _, kind in cut["pieces"]) == cut["tokens"] - 25
    assert cut["pieces"][0][1] == "input"


@pytest.mark.parametrize("system", ["", "answer every question with the one colour that it names and nothing else"])
def test_a_step_in_several_passes_trains_the_same(
    system: str, tiny_writer: Path, questions: Path, tmp_path: Path
) -> None:
    model = {"name": str(tiny_writer), "dtype": "float64"}
    found, prompt = [], {"system": system}
    for limit in (None, 100, 1):  # plain descent shows the gradients; AdamW would enlarge their rounding
        training = {
            "epochs": 2, "batch_size": 8, "learning_rate": 0.3, "optimizer": "sgd", "tokens_per_pass": limit
        }  # fmt: skip
        given = recipe(tiny_writer, questions, tmp_path / f"run-{limit}", model=model, training=training, prompt=prompt)
        run = tunesmith.train(given)
        rows = [json.loads(line) for line in (run.folder / "history.jsonl").open()]
        found.append([(row["train loss"], row["validation loss"]) for row in rows])
    assert found[0][0] != found[0][1]
    for few in found[1:]:
        assert np.allclose(found[0], few, rtol=1e-10, atol=0)


def test_a_loss_that_is_no_number_names_the_rows_and_keeps_the_best_state(
    tiny_writer: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    plain = Tuned.loss_of

    def broken(self: Tuned, *given: Any) -> Any:
        calls.append(1)
        return plain(self, *given) * (float("nan") if len(calls) > limit else 1.0)

    monkeypatch.setattr(Tuned, "loss_of", broken)
    limit = 9  # the preflight, then 5 steps per epoch
    run = tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run"))
    (warning,) = (one for one in run.summary["warnings"] if "diverged" in one)
    assert "the loss is nan at step 9, which read line" in warning and "state after epoch 1" in warning
    assert run.generate("red?")[0] is not None
    calls.clear()
    limit = 3
    with pytest.raises(TunesmithError, match=r"nan at step 3, which read line \d+.*questions.jsonl"):
        tunesmith.train(recipe(tiny_writer, questions, tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_hidden_tokens_are_for_the_masked_objective(tiny_writer: Path, tmp_path: Path) -> None:
    task = {"name": "text-generation", "masked_share": 0.3}
    given = recipe(tiny_writer, tmp_path / "prose.txt", tmp_path / "run", task=task)
    with pytest.raises(RecipeError, match=r"task\.masked_share: 0\.3 is not allowed.*objective=masked"):
        load_recipe(given)
    assert load_recipe({**given, "task": {**task, "objective": "masked"}}).task.masked_share == 0.3
    plain = load_recipe({**given, "task": "text-generation"})
    assert load_recipe(plain.resolved()).task == plain.task


def test_a_run_whose_every_step_overflows_is_an_error(tiny_writer: Path, questions: Path, tmp_path: Path) -> None:
    method = {"name": "lora", "rank": 4, "alpha": 1e6, "layers": ["q_proj", "v_proj", "down_proj"]}
    changes = {"model": {"name": str(tiny_writer), "dtype": "float16"}, "method": method}
    short = {"epochs": 1, "batch_size": 1000, "learning_rate": 1e-2}
    with pytest.raises(TunesmithError, match="nothing was trained: in every one of 1 steps"):
        tunesmith.train(recipe(tiny_writer, questions, tmp_path / "run", training=short, **changes))
