"""What inspecting finds in files made to hold it."""

import gc
import json
import warnings
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tunesmith
from tests.conftest import save_drawings, write_csv, write_jsonl
from tunesmith.cli.main import app
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.data import inspection
from tunesmith.data.damage import damage_of
from tunesmith.data.near import text_groups
from tunesmith.data.near_index import NearIndex

pytestmark = pytest.mark.usefixtures("pictures")

WORDS = ("card", "order", "parcel", "refund", "account", "transfer", "money", "change", "cancel", "rate", "late")


def sentences(count: int) -> list[str]:
    draw = np.random.default_rng(0)
    return [f"when will the {' '.join(draw.choice(WORDS, 6))} be there" for _ in range(count)]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A file of 60 rows in which something of every kind is wrong."""
    texts = sentences(60)
    texts[3] = texts[1].upper() + " "
    texts[4] = texts[2] + "!"
    texts[5] = "caf\u00c3\u00a9 is what it said"
    texts[6] = "a lost \ufffd character"
    texts[7] = "please <b>write</b> to ann@example.org"
    texts[8] = "call +49 30 1234567 now"
    texts[9] = "unseen\u200bspace"
    texts[10] = "word " * 900
    rows = [{"id": n, "utterance": text, "intent": "pay" if n % 2 else "send", "source": "web",
             "score": 1 if n != 12 else [1], "note": None if n < 4 else f"n{n}"}
            for n, text in enumerate(texts)]  # fmt: skip
    rows[59]["intent"] = "Pay"
    return write_jsonl(tmp_path / "train.jsonl", rows)


def test_what_is_odd_is_found_with_its_lines(odd: Path) -> None:
    found = tunesmith.inspect_data(odd)
    one = found["files"][0]
    assert (one["rows"], one["text"], one["label"], one["reader"]) == (60, "utterance", "intent", "json")
    assert one["labels"] == {"send": 30, "pay": 29, "Pay": 1}
    assert (one["duplicates"], one["conflicts"]) == (1, 0)
    assert one["near_duplicates"]["rows"] == 2 and one["near_duplicates"]["complete"]
    places = {what: some["first"] for what, some in one["found"].items()}
    assert places == {
        "mojibake": ["line 6"], "replaced": ["line 7"], "html": ["line 8"], "mail": ["line 8"], "phone": ["line 9"],
        "control characters": ["line 10"],
    }  # fmt: skip
    assert one["personal"] == {"mail": 1, "phone": 1, "card": 0, "iban": 0, "id": 0}
    assert one["outliers"][0]["first"][0] == {"where": "line 11", "characters": 4500}
    notes = "\n".join(found["notes"])
    for said in ("column 'note': 4 of 60 cells are empty", "column 'source' holds the same value in every row",
                 "column 'score' holds 59 numbers and 1 list (line 13).",
                 "the labels 'pay' and 'Pay' differ in letter case", "labels have fewer than 5 rows"):  # fmt: skip
        assert said in notes
    assert one["languages"]["en"] >= 50


def test_rows_in_several_files(tmp_path: Path) -> None:
    texts = sentences(30)
    train = write_csv(tmp_path / "train.csv", [(text, "ab"[n % 2]) for n, text in enumerate(texts[:20])])
    test = write_csv(tmp_path / "test.csv", [(text.upper(), "ab"[n % 2]) for n, text in enumerate(texts[17:])])
    shared = tunesmith.inspect_data([train, test])["shared"]
    assert [(one["rows"], one["first"]) for one in shared] == [([3, 3], ["line 19", "line 20", "line 21"])]


def test_a_page_that_opens_offline(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not app(["data", "inspect", str(odd), "--output", str(tmp_path / "page"), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    page = Path(found["page"]).read_text()
    assert page.count("<svg") >= 2 and "<script" not in page and "http" not in page.replace("http://www.w3.org", "")
    assert "&lt;b&gt;" not in page, "texts are not shown, so no personal data is"
    assert json.loads((tmp_path / "page" / "inspection.json").read_text())["files"] == found["files"]
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.inspect_data(odd, output=tmp_path / "page")


def test_texts_that_read_as_several_kinds(tmp_path: Path) -> None:
    lines = [f'{{"text": "row {n}", "day": "{5 if n == 2 else "2024-05-01"}"}}' for n in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    notes = tunesmith.inspect_data(tmp_path / "a.jsonl")["notes"]
    assert any("holds cells of several kinds: date (first in line 1), number (first in line 3)" in one for one in notes)


def test_labels_that_write_one_number(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text in sentences(9) for label in (3, 4)]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "one more", "label": 3.0}])
    notes = tunesmith.inspect_data(path)["notes"]
    assert f"{path}: the labels '3' and '3.0' write one number in two ways." in notes


def test_columns_are_named_or_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": f"{text} {n}", "b": "xy"[n % 2], "c": n} for n, text in enumerate(sentences(40))]
    path = str(write_jsonl(tmp_path / "train.jsonl", rows))
    assert not app(["data", "inspect", path], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "text is 'a': its texts are the longest" in " ".join(shown.split())
    assert "texts with 2 labels" in shown and "Nothing odd was found." in shown
    assert not app(["data", "inspect", path, "--columns", "b,c", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)["files"][0]
    assert (found["text"], found["label"]) == ("b", "c")
    with pytest.raises(DataError, match="unknown column 'd'"):
        tunesmith.inspect_data(path, text="d")
    with pytest.raises(RecipeError, match="--columns a,b,c"):
        app(["data", "inspect", path, "--columns", "a,b,c"], standalone_mode=False)


def test_conversations_are_told_by_their_form(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{text}?"}, {"role": "assistant", "content": f"{text}, yes"}]}
            for text in sentences(10)]  # fmt: skip
    one = tunesmith.inspect_data(write_jsonl(tmp_path / "a.jsonl", rows))["files"][0]
    assert one["what"] == "conversations (messages)" and one["text"] is None and one["characters"]["least"] > 40


def test_tokens_and_suspicious_labels_need_a_model(tmp_path: Path, tiny_folder: Path) -> None:
    rows = [(text, "ab"[n % 2]) for n, text in enumerate(sentences(30))]
    path = write_csv(tmp_path / "train.csv", rows)
    one = tunesmith.inspect_data(path, model=str(tiny_folder), suspicious=True)["files"][0]
    assert one["tokens"]["rows"] == 30 and one["tokens"]["least"] > 8
    assert all("given" in some["why"] for some in one["suspicious"])
    alone = write_csv(tmp_path / "one.csv", [(text, "a") for text, _ in rows])
    with pytest.raises(DataError, match="no label column with two labels"):
        tunesmith.inspect_data(alone, suspicious=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"text,label\n", "holds no examples"),
        (b"text,label\na,b\na,b,c\n", "line 3: 3 cells"),
        (b"text,text\na,b\n", "'text' stands twice in the header"),
        (b"text,label\nfine,b\ncaf\xe9,b\n", "near line 3: byte 0xe9 is not utf-8"),
    ],
)
def test_bad_files_are_met_with_file_and_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"bad.csv.*{said}"):
        tunesmith.inspect_data(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d", "mojibake"),
        ("f\u00c3\u00bcr", "mojibake"),
        ("\u00d0\u0178\u00d1\u20ac\u00d0\u00b8", "mojibake"),
        ("caf\u00e9 \u00fcber na\u00efve \u201cquoted\u201d \u2013 \u20ac5", None),
        ("\u00c2ge d'or, \u00c3o, \u00d1o\u00f1o", None),
        ("\u4f60\u597d \u043f\u0440\u0438\u0432\u0435\u0442", None),
    ],
)
def test_damage(text: str, kind: str | None) -> None:
    assert damage_of(text) == kind


def test_near_copies_of_long_files_are_those_of_the_exact_search() -> None:
    texts = sentences(300)
    texts += [f"{text} now" for text in texts[:40]]
    index = NearIndex(0.85)
    for start in range(0, len(texts), 64):
        index.add(texts[start : start + 64])
    found = index.near(np.arange(len(texts)))
    groups = text_groups(texts, 0.85)
    expected = int((np.bincount(groups)[groups] > 1).sum())
    assert found["complete"] and abs(found["rows"] - expected) <= 0.05 * expected
    for one, other in found["pairs"]:
        assert groups[one] == groups[other]


@pytest.mark.parametrize(("content", "said"), [
    ("hello there,greeting\ngood bye,parting\nhi you,greeting\n", "column 'greeting' holds its own name in line 3: "
     "perhaps the file has no header"),
    (",text,label\n0,hello there,a\n1,good bye,b\n", "a column has no name; most often it is an index"),
])  # fmt: skip
def test_headers_that_are_none_are_said(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(content)
    assert any(said in note for note in tunesmith.inspect_data(tmp_path / "rows.csv")["notes"])


def test_one_row_is_enough_to_see_its_columns(tmp_path: Path) -> None:
    facts = tunesmith.inspect_data(write_csv(tmp_path / "one.csv", [("hello there", "a")]))
    assert facts["files"][0]["text"] == "text" and facts["notes"] == []


def test_columns_as_they_were_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [("hello", "a"), ("there", "b")])
    facts = tunesmith.inspect_data(path, text="label", label="text")["files"][0]
    assert facts["why"] == ["text is 'label': as it was named", "label is 'text': as it was named"]
    with pytest.raises(DataError, match="column 'text' cannot be both text and label"):
        tunesmith.inspect_data(path, text="text", label="text")


def test_rows_that_are_no_conversations_are_told(tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    wrong = [{"role": "usr", "content": "hi"}, *turn]
    path = write_jsonl(tmp_path / "talk.jsonl", [{"messages": turn}, {"messages": wrong}, {"other": 1},
                                                {"messages": turn[1:]}])  # fmt: skip
    found = tunesmith.inspect_data(path)
    assert found["files"][0]["unfit"]["rows"] == 3
    assert any("3 rows are no conversations that could be learned; the first is line 2: unknown role 'usr'" in note
               for note in found["notes"])  # fmt: skip


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    (tmp_path / "words" / "yes").mkdir(parents=True)
    with wave.open(str(tmp_path / "words" / "yes" / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\1\2" * 100)
    (tmp_path / "words" / "yes" / "b.mp3").write_bytes(b"ID3")
    (tmp_path / "words" / ".hidden").write_bytes(b"")
    assert tunesmith.inspect_data(tmp_path / "words")["files"][0]["skipped"] == ["yes/b.mp3"]
    with zipfile.ZipFile(save_drawings(tmp_path / "d.zip"), "a") as archive:
        archive.writestr("drawings/class0/notes.txt", "x")
    found = tunesmith.inspect_data(tmp_path / "d.zip")
    assert any("1 files of other kinds are left out, for example class0/notes.txt." in note for note in found["notes"])


def test_nothing_stays_open_behind_images(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tunesmith.inspect_data(save_drawings(tmp_path / "d.zip"))
        gc.collect()
    assert not [one for one in said if "unclosed" in str(one.message)]


@pytest.mark.parametrize("empty", ['""', "NaN", "null", '" "'])
def test_a_missing_label_is_no_label(tmp_path: Path, empty: str) -> None:
    labels = ['"a"', '"b"', '"a"', '"b"', empty]
    rows = "".join(f'{{"text": "{text}", "label": {one}}}\n' for text, one in zip(sentences(5), labels, strict=True))
    (tmp_path / "a.jsonl").write_text(rows)
    found = tunesmith.inspect_data([str(tmp_path / "a.jsonl")], label="label")["files"][0]
    assert found["labels"] == {"a": 2, "b": 2}
    assert found["what"] == "texts with 2 labels"


def test_a_number_that_no_machine_number_holds(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "one", "n": 10**400}, {"text": "two", "n": 3}])
    found = tunesmith.inspect_data([str(path)])["files"][0]["columns"][1]
    assert (found["least"], found["most"], found["mean"], found["kinds"]) == (3, 3, 3, {"number": 2})


def test_a_column_that_comes_late_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_FIRST", 3)
    rows = [{"text": text, **({"late": 7} if n > 3 else {})} for n, text in enumerate(sentences(6))]
    columns = tunesmith.inspect_data(write_jsonl(tmp_path / "a.jsonl", rows))["files"][0]["columns"]
    assert [(one["name"], one["missing"], one["kinds"]) for one in columns] == [
        ("text", 0, {"text": 6}), ("late", 4, {"number": 2}),
    ]  # fmt: skip


def test_columns_that_are_called_as_facts_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": text, "rows": 70 + n, "words": 80 + n} for n, text in enumerate(sentences(5))]
    assert not app(["data", "inspect", str(write_jsonl(tmp_path / "a.jsonl", rows))], standalone_mode=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines if line[:1] == ["rows"]] == ["5", "from"]
    assert [line[1] for line in lines if line[:1] == ["words"]] == ["median", "from"]
