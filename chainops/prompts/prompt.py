"""A prompt: messages with `{{variable}}` places, the same whether it came from a file or from the registry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from chainops.core.errors import ChainopsError, InvalidInput

if TYPE_CHECKING:
    from langchain_core.prompts import ChatPromptTemplate

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}", re.ASCII)
_LOOKS_LIKE_ONE = re.compile(r"\{\{.*?\}\}|\{\{|\{%", re.DOTALL)
_HISTORY = re.compile(r"\{\{\s*history\s*\}\}")
_KINDS: Mapping[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class PromptInvalid(ChainopsError, ValueError):
    """A prompt that cannot be used as it is written.

    Args:
        place: Where it stands: a file and line, or a name.
        problem: What is wrong there, with the words found.
        next_move: What to write instead.
    """

    def __init__(self, place: str, problem: str, next_move: str) -> None:
        self.place, self.problem, self.next_move = place, problem, next_move
        super().__init__(f"{place}: {problem}; {next_move}")


class PromptVariables(ChainopsError, ValueError):
    """A prompt was given other values than it has places for."""

    def __init__(self, prompt: str, missing: tuple[str, ...], extra: tuple[str, ...]) -> None:
        self.prompt, self.missing, self.extra = prompt, missing, extra
        parts = [f"no value for {', '.join(missing)}"] if missing else []
        if extra:
            parts.append(f"no place for {', '.join(extra)}")
        super().__init__(f"prompt {prompt!r}: {' and '.join(parts)}; render() takes exactly the prompt's variables")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages with places for values, and where they came from.

    Raises:
        PromptInvalid: no message, an empty one, an unknown role, a name that MLflow would refuse, or
            `{{...}}` that is not a plain variable (Jinja, an attribute).
    """

    name: str
    """Letters, digits, `.`, `_` and `-`."""
    messages: tuple[tuple[str, str], ...]
    """Pairs of role (`system`, `user`, `assistant`) and template. Blank lines around a template do not
    belong to it, and its line ends are `\\n`: the prompt then is the same in a file and in the registry."""
    version: int | None = None
    """The registry's version; None for a prompt that is not from there."""
    source: str = "python"
    """Where it was read: `file:...`, `prompts:/name/3`, or `python`."""
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    """`description`, and the tags; not part of what makes two prompts the same."""

    def __post_init__(self) -> None:
        place = self.source if self.source != "python" else f"prompt {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise PromptInvalid(place, f"{self.name!r} is no prompt name", "use letters, digits, '.', '_' and '-' only")
        messages = tuple((role, _normal(template)) for role, template in self.messages)
        if not messages:
            raise PromptInvalid(place, "it has no message", "write at least one")
        for number, (role, template) in enumerate(messages, 1):
            if role not in ROLES:
                raise PromptInvalid(place, f"message {number} has the role {role!r}", f"use one of {', '.join(ROLES)}")
            if not template.strip():
                raise PromptInvalid(place, f"message {number} ({role}) is empty", "write its text or remove it")
            if odd := odd_place(template):
                raise PromptInvalid(place, f"message {number} ({role}) has {odd[1]!r}", HOW_TO_WRITE_A_PLACE)
        object.__setattr__(self, "messages", messages)

    @property
    def variables(self) -> frozenset[str]:
        """Names that stand in `{{...}}`."""
        return frozenset(found for _, template in self.messages for found in _VARIABLE.findall(template))

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of roles and templates: equal digests mean the same prompt, whatever its name."""
        return hashlib.sha256(json.dumps(self.messages, ensure_ascii=False).encode()).hexdigest()

    def render(self, **values: Any) -> list[BaseMessage]:
        """The messages with every place filled in, in one pass: `{{x}}` inside a value stays text.

        Args:
            **values: One for each variable. `history` may be a list of `{"role": ..., "text": ...}`
                where a message consists of `{{history}}` alone: its messages then stand there.

        Raises:
            PromptVariables: values are missing or have no place.
            InvalidInput: a list for a `history` that stands inside other text, or one with unknown roles.
        """
        missing, extra = self.variables - values.keys(), values.keys() - self.variables
        if missing or extra:
            raise PromptVariables(self.name, tuple(sorted(missing)), tuple(sorted(extra)))
        history = values.get("history")
        rendered: list[BaseMessage] = []
        for role, template in self.messages:
            if isinstance(history, list | tuple):
                if _HISTORY.fullmatch(template):
                    rendered += [_past(turn) for turn in history]
                    continue
                if _HISTORY.search(template):
                    raise InvalidInput("history", "a list", "text, since {{history}} stands inside other text")
            text = _VARIABLE.sub(lambda place: str(values[place[1]]), template)
            rendered.append(_KINDS[role](content=text))
        return rendered

    def to_langchain(self) -> ChatPromptTemplate:
        """The same prompt for a LangChain chain; braces that are not places are kept as they are.

        A message that is `{{history}}` alone becomes a `MessagesPlaceholder("history")`.
        """
        from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

        return ChatPromptTemplate.from_messages(
            [
                MessagesPlaceholder("history")
                if _HISTORY.fullmatch(template)
                else ({"user": "human", "assistant": "ai"}.get(role, role), _to_fstring(template))
                for role, template in self.messages
            ]
        )


HOW_TO_WRITE_A_PLACE = "a place for a value is {{name}}: letters, digits and '_'; no Jinja, no attributes"


def odd_place(text: str) -> tuple[int, str] | None:
    """The first thing in a template that looks like a place for a value and is none: its position and text."""
    for found in _LOOKS_LIKE_ONE.finditer(text):
        if not _VARIABLE.fullmatch(found[0]):
            return found.start(), found[0][:60]
    return None


def _normal(template: str) -> str:
    return re.sub(r"\A(?:[ \t]*\n)+|(?:\n[ \t]*)+\Z", "", template.replace("\r\n", "\n").replace("\r", "\n"))


def _past(turn: Any) -> BaseMessage:
    if isinstance(turn, BaseMessage):
        return turn
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES or not isinstance(turn.get("text"), str):
        raise InvalidInput("history", repr(turn)[:80], f"{{'role': one of {', '.join(ROLES)}, 'text': str}}")
    return _KINDS[turn["role"]](content=turn["text"])


def _to_fstring(template: str) -> str:
    parts = _VARIABLE.split(template)
    return "".join(
        f"{{{part}}}" if number % 2 else part.replace("{", "{{").replace("}", "}}") for number, part in enumerate(parts)
    )
