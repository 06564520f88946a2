"""What a run has done, beside its output: an append-only file that survives `kill -9` at any moment.

Each line is a CRC-32, a blank, and one JSON object. A record is acknowledged once its line is written: it is then with
the operating system, so a killed process loses nothing; a power cut loses at most the last `SYNC_EVERY_S` seconds.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from chainops.batch.records import FAILED, STATUSES, OtherRun
from chainops.core.errors import StoreCorrupted

SYNC_EVERY_S = 1.0
"""How often the journal is forced to the disk."""
VERSION = 1
_CODES = {FAILED: 1, **{name: number for number, name in enumerate(STATUSES, start=2)}}
_CRC_CHARS = 9
"""Eight hexadecimal digits and a blank."""


def line_of(told: dict[str, Any]) -> bytes:
    text = json.dumps(told, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def checked(line: bytes) -> dict[str, Any] | None:
    """What a line says; None when it is torn or damaged."""
    text = line[_CRC_CHARS:-1]
    if not line.endswith(b"\n") or line[:_CRC_CHARS] != b"%08x " % zlib.crc32(text):
        return None
    told: dict[str, Any] = json.loads(text)
    return told


class Journal:
    """Finished rows by their number, and notes. Nine bytes of memory a row.

    A row may be recorded again (`--retry-errors`): its last record counts, what each cost is added up.

    Args:
        same: What must be the same when a run is taken up: names to digests.
        restart: Drop what is there.

    Raises:
        OtherRun: What is there was begun with something else.
        StoreCorrupted: Its first line cannot be read.
    """

    def __init__(self, path: Path, same: dict[str, Any], run: str, *, restart: bool = False) -> None:
        self.path, self.run = path, run
        self.notes: list[dict[str, Any]] = []
        self.damaged = 0
        """Lines in the middle that cannot be read: their rows are asked again."""
        self.cost_usd, self.cost_unknown, self.input_tokens, self.output_tokens = 0.0, 0, 0, 0
        self._places = array("q")
        """Where the last record of each row begins, plus 1; 0 for none."""
        self._states = bytearray()
        if restart:
            path.unlink(missing_ok=True)
        self._write = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._read: IO[bytes] = path.open("rb")
        try:
            self._end = self._scan(same)
        except BaseException:
            self.close()
            raise
        if self._end == 0:
            self._append({"journal": VERSION, "run": run, "same": same})
        self.taken_up = self.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._write)
        self._read.close()

    @property
    def known_cost_usd(self) -> float | None:
        """USD of all records whose cost is known; None when no cost is."""
        return None if self.cost_unknown and not self.cost_usd else round(self.cost_usd, 9)

    # Writing

    def record(self, record: dict[str, Any]) -> None:
        """Acknowledge a row's result."""
        place = self._append(record)
        self._learn(record, place)

    def note(self, told: dict[str, Any]) -> None:
        """Keep something that is no row, on the disk before this returns."""
        self._append({"note": told})
        self.sync()
        self.notes.append(told)

    def sync(self) -> None:
        os.fsync(self._write)

    def _append(self, told: dict[str, Any]) -> int:
        line, place = line_of(told), self._end
        written = 0
        try:
            while written < len(line):
                written += os.write(self._write, line[written:])
        except OSError as error:  # no space: take back the half line, and say which file it is about
            os.ftruncate(self._write, place)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._end += len(line)
        return place

    # Reading

    def is_done(self, row: int) -> bool:
        return row <= len(self._states) and self._states[row - 1] != 0

    def has_failed(self, row: int) -> bool:
        return row <= len(self._states) and self._states[row - 1] == _CODES[FAILED]

    def count(self, status: str | None = None) -> int:
        """Rows with a result, or with this one."""
        if status is None:
            return len(self._states) - self._states.count(0)
        return self._states.count(_CODES[status])

    def get(self, row: int) -> dict[str, Any] | None:
        """The last record of a row."""
        if not self.is_done(row):
            return None
        return checked(self._line(self._places[row - 1] - 1))

    def lines(self, *, in_order: bool) -> Iterator[bytes]:
        """The last record of each row, as JSON with a line end: by row, or as they were finished."""
        places: Any = self._places
        if not in_order:
            import numpy as np

            places = np.sort(np.frombuffer(self._places, dtype=np.int64)) if len(self._places) else ()
        for place in places:
            if place:
                yield self._line(int(place) - 1)[_CRC_CHARS:]

    def failures(self, limit: int = 1000) -> Iterator[dict[str, Any]]:
        """Records of the first failed rows."""
        row = -1
        for _ in range(limit):
            row = self._states.find(_CODES[FAILED], row + 1)
            if row < 0:
                return
            found = self.get(row + 1)
            if found is not None:
                yield found

    def _line(self, place: int) -> bytes:
        self._read.seek(place)
        return self._read.readline()

    def _scan(self, same: dict[str, Any]) -> int:
        """Learn what is there; cut off a torn last line. Gives where the file ends."""
        place = 0
        for line in self._read:
            told = checked(line)
            if place == 0:
                if told is None and self._read.read(1):
                    raise StoreCorrupted(str(self.path), "its first line is damaged", "begin anew with --restart")
                if told is None:
                    break
                self._is_mine(told, same)
            elif told is None:
                if not line.endswith(b"\n"):
                    break
                self.damaged += 1
            elif "row" in told:  # a record, whatever its columns are called
                self._learn(told, place)
            else:
                self.notes.append(told["note"])
            place += len(line)
        os.ftruncate(self._write, place)
        self._read.close()  # what it has read ahead may just have been cut off
        self._read = self.path.open("rb")
        return place

    def _is_mine(self, header: dict[str, Any], same: dict[str, Any]) -> None:
        if header.get("journal") != VERSION:
            raise OtherRun(self.path, "version of chainops")
        for name, value in same.items():
            if header["same"].get(name) != value or value is None:
                raise OtherRun(self.path, name)
        self.run = header["run"]

    def _learn(self, record: dict[str, Any], place: int) -> None:
        row = record["row"]
        if (missing := row - len(self._states)) > 0:
            self._states.extend(bytes(missing))
            self._places.extend([0] * missing)
        self._states[row - 1] = _CODES.get(record["status"], _CODES["ok"])
        self._places[row - 1] = place + 1
        if record["cost_usd"] is None:
            self.cost_unknown += 1
        else:
            self.cost_usd += record["cost_usd"]
        self.input_tokens += record["tokens"]["input"]
        self.output_tokens += record["tokens"]["output"]
