"""The door to optuna, which draws points of a space and keeps books; nothing else imports it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core.errors import MissingDependency

_EXTRA = "search"


def optuna() -> Any:
    """Import optuna; it says nothing but warnings from then on.

    Returns:
        The module.
    Raises:
        MissingDependency: it is not installed.
    """
    found = needed("optuna", "searching settings")
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def needed(package: str, what: str) -> Any:
    """Import a package of the extra `search`.

    Args:
        package: its name.
        what: needs it.
    Returns:
        The module.
    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise MissingDependency(package, _EXTRA, what) from None


def sqlite_at(database: str, **query: str) -> str:
    """Write the address of an SQLite file, whatever signs its folders have in their names.

    Args:
        database: path of the file, or its address.
        **query: of the address.
    Returns:
        The URL that optuna takes.
    """
    url = needed("sqlalchemy", "searching settings").engine.URL.create("sqlite", database=database, query=query)
    return str(url.render_as_string())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep optuna's remarks about experimental parts, which a user cannot act on, out of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna().exceptions.ExperimentalWarning)
        yield
