"""What each cleaning step changes or drops, and what it leaves alone."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import write_jsonl
from tunesmith.core.errors import DataError
from tunesmith.core.registry import components
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.cleaning import html
from tunesmith.data.cleaning.base import Change, Filter, Rows
from tunesmith.data.cleaning.control_characters import ControlCharacters
from tunesmith.data.cleaning.duplicates import Duplicates
from tunesmith.data.cleaning.html import Html
from tunesmith.data.cleaning.language_filter import LanguageFilter
from tunesmith.data.cleaning.length import Length
from tunesmith.data.cleaning.near_duplicates import NearDuplicates
from tunesmith.data.cleaning.redaction import Redaction
from tunesmith.data.cleaning.unicode import Unicode
from tunesmith.data.cleaning.whitespace import Whitespace
from tunesmith.data.examples import Columns, find_reader
from tunesmith.data.language import language_of
from tunesmith.data.personal import find_personal, luhn


def rows(*texts: str, labels: list[int] | None = None) -> Rows:
    return Rows(texts, np.array(labels or [0] * len(texts)))


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (Unicode(), "cafe\u0301 \ufb01ne", "caf\u00e9 \ufb01ne"),
        (Unicode(form="NFKC"), "\uff21\uff22\uff23 \ufb01ne", "ABC fine"),
        (ControlCharacters(), "a\u200bb\x00c\ufeff\r\nd\u2028e\u202e", "abc\nd\ne"),
        (ControlCharacters(), "\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        (Html(), "<p>5 &lt; 6 &amp; <b class='x'>bold</b></p><script>evil()</script>", "5 < 6 & bold"),
        (Html(), "one<br/>two<!-- note -->", "one\ntwo"),
        (Html(), "if a < b and <MAIL_1> or <unk> > c", "if a < b and <MAIL_1> or <unk> > c"),
        (Html(), "&lt;b&gt; is a tag", "<b> is a tag"),
        (Whitespace(), "  a \t b \n\n\n\n c\u00a0d  ", "a b\n\nc d"),
        (Whitespace(lines=False), " a\n\nb ", "a b"),
    ],
)
def test_changes(step: Change, before: str, after: str) -> None:
    assert step.text(before) == after
    assert step.text("nothing to do here") == "nothing to do here"


def test_a_number_is_cleaned_as_it_is_written(tmp_path: Path) -> None:
    cells = [4111111111111111, 12, True, "mail bob@example.org"]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a text", "number": cell} for cell in cells])
    found = read_cleaned(find_reader(str(path)), Columns("text", None, ("number",)), changes=[Redaction()])
    assert [row["number"] for row in found.rows()] == ["<CARD_1>", "12", "True", "mail <MAIL_1>"]
    assert list(found.changed["redaction"]) == ["line 1", "line 4"]


@pytest.mark.parametrize("columns", [Columns("text", None, (), ("text",)), Columns("text", None, ("who",), ("who",))])
def test_a_column_that_is_kept_and_read_is_refused(tmp_path: Path, columns: Columns) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a text", "who": "bob@example.org"}])
    with pytest.raises(DataError, match=rf"by the column '{columns.kept[0]}', which the model reads too"):
        read_cleaned(find_reader(str(path)), columns, changes=[Redaction()])
    assert len(read_cleaned(find_reader(str(path)), columns)) == 1


def test_redaction_gives_one_value_one_placeholder_across_a_row() -> None:
    cells = ["from Ann@Example.org to bob@example.org", "ann@example.org, +49 30 1234567 or +49-30-1234567"]
    assert Redaction().cells(cells) == ["from <MAIL_1> to <MAIL_2>", "<MAIL_1>, <PHONE_1> or <PHONE_1>"]
    assert Redaction().text("bob@example.org") == "<MAIL_1>", "every row counts for itself"
    standing = ["<MAIL_1> and <MAIL_3>", "bob@example.org, ann@example.org, +49 30 1234567"]
    assert Redaction().cells(standing) == [standing[0], "<MAIL_2>, <MAIL_4>, <PHONE_1>"], "those there keep their own"
    assert Redaction(kinds=("phone",)).text("bob@example.org, 415-555-2671") == "bob@example.org, <PHONE_1>"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("card 4111 1111 1111 1111 and 5500-0000-0000-0004", ["card", "card"]),
        ("no card 4111 1111 1111 1112", []),
        ("IBAN DE89 3704 0044 0532 0130 00 PAYS, GB82WEST12345698765432", ["iban", "iban"]),
        ("IBAN DE88370400440532013000", []),
        ("078-05-1120 and 000-05-1120", ["id"]),
        ("11010519491231002X but 110105194912310021", ["id"]),
        ("12345678Z but 12345678A", ["id"]),
        ("+1 (415) 555-2671, (415) 555-2671, 030/1234567, 13812345678", ["phone"] * 4),
        ("on 2024-01-02 at 10:30:45, order 12345678, v1.2.3.4, 1,234,567.89 of 192.168.0.1", []),
        ("a@b, @ann, x@y.c", []),
    ],
)
def test_personal_data_is_told_by_its_check_digits(text: str, kinds: list[str]) -> None:
    assert [one.kind for one in find_personal(text)] == kinds


def test_luhn_catches_every_wrong_digit() -> None:
    right = [4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert luhn(right)
    for place in range(16):
        for digit in set(range(10)) - {right[place]}:
            assert not luhn([*right[:place], digit, *right[place + 1 :]])


def test_finding_takes_no_longer_than_the_text_is_long() -> None:
    for text in ("a" * 200_000 + "@", "1 " * 100_000, "+1" * 50_000, "1-" * 100_000, "DE89 " * 40_000, "x.@" * 60_000,
                 f"+{'1' * 30}a " * 6_000):  # fmt: skip
        find_personal(text)


def test_length() -> None:
    found = Length(least=3, most=5).judge(rows("ab", "abc", "abcdef"))
    assert {row: one.why for row, one in found.items()} == {
        0: "2 characters, fewer than 3",
        2: "6 characters, more than 5",
    }


def test_duplicates_keep_the_first_one() -> None:
    given = rows("A cat", "a dog", "a  CAT", "a dog", labels=[0, 1, 0, 0])
    assert {row: one.other for row, one in Duplicates().judge(given).items()} == {2: 0, 3: 1}
    assert set(Duplicates(conflicts="drop").judge(given)) == {1, 2, 3}


def test_near_duplicates_are_those_of_the_exact_comparison() -> None:
    base = "please tell me when my new card will arrive at home"
    given = rows(base, base + "!", "what is the exchange rate of today", base + " or so it is")
    assert set(NearDuplicates(threshold=0.9).judge(given)) == {1}
    assert set(NearDuplicates(threshold=0.7).judge(given)) == {1, 3}
    few = rows("same text here", "same text here", "same text here")
    assert set(NearDuplicates().judge(few)) == {1, 2}, "more than half of the rows may be copies"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("when will the card that I ordered arrive", "en"),
        ("wann kommt die Karte, die ich bestellt habe", "de"),
        ("quand est-ce que la carte va arriver chez nous", "fr"),
        ("cuando llega la tarjeta que me han enviado", "es"),
        ("когда придёт карта, которую я заказал", "ru"),
        ("我的银行卡什么时候到", "zh"),
        ("カードはいつ届きますか", "ja"),
        ("카드는 언제 도착하나요", "ko"),
        ("ok", None),
        ("12 + 30", None),
    ],
)
def test_language(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_language_filter() -> None:
    given = rows("when will the card arrive", "wann ist die Karte da", "ok")
    assert set(LanguageFilter().judge(given)) == {1}
    assert set(LanguageFilter(languages=("de",), unsure="drop").judge(given)) == {0, 2}
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        LanguageFilter(languages=("xx",))


@pytest.mark.parametrize("name", components("cleaning"))
def test_a_step_is_a_change_that_repeats_or_a_filter_of_rows(name: str) -> None:
    step = components("cleaning")[name]()
    texts = ["Hello <b>there</b>, mail ann@example.org", "naïve  café\u200b", "plain words of a text"]
    if isinstance(step, Change):
        assert step.cells(texts) == step.cells(texts) and len(step.cells(texts)) == 3
    else:
        assert isinstance(step, Filter) and step.where


def test_lengths_that_no_text_could_have() -> None:
    with pytest.raises(ValueError, match="most: 2 is less than least=5"):
        Length(least=5, most=2)


@pytest.mark.parametrize("text", ["<script>", "<style>", "<!-- ", "<SCRIPT> </style>"])
def test_what_is_not_closed_is_text_and_looked_for_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []

    class Counted:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern = pattern

        def search(self, *given: Any) -> re.Match[str] | None:
            searches.append(given)
            return self.pattern.search(*given)

    monkeypatch.setattr(html, "_CLOSED", {kind: Counted(pattern) for kind, pattern in html._CLOSED.items()})
    assert html._read(text * 100) == text * 100
    assert len(searches) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a<!-- <script> -->b<script> <!-- </script>c", "abc"),
        ("<script>x</style>y</SCRIPT >z", "z"),
        ("<style>x<script>y</style>z", "z"),
        ("<script>a<style>b</style>c", "<script>ac"),
        ("<!doctype html>a<!--b", "a<!--b"),
    ],
)
def test_scripts_styles_and_comments_inside_each_other(before: str, after: str) -> None:
    assert html._read(before) == after


@pytest.mark.parametrize("text", ["+4912345", "0056734", "+41(12345)", "+1(23)45-67", "+49 30 123456"])
def test_short_phone_numbers_with_a_country_code(text: str) -> None:
    assert [(one.kind, one.start, one.end) for one in find_personal(text)] == [("phone", 0, len(text))]
