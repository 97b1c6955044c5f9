"""Tables of how often intervals cover, and of what ensembles gain, for report.py."""

from __future__ import annotations

import common


def interval_coverage() -> list[str]:
    """Word how often nominal intervals hold the true score, the ones that are used in bold."""
    found = common.kept("interval_coverage")
    if not found:
        return []
    lines = ["", "## How often intervals cover", "",
             f"`python benchmarks/interval_coverage.py`. {found['cases']:,} simulated cases each, nominal "
             f"{100 * found['confidence']:.0f} %; in bold what runs report.", "",
             "| score | case | rows | covered, % (mean width, points) |", "|---|---|---|---|"]  # fmt: skip
    for line in found["lines"]:
        *others, used = line["intervals"].items()
        cells = [f"**{_covered(*used)}**", *(_covered(*one) for one in others)]
        lines.append(f"| {line['score']} | {line['case']} | {line['rows']} | {', '.join(cells)} |")
    return lines


def _covered(name: str, one: dict[str, float]) -> str:
    return f"{name} {100 * one['covered']:.1f} ({100 * one['width']:.1f})"


def ensembles() -> list[str]:
    """Word what every way to make and join members gained over the recipe alone."""
    cases = common.kept("ensembles")
    if not cases:
        return []
    lines = ["", "## Ensembles", "",
             "`python benchmarks/ensembles.py`. BANKING77 with ten rows per label; paired gain over the recipe alone "
             "on test, of each seed with its interval."]  # fmt: skip
    for case, found in cases.items():
        lines += ["", f"**{case}.**", "",
                  "| ensemble | accuracy, % | alone, % | gain, points | rows trained | parameters | time answering |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for kind, one in found["table"].items():
            if "gain" not in one:
                lines.append(f"| {kind} | {one.get('refused', 'refused')} | | | | | |")
                continue
            gains = "; ".join(
                f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
                for gain, low, high in one["gain"]["recipe alone"]["each"]
            )
            times = [f"{one[key]:.1f} times" for key in ("times rows trained", "times parameters", "times answering")]
            cells = [f"{100 * one['accuracy']:.1f}", f"{100 * one['alone']:.1f}", gains, *times]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines
