"""Workers on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from typing import Any, ClassVar

from tunesmith.core.errors import MissingDependency, RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.pools.base import Hear, Message, Pool
from tunesmith.search.serving import serve


def _ray(name: str = "ray") -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingDependency("ray", "ray", "the pool ray") from None


def _work(folder: str, inbox: Any, outbox: Any) -> None:
    """Serve in the folder of whoever searches, which recipes name their files from."""
    os.chdir(folder)
    serve(inbox.get, outbox.put)


class _Task:
    """A line over two queues of Ray."""

    def __init__(self, threads: int, gpus: float, hear: Hear) -> None:
        ray, queues = _ray(), _ray("ray.util.queue")
        # A queue that claimed a CPU would wait for those of the workers.
        self._inbox, self._outbox = (queues.Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        self._ray, self._why = ray, ""
        task = ray.remote(_work).options(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._task = task.remote(os.getcwd(), self._inbox, self._outbox)
        threading.Thread(target=self._read, args=(hear,), daemon=True).start()
        threading.Thread(target=self._watch, args=(hear,), daemon=True).start()

    def _read(self, hear: Hear) -> None:
        with contextlib.suppress(Exception):  # the queue has ended with the worker
            while True:
                hear(self._outbox.get())

    def _watch(self, hear: Hear) -> None:
        try:
            self._ray.get(self._task)
        except Exception as error:  # noqa: BLE001 (of Ray, and whatever the worker raised)
            self._why = f"{type(error).__name__}: {error}".splitlines()[0]
        hear(None)

    def send(self, message: Message) -> None:
        """Put a message into the worker's queue."""
        with contextlib.suppress(Exception):  # it has ended, which the task tells
            self._inbox.put(message)

    def close(self) -> str:
        """Cancel the task."""
        why = self._why
        with contextlib.suppress(Exception):  # it has ended
            self._ray.cancel(self._task, force=True)
        for one in (self._inbox, self._outbox):
            one.shutdown(force=True)
        return why


@register("pools")
class Ray(Pool):
    """Tasks of a Ray cluster, each of which reads recipe, data and model under the same paths as whoever searches."""

    name: ClassVar[str] = "ray"
    remote: ClassVar[bool] = True

    cpus: int | None = setting(
        None, "CPUs of each worker; the threads of whoever searches, shared out, when empty.", unit="count", ge=1
    )
    gpus: float = setting(0.0, "GPUs of each worker.", unit="count", ge=0)

    def check(self, workers: int) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one here; refuse workers that would wait for ever."""
        ray = _ray()
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        there = ray.cluster_resources()
        for kind, each in (("CPU", self.threads(workers)), ("GPU", self.gpus)):
            if workers * each > there.get(kind, 0):
                raise RecipeError(
                    f"search.workers: {workers} of {each:g} {kind}s each, and the Ray cluster has "
                    f"{there.get(kind, 0):g}. Ask for fewer workers, or give each less: "
                    f"search.pool_settings.{kind.lower()}s."
                )

    def threads(self, workers: int) -> int:
        """Return the CPUs of each worker."""
        return self.cpus or super().threads(workers)

    def start(self, threads: int, hear: Hear) -> _Task:
        """Start a task."""
        return _Task(threads, self.gpus, hear)
