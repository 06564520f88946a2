"""What a chain file says of a model, and the chat model made of it."""

from __future__ import annotations

import difflib
import importlib
import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from pydantic import ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from chainops.core.errors import ChainopsError
from chainops.core.lazy import Lazy
from chainops.core.settings import Seconds, Settings
from chainops.models.failures import MissingKey, MissingProvider
from chainops.models.key_pool import KeyPool, ModelKey
from chainops.models.keys import looks_like_key, smells_of_secret, walk
from chainops.models.known import EXTRACTIVE, PROVIDERS, Provider, split_model
from chainops.models.limits import ModelLimits
from chainops.models.prices import Price

if TYPE_CHECKING:
    from chainops.models.clients import Listener

OPENAI_URL = "https://api.openai.com/v1"


class InvalidModel(ChainopsError, ValueError):
    """A model's settings were refused by its provider's package."""

    def __init__(self, model: str, problem: str) -> None:
        self.model, self.problem = model, problem
        super().__init__(f"{model}: {problem}")


class ModelSettings(Settings):
    """What a chain file may say about one model. Keys never stand here: they come from the environment."""

    # A secret put into the wrong field must not come back in the error about it.
    model_config = ConfigDict(hide_input_in_errors=True)

    model: str
    """`provider:name`, such as `openai:gpt-4o-mini`; or `extractive`, the model that needs no server."""
    timeout_s: Seconds = 30.0
    """Seconds for a whole answer; in a stream, for each of its chunks."""
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, gt=0)
    """At most this many tokens in an answer."""
    base_url: str | None = None
    """Where the server is, if not at the provider's; `openai:` also looks into OPENAI_BASE_URL."""
    key_env: str | None = None
    """Name of the environment variable that holds the key, if not the provider's usual one."""
    keys: tuple[str, ...] = ()
    """Names of several variables, each with a key of its own: the one with the least to do is used."""
    limits: ModelLimits | None = None
    """What each key may do. What the provider says in its answers counts beside it."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Passed on to the provider's LangChain class, under its own names."""
    price: Price | None = None
    """In place of the price table's."""
    max_sentences: int | None = Field(default=None, gt=0)
    """`extractive`: at most this many sentences in an answer."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """`extractive`: below this score it says that it does not know."""
    embedder: str | None = None
    """`extractive`: the embedding model that compares sentences with the question."""

    @property
    def provider(self) -> str:
        return split_model(self.model)[0]

    @property
    def name(self) -> str:
        """The model's name at its provider; "" for `extractive`."""
        return split_model(self.model)[1]

    @model_validator(mode="before")
    @classmethod
    def _no_key_here(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for word in given:
                if word not in cls.model_fields and smells_of_secret(str(word)):
                    raise ValueError(_KEEP_OUT.format(word=word))
        return given

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        split_model(model)
        return model

    @field_validator("max_sentences", "threshold", "embedder")
    @classmethod
    def _only_extractive(cls, value: Any, info: ValidationInfo) -> Any:
        model = info.data.get("model", EXTRACTIVE)
        if value is not None and model != EXTRACTIVE:
            raise ValueError(f"{info.field_name} is for 'extractive' only, and this model is {model!r}")
        return value

    @field_validator("timeout_s", "temperature", "max_tokens", "base_url", "key_env", "keys", "limits", "parameters")
    @classmethod
    def _not_extractive(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("model") == EXTRACTIVE:
            raise ValueError(f"{info.field_name} does not apply to 'extractive', which calls no server")
        return value

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or smells_of_secret(parts.query):
            raise ValueError("no user, password or key in a URL; name the key's variable with key_env")
        provider = PROVIDERS.get(info.data.get("model", "").partition(":")[0])
        if provider and provider.base_url_field is None:
            raise ValueError(f"{provider.class_name} takes no base_url")
        return url.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and not _is_variable(name):
            raise ValueError(_A_VARIABLE)
        return name

    @field_validator("keys")
    @classmethod
    def _names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not all(map(_is_variable, names)):
            raise ValueError(_A_VARIABLE)
        if len(set(names)) < len(names):
            raise ValueError("a variable is named twice")
        if names and info.data.get("key_env") is not None:
            raise ValueError("say either key_env, for one key, or keys, for several")
        provider = PROVIDERS.get(info.data.get("model", "").partition(":")[0])
        if names and provider and provider.key_field is None:
            raise ValueError(f"{provider.class_name} takes no key")
        return names

    @field_validator("parameters")
    @classmethod
    def _no_secrets(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for word, value in walk(parameters):
            if smells_of_secret(word) or (isinstance(value, str) and looks_like_key(value)):
                raise ValueError(_KEEP_OUT.format(word=f"parameters.{word}"))
        for word in parameters:
            if (ours := _OURS.get(word)) is not None:
                raise ValueError(f"parameters.{word}: {ours}")
        return parameters

    @model_validator(mode="after")
    def _extractive_costs_nothing(self) -> Self:
        if self.model == EXTRACTIVE and self.price is not None:
            raise ValueError("price does not apply to 'extractive', which costs nothing")
        return self


def _is_variable(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)) and not looks_like_key(name)


_A_VARIABLE = "expected the name of an environment variable such as OPENAI_API_KEY, not a key"
_KEEP_OUT = (
    "{word}: keys and passwords do not belong in a chain file; "
    "put them in the environment and name the variable with key_env"
)

_OURS = {
    "model": "say `model: provider:name`",
    "model_name": "say `model: provider:name`",
    "timeout": "say `timeout_s`",
    "request_timeout": "say `timeout_s`",
    "temperature": "say `temperature` beside `parameters`",
    "max_tokens": "say `max_tokens` beside `parameters`",
    "base_url": "say `base_url` beside `parameters`",
    "openai_api_base": "say `base_url`",
    "max_retries": "a client's own retries stay off; retries are the chain's, where they are seen and counted",
    "n": "a chain answers once",
    "http_client": "HTTP clients cannot be declared",
    "http_async_client": "HTTP clients cannot be declared",
    "default_headers": "headers may carry keys and are not declared; wrap the model in Python instead",
}


def key_pool(settings: ModelSettings) -> KeyPool | None:
    """The keys of a model, each with the chat model that uses it; None for a model without. Nothing is opened yet."""
    if settings.provider == EXTRACTIVE:
        return None
    names = settings.keys or (settings.key_env or PROVIDERS[settings.provider].key_env or settings.provider,)

    def key(name: str) -> ModelKey:
        made = ModelKey(name, Lazy(lambda: chat_model(settings, key_env=name, listener=made)))
        return made

    return KeyPool(tuple(map(key, names)))


def chat_model(
    settings: ModelSettings, *, key_env: str | None = None, listener: Listener | None = None
) -> BaseChatModel:
    """The LangChain chat model that the settings describe. Nothing is sent yet.

    Every client's own retries are off: retries are the chain's, and count.

    Args:
        key_env: Which of `settings.keys` it uses.
        listener: Hears the headers of OpenAI-compatible servers' answers.

    Raises:
        MissingKey: The environment does not hold the key.
        MissingProvider: The provider's LangChain package is not installed.
        InvalidModel: A parameter the provider's class does not know or refuses.
    """
    if settings.provider == EXTRACTIVE:
        return _extractive(settings)
    provider = PROVIDERS[settings.provider]
    kind = _class_of(provider, settings.model)
    words = _words_of(kind)
    _check_parameters(kind, words, settings)
    arguments = {**settings.parameters, provider.model_field: settings.name, **_common(provider, settings, key_env)}
    if unknown := sorted(arguments.keys() - words):
        raise InvalidModel(
            settings.model, f"this version of {provider.package} does not know {', '.join(unknown)}; install another"
        )
    if settings.provider == "openai":
        from chainops.models.clients import async_client, listening_clients, sync_client

        clients = (sync_client(), async_client()) if listener is None else listening_clients(listener)
        arguments |= {
            "base_url": _openai_url(settings),
            "stream_usage": settings.parameters.get("stream_usage", True),
            "stream_chunk_timeout": None,  # our clients bound every chunk, in sync calls too
            "http_client": clients[0],
            "http_async_client": clients[1],
        }
    try:
        return kind(**arguments)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
    # Outside the handler: pydantic's own message quotes what it was given.
    raise InvalidModel(settings.model, problems)


def _extractive(settings: ModelSettings) -> BaseChatModel:
    from chainops.models.extractive import ExtractiveChatModel

    given = {
        "max_sentences": settings.max_sentences,
        "threshold": settings.threshold,
        "embedder_name": settings.embedder,
    }
    return ExtractiveChatModel(**{name: value for name, value in given.items() if value is not None})


def _class_of(provider: Provider, model: str) -> type[BaseChatModel]:
    try:
        module = importlib.import_module(provider.module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != provider.module:
            raise  # the package is there, and something it needs is not: say that instead
        raise MissingProvider(model, provider.package) from error
    found: type[BaseChatModel] = getattr(module, provider.class_name)
    return found


def _common(provider: Provider, settings: ModelSettings, key_env: str | None) -> dict[str, Any]:
    """What every provider is told, in its own words."""
    told: dict[str, Any] = {}
    if settings.temperature is not None:
        told["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        if provider.max_tokens_field is None:
            raise InvalidModel(settings.model, f"{provider.class_name} takes no max_tokens")
        told[provider.max_tokens_field] = settings.max_tokens
    if provider.retries_off is not None:
        told.update([provider.retries_off])
    if provider.timeout_field is not None:
        unit_s = provider.timeout_unit_s
        told[provider.timeout_field] = settings.timeout_s if unit_s is None else math.ceil(settings.timeout_s / unit_s)
    elif settings.provider == "ollama":
        told["client_kwargs"] = {**settings.parameters.get("client_kwargs", {}), "timeout": settings.timeout_s}
    if settings.base_url is not None and provider.base_url_field is not None:
        told[provider.base_url_field] = settings.base_url
    if provider.key_field is not None and (variable := key_env or _first_key(provider, settings)) is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            url = _openai_url(settings) if settings.provider == "openai" else settings.base_url
            raise MissingKey(settings.model, variable, None if url == OPENAI_URL else url)
        told[provider.key_field] = SecretStr(key)
    return told


def _first_key(provider: Provider, settings: ModelSettings) -> str | None:
    return settings.keys[0] if settings.keys else settings.key_env or provider.key_env


def _openai_url(settings: ModelSettings) -> str:
    # Always explicit: left out, the client would look into more variables than we tell people about.
    named = settings.base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    return (named or OPENAI_URL).rstrip("/")


def _words_of(kind: type[BaseChatModel]) -> set[str]:
    fields: Any = kind.model_fields
    return {*fields, *(field.alias for field in fields.values() if field.alias)}


def _check_parameters(kind: type[BaseChatModel], words: set[str], settings: ModelSettings) -> None:
    """LangChain's classes drop unknown words, or take them for model arguments and fail at the first call."""
    for word in settings.parameters:
        if word not in words:
            near = difflib.get_close_matches(word, sorted(words), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidModel(
                settings.model,
                f"parameters.{word} is unknown to {kind.__name__}{hint} (what only the server knows goes into "
                "parameters.extra_body or parameters.model_kwargs)",
            )
