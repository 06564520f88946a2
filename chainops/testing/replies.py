"""What a healthy model server answers: chat, embeddings, its models, and its rejections of bad requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from chainops.testing.connection import Received
from chainops.testing.delivery import Delivery
from chainops.testing.error_bodies import error_body
from chainops.testing.wire import (
    Message,
    chat_delivery,
    count_tokens,
    embeddings_delivery,
    hashed_vector,
    text_of,
    usage_of,
)

Answerer = Callable[[list[Message]], str | Message]
"""From the request's messages to the answer's text, or to a whole assistant message (with "tool_calls", say)."""

Embedder = Callable[[list[str]], Sequence[Sequence[float]]]
"""From n texts to n vectors."""

NOTHING = Delivery(200, "application/json", ())


def echo(messages: list[Message]) -> str:
    """The last thing said by the user, or by anybody."""
    spoken = [message for message in messages if message.get("role") == "user"] or messages
    return text_of(spoken[-1]) if spoken else ""


class Replies:
    """Answers requests as `ModelServer` was told to."""

    def __init__(
        self, answer: str | Answerer, models: tuple[str, ...], embed: Embedder | None, chunk_delay_s: float
    ) -> None:
        self.models, self.chunk_delay_s = models, chunk_delay_s
        self._answer: Answerer = (lambda _: answer) if isinstance(answer, str) else answer
        self._embed = embed

    def problem(self, received: Received) -> Delivery | None:
        """Why a request for an answer is a bad one."""
        field, body = _FIELDS.get(received.path), received.body
        if field is None:
            return rejection(404, f"Unknown request URL: {received.path}.", "unknown_url")
        if not isinstance(body.get("model"), str):
            return rejection(400, "you must provide a model parameter", None, param="model")
        if self.models and received.model not in self.models:
            return rejection(404, f"The model `{received.model}` does not exist.", "model_not_found")
        if not body.get(field) or not isinstance(body[field], list if field == "messages" else list | str):
            return rejection(400, f"Missing required parameter: '{field}'.", "missing_required_parameter", param=field)
        return None

    def answer(self, received: Received) -> Delivery:
        """The good answer to a good request; notes its usage."""
        try:
            return self._embeddings(received) if received.path == "/v1/embeddings" else self._chat(received)
        except Exception as error:  # noqa: BLE001 - the answer function is anyone's; a server reports, it does not die
            return rejection(500, f"the answer function raised {error!r}", "answer_failed")

    def listing(self) -> Delivery:
        names = [{"id": name, "object": "model", "created": 0, "owned_by": "chainops"} for name in self.models]
        return Delivery(200, "application/json", (json.dumps({"object": "list", "data": names}).encode(),))

    def _chat(self, received: Received) -> Delivery:
        answer = self._answer(received.body["messages"])
        reply: Message = {"content": answer} if isinstance(answer, str) else answer
        received.usage = usage_of(received.body["messages"], reply)
        pause_s = self.chunk_delay_s
        return chat_delivery(received.body, reply, number=received.number, at=received.at, chunk_delay_s=pause_s)

    def _embeddings(self, received: Received) -> Delivery:
        texts = _texts(received.body["input"])
        dimensions = int(received.body.get("dimensions") or 64)
        vectors = self._embed(texts) if self._embed else [hashed_vector(t, dimensions=dimensions) for t in texts]
        tokens = sum(map(count_tokens, texts))
        received.usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return embeddings_delivery(received.body, vectors, tokens)


_FIELDS = {"/v1/chat/completions": "messages", "/v1/embeddings": "input"}


def asked_tokens(received: Received) -> int:
    """What a good request may use at most: its prompt and its `max_tokens`."""
    body = received.body
    if received.path == "/v1/embeddings":
        return sum(map(count_tokens, _texts(body["input"])))
    most = body.get("max_completion_tokens") or body.get("max_tokens") or 0
    return sum(count_tokens(text_of(message)) for message in body["messages"]) + int(most)


def _texts(given: Any) -> list[str]:
    # Clients that tokenize first send lists of token numbers; those are words like any other here.
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in given]


def rejection(
    status: int, message: str, code: str | None, *, param: str | None = None, kind: str | None = None
) -> Delivery:
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    return Delivery(status, "application/json", (error_body(message, kind=kind, code=code, param=param),))
