"""Every command and every Python block of the docs runs, in order, on the tutorial's data cut to three labels."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_drawings, save_tiny_bert, save_tiny_writer
from tests.docs.test_readme import ROOT, blocks, small_data
from tunesmith.cli.main import app

PAGES = ["tutorial.md", *sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "tutorial.md")]
RECIPE = """
task: text-classification
model: tiny
data: {train: train.csv, test: test.csv, text: text, label: category}
method: {name: lora, rank: 8}
training: {epochs: 1}
evaluation: {resamples: 100}
output: runs/intents
"""
PROSE = "".join(f"The lamp is {word} and the stone is {word} too.\n" for word in ("red", "green", "grey") * 60)
PYTHON = """
import pathlib, re, sys
root, pages = pathlib.Path(sys.argv[1]), sys.argv[2:]
for page in pages:
    names = {"__name__": "__main__"}
    text = (root / page).read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"```python\\n(.*?)```", text, re.DOTALL)):
        try:
            exec(compile(block, f"{page}[{number}]", "exec"), names)
        except Exception as error:
            raise SystemExit(f"{page}, block {number}: {type(error).__name__}: {error}")
print("all blocks ran")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = small_data(tmp_path_factory.mktemp("pages"))
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "write.yaml").write_text(next(text for text in blocks("docs/tasks.md", "yaml") if "model: writer" in text))
    save_tiny_writer(place / "writer")
    save_tiny_bert(place / "tiny", seed=0)
    save_drawings(place / "drawings.zip")
    drawn = next(text for text in blocks("docs/fewshot.md", "yaml") if "drawings.zip" in text)
    (place / "drawings.yaml").write_text(drawn)
    (place / "prose.txt").write_text(PROSE)
    (place / "more.txt").write_text(PROSE.replace("lamp", "sail"))
    return place


def commands() -> list[tuple[str, str]]:
    lines = [(page, line) for page in PAGES for block in blocks(f"docs/{page}", "bash") for line in block.splitlines()]
    return [(page, line) for page, line in lines if line.startswith("tunesmith ")]


def test_commands_and_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert len(commands()) > 15
    for page, line in commands():
        words = shlex.split(line.split(" > ")[0])[1:]
        if words[0] == "train":
            words += ["training.epochs=1"]
        code = app(words, standalone_mode=False)
        assert not code, f"{page}: {line}"
    command = [sys.executable, "-c", PYTHON, str(ROOT / "docs"), *PAGES]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.endswith("all blocks ran\n"), result.stderr[-2000:]
