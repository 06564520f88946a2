"""Hand a question to people and say so: a route for when no model can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from langchain_core.messages import AIMessage
from pydantic import Field

from chainops.core.component import Component
from chainops.core.errors import CallRefused, StoreError
from chainops.core.events import Attempted
from chainops.core.run import Run
from chainops.core.steps import Do, Plan, Say
from chainops.review.records import ReviewAsked, Reviews


class AskPeople(Component[Any, AIMessage]):
    """Keeps the question for people and answers with a fixed sentence, status `pending_review`.

    Raises:
        CallRefused: The question could not be kept, so nobody is told that it was; the next route may answer.
    """

    kind: ClassVar[str] = "review"
    answers_late: ClassVar[bool] = True

    reviews: Callable[[], Reviews]
    text: str = Field(min_length=1)
    """What the asker is told meanwhile."""

    def plan(self, value: Any, run: Run) -> Plan[AIMessage]:
        caller = run.caller
        if caller.purpose == "audit":  # nobody waits for that answer
            raise CallRefused("people", "not asked", "this question is asked only to check an answer")
        failed = [each.error for _, _, each in run.request.events if isinstance(each, Attempted) and each.error]
        reason = "; ".join(failed) or "nothing before it answered"
        question = dict(value) if isinstance(value, Mapping) else {"question": str(value)}

        def ask() -> str:
            who = {"user": caller.user, "tenant": caller.tenant}
            return self.reviews().ask(run.request.chain or "", question, reason=reason, at=run.clock.time(), **who)

        try:
            review_id = yield Do(ask)
        except StoreError as error:
            raise CallRefused("people", "review unreachable", str(error)) from error
        run.emit(ReviewAsked(review_id=review_id, reason=reason))
        run.stage.facts["review_id"] = review_id
        run.report.mark("pending_review", f"a person will answer: {review_id}")
        run.report.served_by = "a fixed sentence"
        run.report.may_cache = run.report.may_remember = False
        message = AIMessage(content=self.text)
        yield Say(message)
        return message
