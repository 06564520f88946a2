"""How a chain draws itself: its onion, models and versions."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from chainops.core.show import BOX, DIM, LINE
from chainops.spec.registry import wrapper

if TYPE_CHECKING:
    from chainops.spec.chain import Chain

_EDGE = f"border:1px solid {LINE};border-radius:6px;padding:5px 10px;margin:4px 0"


def _worded(name: str, value: Any) -> str:
    """A setting as a chain file would say it: `24h`, not 86400.0."""
    if isinstance(value, float) and (name in ("ttl", "after") or name.endswith("_s")):
        for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
            if value > length and value % length == 0:
                return f"{value / length:.0f}{unit}"
        return f"{value:g}s"
    if isinstance(value, dict):
        return f"({', '.join(f'{each} {_worded(each, inner)}' for each, inner in value.items())})"
    if isinstance(value, list):
        return f"({', '.join(_worded('', each) for each in value)})"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _said(settings: Any) -> str:
    told = settings.model_dump(mode="json", exclude_unset=True)
    routes = [" → ".join(map(_route, told.pop("routes")))] if isinstance(told.get("routes"), list) else []
    said = [f"{name} {_worded(name, value)}" for name, value in told.items() if value is not None]
    return ", ".join(routes + said)


def _route(route: Any) -> str:
    """A route as people say it: a model's name, `say “…”`, `chain other.yaml`."""
    if isinstance(route, str):
        return route
    ((word, value),) = route.items()
    return word if value is True else f"{word} {value}" if word == "chain" else f"{word} “{value}”"


def _whence(chain: Chain) -> str:
    """Where the prompt came from, as the chain file says it: a drawing is shared, and folders are nobody's business."""
    return chain.declared.prompt or f"the {chain.declared.kind} prompt of chainops"


def _layers(chain: Chain) -> list[tuple[str, str, str]]:
    """Word, settings and meaning of each layer, from the outside in."""
    declared = chain.declared
    layers = []
    if declared.memory is not None or declared.kind == "chat":
        window = declared.memory.window if declared.memory else "default"
        layers.append(("memory", f"window {window}", "continues the caller's session"))
    for entry in declared.pipeline:
        known = wrapper(entry.word)
        layers.append((entry.word, _said(entry.settings), known.says if known else ""))
    if declared.knowledge is not None:
        knowledge = declared.knowledge
        documents = ", ".join(knowledge.documents) or "Python objects"
        layers.append(
            (
                "retrieve",
                f"{documents}: {knowledge.retrieve} looked at, {knowledge.rerank} read",
                "by meaning and by words",
            )
        )
    prompt = chain.site.prompt
    version = f"version {prompt.version}" if prompt.version else prompt.digest[:12]
    layers.append(("prompt", f"{prompt.name}, {version}", _whence(chain)))
    models = ", ".join(f"{name}: {settings.model}" for name, settings in declared.models.items())
    layers.append(("models", models, "the first answers where nothing else is said"))
    return layers


def chain_text(chain: Chain) -> str:
    """The onion as indented lines."""
    declared = chain.declared
    lines = [f"{declared.name} ({declared.kind}) {declared.description}".rstrip()]
    for depth, (word, said, _) in enumerate(_layers(chain)):
        lines.append(f"{'  ' * (depth + 1)}└ {word}: {said}")
    return "\n".join(lines)


def chain_html(chain: Chain) -> str:
    """The onion as nested boxes; no script, readable in light and dark."""
    declared = chain.declared
    drawn = ""
    for word, said, meaning in reversed(_layers(chain)):
        drawn = (
            f'<div style="{_EDGE}"><b>{escape(word)}</b> {escape(said)} '
            f'<span style="{DIM}">{escape(meaning)}</span>{drawn}</div>'
        )
    return (
        f'<div style="{BOX};max-width:900px"><b style="font-size:15px">{escape(declared.name)}</b> '
        f'<span style="{DIM}">{escape(declared.kind)} {escape(declared.description)}</span>{drawn}</div>'
    )
