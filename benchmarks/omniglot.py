"""Few-shot learning of Omniglot's characters: accuracy over episodes of held-out alphabets, and the 20 one-shot runs.

    TUNESMITH_DATA=... python benchmarks/omniglot.py [--learners prototypical matching ...] [--ways 5 20] [--shots 1 5]

Learned from: six of the eight alphabets of images_background_small1 and small2 (183 characters, turned by 90, 180 and
270 degrees 732 classes). Held out whole: Sanskrit and Tagalog, the last two by name (59 characters, turned 236
classes). Every shape is scored on 600 episodes with 5 queries per class, beside nearest class means on the random
encoder. The published one-shot runs (all_runs: 20 ways, 1 shot, within an alphabet that is not among the eight) are
answered once, after training. The settings were chosen on Korean and Early Aramaic, held out of the six. Results go to
benchmarks/results/omniglot.json, one case per learner.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import common

SOURCES = ("images_background_small1.zip", "images_background_small2.zip")
HELD_OUT = ("Sanskrit/*", "Tagalog/*")
_DESCENT = {"inner_steps": 3, "answer_steps": 3}

# Learner's settings, training episodes (ways, shots, queries), steps of two episodes, learning rate.
LEARNERS: dict[str, tuple[dict[str, Any], tuple[int, int, int], int, float]] = {
    "prototypical": ({}, (20, 1, 5), 150, 1e-3),
    "matching": ({}, (20, 1, 5), 150, 1e-3),
    "conditional": ({}, (20, 1, 5), 150, 1e-3),
    "dual": ({}, (20, 1, 5), 150, 1e-3),
    "anil": ({}, (20, 1, 5), 150, 1e-3),
    "maml": ({**_DESCENT, "inner_rate": 0.02}, (20, 1, 5), 60, 1e-3),
    "reptile": ({**_DESCENT, "inner_rate": 0.02}, (5, 3, 2), 600, 1e-3),
}


def merged(folder: Path) -> Path:
    """Write both background sets as one archive; what stands in both (Greek, Latin) stands there once."""
    place, seen = folder / "background.zip", set[str]()
    with zipfile.ZipFile(place, "w") as target:
        for name in SOURCES:
            with zipfile.ZipFile(common.place("TUNESMITH_DATA") / "omniglot" / name) as archive:
                for info in archive.infolist():
                    short = info.filename.partition("/")[2]
                    if short.endswith(".png") and short not in seen:
                        seen.add(short)
                        target.writestr(short, archive.read(info))
    return place


def one_shot_runs(run: Any) -> list[float]:
    """Answer the published runs; return the share of wrong answers in each of the 20."""
    from tunesmith.data.images import decode

    wrong = []
    with zipfile.ZipFile(common.place("TUNESMITH_DATA") / "omniglot" / "all_runs.zip") as archive:
        for number in range(1, 21):
            lines = archive.read(f"run{number:02d}/class_labels.txt").decode().split("\n")
            pairs = [line.split() for line in lines if line.strip()]
            classes = sorted({answer for _, answer in pairs})
            pixels = {name: decode(archive.read(name), name, 28) for pair in pairs for name in pair}
            found = run.answer({name: [pixels[name]] for name in classes}, [pixels[asked] for asked, _ in pairs])
            hits = [one.label == answer for one, (_, answer) in zip(found, pairs, strict=True)]
            wrong.append(1 - sum(hits) / len(hits))
    return wrong


def work(given: dict[str, Any]) -> dict[str, Any]:
    """Meta-train one learner and score it."""
    import numpy as np

    import tunesmith
    from tunesmith.evaluation.statistics import Bootstrap
    from tunesmith.fewshot.scoring import EpisodeScore

    settings, (ways, shots, queries), steps, rate = LEARNERS[given["learner"]]
    with tempfile.TemporaryDirectory() as place:
        recipe = {
            "learner": {"name": given["learner"], **settings},
            "model": "conv",
            "data": {"train": str(merged(Path(place))), "held_out": list(HELD_OUT), "rotations": True},
            "episodes": {"ways": ways, "shots": shots, "queries": queries},
            "training": {"steps": steps, "episodes_per_step": 2, "learning_rate": rate},
            "evaluation": {"queries": 5, **{key: given[key] for key in ("ways", "shots", "episodes")}},
            "seed": given["seed"],
        }
        found: dict[str, Any] = {"recipe": {**recipe, "data": {**recipe["data"], "train": "background.zip"}}}
        run = tunesmith.episodes({**recipe, "output": str(Path(place) / "run")})
        wrong = one_shot_runs(run)
        mean = EpisodeScore(np.array(wrong), 20).estimate(Bootstrap(1000, 0.95, 0))
        keys = ("metrics", "before", "gain", "episodes", "episodes_trained", "training_seconds", "seconds", "data")
        found |= {key: run.summary[key] for key in keys}
        history = [json.loads(line) for line in io.StringIO((run.folder / "history.jsonl").read_text())]
        return {**found, "one_shot_runs": {"error": mean.plain(), "runs": wrong}, "history": history}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=list(LEARNERS))
    parser.add_argument("--ways", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    for learner in given.learners:
        found = common.child(__file__, {**vars(given), "learner": learner}, given.threads)
        common.keep("omniglot", learner, {**found, "machine": common.machine(given.threads)})
        print(learner, sentence(found), flush=True)


def sentence(found: dict[str, Any]) -> str:
    """Word one learner's scores."""
    parts = [f"{shape} {100 * one['value']:.2f} ({100 * one['low']:.2f} to {100 * one['high']:.2f}) %"
             for shape, one in found["metrics"].items()]  # fmt: skip
    error = found["one_shot_runs"]["error"]
    return f"{', '.join(parts)}; one-shot runs, error {100 * error['value']:.1f} %"


if __name__ == "__main__":
    common.begin(work, main)
