"""What the keys of `training` must agree on among themselves."""

from __future__ import annotations

from tunesmith.core.registry import find
from tunesmith.recipe.schema import TrainingSettings


def across_training(training: TrainingSettings) -> list[str]:
    """Check what one key of `training` alone cannot know.

    Args:
        training: each key checked.
    Returns:
        Sentences about what does not go together.
    """
    found = []
    schedule, given = training.schedule["name"], training.model_fields_set
    averages = "optimizer" in given and find("optimizers", training.optimizer["name"]).averages
    if averages and schedule != "constant":
        found.append(
            f"training.schedule: {schedule} lets the learning rate fall, and the optimizer "
            f"{training.optimizer['name']} averages its steps instead. Set training.schedule=constant."
        )
    if "schedule" in given and "warmup_fraction" in given and find("schedules", schedule).rises:
        found.append(
            f"training.warmup_fraction: the schedule {schedule} rises by itself, for its own share of the steps "
            "(rising_fraction). Leave it out."
        )
    return found
