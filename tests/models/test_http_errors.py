import email.utils
from types import SimpleNamespace

import pytest

from chainops.models.http_errors import code_of, detail_of, origin_of, retry_after_s_of, status_of


def an_error(message="no", **facts):
    error = Exception(message)
    for name, value in facts.items():
        setattr(error, name, value)
    return error


def answering(headers):
    return an_error(response=SimpleNamespace(headers=headers))


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"status_code": 429}, 429),
        ({"response": SimpleNamespace(status_code=503, headers={})}, 503),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 400}, "Error": {"Code": "ThrottlingException"}}}, 400),
        ({"code": 404}, 404),
        ({"code": "404"}, None),
        ({"status_code": -1}, None),
        ({"status_code": True}, None),
        ({}, None),
    ],
)
def test_the_status_is_found_where_each_client_keeps_it(facts, status):
    assert status_of(an_error(**facts)) == status


def test_the_code_is_the_providers_own_word():
    assert code_of(an_error(body={"code": "context_length_exceeded", "type": "invalid_request_error"})).startswith(
        "context"
    )
    assert code_of(an_error(body={"type": "error", "error": {"type": "overloaded_error"}})) == "overloaded_error"
    assert code_of(an_error(response={"Error": {"Code": "ThrottlingException"}})) == "ThrottlingException"
    assert code_of(an_error()) == ""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "later"}, None),
        (
            {
                "retry-after": email.utils.formatdate(1060, usegmt=True),
                "date": email.utils.formatdate(1000, usegmt=True),
            },
            60.0,
        ),
        ({}, None),
    ],
)
def test_the_wait_asked_for_is_read_in_seconds(headers, seconds):
    assert retry_after_s_of(answering(headers)) == seconds


def test_no_page_and_no_flood_is_shown():
    assert detail_of(an_error("<!DOCTYPE html><html><body>Sign in</body></html>")) == "the server sent an HTML page"
    assert len(detail_of(an_error("word " * 1000))) == 200
    assert detail_of(an_error("two\n  lines")) == "two lines"
    assert detail_of(an_error("outer", body={"error": {"message": "inner"}})) == "inner"


def test_the_address_never_shows_user_or_password():
    url = "https://me:secret@api.example.org:8443/v1/chat/completions"
    assert origin_of(an_error(request=SimpleNamespace(url=url))) == "https://api.example.org:8443"
    assert origin_of(an_error()) is None
