"""An answer is an AIMessage that knows where it came from."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message

from chainops.core.errors import InvalidInput

KEY = "chainops"


class _Facts:
    """Properties that read `response_metadata["chainops"]`, shared by answers and chunks."""

    response_metadata: dict[str, Any]
    usage_metadata: Any

    @property
    def facts(self) -> dict[str, Any]:
        """Everything chainops says of this answer, as plain JSON; empty when nothing is known."""
        found = self.response_metadata.get(KEY)
        return found if isinstance(found, dict) else {}

    @property
    def status(self) -> str | None:
        """ok, cached, degraded, truncated, pending_review or refused; None in the middle of a stream."""
        return self.facts.get("status")

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What the text cites: `n`, `document`, `title`, `span` (characters of the document), `quote`."""
        return list(self.facts.get("sources", ()))

    @property
    def data(self) -> Any:
        """The parsed value, where the chain declares a schema."""
        return self.facts.get("data")

    @property
    def report(self) -> Any:
        """Stages, events, tokens and USD; draws itself in a notebook. None where it is not exposed."""
        from chainops.core.show import ShownReport

        told = self.facts.get("report")
        return None if told is None else ShownReport(told)

    @property
    def served_by(self) -> str | None:
        return self.facts.get("served_by")

    @property
    def reasons(self) -> list[str]:
        """Why the status is not `ok`."""
        return list(self.facts.get("reasons", ()))

    def _repr_html_(self) -> str:
        from chainops.core.show import answer_html

        return answer_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's text: what a terminal shows instead of the HTML."""
        from chainops.core.show import answer_text

        printer.text(type(self).__name__ + "(...)" if cycle else answer_text(self))


class Answer(_Facts, AIMessage):
    """What a chain returns. Serialises, merges and prints as the AIMessage it is."""

    @classmethod
    def of(cls, message: BaseMessage) -> Answer:
        """The same answer from a plain message, such as one that came back over the wire.

        Raises:
            InvalidInput: It is no AI message.
        """
        if isinstance(message, AIMessageChunk):
            message = message_chunk_to_message(message)
        if isinstance(message, Answer):
            return message
        if not isinstance(message, AIMessage):
            raise InvalidInput("message", type(message).__name__, "an AIMessage")
        return Answer(**{name: getattr(message, name) for name in message.model_fields_set if name != "type"})

    @classmethod
    def lc_id(cls) -> list[str]:
        return AIMessage.lc_id()


class AnswerChunk(Answer, AIMessageChunk):
    """A piece of a streamed answer. The last one carries the facts; all of them added up are the answer.

    LangChain turns a chunk into the class after it in the inheritance order: into an `Answer`.
    """

    type: Literal["AIMessageChunk"] = "AIMessageChunk"  # type: ignore[assignment]

    @property
    def restart(self) -> bool:
        """Whether all chunks before this one are void. Only callers that said `restarts=True` are sent such a chunk."""
        return bool(self.facts.get("restart"))

    @classmethod
    def lc_id(cls) -> list[str]:
        return AIMessageChunk.lc_id()


class RestartChunk(AnswerChunk):
    """Takes back all chunks before it: added to them, it is what is left."""

    @classmethod
    def new(cls) -> RestartChunk:
        return cls(content="", response_metadata={KEY: {"restart": True}})

    def __radd__(self, other: Any) -> Any:  # Python asks the subclass first
        return AnswerChunk(content="")
