"""A chat model without a language model: it answers with sentences of the passages it is given, and cites them.

It runs offline, costs nothing and never invents. It is what a chain falls back to, and what tests and demos run on.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field

from chainops.models.embeddings import Embedder, OnnxEmbedder, embedder
from chainops.models.extract import choose, write_answer
from chainops.text.passages import NO_ANSWER, PromptPassage, has_passages, parse_passages, without_passages
from chainops.text.tokens import tokens

if TYPE_CHECKING:
    import numpy as np

NO_PASSAGES = (
    "I am the extractive model: I can only answer by quoting passages, and this conversation gives me none. "
    "Ask me through a chain with knowledge, or choose another model."
)
"""What it says to a conversation without a passages block."""

_REMEMBERED_SENTENCES = 16_384
"""Sentence vectors kept, for all chains of the process: 25 MB at 384 dimensions."""
_QUESTION_LINE = re.compile(r"^[ \t*_#>]*question[ \t*_]*:[ \t*_]*", re.IGNORECASE | re.MULTILINE)
_ANSWER_LINE = re.compile(r"\n[ \t*_#>]*answer[ \t*_]*:[ \t*_]*\Z", re.IGNORECASE)
_WORD = re.compile(r"\s*\S+\s*")


class ExtractiveChatModel(BaseChatModel):
    """Picks and cites the sentences of its passages that answer the question.

    Passages come in the block that `text.passages.render_passages` writes, in any message; the question is the last
    human message, or what follows its line `Question:`. The same input always gives the same answer, word for word.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = "extractive"
    """Its name in reports and metadata."""
    max_sentences: int = Field(default=3, ge=1)
    """Sentences in an answer, at most."""
    threshold: float = Field(default=0.30, ge=0, le=1)
    """Evidence, 0 to 1, below which it says it does not know. On XQuAD dev the default declines 92% of the questions
    whose passages are about something else, and 3% (one passage) or 2% (five) of those it could answer."""
    embedder_name: str = "minilm"
    """The embedding model it compares by; see `models.embeddings.embedder`."""
    stop: list[str] | None = None
    """Ends the answer before the first of these."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Ends the answer after so many tokens, with finish reason `length`; None is unlimited."""
    temperature: float | None = None
    """Accepted so that it can stand in for a hosted model, as are the next two; it has nothing to vary."""
    timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = False
    """Answer through the stream also when invoked, as LangChain's own models understand the word."""

    @property
    def _llm_type(self) -> str:
        return "chainops-extractive"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "max_sentences": self.max_sentences,
            "threshold": self.threshold,
            "embedder": self.embedder_name,
            "max_tokens": self.max_tokens,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "chainops"
        params["ls_model_name"] = kwargs.get("model") or self.model
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, stop, kwargs))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,
    ) -> ChatResult:
        message = await asyncio.to_thread(self._answer, messages, stop, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages, stop, kwargs)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(await asyncio.to_thread(self._answer, messages, stop, kwargs)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _answer(self, messages: list[BaseMessage], stop: list[str] | None, asked: dict[str, Any]) -> AIMessage:
        sentences = int(asked.get("max_sentences") or self.max_sentences)
        limit = asked.get("max_tokens") or self.max_tokens
        reader = _reader(self.embedder_name)
        question, passages = question_and_passages(messages)
        if passages is None:
            text = NO_PASSAGES
        else:
            quotes = choose(question, passages, reader.embed, max_sentences=sentences, threshold=self.threshold)
            text = write_answer(quotes) or NO_ANSWER
        text = _until(text, [*(self.stop or []), *(stop or [])])
        text, finish = _at_most(text, limit, reader)
        used = sum(reader.count_tokens(str(message.text)) for message in messages)
        made = reader.count_tokens(text)
        return AIMessage(
            content=text,
            usage_metadata=UsageMetadata(input_tokens=used, output_tokens=made, total_tokens=used + made),
            response_metadata={"model_name": asked.get("model") or self.model, "finish_reason": finish},
        )


def question_and_passages(messages: Sequence[BaseMessage]) -> tuple[str, list[PromptPassage] | None]:
    """What is asked, and of which passages.

    Returns:
        The question, empty if nobody asked; and the passages of the last message that has a block, None if there is
        no block anywhere (an empty list is a block without passages: something was searched and nothing found).
    """
    passages: list[PromptPassage] | None = None
    for message in reversed(messages):
        text = str(message.text)
        if has_passages(text):
            passages = parse_passages(text)
            break
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return _question(str(message.text)), passages
    return "", passages


def _question(text: str) -> str:
    bare = without_passages(text)
    marked = list(_QUESTION_LINE.finditer(bare))
    asked = bare[marked[-1].end() :] if marked else bare
    return _ANSWER_LINE.sub("", asked).strip()


def _until(text: str, stops: Sequence[str]) -> str:
    ends = [at for mark in stops if mark and (at := text.find(mark)) >= 0]
    return text[: min(ends)] if ends else text


def _at_most(text: str, limit: int | None, reader: _Reader) -> tuple[str, str]:
    if limit is None or reader.count_tokens(text) <= limit:
        return text, "stop"
    kept = ""
    for word in _WORD.findall(text):
        if reader.count_tokens(kept + word) > limit:
            break
        kept += word
    return kept.rstrip(), "length"


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Word by word; the last chunk is empty and carries usage and metadata, as OpenAI's does."""
    for word in _WORD.findall(str(message.text)):
        yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )


class _Reader:
    """An embedding model that remembers the sentences it has read: the same passages are retrieved again and again."""

    # Remembered or not, a row is the same to the last bit (`OnnxRunner`), so answers do not depend on what came before.

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self._rows: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, texts: list[str]) -> np.ndarray:
        import numpy as np

        with self._lock:
            known = {text: row for text in texts if (row := self._rows.get(text)) is not None}
            for text in known:
                self._rows.move_to_end(text)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            fresh = dict(zip(missing, self._model.embed(missing), strict=True))
            with self._lock:
                self._rows.update((text, row.copy()) for text, row in fresh.items())
                while len(self._rows) > _REMEMBERED_SENTENCES:
                    self._rows.popitem(last=False)
            known |= fresh
        return np.stack([known[text] for text in texts])

    def count_tokens(self, text: str) -> int:
        """Tokens by the embedding model's own tokenizer, or words where it has none here."""
        return self._model.count_tokens(text) if isinstance(self._model, OnnxEmbedder) else len(tokens(text))


@cache
def _reader(name: str) -> _Reader:
    return _Reader(embedder(name))
