"""Do not ask a route that is known to be broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import PrivateAttr

from chainops.core.component import AnyRunnable, Component
from chainops.core.errors import AllRoutesFailed, DeadlineExceeded
from chainops.core.run import Run
from chainops.core.steps import Forward, Plan
from chainops.models.failures import Failure
from chainops.resilience.breaker import policy
from chainops.resilience.breaker.circuit import Circuit
from chainops.resilience.breaker.policy import BreakerSettings
from chainops.resilience.breaker.records import CircuitOpen, Circuits
from chainops.resilience.policy import judge


class Breaker(Component[Any, Any]):
    """Passes calls on to `inner` until it has failed too often; then refuses them at once for a while.

    After that exactly one call at a time, over all processes that share the store, tries it again: when it succeeds
    all are let through, when it fails they are refused for twice as long. A stream that is cut after its first words
    is a failure. What says nothing about the route (a wrong request, a bug, a caller who hangs up, a limit or budget
    further in) is no failure and no success.

    Raises:
        CircuitOpen: The route was not asked. Another may be.
    """

    kind: ClassVar[str] = "breaker"

    inner: AnyRunnable
    settings: BreakerSettings = BreakerSettings()
    store: Callable[[], Circuits] | None = None
    """Opens what processes share; None: this process alone."""
    circuit: Circuit | None = None
    """One that several breakers share, such as those of one model in several places; None: its own, by `name`."""

    _circuit: Circuit = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        name = self.name or self.inner.get_name()
        self._circuit = self.circuit or Circuit(name, self.settings, self.store)

    def plan(self, value: Any, run: Run) -> Plan[Any]:
        circuit = self._circuit
        try:
            token = yield from circuit.admit(run)
        except CircuitOpen as refusal:
            run.stage.facts |= {"circuit": "open", "because": f"{refusal.failure}: {refusal.because}"}
            raise
        if token is not None:
            run.stage.facts["circuit"] = "probe"
        began = run.clock.monotonic()
        try:
            answer = yield Forward(self.inner, value, kwargs=run.kwargs)
        except Exception as error:
            circuit.failed(run, token, self._judged(error, run.clock.monotonic() - began))
            raise
        except BaseException:  # the caller went away
            circuit.released(token)
            raise
        if run.report.status == "cached":
            circuit.released(token)  # the route was not asked
        else:
            circuit.succeeded(run, token)
        return answer

    def _judged(self, error: Exception, duration_s: float) -> Failure:
        while isinstance(error, AllRoutesFailed) and error.failures:
            error = error.failures[-1][1]
        if isinstance(error, DeadlineExceeded) and duration_s >= self._circuit.settings.slow_s:
            return Failure("retryable", "timeout", detail=str(error))
        return judge(error)

    def state(self, now: float) -> policy.State:
        """Where it stands at a time, in seconds since 1970, as far as this process knows."""
        return policy.state(self._circuit.route, now, self._circuit.settings)
