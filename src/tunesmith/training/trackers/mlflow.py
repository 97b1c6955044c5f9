"""MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import MissingDependency
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.trackers.base import Told, Tracker

_PARAMETERS, _LENGTH = 100, 500  # of one call, and of a value: what a server takes


class _Logged(Told):
    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log them together."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(name.replace("%", "percent"), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=found)

    def close(self, interrupted: bool) -> None:
        """End the run there."""
        self._client.set_terminated(self._run, "KILLED" if interrupted else "FINISHED")


@register("trackers")
class MLflow(Tracker):
    """Logs to an MLflow server or folder: the recipe as parameters, a run for each trial."""

    name: ClassVar[str] = "mlflow"

    uri: str = setting("", "Tracking server or folder; what MLFLOW_TRACKING_URI says when empty.")
    experiment: str = setting("tunesmith", "Name of the experiment; made where it is not there.", min_length=1)

    def check(self) -> None:
        """Import the package."""
        _package()

    def begin(self, output: Path, name: str, settings: Mapping[str, Any]) -> Told:
        """Make a run, and log the recipe."""
        from mlflow.entities import Param

        client = _package().MlflowClient(tracking_uri=self.uri or None)
        known = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if known is None else known.experiment_id
        run = client.create_run(experiment, run_name=f"{output.name} {name}").info.run_id
        written = [Param(key, str(value)[:_LENGTH]) for key, value in settings.items()]
        for start in range(0, len(written), _PARAMETERS):
            client.log_batch(run, params=written[start : start + _PARAMETERS])
        return _Logged(client, run)


def _package() -> Any:
    try:
        import mlflow
    except ImportError:
        raise MissingDependency("mlflow", "mlflow", "training.trackers: mlflow") from None
    return mlflow
