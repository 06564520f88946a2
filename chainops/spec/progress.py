"""Progress of long work, drawn where somebody can see it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from chainops.core.show import BOX, DIM, LINE

REDRAW_S = 0.1
"""A notebook's bar is drawn again at most this often, in seconds."""


@contextmanager
def shown_progress(title: str, *, always: bool = False) -> Iterator[Callable[[Any], None]]:
    """A progress bar for steps that have `done`, `total` and `what`; silent where nobody looks.

    Args:
        always: Draw it even when the output is no terminal (rich then prints the finished bar only).
    """
    if _in_notebook():
        bar = NotebookBar(title)
        try:
            yield bar.show
        finally:
            bar.close()
    elif always or (sys.stderr is not None and sys.stderr.isatty()):
        with _terminal(title) as show:
            yield show
    else:
        yield lambda _: None


def _in_notebook() -> bool:
    """Whether this runs in a kernel. That ipykernel is imported does not say so: other programs import it too."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


@contextmanager
def _terminal(title: str) -> Iterator[Callable[[Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, what="")

        def show(step: Any) -> None:
            bar.update(task, completed=step.done, total=step.total, what=str(step.what)[:40])

        yield show


class NotebookBar:
    """A bar of plain HTML: a saved notebook keeps the finished one, and no widget is needed."""

    def __init__(self, title: str) -> None:
        from IPython.display import display

        self._title, self._began, self._drawn = title, time.monotonic(), 0.0
        self._step: Any = None
        self._handle: Any = display(self, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]

    def show(self, step: Any) -> None:
        self._step = step
        now = time.monotonic()
        if now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._handle.update(self)

    def close(self) -> None:
        self._handle.update(self)

    def _parts(self) -> tuple[int, int, str]:
        step = self._step
        return (0, 0, "") if step is None else (step.done, step.total or 0, str(step.what)[:40])

    def __repr__(self) -> str:
        done, total, _ = self._parts()
        return f"{self._title}: {done} of {total}, {time.monotonic() - self._began:.1f} s"

    def _repr_html_(self) -> str:
        done, total, what = self._parts()
        share = min(1.0, done / total) if total else 0.0
        doing = f" {escape(what)}" if share < 1 else ""
        return (
            f'<div style="{BOX};display:flex;gap:10px;align-items:center"><span>{escape(self._title)}</span>'
            f'<div style="width:220px;height:9px;border-radius:3px;background:{LINE}"><div style="width:{share:.1%};'
            f'height:9px;border-radius:3px;background:#2e8b57"></div></div><span style="{DIM}">{done} of {total}, '
            f"{time.monotonic() - self._began:.1f} s{doing}</span></div>"
        )
