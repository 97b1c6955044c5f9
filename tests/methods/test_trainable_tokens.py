"""Chosen rows of the embeddings train, and only they: in the model, in the file, and as in PEFT."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, TargetError
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.methods.trainable_tokens import TrainableTokens
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.models.tokens import add_tokens
from tunesmith.testing import tiny_models

WORDS = 96
CHOSEN = (11, 7, 42)  # not in order, as PEFT allows
BOUND = {"gpt2": 1e-10, "llama": 1e-6, "llama-tied": 1e-6, "bart": 1e-10, "t5": 1e-6, "bert": 1e-10}
TIED = {"gpt2", "llama-tied", "bart", "t5", "bert"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def language_model(family: str, vocabulary: int = WORDS) -> nn.Module:
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": vocabulary}
    if family == "gpt2":
        config: Any = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **size)
        return transformers.GPT2LMHeadModel(config).eval()
    if family.startswith("llama"):
        tied = family == "llama-tied"
        config = transformers.LlamaConfig(num_key_value_heads=2, tie_word_embeddings=tied, **SMALL, **size)
        return transformers.LlamaForCausalLM(config).eval()
    if family == "bart":
        config = transformers.BartConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, scale_embedding=True, **size,
        )  # fmt: skip
        return transformers.BartForConditionalGeneration(config).eval()
    if family == "t5":
        config = transformers.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                       decoder_start_token_id=0, **size)  # fmt: skip
        return transformers.T5ForConditionalGeneration(config).eval()
    return transformers.BertForMaskedLM(transformers.BertConfig(max_position_embeddings=64, **SMALL, **size)).eval()


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, WORDS, (3, 9), generator=torch.Generator().manual_seed(1))
    ids[0, :3] = torch.tensor(CHOSEN)
    ids[1, 4] = CHOSEN[0]
    return {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(model)).logits


def trained(model: nn.Module, method: TrainableTokens | None = None, steps: int = 5) -> Delta:
    delta = (method or TrainableTokens(token_indices=CHOSEN)).attach(open_seams(model))
    optimizer = torch.optim.Adam(delta.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        given = inputs(model)
        output = model(**given).logits
        nn.functional.cross_entropy(output.flatten(0, 1), given["input_ids"].flatten()).backward()
        optimizer.step()
    return delta


@pytest.mark.parametrize("family", BOUND)
def test_only_the_chosen_rows_differ(family: str, tmp_path: Path) -> None:
    model = language_model(family).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = logits(model)
    method = TrainableTokens(token_indices=CHOSEN)
    delta = trained(model, method)
    tuned = logits(model)
    assert (tuned - base).abs().max() > 0.1
    assert sum(parameter.numel() for parameter in delta.parameters()) == len(CHOSEN) * 32

    save_delta(tmp_path, method, delta, "tiny")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensor = next(iter(tensors.values()))
    assert tensor.shape == (len(CHOSEN), 32)
    for name, stored in tensors.items():  # tied maps have the rows under their own name, as PEFT asks
        assert name.endswith(".trainable_tokens_delta") and torch.equal(stored, tensor)
    assert {name.removeprefix("base_model.model.").rpartition(".")[0] for name in tensors} == set(delta.patches)
    again = language_model(family).double()
    loaded, _ = load_delta(tmp_path, open_seams(again))
    assert loaded == method and torch.equal(logits(again), tuned)

    delta.detach()
    assert torch.equal(logits(model), base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == (family in TIED)
    merged = open_seams(again).deltas["default"].merge()
    assert (logits(merged) - tuned).abs().max() <= BOUND[family] * tuned.abs().max()
    table = merged.get_input_embeddings().weight
    assert torch.equal(table[list(CHOSEN)], tensor), "merging writes the very rows"
    others = [number for number in range(WORDS) if number not in CHOSEN]
    assert torch.equal(table[others], before[table_name(model)][others])
    assert (merged.get_output_embeddings().weight is table) == tied


def table_name(model: nn.Module) -> str:
    table = model.get_input_embeddings()
    return next(f"{path}.weight" for path, module in model.named_modules() if module is table)


def test_merge_is_undone_exactly() -> None:
    model = language_model("gpt2")
    base = logits(model)
    delta = trained(model)
    tuned = logits(model)
    delta.merge()
    delta.unmerge()
    assert torch.equal(logits(model), tuned)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    delta.detach()
    assert torch.equal(logits(model), base)


def test_gradients_are_those_of_the_whole_table() -> None:
    """The rows get what the same rows of a table that trains in full get, tied output map included."""
    model = language_model("bart").double()
    given = inputs(model)
    model(**given).logits.pow(2).mean().backward()
    expected = model.get_input_embeddings().weight.grad[list(CHOSEN)].clone()
    model.zero_grad()
    delta = TrainableTokens(token_indices=CHOSEN).attach(open_seams(model))
    model(**given).logits.pow(2).mean().backward()
    (rows,) = delta.parameters()
    assert (rows.grad - expected).abs().max() <= 1e-10 * expected.abs().max()


def theirs_untrained(family: str, **settings: object) -> Any:
    return peft.get_peft_model(
        language_model(family), peft.TrainableTokensConfig(token_indices=list(CHOSEN), **settings)
    )


@pytest.mark.parametrize("family", BOUND)
def test_ours_loads_in_peft(family: str, tmp_path: Path) -> None:
    model = language_model(family).double()
    method = TrainableTokens(token_indices=CHOSEN)
    delta = trained(model, method)
    save_delta(tmp_path, method, delta, "tiny")
    theirs = peft.PeftModel.from_pretrained(language_model(family).double(), tmp_path).double()
    expected = logits(model)
    assert (logits(theirs) - expected).abs().max() <= BOUND[family] * expected.abs().max()


@pytest.mark.parametrize("family", BOUND)
def test_peft_loads_here(family: str, tmp_path: Path) -> None:
    theirs = theirs_untrained(family)
    for name, parameter in theirs.named_parameters():
        if "trainable_tokens_delta" in name:
            nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    model = language_model(family).double()
    tunesmith.attach(model, tmp_path)
    expected = logits(theirs.double())
    assert (logits(model) - expected).abs().max() <= BOUND[family] * expected.abs().max()
    assert (logits(model) - logits(language_model(family).double())).abs().max() > 0.1


@pytest.mark.parametrize("ours", [True, False])
def test_an_encoder_without_output_map(ours: bool, tmp_path: Path) -> None:
    ids = torch.tensor([[1, *CHOSEN, 50]])
    model = tiny_models()["encoder"].build().double()
    if ours:
        method = TrainableTokens(token_indices=CHOSEN)
        delta = method.attach(open_seams(model))
        nn.init.normal_(delta.parameters()[0])
        save_delta(tmp_path, method, delta, "tiny")
        theirs = peft.PeftModel.from_pretrained(tiny_models()["encoder"].build().double(), tmp_path).double()
    else:
        config = peft.TrainableTokensConfig(token_indices=list(CHOSEN), target_modules=["word_embeddings"])
        theirs = peft.get_peft_model(tiny_models()["encoder"].build(), config).double().eval()
        nn.init.normal_(theirs.base_model.model.embeddings.word_embeddings.trainable_tokens_delta["default"])
        theirs.save_pretrained(tmp_path)
        tunesmith.attach(model, tmp_path)
    with torch.no_grad():
        expected = theirs(ids).last_hidden_state
        assert (model(ids).last_hidden_state - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_another_table_stands_alone_as_in_peft(tmp_path: Path) -> None:
    """Named by itself, one of several tied tables trains alone; PEFT reads and writes it so."""
    model = language_model("bart").double()
    method = TrainableTokens(token_indices=CHOSEN, layers="encoder.embed_tokens")
    delta = trained(model, method)
    assert list(delta.patches) == ["model.encoder.embed_tokens"]
    save_delta(tmp_path, method, delta, "tiny")
    theirs = peft.PeftModel.from_pretrained(language_model("bart").double(), tmp_path).double()
    expected = logits(model)
    assert (logits(theirs) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_new_tokens_train_alone_and_come_back(family: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Base, the same new tokens, the folder: the trained model again, in ours and in PEFT."""

    def grown() -> tuple[nn.Module, Any, list[int]]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
        model = language_model(family, vocabulary=len(tokenizer)).double()
        return model, tokenizer, add_tokens(model, tokenizer, ["<first>", "<second>"])

    model, tokenizer, ids = grown()
    text = "hello <first> friend <second> bye"
    given = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert set(ids) <= set(given[0].tolist())
    open_seams(model).tokenizer = tokenizer
    method = TrainableTokens(tokens=("<first>", "<second>"))
    delta = method.attach(open_seams(model))
    optimizer = torch.optim.Adam(delta.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(input_ids=given, labels=given).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    (rows,) = delta.parameters()
    assert not torch.equal(rows[0], rows[1])

    save_delta(tmp_path, method, delta, "tiny")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["token_indices"] == ids
    assert {tensor.shape for tensor in load_file(tmp_path / "adapter_model.safetensors").values()} == {(2, 32)}
    expected = model(input_ids=given).logits
    again, _, _ = grown()
    loaded, _ = load_delta(tmp_path, open_seams(again))  # no tokenizer is needed any more
    assert loaded == TrainableTokens(token_indices=tuple(ids))
    assert torch.equal(again(input_ids=given).logits, expected)
    theirs = peft.PeftModel.from_pretrained(grown()[0], tmp_path).double()
    assert (theirs(input_ids=given).logits - expected).abs().max() <= BOUND[family] * expected.abs().max()


def test_half_precision_keeps_its_dtype() -> None:
    model = language_model("gpt2").to(torch.bfloat16)
    base = logits(model)
    delta = TrainableTokens(token_indices=CHOSEN).attach(open_seams(model))
    assert delta.parameters()[0].dtype == torch.float32
    assert logits(model).dtype == torch.bfloat16
    assert torch.allclose(logits(model), base, atol=1e-2)


def test_the_bias_of_a_tied_output_map_stays() -> None:
    """PEFT 0.21 leaves it out, so that even an untrained adapter changes the logits there."""
    model = language_model("bert").double()
    nn.init.normal_(model.cls.predictions.decoder.bias)
    base = logits(model)
    TrainableTokens(token_indices=CHOSEN).attach(open_seams(model))
    assert (logits(model) - base).abs().max() <= 1e-12


def test_rows_of_a_batch_choose_for_themselves() -> None:
    model = language_model("gpt2")
    base = logits(model)
    delta = trained(model)
    tuned = logits(model)
    with tunesmith.route(model, [None, delta.name, None]):
        mixed = logits(model)
    for row, expected in enumerate((base, tuned, base)):
        assert torch.allclose(mixed[row], expected[row], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no token is chosen.*token_indices.*tokens="),
        ({"token_indices": (3, 5, 3)}, r"\[3\] are chosen twice"),
        ({"token_indices": (3, 96)}, r"\[96\] are no rows of 'transformer.wte', which has ids 0 to 95.*add_tokens"),
        ({"token_indices": (-1,)}, r"\[-1\] are no rows"),
        ({"tokens": ("friend",)}, r"needs the model's tokenizer.*token_indices"),
        ({"token_indices": (3,), "layers": "lm_head"}, "'lm_head' is no table"),
        ({"token_indices": (3,), "layers": "nowhere"}, "'nowhere' matches no linear map"),
    ],
)
def test_what_cannot_train_is_refused(settings: dict[str, Any], message: str) -> None:
    model = language_model("gpt2")
    base = logits(model)
    with pytest.raises(TargetError, match=message):
        tunesmith.attach(model, "trainable-tokens", **settings)
    assert torch.equal(logits(model), base)


def test_tokens_are_looked_up(tiny_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    model = language_model("gpt2", vocabulary=len(tokenizer))
    open_seams(model).tokenizer = tokenizer
    delta = tunesmith.attach(model, "trainable-tokens", tokens=("friend", "hello"), token_indices=(1,))
    expected = [1, tokenizer.get_vocab()["friend"], tokenizer.get_vocab()["hello"]]
    assert next(iter(delta.patches.values())).ids.tolist() == expected
    with pytest.raises(TargetError, match=r"'frend' is not in the vocabulary.*did you mean 'friend'.*add_tokens"):
        tunesmith.attach(model, "trainable-tokens", "other", tokens=("frend",))


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    method = TrainableTokens(token_indices=CHOSEN)
    tied = method.attach(open_seams(language_model("gpt2")))
    tensors = {name: torch.zeros(3, 32) + number for number, name in enumerate(method.tensors(tied))}
    with pytest.raises(CheckpointError, match="rows.safetensors: 'base_model.model.lm_head.*share one weight"):
        method.load(tied, tensors, "rows.safetensors")
    save_delta(tmp_path, method, method.attach(open_seams(language_model("gpt2"))), "tiny")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        tunesmith.attach(language_model("llama"), tmp_path)
