from pathlib import Path

import pytest
import transformers

from tunesmith.core.errors import DataError
from tunesmith.data.tokens import tokenize


def test_long_rows_are_cut_and_counted(tiny_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    rows = tokenize(tokenizer, ["hello", "hello " * 30, "thank you"], 6)
    assert rows.truncated == 1 and rows.lengths.tolist()[1] == 6 and rows.full_lengths[1] > 6
    assert rows[1][-1] == tokenizer.sep_token_id and rows[1][0] == tokenizer.cls_token_id
    assert rows[0].tolist() == tokenizer("hello")["input_ids"]


def test_chunks_do_not_show(tiny_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    texts = [f"hello friend {number}" for number in range(2100)]
    rows = tokenize(tokenizer, iter(texts), 64)
    assert len(rows) == 2100
    assert all(rows[i].tolist() == tokenizer(texts[i])["input_ids"] for i in (0, 1023, 1024, 2099))


def test_a_text_without_a_token_is_refused(tiny_folder: Path) -> None:
    class Silent:
        def __call__(self, texts: list[str], **settings: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[1] if text == "a" else [] for text in texts]}

    with pytest.raises(DataError, match=r"'\\u200b' \(row 2\) gives no token"):
        tokenize(Silent(), ["a", "\u200b"], 8)
