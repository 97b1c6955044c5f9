"""Tables of the closed loop and of killed studies."""

from __future__ import annotations

import json

import common


def closed_loop() -> list[str]:
    """Word the loop's comparison in equal time; nothing where it was not measured."""
    path = common.RESULTS / "closed_loop.json"
    if not path.exists():
        return []
    lines = ["", "## The closed loop in a fixed time, ten rows per label", "",
             "`python benchmarks/closed_loop.py`. Test accuracy, mean over seeds; a fifth of the rows is validation "
             "for every side; paired bootstrap over rows and seeds."]  # fmt: skip
    for case, found in json.loads(path.read_text()).items():
        machine = found["machine"]
        lines += ["", f"**{case}.** {machine['processor']}, torch {machine['torch']}.", "",
                  "| side | test accuracy | each seed | trials | trials a minute | seconds | the loop's gain over it |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for side, own in found["sides"].items():
            gain = found["gains"].get(side)
            ends = gain and [f"{100 * gain[key]:+.2f}" for key in ("value", "low", "high")]
            said = f"{ends[0]} points ({ends[1]} to {ends[2]})" if ends else "-"
            each = ", ".join(f"{100 * one:.2f}" for one in own["each"])
            lines.append(
                f"| {side} | {100 * own['accuracy']:.2f} % | {each} | {own['trials']:.0f} | "
                f"{own['trials_per_minute']:.2f} | {own['seconds']:.0f} | {said} |"
            )
    return lines


def killed_study() -> list[str]:
    """Word what became of killed studies; nothing where it was not measured."""
    path = common.RESULTS / "killed_study.json"
    if not path.exists():
        return []
    lines = ["", "## A study of settings, killed and resumed", "",
             "`python benchmarks/killed_study.py`. SIGKILL at random moments; compared with a study left alone.", "",
             "| strategy | kills | trials kept after each | same best trial | same test score | all trials alike |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for strategy, found in json.loads(path.read_text()).items():
        kept = ", ".join(str(one["trials_kept"]) for one in found["kills"])
        same = ["yes" if found[key] else "**no**" for key in ("same_best_trial", "same_test_score", "same_trials")]
        lines.append(f"| {strategy} | {len(found['kills'])} | {kept} of {found['trials']} | {' | '.join(same)} |")
    return lines
