"""Every task names metrics and baselines that exist, and every component has a summary and described settings."""

import inspect

import pytest

from tunesmith.core.registry import KINDS, components


@pytest.mark.parametrize("name", components("tasks"))
def test_task_names_what_exists(name: str) -> None:
    task = components("tasks")[name]
    assert set(task.metrics) <= set(components("metrics"))
    assert set(task.baselines) <= set(components("baselines"))
    assert task() == task()


@pytest.mark.parametrize("kind", KINDS)
def test_components_describe_themselves(kind: str) -> None:
    for name, component in components(kind).items():
        assert inspect.getdoc(component), f"{kind} {name} needs a sentence"
        for key, field in getattr(component, "model_fields", {}).items():
            assert field.description, f"{name}.{key} needs a sentence of help"
            assert field.default is not ..., f"{name}.{key} needs a default"
