"""What a chain file may say about a router. What it means is in `routing.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from chainops.core.settings import Seconds, Settings
from chainops.resilience.component import ChainRoute, name_of
from chainops.routing.records import Judge

By = Literal["meaning", "complexity", "confidence", "cost", "latency", "weight"]


To = Annotated[
    Annotated[str, Tag("model")] | Annotated[ChainRoute, Tag("chain")],
    Discriminator(lambda value: "model" if isinstance(value, str) else "chain"),
]
"""A model's name: the rest of the chain, answered by that model. Or `{chain: other.yaml}`."""

_NEEDED: dict[str, tuple[str, ...]] = {
    "meaning": ("examples", "routes"),
    "complexity": ("simple", "complex"),
    "confidence": ("try", "then"),
    "cost": ("among",),
    "latency": ("among",),
    "weight": ("weights",),
}
_ALSO: dict[str, tuple[str, ...]] = {
    "meaning": ("none", "false_rejects"),
    "complexity": ("above", "topic"),
    "confidence": ("at_least", "judge", "samples"),
    "cost": ("max_s", "explore"),
    "latency": ("max_s", "explore"),
    "weight": ("routes", "per", "experiment"),
}


class RouteSettings(Settings):
    """What a chain file may say about a router. Which words it takes beside `by` depends on that."""

    model_config = ConfigDict(serialize_by_alias=True)  # `try` is no name for a field

    by: By
    """`meaning`: examples, routes, none. `complexity`: simple, complex, above. `confidence`: try, then, at_least.
    `cost`, `latency`: among, max_s. `weight`: weights, per."""
    examples: dict[str, tuple[str, ...]] | str | None = None
    """meaning: what people ask, by route; `none` for what belongs to no route. Or a file with `route` and `text`, from
    the folder of the chain file: JSON lines or CSV."""
    routes: dict[str, To] | None = None
    """meaning, weight: who answers, by route."""
    none: To | None = None
    """meaning: who answers what belongs to no route; nothing: such a question is an error."""
    false_rejects: float = Field(default=0.025, gt=0, lt=0.5)
    """meaning: the share of the examples that may look as if they belonged to no route."""
    simple: To | None = None
    """complexity: who answers simple questions."""
    complex: To | None = None
    """complexity: who answers the others."""
    above: float = Field(default=0.3, ge=0, le=1)
    """complexity: level from which a question is complex; `chainops route explain` shows it."""
    topic: bool = False
    """complexity: whether what the question is about counts too; needs `embeddings: minilm`, and its time."""
    first: To | None = Field(default=None, alias="try")
    """confidence (`try`): who is asked first."""
    then: To | None = None
    """confidence: who is asked when that answer cannot be relied on."""
    at_least: float = Field(default=0.7, ge=0, le=1)
    """confidence: score from which the first answer is said."""
    judge: Judge = "auto"
    """confidence: what the first answer is judged by."""
    samples: int = Field(default=2, ge=1, le=10)
    """confidence: how often the first is asked again, where agreement is what counts."""
    among: tuple[To, ...] | None = None
    """cost, latency: the routes."""
    max_s: Seconds | None = None
    """cost, latency: routes whose p95 is above are left out."""
    explore: float = Field(default=0.05, ge=0, le=1)
    """cost, latency: the share of requests that try another route."""
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """weight: the share of each route; a model's name, unless `routes` says who it is."""
    per: Literal["user", "session"] = "user"
    """weight: what stays on one route."""
    experiment: str | None = None
    """weight: its name; another name divides the same users anew. Nothing: the chain's name."""

    @model_validator(mode="before")
    @classmethod
    def _is_none_said(cls, value: Any) -> Any:
        """`none: null` is what YAML makes of an empty word: the same as leaving it out."""
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fits(self) -> RouteSettings:
        said = {"try" if name == "first" else name for name in self.model_fields_set} - {"by"}
        needed, also = _NEEDED[self.by], _ALSO[self.by]
        missing = [name for name in needed if name not in said]
        if missing:
            raise ValueError(f"by: {self.by} needs {_quoted(missing)}")
        if odd := sorted(said - {*needed, *also}):
            raise ValueError(f"by: {self.by} takes {_quoted([*needed, *also])}, not {_quoted(odd)}")
        return self._names_fit()

    def _names_fit(self) -> RouteSettings:
        if self.by == "weight" and not sum((self.weights or {}).values()) > 0:
            raise ValueError("expected a weight above 0")
        if (
            self.by == "weight"
            and self.routes is not None
            and (odd := sorted({*self.routes} ^ {*(self.weights or {})}))
        ):
            raise ValueError(f"expected the same names in `weights` and `routes`: {_quoted(odd)} is only in one")
        if self.by == "meaning" and isinstance(self.examples, dict):
            same_names(self.examples, self.routes or {})
        if self.among is not None and len(self.named()) < 2:
            raise ValueError("expected two routes at least in `among`")
        return self

    def named(self) -> dict[str, str | ChainRoute]:
        """Who answers, by the name that reports use."""
        if self.by == "meaning":
            return dict(self.routes or {})
        if self.by == "weight":
            return dict(self.routes) if self.routes is not None else {name: name for name in self.weights or ()}
        if self.by == "complexity":
            told: Iterable[str | ChainRoute | None] = (self.simple, self.complex)
        else:
            told = self.among or (self.first, self.then)
        return {name_of(each): each for each in told if each is not None}


Named = Iterable[tuple[tuple[str | int, ...], str]]


def models_named(settings: RouteSettings) -> Named:
    """The models it names, each with its path inside the settings."""
    for where, to in _told(settings):
        if isinstance(to, str):
            yield where, to
    if settings.routes is None:
        for name in settings.weights or ():
            yield ("weights", name), name


def chains_named(settings: RouteSettings) -> Named:
    """The chain files it names as routes, likewise."""
    for where, to in _told(settings):
        if isinstance(to, ChainRoute):
            yield (*where, "chain"), to.chain


def _told(settings: RouteSettings) -> Iterable[tuple[tuple[str | int, ...], str | ChainRoute]]:
    """Who answers, as the file has it."""
    for word in ("none", "simple", "complex", "then"):
        if (to := getattr(settings, word)) is not None:
            yield (word,), to
    if settings.first is not None:
        yield ("try",), settings.first
    for name, to in (settings.routes or {}).items():
        yield ("routes", name), to
    for position, to in enumerate(settings.among or ()):
        yield ("among", position), to


def files_named(settings: RouteSettings) -> Named:
    """The file of examples, where there is one."""
    if isinstance(settings.examples, str):
        yield ("examples",), settings.examples


def same_names(examples: Iterable[str], routes: Iterable[str]) -> None:
    odd = sorted(({*examples} - {"none"}) ^ {*routes})
    if odd:
        raise ValueError(f"expected the same names in `examples` and `routes`: {_quoted(odd)} is only in one")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
