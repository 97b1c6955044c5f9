"""The planner's prediction against what a run in a process of its own then takes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import transformers

from tests.conftest import TEXTS, save_tiny_bert, write_csv

PROGRAM = """
import json
import sys
import tunesmith

run = tunesmith.train({
    "model": sys.argv[1], "data": {"train": sys.argv[2], "validation": 0.1}, "output": sys.argv[3],
    "method": {"name": "lora", "rank": 4}, "evaluation": {"resamples": 100, "baselines": False},
    "training": {"epochs": 1, "batch_size": 128, "tokens_per_pass": 65536},
})
print(json.dumps([run.summary["predicted_peak_memory_bytes"], run.summary["peak_memory_bytes"]]))
"""


def test_the_predicted_peak_is_within_15_percent(tmp_path: Path) -> None:
    """Rows of 62 tokens under four blocks of width 192: what 128 rows keep is about as much as the program itself."""
    model = save_tiny_bert(tmp_path / "model", 0)
    config = transformers.BertConfig.from_pretrained(model)
    config.update({"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 768})
    transformers.BertModel(config).save_pretrained(model)
    rows = [
        (" ".join([*extra, *[text] * 30]), label)
        for label, texts in TEXTS.items()
        for text in texts
        for extra in itertools.product("abcde", "ab")
    ]
    file = write_csv(tmp_path / "rows.csv", rows)
    words = [sys.executable, "-c", PROGRAM, str(model), str(file), str(tmp_path / "run")]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    predicted, measured = json.loads(ended.stdout)
    assert abs(predicted / measured - 1) <= 0.15
