"""Merge a delta into its base model, proven: the merged model answers as the tuned one, or nothing is written."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError
from tunesmith.core.files import read_json, sha256_of, write_json
from tunesmith.data.examples import Columns, find_reader, read_examples
from tunesmith.data.tokens import TokenRows
from tunesmith.methods.base import Method
from tunesmith.methods.store import (
    CONFIG,
    WRITING,
    load_delta,
    open_base,
    read_folder,
    read_tensors,
    save_tensors,
    task_type,
)
from tunesmith.models.delta import Delta
from tunesmith.models.language import LanguageModel
from tunesmith.models.loading import choose_device, load_model, load_tokenizer, locate, quiet
from tunesmith.models.placing import device_of
from tunesmith.models.quantized import dense, is_quantised
from tunesmith.models.seams import open_seams
from tunesmith.recipe.schema import DataSettings
from tunesmith.runs.agreement import Agreement, Answers, agreement
from tunesmith.runs.folder import check_new, check_single, staged
from tunesmith.runs.opening import family_of, held_out_again
from tunesmith.runs.run import Run
from tunesmith.tasks.running import extract_features
from tunesmith.training.batching import batch_of
from tunesmith.training.texts import read_texts

MODEL, ORIGINAL, MERGE = "model.safetensors", "original.safetensors", "merge.json"
_OF_A_RUN = ("head.safetensors", "labels.json", "prompt.yaml")
_OF_A_SENTENCE_MODEL = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling")
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
_LOGITS = 50_000_000  # that a comparison holds at most, before and after
_RANDOM_ROWS, _RANDOM_TOKENS = 64, 16

_ROUNDINGS = 100  # of one number, that a difference between two ways to add may come to


@dataclass
class Subject:
    """What is merged and how it is asked.

    Args:
        delta: attached.
        method: that attached it; None when unknown.
        answer: gives (features, logits) for the held-out rows, either may be None.
        rows: how many there are. [count]
        rows_from: where they come from.
        tokenizer: of the model, or None.
        facts: hashes and names for merge.json.
        files: to copy beside the model.
    """

    delta: Delta
    method: Method | None
    answer: Callable[[], Answers]
    rows: int
    rows_from: str
    tokenizer: Any
    facts: dict[str, Any]
    files: list[Path] = field(default_factory=list)


# Merging ------------------------------------------------------------------------------------------------------


def merge_verified(
    source: Run | Delta | str | Path, output: Path, data: str | None, tolerance: float | None, rows: int, keep: bool
) -> dict[str, Any]:
    """Merge a delta into its base, compare the answers, and write the merged model as a folder.

    Args:
        source: a run or its folder, a delta folder, or an attached delta; an attached one stays as it was.
        output: new folder.
        data: file with held-out texts; None takes the run's, or random tokens for a delta without a run.
        tolerance: largest difference allowed, relative to the largest logit; by the model's precision when None.
        rows: at most so many are compared. [count]
        keep: store the untouched tensors too, for `unmerge_folder`.
    Returns:
        The figures, as plain values.
    Raises:
        CompatibilityError: the method cannot be merged, or the answers differ by more than the tolerance.
        CheckpointError: the output exists or cannot be written.
    """
    check_new(output)
    if rows < 1 or (tolerance is not None and not tolerance > 0):
        raise RecipeError(f"rows={rows}, tolerance={tolerance}: rows is at least 1 and tolerance above 0.")
    subject = _subject(source, data, rows)
    delta, model = subject.delta, subject.delta.seams.model
    if subject.method is not None and not subject.method.can_merge:
        raise CompatibilityError(
            f"'{subject.method.name}' cannot be merged: what it does is no change of the model's weights. Keep the "
            "delta and attach it to its base model."
        )
    precision = next(parameter.dtype for parameter in model.parameters() if parameter.dtype in _TOLERANCE)
    bound = _TOLERANCE[precision] if tolerance is None else tolerance
    before = subject.answer()
    delta.seams.use(None)
    base = subject.answer()
    delta.seams.use(delta.name)
    facts = {**subject.facts, **_quantised(model, delta)}
    delta.merge()
    try:
        found = agreement(before, subject.answer(), bound, base)
        facts |= _figures(found, subject, bound)
        if not found.within(bound, _ROUNDINGS * torch.finfo(precision).eps):
            raise CompatibilityError(_refusal(found, subject, bound))
        with staged(output) as folder:
            _write(folder, subject, facts, keep)
    finally:
        delta.unmerge()
    return {"output": str(output), **facts}


def _figures(found: Agreement, subject: Subject, bound: float) -> dict[str, Any]:
    return {
        "rows": subject.rows,
        "rows_from": subject.rows_from,
        f"largest_{found.what[:-1]}_difference": found.largest_difference,
        f"largest_{found.what[:-1]}": found.scale,
        "relative_difference": found.relative,
        "difference_of_the_deltas_effect": found.of_effect,
        "mean_kl": found.mean_kl,
        "argmax_agreement": found.argmax_agreement,
        "tolerance": bound,
    }


def _refusal(found: Agreement, subject: Subject, bound: float) -> str:
    kl = (
        "" if found.mean_kl is None else f", mean KL {found.mean_kl:.2e}, argmax agreement {found.argmax_agreement:.2%}"
    )
    return (
        f"the merged model does not answer as the tuned one: on {subject.rows} rows ({subject.rows_from}) the largest "
        f"difference of {found.what} is {found.largest_difference:.2e} at a largest value of {found.scale:.2e}, "
        f"relative {found.relative:.2e}{kl}; the tolerance is {bound:.2e}; the delta itself changes {found.what} by "
        f"{found.effect:.2e}, the difference is relative {found.of_effect:.2f} of that. Nothing was written. Keep the "
        "delta attached, merge in a higher precision (model.dtype), or accept it with a higher tolerance."
    )


def _quantised(model: nn.Module, delta: Delta) -> dict[str, Any]:
    """Say what becomes of weights that are held in fewer bits."""
    held = {id(parameter) for parameter in model.parameters() if is_quantised(parameter)}
    if not held:
        return {}
    merged = [path for path in delta.patches if id(delta.seams.linear[path].stored) in held]
    return {
        "quantised_layers": len(held),
        "quantised_layers_merged": len(merged),
        "quantised_note": "the base was quantised: its layers were read back and are written in full precision, so the "
        "merged model lacks what quantising the base had lost and nothing more; quantising it again would lose more",
    }


# What is asked ------------------------------------------------------------------------------------------------


def _subject(source: Run | Delta | str | Path, data: str | None, rows: int) -> Subject:
    if isinstance(source, Delta):
        facts = {"delta_hash": _hash_of_state(source), "base_model": _name(source.seams.model)}
        return _bare(source, None, source.seams.tokenizer, facts, data, rows)
    if isinstance(source, Run):
        return _of_run(source, data, rows)
    folder = Path(source).expanduser()
    if (folder / CONFIG).is_file():
        return _of_folder(folder, data, rows)
    return _of_run(Run.load(folder), data, rows)


def _held_out(run: Run, data: str | None, rows: int) -> tuple[TokenRows, str]:
    """Return rows that did not train: of a file given, of the run's test or validation file, of its held-out share."""
    session, settings = run._opened[0], run.recipe.recipe.data
    path, held = _untrained(settings, data)
    if path is not None:
        found, where = run._read_texts(path).rows(), path
    else:
        split = held_out_again(run.recipe, session, run.fingerprint, run.labels)
        found, where = split.examples.rows(split.index), f"the share of train that was held out for {held}"
    return family_of(run.recipe).encode(session, islice(found, rows))[0], where


def _untrained(settings: DataSettings, data: str | None) -> tuple[str | None, str]:
    """Return the file of rows that did not train, or None, and the split that is a share of train."""
    if data is not None:
        return data, "data"
    held = "validation" if settings.test is None else "test"
    value = getattr(settings, held)
    return (value if isinstance(value, str) else None), held


def _of_run(run: Run, data: str | None, rows: int) -> Subject:
    check_single(run.folder, "merge")
    session, tuned = run._opened
    if session.chat is not None:
        return _of_writing_run(run, data, rows)
    tokens, where = _held_out(run, data, rows)

    def answer() -> Answers:
        features = extract_features(tuned.backbone, tuned.task, tokens)
        with torch.no_grad():
            logits = tuned.head(features.to(tuned.head_tensor())).cpu()
        return features, logits

    facts = _facts_of(run)
    files = [run.folder / name for name in _OF_A_RUN]
    if session.source.local:
        files += [Path(session.source.path) / name for name in _OF_A_SENTENCE_MODEL]
    return Subject(tuned.delta, run.recipe.method, answer, len(tokens), where, session.tokenizer, facts, files)


def _facts_of(run: Run) -> dict[str, Any]:
    session = run._opened[0]
    return {
        "run": str(run.folder),
        "delta_hash": "sha256:" + sha256_of(sorted((run.folder / "delta").glob("*.safetensors"))),
        "base_model": session.source.wanted,
        "base_hash": session.model_hash,
    }


def _of_writing_run(run: Run, data: str | None, rows: int) -> Subject:
    """Ask a run that writes for the logits of the tokens that held-out rows are to learn."""
    (session, tuned), settings = run._opened, run.recipe.recipe.data
    path, held = _untrained(settings, data)
    where = path or f"the share of train that was held out for {held}"
    assert session.chat is not None and isinstance(session.backbone, LanguageModel)
    if path is None:
        split = held_out_again(run.recipe, session, run.fingerprint, ())
    else:
        split = read_texts(path, settings, run.recipe.task, session.chat, session.max_tokens)
    model, kept, cells = session.backbone, list[int](), 0
    for row in range(min(rows, len(split.tokens))):
        cells += split.tokens.items(row) * model.vocabulary
        if kept and cells > _LOGITS:
            break
        kept.append(row)

    @torch.no_grad()
    def answer() -> Answers:
        tuned.train(False)
        found = []
        for row in kept:
            batch = batch_of(split, [row])
            states = tuned.task.read(model, batch)
            found += [model.logits(states[part]).cpu() for part in model.chunks(len(states))]
        return None, torch.cat(found)

    facts, files = _facts_of(run), [run.folder / "prompt.yaml"]
    return Subject(tuned.delta, run.recipe.method, answer, len(kept), where, session.tokenizer, facts, files)


def _of_folder(folder: Path, data: str | None, rows: int) -> Subject:
    base = str(read_json(folder / CONFIG, dict).get("base_model_name_or_path") or "")
    if not base:
        raise CompatibilityError(
            f"{folder / CONFIG} does not name the base model (base_model_name_or_path). Write it there, or attach the "
            "delta to its model in Python and merge that."
        )
    found = read_folder(folder)  # a damaged one is named before the model is loaded
    source = locate(base)
    model = open_base(found, source, choose_device("auto"))
    method, delta = load_delta(folder, open_seams(model))
    weights = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    facts = {
        "delta": str(folder),
        "delta_hash": "sha256:" + sha256_of(weights),
        "base_model": base,
        "base_hash": source.hash(model.config),
    }
    files = [Path(source.path) / name for name in _OF_A_SENTENCE_MODEL] if source.local else []
    subject = _bare(delta, method, load_tokenizer(source), facts, data, rows)
    subject.files = files
    return subject


def _bare(delta: Delta, method: Method | None, tokenizer: Any, facts: dict[str, Any], data: str | None,
          rows: int) -> Subject:  # fmt: skip
    """Ask a model without a task: its logits where it has some, else its last hidden states."""
    model: Any = delta.seams.model
    if data is None:
        batches, count = [_random(model)], _RANDOM_ROWS
    else:
        texts = _texts(data, tokenizer)[:rows]
        batches, count = [dict(tokenizer(text, truncation=True, return_tensors="pt")) for text in texts], len(texts)

    @torch.no_grad()
    def answer() -> Answers:
        training = model.training
        model.eval()
        try:
            outputs = [model(**_inputs(model, batch)) for batch in batches]
        finally:
            model.train(training)
        if getattr(outputs[0], "logits", None) is not None:
            return None, torch.cat([output.logits.flatten(0, -2).cpu() for output in outputs])
        return torch.cat([output.last_hidden_state.flatten(0, 1).cpu() for output in outputs]), None

    where = f"{_RANDOM_ROWS} rows of random tokens" if data is None else data
    return Subject(delta, method, answer, count, where, tokenizer, facts)


def _inputs(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return inputs


def _random(model: Any) -> dict[str, Tensor]:
    words = getattr(getattr(model, "config", None), "vocab_size", None)
    if not words:
        raise CompatibilityError(
            f"{type(model).__name__} reads no tokens, so it cannot be asked with random ones. In Python, compare its "
            "answers yourself around delta.merge()."
        )
    low = min(10, words - 1)
    draw = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(low, words, (_RANDOM_ROWS, _RANDOM_TOKENS), generator=draw)}


def _texts(path: str, tokenizer: Any) -> list[str]:
    if tokenizer is None:
        raise CompatibilityError(f"data={path}: the model's tokenizer is not known here. Leave data out.")
    reader = find_reader(path)
    examples = read_examples(reader, Columns(reader.only_column or "text", None))
    return [examples.text(number) for number in range(len(examples))]


def _hash_of_state(delta: Delta) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(delta.state().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return "sha256:" + digest.hexdigest()


def _name(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)


# Writing ------------------------------------------------------------------------------------------------------


def _write(folder: Path, subject: Subject, facts: dict[str, Any], keep: bool) -> None:
    model: Any = subject.delta.seams.model
    with torch.device("meta"):
        fresh = type(model)(model.config)
    turned = _turned(model, fresh)
    state = {name: _plain(name, tensor, turned) for name, tensor in model.state_dict().items()}
    state |= _switched_off(model, fresh.state_dict().keys() - state.keys(), subject)
    attention = getattr(model.config, "_attn_implementation", None)
    with quiet():
        model.save_pretrained(folder, state_dict=state, max_shard_size="1000GB")
    model.config._attn_implementation = attention
    _check_reads_back(folder, model, state)
    if subject.tokenizer is not None:
        subject.tokenizer.save_pretrained(folder)
    for path in subject.files:
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path.is_file():
            shutil.copyfile(path, folder / path.name)
    record = {**facts, "method": None if subject.method is None else subject.method.describe()}
    record["model_hash"] = "sha256:" + sha256_of([folder / MODEL])
    if keep:
        originals, added = _originals(subject.delta, model, turned)
        save_tensors(folder / ORIGINAL, originals)
        record |= {"added": added, "original_hash": "sha256:" + sha256_of([folder / ORIGINAL])}
    write_json(folder / MERGE, record)


def _plain(name: str, tensor: Tensor, turned: set[str]) -> Tensor:
    """Return a tensor as the model's own class stores it."""
    found = dense(tensor.detach())
    return (found.t() if name in turned else found).cpu().contiguous()


def _switched_off(model: Any, missing: set[str], subject: Subject) -> dict[str, Tensor]:
    """Return the base's tensors that the task does without, as those of a pooler."""
    if not missing or getattr(model, "untrained_pooler", True):
        return {}
    opens = "causal" if task_type(model) in WRITING else "body"
    place = locate(subject.facts["base_model"])
    loaded = load_model(place, torch.device("cpu"), next(model.parameters()).dtype, opens)
    return {name: tensor for name, tensor in loaded.state_dict().items() if name in missing}


def _turned(model: nn.Module, fresh: nn.Module) -> set[str]:
    """Find weights that the model's own class stores transposed, and that quantising turned."""
    own = dict(model.named_modules())
    return {
        f"{path}.weight"
        for path, module in fresh.named_modules()
        if isinstance(module, Conv1D) and path in own and not isinstance(own[path], Conv1D)
    }


def _check_reads_back(folder: Path, model: Any, state: dict[str, Tensor]) -> None:
    """Load what was written, and refuse when a tensor comes back otherwise, as one that the config ties again."""
    with quiet():
        loaded = type(model).from_pretrained(folder, use_safetensors=True, dtype=next(model.parameters()).dtype)
    found = loaded.state_dict()
    wrong = [name for name, tensor in state.items() if name not in found or not torch.equal(found[name], tensor)]
    if wrong:
        raise CompatibilityError(
            f"the merged model cannot be stored as {type(model).__name__}: '{wrong[0]}' comes back otherwise. It is "
            "tied to another tensor there, and the delta changed one of the two. Keep the delta attached."
        )


def _originals(delta: Delta, model: nn.Module, turned: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors that the merge put aside, and the names of those it added."""
    assert delta.untouched is not None
    first: dict[tuple[int, str], nn.Parameter | None] = {}
    for module, leaf, own in delta.untouched.places:
        first.setdefault((id(module), leaf), own)
    tensors, added = {}, []
    for path, module in model.named_modules():
        for leaf in module._parameters:
            if (id(module), leaf) not in first:
                continue
            own, name = first[(id(module), leaf)], f"{path}.{leaf}"
            if own is None:
                added.append(name)
            else:
                tensors[name] = _plain(name, own, turned).clone()
    return tensors, added


# Unmerging ----------------------------------------------------------------------------------------------------


def unmerge_folder(folder: Path, output: Path) -> dict[str, Any]:
    """Write the base model that a merged folder came from, bit for bit.

    Args:
        folder: that `merge_verified` wrote with the untouched tensors.
        output: new folder.
    Returns:
        Plain values.
    Raises:
        CheckpointError: no such folder, without untouched tensors, or changed since.
    """
    check_new(output)
    record = read_json(folder / MERGE, dict)
    if "original_hash" not in record:
        raise CheckpointError(
            f"{folder} was merged without keeping the untouched tensors; take the base model itself: "
            f"{record.get('base_model')}."
        )
    for name, key in ((MODEL, "model_hash"), (ORIGINAL, "original_hash")):
        if not (folder / name).is_file() or "sha256:" + sha256_of([folder / name]) != record[key]:
            raise CheckpointError(f"{folder / name} is missing or was changed since the merge, so it cannot be undone.")
    originals = read_tensors(folder / ORIGINAL)
    tensors = {name: tensor for name, tensor in read_tensors(folder / MODEL).items() if name not in record["added"]}
    restored = sorted(originals.keys() & tensors.keys())
    tensors |= {name: originals[name] for name in restored}
    with staged(output) as staging:
        save_tensors(staging / MODEL, tensors)
        for path in folder.iterdir():
            if path.is_dir():
                shutil.copytree(path, staging / path.name)
            elif path.name not in (MODEL, ORIGINAL, MERGE, *_OF_A_RUN):
                shutil.copyfile(path, staging / path.name)
    return {"output": str(output), "restored_tensors": len(restored), "base_model": record.get("base_model")}
