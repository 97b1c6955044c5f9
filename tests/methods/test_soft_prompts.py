"""Prefix, prompt and P-tuning against Hugging Face PEFT, and what they promise by themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tunesmith.core.errors import CompatibilityError
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.methods.multitask_prompt import MultitaskPrompt
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.hosting import HostSeam
from tunesmith.models.layout import ragged
from tunesmith.models.seams import open_seams

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IDS = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(5, 90, (2, 4), generator=torch.Generator().manual_seed(2))
MASK = torch.ones(2, 9, dtype=torch.int64)
MASK[0, 6:] = 0


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(vocab_size=96, max_position_embeddings=64, **SMALL))


def roberta() -> nn.Module:
    config = transformers.RobertaConfig(vocab_size=96, max_position_embeddings=66, pad_token_id=1, **SMALL)
    return transformers.RobertaModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(vocab_size=96, num_key_value_heads=2, max_position_embeddings=64, **SMALL)
    return transformers.LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return transformers.GPT2LMHeadModel(config)


def t5() -> nn.Module:
    config = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                   decoder_start_token_id=0)  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def bart() -> nn.Module:
    config = transformers.BartConfig(
        vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


def vit() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **SMALL))


FAMILIES = {"bert": bert, "roberta": roberta, "llama": llama, "gpt2": gpt2, "t5": t5, "bart": bart}
TASKS = {"llama": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM", "bart": "SEQ_2_SEQ_LM"}
CASTS = {"llama", "t5"}  # their norms compute in float32 whatever the model's type


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().double()


def answer(model: nn.Module, family: str) -> Tensor:
    extra = {"decoder_input_ids": TARGETS} if family in ("t5", "bart") else {}
    with torch.no_grad():
        output = model(input_ids=IDS, attention_mask=MASK, **extra)
    if hasattr(output, "logits"):
        return output.logits[..., -9:, :]
    return output.last_hidden_state[:, -9:] * MASK[..., None]


def agrees(ours: Tensor, theirs: Tensor, family: str) -> None:
    theirs = theirs[:, -ours.shape[1] :]
    bound = 1e-6 if family in CASTS else 1e-10
    assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


def filled(delta: Delta) -> None:
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.5)


METHODS = {
    "prefix": PrefixTuning(length=3),
    "made prefix": PrefixTuning(length=3, reparameterised=True),
    "prompt": PromptTuning(length=3, place="start"),
    "mlp": PTuning(length=3, place="start"),
    "lstm": PTuning(length=3, place="start", encoder="lstm"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_answers_alike_in_peft(family: str, method: str, tmp_path: Path) -> None:
    model, chosen = made(FAMILIES[family]), METHODS[method]
    if family in ("t5", "bart") and "prefix" in method:
        chosen = chosen.model_copy(update={"every_second": True})
    delta = chosen.attach(open_seams(model))
    filled(delta)
    save_delta(tmp_path, chosen, delta, "tiny")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    base = made(FAMILIES[family])
    torch.set_default_dtype(torch.float64)  # PEFT reads a prompt into the default type
    try:
        theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    agrees(answer(model, family), answer(theirs, family), family)


def configs(kind: str) -> peft.PeftConfig:
    if kind == "prefix":
        return peft.PrefixTuningConfig(num_virtual_tokens=3)
    if kind == "made prefix":
        return peft.PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=16)
    if kind == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=3)
    return peft.PromptEncoderConfig(
        num_virtual_tokens=3, encoder_hidden_size=16, encoder_reparameterization_type=kind.upper()
    )


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_answers_alike_here(family: str, kind: str, tmp_path: Path) -> None:
    config = configs(kind)
    config.task_type = TASKS.get(family, "FEATURE_EXTRACTION")
    if config.task_type == "SEQ_2_SEQ_LM":
        config.num_transformer_submodules = 2 if "prefix" in kind else 1
    torch.manual_seed(3)
    theirs = peft.get_peft_model(made(FAMILIES[family]), config).double().eval()
    theirs.save_pretrained(tmp_path)
    model = made(FAMILIES[family])
    tunesmith.attach(model, tmp_path)
    agrees(answer(model, family), answer(theirs, family), family)


SOFT = {
    "prefix": PrefixTuning(length=3),
    "prompt": PromptTuning(length=3),
    "p-tuning": PTuning(length=3),
    "tasks": MultitaskPrompt(length=3, tasks=2),
}
BACKBONES = {"bert": bert, "roberta": roberta, "llama": llama, "gpt2": gpt2}


def backbone(family: str) -> Backbone:
    model = made(BACKBONES[family])
    inner = model.base_model
    return Backbone(inner)


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("family", BACKBONES)
def test_flat_rows_equal_padded_ones_with_every_gradient(family: str, method: str) -> None:
    """Rows of two prompts and of none, in one flat batch, against the model's own padded path row by row."""
    core = backbone(family)
    assert core.proof.fast, core.proof.reason
    longer = SOFT[method].model_copy(update={"length": 5})
    deltas = [SOFT[method].attach(core.seams, "a"), longer.attach(core.seams, "b")]
    for delta in deltas:
        filled(delta)
    rows = [torch.randint(5, 90, (n,), generator=torch.Generator().manual_seed(n)) for n in (7, 4, 6, 4, 9)]
    names = ["a", "b", None, "a", "b"]
    batch = ragged(rows, names=names)
    hidden = core.hidden(batch)
    wanted = torch.randn(hidden.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    parameters = [parameter for delta in deltas for parameter in delta.parameters()]
    ours = torch.autograd.grad((hidden * wanted).sum(), parameters, allow_unused=True)
    parts, start = [], 0
    for number in batch.index.tolist():
        with core.seams.route([names[number]]):
            alone = core.model(input_ids=rows[number][None], attention_mask=torch.ones(1, len(rows[number])))
        parts.append(alone.last_hidden_state[0])
        agrees(hidden[None, start : start + len(rows[number])], parts[-1][None], family)
        start += len(rows[number])
    theirs = torch.autograd.grad((torch.cat(parts) * wanted).sum(), parameters, allow_unused=True)
    bound = 1e-6 if family in CASTS else 1e-10
    for first, second in zip(ours, theirs, strict=True):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert (first - second).abs().max() <= bound * max(1.0, float(second.abs().max()))


@pytest.mark.parametrize("method", [*SOFT, "lora"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_generation_is_the_same_with_cache_and_without(family: str, method: str) -> None:
    model = made(FAMILIES[family])
    delta = tunesmith.attach(model, SOFT.get(method, "lora"))
    filled(delta)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    prompt = IDS[:, :5]
    ones = torch.ones_like(prompt)

    def generated(ids: Tensor, mask: Tensor, **more: object) -> Tensor:
        return model.generate(ids, attention_mask=mask, **{**settings, **more})[:, -6:]

    cached = generated(prompt, ones)
    assert torch.equal(cached, generated(prompt, ones, use_cache=False))
    assert torch.equal(cached[1:], generated(prompt[1:], ones[1:])), "a batch of one"
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), prompt], dim=1)
    mask = torch.cat([torch.zeros(2, 3, dtype=torch.int64), ones], dim=1)
    if family != "bart":  # its positions count the padding, with or without a delta
        assert torch.equal(cached, generated(padded, mask)), "left padding"
    beams = generated(prompt, ones, num_beams=3)
    assert torch.equal(beams, generated(prompt, ones, num_beams=3, use_cache=False))
    with tunesmith.route(model, [None, "default"]):
        mixed = generated(prompt, ones)
        mixed_beams = generated(prompt, ones, num_beams=3)
    assert torch.equal(mixed[1], cached[1])
    assert torch.equal(mixed_beams[1], beams[1])
    delta.detach()
    assert torch.equal(mixed[0], generated(prompt, ones)[0])


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logits_come_at_the_callers_length(family: str, method: str) -> None:
    model = made(FAMILIES[family])
    filled(tunesmith.attach(model, SOFT[method]))
    with torch.no_grad():
        whole = model(IDS, labels=IDS)
        assert whole.logits.shape[:2] == IDS.shape
        assert torch.isfinite(whole.loss)
        assert torch.allclose(model(IDS, logits_to_keep=2).logits, whole.logits[:, -2:], atol=1e-13)
        left = torch.cat([torch.zeros(2, 2, dtype=torch.int64), IDS], dim=1)
        mask = (torch.arange(11) >= 2).long().expand(2, -1)
        right = torch.cat([IDS, torch.zeros(2, 2, dtype=torch.int64)], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        bound = 1e-6 if family in CASTS else 1e-10
        for ids, given, extra, part in (
            (left, mask, {"position_ids": positions}, slice(2, None)),
            (right, mask.flip(1), {}, slice(0, 9)),
        ):
            padded = model(ids, attention_mask=given, **extra).logits[:, part]
            assert (padded - whole.logits).abs().max() <= bound * whole.logits.abs().max()


def test_room_is_counted_from_the_position_of_the_first_token() -> None:
    core, length = backbone("roberta"), 4
    places = core.model.config.max_position_embeddings - 2  # it counts from behind the pad token's number
    PromptTuning(length=length).attach(core.seams)
    assert core.hidden(ragged([[5] * (places - length)])).isfinite().all()
    with pytest.raises(CompatibilityError, match=rf"can read {places}\. Shorten .*max_tokens={places - length}\)"):
        core.hidden(ragged([[5] * (places - length + 1)]))


def test_a_prompt_without_room_shows_the_numbers() -> None:
    model = made(gpt2)
    tunesmith.attach(model, PromptTuning(length=60))
    message = r"60 virtual tokens and a row of 9 tokens make 69, and GPT2Model can read 64.*max_tokens=4"
    with pytest.raises(CompatibilityError, match=message):
        model(IDS)


def test_text_needs_a_tokenizer() -> None:
    with pytest.raises(CompatibilityError, match="start=text, but start_text is empty"):
        tunesmith.attach(made(bert), "prompt-tuning", start="text")
    with pytest.raises(CompatibilityError, match="tokenizer is not known"):
        tunesmith.attach(made(bert), "prompt-tuning", start="text", start_text="a text")


@pytest.mark.parametrize("text", ["\u200b", "龘 龘", " "])
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix"])
def test_a_text_of_no_token_that_is_known(tiny_folder: Path, method: str, text: str) -> None:
    model, tokenizer = (
        kind.from_pretrained(tiny_folder) for kind in (transformers.AutoModel, transformers.AutoTokenizer)
    )
    with pytest.raises(CompatibilityError, match=r"method\.start_text: the model's tokenizer knows no token of"):
        tunesmith.attach(model, method, start="text", start_text=text, tokenizer=tokenizer)


@pytest.mark.parametrize("method", [PromptTuning, PrefixTuning])
def test_a_text_that_is_cut_or_partly_unknown_is_told(
    tiny_folder: Path, method: type[PromptTuning | PrefixTuning]
) -> None:
    model, tokenizer = (
        kind.from_pretrained(tiny_folder) for kind in (transformers.AutoModel, transformers.AutoTokenizer)
    )
    seams = tunesmith.attach(model, "lora", tokenizer=tokenizer).seams
    assert method(length=3, start="text", start_text="a b").warnings(seams) == []
    cut, strange = method(length=3, start="text", start_text="a 龘 b a b").warnings(seams)
    assert cut == "method.start_text has 5 tokens and method.length is 3: the last 2 are cut."
    assert "does not know 1 of 5 tokens" in strange


def test_tasks_share_a_prompt_and_differ_in_their_factor() -> None:
    model = made(llama)
    delta = tunesmith.attach(model, MultitaskPrompt(length=3, tasks=2, rank=2))
    filled(delta)
    with torch.no_grad():
        with tunesmith.route(model, ["default:0", "default:1"]):
            mixed = model(IDS).logits
        for task in (0, 1):
            with tunesmith.route(model, [f"default:{task}"]):
                assert (model(IDS[task : task + 1]).logits[0] - mixed[task]).abs().max() < 1e-6
    assert not torch.allclose(mixed[0], mixed[1])
    delta.detach()
    assert not open_seams(model).deltas


@pytest.mark.parametrize("place", ["start", "after-first"])
def test_a_first_token_that_heads_read_stays_first(place: str) -> None:
    model = made(bert)
    delta = tunesmith.attach(model, PromptTuning(length=3, place=place))
    filled(delta)
    with torch.no_grad():
        output = model(IDS, output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 9, 32)
    assert output.hidden_states[0].shape == (2, 9, 32)
    first = torch.tanh(output.last_hidden_state[:, 0] @ model.pooler.dense.weight.t() + model.pooler.dense.bias)
    assert torch.allclose(output.pooler_output, first) == (place == "after-first")


def test_a_folder_takes_another_delta(tmp_path: Path) -> None:
    model = made(gpt2)
    for method in (PTuning(length=3), Lora(rank=2)):
        delta = tunesmith.attach(model, method)
        filled(delta)
        delta.save(tmp_path)
        wanted = delta.state()
        delta.detach()
    again = tunesmith.attach(model, tmp_path)
    assert all(torch.equal(one, wanted[name]) for name, one in again.named_parameters())


def test_continued_training_keeps_the_network(tmp_path: Path) -> None:
    for method in (PTuning(length=3), PrefixTuning(length=3, reparameterised=True)):
        model = made(bert)
        delta = method.attach(open_seams(model))
        filled(delta)
        save_delta(tmp_path / method.name, method, delta, "tiny")
        again = made(bert)
        loaded, copy = load_delta(tmp_path / method.name, open_seams(again))
        assert loaded == method
        assert all(torch.equal(a, b) for a, b in zip(delta.parameters(), copy.parameters(), strict=True))
        (tmp_path / method.name / "reparameterisation.safetensors").unlink()
        with pytest.raises(tunesmith.TunesmithError, match="reparameterisation.safetensors"):
            load_delta(tmp_path / method.name, open_seams(made(bert)))


@pytest.mark.parametrize("name", sorted(components("methods")))
def test_every_method_generates_alike_with_cache_and_without(name: str) -> None:
    kind = components("methods")[name]
    model = made(gpt2)  # has biases, so every method can serve it
    delta = tunesmith.attach(model, kind(**kind.example))
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    prompt = IDS[:, :5]
    ones, zeros = torch.ones_like(prompt), torch.zeros(2, 3, dtype=torch.int64)
    cached = model.generate(prompt, attention_mask=ones, **settings)[:, -6:]
    slow = model.generate(prompt, attention_mask=ones, use_cache=False, **settings)[:, -6:]
    alone = model.generate(prompt[1:], attention_mask=ones[1:], **settings)[:, -6:]
    left = model.generate(
        torch.cat([zeros, prompt], dim=1), attention_mask=torch.cat([zeros, ones], dim=1), **settings
    )[:, -6:]
    assert torch.equal(cached, slow)
    assert torch.equal(cached[1:], alone)
    assert torch.equal(cached, left)


def test_settings_that_would_be_ignored_or_fail_later_are_refused() -> None:
    with pytest.raises(ValueError, match="There are tasks 0 to 1; raise tasks or choose one of them"):
        MultitaskPrompt(tasks=2, task=2)
    with pytest.raises(ValueError, match="It is read only with start: text"):
        PrefixTuning(start_text="a shop's customer writes")
    assert MultitaskPrompt(tasks=3, task=2).task == 2


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize("kind", [PromptTuning, PTuning])
def test_virtual_tokens_in_the_same_pass_equal_a_pass_of_their_own(
    build: Callable[[], nn.Module], kind: type[PromptTuning], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    core = Backbone(build().base_model.double().eval())  # type: ignore[operator, union-attr]
    delta, other = kind(length=4).attach(core.seams, "a"), PromptTuning(length=2).attach(core.seams, "b")
    PrefixTuning(length=3).attach(core.seams, "c")
    parameters = [*delta.parameters(), *other.parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.3)
    rows = [list(range(5, 5 + length)) for length in (3, 6, 3, 8, 2, 5)]
    passes: list[None] = []
    base = core.seams.hosts[0].base
    core.seams.hosts[0].base = lambda *given, **named: (passes.append(None), base(*given, **named))[1]
    for names in (["a"] * 6, ["a", "b", "c", None, "a", "b"]):
        core.seams.use("a")
        batch, found = ragged(rows, names=names), []
        for together in (True, False):
            passes.clear()
            with monkeypatch.context() as patched:
                if not together:
                    patched.setattr(HostSeam, "_leading", lambda *_: {})
                hidden = core.hidden(batch)
            assert len(passes) == 1 + (0 if together else len({"a", "b"} & set(names)))
            wanted = parameters if "b" in names else delta.parameters()
            weight = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
            found.append((hidden, *torch.autograd.grad((hidden * weight).sum(), wanted)))
        with torch.no_grad():
            found[1] += (core.hidden(batch),)
        for own, alone in zip((*found[0], found[0][0]), found[1], strict=True):
            assert (own - alone).abs().max() <= 1e-9 * alone.abs().max()


def test_a_layer_that_runs_again_and_again_has_one_prefix(tmp_path: Path) -> None:
    config = transformers.AlbertConfig(
        vocab_size=96, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48,
    )  # fmt: skip
    model = transformers.AlbertModel(config).eval()
    fresh = transformers.AlbertModel(config).eval()
    fresh.load_state_dict(model.state_dict())
    delta = tunesmith.attach(model, "prefix", length=2)
    answer = model(IDS).last_hidden_state
    answer.square().sum().backward()
    (matrix,) = delta.parameters()
    assert matrix.shape == (2, 2 * 32) and matrix.grad is not None and (matrix.grad != 0).all()
    delta.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] is None
    tunesmith.attach(fresh, tmp_path)
    assert torch.equal(fresh(IDS).last_hidden_state, answer)


def test_keys_and_values_of_unlike_widths_are_refused() -> None:
    config = transformers.DeepseekV3Config(
        vocab_size=96, num_key_value_heads=4, moe_intermediate_size=16, kv_lora_rank=8, q_lora_rank=8, v_head_dim=8,
        qk_rope_head_dim=4, qk_nope_head_dim=8, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2,
        pad_token_id=0, **SMALL,
    )  # fmt: skip
    model = transformers.AutoModel.from_config(config).eval()
    with pytest.raises(CompatibilityError, match="heads with keys of 12 and values of 8 numbers"):
        tunesmith.attach(model, "prefix", length=2)
