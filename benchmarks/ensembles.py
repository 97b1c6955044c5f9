"""What ensembles gain and cost on BANKING77 with ten rows per label: every way to make members and to combine them.

    TUNESMITH_DATA=... python benchmarks/ensembles.py [--seeds 0 1 2] [--members 5] [--layers all-linear]

The rows are the fixed 10-shot split, validation its published rows, of which `--held` per label are taken, and test
its published rows, or the first `--test` per label. MiniLM with LoRA of rank 8; the best epoch counts, by validation.
Every run trains the same recipe alone in the same pass, or has it as a member, and says its gain over that and over the
member that is best on validation, with paired bootstrap intervals on test rows that chose nothing. Accuracies are
means over the seeds; gains are shown for each seed. A recipe that is refused stands there with its sentence. Results
go to benchmarks/results/ensembles.json.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import banking77
import common

KINDS: dict[str, dict[str, Any]] = {
    "seeds, average": {"ensemble": {"name": "seeds"}, "combine": "average"},
    "seeds, vote": {"ensemble": {"name": "seeds"}, "combine": "vote"},
    "seeds, weighted": {"ensemble": {"name": "seeds"}, "combine": "weighted"},
    "seeds, stacking": {"ensemble": {"name": "seeds"}, "combine": "stacking"},
    "seeds from one start, soup": {"ensemble": {"name": "seeds", "same_start": True}, "combine": "soup"},
    "seeds from one start, greedy soup": {"ensemble": {"name": "seeds", "same_start": True}, "combine": "greedy-soup"},
    "bagging": {"ensemble": {"name": "bagging"}},
    "balanced bagging": {"ensemble": {"name": "balanced-bagging"}},
    "snapshots": {"ensemble": {"name": "snapshots"}},
    "boosting": {"ensemble": {"name": "boosting"}},
}


def some(part: str, each: int | None) -> banking77.Rows:
    """Return the first rows of each label of a part."""
    seen: dict[str, int] = {}
    found = []
    for text, label in zip(*common.banking(part), strict=True):
        seen[label] = seen.get(label, 0) + 1
        if each is None or seen[label] <= each:
            found.append((text, label))
    return found


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out every kind with one seed."""
    import tunesmith
    from tunesmith.core.errors import TunesmithError

    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = {"train": some("train_10", None), "validation": some("valid", work["held"]),
                 "test": some("test", work["test"])}  # fmt: skip
        files = {name: banking77.write(folder / f"{name}.csv", rows) for name, rows in parts.items()}
        for kind in work["kinds"]:
            keys = {**KINDS[kind], "ensemble": {**KINDS[kind]["ensemble"], "count": work["members"]}}
            recipe = {
                "data": {**files, "max_tokens": 64},
                "method": {"name": "lora", "rank": 8, "layers": work["layers"]},
                "training": {"epochs": work["epochs"], "learning_rate": 2e-3},
                "evaluation": {"metrics": ["accuracy", "log-loss"], "baselines": False},
                "seed": work["seed"],
                "output": str(folder / kind.replace(" ", "-").replace(",", "")),
                **keys,
            }
            try:
                run = tunesmith.train(recipe)
            except TunesmithError as error:
                found[kind] = {"refused": str(error)}
                continue
            facts = run.summary["ensemble"]
            found[kind] = {
                "scores": run.metrics["test"],
                "members": [one["scores"]["test"]["accuracy"]["value"] for one in facts["members"]],
                "alone": facts["alone"]["test"],
                "gain": {who: gains["test"] for who, gains in facts["gain"].items()},
                "cost": facts["cost"],
                "peak_bytes": run.summary["peak_memory_bytes"],
            }
    return found


def summed_up(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Average each kind over its seeds."""
    table = {}
    for kind, own in runs.items():
        done = [run for run in own if "refused" not in run]
        if not done:
            table[kind] = {"refused": own[0]["refused"]}
            continue
        cost = [run["cost"] for run in done]
        table[kind] = {
            "seeds": len(done),
            "accuracy": statistics.mean(run["scores"]["accuracy"]["value"] for run in done),
            "log-loss": statistics.mean(run["scores"]["log-loss"]["value"] for run in done),
            "alone": statistics.mean(run["alone"]["accuracy"]["value"] for run in done),
            "log-loss alone": statistics.mean(run["alone"]["log-loss"]["value"] for run in done),
            "gain": {
                who: {
                    "mean": statistics.mean(run["gain"][who]["accuracy"]["value"] for run in done),
                    "each": [[run["gain"][who]["accuracy"][key] for key in ("value", "low", "high")] for run in done],
                }
                for who in done[0]["gain"]
            },
            "times answering": statistics.mean(one["answer_seconds"] / one["answer_seconds_of_one"] for one in cost),
            "times rows trained": statistics.mean(one["trained_rows"] / one["trained_rows_of_one"] for one in cost),
            "times parameters": statistics.mean(
                one["trainable_parameters"] / one["trainable_parameters_of_one"] for one in cost
            ),
            "peak megabytes": statistics.mean(run["peak_bytes"] / 1e6 for run in done),
        }
    return table


def shown(table: dict[str, dict[str, Any]]) -> str:
    """Draw the table in Markdown."""
    lines = [
        "| ensemble | accuracy | alone | gain over the recipe alone, each seed | over the best member, mean "
        "| log-loss, alone | answering | rows trained | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, one in table.items():
        if "refused" in one:
            lines.append(f"| {kind} | refused: {one['refused']} |" + " |" * 7)
            continue
        each = "; ".join(
            f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            for value, low, high in one["gain"]["recipe alone"]["each"]
        )
        lines.append(
            f"| {kind} | {100 * one['accuracy']:.1f} % | {100 * one['alone']:.1f} % | {each} | "
            f"{100 * one['gain']['best member']['mean']:+.1f} | {one['log-loss']:.3f}, {one['log-loss alone']:.3f} | "
            f"{one['times answering']:.1f} x | {one['times rows trained']:.1f} x | {one['times parameters']:.0f} x |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--layers", default="all-linear")
    parser.add_argument("--held", type=int, default=5, help="validation rows per label")
    parser.add_argument("--test", type=int, default=None, help="test rows per label; all when left out")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    settings = {key: getattr(given, key) for key in ("kinds", "members", "epochs", "layers", "held", "test")}
    for seed in given.seeds:
        for kind, found in common.child(__file__, {**settings, "seed": seed}, given.threads).items():
            runs.setdefault(kind, []).append({"seed": seed, **found})
        table = summed_up(runs)
        print(shown(table), flush=True)
        case = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "kinds")
        facts = {"table": table, "runs": runs, "machine": common.machine(given.threads)}
        common.keep("ensembles", case, facts)


if __name__ == "__main__":
    common.begin(worker, main)
