"""Deltas in the layouts of other libraries: the same numbers there, and back without a changed bit."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, SecurityError
from tunesmith.core.registry import components
from tunesmith.methods.store import save_delta
from tunesmith.models.rotary import HeadRows
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

METHODS = components("methods")
IN_PEFT = sorted(name for name, kind in METHODS.items() if kind.peft_type)
DENSE = [
    ("lora", {"dora": True}), ("lora", {"init": "pissa"}), ("lora", {"b_bias": True}),
    ("lora", {"rank_stabilised": True}), ("loha", {}), ("lokr", {}), ("vera", {}), ("adalora", {}), ("ia3", {}),
]  # fmt: skip


def base(family: str, folder: Path) -> Path:
    """A model folder of a family of tiny models."""
    tiny_models()[family].build().save_pretrained(folder / "base")  # type: ignore[operator]
    return folder / "base"


def saved(family: str, name: str, folder: Path, double: bool = False, **settings: Any) -> tuple[nn.Module, Path]:
    """A model with a delta of random numbers, and the folder of the delta."""
    model = tiny_models()[family].build()
    model = model.double() if double else model
    torch.manual_seed(0)
    kind = METHODS[name]
    method = kind(**{**kind.example, **settings})
    delta = method.attach(open_seams(model))
    for parameter in delta.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_delta(folder / "delta", method, delta, str(folder / "base"))
    return model, folder / "delta"


def run(model: nn.Module, family: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_models()[family].inputs()).last_hidden_state


# PEFT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_PEFT)
def test_peft_without_what_we_add(name: str, tmp_path: Path) -> None:
    """Fewer keys mean the same to PEFT, and no tensor changes."""
    family = (
        "decoder" if METHODS[name].peft_type in ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING") else "encoder"
    )
    _, folder = saved(family, name, tmp_path)
    facts = tunesmith.convert(folder, "peft", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"]  # fmt: skip
    ours, theirs = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "out"))
    assert facts["tensors"] == len(theirs) and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    long, short = (json.loads((place / "adapter_config.json").read_text()) for place in (folder, tmp_path / "out"))
    assert len(short) <= len(long) and None not in short.values()
    before, after = (peft.PeftConfig.from_pretrained(place).to_dict() for place in (folder, tmp_path / "out"))
    assert before == after


def test_methods_that_peft_lacks(tmp_path: Path) -> None:
    base("encoder", tmp_path)
    _, folder = saved("encoder", "bitfit", tmp_path)
    with pytest.raises(CompatibilityError, match=r"PEFT has no form for 'bitfit'.*Targets that work for it: none\."):
        tunesmith.convert(folder, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Plain LoRA ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["encoder", "transposed-decoder"])
@pytest.mark.parametrize(
    "name, settings", DENSE, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_any_change_of_weights_as_lora(name: str, settings: dict[str, Any], family: str, tmp_path: Path) -> None:
    """At full rank the answers are the method's own, here and in PEFT."""
    base(family, tmp_path)
    model, folder = saved(family, name, tmp_path, **settings)
    facts = tunesmith.convert(folder, "peft-lora", tmp_path / "out", tolerance=1e-6)
    assert facts["largest_relative_error"] <= 1e-6 and len(facts["relative_errors"]) == facts["layers"]
    wanted = run(model, family)
    ours = tiny_models()[family].build()
    tunesmith.attach(ours, tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(tiny_models()[family].build(), tmp_path / "out").eval()
    for other in (ours, theirs):
        assert (run(other, family) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_smallest_rank_and_its_error(tmp_path: Path) -> None:
    """The printed errors are those of dense matrices, and one rank less would be above the tolerance."""
    base("encoder", tmp_path)
    model, folder = saved("encoder", "loha", tmp_path, double=True, rank=3, layers="query")
    facts = tunesmith.convert(folder, "peft-lora", tmp_path / "out", model=tiny_models()["encoder"].build().double(),
                              tolerance=0.1)  # fmt: skip
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    seams = open_seams(model)
    for path, patch in seams.deltas["default"].patches.items():
        up, down = (tensors[f"base_model.model.{path}.lora_{side}.weight"] for side in "BA")
        change = patch.weight_change(seams.linear[path]).detach()  # type: ignore[operator]
        error = ((up @ down - change).norm() / change.norm()).item()
        assert error == pytest.approx(facts["relative_errors"][path], rel=1e-9) and error <= 0.1
    assert 1 < facts["rank"] <= 9
    with pytest.raises(CompatibilityError, match=r"is off by .* above the tolerance 1\.00e-01.*Leave out the rank"):
        tunesmith.convert(folder, "peft-lora", tmp_path / "less", rank=facts["rank"] - 1, tolerance=0.1)
    assert not (tmp_path / "less").exists()


def test_a_whole_module_travels_beside(tmp_path: Path) -> None:
    base("encoder", tmp_path)
    model, folder = saved("encoder", "loha", tmp_path, layers="query", modules_to_save=("pooler.dense",))
    tunesmith.convert(folder, "peft-lora", tmp_path / "out", tolerance=1e-6)
    theirs = peft.PeftModel.from_pretrained(tiny_models()["encoder"].build(), tmp_path / "out").eval()
    inputs = tiny_models()["encoder"].inputs()
    with torch.no_grad():
        wanted, found = model(**inputs).pooler_output, theirs(**inputs).pooler_output
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", ["prefix", "adapter"])
def test_what_is_no_change_of_weights(name: str, tmp_path: Path) -> None:
    base("encoder", tmp_path)
    _, folder = saved("encoder", name, tmp_path)
    for to in ("peft-lora", "torchtune", "adapterhub"):
        with pytest.raises(CompatibilityError, match="."):
            tunesmith.convert(folder, to, tmp_path / "out")
    with pytest.raises(CompatibilityError, match=f"'{name}' is not a change of weights"):
        tunesmith.convert(folder, "peft-lora", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# torchtune ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [("q_proj", "k_proj", "v_proj", "o_proj"), "all-linear", ("q_proj",)])
def test_torchtune_and_back(layers: Any, tmp_path: Path) -> None:
    base("decoder", tmp_path)
    model, folder = saved("decoder", "lora", tmp_path, layers=layers, rank=4, alpha=6.0)
    tunesmith.convert(folder, "torchtune", tmp_path / "tune")
    names = load_file(tmp_path / "tune" / "adapter_model.safetensors")
    assert names["layers.1.attn.q_proj.lora_a.weight"].shape == (4, 32)
    config = json.loads((tmp_path / "tune" / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["lora_alpha"] == 6 and "peft_type" not in config
    if layers == "all-linear":
        assert set(config["target_modules"]) == {"q_proj", "k_proj", "v_proj", "output_proj", "w1", "w2", "w3"}
    tunesmith.convert(tmp_path / "tune", "peft", tmp_path / "back")
    ours, back = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "back"))
    assert ours.keys() == back.keys() and all(torch.equal(ours[key], back[key]) for key in ours)
    fresh = tiny_models()["decoder"].build()
    tunesmith.attach(fresh, tmp_path / "back")
    assert torch.equal(run(fresh, "decoder"), run(model, "decoder"))


def test_the_order_of_rows_is_that_of_neighbouring_pairs() -> None:
    """Scores of q and k are the same when rows are reordered and neighbours are turned instead of halves."""
    heads, width, tokens = 4, 8, 5
    config = transformers.LlamaConfig(hidden_size=32, num_attention_heads=heads, num_key_value_heads=2)
    rows = HeadRows.of(config)
    x = torch.randn(tokens, 32, dtype=torch.float64)
    q, k = torch.randn(32, 32, dtype=torch.float64), torch.randn(16, 32, dtype=torch.float64)
    angles = torch.arange(tokens)[:, None] * 10000.0 ** (-torch.arange(0, width, 2).double() / width)

    def turned(states: torch.Tensor, neighbours: bool) -> torch.Tensor:
        states = states.view(tokens, -1, width).transpose(0, 1)  # (H, T, width)
        first, second = (states[..., 0::2], states[..., 1::2]) if neighbours else states.chunk(2, -1)
        return torch.cat(
            [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1
        )

    def scores(q: torch.Tensor, k: torch.Tensor, neighbours: bool) -> torch.Tensor:
        return turned(x @ q.t(), neighbours) @ turned(x @ k.t(), neighbours).repeat_interleave(2, 0).transpose(1, 2)

    theirs = rows.to_neighbours("a.q_proj", q), rows.to_neighbours("a.k_proj", k)
    assert not torch.equal(theirs[0], q)
    assert torch.allclose(scores(*theirs, True), scores(q, k, False), rtol=1e-12, atol=1e-12)
    assert torch.equal(rows.to_halves("a.q_proj", theirs[0]), q) and torch.equal(
        rows.to_halves("a.k_proj", theirs[1]), k
    )
    assert rows.to_neighbours("a.v_proj", k) is k


def test_what_torchtune_writes_is_read(tmp_path: Path) -> None:
    """It saves a pickle beside a config with PEFT's words for causal models; the reader takes tensors only."""
    base("decoder", tmp_path)
    _, folder = saved("decoder", "lora", tmp_path, layers=("q_proj", "v_proj"), rank=2)
    tunesmith.convert(folder, "torchtune", tmp_path / "tune")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    torch.save(load_file(tmp_path / "tune" / "adapter_model.safetensors"), theirs / "adapter_model.pt")
    config = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA",
              "base_model_name_or_path": str(tmp_path / "base")}  # fmt: skip
    (theirs / "adapter_config.json").write_text(json.dumps(config))
    tunesmith.convert(theirs, "peft", tmp_path / "back")
    ours, back = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "back"))
    assert all(
        torch.equal(back[key.replace("base_model.model.", "base_model.model.model.")], ours[key]) for key in ours
    )
    with pytest.raises(CompatibilityError, match=r"tune is plain LoRA of another library already\. Take"):
        tunesmith.convert(tmp_path / "tune", "peft-lora", tmp_path / "again")
    torch.save({"layers.0.attn.q_proj.lora_a.weight": print}, theirs / "adapter_model.pt")
    with pytest.raises(SecurityError, match="print"):
        tunesmith.convert(theirs, "peft", tmp_path / "again")


def test_what_torchtune_cannot_hold(tmp_path: Path) -> None:
    base("decoder", tmp_path)
    for words, settings in (
        (r"every layer or in none; this has 1 of 2.*Targets that work for it: peft, peft-lora\.",
         {"layers": "0.self_attn.q_proj"}),
        ("w1, w2 and w3 of the feed-forward together; this has mlp.w1", {"layers": "gate_proj"}),
        ("has no name for 'embed_tokens'|also holds", {"layers": "embed_tokens"}),
        ("has 'use_dora'", {"layers": "q_proj", "dora": True}),
        ("has 'rank_pattern'", {"layers": ("q_proj", "k_proj"), "rank_pattern": {"q_proj": 2}}),
    ):  # fmt: skip
        _, folder = saved("decoder", "lora", tmp_path, **settings)
        with pytest.raises(CompatibilityError, match=words):
            tunesmith.convert(folder, "torchtune", tmp_path / "out")
    gpt = tmp_path / "gpt"
    gpt.mkdir()
    base("transposed-decoder", gpt)
    _, folder = saved("transposed-decoder", "lora", gpt)
    with pytest.raises(CompatibilityError, match=r"llama and mistral is known, and this is 'gpt2'"):
        tunesmith.convert(folder, "torchtune", tmp_path / "out")


# AdapterHub ---------------------------------------------------------------------------------------------------


def test_adapterhub_and_back(tmp_path: Path) -> None:
    base("encoder", tmp_path)
    model, folder = saved(
        "encoder", "lora", tmp_path, layers=("query", "value", "intermediate.dense"), rank=4, alpha=2.0
    )
    facts = tunesmith.convert(folder, "adapterhub", tmp_path / "hub")
    assert "use_safetensors=True" in facts["note"]
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["adapter.safetensors", "adapter_config.json"]
    names = load_file(tmp_path / "hub" / "adapter.safetensors")
    assert names["encoder.layer.1.attention.self.value.loras.default.lora_B"].shape == (32, 4)
    config = json.loads((tmp_path / "hub" / "adapter_config.json").read_text())
    inner = config["config"]
    assert (inner["r"], inner["alpha"], inner["attn_matrices"]) == (4, 2, ["q", "v"])
    assert (inner["selfattn_lora"], inner["intermediate_lora"], inner["output_lora"]) == (True, True, False)
    assert config["model_class"] == "BertModel" and config["hidden_size"] == 32 and inner["leave_out"] == []
    tunesmith.convert(tmp_path / "hub", "peft", tmp_path / "back")
    ours, back = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "back"))
    assert ours.keys() == back.keys() and all(torch.equal(ours[key], back[key]) for key in ours)
    fresh = tiny_models()["encoder"].build()
    tunesmith.attach(fresh, tmp_path / "back")
    assert torch.equal(run(fresh, "encoder"), run(model, "encoder"))
    # Before 1.1 the library never applied alpha, whatever its config said.
    (tmp_path / "hub" / "adapter_config.json").write_text(json.dumps({**config, "version": "adapters.1.0.1"}))
    tunesmith.convert(tmp_path / "hub", "peft", tmp_path / "old")
    assert json.loads((tmp_path / "old" / "adapter_config.json").read_text())["lora_alpha"] == 4
    (tmp_path / "hub" / "adapter_config.json").write_text(json.dumps({**config, "config": {**inner, "r": None}}))
    with pytest.raises(CompatibilityError, match="adapter_config.json has no 'r', which its writer always writes"):
        tunesmith.convert(tmp_path / "hub", "peft", tmp_path / "damaged")


def test_adapterhub_leaves_layers_out(tmp_path: Path) -> None:
    base("encoder", tmp_path)
    _, folder = saved("encoder", "lora", tmp_path, layers="layer.1.attention.self.query")
    tunesmith.convert(folder, "adapterhub", tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "adapter_config.json").read_text())["config"]["leave_out"] == [0]


def test_what_adapterhub_cannot_hold(tmp_path: Path) -> None:
    base("encoder", tmp_path)
    _, folder = saved("encoder", "lora", tmp_path)
    with pytest.raises(CompatibilityError, match=r"no place for LoRA at .*Targets that work for it: peft, peft-lora\."):
        tunesmith.convert(folder, "adapterhub", tmp_path / "out")
    _, folder = saved("encoder", "lora", tmp_path, layers=("0.attention.self.query", "1.attention.self.value"))
    with pytest.raises(CompatibilityError, match="same maps in every layer"):
        tunesmith.convert(folder, "adapterhub", tmp_path / "out")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file({"encoder.layer.0.output.adapters.x.adapter_up.weight": torch.ones(2)}, theirs / "adapter.safetensors")
    config = {"config": {"architecture": "bottleneck"}, "name": "x", "version": "adapters.1.2.0"}
    (theirs / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CompatibilityError, match="holds 'bottleneck' of AdapterHub; only plain LoRA is read"):
        tunesmith.convert(theirs, "peft", tmp_path / "out")


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no delta folder"):
        tunesmith.convert(tmp_path / "nowhere", "peft", tmp_path / "out")
    _, folder = saved("encoder", "loha", tmp_path)
    with pytest.raises(RecipeError, match="unknown target 'torchtun'; did you mean 'torchtune'"):
        tunesmith.convert(folder, "torchtun", tmp_path / "out")
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.convert(folder, "peft", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": ""}))
    with pytest.raises(CompatibilityError, match=r"the base model is needed.*--model FOLDER"):
        tunesmith.convert(folder, "peft-lora", tmp_path / "out")


def test_bounds_that_mean_nothing_there(tmp_path: Path) -> None:
    _, folder = saved("encoder", "lora", tmp_path)
    for settings, message in (
        ({"to": "peft", "rank": 4}, "rank=4: only peft-lora is of a chosen rank"),
        ({"to": "peft-lora", "rank": 0}, "rank=0: a whole number above 0 is needed"),
        ({"to": "peft-lora", "tolerance": float("nan")}, "tolerance=nan: a number of at least 0 is needed"),
    ):
        with pytest.raises(RecipeError, match=message):
            tunesmith.convert(folder, output=tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_whole_numbers_are_no_delta(tmp_path: Path) -> None:
    model, folder = saved("encoder", "lora", tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match="holds int8, not floating point numbers"):
        tunesmith.attach(model, folder, name="again")
