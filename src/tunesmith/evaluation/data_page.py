"""What was found in data files, as one HTML page that opens offline."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.data.files import thumbnail
from tunesmith.data.images import SUFFIXES
from tunesmith.data.sounds import SUFFIXES as SOUNDS
from tunesmith.data.sounds import read_sound
from tunesmith.evaluation import plots
from tunesmith.evaluation.page import page, pairs, safe, section, table, texts
from tunesmith.evaluation.sound_plots import waveforms

_NAMES = {"replaced": "lost characters (U+FFFD)", "mojibake": "UTF-8 read as another encoding", "html": "HTML",
          "mail": "mail addresses", "phone": "phone numbers", "card": "card numbers", "iban": "bank accounts",
          "id": "identity numbers", "name": "names of persons"}  # fmt: skip


def render_inspection(found: dict[str, Any]) -> str:
    """Write the page of `tunesmith data inspect`.

    Args:
        found: by `inspect_files`.
    Returns:
        HTML without any outside reference.
    """
    files = found["files"]
    notes = "".join(f"<p class=warn>{safe(note)}</p>" for note in found["notes"]) or "<p>Nothing odd was found.</p>"
    title = "Data: " + ", ".join(one["file"].rpartition("/")[2] for one in files)
    head = f"<h1>{safe(title)}</h1><p class=soft>Found by tunesmith data inspect.</p>"
    parts = [head, section("What to look at", notes)]
    for one in files:
        parts += _file(one)
    return page(title, parts)


def finding(what: str) -> str:
    """Word a kind of finding.

    Args:
        what: as the inspection calls it.
    Returns:
        For people.
    """
    return _NAMES.get(what, what)


def _file(one: dict[str, Any]) -> list[str]:
    name = one["file"].rpartition("/")[2]
    facts = {
        "what it is": f"{one['what']}, {one['reader']}",
        "rows": f"{one['rows']:,}",
        **({"rows that cannot be read": f"{len(one['unreadable']):,}"} if one["unreadable"] else {}),
        "columns": "; ".join(one["why"]) or "no text column was found",
        **{f"{kind}: median / p95 / most": _spread(one[kind]) for kind in ("characters", "words", "tokens")
           if one.get(kind)},
        "duplicates": f"{one['duplicates']:,}, with another label {one['conflicts']:,}",
        "near copies": near_words(one),
    }  # fmt: skip
    found = [[finding(what), f"{some['rows']:,}", ", ".join(some["first"])] for what, some in one["found"].items()]
    odd = [[f"{some['characters']:,} characters", "", some["where"]] for outlier in one["outliers"]
           for some in outlier["first"]]  # fmt: skip
    bars = one["histogram"]
    pictures = plots.lengths(bars["counts"], bars["edges"], "characters") if bars else ""
    shares = [plots.shares(one[kind], 12) for kind in ("scripts", "languages") if len(one[kind]) > 1]
    lost = [[some["file"], some["why"]] for some in one["unreadable"]]
    suspects = [[some["where"], some["why"]] for some in one.get("suspicious", [])]
    return [
        section(name, pairs(facts) + pictures),
        section(f"{name}: files that cannot be read", texts(["file", "why"], lost) if lost else ""),
        section(f"{name}: pictures", _pictures(one["files"])),
        section(f"{name}: sounds", _sounds(one["files"])),
        section(f"{name}: labels", plots.shares(one["labels"]) if one["labels"] else ""),
        section(f"{name}: scripts and languages", "".join(shares)),
        section(f"{name}: columns", _columns(one["columns"])),
        section(f"{name}: found in texts", texts(["what", "rows", "first"], found + odd) if found + odd else ""),
        section(f"{name}: suspicious labels", texts(["row", "labels"], suspects[:50]) if suspects else ""),
    ]


def _pictures(files: Sequence[dict[str, str]]) -> str:
    """Show the first images of every label."""
    shown = []
    for path in (one["file"] for one in files):
        if path.lower().endswith(SUFFIXES):
            content = base64.b64encode(thumbnail(path)).decode()
            shown.append(f'<img src="data:image/png;base64,{content}" title="{safe(path)}" alt="{safe(path)}">')
    return "".join(shown)


def _sounds(files: Sequence[dict[str, str]]) -> str:
    """Draw the first sounds of every label; a peak of 100 % is the largest number of a file."""
    found = [one for one in files if one["file"].lower().endswith(SOUNDS)]
    names = [one["label"] or Path(one["file"]).name for one in found]
    drawn = waveforms([(name, read_sound(one["file"])) for name, one in zip(names, found, strict=True)])
    return f"<p class=soft>Each on its own scale; a peak of 100 % is as loud as a file can hold.</p>{drawn}" * bool(
        found
    )


def _columns(columns: Sequence[dict[str, Any]]) -> str:
    rows = []
    for one in columns:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in one["kinds"].items())
        if "least" in one:
            kinds += f" from {one['least']:.6g} to {one['most']:.6g}, mean {one['mean']:.6g}"
        cells = (kinds, one["different"], f"{one['missing']:,}", "constant" if one["constant"] else "")
        rows.append(f"<tr><td>{safe(one['name'])}</td>" + "".join(f"<td class=n>{safe(c)}</td>" for c in cells)
                    + "</tr>")  # fmt: skip
    return table(["column", "cells", "different", "missing", ""], rows)


def _spread(facts: dict[str, float]) -> str:
    return " / ".join(f"{facts[key]:,.0f}" for key in ("median", "p95", "most"))


def near_words(one: dict[str, Any]) -> str:
    """Word how many rows are near copies.

    Args:
        one: facts of a file.
    Returns:
        For people.
    """
    near = one["near_duplicates"]
    if near is None:
        return "not looked for"
    least = "" if near["complete"] else "at least "
    return f"{least}{near['rows']:,} rows at similarity {one['near_threshold']} or more, equal ones aside"
