"""The study database, wherever its folder is."""

from pathlib import Path

import pytest

from tunesmith.search.database import Database, read_earlier

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def test_a_folder_may_have_signs_of_addresses_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "50%41 of #1 {x}, why?"
    Database(folder, {"seed": 1}, True).close()
    assert [item.name for item in tmp_path.iterdir()] == [folder.name] and (folder / "study.db").is_file()
    Database(folder, {"seed": 1}, True, "resume").close()
    assert read_earlier(folder) == ([], True)
