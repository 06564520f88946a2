import pytest

from chainops.models.known import PROVIDERS, key_variable, split_model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai:gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("ollama:llama3:8b", ("ollama", "llama3:8b")),
        ("openrouter:meta/llama:free", ("openrouter", "meta/llama:free")),
        ("extractive", ("extractive", "")),
    ],
)
def test_a_name_may_hold_colons(model, expected):
    assert split_model(model) == expected


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("opnai:gpt-4o", "openai:gpt-4o"),
        ("Anthropic:claude", "anthropic:claude"),
        ("mistral:small", "mistralai:small"),
        ("extractiv", "extractive"),
        ("gpt-4o-mini", "openai:gpt-4o-mini"),
        ("extractive:x", "extractive"),
    ],
)
def test_an_unknown_provider_is_told_the_nearest_word(model, hint):
    with pytest.raises(ValueError, match=f"did you mean '{hint}'"):
        split_model(model)


@pytest.mark.parametrize("model", ["", ":", "openai:", "openai: ", "zzzz:y", "openai"])
def test_a_model_without_provider_or_name_is_refused_and_quoted(model):
    with pytest.raises(ValueError, match=f"model '{model}'"):
        split_model(model)


def test_every_package_is_the_module_with_dashes():
    assert all(p.module == p.package.replace("-", "_") for p in PROVIDERS.values())


def test_keys_are_looked_for_under_the_providers_usual_name():
    assert key_variable("openai:x") == "OPENAI_API_KEY"
    assert key_variable("ollama:x") is None
    assert key_variable("extractive") is None
