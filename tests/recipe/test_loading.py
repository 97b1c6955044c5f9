from pathlib import Path

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.recipe.describing import json_schema
from tunesmith.recipe.loading import load_recipe, to_yaml

ISSUE = """
task: text-classification
model: minilm
data: {train: train.csv, test: test.csv, text: text, label: category}
method: {name: lora, rank: 8, layers: all-linear}
training: {epochs: 3, batch_size: 32, learning_rate: 2.0e-3}
seed: 0
output: runs/banking
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_as_written(tmp_path: Path) -> None:
    checked = load_recipe(written(tmp_path, ISSUE))
    assert checked.recipe.data.validation == 0.1
    assert checked.method.describe()["rank"] == 8
    assert load_recipe(written(tmp_path, to_yaml(checked.resolved()))).resolved() == checked.resolved()


def test_overrides_win(tmp_path: Path) -> None:
    given = ["method.rank=16", "training.learning_rate=1e-4", "data.validation=val.csv", "method.layers=[query, key]"]
    checked = load_recipe(written(tmp_path, ISSUE), given)
    assert checked.method.rank == 16 and checked.method.layers == ("query", "key")
    assert checked.recipe.training.learning_rate == 1e-4 and checked.recipe.data.validation == "val.csv"
    assert load_recipe(written(tmp_path, ISSUE), ["method=bitfit"]).method.name == "bitfit"


def test_parts_of_blocks_do_not_go_with_weights_in_fewer_bits(tmp_path: Path) -> None:
    given = ["training.shard_base=true", "training.precision=int8", "model.quantization=int8"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, ISSUE), given)
    for key in given[1:]:
        assert f"training.shard_base: {key} keeps whole weights in fewer bits. Leave one" in str(caught.value)
    assert load_recipe(written(tmp_path, ISSUE), given[:1]).recipe.training.shard_base


def test_all_mistakes_at_once_with_line_and_nearest_name(tmp_path: Path) -> None:
    text = ISSUE.replace("rank: 8", "rank: -1").replace("epochs: 3", "epoch: 3").replace("seed: 0", "sead: 0")
    text = text.replace("text-classification", "text-clasification")
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    message = str(caught.value)
    assert "4 mistakes, nothing was loaded" in message
    assert "line 5: method.rank: -1 is not allowed. Input should be greater than or equal to 1." in message
    assert "training.epoch: unknown key 'epoch'; did you mean 'epochs'?" in message
    assert "line 7: sead: unknown key 'sead'; did you mean 'seed'?" in message
    assert "line 2: task: unknown task 'text-clasification'; did you mean 'text-classification'?" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=many", "training.epochs: 'many' is not allowed. Input should be a valid integer"),
        ("search={strategy: random}", "Settings of a search are words of its command: tunesmith search"),
        ("model.new={new: {architecture: t5}}", "unknown key 'new'. Allowed: architecture, config, size"),
        ("method.rank=4.5", "method.rank: 4.5 is not allowed"),
        ("method.name=lroa", "unknown method 'lroa'; did you mean 'lora'?"),
        ("evaluation.metrics=[accuracy, f1]", "evaluation.metrics: unknown metric 'f1'"),
        ("evaluation.baselines=[majorty]", "unknown baseline 'majorty'; did you mean 'majority'?"),
        ("training.best=acuracy", "did you mean 'accuracy'?"),
        ("data.validation=1.5", "the share 1.5 must lie between 0 and 1"),
        ("seed=99999999999999999999", "seed: 99999999999999999999 is not allowed"),
        ("data.encoding=klingon", "data.encoding: 'klingon' is no encoding that Python knows"),
        ("data.label=text", "data.label: 'text' is also data.text"),
        ("data.leakage=ignore", "data.leakage: 'ignore' is not allowed. Input should be 'keep', 'drop' or 'error'"),
        ("rank", "'rank' is not an override; write key=value"),
        ("lora,", "needs quotes around the whole: 'method={name: lora, rank: 16}'"),
        ("seed.x=1", "'seed' is a single value"),
    ],
)
def test_single_mistakes(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, ISSUE), [override])
    assert message in str(caught.value)


ASKED = "task=prompt-classification"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["training.guard.window=5"], "training.guard.window: it says how many steps training.guard.spike looks back"),
        (["training.cache=off", "training.cache_type=bfloat16"], "training.cache_type: nothing reads it with "),
        (["training.cache=off", "training.cache_limit=5"], "training.cache_limit: nothing reads it with "),
        (["training.cache=disk", "training.cache_limit=5"], "nothing reads it with training.cache=disk. Leave one"),
        ([ASKED, "prompt.demonstrations.strategy=nearest"], "prompt.demonstrations.strategy: none is shown. Set"),
        ([ASKED, "prompt.demonstrations.separator=;"], "prompt.demonstrations.separator: none is shown. Set"),
        ([ASKED, "prompt.demonstrations.balance=true"], "prompt.demonstrations.balance: none is shown. Set"),
        ([ASKED, "prompt.demonstrations.template='{text}'"], "prompt.demonstrations.template: none is shown. Set"),
        ([ASKED, "training.head_learning_rate=1e-3"], "task.verbalizer=words has nothing that trains. Leave it out"),
    ],
)
def test_settings_of_what_is_switched_off(tmp_path: Path, given: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, ISSUE), given)
    assert message in str(caught.value) and "1 mistake," in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ["training.guard={spike: 3, window: 5}"],
        ["training.cache=memory", "training.cache_type=bfloat16", "training.cache_limit=5"],
        ["training.cache=disk", "training.cache_type=bfloat16"],
        ["training.guard.window=20", "training.cache=off", "training.cache_type=exact", "training.cache_limit=1024"],
        [ASKED, "prompt.demonstrations={count: 2, strategy: nearest, balance: true, separator: ;}"],
        [ASKED, "prompt.demonstrations={examples: [{text: a, label: b}], separator: ;}"],
        ["task={name: prompt-classification, verbalizer: learned}", "training.head_learning_rate=1e-3"],
    ],
)
def test_settings_of_what_is_switched_on_and_defaults(tmp_path: Path, given: list[str]) -> None:
    load_recipe(written(tmp_path, ISSUE), given)


def test_a_setting_without_a_name_belongs_to_the_default(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {train: a.csv}\n")
    assert load_recipe(path, ["method.rank=16"]).method.rank == 16
    assert load_recipe(path, ["task.head_kind=linear"]).task.head_kind == "linear"


def test_a_mistake_from_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"command line: method\.rank: -1 is not allowed"):
        load_recipe(written(tmp_path, ISSUE), ["method.rank=-1"])


def test_yaml_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="line 3: 'seed' stands twice"):
        load_recipe(written(tmp_path, "data: {train: a.csv}\nseed: 1\nseed: 2\n"))
    with pytest.raises(RecipeError, match="line 1: not valid YAML"):
        load_recipe(written(tmp_path, "data: {train: a.csv"))
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load_recipe(written(tmp_path, "- one\n"))
    with pytest.raises(RecipeError, match="data: required and not given"):
        load_recipe(written(tmp_path, "seed: 1\n"))
    with pytest.raises(RecipeError, match=r"there is no recipe file .*recipes\.yaml\. Did you mean .*recipe\.yaml\?"):
        load_recipe(tmp_path / "recipes.yaml")


def test_the_schema_knows_every_method_and_its_settings() -> None:
    schema = json_schema()
    methods = schema["properties"]["method"]["anyOf"]
    lora = next(item for item in methods if item.get("properties", {}).get("name") == {"const": "lora"})
    assert lora["properties"]["rank"]["minimum"] == 1 and lora["properties"]["rank"]["unit"] == "count"
    assert "training" in schema["properties"]


def test_a_value_that_may_be_of_several_kinds_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, "data: {train: a.csv}\n"), ["data.validation=[0.1]"])
    assert "1 mistake, nothing was loaded" in str(caught.value)
    assert "Input should be a valid string. Or: Input should be a valid number." in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "data: &a {train: *a}",
        "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40)),
    ],
)
def test_aliases_that_repeat_without_end(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml, line \d+: more than 50 keys deep, or more than 100,000 keys"):
        load_recipe(written(tmp_path, text))


def test_lists_too_deep_inside_each_other(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml: lists or mappings stand too deep inside each other"):
        load_recipe(written(tmp_path, "data: " + "[" * 3000))


def test_an_override_that_looks_like_a_date_but_is_none(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, ISSUE), ["data.text=2024-02-45"]).recipe.data.text == "2024-02-45"


def test_an_override_below_a_key_with_nothing_behind_it(tmp_path: Path) -> None:
    checked = load_recipe(written(tmp_path, f"{ISSUE}prompt:\n"), ["prompt.template=Say {text}"])
    assert checked.recipe.prompt.template == "Say {text}"


def test_cells_longer_than_a_reader_can_count(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.max_characters: .*less than or equal to 2147483647"):
        load_recipe(written(tmp_path, ISSUE), ["data.max_characters=10000000000"])


def test_a_candidate_without_a_method(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"candidates\[1\]\.method: None is not allowed"):
        load_recipe(written(tmp_path, ISSUE), ["candidates=[{seed: 1}, {method: null}]"])
