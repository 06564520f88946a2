"""How long a request may take, and its stages."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from chainops.core.component import AnyRunnable, Component
from chainops.core.run import Run
from chainops.core.settings import Seconds, Settings
from chainops.core.steps import Forward, Plan

Stage = Literal["retrieve", "rerank", "attempt"]
"""What may have a share: finding passages, choosing among them, and each call to a model."""


class DeadlineSettings(Settings):
    """What a chain file may say about time. `deadline: 8s` means `deadline: {within_s: 8}`."""

    within_s: Seconds
    """From here until the whole answer. A caller's own deadline counts too: the nearer one."""
    shares: dict[Stage, float] = Field(default_factory=dict)
    """Share of it, 0 to 1, that a stage may take. Retrieval that took longer is not reranked; reranking that does
    gives the passages chosen by then; a call to a model is given up, and the next route has what is left."""

    @model_validator(mode="after")
    def _are_shares(self) -> DeadlineSettings:
        for stage, share in self.shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"expected a share of {stage} above 0 and up to 1, such as 0.5")
        return self


class Deadline(Component[Any, Any]):
    """Gives what is inside at most `within_s`, and its stages their shares of that.

    Raises:
        DeadlineExceeded: Nothing further in could still answer.
    """

    kind: ClassVar[str] = "deadline"

    inner: AnyRunnable
    within_s: float = Field(gt=0)
    shares: dict[Stage, float] = Field(default_factory=dict)

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        run.limit_time(self.within_s, {stage: share * self.within_s for stage, share in self.shares.items()})
        return (yield Forward(self.inner, value, kwargs=run.kwargs))
