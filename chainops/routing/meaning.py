"""Choose the route whose examples a question is like, or none of them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chainops.core.errors import StoreUnavailable
from chainops.core.lazy import Lazy
from chainops.routing.examples import Examples, checked, flat
from chainops.routing.records import Asking, Choice
from chainops.stores.index_file import replacing
from chainops.text.nearest import Nearest
from chainops.text.nearest_fit import Validation, fit

if TYPE_CHECKING:
    import numpy as np

_VERSION = 1
"""Of the method: another one fits anew."""
_BATCH = 256


class Embeds(Protocol):
    """As `models.embeddings.Embedder`."""

    @property
    def digest(self) -> str: ...

    def embed(self, texts: list[str]) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learnt from the examples."""

    nearest: Nearest
    validation: Validation
    is_new: bool
    """Fitted now, not read from the file."""
    not_kept: str | None = None
    """Why the fit could not be written to its file."""


class Meaning:
    """Nearest examples, a linear head and fitted thresholds: see `text/nearest.py`.

    Fitted at the first question, or before by `fitted()`; the fit is kept in `path` and made anew when the examples
    or the embedding model change.

    Args:
        embedder: Opened at the first question.
        examples: By route; None for examples of what belongs to none.
        path: Where the fit is kept; None: in memory only.
        false_rejects: Share of questions that do belong to a route and may go to the default all the same, as
            cross-validation on the examples sees it. Real questions are less like the examples than these are like
            each other: about twice as many are turned away.

    Raises:
        BadExamples: See `routing.examples.checked`.
    """

    by = "meaning"
    is_slow = True

    def __init__(
        self,
        embedder: Callable[[], Embeds],
        examples: Mapping[str | None, Iterable[str]],
        *,
        path: Path | None = None,
        false_rejects: float = 0.025,
    ) -> None:
        self.examples: Examples = checked(examples)
        self.false_rejects = false_rejects
        self._embedder, self._path = embedder, path
        self._texts, self._routes = flat(self.examples)
        self.fitted: Callable[[], Fitted] = Lazy(self._fitted)
        """Read or made once; blocks."""

    @property
    def names(self) -> Iterable[str]:
        return [route for route in self.examples if route is not None]

    def prepare(self, question: str) -> np.ndarray:
        self.fitted()
        row: np.ndarray = self._embedder().embed([question])[0]
        return row

    def choose(self, asking: Asking) -> Choice:
        fitted = self.fitted()
        decision = fitted.nearest.decide(asking.prepared)
        facts = {} if fitted.not_kept is None else {"fit_not_kept": fitted.not_kept}
        best, *others = decision.likest
        runners_up: dict[str, float | None] = {each.group or "none": round(each.score, 3) for each in others[:3]}
        like = f'like "{_short(self._texts[best.example])}" (cosine {best.similarity:.2f})'
        if decision.group is not None:
            why = f"{like}: {best.score:.1f}, its threshold is {best.threshold:.1f}"
            return Choice(decision.group, why, round(best.score, 3), runners_up, facts)
        if not best.group:
            return Choice(
                None, f"{like}, an example of what belongs to no route", round(best.score, 3), runners_up, facts
            )
        why = f"nothing is near enough: {best.group} comes first with {best.score:.1f}, below {best.threshold:.1f}"
        return Choice(None, why, round(best.score, 3), {best.group: round(best.score, 3), **runners_up}, facts)

    def learn(self, route: str, duration_s: float | None) -> None:
        """Nothing: the examples decide."""

    @property
    def digest(self) -> str:
        """Of all that a fit comes from."""
        told = [_VERSION, self._texts, self._routes, self.false_rejects, self._embedder().digest]
        return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()

    def _fitted(self) -> Fitted:
        import numpy as np

        digest = self.digest
        kept = None if self._path is None else _read(self._path, digest)
        if kept is not None:
            return kept
        embedder = self._embedder()
        some = (self._texts[at : at + _BATCH] for at in range(0, len(self._texts), _BATCH))
        vectors = np.concatenate([embedder.embed(each) for each in some])
        nearest, validation = fit(vectors, self._routes, false_rejects=self.false_rejects)
        not_kept = None
        if self._path is not None:
            try:
                _write(self._path, digest, nearest, validation)
            except StoreUnavailable as error:  # it is derived: made again by the next process
                not_kept = str(error)
        return Fitted(nearest, validation, is_new=True, not_kept=not_kept)


def _write(path: Path, digest: str, nearest: Nearest, validation: Validation) -> None:
    import numpy as np

    told = np.array(json.dumps(asdict(validation)))
    with replacing(path) as file:
        np.savez(file, digest=np.array(digest), validation=told, **nearest.arrays())


def _read(path: Path, digest: str) -> Fitted | None:
    """The fit of these examples; None where there is none, or what is there is of others or broken: it is made anew."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["digest"]) != digest:
                return None
            validation = _validation(json.loads(str(arrays["validation"])))
            return Fitted(Nearest.of_arrays(arrays), validation, is_new=False)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _validation(told: dict[str, Any]) -> Validation:
    by_group = {name: (int(n), float(right), float(lost)) for name, (n, right, lost) in told.pop("by_group").items()}
    confusions = tuple((str(was), str(now), int(count)) for was, now, count in told.pop("confusions"))
    return Validation(by_group=by_group, confusions=confusions, **told)


def _short(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 60 else folded[:57] + "..."
