"""Sounds of WAV files as numbers."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError

SUFFIXES = (".wav",)

_WIDEST = 4  # bytes of a sample

Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Sound:
    """A sound.

    Args:
        samples: (channels, T), float32 from -1 to 1.
        rate: samples per second.
    """

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is. [s]"""
        return self.samples.shape[1] / self.rate


def read_sound(path: str | Path) -> Sound:
    """Read a WAV file of whole numbers (PCM) of 8, 16, 24 or 32 bits.

    Args:
        path: of the file.
    Returns:
        The sound.
    Raises:
        DataError: no such file, or one of length zero, damaged, or of another coding.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames = file.getparams()[:4]
            content = file.readframes(frames)
    except (wave.Error, EOFError, OSError, RuntimeError) as error:  # the last where a chunk is longer than the file
        said = error.strerror if isinstance(error, OSError) else str(error) or "it ends too soon"
        raise DataError(
            f"{path}: the sound cannot be read ({said}). WAV files of whole numbers (PCM) are read; save it so, or "
            "take it out of the data."
        ) from None
    whole = len(content) // (width * channels)
    if not whole or not rate:
        raise DataError(f"{path}: the sound has length zero. Record it again, or take it out of the data.")
    if width > _WIDEST:
        raise DataError(f"{path}: the sound has {8 * width} bits per sample; 8, 16, 24 or 32 are read. Save it so.")
    if whole < frames:
        raise DataError(
            f"{path}: the sound is cut short: {whole:,} of {frames:,} samples are there. Restore the file, or take it "
            "out of the data."
        )
    return Sound(_numbers(content, width).reshape(-1, channels).T, rate)


def _numbers(content: bytes, width: int) -> Samples:
    if width == 1:  # the only width without a sign
        return (np.frombuffer(content, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    parts = np.zeros((len(content) // width, 4), np.uint8)
    parts[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    return (parts.view("<i4")[:, 0] / 2**31).astype(np.float32)
