"""Sounds in a folder with one folder per label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.files import holds_folders_of, labelled, other_files
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.sounds import SUFFIXES, read_sound


@register("readers")
class AudioFolder(Reader):
    """A folder of folders of WAV files, each called as its label."""

    name: ClassVar[str] = "audio-folder"
    by_content: ClassVar[bool] = True
    holds: ClassVar[str] = "sounds"
    label_column: ClassVar[str | None] = "label"
    file_column: ClassVar[str | None] = "sound"
    shown: ClassVar[int] = 12

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take folders of sounds."""
        return holds_folders_of(path, SUFFIXES)

    def rows(self) -> Iterator[Row]:
        """Go through the sounds.

        Returns:
            ("file 7", {sound, label, seconds, rate, channels}) for each.
        Raises:
            DataError: a sound of length zero, or one that cannot be read.
        """
        self.skipped = other_files(self.path, SUFFIXES)
        for where, path, label in labelled(self.path, SUFFIXES):
            sound = self.attempt(path, read_sound)
            if sound is None:
                continue
            facts = {"seconds": sound.seconds, "rate": sound.rate, "channels": len(sound.samples)}
            yield where, {"sound": str(path), "label": label, **facts}
