"""Strategies for settings on three closed-form functions of mixed fields, against random search by a paired test.

    python benchmarks/search_functions.py [--seeds 20] [--trials 64] [--functions branin] [--strategies tpe genetic]

Settings of strategies were looked at on other functions and seeds. Every seed gives every strategy the same budget in
epochs; a trial has 9, after each of which a value is known that comes nearer to its last one. Strategies that stop
trials early therefore make more of them. The figure is the regret of the best complete trial; the test is Wilcoxon's
signed-rank test over seeds, one-sided, corrected for all comparisons (Holm).

The trials of population go on from earlier ones, and a function has nothing to go on from. For it each function stands
for something that is trained: a gap of 1 of which every epoch closes a share, 0.1 / (1 + the function at the present
settings). Random search then has as many trials as the strategy has members, each trained for as long as a chain, as
Jaderberg et al. 2017 compare it (section 4). The figure is the gap that is left.

Rows of strategies that are not measured again stay in the results. A trial costs no training, so what takes time is
drawing: milliseconds, but for gaussian-process, whose fits take seconds: give it fewer seeds or trials.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from tunesmith.core.registry import components, find
from tunesmith.search.bookkeeping import optuna, quiet
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.tuning import begin

Values = np.ndarray[Any, np.dtype[np.float64]]

EPOCHS, BATCH = 9, 8
CHAINED = "population"  # its members are what random search has as many trials as
FIRST = 100  # seed; settings of strategies were looked at on seeds below
RESULTS = Path(__file__).parent / "results" / "search_functions.json"


def choice(name: str, *labels: str) -> Choices:
    return Choices(name, {label: label for label in labels})


def real(name: str, low: float, high: float, log: bool = False) -> Range:
    return Range(name, low, high, log, None, whole=False)


def whole(name: str, low: int, high: int, log: bool = False) -> Range:
    return Range(name, low, high, log, None, whole=True)


def valley(at: dict[str, Any]) -> float:
    """A rate, a rank and a method: the best rate falls with the rank. Least value 0."""
    penalty = {"lora": 0.0, "vera": 0.5, "bitfit": 1.0}[at["method"]]
    rate = math.log10(at["rate"]) + 3 + 0.5 * (math.log2(at["rank"]) - 4)
    return penalty + rate**2 + 0.1 * (math.log2(at["rank"]) - 4) ** 2


def branin(at: dict[str, Any]) -> float:
    """Branin's function, shifted by a choice and raised by a whole number. Least value 0."""
    x, y = at["x"], at["y"]
    value = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    value += 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.39788735772973816
    return value + {"a": 0.0, "b": 4.0, "c": 8.0}[at["kind"]] + abs(at["count"] - 3)


def ripples(at: dict[str, Any]) -> float:
    """Rastrigin's function of three numbers, weaker ripples under one of four choices. Least value 0."""
    size = {"none": 1.0, "l1": 2.0, "l2": 0.5, "both": 3.0}[at["penalty"]]
    parts = [(at[name] - shift) for name, shift in (("p", 0.3), ("q", -0.4), ("r", 0.1))]
    ripple = sum(size * (1 - math.cos(2 * math.pi * part)) for part in parts)
    return sum(4 * part**2 for part in parts) + ripple + (size - 0.5)


FUNCTIONS: dict[str, tuple[Callable[[dict[str, Any]], float], list[Range | Choices]]] = {
    "valley": (valley, [choice("method", "bitfit", "lora", "vera"), real("rate", 1e-6, 1e-1, log=True),
                        whole("rank", 1, 256, log=True)]),
    "branin": (branin, [real("x", -5, 10), real("y", 0, 15), choice("kind", "a", "b", "c"), whole("count", 0, 8)]),
    "ripples": (ripples, [real("p", -2, 2), real("q", -2, 2), real("r", -2, 2),
                          choice("penalty", "none", "l1", "l2", "both")]),
}  # fmt: skip


def complete(number: int, parameters: dict[str, Any], value: float) -> StudyTrial:
    return StudyTrial(number, 0, 1, dict(parameters), [], [], 0.0, None, Outcome("complete", value=value))


def asked(live: Any, strategy: Any, space: Space, ended: list[StudyTrial], number: int, seed: int) -> Any:
    """Draw a trial, or what it goes on from, as a search does."""
    descent = strategy.descend(number, ended, space, False, seed)
    if descent is not None:
        live.enqueue_trial(descent.parameters)
    return live.ask()


def optimise(
    strategy: str, function: str, trials: int, seed: int, **settings: Any
) -> list[tuple[dict[str, Any], float]]:
    """Search a function; return every trial's point and last value, complete ones only, in order."""
    value_of, nodes = FUNCTIONS[function]
    space, built = Space({node.name: node for node in nodes}), find("strategies", strategy)(**settings)
    live, points = begin(built, space, seed, False, EPOCHS)
    left, found, drawn, ended = trials * EPOCHS, list[tuple[dict[str, Any], float]](), 0, list[StudyTrial]()
    lists = 0
    while left > 0:
        with quiet():
            if drawn == points:
                further = built.more(ended, space, False, lists, seed)
                for point in further:
                    live.enqueue_trial(point)
                lists, points = lists + 1, drawn + len(further)
                if not further:
                    break
            size = min(BATCH, built.ahead(drawn) or BATCH)
            size = size if points is None else min(size, points - drawn)
            batch = [asked(live, built, space, ended, number, seed) for number in range(drawn, drawn + size)]
            filled = [{node.name: node.value(trial) for node in nodes} for trial in batch]
            ended += [complete(drawn + place, trial.params, value_of(at))
                      for place, (trial, at) in enumerate(zip(batch, filled, strict=True))]  # fmt: skip
            drawn += len(batch)
            running = list(zip(batch, filled, strict=True))
            for epoch in range(1, EPOCHS + 1):
                still = []
                for trial, at in running:
                    if left <= 0:
                        continue
                    left -= 1
                    trial.report(value_of(at) + 3 * 0.5**epoch, epoch)
                    if epoch == EPOCHS:
                        found.append((at, value_of(at)))
                        live.tell(trial, value_of(at))
                    elif trial.should_prune():
                        live.tell(trial, state=optuna().trial.TrialState.PRUNED)
                    else:
                        still.append((trial, at))
                running = still
    return found


def trained(strategy: str, function: str, trials: int, seed: int) -> float:
    """Search settings of what is trained; return the smallest gap that is left."""
    value_of, nodes = FUNCTIONS[function]
    space, built = Space({node.name: node for node in nodes}), find("strategies", strategy)()
    members = built.members if built.continues else find("strategies", CHAINED)().members
    count, epochs = (trials, EPOCHS) if built.continues else (members, EPOCHS * (trials // members))
    live, _ = begin(built, space, seed, False, epochs)
    ended, gaps = list[StudyTrial](), list[float]()
    for number in range(count):
        with quiet():
            descent = built.descend(number, ended, space, False, seed)
            if descent is not None:
                live.enqueue_trial(descent.parameters)
            trial = live.ask()
            at = {node.name: node.value(trial) for node in nodes}
            gap = 1.0 if descent is None else gaps[descent.parent]
            gaps.append(gap * (1 - 0.1 / (1 + value_of(at))) ** epochs)
            live.tell(trial, gaps[-1])
        ended.append(complete(number, trial.params, gaps[-1]))
    return min(gaps)


def regret(strategy: str, function: str, trials: int, seed: int) -> float:
    return min((value for _, value in optimise(strategy, function, trials, seed)), default=math.inf)


def holm(values: list[float]) -> list[float]:
    order, worst, found = np.argsort(values), 0.0, [0.0] * len(values)
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[place]))
        found[place] = worst
    return found


def compare(name: str, function: str, trials: int, seeds: int) -> dict[str, Any]:
    measure = trained if find("strategies", name).continues else regret
    own, chance = (np.array([measure(one, function, trials, seed) for seed in range(FIRST, FIRST + seeds)])
                   for one in (name, "random"))  # fmt: skip
    again = measure(name, function, trials, FIRST)
    return {
        "function": function,
        "strategy": name,
        "seeds": seeds,
        "trials": trials,
        "median regret": float(np.median(own)),
        "median regret of random": float(np.median(chance)),
        "better seeds": int((own < chance).sum()),
        "p": float(wilcoxon(own, chance, alternative="less").pvalue) if (own != chance).any() else 1.0,
        "reproducible": bool(again == own[0]),
    }


def keep(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Write a row in the place of the one before, and correct all p-values together."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [*(one for one in kept if any(one[key] != row[key] for key in ("function", "strategy"))), row]
    for one, corrected in zip(rows, holm([one["p"] for one in rows]), strict=True):
        one["p (Holm)"] = corrected
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def main() -> None:
    able = [name for name, one in components("strategies").items() if one.of == "settings" and name != "random"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--strategies", nargs="+", default=able)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    given = parser.parse_args()
    for function in given.functions:
        for name in given.strategies:
            print(json.dumps(keep(compare(name, function, given.trials, given.seeds))[-1]), flush=True)


if __name__ == "__main__":
    main()
