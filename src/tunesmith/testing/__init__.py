"""Checks that every component must pass; outsiders run them on their own.

>>> from tunesmith.testing import check_method, tiny_models
>>> from tunesmith.core.registry import find
>>> check_method(find("methods", "lora"), tiny_models()["encoder"])
"""

from tunesmith.testing.heads import check_head
from tunesmith.testing.methods import check_method
from tunesmith.testing.metrics import check_metric
from tunesmith.testing.tiny import tiny_models
from tunesmith.testing.training import check_loss, check_optimizer, check_regularizer, check_schedule

__all__ = [
    "check_head",
    "check_loss",
    "check_method",
    "check_metric",
    "check_optimizer",
    "check_regularizer",
    "check_schedule",
    "tiny_models",
]
