import asyncio
import json

import pytest
from langchain_core.load import dumps
from langchain_core.tracers.base import BaseTracer
from pydantic import ValidationError

from chainops.models.extractive import ExtractiveChatModel
from chainops.models.failures import MissingKey, MissingProvider, wrap
from chainops.models.providers import InvalidModel, ModelSettings, chat_model
from chainops.testing import ModelServer, Status

SECRET = "sk-planted-secret-0123456789"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def server():
    with ModelServer(key=SECRET) as running:
        yield running


def test_a_declared_model_answers(server):
    model = chat_model(ModelSettings(model="openai:m", base_url=server.url, temperature=0.5, max_tokens=7))
    assert model.invoke("Hello").content == "Hello"
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("m", 0.5, 7)


def test_streams_report_usage_on_other_servers_too(server):
    model = chat_model(ModelSettings(model="openai:m", base_url=server.url))
    usage = [chunk.usage_metadata for chunk in model.stream("one two") if chunk.usage_metadata]
    assert usage == [{"input_tokens": 2, "output_tokens": 2, "total_tokens": 4, **_no_details()}]


def _no_details():
    return {"input_token_details": {}, "output_token_details": {}}


def test_the_client_never_retries_unseen(server):
    model = chat_model(ModelSettings(model="openai:m", base_url=server.url))
    server.fail(Status(503))
    with pytest.raises(Exception, match="503"):
        model.invoke("x")
    assert len(server.requests) == 1


def test_the_base_url_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    assert chat_model(ModelSettings(model="openai:m")).invoke("Hello").content == "Hello"


def test_the_key_may_have_another_name(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.delenv("OPENAI_API_KEY")
    model = chat_model(ModelSettings(model="openai:m", base_url=server.url, key_env="MY_KEY"))
    assert model.invoke("Hello").content == "Hello"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named(server, monkeypatch, value):
    monkeypatch.delenv("OPENAI_API_KEY") if value is None else monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(MissingKey, match="set OPENAI_API_KEY") as caught:
        chat_model(ModelSettings(model="openai:m", base_url=server.url))
    assert server.url in str(caught.value)
    with pytest.raises(MissingKey) as caught:
        chat_model(ModelSettings(model="openai:m"))
    assert "http" not in str(caught.value)


class Keeping(BaseTracer):
    def __init__(self):
        super().__init__()
        self.seen = []

    def _persist_run(self, run):
        self.seen.append(run.model_dump_json() if hasattr(run, "model_dump_json") else repr(run.__dict__))


def test_the_key_is_in_no_repr_export_trace_or_error(server):
    settings = ModelSettings(model="openai:m", base_url=server.url)
    model, tracer = chat_model(settings), Keeping()
    server.fail(Status(401, message=f"Incorrect API key provided: {SECRET}. Get one at example.org"))
    shown = [repr(model), str(model), dumps(model), json.dumps(model.model_dump(), default=repr), repr(settings)]
    shown += [repr(model.client), repr(model.http_client), repr(vars(model.http_async_client))]
    for call in (model.invoke, lambda q, **kw: asyncio.run(model.ainvoke(q, **kw))):
        with pytest.raises(Exception, match="401") as caught:
            call("x", config={"callbacks": [tracer]})
        error = caught.value
        shown += [str(error), repr(error), repr(vars(error)), error.response.text, str(error.__cause__)]
        shown += [str(wrap(error, "openai:m")), repr(vars(wrap(error, "openai:m")))]
    assert len(tracer.seen) == 2
    assert not [text for text in shown + tracer.seen if SECRET in text]
    assert "valid key" in str(wrap(error, "openai:m"))


def test_a_secret_in_a_chain_file_is_refused_and_not_repeated():
    for given in (
        {"api_key": SECRET},
        {"openai_api_key": SECRET},
        {"parameters": {"api_key": SECRET}},
        {"parameters": {"extra_body": {"deep": [{"auth_token": SECRET}]}}},
        {"parameters": {"user": SECRET}},
        {"key_env": SECRET},
        {"base_url": f"https://me:{SECRET}@example.org/v1"},
        {"base_url": f"https://example.org/v1?api_key={SECRET}"},
    ):
        with pytest.raises(ValidationError) as caught:
            ModelSettings(model="openai:m", **given)
        assert "planted" not in str(caught.value)
        assert "key" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"model": "openai:m", "max_sentences": 2}, "max_sentences", "for 'extractive' only"),
        ({"model": "openai:m", "threshold": 0.2}, "threshold", "for 'extractive' only"),
        ({"model": "openai:m", "embedder": "minilm"}, "embedder", "for 'extractive' only"),
        ({"model": "extractive", "temperature": 0}, "temperature", "does not apply"),
        ({"model": "extractive", "timeout_s": 5}, "timeout_s", "does not apply"),
        ({"model": "extractive", "base_url": "http://x/v1"}, "base_url", "does not apply"),
        ({"model": "extractive", "key_env": "A"}, "key_env", "does not apply"),
        ({"model": "extractive", "parameters": {"a": 1}}, "parameters", "does not apply"),
        ({"model": "openai:m", "timeout_s": 0}, "timeout_s", "greater than 0"),
        ({"model": "openai:m", "base_url": "localhost:8000"}, "base_url", "expected a URL"),
        ({"model": "perplexity:m", "base_url": "http://x/v1"}, "base_url", "takes no base_url"),
        ({"model": "openai:m", "parameters": {"timeout": 3}}, "parameters", "say `timeout_s`"),
        ({"model": "openai:m", "parameters": {"max_retries": 3}}, "parameters", "retries are the chain's"),
        ({"model": "opnai:m"}, "model", "did you mean 'openai:m'"),
        ({"model": "openai:m", "temprature": 1}, "temprature", "Extra inputs"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_at_its_place(given, field, words):
    with pytest.raises(ValidationError) as caught:
        ModelSettings(**given)
    (error,) = caught.value.errors()
    assert error["loc"] == (field,)
    assert words in error["msg"]


def test_a_price_for_the_extractive_model_is_refused():
    with pytest.raises(ValidationError, match="costs nothing"):
        ModelSettings(model="extractive", price={"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 1})


def test_parameters_reach_the_providers_class(server):
    settings = ModelSettings(model="openai:m", base_url=server.url, parameters={"seed": 7, "top_p": 0.5})
    chat_model(settings).invoke("x")
    assert (server.requests[0].body["seed"], server.requests[0].body["top_p"]) == (7, 0.5)


def test_an_unknown_parameter_is_refused_before_the_first_call():
    with pytest.raises(InvalidModel, match="topp is unknown to ChatOpenAI; did you mean 'top_p'"):
        chat_model(ModelSettings(model="openai:m", parameters={"topp": 0.5}))


def test_a_parameter_of_the_wrong_type_is_refused_without_quoting_the_rest():
    with pytest.raises(InvalidModel, match="seed") as caught:
        chat_model(ModelSettings(model="openai:m", parameters={"seed": "seven"}))
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


def test_another_provider_without_its_package_names_the_line_that_installs_it():
    with pytest.raises(
        MissingProvider, match=r"anthropic:claude needs langchain-anthropic; pip install langchain-anthropic"
    ):
        chat_model(ModelSettings(model="anthropic:claude"))


def test_a_provider_is_never_imported_by_a_name_from_the_file():
    for model in ("os:system", "langchain_openai.ChatOpenAI:m", "chainops.core:x"):
        with pytest.raises(ValidationError, match="expected 'provider:name'"):
            ModelSettings(model=model)


def test_extractive_needs_neither_key_nor_server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    model = chat_model(ModelSettings(model="extractive", max_sentences=2, threshold=0.4, embedder="minilm"))
    assert isinstance(model, ExtractiveChatModel)
    assert (model.max_sentences, model.threshold) == (2, 0.4)


def test_provider_and_name_can_be_read():
    settings = ModelSettings(model="ollama:llama3:8b")
    assert (settings.provider, settings.name) == ("ollama", "llama3:8b")
