"""Make the tables and pictures of docs/benchmarks from the results as JSON.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common
from report_counts import kept_table, memory_table, operations_table, precision_table, where
from report_few_shot import few_shot_intents
from report_loop import closed_loop, killed_study
from report_omniglot import omniglot
from report_search import search_functions
from report_statistics import ensembles, interval_coverage
from report_ways import ways

FOLDER = common.RESULTS.parent.parent / "docs" / "benchmarks"
TITLES = {
    "encoder_classification": ("Classification of BANKING77 with MiniLM, LoRA on every linear map of the blocks",
                               "python benchmarks/encoder_classification.py speed"),
    "instruction_tuning": ("Instruction tuning on gsm8k, a Llama of 30 million random numbers, LoRA",
                           "python benchmarks/instruction_tuning.py", "Liger's kernels are for GPUs and stand there. "
                           "Unsloth excludes the versions of transformers, trl and datasets used here: it is missing."),
    "virtual_prompt": ("Prompt tuning on gsm8k, the same Llama",
                       "python benchmarks/virtual_prompt.py"),
    "few_shot": ("A few-shot run on BANKING77 from process start to a saved run",
                 "python benchmarks/few_shot.py"),
    "frozen_depth": ("Deltas in the upper half, with what the frozen half gives kept between epochs",
                     "python benchmarks/frozen_depth.py"),
    "vision": ("A vision encoder of ViT-tiny's shape, LoRA",
               "python benchmarks/vision.py"),
    "longest": ("One row of growing length, a Llama of 30 million random numbers, LoRA",
                "python benchmarks/longest.py"),
}  # fmt: skip


def table(found: dict[str, Any]) -> list[str]:
    """Word a comparison: medians, ranges, and how each side stands to the last one."""
    keys, middle, ranges = shown(found), found["medians"], found["ranges"]
    speed, base = next(iter(keys)), list(middle)[-1]
    lines = ["| side | " + " | ".join(f"{key.replace('_', ' ')} ({unit})" for key, unit in keys.items())
             + f" | speed to {base} | memory to {base} |", "|---" * (len(keys) + 3) + "|"]  # fmt: skip
    for side, own in middle.items():
        cells = [cell(own[key], ranges[side][key], unit) for key, unit in keys.items()]
        ratios = [f"{own[speed] / middle[base][speed]:.2f}", f"{own['peak_bytes'] / middle[base]['peak_bytes']:.2f}"]
        lines.append(f"| {side} | {' | '.join([*cells, *ratios])} |")
    return lines


def shown(found: dict[str, Any]) -> dict[str, str]:
    """Leave out the share of a GPU's peak where none was measured."""
    return {key: unit for key, unit in found["keys"].items() if key != "share_of_peak" or on_gpu(found)}


def cell(value: float, ends: list[float], unit: str) -> str:
    """Word a median with its range."""
    low, high = (common.shortened(end, unit) for end in ends)
    return f"{common.shortened(value, unit)} ({low} to {high})"


def facts(found: dict[str, Any]) -> str:
    """Word where and how often it was measured."""
    machine = found["machine"]
    rounds = len(next(iter(found["runs"].values())))
    place = f"{machine['gpu']}, torch {machine['torch']}" if on_gpu(found) else where(machine)
    return f"{rounds} round{'s' * (rounds > 1)} in turn, {place}."


def on_gpu(found: dict[str, Any]) -> bool:
    """Say whether a comparison ran on a GPU; those have the share of its peak to show."""
    shares = (own.get("share_of_peak", 0.0) for own in found["medians"].values())
    return "gpu" in found["machine"] and any(share > 0 for share in shares)


def picture(cases: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw every side's speed as a multiple of the last one's, with the range of its runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 + 0.35 * sum(len(found["medians"]) + 1 for found in cases.values())))
    axes, names, place = figure.subplots(), list[str](), 0.0
    ticks = []
    for case, found in cases.items():
        speed, base = next(iter(found["keys"])), list(found["medians"])[-1]
        one = found["medians"][base][speed]
        for side, own in found["medians"].items():
            low, high = found["ranges"][side][speed]
            value = own[speed] / one
            colour = "#b0b0b0" if side == base else "#4878a8" if side.startswith("ours") else "#d0a060"
            axes.barh(place, value, color=colour,
                      xerr=[[value - low / one], [high / one - value]], ecolor="#303030", capsize=2)  # fmt: skip
            ticks.append(place)
            names.append(f"{side} · {case}")
            place += 1
        place += 0.6
    axes.set_yticks(ticks, names, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1.0, color="#303030", linewidth=0.8)
    axes.set_xlabel("speed as a multiple of the grey side's; blue: Tunesmith")
    draw(figure, path)


def growth(lines: list[str]) -> None:
    """Draw how a step's time and memory grow along each axis."""
    from matplotlib.figure import Figure

    path = common.RESULTS / "growth.json"
    if not path.exists():
        return
    axes = json.loads(path.read_text())
    figure = Figure(figsize=(3 * len(axes), 5))
    for column, (axis, found) in enumerate(axes.items()):
        points = [float(value) for value in found["medians"]]
        for row, (key, unit) in enumerate(found["keys"].items()):
            scale = 1e6 if unit == "MB" else 1.0
            one = figure.add_subplot(2, len(axes), 1 + column + row * len(axes))
            ends = [found["ranges"][value][key] for value in found["medians"]]
            one.fill_between(points, [low / scale for low, _ in ends], [high / scale for _, high in ends], alpha=0.3)
            one.plot(points, [own[key] / scale for own in found["medians"].values()], "o-", markersize=3)
            one.set_xscale("log", base=2)
            one.set_yscale("log")
            one.set_xlabel(axis, fontsize=8)
            one.set_ylabel(f"{key.replace('_', ' ')} ({unit})", fontsize=8)
            one.tick_params(labelsize=7)
    draw(figure, FOLDER / "growth.svg")
    lines += [
        "",
        "## How a step's time and memory grow",
        "",
        "`python benchmarks/growth.py`",
        "",
        "![growth](growth.svg)",
    ]
    where = "A Llama shape of four layers, LoRA; from 8 rows of 128 tokens, width 256; many deltas with a row each. "
    lines += ["", where + facts(next(iter(axes.values()))), ""]
    lines += ["| axis | value | step (s) | memory (MB) |", "|---|---|---|---|"]
    for axis, found in axes.items():
        for value, own in found["medians"].items():
            lines.append(f"| {axis} | {value} | {own['step_seconds']:.3f} | {own['peak_bytes'] / 1e6:,.0f} |")


def methods(lines: list[str]) -> None:
    """Add the tables of every method."""
    from methods import load, tables

    if load()["quality"]:
        lines += ["", "## Every method: score, trained share, seconds and memory of the same steps", "",
                  "`python benchmarks/methods.py quality`, `python benchmarks/methods.py speed`. Each method with the "
                  "better of three learning rates, chosen on validation rows; the mean of three seeds, with the mean "
                  "of their intervals. Times are medians of windows of steps."]  # fmt: skip
        lines += tables()
        lines += ["", _slower(load()["speed"])]


def _slower(speed: dict[str, Any]) -> str:
    """Name what is slower than PEFT's or larger, why as far as that is known, and what would be tried next."""
    from methods import seconds

    times, sizes = {}, []
    for key, one in speed.items():
        ours, *peft = seconds(one).values()
        alone = list(one["alone"].values())
        if peft and peft[0] < 0.995 * ours:
            times[key] = peft[0] / ours
        if peft and alone[0]["peak_bytes"] > 1.005 * alone[1]["peak_bytes"]:
            sizes.append(alone[0]["peak_bytes"] / alone[1]["peak_bytes"])
    slower = ", ".join(f"{key.replace('/language', '')} rows {value:.2f}" for key, value in times.items())
    return (
        f"Slower than PEFT's: {slower.replace('/', ', ')} times as fast, all on rows of equal length in a model whose "
        "matrices are 64 wide. There nothing is padded, so both sides do the same work, and what is left is the cost "
        "of many small calls. The windows of both sides overlap everywhere; IA3 alone is slower at both sizes. Why was "
        "not taken apart yet; next: a profile of its step call by call, and its factor inside the frozen product. "
        f"Larger than PEFT's: {len(sizes)} cases with 8 such rows, at most {max(sizes):.2f} times, of about 500 MB, "
        "nearly all of it the program itself. Soft prompts are 1.5 times as fast on padded rows only: on rows of 128 "
        "tokens 20 virtual ones are 14 % of the operations, and a prefix saves none."
    )


def semi_supervised(lines: list[str]) -> None:
    """Add what unlabelled rows gain."""
    path = common.RESULTS / "semi_supervised.json"
    if not path.exists():
        return
    lines += ["", "## Unlabelled rows beside BANKING77's 5-shot split, MiniLM with LoRA", "",
              "`python benchmarks/semi_supervised.py`. Accuracy on the 3,080 test rows; the gain is over the same run "
              "without the unlabelled file, trained in the same pass, with its paired 95 % interval. Pseudo-labels "
              "right: of those learned from in the last round or epoch, by labels read to count them only.", "",
              "| way | seed | accuracy | gain | pseudo-labels | right |", "|---|---|---|---|---|---|"]  # fmt: skip
    for way, one in json.loads(path.read_text()).items():
        for seed, run in enumerate(one.get("runs", [])):
            scheme, gain = run["scheme"], run["scheme"]["gain"]["test"]["accuracy"]
            last = (scheme.get("rounds") or scheme["epochs"])[-1]
            right = "" if last.get("right_share") is None else f"{100 * last['right_share']:.1f} %"
            lines.append(
                f"| {way} | {seed} | {100 * run['accuracy']['test']['value']:.2f} % | {100 * gain['value']:+.2f} "
                f"({100 * gain['low']:+.2f} to {100 * gain['high']:+.2f}) | {last.get('accepted', '')} | {right} |"
            )


def dual_learning(lines: list[str]) -> None:
    """Add what dual learning gains on a small task."""
    path = common.RESULTS / "dual_learning.json"
    if not path.exists():
        return
    lines += ["", "## Dual learning on eight intents of BANKING77, five labelled rows each", "",
              "`python benchmarks/dual_learning.py`. Accuracy on 320 test rows; the gain is over the same run without "
              "it, with its paired 95 % interval.", "", "| way | accuracy | gain |", "|---|---|---|"]  # fmt: skip
    for way, run in json.loads(path.read_text()).items():
        if way != "machine":
            gain = run["scheme"]["gain"]["test"]["accuracy"]
            lines.append(
                f"| {way} | {100 * run['accuracy']['test']['value']:.1f} % | {100 * gain['value']:+.1f} "
                f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}) |"
            )


def attribute_zero_shot(lines: list[str]) -> None:
    """Add how digits that were never seen are told."""
    path = common.RESULTS / "attribute_zero_shot.json"
    if not path.exists():
        return
    found = json.loads(path.read_text())
    splits = list(next(iter(found["ways"].values())))
    lines += ["", "## Digits that were never seen, by their attributes", "",
              f"`python benchmarks/attribute_zero_shot.py`. MNIST, {found['taught']} training images per seen digit, "
              f"{found['tested']} test images per digit; three digits are unseen in each split. Share of the unseen "
              "digits' images told right among the three (chance 33.3 %), with its 95 % interval; and the harmonic "
              "mean of seen and unseen digits' shares among all ten, mean over the splits.", "",
              "| way | " + " | ".join(f"unseen {', '.join(split)}" for split in splits) + " | mean | all ten |",
              "|---" * (len(splits) + 3) + "|"]  # fmt: skip
    for way, own in found["ways"].items():
        shares = [one["zero_shot"] for one in own.values()]
        cells = [f"{100 * one['value']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f})" for one in shares]
        mean = sum(one["value"] for one in shares) / len(shares)
        both = sum(one["harmonic"]["value"] for one in own.values()) / len(own)
        lines.append(f"| {way} | {' | '.join(cells)} | {100 * mean:.1f} % | {100 * both:.1f} % |")
    lines += ["", "Rules and clusters are above chance in every split, the models on the mean and in most splits. "
              "Where a model's interval reaches down to chance, likely the seen digits do not show what "
              "tells the three apart: an open top, two holes and slimness stand in one digit each, so with that digit "
              "unseen nothing is learned of them. Rules need no such examples."]  # fmt: skip


def many_deltas(lines: list[str]) -> None:
    """Add eight deltas in one pass against eight runs in sequence."""
    path = common.RESULTS / "many_deltas.json"
    if not path.exists():
        return
    kept = json.loads(path.read_text())
    lines += ["", "## Eight LoRA deltas in one pass against eight runs in sequence", "",
              "`python benchmarks/many_deltas.py`. Eight rows per delta and step; rank and learning rate differ; the "
              f"memory is that of the pass over that of one run. {where(kept['machine'])}.", "",
              "| model / tokens per row | in sequence (s) | in one pass (s) | times as fast | memory |",
              "|---|---|---|---|---|"]  # fmt: skip
    for name, one in kept["models"].items():
        found = one["medians"]
        lines.append(
            f"| {name} | {found['sequence']['seconds']:.1f} | {found['together']['seconds']:.1f} | "
            f"{one['speedup']:.2f} | {one['memory_ratio']:.2f} |"
        )
    lines += ["", "Rows of 128 tokens stay below 1.3: one run of 8 x 128 tokens already fills both cores, and what one "
              "pass saves is the cost of many small calls. Next: a limit on the tokens of all deltas together, so that "
              "a pass stays within the cache."]  # fmt: skip


def searches(lines: list[str]) -> None:
    """Add what prompt searches found."""
    path = common.RESULTS / "prompt_search.json"
    if not path.exists():
        return
    lines += ["", "## A prompt search against its hand-written start", "",
              "`python benchmarks/prompt_search.py`. Ten domains of CLINC150; accuracy on rows that did not choose, "
              "with the paired interval of the gain.", "",
              "| model | start | found | gain | evaluations | the same twice / after a kill | found prompt |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for model, one in json.loads(path.read_text()).items():
        if model == "machine":
            continue
        start, found = (f"{100 * one[name]['value']:.1f} %" for name in ("start", "found"))
        gain = one["gain"]
        value, low, high = (f"{100 * gain[key]:+.1f}" for key in ("value", "low", "high"))
        same = " / ".join("yes" if one[key] else "no" for key in ("same_twice", "same_after_kill"))
        shown = one["prompt"].strip().replace("\n", "<br>").replace("|", "\\|")
        lines.append(f"| {model} | {start} | {found} | {value} ({low} to {high}) | {one['evaluations']:.1f} | {same} | "
                     f"`{shown}` |")  # fmt: skip


def predictions(lines: list[str]) -> None:
    """Add what the advisor predicted, and what recipes then took."""
    path = common.RESULTS / "predictions.json"
    if not path.exists():
        return
    cases = json.loads(path.read_text())["cases"]
    within = {key: sum(one["within"][key] for one in cases.values()) for key in ("memory", "time")}
    lines += ["", "## What the advisor predicts against what recipes then take", "",
              f"`python benchmarks/predictions.py`. {len(cases)} recipes; no number of the prediction was found on "
              "them. Seconds are processor seconds of one thread, of the whole run; memory is the process's peak. "
              f"Within 15 % of memory: {within['memory']} of {len(cases)}; within 30 % of time: {within['time']} of "
              f"{len(cases)}.", "",
              "| recipe | memory predicted / measured (MB) | error | seconds predicted / measured | error | missed |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for name, one in cases.items():
        said, was, errors = one["predicted"], one["measured"], one["errors"]
        memory = f"{said['bytes'] / 1e6:,.0f} / {was['bytes'] / 1e6:,.0f} | {100 * errors['memory']:+.1f} %"
        seconds = f"{said['seconds']:.1f} / {was['seconds']:.1f} | {100 * errors['time']:+.1f} %"
        missed = ", ".join(key for key, kept in one["within"].items() if not kept)
        lines.append(f"| {name} | {memory} | {seconds} | {missed} |")


def score_bands(lines: list[str]) -> None:
    """Add the advisor's bands of accuracy, and what the plans then scored."""
    cases = common.kept("score_bands")
    if not cases:
        return
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in cases.values():
        for name, plan in one["plans"].items():
            kinds.setdefault(name, []).append(plan)
    counts = "; ".join(
        f"{name} {sum(plan['within'] for plan in plans)} of {len(plans)} "
        f"({sum(plan['strictly_within'] for plan in plans)} strictly)"
        for name, plans in kinds.items()
    )
    lines += ["", "## The advisor's bands of accuracy against what plans then score", "",
              "`python benchmarks/score_bands.py`. Domains of CLINC150 (450 test rows) and parts of BANKING77 (600), "
              "15 intents each. Within: the score's interval (Wilson's, 95 %) meets the band; strictly: the score "
              "itself lies in it. "
              f"{counts}.", "",
              "| task | rows per intent | plan | band | measured on test | within |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for domain, one in cases.items():
        for name, plan in one["plans"].items():
            band, was = plan["band"], plan["measured"]
            within = "strictly" if plan["strictly_within"] else "yes" if plan["within"] else "**no**"
            ends = f"{100 * band['low']:.1f} to {100 * band['high']:.1f} %"
            score = f"{100 * was['value']:.1f} % ({100 * was['low']:.1f} to {100 * was['high']:.1f})"
            lines.append(f"| {domain} | {one['rows_per_label']} | {name} | {ends} | {score} | {within} |")


def prompts_and_weights(lines: list[str]) -> None:
    """Add soft prompt, hard prompt, LoRA and combinations under equal processor time."""
    from matplotlib.figure import Figure

    path = common.RESULTS / "prompts_and_weights.json"
    if not path.exists():
        return
    found = json.loads(path.read_text())
    lines += ["", "## Prompts and weights under equal processor time", "",
              f"`python benchmarks/prompts_and_weights.py`. {found['seconds']:g} seconds per side, one seed.", "",
              "![prompts and weights](prompts_and_weights.svg)", "",
              "| side | test accuracy | epochs | training (s) | trained numbers |",
              "|---|---|---|---|---|"]  # fmt: skip
    figure = Figure(figsize=(8, 0.8 + 0.35 * len(found["sides"])))
    axes = figure.subplots()
    for place, (side, one) in enumerate(found["sides"].items()):
        value, low, high = (100 * one["test"][key] for key in ("value", "low", "high"))
        cells = [side, f"{value:.1f} % ({low:.1f} to {high:.1f})", str(one["epochs"]), f"{one['cpu_seconds']:.1f}"]
        lines.append(f"| {' | '.join([*cells, format(one['trained'], ',')])} |")
        axes.barh(place, value, xerr=[[value - low], [high - value]], color="#4878a8", ecolor="#303030", capsize=2)
    axes.set_yticks(range(len(found["sides"])), list(found["sides"]), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %")
    draw(figure, FOLDER / "prompts_and_weights.svg")


def draw(figure: Any, path: Path) -> None:
    """Write a picture that is the same for the same numbers."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.tight_layout()
    with matplotlib.rc_context({"svg.hashsalt": "tunesmith", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def fitted(found: dict[str, Any]) -> list[str]:
    """Word which lengths fit into 8 GiB by the lines through the measured points."""
    lines = ["", "| side | kB per token | tokens in 8 GiB |", "|---|---|---|"]
    for side, one in found["in 8 GiB"].items():
        lines.append(f"| {side} | {one['bytes_per_token'] / 1e3:,.0f} | {one['tokens']:,.0f} |")
    return lines


def chaos_table() -> list[str]:
    """Word what kills and full disks did to training."""
    path = common.RESULTS / "chaos.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())["blows"]
    lines = ["", "## Killed at random moments, and gone on", "", "`python benchmarks/chaos.py`. After every blow the "
             "folder is loaded, training goes on, and its end is compared with an undisturbed run's.", "",
             "| blow | blows | killed / refused / came too late | left: nothing / unfinished / finished | resumes | "
             "differences |", "|---|---|---|---|---|---|"]  # fmt: skip
    fates, states = ("killed", "refused", "survived"), ("nothing yet", "unfinished", "finished")
    keys = (("blows",), fates, states, ("resumes",), ("differences",))
    for blow, count in found.items():
        lines.append(f"| {blow} | {' | '.join(' / '.join(str(count.get(k, 0)) for k in some) for some in keys)} |")
    total = [" / ".join(str(sum(count.get(k, 0) for count in found.values())) for k in some) for some in keys]
    return [*lines, f"| together | {' | '.join(total)} |"]


def processes_table(shard: bool = False) -> list[str]:
    """Word how several processes' gradients differ from one's, what a step sends, and what each holds of the base."""
    path = common.RESULTS / f"processes{'_shard' if shard else ''}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    title, option = ("Several processes that share the base out", " --shard") if shard else ("Several processes", "")
    what = (
        "MiniLM in float64, LoRA, {rows} rows of BANKING77 in steps of {batch}; differences relative to the largest "
        "number of a tensor, bytes that every process gives to torch's all_reduce."
    ).format(**found)
    columns = ("processes", "steps", "largest difference: gradients of a step / delta at the end",
               "bytes per step: gradients / loss and flag", "bytes of the delta and the head")  # fmt: skip
    columns += ("bytes that a process holds between steps: blocks' matrices / the whole base",) if shard else ()
    lines = ["", f"## {title}", "", f"`python benchmarks/processes.py{option}`. {what}", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for count, own in found["processes"].items():
        sent = f"{own['gradient_bytes_per_step']:,.0f} / {own['other_bytes_per_step']:,.0f}"
        far = f"{own['gradient_difference']:.1e} / {own['delta_difference']:.1e}"
        parts = own["reported"].get("held_block_bytes", "all")
        held = [f"{parts:{'' if parts == 'all' else ','}} / {own['held_base_bytes']:,}"] if shard else []
        lines.append(f"| {' | '.join([count, str(own['steps']), far, sent, format(own['delta_bytes'], ','), *held])} |")
    return lines


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    lines = [
        "# Benchmarks", "",
        "Made by `python benchmarks/report.py` from `benchmarks/results`. Every side ran in turn with the others, in a",
        "process of its own; medians, and the lowest and highest in brackets. `make bench` runs all of it.",
    ]  # fmt: skip
    for name, (title, command, *notes) in TITLES.items():
        path = common.RESULTS / f"{name}.json"
        if not path.exists():
            continue
        cases = {case: found for case, found in json.loads(path.read_text()).items() if "keys" in found}
        lines += ["", f"## {title}", "", " ".join([f"`{command}`", *notes]), "", f"![speed]({name}.svg)"]
        for case, found in cases.items():
            lines += ["", f"**{case}.** {facts(found)}", "", *table(found)]
        picture(cases, FOLDER / f"{name}.svg")
        lines += fitted(json.loads(path.read_text())) if name == "longest" else []
    growth(lines)
    methods(lines)
    many_deltas(lines)
    searches(lines)
    predictions(lines)
    score_bands(lines)
    prompts_and_weights(lines)
    semi_supervised(lines)
    dual_learning(lines)
    attribute_zero_shot(lines)
    lines += [
        *few_shot_intents(FOLDER, draw),
        *omniglot(FOLDER, draw),
        *ways(FOLDER, draw),
        *ensembles(),
        *interval_coverage(),
        *closed_loop(),
        *killed_study(),
        *search_functions(),
    ]
    (FOLDER / "README.md").write_text(
        "\n".join(
            [
                *lines,
                *operations_table(),
                *kept_table(),
                *memory_table(),
                *precision_table(),
                *chaos_table(),
                *processes_table(),
                *processes_table(shard=True),
            ]
        )
        + "\n",
        encoding="utf-8",
    )
    print(f"written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
