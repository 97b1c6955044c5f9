"""Learning-rate range test: a rate that rises from step to step, and what the loss makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import CheckpointError, DataError, RecipeError, TunesmithError
from tunesmith.core.files import finite, write_atomic, write_json, write_text
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import seed_everything
from tunesmith.models.loading import choose_device
from tunesmith.models.products import narrow_named, narrow_products
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import Meter
from tunesmith.runs.continuing import inherit
from tunesmith.runs.opening import open_family
from tunesmith.runs.preparing import prepare
from tunesmith.runs.teaching import learn_from_teacher
from tunesmith.training.caching import kept_below
from tunesmith.training.loop import Loop
from tunesmith.training.schedules.base import Schedule
from tunesmith.training.trial import Trial

_SMOOTHING = 0.9  # of the losses, for a test of a hundred steps
_WORSE = 4.0  # times the lowest loss: the test ends
_GAIN = 0.02  # share of the first loss that it must fall by to count as learning


class _Rising(Schedule):
    name: ClassVar[str] = "rising"

    first: float
    last: float
    steps: int

    def share(self, step: int, total: int, losses: Sequence[float] = ()) -> float:
        return self.first * (self.last / self.first) ** (step / (self.steps - 1))


def find_rate(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    output: Path | None = None,
    bounds: tuple[float, float] = (1e-6, 1.0),
    steps: int = 100,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train with a rate that rises by the same factor in every step; nothing of it is kept but the numbers.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts.
        output: folder for numbers and pictures; None for none.
        bounds: first and last learning rate.
        steps: at most. [count]
        progress: for the user.
    Returns:
        "rates", "losses", "smoothed", "suggestion" (None where nothing can be said), "reason".
    Raises:
        TunesmithError: any mistake in recipe, data or model.
    """
    low, high = bounds
    if not 0 < low < high <= 10 or not 10 <= steps <= 10_000:
        raise RecipeError(
            f"low={low:g}, high={high:g}, steps={steps}: rates from above 0 to 10, low below high, and 10 to 10,000 "
            "steps are allowed."
        )
    if output is not None and output.is_file():
        raise DataError(f"{output} is a file; give a folder for the numbers and the picture.")
    found = _tested(load_recipe(recipe, overrides), low, high, steps, progress or Progress())
    if output is not None:
        from tunesmith.evaluation.plots import rate_curve

        svg, png = rate_curve(found["rates"], found["losses"], found["smoothed"], found["suggestion"])
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"the output folder {output} cannot be made: {error.strerror}. Choose another with --output."
            ) from None
        write_json(output / "lr-range.json", finite(found))
        write_text(output / "lr-range.svg", svg)
        write_atomic(output / "lr-range.png", lambda place: _fill(place, png))
        found["files"] = [str(output / f"lr-range.{kind}") for kind in ("json", "svg", "png")]
    return found


def _fill(place: Path, content: bytes) -> None:
    place.write_bytes(content)


def _tested(checked: Checked, low: float, high: float, steps: int, progress: Progress) -> dict[str, Any]:
    if checked.candidates:
        raise RecipeError("candidates: the range test trains one variant. Leave them out, and test them in turn.")
    checked, earlier = inherit(checked)
    if not getattr(checked.method, "trains", False):
        raise RecipeError(
            f"method: {checked.method.name} has no learning rate of its own to test. Name a method that trains, for "
            "example method=lora."
        )
    training = checked.recipe.training.model_copy(update={"warmup_fraction": 0.0, "best": "last"})
    checked = replace(checked, recipe=checked.recipe.model_copy(update={"training": training}))
    seed_everything(checked.recipe.seed)
    family = open_family(checked, earlier)
    learn_from_teacher(checked, [family], progress)
    family.look((), Meter(family.session.backbone.device), progress)
    trial = prepare(checked, family, earlier)[0].trial
    rate = training.learning_rate
    trial.optimizer.schedule = _Rising(first=low / rate, last=high / rate, steps=steps)
    narrow = narrow_named(training.precision, choose_device(checked.recipe.model.device))
    try:
        with (
            kept_below([trial], trial.splits, training, family.session.model_hash, progress.say),
            narrow_products(narrow),
            progress.stage("range test", steps, "steps") as bar,
        ):
            losses = _losses(trial, steps, bar)
    finally:
        family.session.backbone.seams.detach(trial.name)
    rates = [low * (high / low) ** (step / (steps - 1)) for step in range(len(losses))]
    smoothed = _smoothed(losses)
    suggestion, reason = suggest(rates, smoothed)
    return {"rates": rates, "losses": losses, "smoothed": smoothed, "suggestion": suggestion, "reason": reason,
            "recipe_rate": rate}  # fmt: skip


def _losses(trial: Trial, steps: int, bar: Any) -> list[float]:
    """Take steps until the loss is far above its lowest, or no number."""
    loop, losses = Loop([trial]), list[float]()
    trial.seed_dropout()
    for _ in range(steps):
        trial.tuned.train(True)
        try:
            (loss,) = loop.step([(trial, trial.take())])
        except TunesmithError:
            if not trial.trained.diverged:
                raise
            break
        losses.append(loss)
        bar(1, f"loss {loss:.3f}")
        smooth = _smoothed(losses)
        if len(losses) > 10 and smooth[-1] > _WORSE * min(smooth):
            break
    return losses


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Take a moving mean that is not pulled to where it starts."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        found.append(mean / (1 - _SMOOTHING**number))
    return found


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> tuple[float | None, str]:
    """Suggest the rate at which the loss falls fastest, on a logarithmic axis of rates.

    Args:
        rates: rising by the same factor.
        smoothed: loss at each.
    Returns:
        The rate, None where the loss does not fall; and why.
    Source: Smith 2015, arXiv:1506.01186, section 3.3.
    """
    if len(smoothed) < 5:
        return None, f"training diverged after {len(smoothed)} steps: start with a lower rate (low)."
    lowest = min(range(len(smoothed)), key=lambda step: smoothed[step])
    fall = smoothed[0] - smoothed[lowest]
    if fall < _GAIN * abs(smoothed[0]):
        return None, (
            f"the loss never falls by {100 * _GAIN:.0f} % of where it begins ({smoothed[0]:.3g}): no rate up to "
            f"{rates[-1]:.2g} teaches within so few steps. Take more steps, or look at the data."
        )
    slopes = {step: smoothed[step + 1] - smoothed[step - 1] for step in range(1, max(2, lowest))}
    steepest = min(slopes, key=lambda step: slopes[step])
    after = (
        f"it is lowest at {rates[lowest]:.2g}, and rises after it"
        if lowest < len(smoothed) - 1
        else f"it still falls at {rates[lowest]:.2g}, the last rate tried"
    )
    return rates[steepest], f"the loss falls fastest at {rates[steepest]:.2g}; {after}."
