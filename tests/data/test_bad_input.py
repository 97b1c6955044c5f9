"""Every mistake in the data is met with what, where, what is allowed and what to do."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.conftest import write_csv, write_jsonl
from tunesmith.api import inspect_data
from tunesmith.core.errors import DataError
from tunesmith.data.examples import Columns, Examples, find_reader, read_examples
from tunesmith.data.inspection import Inspection
from tunesmith.data.readers.base import Row
from tunesmith.training.reading import resolve_path

TEXT_LABEL = Columns("text", "label")


def read(path: Path, columns: Columns = TEXT_LABEL, **settings: object) -> Examples:
    drop = bool(settings.pop("drop", False))
    return read_examples(find_reader(str(path), **settings), columns, drop)


def test_missing_file_offers_the_nearest(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [("a", "b")])
    with pytest.raises(DataError, match=r"there is no data file .*trian\.csv\. Did you mean .*train\.csv\?"):
        read(tmp_path / "trian.csv")


def test_unknown_kind_of_file_lists_the_readable(tmp_path: Path) -> None:
    (tmp_path / "train.xls").touch()
    with pytest.raises(DataError, match=r"no reader for this kind of file\. Readable: .*\.csv.*\.parquet"):
        read(tmp_path / "train.xls")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    with pytest.raises(DataError, match=r"train\.csv is empty\. It needs a header row"):
        read(tmp_path / "train.csv")


def test_header_only(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [])
    with pytest.raises(DataError, match="holds no examples"):
        read(tmp_path / "train.csv")


def test_missing_column_offers_the_nearest(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [("a", "b")], ("txt", "label"))
    with pytest.raises(
        DataError, match=r"unknown column 'text'; did you mean 'txt'\? Allowed: label, txt\. Set data\.text"
    ):
        read(tmp_path / "train.csv")


def test_empty_and_null_cells_are_counted_and_may_be_dropped(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "x"},
        {"text": None, "label": "x"},
        {"text": "  ", "label": "y"},
        {"text": "b", "label": "y"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        DataError, match=r"2 of 4 rows have an empty or null cell: line 2 \(text\), line 3 \(text\).*data\.empty=drop"
    ):
        read(path)
    kept = read(path, drop=True)
    assert len(kept) == 2 and len(kept.dropped) == 2
    assert [kept.where[row] for row in range(2)] == ["line 1", "line 4"]


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_wrong_encoding_names_the_line_and_the_way_out(tmp_path: Path, name: str) -> None:
    lines = (
        ["text,label", "fine,x", "caf\xe9,y"]
        if name.endswith("csv")
        else ['{"text": "a", "label": "x"}', "", '{"text": "caf\xe9", "label": "y"}']
    )
    path = tmp_path / name
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(DataError, match=r"near line 3: byte 0xe9 is not utf-8.*data\.encoding=latin-1"):
        read(path)
    assert read(path, encoding="latin-1").text(1) == "café"


def test_a_ten_megabyte_cell(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [("fine", "x"), ("a" * 10_000_000, "y")])
    with pytest.raises(
        DataError, match=r"begins in line 3: a cell holds more than 1,000,000 characters.*quote was not closed"
    ):
        read(tmp_path / "train.csv")
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "a" * 10_000_000, "label": "x"}))
    with pytest.raises(DataError, match=r"line 1: column 'text' holds 10,000,000 characters"):
        read(tmp_path / "train.jsonl")
    assert len(read(tmp_path / "train.csv", max_characters=20_000_000)) == 2


def test_ragged_rows_and_repeated_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,x\ntwo,y,z\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: 3 cells, but the header names 2 columns"):
        read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text,text\none,x\n")
    with pytest.raises(DataError, match="the column 'text' stands twice"):
        read(tmp_path / "b.csv")


def test_semicolons_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\none;x\n")
    with pytest.raises(DataError, match=r"the header is one column, 'text;label'.*separated by commas"):
        read(tmp_path / "a.csv")


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": ')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not valid JSON"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text('[{"text": "a"}\n{"text": "b"}')
    with pytest.raises(DataError, match=r"not valid JSON.*named \.jsonl"):
        read(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{\n"text": "a"}')
    with pytest.raises(DataError, match="expected a list of objects, found dict"):
        read(tmp_path / "b.json")


def test_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(tmp_path / "a.parquet")


def test_every_format_reads_the_same(tmp_path: Path) -> None:
    import datasets

    rows = [("one, two", "x"), ('three\n"four"', "y"), ("fünf 🙂", "x")]
    table = pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows]})
    write_csv(tmp_path / "a.csv", rows)
    tabbed = "\n".join(["text\tlabel", *(f'"{t}"\t{c}'.replace('"four"', '""four""') for t, c in rows)])
    (tmp_path / "a.tsv").write_text(tabbed, encoding="utf-8")
    objects = [dict(zip(("text", "label"), row, strict=True)) for row in rows]
    (tmp_path / "a.json").write_text(json.dumps(objects))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, objects)))
    parquet.write_table(table, tmp_path / "a.parquet")
    names = datasets.ClassLabel(names=["y", "x"])
    saved = datasets.Dataset.from_list(objects).cast_column("label", names)
    saved.save_to_disk(tmp_path / "saved")
    for name in ("a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet", "saved"):
        found = read(tmp_path / name)
        assert [(found.text(i), found.label(i)) for i in range(3)] == rows, name


@pytest.mark.parametrize("encoding", ["utf-8", "UTF_8", "utf8", "u8"])
def test_excel_mark_is_not_part_of_the_column(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"text",label\na,b\n')
    assert len(read(tmp_path / "a.csv", encoding=encoding)) == 1


def read_headless(path: Path, names: list[str]) -> Examples:
    return read_examples(find_reader(str(path), columns=names), TEXT_LABEL)


def test_a_file_without_a_header(tmp_path: Path) -> None:
    columns = ["text", "label"]
    for name, written in (("a.csv", '"one, two",x\nthree,y\n'), ("a.tsv", '"one, two"\tx\nthree\ty\n')):
        (tmp_path / name).write_text(written)
        found = read_headless(tmp_path / name, columns)
        assert [found.text(0), found.label(0), found.text(1), found.where[0]] == ["one, two", "x", "three", "line 1"]
    (tmp_path / "a.txt").write_text('\ufeff"Hi," he said.\tx\n"open\ty\n\nthird\tx\n', encoding="utf-8")
    found = read_headless(tmp_path / "a.txt", columns)
    assert [found.text(row) for row in range(3)] == ['"Hi," he said.', '"open', "third"]
    assert found.where[2] == "line 4"
    assert read(tmp_path / "a.txt", Columns("text", None)).text(0).endswith("said.\tx"), "one column without names"


@pytest.mark.parametrize("line", ["alone", "one\ttwo\tthree"])
def test_ragged_rows_without_a_header(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"one\tx\n{line}\n")
    count = 1 + line.count("\t")
    with pytest.raises(
        DataError, match=rf"a\.txt, line 2: {count} cells, but data\.columns names 2 .*separated by tabs"
    ):
        read_headless(tmp_path / "a.txt", ["text", "label"])


def test_named_columns_are_for_delimited_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "label": "x"}\n')
    assert read_headless(tmp_path / "a.jsonl", ["p", "q"]).text(0) == "one"
    with pytest.raises(DataError, match=r"there is no data file .*b\.txt"):
        read_headless(tmp_path / "b.txt", ["p", "q"])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    else:
        path.write_text("text,text\na,b\n" if name.endswith("csv") else '{"text": "a", "label": "x", "text": "b"}\n')
    with pytest.raises(DataError, match=r"'text' stands twice.*rename one"):
        read(path)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "train.csv", [("one", "x"), ("two", "y")])
    reader = find_reader(path)
    whole = reader.rows

    def growing() -> Iterator[Row]:
        yield from whole()
        with open(path, "a") as file:
            file.write("three,x\n")

    monkeypatch.setattr(reader, "rows", growing)
    with pytest.raises(
        DataError, match=r"train\.csv changed while it was read \(\d+ bytes before, \d+ now\).*start again"
    ):
        read_examples(reader, TEXT_LABEL)
    with pytest.raises(DataError, match="changed while it was read"):
        Inspection(reader)
    assert len(read(path)) == 4, "read whole once it is quiet"


def test_mixed_column_types(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    values = [("a", 1), ("b", "1"), (3, True), ("d", "2")]
    path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in values))
    found = read(path)
    assert found.text(2) == "3" and found.label_names == ["1", "True", "2"], "a number is the text that writes it"
    assert found.mixed == [
        "column 'label' holds 2 texts, 1 number (line 1) and 1 truth value (line 3, read as 'True').",
        "column 'text' holds 3 texts and 1 number (line 3).",
    ]
    columns = {one["name"]: one for one in Inspection(find_reader(path)).plain()["columns"]}
    assert columns["label"]["mixed"] and columns["label"]["first"] == {"number": "line 1", "truth value": "line 3"}
    path.write_text(path.read_text() + '\n{"text": ["e"], "label": "2"}')
    with pytest.raises(DataError, match=r"line 5: column 'text' holds a list; a text or a number is needed"):
        read(path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b"] * 90, ""),
        ([1, 2] * 90, ""),
        ([1, 2.5] * 90, ""),
        ([True, False] * 90, ""),
        (["1", "2"] * 90, ""),
        (["a"] * 100 + [False] + ["b"] * 79, "179 texts and 1 truth value (line 101, read as 'False')"),
        ([3, 4] * 89 + ["3", "4"], "178 numbers and 2 texts (the first in line 179)"),
        ([1, 0] * 5000 + [True, True], "10,000 numbers and 2 truth values (the first in line 10001, read as 'True')"),
    ],
)
def test_cells_of_several_types_are_counted(tmp_path: Path, labels: list[object], said: str) -> None:
    rows = [{"text": f"row {number}", "label": label} for number, label in enumerate(labels)]
    sentences = [f"column 'label' holds {said}."] if said else []
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    assert read(path).mixed == sentences, "and so are those behind the first chunk of rows"
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert len(read(tmp_path / "train.json").mixed) == len(sentences)
    notes = inspect_data(path)["notes"]
    assert [note for note in notes if "holds" in note and "'label'" in note] == [f"{path}: {one}" for one in sentences]


def test_rows_that_are_dropped_have_no_types(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "a", "label": "x"}, {"text": None, "label": False}]
    assert not read(write_jsonl(tmp_path / "train.jsonl", rows), drop=True).mixed


def test_a_column_of_texts_without_a_text(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": n > 1, "label": "xy"[n % 2]}) + "\n" for n in range(4)))
    assert read(path).mixed == [
        "column 'text' holds 4 truth values (the first in line 1, read as 'False') and no text."
    ]
    parquet.write_table(pa.table({"text": [1, 2], "label": ["x", "y"]}), tmp_path / "train.parquet")
    found = read(tmp_path / "train.parquet")
    assert found.mixed == ["column 'text' holds 2 numbers (the first in row 1) and no text."]


def test_a_header_that_stands_again_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\na,x\nb,y\ntext,label\nc,x\n")
    with pytest.raises(DataError, match=r"train\.csv, line 4: the header stands there again"):
        read(path)
    with pytest.raises(DataError, match=r"its first row is a header, so data\.columns is not needed"):
        read_headless(path, ["text", "label"])
    path.write_text("text\na\ntext\n")
    assert len(read(path, Columns("text", None))) == 2, "one column may hold its own name"


def test_encodings_that_there_are_not(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "train.csv", [("a", "x"), ("b", "y")])
    for name in ("utf9", "base64", "a\0b"):
        with pytest.raises(DataError, match="is no encoding that Python knows. Common: utf-8, utf-16"):
            read(path, encoding=name)
    path.write_bytes("text,label\na,x\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"is not utf-8: it begins as UTF-16 does\. Say so: data\.encoding=utf-16\."):
        read(path)
    assert read(path, encoding="utf-16").text(0) == "a"


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl"])
def test_lists_too_deep_inside_each_other(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(DataError, match="lists or objects stand too deep inside each other"):
        read(tmp_path / name)


def test_a_folder_that_nothing_reads(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [("a", "x")])
    with pytest.raises(DataError, match=r"holds no data that is read from a folder: .*Did you mean .*train\.csv\?"):
        read(tmp_path)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("a" * 5000 + ".csv", "a\0b.csv"):
        with pytest.raises(DataError, match="this can be no file's name"):
            find_reader(name)
        with pytest.raises(DataError, match="this can be no file's name"):
            resolve_path(name, tmp_path)
    (tmp_path / "train.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"train\.csv is a link to .*gone\.csv, which is not there"):
        read(tmp_path / "train.csv")


def test_the_home_folder_of_a_data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("~/data/train.csv", tmp_path / "recipes") == str(tmp_path / "data" / "train.csv")
    assert resolve_path("~1.csv", tmp_path) == "~1.csv"
    (tmp_path / "~1.csv").touch()
    assert resolve_path("~1.csv", tmp_path) == str(tmp_path / "~1.csv")


def test_a_byte_behind_characters_of_several_bytes_is_found_in_its_line(tmp_path: Path) -> None:
    """The file is searched block by block, and a block may begin in the middle of a character."""
    lines = "日本語のテキスト,a\n" * 60_000
    (tmp_path / "train.csv").write_bytes(b"text,label\n" + lines.encode() + b"\xff,b\n")
    with pytest.raises(DataError, match=r"train\.csv, near line 60002: byte 0xff is not utf-8"):
        read(tmp_path / "train.csv")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_a_number_that_is_too_long_to_read(tmp_path: Path, name: str) -> None:
    one = '{"text": "a", "label": ' + "1" * 5000 + "}"
    (tmp_path / name).write_text(one if name.endswith("l") else f"[{one}]")
    with pytest.raises(DataError, match=rf"{name}.*: a number has more than [\d,]+ digits\. Write it in quotes"):
        read(tmp_path / name)


def test_a_damaged_page_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    parquet.write_table(pa.table({"text": [f"text {row}" for row in range(5000)], "label": ["a"] * 5000}), path)
    content = bytearray(path.read_bytes())
    content[200:800] = bytes(one ^ 0x5A for one in content[200:800])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.parquet is not a readable Parquet file"):
        read(path)
