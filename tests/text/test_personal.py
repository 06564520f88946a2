"""What counts as personal data by its form, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainops.text.personal import personal


def found(text: str) -> list[tuple[str, str]]:
    return [(each.kind, text[each.start : each.end]) for each in personal(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to ann.lee+x@mail.co.uk, please.", "email", "ann.lee+x@mail.co.uk"),
        ("It is müller@firma.de", "email", "müller@firma.de"),
        ("Call me on 079 834 55 14 tonight", "phone", "079 834 55 14"),
        ("My number is (212) 555-0187.", "phone", "(212) 555-0187"),
        ("+41 44 668 18 00", "phone", "+41 44 668 18 00"),
        ("is 4929 4212 3460 0821 blocked?", "card", "4929 4212 3460 0821"),
        ("amex 378282246310005", "card", "378282246310005"),
        ("Pay to GB82 WEST 1234 5698 7654 32 today", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("DE89370400440532013000", "iban", "DE89370400440532013000"),
        ("my ssn is 536901234", "ssn", "536901234"),
        ("536-90-1234", "ssn", "536-90-1234"),
        ("She logs in from 81.2.69.142", "ip", "81.2.69.142"),
        ("from 2a02:1205:34c0:a3f0::1 today", "ip", "2a02:1205:34c0:a3f0::1"),
        ("My passport number is X1234567", "passport", "X1234567"),
        ("driver's license: D1234562", "driver_license", "D1234562"),
        ("NI number AB 12 34 56 C", "national_id", "AB 12 34 56 C"),
        ("my account number is 12345678", "bank_account", "12345678"),
        ("I was born on 3 May 1984", "birth_date", "3 May 1984"),
    ],
)
def test_each_kind_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "Send it to <EMAIL_1> or [PHONE_2], {{IBAN}}.",
        "***@***.*** and j***@mail.com and xxx@xxx.xxx",
        "card **** **** **** 1234, ssn xxx-xx-1234, +41 ** *** ** 00",
        "Contact support@acme.com or no-reply@acme.com",
        "user@example.com, root@localhost, a@b",
        "git clone git@github.com:langchain-ai/langchain.git",
        "@property def x(self): return self@other",
        "npm install react@18.2.0",
    ],
)
def test_what_is_masked_or_nobodys_is_not_personal(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "order number 4929421234600821 has not come",  # a card by form and checksum, and yet an order
        "4929 4212 3460 0822",  # one digit off: the checksum fails
        "GB82 WEST 1234 5698 7654 33",
        "tracking 1234567890, invoice 2024-000123",
        "ISBN 978-3-16-148410-0",
        "between 2019-01-02 and 2020-12-31 at 10:30:15",
        "from 1990-2010 and 12/31/2019",
        "pi is 3.14159265358979",
        "1,000,000 people paid $1234567 and 1234567%",
        "version 10.2.3.4 and v1.20.300.4, ping 192.168.1.1, 127.0.0.1, 8.8.8.8",
        "call 1-800-356-9377 toll free",
        "It sold 1234567 copies; the distance is 384400 km",
        "000-12-3456 and 666-12-3456",
        "time 12:30:45 and mac 00:1A:2B",
        "Cell 2002 13 1977 2000",
        "0000 0000 0000 0000",
    ],
)
def test_other_numbers_are_no_alarm(text: str) -> None:
    assert found(text) == []


@given(st.text(alphabet=st.sampled_from("0123456789 +-().@abX.:"), max_size=60))
def test_what_is_found_is_in_order_and_never_overlaps(text: str) -> None:
    at = 0
    for each in personal(text):
        assert at <= each.start < each.end <= len(text)
        at = each.end


@given(st.text(max_size=200))
def test_any_text_can_be_looked_at(text: str) -> None:
    personal(text)


@pytest.mark.parametrize("piece", ["1", "a@", "1 ", "(1", "AB12 ", "1.", "passport ", "call 1", "a.", "::", "+1-"])
def test_long_texts_are_looked_at_in_linear_time(piece: str) -> None:
    """A pattern that needs quadratic time would be seen here: this test would then take hours."""
    text = piece * (300_000 // len(piece))
    assert all(0 <= each.start < each.end <= len(text) for each in personal(text))
