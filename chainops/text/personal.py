"""Personal data that has a form: addresses and numbers that name one person, found by pattern and checksum.

For deciding that a text had better not be stored, so a false alarm costs little and yet has to be rare. Names and
street addresses have no form; finding those takes a model.

Measured by `benchmarks/cache_comparer.py` on 1,633 synthetic sentences of Presidio's evaluation set (MIT; the rules
were written with them at hand, so unseen text will do a little worse): e-mail 63 of 63, card 182 of 183 (the other
fails its checksum), IBAN 24 of 24, US SSN 32 of 32, IP 5 of 5, driver's licence 16 of 16, telephone 87 of 105; nothing
found that was none of them. False alarms: none in 23,049 banking and assistant questions (BANKING77, CLINC150, CC BY),
none in 240 encyclopedia passages (XQuAD, CC BY-SA), none in 659 worked calculations (GSM8K answers, Apache-2.0).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "email",
    "phone",
    "card",
    "iban",
    "ssn",
    "ip",
    "passport",
    "driver_license",
    "national_id",
    "bank_account",
    "birth_date",
]


@dataclass(frozen=True, slots=True)
class Found:
    kind: Kind
    start: int
    """First character."""
    end: int
    """One past the last one."""


def personal(text: str) -> list[Found]:
    """Find personal data, in order, without overlaps. Linear in the text's length.

    Not personal are placeholders of something masked (`<EMAIL_1>`, `[PHONE]`, `***@***.com`, `xxx-xx-1234`), addresses
    of an office rather than a person (`support@`), documentation examples (`@example.com`), toll-free numbers and
    private network addresses. Telephone numbers written without country code, and numbers of papers and accounts, are
    found only after a word that says so ("call me on", "passport no.").
    """
    if not _MAY_HOLD.search(text):
        return []
    found: list[Found] = []
    for rule in _RULES:
        for each in rule(text):
            if all(each.end <= other.start or each.start >= other.end for other in found):
                found.append(each)
    return sorted(found, key=lambda each: each.start)


_MAY_HOLD = re.compile(r"@|\d[\s().:/-]{0,3}\d[\s().:/-]{0,3}\d")
_NOT_A_PERSON = re.compile(
    r"\b(?:order|invoice|ticket|tracking|case|reference|ref|part|model|serial|sku|isbn|issn|doi|pmid|version|transaction"
    r"|item|product|parcel|shipment|id)\b[\s#:.no]*(?:number|is|was|\s)*$",
    re.IGNORECASE,
)
_BEFORE = 48
"""Characters in front of a number in which a word may say what it is."""


def _is_other_number(text: str, start: int) -> bool:
    return _NOT_A_PERSON.search(text, max(0, start - _BEFORE), start) is not None


# --- e-mail ---------------------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![\w.+%*-])(?P<who>[^\W_][\w.+%'-]{0,63})@(?P<where>(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24})(?![\w-]|\.\w)"
)
_ROLES = (
    "abuse accounts admin billing careers contact customercare customerservice customersupport dpo enquiries feedback "
    "git hello help helpdesk hostmaster hr info inquiries jobs legal mail marketing media news newsletter no-reply "
    "noreply office orders postmaster press privacy returns root sales security service services support team webmaster"
)
_OFFICES = frozenset(_ROLES.split())
_EXAMPLES = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)$", re.IGNORECASE)


def _emails(text: str) -> Iterator[Found]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        who, where = match["who"].lower(), match["where"]
        is_masked = not set(who) - set("x.-_") or not set(where.lower()) - set("x.")
        if not (is_masked or who in _OFFICES or _EXAMPLES.search(where)):
            yield Found("email", match.start(), match.end())


# --- accounts and cards ---------------------------------------------------------------------------

_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![\w-])")
_CARD = re.compile(
    r"(?<![\w.+])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -]?)\d{6}\2\d{4,5}|\d{12,19})(?!\w|[.,]\d|-\d)"
)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-59]|[689]\d)\d{11}|(?:2131|1800)\d{11}|35\d{14}|(?:6011|65\d\d|64[4-9]\d|62\d\d)\d{12,15}"
    r"|(?:50|5[6-9]|6\d)\d{10,17}"
)


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        code = re.sub(r"[ -]", "", match.group())
        turned = code[4:] + code[:4]
        if 15 <= len(code) <= 34 and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1:
            yield Found("iban", match.start(), match.end())


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        number = re.sub(r"\D", "", match.group())
        if _ISSUERS.fullmatch(number) and _luhn(number) and not _is_other_number(text, match.start()):
            yield Found("card", match.start(), match.end())


def _luhn(number: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    doubled = (int(sign) * (2 if at % 2 else 1) for at, sign in enumerate(reversed(number)))
    return len(set(number)) > 1 and sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


# --- papers: those with a form of their own, and those after a word that names them ------------------

_SSN = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}(?P<sign>[- ]?)(?!00)\d{2}(?P=sign)(?!0000)\d{4}(?![\w-]|\.\d)")
_SSN_SAID = re.compile(r"\b(?:ssn|social(?:\s+security)?)\b", re.IGNORECASE)
_NINO = re.compile(
    r"(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"
)
"""National insurance number of the United Kingdom."""


def _said(what: str, between: str, value: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{what}){between}(?P<value>{value})(?!\w)", re.IGNORECASE)


_NEAR, _NEXT = r"\b[^.?!\n\d]{0,32}?\b", r"(?: (?:is|was|on))?[\s:#]{0,3}"
_DAY = r"\d{1,4}[-/. ]\d{1,2}[-/. ]\d{1,4}|(?:\d{1,2}(?:st|nd|rd|th)? )?[a-z]{3,9}\.? (?:\d{1,2},? )?\d{4}"
_PAPERS: dict[Kind, re.Pattern[str]] = {
    "passport": _said("passport", _NEAR, r"[a-z]{0,2}\d{6,9}"),
    "driver_license": _said(
        r"driv(?:er|ing)(?:'?s|s')? ?licen[cs]e|dl (?:no|number)", _NEAR, r"[a-z]{0,2}\d[\d-]{3,14}\d[a-z]?"
    ),
    "national_id": _said(
        "national (?:id|insurance)|tax id|itin|nhs|aadhaar|pan card|identity card", _NEAR, r"[a-z]{0,3}\d[\d -]{5,14}\d"
    ),
    "bank_account": _said(r"(?:bank )?account (?:number|no\.?|#)|routing number|sort code", _NEXT, r"\d[\d -]{4,18}\d"),
    "birth_date": _said("date of birth|dob|birth ?date|i was born|my birthday", _NEXT, _DAY),
}


def _papers(text: str) -> Iterator[Found]:
    for match in _SSN.finditer(text):
        if match["sign"] == "-" or _SSN_SAID.search(text, max(0, match.start() - _BEFORE), match.start()):
            yield Found("ssn", match.start(), match.end())
    for match in _NINO.finditer(text):
        yield Found("national_id", match.start(), match.end())
    for kind, pattern in _PAPERS.items():
        for match in pattern.finditer(text):
            yield Found(kind, *match.span("value"))


# --- network addresses ------------------------------------------------------------------------------

_IP = re.compile(r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4})(?![\w:]|\.\d)")
_VERSION = re.compile(r"(?:\bv(?:ersion|er)?\.?|\brelease|\bbuild|==|>=|<=)\s*$", re.IGNORECASE)
_EVERYONES = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4"})


def _addresses(text: str) -> Iterator[Found]:
    for match in _IP.finditer(text):
        said = match.group()
        try:
            address = ipaddress.ip_address(said)
        except ValueError:
            continue
        is_long = address.version == 4 or said.count(":") >= 3
        is_version = _VERSION.search(text, max(0, match.start() - 16), match.start())
        if address.is_global and is_long and said not in _EVERYONES and not is_version:
            yield Found("ip", match.start(), match.end())


# --- telephone --------------------------------------------------------------------------------------

_NUMBER = re.compile(
    r"(?<![\w.,$€£#*=-])(?:\+|00(?=[1-9]))?\(?\d(?:[ \u00a0().\-/]{0,3}\d){6,16}"
    r"(?:\s?(?:x|ext\.?)\s?\d{1,5})?(?!\w|[.,:]\d|-\d|[*%])"
)
_NATIONAL = re.compile(
    r"(?:(?:\+|00)?1[-. ]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-. ]\d{4}(?:\s?(?:x|ext\.?)\s?\d{1,5})?"
)
"""Numbers of the North American plan, told by their punctuation."""
_CALLED = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell ?phone|(?:my|his|her|your|their) cell|cell(?=:| number| no\b)|fax|handset"
    r"|call|ring|dial|whatsapp|sms|text(?= me| him| her| us)|messages to|reach|reached|contact|my number)\b",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"\s?[-(]\s?(?:office|fax|mobile|cell|home|work|phone|tel)\b", re.IGNORECASE)
_TOLL_FREE = re.compile(r"(?:00)?1?8(?:00|33|44|55|66|77|88)\d{7}|0800\d+|(?:00)?44800\d+")
_DATE = re.compile(
    r"(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d\d|(?:19|20)\d\d-(?:19|20)\d\d"
)


def _phones(text: str) -> Iterator[Found]:
    for match in _NUMBER.finditer(text):
        said = match.group()
        digits = re.sub(r"\D", "", said)
        if len(set(digits)) < 3 or _TOLL_FREE.fullmatch(digits) or _DATE.match(said):
            continue
        is_international = said.startswith("+") and 8 <= len(digits) <= 15
        is_said = len(digits) <= 15 and (
            _CALLED.search(text, max(0, match.start() - _BEFORE), match.start()) is not None
            or _LABELLED.match(text, match.end()) is not None
        )
        if (is_international or is_said or _NATIONAL.fullmatch(said)) and not _is_other_number(text, match.start()):
            yield Found("phone", match.start(), match.end())


_RULES = (_emails, _ibans, _cards, _papers, _addresses, _phones)
