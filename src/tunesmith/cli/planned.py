"""What `tunesmith plan` prints for people."""

from __future__ import annotations

from typing import Any

from tunesmith.cli.show import table_of

_MINUTE, _HOUR = 60, 3600


def planned(found: dict[str, Any]) -> str:
    """Draw the guess and the ranked plans.

    Args:
        found: from `tunesmith.plan`.
    Returns:
        Several lines.
    """
    data = found["data"]
    languages = ", ".join(name for name in data["languages"] if name != "unsure")
    facts = [f"{data['rows']:,} rows", *([f"{data['labels']:,} labels"] if data["rows_per_label"] else []),
             *([f"language {languages}"] if languages else [])]  # fmt: skip
    head = f"{data['file']}: {data['task']} ({'; '.join(data['why'])}); {', '.join(facts)}; model {data['model']}."
    rows = [
        [str(number), one["name"], _score(one["score"]), _time(one["seconds"]), f"{one['memory_bytes'] / 1e6:,.0f} MB",
         "yes" if one["fits"] else "no"]
        for number, one in enumerate(found["plans"], 1)
    ]  # fmt: skip
    drawn = table_of(["", "plan", "accuracy", "time", "memory", "fits"], rows, left=2)
    reasons = [f"{number}. {one['name']}: {one['reason']}" + _evidence(one) for number, one in
               enumerate(found["plans"], 1)]  # fmt: skip
    left_out = [f"left out, {name}: {why}" for name, why in found["left_out"].items()]
    file = found.get("file")
    end = [f"recipe of {found['chosen']}: {file}. Run it: tunesmith train {file}"] if file else []
    return "\n".join([head, drawn, *reasons, *left_out, *end])


def _score(score: dict[str, Any] | None) -> str:
    return "unknown" if score is None else f"{100 * score['low']:.1f} - {100 * score['high']:.1f} %"


def _evidence(plan: dict[str, Any]) -> str:
    return "" if plan["score"] is None else f" Score: {plan['score']['evidence']}."


def _time(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
