"""Personal data in texts: mail addresses and numbers, checked by their check digits where they have some.

Checks: Luhn for cards (ISO/IEC 7812), mod 97 for bank accounts (ISO 13616), mod 11-2 for Chinese identity numbers
(ISO 7064), the letter of Spanish ones, and the ranges that US social security numbers are given from. Phone numbers
have none, so what looks like one is taken for one. Names of persons are found by a model, where one is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

KINDS = ("mail", "iban", "id", "card", "phone")  # where two overlap, the first one counts

# Finds names of persons in texts: of each text, where every name begins and ends.
FindNames = Callable[[Sequence[str]], list[list[tuple[int, int]]]]

PLACEHOLDER = re.compile(r"<[A-Z]+_[0-9]+>")  # what redaction writes

_MAYBE = re.compile("[@0-9]")
_MAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![0-9])(?<![0-9][.,-])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])")
_ISSUED = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2[2-7][0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[689])[0-9]{11,12}|"
    r"35[0-9]{14}|6[0-9]{15,18}"
)
_ID = re.compile(
    r"(?<![\w-])(?:(?P<us>(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4})|"
    r"(?P<cn>[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx])|"
    r"(?P<es>[0-9]{8}-?[A-HJ-NP-TV-Z]))(?![\w-])"
)
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:"
    # with the country's code; digits are parted in one way only, as all ways would be tried on a long number
    r"(?:\+|00)[1-9][0-9]{0,2}(?:[ ./-]{0,2}\(?[0-9]{1,5}+\)?){1,6}|"
    r"\(?[2-9][0-9]{2}\)?[ .-]{1,2}[2-9][0-9]{2}[ .-][0-9]{4}|"  # North America
    r"\(?0[1-9][0-9]{1,4}\)?(?:[ /-]{1,3}[0-9]{2,8}){1,4}|0[1-9][0-9]{8,10}|"  # with the area's code
    r"1[3-9][0-9](?:[ -]?[0-9]{4}){2}"  # Chinese mobiles
    r")(?![\w/]|[.,-][0-9])"
)
_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True)
class Personal:
    """One find.

    Args:
        start: its first character.
        end: behind its last one.
        kind: mail, iban, id, card, phone or name.
    """

    start: int
    end: int
    kind: str


def find_personal(text: str, kinds: Sequence[str] = KINDS, names: Sequence[tuple[int, int]] = ()) -> list[Personal]:
    """Find personal data.

    Args:
        text: any.
        kinds: which, besides names.
        names: where names of persons begin and end, by a model; those in placeholders are none.
    Returns:
        In the order of the text; none overlaps another.
    Example:
        >>> [(one.kind, one.start) for one in find_personal("ask ann@example.org or +49 30 123456")]
        [('mail', 4), ('phone', 23)]
    """
    found: list[Personal] = []
    for kind in KINDS if _MAYBE.search(text) else ():
        if kind in kinds:
            found += [one for one in _FINDERS[kind](text) if not any(_meet(one, other) for other in found)]
    if names:
        taken = [*found, *(Personal(*match.span(), "") for match in PLACEHOLDER.finditer(text))]
        marked = [Personal(start, end, "name") for start, end in names]
        found += [one for one in marked if not any(_meet(one, other) for other in taken)]
    return sorted(found, key=lambda one: one.start)


def same_value(kind: str, text: str) -> str:
    """Return what two ways of writing one value have in common.

    Args:
        kind: of the find.
        text: as it stands.
    Returns:
        A mail address in small letters; a name too, with single spaces; of a number its digits and letters alone.
    """
    if kind == "name":
        return " ".join(text.casefold().split())
    return text.casefold() if kind == "mail" else "".join(sign for sign in text.upper() if sign.isalnum())


def _meet(one: Personal, other: Personal) -> bool:
    return one.start < other.end and other.start < one.end


def _mails(text: str) -> Iterator[Personal]:
    if "@" in text:
        yield from (Personal(*match.span(), "mail") for match in _MAIL.finditer(text))


def _accounts(text: str) -> Iterator[Personal]:
    for match in _IBAN.finditer(text):
        written = match.group()
        while len(written) >= 15:  # words in capitals may follow the number
            signs = written.replace(" ", "")
            turned = signs[4:] + signs[:4]
            if 15 <= len(signs) <= 34 and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1:
                yield Personal(match.start(), match.start() + len(written), "iban")
                break
            written = written.rpartition(" ")[0]


def _cards(text: str) -> Iterator[Personal]:
    for match in _CARD.finditer(text):
        digits = "".join(sign for sign in match.group() if sign.isdigit())
        if _ISSUED.fullmatch(digits) and luhn([int(digit) for digit in digits]):
            yield Personal(*match.span(), "card")


def luhn(digits: Sequence[int]) -> bool:
    """Say whether a number ends with the right check digit (ISO/IEC 7812-1, annex B).

    Args:
        digits: of the number.
    Returns:
        Whether it does.
    Example:
        >>> luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3]), luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 0])
        (True, False)
    """
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _identities(text: str) -> Iterator[Personal]:
    for match in _ID.finditer(text):
        written = match.group().upper()
        right = match.lastgroup == "us"
        if match.lastgroup == "cn":
            total = sum(int(digit) * weight for digit, weight in zip(written, _WEIGHTS, strict=False))
            right = written[-1] == "10X98765432"[total % 11]
        if match.lastgroup == "es":
            right = written[-1] == _LETTERS[int(written[:8]) % 23]
        if right:
            yield Personal(*match.span(), "id")


def _phones(text: str) -> Iterator[Personal]:
    for match in _PHONE.finditer(text):
        if 7 <= sum(sign.isdigit() for sign in match.group()) <= 15:
            yield Personal(*match.span(), "phone")


_FINDERS: dict[str, Callable[[str], Iterator[Personal]]] = {
    "mail": _mails,
    "iban": _accounts,
    "id": _identities,
    "card": _cards,
    "phone": _phones,
}
