"""What `tunesmith data inspect` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.cli.show import table_of
from tunesmith.core.errors import RecipeError

_SHOWN = 5  # files that are named; page and JSON name all


def named(columns: str) -> dict[str, str]:
    """Read which columns are text and label.

    Args:
        columns: as typed: nothing, the text column, or both with a comma between them.
    Returns:
        "text" and "label", those that were given.
    Raises:
        RecipeError: more than two.
    """
    names = [name.strip() for name in columns.split(",")] if columns else []
    if len(names) > 2:
        raise RecipeError(f"--columns {columns}: the text column and the label column, separated by a comma.")
    return {key: name for key, name in zip(("text", "label"), names, strict=False) if name}


def examined(found: dict[str, Any]) -> str:
    """Draw the facts of each file, then what to look at.

    Args:
        found: by `tunesmith.inspect_data`.
    Returns:
        Several lines.
    """
    lines = []
    for one in found["files"]:
        spreads = {kind: one[kind] for kind in ("characters", "words", "tokens") if one.get(kind)}
        most = sorted(one["labels"].items(), key=lambda item: -item[1])
        facts = [  # a column may be called as one of them is
            (one["file"], one["what"]),
            ("rows", f"{one['rows']:,}"),
            *([("cannot be read", _listed(one["unreadable"]))] if one["unreadable"] else []),
            ("columns", "; ".join(one["why"]) or "-"),
            *((kind, f"median {s['median']:,.0f}, p95 {s['p95']:,.0f}, most {s['most']:,.0f}")
              for kind, s in spreads.items()),
            *((c["name"], f"from {c['least']:.6g} to {c['most']:.6g}, mean {c['mean']:.6g}") for c in one["columns"]
              if "least" in c),
            *((kind, _shares(one[kind])) for kind in ("languages", "scripts") if one[kind]),
            *([("labels", f"{len(most):,}, from {most[-1][1]:,} to {most[0][1]:,} rows")] if most else []),
            ("duplicates", f"{one['duplicates']:,}"),
        ]  # fmt: skip
        lines.append(table_of(["", ""], facts, left=2))
    lines += [f"- {note}" for note in found["notes"]] or ["Nothing odd was found."]
    return "\n".join([*lines, *([f"page: {found['page']}"] if "page" in found else [])])


def _listed(files: Sequence[dict[str, str]]) -> str:
    names = [one["file"].rpartition("/")[2] for one in files[:_SHOWN]]
    return f"{len(files):,} file{'s' * (len(files) > 1)}: {', '.join(names)}" + (", ..." if len(files) > _SHOWN else "")


def _shares(counts: dict[str, int]) -> str:
    total = max(1, sum(counts.values()))
    return ", ".join(f"{name} {100 * count / total:.1f} %" for name, count in list(counts.items())[:4]) or "-"
