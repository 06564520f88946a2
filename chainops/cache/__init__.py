"""Answers that were given before: exact repeats, and questions whose answer would be the same again.

`SemanticCache` is the component, `LLMCache` the same behind LangChain's own cache interface.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainops.cache.cache import Cache
    from chainops.cache.component import SemanticCache
    from chainops.cache.langchain import LLMCache
    from chainops.cache.settings import CacheSettings

__all__ = ["Cache", "CacheSettings", "LLMCache", "SemanticCache"]

_WHERE = {"Cache": "cache", "CacheSettings": "settings", "LLMCache": "langchain", "SemanticCache": "component"}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _WHERE:
        return getattr(import_module(f"chainops.cache.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'chainops.cache' has no attribute {name!r}")
