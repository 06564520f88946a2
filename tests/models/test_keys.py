import pytest

from chainops.models.keys import looks_like_key, redact, smells_of_secret, walk


@pytest.mark.parametrize("word", ["api_key", "apiKey", "X-API-Key", "token", "auth_token", "password", "clientSecret"])
def test_names_of_secrets_smell(word):
    assert smells_of_secret(word)


@pytest.mark.parametrize(
    "word", ["max_tokens", "prompt_cache_key", "top_p", "max_completion_tokens", "tokenizer", "seed"]
)
def test_names_of_other_things_do_not(word):
    assert not smells_of_secret(word)


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: PLANTED-without-shape.",
        "Authorization: Bearer PLANTEDtoken",
        "sk-proj-PLANTED0123456789 is wrong",
        "connect to http://me:PLANTED@host/v1",
        "api_key=PLANTED12",
        "{'Authorization': 'PLANTED12345'}",
    ],
)
def test_what_looks_like_a_key_is_taken_out(text):
    assert "PLANTED" not in redact(text)


def test_keys_of_the_environment_are_taken_out_whatever_they_look_like(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "entirely plain words")
    monkeypatch.setenv("MY_OWN_API_KEY", "others")
    assert redact("said: entirely plain words, and others") == "said: [key], and [key]"


def test_ordinary_sentences_are_left_alone():
    text = "This model's maximum context length is 8192 tokens. Unexpected keyword_argument_foo. See https://example.org/keys?page=2"
    assert redact(text) == text


def test_the_shape_of_a_key_is_known():
    assert looks_like_key("sk-proj-0123456789abcdef")
    assert not looks_like_key("OPENAI_API_KEY")
    assert not looks_like_key("gpt-4o-mini")


def test_settings_inside_settings_are_found():
    assert dict(walk({"a": 1, "b": [{"c": {"d": 2}}]}))["b.c.d"] == 2
