import copy
import gc
import pickle
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, TargetError
from tunesmith.methods.lora import Lora
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models


def encoder() -> nn.Module:
    return tiny_models()["encoder"].build()


def test_every_target_must_match_a_layer() -> None:
    with pytest.raises(TargetError, match=r"'qurey' matches no linear map .* Did you mean 'query'\? .*Nothing was"):
        Lora(layers=("key", "qurey")).attach(open_seams(encoder()))


@pytest.mark.parametrize(
    ("layers", "count"),
    [("all-linear", 13), ("query", 2), ("attention.output.dense", 2), ("encoder.layer.0.*", 6), (("query", "key"), 4),
     (r"re:.*layer\.1.*(query|value)", 2)],
)  # fmt: skip
def test_ways_to_choose_layers(layers: str | tuple[str, ...], count: int) -> None:
    assert len(Lora(layers=layers).attach(open_seams(encoder())).patches) == count


def test_three_deltas_in_one_pass_equal_three_passes() -> None:
    family = tiny_models()["encoder"]
    model = family.build()
    ids = torch.randint(5, 90, (5, 6), generator=torch.Generator().manual_seed(0))
    for number, name in enumerate("abc"):
        torch.manual_seed(number)
        delta = tunesmith.attach(model, Lora(rank=2), name)
        for parameter in delta.parameters():
            nn.init.normal_(parameter, std=0.2)
    names = ["a", "b", None, "b", "c"]
    with torch.no_grad():
        with tunesmith.route(model, names):
            mixed = model(ids).last_hidden_state
        for row, name in enumerate(names):
            with tunesmith.route(model, [name]):
                alone = model(ids[row : row + 1]).last_hidden_state
            assert torch.allclose(mixed[row], alone[0], atol=1e-5)


def test_routing_mistakes_are_named() -> None:
    model = encoder()
    tunesmith.attach(model, "lora", "a")
    with (
        pytest.raises(CompatibilityError, match=r"unknown delta 'aa'; did you mean 'a'\?"),
        tunesmith.route(model, ["aa"]),
    ):
        pass
    with (
        pytest.raises(CompatibilityError, match="2 delta names were given, but '.*' is called with 3 rows"),
        tunesmith.route(model, ["a", None]),
    ):
        model(torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(CompatibilityError, match="named 'a' is attached already"):
        tunesmith.attach(model, "lora", "a")
    with pytest.raises(CompatibilityError, match=r"unknown delta 'aa'; did you mean 'a'\?"):
        open_seams(model).use("aa")
    assert open_seams(model).routing.active == "a"


def test_close_leaves_no_trace() -> None:
    model = encoder()
    ids = torch.randint(5, 90, (2, 6))
    before = model(ids).last_hidden_state
    attention = model.config._attn_implementation
    seams = open_seams(model)
    Lora().attach(seams)
    seams.close()
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert model.config._attn_implementation == attention
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model(ids).last_hidden_state, before)


def test_a_delta_leaves_once() -> None:
    model = encoder()
    delta = tunesmith.attach(model, "lora", "a", rank=2)
    delta.detach()
    with pytest.raises(CompatibilityError, match="no delta named 'a' is attached"):
        delta.detach()
    with pytest.raises(CompatibilityError, match="'a' is not attached, so it cannot be merged"):
        delta.merge()
    with pytest.raises(RecipeError, match="rank: -1 is not allowed"):
        tunesmith.attach(model, "lora", "b", rank=-1)
    with pytest.raises(TargetError, match="has no linear map"):
        tunesmith.attach(nn.ReLU(), "lora")
    with pytest.raises(TargetError, match="no plain linear map. Name the ones to adapt, for example '0'"):
        tunesmith.attach(nn.Sequential(nn.Conv2d(3, 3, 3)), "lora")


def test_an_opened_model_is_freed() -> None:
    model = encoder()
    tunesmith.attach(model, "lora")
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None


def test_attach_to_a_plain_module() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    delta = tunesmith.attach(model, Lora(rank=2))
    assert delta.trainable_share == (2 * 12 + 2 * 10) / (4 * 8 + 8 + 8 * 2 + 2)
    model(torch.randn(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in delta.parameters())


def _shaken(delta: Delta) -> Delta:
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return delta


def test_merges_are_undone_in_the_order_of_a_stack() -> None:
    model, ids = encoder(), torch.randint(5, 90, (2, 6))
    before = model(ids).last_hidden_state
    first, second = (_shaken(tunesmith.attach(model, "lora", name)) for name in "ab")
    first.merge()
    second.merge()
    with pytest.raises(CompatibilityError, match="'a' cannot be unmerged: 'weight' of a Linear was changed after"):
        first.unmerge()
    for delta in (second, first):
        delta.unmerge()
        delta.detach()
    assert torch.equal(model(ids).last_hidden_state, before)


def test_a_merge_under_an_active_copy_reaches_the_base() -> None:
    model, ids = encoder(), torch.randint(5, 90, (2, 6))
    delta = _shaken(tunesmith.attach(model, "lora", "a"))
    tuned = model(ids).last_hidden_state
    other = tunesmith.attach(model, "full", "b")
    delta.merge()
    other.detach()
    assert torch.allclose(model(ids).last_hidden_state, tuned, atol=1e-5)


def test_unmerge_refuses_a_model_of_another_type() -> None:
    model = encoder()
    delta = tunesmith.attach(model, "lora", "a")
    delta.merge()
    model.to(torch.bfloat16)
    with pytest.raises(CompatibilityError, match=r"model is torch.bfloat16 on cpu by now, .* are torch.float32 on cpu"):
        delta.unmerge()
    model.to(torch.float32)
    delta.unmerge()


@pytest.mark.parametrize("method", ["bitfit", "full", "norm", "last-layers", "lora", "prefix"])
def test_the_model_moves_with_its_deltas(method: str) -> None:
    model, ids = encoder(), torch.randint(5, 90, (2, 6))
    reference = encoder().to(torch.float64)(ids).last_hidden_state
    delta, idle = tunesmith.attach(model, method, "a"), tunesmith.attach(model, "norm", "idle")
    model.to(torch.float64)
    idle.detach()
    delta.seams.use("a")
    assert model(ids).last_hidden_state.dtype == torch.float64
    delta.detach()
    assert torch.allclose(model(ids).last_hidden_state, reference, atol=1e-10)


@pytest.mark.parametrize("method", ["lora", "full", "prefix", "prompt-tuning"])
def test_a_copy_answers_as_the_model_does(method: str) -> None:
    model, ids = encoder(), torch.randint(5, 90, (2, 6))
    base = model(ids).last_hidden_state
    _shaken(tunesmith.attach(model, method))
    tuned = model(ids).last_hidden_state
    assert not torch.allclose(tuned, base, atol=1e-4)
    assert torch.equal(copy.deepcopy(model)(ids).last_hidden_state, tuned)
    with pytest.raises(CompatibilityError, match="an opened BertModel cannot be pickled"):
        pickle.dumps(model)


@pytest.mark.parametrize("names", [[], "ab", None, ["a", 1]])
def test_a_route_is_a_list_of_names(names: object) -> None:
    model = encoder()
    tunesmith.attach(model, "lora", "a")
    with pytest.raises(CompatibilityError, match="route takes a list|unknown delta '1'"):
        tunesmith.route(model, names).__enter__()  # type: ignore[arg-type]


def test_a_delta_does_not_leave_a_route_that_uses_it() -> None:
    model = encoder()
    tunesmith.attach(model, "lora", "a")
    other = tunesmith.attach(model, "lora", "b")
    with tunesmith.route(model, ["a", "b"]), pytest.raises(CompatibilityError, match="'b' answers rows of a route"):
        other.detach()
    other.detach()


def test_what_attach_cannot_take_is_named() -> None:
    model = encoder()
    for what, message in ((None, "not BertModel and None"), (3, "not BertModel and 3")):
        with pytest.raises(RecipeError, match=message):
            tunesmith.attach(model, what)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="settings rank belong to a method given by name"):
        tunesmith.attach(model, Lora(), rank=3)
    for place in ("runs/none/delta", Path("none")):
        with pytest.raises(CheckpointError, match=f"{place} is no folder. Give the folder of a saved delta"):
            tunesmith.attach(model, place)
    with pytest.raises(CompatibilityError, match="name is a text that is not empty, not None"):
        tunesmith.attach(model, "lora", None)  # type: ignore[arg-type]


def test_a_folder_called_like_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora").mkdir()
    delta = tunesmith.attach(encoder(), "lora", rank=3)
    delta.save("lora")
    with pytest.raises(RecipeError, match=r"'lora' is a method, and a folder .*Give '\./lora' for the delta"):
        tunesmith.attach(encoder(), "lora")
    for place in ("./lora", Path("lora")):
        assert tunesmith.attach(encoder(), place).state().keys() == delta.state().keys()


def test_names_are_counted_also_when_they_are_equal() -> None:
    model = tiny_models()["encoder"].build()
    tunesmith.attach(model, "lora", name="a")
    ids = torch.randint(5, 90, (3, 4))
    with tunesmith.route(model, ["a", "a", "a"]):
        model(ids)
    with tunesmith.route(model, ["a", "a"]), pytest.raises(CompatibilityError, match="2 delta names were given, but"):
        model(ids)
    model(ids)  # no route, no count


def test_a_list_of_layers_may_hold_all_of_them_and_more() -> None:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    seams = open_seams(transformers.LlamaForCausalLM(config))
    both = seams.select(["all-linear", "lm_head"])
    assert both == [*seams.select("all-linear"), "lm_head"]
    assert seams.select(["top-half", "layers.0.mlp.up_proj"]) == [
        "model.layers.0.mlp.up_proj",
        *seams.select("top-half"),
    ]


def test_a_second_delta_begins_at_the_base() -> None:
    """The first one's copies stand in the model while it is in use."""
    model = encoder()
    before = {path: parameter.clone() for path, parameter in model.named_parameters()}
    first = tunesmith.attach(model, "bitfit", "first")
    for parameter in first.parameters():
        nn.init.constant_(parameter, 3.0)
    second = tunesmith.attach(model, "bitfit", "second")
    assert all(torch.equal(copy, before[path]) for path, copy in second.copies.items())
    whole = tunesmith.attach(model, "full", "whole")
    for parameter in whole.parameters():
        nn.init.constant_(parameter, 3.0)
    rows = tunesmith.attach(model, "trainable-tokens", "rows", token_indices=(5, 7))
    table = before["embeddings.word_embeddings.weight"]
    assert torch.equal(rows.parameters()[0], table[[5, 7]])
    open_seams(model).use("whole")
    (prompt,) = tunesmith.attach(model, "prompt-tuning", "prompt", length=3).parameters()
    assert all((row == table).all(1).any() for row in prompt)


def test_tied_tables_stay_tied_beside_a_copy_that_stands_alone() -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=4, n_positions=64, eos_token_id=0)
    config.bos_token_id = 0
    model = transformers.GPT2LMHeadModel(config).eval()
    tunesmith.attach(model, Lora(layers="c_attn", modules_to_save=("lm_head",)), "first")
    rows = tunesmith.attach(model, "trainable-tokens", "rows", token_indices=(5, 7))
    assert list(rows.patches) == ["transformer.wte", "lm_head"]
    open_seams(model).use("first")
    second = tunesmith.attach(model, "full", "second")
    assert "transformer.wte.weight" in second.copies and "lm_head.weight" not in second.copies
    assert model.lm_head.weight is model.transformer.wte.weight


def test_attention_with_sinks_is_refused() -> None:
    """transformers' own function for padded batches would leave them out and say nothing."""
    config = transformers.GptOssConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=32, num_local_experts=2, num_experts_per_tok=1, pad_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModel.from_config(config).eval()
    open_seams(model)
    with pytest.raises(CompatibilityError, match="GptOssAttention adds learned sinks to its attention scores"):
        model(torch.ones(1, 4, dtype=torch.int64))


def test_torchs_own_attention_has_no_map_to_adapt() -> None:
    for model in (nn.MultiheadAttention(8, 2), nn.ModuleList([nn.MultiheadAttention(8, 2)])):
        with pytest.raises(TargetError, match="has no linear map, so nothing would train"):
            tunesmith.attach(model, "lora")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("masked", [False, True])
def test_torchs_own_encoder_sees_deltas_in_evaluation(masked: bool) -> None:
    """Its fast path reads the weights and calls no map."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, mask = torch.randn(2, 5, 32), torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if masked else None
    with torch.no_grad():
        base = model(x, src_key_padding_mask=mask)
        delta = tunesmith.attach(model, "lora", layers=("linear1", "linear2"))
        assert torch.allclose(model(x, src_key_padding_mask=mask)[0], base[0], atol=1e-5)
        for parameter in delta.parameters():
            nn.init.normal_(parameter, std=0.3)
        tuned = model(x, src_key_padding_mask=mask)
        assert not torch.allclose(tuned[0], base[0], atol=0.1)
        assert torch.equal(tuned[0], model.train()(x, src_key_padding_mask=mask)[0])
    open_seams(model).close()
    with torch.no_grad():
        assert torch.equal(model.eval()(x, src_key_padding_mask=mask), base)


class Owner(nn.Module):
    """It owns a parameter, and calls its map by the argument's name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.map = nn.Linear(4, 4)

    def forward(self, hidden: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        return self.map(input=hidden) * self.scale + shift


class Caller(nn.Module):
    """It calls another module by its arguments' names."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = Owner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.owner(shift=1.0, hidden=x)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_modules_may_be_called_by_their_arguments_names(method: str) -> None:
    torch.manual_seed(0)
    model, x = Caller(), torch.randn(2, 4)
    base = model(x)
    delta = tunesmith.attach(model, method)
    assert torch.allclose(model(x), base)
    for parameter in delta.parameters():
        nn.init.normal_(parameter)
    tuned = model(x)
    assert not torch.allclose(tuned, base)
    with tunesmith.route(model, [None, "default"]):
        mixed = model(x)
    assert torch.allclose(mixed[0], base[0]) and torch.allclose(mixed[1], tuned[1])


def test_a_task_may_leave_before_its_prompt() -> None:
    model = encoder()
    delta = tunesmith.attach(model, "multitask-prompt", "both", tasks=2, length=2, modules_to_save=("pooler",))
    with tunesmith.route(model, ["both:0", "both:1"]), pytest.raises(CompatibilityError, match="rows of a route"):
        delta.detach()
    assert len(delta.seams.deltas) == 3
    delta.seams.detach("both:1")
    delta.detach()
    assert not delta.seams.deltas and not any(seam.copies for seam in delta.seams.modules.values())


class Recurrent(nn.Module):
    """A network whose layer gives what it remembers besides."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.memory(x)[0]


def test_rows_are_not_mixed_where_a_module_gives_several_tensors() -> None:
    model, x = Recurrent(), torch.randn(2, 5, 4)
    tunesmith.attach(model, "full")
    model(x)
    with (
        tunesmith.route(model, [None, "default"]),
        pytest.raises(CompatibilityError, match="'memory' gives a tuple, not one tensor of its rows"),
    ):
        model(x)
