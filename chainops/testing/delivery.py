"""What a server sends, as a value: bytes in order, and how slowly or badly they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent: the bytes in order, and how they are sent.

    `pieces` are written one by one, `pause_s` apart. `silence_s` passes before the first byte (inf: for
    ever). `end`: "proper", "early" (on the wire like a proper one, but something is missing), or
    "reset" by TCP.
    """

    status: int
    """HTTP status; 0 means not even a status line."""
    content_type: str
    pieces: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict)
    is_stream: bool = False
    silence_s: float = 0.0
    pause_s: float = 0.0
    end: Literal["proper", "early", "reset"] = "proper"
    stall: tuple[int, float] | None = None
    """Before the piece of this number (from 0) comes a pause of this many seconds (inf: for ever)."""


def event(data: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def edited(good: Delivery, edit: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]) -> Delivery:
    """`good` with its JSON changed: each event of a stream into none, one or more, or that of a plain answer."""
    if not good.is_stream:
        (only,) = edit(json.loads(b"".join(good.pieces)))
        return replace(good, pieces=(json.dumps(only).encode(),))
    pieces: list[bytes] = []
    for piece in good.pieces:
        if piece.startswith(b"data: {"):
            pieces += map(event, edit(json.loads(piece[6:])))
        else:
            pieces.append(piece)
    return replace(good, pieces=tuple(pieces))
