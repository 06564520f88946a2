"""The providers chainops can talk to: a closed table.

Class paths stand here and nowhere else: a chain file chooses a row, never a module.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

EXTRACTIVE = "extractive"


@dataclass(frozen=True, slots=True)
class Provider:
    """How one LangChain partner package wants to be spoken to. Field names were read from the package."""

    package: str
    """What to `pip install`."""
    module: str
    class_name: str
    key_env: str | None
    """Environment variable of the key; None where there is none, or the vendor's own chain of credentials is used."""
    prices: str | None
    """The provider's id in the price table; None where it has no prices."""
    key_field: str | None = "api_key"
    model_field: str = "model"
    timeout_field: str | None = "timeout"
    timeout_unit_s: float | None = None
    """None: seconds as a float. Otherwise whole units of this many seconds."""
    retries_off: tuple[str, int] | None = ("max_retries", 0)
    """The field and the value that switch the client's own retries off; None where the client never retries."""
    max_tokens_field: str | None = "max_tokens"
    base_url_field: str | None = "base_url"


PROVIDERS: dict[str, Provider] = {
    "openai": Provider("langchain-openai", "langchain_openai", "ChatOpenAI", "OPENAI_API_KEY", "openai"),
    "anthropic": Provider(
        "langchain-anthropic", "langchain_anthropic", "ChatAnthropic", "ANTHROPIC_API_KEY", "anthropic"
    ),
    "bedrock": Provider(
        "langchain-aws",
        "langchain_aws",
        "ChatBedrockConverse",
        None,
        "aws",
        key_field=None,
        timeout_unit_s=1.0,
    ),
    "cohere": Provider(
        "langchain-cohere",
        "langchain_cohere",
        "ChatCohere",
        "COHERE_API_KEY",
        "cohere",
        key_field="cohere_api_key",
        timeout_field="timeout_seconds",
        retries_off=None,
        max_tokens_field=None,
    ),
    "deepseek": Provider("langchain-deepseek", "langchain_deepseek", "ChatDeepSeek", "DEEPSEEK_API_KEY", "deepseek"),
    "fireworks": Provider(
        "langchain-fireworks", "langchain_fireworks", "ChatFireworks", "FIREWORKS_API_KEY", "fireworks"
    ),
    "google_genai": Provider(
        "langchain-google-genai",
        "langchain_google_genai",
        "ChatGoogleGenerativeAI",
        "GOOGLE_API_KEY",
        "google",
        retries_off=("max_retries", 1),  # 0 means Google's default of five
    ),
    "groq": Provider("langchain-groq", "langchain_groq", "ChatGroq", "GROQ_API_KEY", "groq"),
    "mistralai": Provider(
        "langchain-mistralai",
        "langchain_mistralai",
        "ChatMistralAI",
        "MISTRAL_API_KEY",
        "mistral",
        timeout_unit_s=1.0,
        retries_off=("max_retries", 1),  # counts attempts
    ),
    "ollama": Provider(
        "langchain-ollama",
        "langchain_ollama",
        "ChatOllama",
        None,
        None,
        key_field=None,
        timeout_field=None,  # goes into client_kwargs
        retries_off=None,
        max_tokens_field="num_predict",
    ),
    "openrouter": Provider(
        "langchain-openrouter",
        "langchain_openrouter",
        "ChatOpenRouter",
        "OPENROUTER_API_KEY",
        "openrouter",
        timeout_unit_s=0.001,
    ),
    "perplexity": Provider(
        "langchain-perplexity",
        "langchain_perplexity",
        "ChatPerplexity",
        "PPLX_API_KEY",
        "perplexity",
        base_url_field=None,
    ),
    "together": Provider("langchain-together", "langchain_together", "ChatTogether", "TOGETHER_API_KEY", "together"),
    "xai": Provider("langchain-xai", "langchain_xai", "ChatXAI", "XAI_API_KEY", "x-ai"),
}
"""`provider:` words of a chain file."""


def split_model(model: str) -> tuple[str, str]:
    """Provider and name of "provider:name"; the name may hold further colons. "extractive" has no name.

    Raises:
        ValueError: not of that form, or no such provider. The message names the nearest valid word.
    """
    provider, colon, name = model.partition(":")
    if model == EXTRACTIVE:
        return EXTRACTIVE, ""
    if provider not in PROVIDERS or not colon:
        words = [*PROVIDERS, EXTRACTIVE]
        near = difflib.get_close_matches(provider.lower(), words, n=1, cutoff=0.5)
        if not colon and not near:
            hint = f"'openai:{model}'"
        else:
            hint = repr(f"{near[0]}:{name or 'NAME'}" if near[0] != EXTRACTIVE else EXTRACTIVE) if near else ""
        known = ", ".join(PROVIDERS)
        said = f"model {model!r}: expected 'provider:name' or 'extractive'"
        raise ValueError(f"{said}{f'; did you mean {hint}?' if hint else ''} (providers: {known})")
    if not name.strip():
        raise ValueError(f"model {model!r}: the name is missing; expected '{provider}:NAME'")
    return provider, name


def key_variable(model: str) -> str | None:
    """The environment variable in which the key of "provider:name" is looked for by default, if any."""
    provider = PROVIDERS.get(model.partition(":")[0])
    return provider.key_env if provider else None
