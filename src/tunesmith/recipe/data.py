"""Checks of the data's keys against each other."""

from __future__ import annotations

from tunesmith.core.files import COMMON_ENCODINGS, is_encoding
from tunesmith.core.registry import components
from tunesmith.recipe.schema import DataSettings


def _across_shares(data: DataSettings) -> list[str]:
    """Refuse shares that leave nothing, and a setting about shares where there is none."""
    shares = {name: getattr(data, name) for name in ("validation", "test")}
    shares = {name: share for name, share in shares.items() if isinstance(share, float)}
    found = [
        f"data.{name}: the share {share} must lie between 0 and 1, or be a file."
        for name, share in shares.items()
        if not 0 < share < 1
    ]
    if not found and sum(shares.values()) >= 1:
        found.append(
            f"data.test: the shares {data.validation} for validation and {data.test} for test leave nothing to train "
            "on; together they must stay below 1."
        )
    if data.near_copies is not None and not shares:
        found.append("data.near_copies: validation and test are files, so nothing is held out of train. Leave it out.")
    return found


def across_data(data: DataSettings) -> list[str]:
    """Refuse columns that contradict each other, an encoding that nobody knows, and shares that leave nothing.

    Args:
        data: whose keys are each right.
    Returns:
        Sentences.
    """
    found = _across_shares(data)
    if data.text == data.label:
        found.append(f"data.label: '{data.label}' is also data.text; text and label are two columns.")
    if len(set(data.columns)) < len(data.columns) or not all(data.columns):
        found.append(f"data.columns: {data.columns} names a column twice or not at all; each needs a name of its own.")
    files = [path for path in (data.train, data.validation, data.test) if isinstance(path, str)]
    nameless = tuple(suffix for reader in components("readers").values() for suffix in reader.nameless)
    if data.columns and not any(path.lower().endswith(nameless) for path in files):
        found.append(
            f"data.columns: it is for files without a header ({', '.join(nameless)}), and {', '.join(files)} name "
            "their own. Leave it out."
        )
    if not is_encoding(data.encoding):
        found.append(f"data.encoding: '{data.encoding}' is no encoding that Python knows. {COMMON_ENCODINGS}")
    return found
