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

import torch

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


def some(part: str, each: int | None, labels: int) -> banking77.Rows:
    """Return the first rows of each of the first labels of a part."""
    seen = dict.fromkeys(sorted(set(common.banking("train_10")[1]))[:labels], 0)
    found = []
    for text, label in zip(*common.banking(part), strict=True):
        if label not in seen:
            continue
        seen[label] += 1
        if each is None or seen[label] <= each:
            found.append((text, label))
    return found


def trained(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one kind with one seed."""
    import tunesmith
    from tunesmith.core.errors import TunesmithError

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = {"train": some("train_10", None, work["labels"]),
                 "validation": some("valid", work["held"], work["labels"]),
                 "test": some("test", work["test"], work["labels"])}  # fmt: skip
        files = {name: banking77.write(folder / f"{name}.csv", rows) for name, rows in parts.items()}
        kind = KINDS[work["kind"]]
        try:
            run = tunesmith.train(
                {
                    "data": {**files, "max_tokens": 64},
                    "method": {"name": "lora", "rank": 8, "layers": work["layers"]},
                    "training": {"epochs": work["epochs"], "learning_rate": 2e-3},
                    "evaluation": {"metrics": ["accuracy", "log-loss"], "baselines": False},
                    "seed": work["seed"],
                    "output": str(folder / "run"),
                    **kind,
                    "ensemble": {**kind["ensemble"], "count": work["members"]},
                }
            )
        except TunesmithError as error:
            return {"refused": str(error)}
        facts = run.summary["ensemble"]
        return {
            "scores": run.metrics["test"],
            "members": [one["scores"]["test"]["accuracy"]["value"] for one in facts["members"]],
            "alone": facts["alone"]["test"],
            "gain": {who: gains["test"] for who, gains in facts["gain"].items()},
            "cost": facts["cost"],
            "seconds": run.summary["seconds"],
            "peak_bytes": run.summary["peak_memory_bytes"],
        }


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
    parser.add_argument("--labels", type=int, default=77, help="the first so many of them")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--layers", default="all-linear")
    parser.add_argument("--held", type=int, default=5, help="validation rows per label")
    parser.add_argument("--test", type=int, default=None, help="test rows per label; all when left out")
    parser.add_argument("--anew", action="store_true", help="run again what stands in the results already")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = {key: getattr(given, key) for key in ("labels", "members", "epochs", "layers", "held", "test")}
    case = ", ".join(f"{key} {value}" for key, value in settings.items())
    kept = common.kept("ensembles").get(case, {}).get("runs", {})
    runs: dict[str, list[dict[str, Any]]] = {} if given.anew else kept
    for seed in given.seeds:
        for kind in given.kinds:
            if any(run["seed"] == seed for run in runs.get(kind, [])):
                continue
            found = trained({**settings, "kind": kind, "seed": seed})
            runs.setdefault(kind, []).append({"seed": seed, **found})
            table = summed_up(runs)
            print(shown({kind: table[kind]}).splitlines()[-1], flush=True)
            common.keep("ensembles", case, {"table": table, "runs": runs, "machine": common.machine(given.threads)})
    print(shown(summed_up(runs)))


if __name__ == "__main__":
    main()
