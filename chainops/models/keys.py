"""Keys stay in the environment: notice one where it does not belong, and take it out of what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from chainops.models.known import PROVIDERS

_SECRET_WORDS = {
    "secret",
    "secrets",
    "password",
    "passwd",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "apikey",
}
_KEY_OWNERS = {"api", "access", "private", "auth", "account", "service", "subscription", "signing", "openai"}
_TOKEN_OWNERS = _KEY_OWNERS | {"bearer", "refresh", "session", "security", "id"}


def smells_of_secret(word: str) -> bool:
    """Whether a setting of this name would hold a secret. `max_tokens` and `prompt_cache_key` do not."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower())) - {""}
    if words & _SECRET_WORDS or words in ({"key"}, {"token"}):
        return True
    return ("key" in words and bool(words & _KEY_OWNERS)) or ("token" in words and bool(words & _TOKEN_OWNERS))


def walk(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting with its dotted name, those inside other settings included."""
    for word, value in values.items():
        yield str(word), value
        nested = value if isinstance(value, list | tuple) else [value]
        for item in nested:
            if isinstance(item, Mapping):
                for inner, inner_value in walk(item):
                    yield f"{word}.{inner}", inner_value


def looks_like_key(value: str) -> bool:
    """Whether a value begins like the keys of the known providers."""
    return bool(_KEY_SHAPED.match(value))


def redact(text: str) -> str:
    """`text` without what is or looks like a key.

    Keys that are in the environment now are taken out wherever they stand, and so is anything of a key's usual
    shape: servers like to quote the key they refuse.
    """
    for variable in _key_variables():
        secret = os.environ.get(variable, "").strip()
        if len(secret) >= 6:
            text = text.replace(secret, "[key]")
    text = _BEARER.sub(r"\1[key]", text)
    text = _USERINFO.sub("//", text)
    return _KEY_SHAPED.sub("[key]", text)


_KEY_SHAPED = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|pplx|lsv2|fw|tgp|hf)[-_][A-Za-z0-9*_\-]{12,}|(?:AIza|AKIA)[A-Za-z0-9_\-]{12,})"
)
_BEARER = re.compile(
    r"(?i)\b(bearer\s+|authorization['\":\s]+(?:bearer\s+)?|api[-_ ]?key['\"]?\s*(?:[:=]|provided:)\s*['\"]?)"
    r"[^\s'\",;]{4,}"
)
_USERINFO = re.compile(r"//[^/\s@]+@")


def _key_variables() -> Iterator[str]:
    usual = {provider.key_env for provider in PROVIDERS.values()}
    for name in os.environ:
        if name in usual or name.upper().endswith(("_API_KEY", "_API_TOKEN", "_SECRET", "_SECRET_ACCESS_KEY")):
            yield name
