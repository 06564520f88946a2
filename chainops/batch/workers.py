"""Work on many rows at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from chainops.batch.rows import Row


async def workers(count: int, rows: Iterator[Row], work: Callable[[Row], Any], is_stopping: Callable[[], bool]) -> None:
    """So many workers take one row after the other. The first that raises stops all, and its error is raised."""

    async def one() -> None:
        while not is_stopping() and (row := next(rows, None)) is not None:
            await work(row)

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
