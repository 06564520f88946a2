"""A chat model that says what it is told to, in order."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, InstanceOf, PrivateAttr

from chainops.core.errors import ChainopsError
from chainops.testing.wire import count_tokens, pieces_of


class ScriptExhausted(ChainopsError):
    """A scripted model was called more often than it has replies."""

    def __init__(self, replies: int) -> None:
        self.replies = replies
        super().__init__(
            f"the scripted model has {replies} replies and was called once more; add one, or set loop=True"
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer.

    Args:
        text: The whole text; "" with `chunks` means the chunks joined.
        chunks: How a stream cuts it; None: at the blanks.
        tool_calls: LangChain's tool calls: dicts with "name", "args", "id".
        usage: Token counts; None: words and punctuation are counted.
        delay_s: Wait before the first word, in seconds.
        chunk_delay_s: Wait between chunks, in seconds.
        fail_after_chunks: In a stream, raise `error` after this many chunks; anything else raises it at once.
        error: What is raised then.
    """

    text: str = ""
    chunks: Sequence[str] | None = None
    tool_calls: Sequence[dict[str, Any]] = ()
    usage: UsageMetadata | None = None
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    fail_after_chunks: int | None = None
    error: Exception = field(default_factory=lambda: ConnectionError("the scripted stream was cut"))

    @property
    def said(self) -> str:
        return self.text or "".join(self.chunks or ())

    @property
    def pieces(self) -> list[str]:
        return list(self.chunks) if self.chunks is not None else pieces_of(self.text)


class ScriptedChatModel(BaseChatModel):
    """Gives its replies in order, and remembers what it was asked.

        model = ScriptedChatModel(replies=["first", TimeoutError(), Reply("third", fail_after_chunks=1)])

    Raises:
        ScriptExhausted: It was called once more than there are replies, and `loop` is False.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    replies: tuple[str | InstanceOf[AIMessage] | InstanceOf[Reply] | InstanceOf[Exception], ...]
    """An exception is raised when its turn comes; a message is given as it is."""
    loop: bool = False
    """Begin again after the last reply."""
    model_name: str = "scripted"

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _closed: list[None] = PrivateAttr(default_factory=list)
    """One for each. No number under the lock: the garbage collector may close a stream in the middle of that."""

    @property
    def calls(self) -> int:
        """How often it was called, failures included."""
        return len(self._asked)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        """The messages of each call, in order."""
        return list(self._asked)

    @property
    def closed_streams(self) -> int:
        """How many streams were closed before their end."""
        return len(self._closed)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Accepts any tools: what it calls is in the script."""
        return self.bind(tools=list(tools), **kwargs)

    def _next(self, messages: list[BaseMessage]) -> Reply | AIMessage:
        with self._lock:
            turn = len(self._asked)
            self._asked.append(list(messages))
        if turn >= len(self.replies) and not (self.loop and self.replies):
            raise ScriptExhausted(len(self.replies))
        reply = self.replies[turn % len(self.replies)]
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply) if isinstance(reply, str) else reply

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - the script decides
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        reply = self._next(messages)
        if isinstance(reply, Reply) and reply.delay_s:
            time.sleep(reply.delay_s)
        return self._result(reply, messages)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        reply = self._next(messages)
        if isinstance(reply, Reply) and reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        return self._result(reply, messages)

    def _result(self, reply: Reply | AIMessage, messages: list[BaseMessage]) -> ChatResult:
        if isinstance(reply, AIMessage):
            # A copy: LangChain writes into what it is given.
            return ChatResult(generations=[ChatGeneration(message=reply.model_copy(deep=True))])
        if reply.fail_after_chunks is not None:
            raise reply.error
        message = AIMessage(
            content=reply.said,
            tool_calls=[dict(call) for call in reply.tool_calls],
            usage_metadata=_usage(reply, messages),
            response_metadata=self._facts(reply),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _facts(self, reply: Reply) -> dict[str, Any]:
        return {"model_name": self.model_name, "finish_reason": "tool_calls" if reply.tool_calls else "stop"}

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> Iterator[ChatGenerationChunk]:
        try:
            for pause_s, chunk in self._chunks(messages):
                if pause_s:
                    time.sleep(pause_s)
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except GeneratorExit:
            self._closed.append(None)
            raise

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for pause_s, chunk in self._chunks(messages):
                await asyncio.sleep(pause_s)  # also at 0: a stream that never lets go cannot be cancelled
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            self._closed.append(None)
            raise

    def _chunks(self, messages: list[BaseMessage]) -> Iterator[tuple[float, ChatGenerationChunk]]:
        """Each chunk with the pause before it. The last one is empty and carries usage and finish reason."""
        reply = self._next(messages)
        if isinstance(reply, AIMessage):
            yield 0.0, ChatGenerationChunk(message=_as_chunk(reply))
            return
        for number, piece in enumerate(reply.pieces):
            if number == reply.fail_after_chunks:
                raise reply.error
            pause_s = reply.chunk_delay_s if number else reply.delay_s
            yield pause_s, ChatGenerationChunk(message=AIMessageChunk(content=piece))
        if reply.fail_after_chunks is not None:
            raise reply.error
        calls = [
            tool_call_chunk(name=call["name"], args=_json(call["args"]), id=call.get("id"), index=index)
            for index, call in enumerate(reply.tool_calls)
        ]
        last = AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            usage_metadata=_usage(reply, messages),
            response_metadata=self._facts(reply),
            chunk_position="last",
        )
        yield 0.0, ChatGenerationChunk(message=last)


def _json(value: Any) -> str:
    return json.dumps(value)


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    fields = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = [
        tool_call_chunk(name=call["name"], args=_json(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(**fields, tool_call_chunks=calls, chunk_position="last")


def _usage(reply: Reply, messages: list[BaseMessage]) -> UsageMetadata:
    if reply.usage is not None:
        return reply.usage
    read = sum(count_tokens(str(message.text)) for message in messages)
    written = count_tokens(reply.said) + sum(count_tokens(_json(call)) for call in reply.tool_calls)
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
