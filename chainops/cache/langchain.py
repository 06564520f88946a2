"""The cache behind LangChain's own interface: `set_llm_cache(LLMCache(...))`, or `ChatOpenAI(cache=LLMCache(...))`.

LangChain asks with the whole request as one string. What varies between requests that may share an answer is only
the last thing a person said; everything else (system prompt, history, images, tools, the model and its settings)
decides which entries are looked at at all. `.stream()` never asks a LangChain cache: for that, `SemanticCache`.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import messages_from_dict
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from chainops.cache.messages import is_cut
from chainops.cache.policy import digest
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.text.passages import has_passages

_GENERATIONS = {each.__name__: each for each in (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)}
_LONGEST_NEAR = 1_000
"""Characters. Embedding models read the beginning of a text (MiniLM some 256 tokens): of two longer prompts made by
one template they would see only what is the same. Longer ones are served to exact repeats."""


class Answers(Protocol):
    """What this needs of a cache. Thread-safe; may block."""

    def find(self, scope: str, question: str, *, may_be_near: bool) -> Any | None:
        """The stored value, or None."""

    def keep(self, scope: str, question: str, value: Any, *, text: str, may_be_near: bool) -> None:
        """Store plain JSON. `text` is everything the value says, to see whether it may be stored."""

    def clear(self) -> None: ...


class EntryUnreadable(ChainopsError, ValueError):
    """A stored entry is not a list of generations: written by another version, or by hand."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"cache entry: {problem}; it is treated as a miss, and the next answer replaces it")


class CacheFailedWarning(RuntimeWarning):
    """The cache could not be read or written; the model was asked instead."""


class LLMCache(BaseCache):
    """A LangChain cache: exact repeats, and similar last questions when everything else of the request is equal.

    A cache that fails never fails the request: `lookup` answers None, `update` does nothing, and `on_failure` is
    told. `clear` does raise, since who clears a cache relies on it. Answers that were cut short or withheld are not
    stored. A hit keeps usage, tool calls and metadata, but not the message's id: two messages of a conversation
    must not have the same one.

    Args:
        answers: The cache behind it.
        on_failure: Called with what went wrong, in the thread that asked; None shows a `CacheFailedWarning`.
    """

    def __init__(self, answers: Answers, *, on_failure: Callable[[Exception], None] | None = None) -> None:
        self._answers = answers
        self._on_failure = on_failure or _warn

    @classmethod
    def open(
        cls,
        *,
        name: str = "langchain",
        tenant: str | None = None,
        embeddings: str = "minilm",
        on_failure: Callable[[Exception], None] | None = None,
        **settings: Any,
    ) -> Self:
        """A cache of one's own: `set_llm_cache(LLMCache.open(max_error_rate=0.01, store="redis://localhost"))`.

        Args:
            name: Which cache in its store.
            tenant: Whose: LangChain does not tell a cache who asks, so tenants need one each.
            embeddings: The model by which questions are compared.
            settings: As of `CacheSettings`. Audits happen in the foreground: a hit that is drawn is asked.
        """
        from chainops.cache.answers import StoredAnswers
        from chainops.cache.opening import open_comparer, open_replica
        from chainops.cache.settings import CacheSettings
        from chainops.core.lazy import Lazy
        from chainops.models.embeddings import embedder

        told = CacheSettings(**settings)
        model = Lazy(lambda: embedder(embeddings))
        replica = open_replica(told, model, owner=name)
        return cls(StoredAnswers(replica, told, open_comparer(told, model), tenant=tenant), on_failure=on_failure)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        try:
            request = request_of(prompt, llm_string)
            value = self._answers.find(request.scope, request.question, may_be_near=request.may_be_near)
            return None if value is None else _read(value)
        except Exception as error:  # noqa: BLE001 - LangChain lets a cache's errors end the request; a miss is right
            self._on_failure(error)
            return None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if not return_val or any(_is_cut(each) for each in return_val):
            return
        try:
            request = request_of(prompt, llm_string)
            value = [_write(each) for each in return_val]
            _read(value)  # what cannot be read back is better found now
            said = "\n".join(_said(each) for each in return_val)
            self._answers.keep(request.scope, request.question, value, text=said, may_be_near=request.may_be_near)
        except Exception as error:  # noqa: BLE001 - as above: the answer is there, keeping it is a convenience
            self._on_failure(error)

    def clear(self, **kwargs: Any) -> None:
        """Remove everything.

        Raises:
            InvalidInput: Asked to clear only a part, which LangChain's interface does not define.
        """
        if kwargs:
            raise InvalidInput("clear", ", ".join(sorted(kwargs)), "no arguments: everything is removed")
        self._answers.clear()

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await asyncio.to_thread(self.lookup, prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:
        await asyncio.to_thread(lambda: self.clear(**kwargs))


def _warn(error: Exception) -> None:
    warnings.warn(f"{type(error).__name__}: {error}", CacheFailedWarning, stacklevel=4)


# --- what is asked -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    scope: str
    """Digest of the model, its settings and everything in the prompt but the question."""
    question: str
    may_be_near: bool
    """Whether a similar question may be served: not within a conversation, where its meaning depends on what was
    said before, and not for texts that an embedding sees only the beginning of."""


def request_of(prompt: str, llm_string: str) -> Request:
    """Take LangChain's two strings apart.

    Args:
        prompt: `dumps(messages)` of a chat model, or the plain prompt of a text model.
        llm_string: The model and its parameters, tools included.
    """
    messages = _messages(prompt)
    at = None if messages is None else _last_human(messages)
    if messages is None or at is None:
        return Request(digest(["text", llm_string, messages is None]), prompt, _is_short(prompt))
    question, rest = _without_text(messages[at])
    scope = digest(["chat", llm_string, [*messages[:at], rest, *messages[at + 1 :]]])
    is_alone = all(_kind(each) == "SystemMessage" for each in messages[:at]) and at == len(messages) - 1
    return Request(scope, question, is_alone and _is_short(question))


def _messages(prompt: str) -> list[dict[str, Any]] | None:
    """The messages of a serialised chat prompt; None for a plain prompt, even one that happens to be JSON."""
    if not prompt.startswith("["):
        return None
    try:
        found = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    is_chat = bool(found) and all(isinstance(each, dict) and _kind(each).endswith("Message") for each in found)
    return found if is_chat else None


def _kind(message: dict[str, Any]) -> str:
    name = message.get("id")
    is_written = message.get("lc") == 1 and isinstance(name, list) and isinstance(message.get("kwargs"), dict)
    return str(name[-1]) if is_written and name else ""


def _last_human(messages: list[dict[str, Any]]) -> int | None:
    places = [at for at, each in enumerate(messages) if _kind(each) == "HumanMessage"]
    return places[-1] if places else None


def _without_text(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the person wrote, and everything else of the message: images, name, additional arguments."""
    content = message["kwargs"].get("content")
    if isinstance(content, str):
        return content, {**message, "kwargs": {**message["kwargs"], "content": None}}
    written: list[str] = []
    others: list[Any] = []
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            written.append(block["text"])
            others.append({**block, "text": None})
        else:
            others.append(block)
    return "\n".join(written), {**message, "kwargs": {**message["kwargs"], "content": others}}


def _is_short(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _LONGEST_NEAR and not has_passages(text)


# --- what is stored ------------------------------------------------------------------------------


def _write(generation: Generation) -> dict[str, Any]:
    """As plain JSON: names of classes stand in it, but none that is not listed here is ever looked for."""
    kind = next(each.__name__ for each in type(generation).__mro__ if each.__name__ in _GENERATIONS)
    written = {"kind": kind, "info": generation.generation_info}
    if isinstance(generation, ChatGeneration):
        message = generation.message
        written["message"] = {"type": message.type, "data": message.model_dump(mode="json", exclude={"id"})}
    else:
        written["text"] = generation.text
    plain: dict[str, Any] = json.loads(json.dumps(written))  # what is not plain JSON is found here, not at a hit
    return plain


def _read(value: Any) -> list[Generation]:
    """Generations from what is stored.

    Raises:
        EntryUnreadable: It is anything else.
    """
    if not isinstance(value, list) or not value:
        raise EntryUnreadable(f"found {type(value).__name__}, expected a list of generations")
    return [_generation(each) for each in value]


def _generation(written: Any) -> Generation:
    try:
        kind, info = _GENERATIONS[written["kind"]], written["info"]
        if not issubclass(kind, ChatGeneration):
            return kind.model_validate({"text": written["text"], "generation_info": info})
        (message,) = messages_from_dict([written["message"]])
        return kind.model_validate({"message": message, "generation_info": info})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EntryUnreadable(f"{type(error).__name__} on reading a generation") from error


def _said(generation: Generation) -> str:
    """Text, and what tools are called with: all that may hold something not to be stored."""
    calls = getattr(getattr(generation, "message", None), "tool_calls", None)
    return f"{generation.text}\n{json.dumps(calls, ensure_ascii=False, default=str)}" if calls else generation.text


def _is_cut(generation: Generation) -> bool:
    metadata = getattr(getattr(generation, "message", None), "response_metadata", None) or {}
    return is_cut(generation.generation_info or {}) or is_cut(metadata)
