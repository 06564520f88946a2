"""The innermost part of a chain: retrieve, prompt, ask, cite."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.messages import AIMessage

from chainops.core.component import AnyRunnable, Component
from chainops.core.run import Run
from chainops.core.steps import Ask, Do, Forward, Plan, Say
from chainops.knowledge.component import Passages
from chainops.prompts.prompt import Prompt
from chainops.spec.cite import cite
from chainops.text.passages import NO_ANSWER, PromptPassage, render_passages


class Rag(Component[dict[str, Any], AIMessage]):
    """Answers a question from the passages that retrieval finds.

    Retrieval runs once per request, however many models are tried. Nothing found is said, not
    invented: the answer is then `NO_ANSWER`, without asking a model. Sources are what the text cites.
    """

    kind: ClassVar[str] = "rag"

    retrieve: AnyRunnable
    prompt: Prompt
    model: AnyRunnable

    def plan(self, value: dict[str, Any], run: Run) -> Plan[AIMessage]:
        key = (id(self.retrieve), value["question"])
        found: Passages | None = run.request.memo.get(key)
        # What another model had said counts the same passages only where they were found for both.
        said = run.terms.continues if found is not None else None
        if found is None:
            found = yield Ask(self.retrieve, value["question"])
            run.request.memo[key] = found
        run.report.uses |= found.uses()
        run.report.used("prompt", self.prompt.name, self.prompt.digest)
        if not found.passages:
            run.report.served_by = "nothing retrieved"
            run.report.reasons.append("no passage was found")
            run.report.is_unknown = True
            message = AIMessage(content=NO_ANSWER)
            yield Say(message)
            return message
        shown = [
            PromptPassage(number, passage.title, passage.text) for number, passage in enumerate(found.passages, start=1)
        ]
        messages = self.prompt.render(**_variables(self.prompt, value, context=render_passages(shown)))
        answer: AIMessage = yield Forward(self.model, messages, kwargs=run.kwargs)
        text = f"{said or ''}{answer.text}"
        run.report.sources = yield Do(lambda: cite(text, found.passages))
        run.report.uses |= found.uses([source["n"] for source in run.report.sources])
        run.stage.facts["cited"] = len(run.report.sources)
        if not run.report.sources:
            run.report.reasons.append("no passage is cited: the documents may not answer this")
            run.report.is_unknown = True  # nothing supports it, or it does not know
        return answer


class Chat(Component[dict[str, Any], AIMessage]):
    """Answers a question in its conversation."""

    kind: ClassVar[str] = "chat"

    prompt: Prompt
    model: AnyRunnable

    def plan(self, value: dict[str, Any], run: Run) -> Plan[AIMessage]:
        run.report.used("prompt", self.prompt.name, self.prompt.digest)
        messages = self.prompt.render(**_variables(self.prompt, value))
        answer: AIMessage = yield Forward(self.model, messages, kwargs=run.kwargs)
        return answer


def _variables(prompt: Prompt, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the prompt asks for, out of the request; a prompt need not use everything."""
    offered = {"history": [], **value, **more}
    return {name: each for name, each in offered.items() if name in prompt.variables}
