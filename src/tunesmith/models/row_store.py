"""Hidden states of known rows, in memory or in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import CheckpointError

_STATES, _FACTS = "states.bin", "rows.json"


class RowStore:
    """States of rows that are known beforehand, each filled once.

    Args:
        rows: a key per row, and its tokens; equal keys are one row.
        width: D.
        dtype: of what is kept; bfloat16 halves the place of float32 and rounds.
        folder: for a file that outlives the run; memory when None.
        owner: what the states depend on besides the rows: the model, its blocks.
    Raises:
        CheckpointError: the folder's file is damaged, or there is no room for it.
    """

    def __init__(
        self,
        rows: Iterable[tuple[bytes, int]],
        width: int,
        dtype: torch.dtype,
        folder: Path | None = None,
        owner: str = "",
    ) -> None:
        self._places: dict[bytes, slice] = {}
        self.tokens, self.dtype = 0, dtype
        for key, length in rows:
            if key not in self._places:
                self._places[key] = slice(self.tokens, self.tokens + length)
                self.tokens += length
        self.missing = set(self._places)
        self._folder = folder and folder / self._name(width, owner)
        shape = (self.tokens, width)
        self._states = torch.empty(shape, dtype=dtype) if self._folder is None else self._mapped(self._folder, shape)

    def knows(self, keys: Iterable[bytes]) -> bool:
        """Say whether all rows are known.

        Args:
            keys: of rows.
        """
        return all(key in self._places for key in keys)

    def put(self, keys: Sequence[bytes], states: Tensor) -> None:
        """Keep states.

        Args:
            keys: of the rows.
            states: (N, D), of all their tokens one after another.
        """
        start = 0
        for key in keys:
            place = self._places[key]
            end = start + place.stop - place.start
            self._states[place] = states[start:end].to(self._states)
            self.missing.discard(key)
            start = end

    def get(self, keys: Sequence[bytes]) -> Tensor:
        """Give states back.

        Args:
            keys: of rows that were put.
        Returns:
            (N, D).
        """
        return torch.cat([self._states[self._places[key]] for key in keys])

    @property
    def filled(self) -> int:
        """How many rows were put so far. [count]"""
        return len(self._places) - len(self.missing)

    def state(self) -> dict[str, Tensor]:
        """Return what was kept so far, for a checkpoint; a row that is computed anew in other company would round.

        Returns:
            "filled", the numbers of the rows that were put, and of a store in memory "states".
        """
        filled = [number for number, key in enumerate(self._places) if key not in self.missing]
        found = {"filled": torch.tensor(filled, dtype=torch.int64)}
        if self._folder is not None:
            self.close()
        elif filled:
            keys = list(self._places)
            found["states"] = self.get([keys[number] for number in filled]) if self.missing else self._states
        return found

    def resume(self, state: Mapping[str, Tensor]) -> int:
        """Take over what was kept; rows of a file that were put after the checkpoint are put again.

        Args:
            state: from `state`, of the same rows.
        Returns:
            How many rows the file has lost since. [count]
        """
        keys = list(self._places)
        before = [keys[number] for number in state["filled"].tolist()]
        lost = 0 if "states" in state else len(self.missing.intersection(before))
        if "states" in state:
            self.put(before, state["states"])
        else:
            self.missing |= set(keys) - set(before)
        return lost

    def close(self) -> None:
        """Let a later run begin with the rows of this one; nothing to do for a store in memory."""
        if self._folder is None:
            return
        self._map.flush()
        filled = [number for number, key in enumerate(self._places) if key not in self.missing]
        new = self._folder / f"{_FACTS}.new"
        new.write_text(json.dumps({"filled": filled}), encoding="utf-8")
        new.replace(self._folder / _FACTS)

    def _name(self, width: int, owner: str) -> str:
        found = hashlib.sha256(f"{owner} {width} {self.dtype}".encode())
        for key in self._places:
            found.update(hashlib.sha256(key).digest())
        return found.hexdigest()[:32]

    def _mapped(self, folder: Path, shape: tuple[int, int]) -> Tensor:
        kind = {2: np.int16, 4: np.int32, 8: np.int64}[self.dtype.itemsize]  # numpy knows no bfloat16
        path, size = folder / _STATES, shape[0] * shape[1] * self.dtype.itemsize
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = path.exists() and path.stat().st_size == size
            self._map = np.memmap(path, kind, "r+" if known else "w+", shape=shape)
            facts = folder / _FACTS
            if known and facts.exists():
                keys = list(self._places)
                self.missing -= {keys[number] for number in json.loads(facts.read_text(encoding="utf-8"))["filled"]}
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise CheckpointError(
                f"training.cache: {folder} cannot be used ({error}). Delete that folder, free {size:,} bytes there, or "
                "set training.cache: memory or off."
            ) from None
        return torch.from_numpy(self._map).view(self.dtype)
