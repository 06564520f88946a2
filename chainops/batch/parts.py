"""What a provider works on: each part of the rows is one file and one batch there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainops.batch.journal import checked


@dataclass(slots=True)
class Part:
    """The wanted rows from `first` to `last`."""

    number: int
    first: int
    last: int
    at: float
    file: str | None = None
    batch: str | None = None
    is_collected: bool = False

    def holds(self, row: int) -> bool:
        return self.first <= row <= self.last


def parts_of(notes: list[dict[str, Any]]) -> list[Part]:
    """How far each part had come."""
    found: dict[int, Part] = {}
    for note in notes:
        number = note["part"]
        if "first" in note:
            found[number] = Part(number, note["first"], note["last"], note["at"])
        elif number in found:
            part = found[number]
            part.file, part.batch = note.get("file", part.file), note.get("batch", part.batch)
            part.is_collected = part.is_collected or note.get("collected", False)
    return list(found.values())


def left_behind(journal: Path) -> list[str]:
    """What is to be told of a journal that is about to be dropped: batches that nobody will collect."""
    if not journal.exists():
        return []
    with journal.open("rb") as file:
        notes = [told["note"] for line in file if (told := checked(line)) is not None and "note" in told]
    batches = [part.batch for part in parts_of(notes) if part.batch is not None and not part.is_collected]
    if not batches:
        return []
    return [f"not collected, and charged unless they are cancelled at the provider: {', '.join(batches)}"]
