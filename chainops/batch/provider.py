"""Hand the model's calls of many rows to OpenAI's batch API, and collect them, across crashes.

A part of the rows is one batch there. The journal notes each step of a part before the next is made: the part, its
file, its batch, that it was collected. What was made and not yet noted when a process died is found again at the
provider: files by their name, batches by their metadata, so that nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chainops.batch.openai_api import ENDED, OpenAIApi, OpenAIBatch
from chainops.batch.parts import Part, parts_of
from chainops.batch.records import answered, failed
from chainops.batch.rows import Row
from chainops.batch.workers import workers
from chainops.core.answer import Answer
from chainops.core.errors import InvalidInput
from chainops.spec.chain import Chain
from chainops.spec.rendering import Given, Rendering, digest_of

if TYPE_CHECKING:
    from chainops.batch.running import Runner


class ProviderRun:
    """Asks all rows of one run through the provider.

    Raises:
        InvalidInput: The chain's model has no such API, or its wrappers do not allow it.
    """

    def __init__(self, chain: Chain, settings: OpenAIBatch, *, skip_wrappers: bool) -> None:
        self.settings = settings
        self.rendering = Rendering(chain, skip_wrappers=skip_wrappers)
        self.model = self.rendering.model
        if not self.model.model.startswith("openai:"):
            expected = "a chain whose first model is openai:..."
            raise InvalidInput("--via openai-batch", f"the model {self.model.model!r}", expected)
        self._run: Runner
        self._api: OpenAIApi
        self.parts: list[Part] = []

    async def ask_all(self, run: Runner) -> None:
        if run.source.digest is None:
            raise InvalidInput("rows", "objects that can be read once only", "a file or a list: they are read again")
        self._run = run
        chat = await asyncio.to_thread(self.model.chat)
        self._api = OpenAIApi(self.model.model, chat, self.settings, run.journal.run)
        run.notes.append(
            f"asked {self.model.model} through OpenAI's batch API at {self.settings.price_share:.0%} of the price"
        )
        self.parts = parts_of(run.journal.notes)
        for part in self.open:
            if part.batch is None:
                await self._take_up(part)
        await self._plan()
        await self._poll()

    @property
    def open(self) -> list[Part]:
        return [part for part in self.parts if not part.is_collected]

    # From rows to batches

    async def _plan(self) -> None:
        """Make parts of the rows that are wanted and in no open part, and submit each when it is full."""
        taken = list(self.open)  # as of now: what is planned below lies behind

        def is_free(row: int) -> bool:
            return self._run.wants(row) and not any(part.holds(row) for part in taken)

        rows = (row for row in self._run.rows() if is_free(row.number))
        path = self._beside("requests")
        with path.open("w+b") as file:
            count, first, last = 0, 0, 0
            async for row, line in self._rendered(rows):
                is_full = (
                    count >= self.settings.rows_per_batch or file.tell() + len(line) > self.settings.bytes_per_batch
                )
                if count and (is_full or any(last < part.first < row.number for part in taken)):
                    await self._submit(self._new_part(first, last), file)
                    count = 0
                first, last, count = (row.number if count == 0 else first), row.number, count + 1
                file.write(line)
                self._told(f"{last:,} rows rendered")
            if count:
                await self._submit(self._new_part(first, last), file)
        path.unlink()

    def _new_part(self, first: int, last: int) -> Part:
        part = Part(len(self.parts) + 1, first, last, time.time())
        self._run.journal.note({"part": part.number, "first": first, "last": last, "at": part.at})
        self.parts.append(part)
        return part

    async def _rendered(self, rows: Iterator[Row]) -> AsyncIterator[tuple[Row, bytes]]:
        """Each row with its request, in order. Those that need no model are finished here."""
        while group := list(islice(rows, self._run.concurrency)):
            for row, line in zip(group, await asyncio.gather(*map(self._request, group)), strict=True):
                if line is not None:
                    yield row, line

    async def _request(self, row: Row) -> bytes | None:
        """The line of the file that asks this row; None when it has its result already."""
        began = time.monotonic()
        try:
            if row.problem is not None:
                raise row.problem
            if "session" in row.facts:
                found, expected = "a session", "its turns in `history`: the rows of a batch do not wait for each other"
                raise InvalidInput(f"row {row.number}", found, expected)
            asked = await self.rendering.messages(dict(row.value), row.config)
            if not isinstance(asked, Answer):
                told = self._api.request(f"{row.number}-{digest_of(asked)}", asked)
                return json.dumps(told).encode() + b"\n"
        except Exception as error:  # noqa: BLE001 (this row's result)
            self._run.finished(failed(row, error, time.monotonic() - began))
        else:
            self._run.finished(answered(row, asked, time.monotonic() - began))
        return None

    async def _submit(self, part: Part, file: IO[bytes]) -> None:
        """Upload what was written, and let the provider begin. Empties the file."""
        self._note(part, file=await self._api.upload(part.number, file))
        file.seek(0)
        file.truncate()
        await self._begin(part)

    async def _begin(self, part: Part) -> None:
        assert part.file is not None
        self._note(part, batch=await self._api.submit(part.number, part.file, part.at))

    async def _take_up(self, part: Part) -> None:
        """A part without a batch, as far as the journal knows: the process died in between."""
        if (batch := await self._api.find_batch(part.number, part.at)) is not None:
            self._note(part, batch=batch)
            return
        if part.file is None and (uploaded := await self._api.find_file(part.number, part.at)) is not None:
            self._note(part, file=uploaded)
        if part.file is not None:
            await self._begin(part)
            return
        path = self._beside("requests")
        with path.open("w+b") as file:
            rows = (row for row in self._run.rows() if part.holds(row.number) and self._run.wants(row.number))
            async for _, line in self._rendered(rows):
                file.write(line)
            if file.tell():
                await self._submit(part, file)
            else:
                self._note(part, collected=True)
        path.unlink()

    # From batches to rows

    async def _poll(self) -> None:
        """Look at the open batches, ever more seldom, until all are collected."""
        wait_s = self.settings.poll_first_s
        while waiting := self.open:
            done = 0
            for part in waiting:
                assert part.batch is not None
                batch = await self._api.batch(part.batch)
                if batch.status in ENDED:
                    await self._collect(part, batch)
                    wait_s = self.settings.poll_first_s
                elif batch.request_counts is not None:
                    done += batch.request_counts.completed
            if self.open:
                self._told(f"{len(self.open)} batches at OpenAI, {done:,} rows answered")
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 1.5, self.settings.poll_max_s)
        self._told("")

    async def _collect(self, part: Part, batch: Any) -> None:
        """Make each row's result of what the provider says of it; or of what became of the batch."""
        path = self._beside("results")
        with path.open("w+b") as file:
            await self._api.download(batch, file)
            places = _places(file)

            async def collect(row: Row) -> None:
                known = self._run.journal.get(row.number)
                if row.number in places:
                    if known is None or known.get("batch") != batch.id:  # else it was collected before a crash
                        file.seek(places[row.number])
                        await self._finish(row, json.loads(file.readline()), batch)
                elif known is None:
                    self._run.finished({**failed(row, self._api.lost(batch)), "batch": batch.id})

            rows = (row for row in self._run.rows(all=True) if part.holds(row.number))
            await workers(self._run.concurrency, rows, collect, lambda: False)
        path.unlink()
        self._note(part, collected=True)

    async def _finish(self, row: Row, line: dict[str, Any], batch: Any) -> None:
        duration_s = float((batch.completed_at or batch.expired_at or time.time()) - batch.created_at)
        try:
            message = self._api.message(line)
            given = Given(message, line["custom_id"].partition("-")[2], self.settings.price_share)
            answer = await self.rendering.answer(dict(row.value), row.config, given)
        except Exception as error:  # noqa: BLE001 (this row's result)
            record = failed(row, error, duration_s)
        else:
            record = answered(row, answer, duration_s)
        self._run.finished({**record, "batch": batch.id})

    # What both need

    def _note(self, part: Part, **told: Any) -> None:
        self._run.journal.note({"part": part.number, **told})
        part.file, part.batch = told.get("file", part.file), told.get("batch", part.batch)
        part.is_collected = told.get("collected", part.is_collected)

    def _beside(self, word: str) -> Path:
        return self._run.out.with_name(f"{self._run.out.name}.{word}")

    def _told(self, what: str) -> None:
        self._run.pace.doing = what


def _places(file: IO[bytes]) -> dict[int, int]:
    """Where each row's line begins; the first of a row counts."""
    places: dict[int, int] = {}
    place = file.seek(0)
    for line in iter(file.readline, b""):
        with suppress(
            ValueError, KeyError, TypeError, AttributeError
        ):  # a line that is no result: its row counts as not answered
            places.setdefault(int(json.loads(line)["custom_id"].partition("-")[0]), place)
        place += len(line)
    return places
