"""Browse a cache in a notebook: its entries, why a question would be served, and the error estimate as it moves."""

from __future__ import annotations

import functools
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from chainops.cache.cache import Cache
from chainops.core.extras import require
from chainops.core.show import BOX, DIM, LINE
from chainops.widgets.cache_desk import CacheDesk

if TYPE_CHECKING:
    from chainops.spec.chain import Chain

SNAPSHOT_ROWS = 20
"""Entries that are shown where no widget can run."""
_HEADS = ("question", "answer", "age", "served", "saved", "tenant")


class CacheBrowser:
    """A chain's cache, to look into and to correct, in a notebook cell.

    Entries with search, answer, sources and `wrong`, `verify`, `drop`; a question to try, with the reasons of the
    decision; the measured error against its bound. Everything can be done with the keyboard: `?` lists the keys.

    Where no widget can run (a saved notebook, an export, a terminal) it shows the statistics and the latest entries.

    Args:
        chain: A chain that declares a cache, or a `Cache`.
        config: Who looks, from `chainops.caller(...)`: questions are tried on this caller's behalf.

    Raises:
        MissingExtra: anywidget is not installed.
        InvalidInput: The chain declares no cache.
    """

    def __init__(self, chain: Chain | Cache, *, config: RunnableConfig | None = None) -> None:
        require("anywidget", extra="notebook")
        if isinstance(chain, Cache):
            self.desk, title = CacheDesk(chain, config=config), "Cache"
        else:
            self.desk = CacheDesk(chain.cache, config=config, prepare=lambda: _make_ready(chain))
            title = f"Cache of {chain.declared.name}"
        self.widget = _widget_class()(title=title)
        """The widget itself, to lay out among others."""
        self.widget.on_msg(self._hear)

    def _hear(self, widget: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002
        widget.send(self.desk.answer(message if isinstance(message, dict) else {}))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.widget._repr_mimebundle_(**kwargs)
        return data | {"text/html": self._snapshot_html(), "text/plain": str(self)}, metadata

    def __repr__(self) -> str:
        return f"CacheBrowser({self.widget.title!r})"

    def __str__(self) -> str:
        rows = self.desk.latest(SNAPSHOT_ROWS)
        lines = [str(self.desk.cache.stats()), ""]
        lines += [f"{row['age']:>7}  served {row['served']:>4}  {row['question'][:80]}" for row in rows]
        return "\n".join(lines)

    def _snapshot_html(self) -> str:
        cell = f"padding:1px 10px 1px 0;text-align:left;vertical-align:top;border-bottom:1px solid {LINE}"
        head = "".join(f'<th style="{cell};{DIM};font-weight:normal">{name}</th>' for name in _HEADS)
        body = "".join(
            "<tr>" + "".join(f'<td style="{cell}">{escape(str(row[name])[:120])}</td>' for name in _HEADS) + "</tr>"
            for row in self.desk.latest(SNAPSHOT_ROWS)
        )
        return (
            f'<div style="{BOX}"><b>{escape(self.widget.title)}</b>{self.desk.cache.stats()._repr_html_()}'
            f'<table style="border-collapse:collapse;margin:6px 0"><tr>{head}</tr>{body}</table></div>'
        )


def _make_ready(chain: Chain) -> None:
    """Have the documents read in, as a question would: the cache decides by what would be retrieved."""
    if chain.declared.knowledge is not None:
        chain.site.ready(chain)


SCRIPTS = ("cache_parts.js", "cache_list.js", "cache_detail.js", "cache_trying.js", "cache.js")
"""The widget's module is these files one after another: a notebook cannot load modules that import each other."""


def script() -> str:
    """The widget's ES module."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


@functools.cache
def _widget_class() -> Any:
    """Made when the first is shown: anywidget is an extra."""
    import anywidget
    import traitlets

    class CacheWidget(anywidget.AnyWidget):
        _esm = script()
        _css = (Path(__file__).parent / "cache.css").read_text(encoding="utf-8")
        # What the person was looking at is kept here, so that a page that is opened again shows it again.
        title = traitlets.Unicode("").tag(sync=True)
        containing = traitlets.Unicode("").tag(sync=True)
        selected = traitlets.Unicode("").tag(sync=True)
        question = traitlets.Unicode("").tag(sync=True)
        tenant = traitlets.Unicode("").tag(sync=True)

    return CacheWidget
