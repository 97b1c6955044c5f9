"""What the trials of a study read, rows and model, and whether that is still as it was when the study began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.files import hash_of
from tunesmith.models.loading import load_config
from tunesmith.recipe.loading import Checked
from tunesmith.runs.continuing import inherit
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import open_reading
from tunesmith.search.same_facts import check_same
from tunesmith.training.corpus import Corpus, Split

_BACK = "Put the files back as they were"


def read_by(corpus: Corpus, model: str) -> dict[str, str]:
    """Say what trials read.

    Args:
        corpus: the rows; those of test choose nothing and do not count.
        model: hash of the weights.
    Returns:
        Hashes by name: "train rows", "validation rows", "unlabelled rows" and "label_descriptions" where there are
        some, "model".
    """
    splits: dict[str, Split] = {name: split for name, split in corpus.splits.items() if name != "test"}
    if corpus.unlabelled is not None:
        splits["unlabelled"] = corpus.unlabelled.split
    rows = {
        f"{name} rows": hash_of([split.examples.content_hash, split.index.tolist()]) for name, split in splits.items()
    }
    return {**rows, **corpus.descriptions, "model": model}


def read_without_weights(recipes: Iterable[Checked]) -> dict[str, str]:
    """Say what trials will read, before a model is loaded.

    Args:
        recipes: at least one; of those that name the same files and the same model the first one is looked at.
    Returns:
        As `read_by`; where recipes name different files, a hash of all.
    Raises:
        TunesmithError: nothing of what they name can be read.
    """
    apart, found, refused = dict[str, Checked](), list[dict[str, str]](), list[TunesmithError]()
    for checked in recipes:
        apart.setdefault(hash_of(_named(checked)), checked)
    for checked in apart.values():
        try:
            found.append(_read(checked))
        except TunesmithError as error:  # trials that read it fail of it, and say so
            refused.append(error)
            found.append({})
    if len(refused) == len(found):
        raise refused[0]
    if len(found) == 1:
        return found[0]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: hash_of([one.get(name) for one in found]) for name in names}


def _named(checked: Checked) -> list[Any]:
    """Name the files that a recipe reads; what else it says of them stands in the recipe."""
    data = checked.recipe.data
    files = [data.train, data.also_train, data.validation, data.unlabelled, data.label_descriptions]
    return [*files, checked.resolved()["model"]]


def _read(checked: Checked) -> dict[str, str]:
    plain = checked.recipe.data.model_copy(update={"augmentation": []})  # what it makes of the rows is not asked
    checked, earlier = inherit(replace(checked, recipe=checked.recipe.model_copy(update={"data": plain})))
    reading = open_reading(checked)
    corpus = read_corpus(checked, reading, earlier.labels if earlier else ())
    return read_by(corpus, reading.source.hash(load_config(reading.source)))


def check_read(what: str, kept: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to go on with other rows or another model.

    Args:
        what: beginning of the message: a folder or file, and what it is.
        kept: hashes that were written when it was begun.
        own: the same now.
    Raises:
        CheckpointError: they differ; the first difference is shown with both values.
    """
    check_same(f"{what} of other data", kept, own, _BACK)
