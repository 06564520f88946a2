"""Files and batches as OpenAI's API has them: upload, submit, poll, collect.

A batch has no thread. Its state is worked out from the time whenever somebody asks, and its lines are answered then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

from chainops.core.clock import Clock
from chainops.testing.delivery import Delivery
from chainops.testing.error_bodies import error_body
from chainops.testing.shelf import Shelf
from chainops.testing.wire import Upload

End = Literal["completed", "expired", "cancelled", "failed"]
Answered = tuple[int, Any]
"""Status and JSON body of one line's answer."""

MOST_LINES = 50_000
_ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line of a batch's input."""

    custom_id: str
    body: dict[str, Any]


class Batches:
    """The desk for `/v1/files` and `/v1/batches`. Thread-safe.

    Args:
        answer: Answers one line: from its path and custom id and body to status and JSON.
        delay_s: From submission to the end, in seconds of the clock; None: until `finish` is called.
        folder: Where files and batches are kept, so that another server finds them; None: in memory.
    """

    def __init__(
        self,
        answer: Callable[[str, BatchRequest], Answered],
        *,
        clock: Clock,
        delay_s: float | None = 0.0,
        folder: Path | None = None,
    ) -> None:
        self._answer, self._clock, self.delay_s = answer, clock, delay_s
        self._files, self._batches = Shelf("file", folder), Shelf("batch", folder)
        self._lock = threading.Lock()

    def serve(self, method: str, path: str, query: str, body: Mapping[str, Any], upload: Upload | None) -> Delivery:
        """Answer a request to one of the two endpoints."""
        with self._lock:
            match method, path.removeprefix("/v1/").split("/"):
                case "POST", ["files"]:
                    return self._upload(upload)
                case "GET", ["files"]:
                    return _page(self._files.all(), query)
                case "GET", ["files", name]:
                    return _found(self._files.get(name), name)
                case "DELETE", ["files", name]:
                    if not self._files.delete(name):
                        return _missing(name)
                    return _json({"id": name, "object": "file", "deleted": True})
                case "GET", ["files", name, "content"]:
                    content = self._files.content(name)
                    return _missing(name) if content is None else Delivery(200, "application/octet-stream", (content,))
                case "POST", ["batches"]:
                    return self._submit(body)
                case "GET", ["batches"]:
                    return _page([self._advanced(each) for each in self._batches.all()], query)
                case "GET", ["batches", name]:
                    batch = self._batches.get(name)
                    return _missing(name) if batch is None else _json(self._advanced(batch))
                case "POST", ["batches", name, "cancel"]:
                    batch = self._batches.get(name)
                    return _missing(name) if batch is None else self._cancel(batch)
        return _error(404, f"Unknown request URL: {method} {path}.", "unknown_url")

    def finish(self, name: str | None = None, end: End = "completed", share: float = 1.0) -> None:
        """End the batch of this id, or all that are open, now.

        Args:
            end: How. "failed" is what becomes of a batch whose input is refused: no line is answered.
            share: Of the lines, how many (the first) are answered before it ends, 0..1.
        """
        with self._lock:
            for batch in self._batches.all() if name is None else [self._batches.get(name)]:
                if batch is not None and batch["status"] not in _ENDED:
                    self._end(batch, end, share)

    def _upload(self, upload: Upload | None) -> Delivery:
        if upload is None or not upload.purpose:
            return _error(400, "'file' and 'purpose' are required properties", None, param="file")
        facts = {
            "object": "file",
            "bytes": len(upload.content),
            "created_at": int(self._clock.time()),
            "filename": upload.filename,
            "purpose": upload.purpose,
            "status": "processed",
            "expires_at": None,
        }
        return _json(self._files.add(facts, upload.content))

    def _submit(self, body: Mapping[str, Any]) -> Delivery:
        name, endpoint = body.get("input_file_id"), body.get("endpoint")
        if not isinstance(name, str) or self._files.get(name) is None:
            return _error(400, f"Invalid file: {name!r} does not exist.", "invalid_file", param="input_file_id")
        if endpoint not in _ENDPOINTS:
            return _error(400, f"Invalid value: {endpoint!r}.", "invalid_value", param="endpoint")
        if body.get("completion_window") != "24h":
            return _error(400, "Invalid value: expected '24h'.", "invalid_value", param="completion_window")
        now = self._clock.time()
        facts: dict[str, Any] = {"object": "batch", "endpoint": endpoint, "errors": None, "input_file_id": name}
        facts |= {"completion_window": "24h", "status": "validating", "output_file_id": None, "error_file_id": None}
        facts |= {"created_at": int(now), "expires_at": int(now) + 86_400, "metadata": body.get("metadata")}
        facts |= dict.fromkeys(_TIMES)
        facts["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        return _json(_shown(self._batches.add(facts | {"_submitted": now})))

    def _cancel(self, batch: dict[str, Any]) -> Delivery:
        self._advanced(batch)
        if batch["status"] in _ENDED:
            return _error(409, f"Cannot cancel a batch with status '{batch['status']}'.", None)
        if batch["status"] != "cancelling":
            batch |= {"status": "cancelling", "cancelling_at": int(self._clock.time())}
            self._batches.save(batch)
        return _json(_shown(batch))

    def _advanced(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as it is by now."""
        if batch["status"] == "cancelling":
            self._end(batch, "cancelled", 0.0)
        elif batch["status"] not in _ENDED:
            if batch["status"] == "validating" and (problems := self._problems(batch)):
                batch["errors"] = {"object": "list", "data": problems}
                self._end(batch, "failed", 0.0)
            elif self.delay_s is None:
                self._reach(batch, "in_progress")
            else:
                gone = (self._clock.time() - batch["_submitted"]) / self.delay_s if self.delay_s else 1.0
                if gone >= 1:
                    self._end(batch, "completed", 1.0)
                else:
                    self._reach(batch, "validating" if gone < 0.1 else "in_progress" if gone < 0.9 else "finalizing")
        return _shown(batch)

    def _reach(self, batch: dict[str, Any], status: str) -> None:
        if status != batch["status"]:
            batch["status"], batch[f"{status}_at"] = status, int(self._clock.time())
            batch["request_counts"]["total"] = sum(1 for _ in _lines(self._content(batch)))
            self._batches.save(batch)

    def _content(self, batch: Mapping[str, Any]) -> bytes:
        return self._files.content(batch["input_file_id"]) or b""

    def _problems(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Why OpenAI would refuse the input."""
        seen: set[str] = set()
        problems: list[dict[str, Any]] = []

        def problem(line: int | None, code: str, message: str, param: str | None = None) -> None:
            problems.append({"code": code, "message": message, "param": param, "line": line})

        number = 0
        for number, raw in enumerate(_lines(self._content(batch)), start=1):
            request = _parsed(raw)
            if request is None:
                problem(number, "invalid_json_line", "This line is not parseable as valid JSON.")
            elif not isinstance(request.get("custom_id"), str) or not isinstance(request.get("body"), dict):
                problem(number, "missing_required_parameter", "Missing required parameter.", "custom_id")
            elif request["custom_id"] in seen:
                problem(number, "duplicate_custom_id", "The custom_id for this request is a duplicate.", "custom_id")
            elif request.get("url") != batch["endpoint"] or request.get("method") != "POST":
                problem(number, "mismatched_endpoint", "The URL does not match the batch's endpoint.", "url")
            else:
                seen.add(request["custom_id"])
        if number == 0:
            problem(None, "empty_file", "The input file is empty. Please ensure that the batch contains requests.")
        if number > MOST_LINES:
            problem(None, "too_many_tasks", f"The batch holds {number} requests; the maximum is {MOST_LINES}.")
        return problems[:20]

    def _end(self, batch: dict[str, Any], end: End, share: float) -> None:
        good: list[bytes] = []
        bad: list[bytes] = []
        requests = [_parsed(raw) or {} for raw in _lines(self._content(batch))] if end != "failed" else []
        answered = round(len(requests) * share)
        for number, request in enumerate(requests):
            custom_id, line = str(request.get("custom_id")), f"batch_req_{batch['id'][6:]}_{number}"
            if number < answered:
                status, body = self._answer(batch["endpoint"], BatchRequest(custom_id, request.get("body") or {}))
                response = {"status_code": status, "request_id": f"req_{line}", "body": body}
                told = {"id": line, "custom_id": custom_id, "response": response, "error": None}
                (good if status < 400 else bad).append(json.dumps(told).encode())
            elif end == "expired":
                error = {"code": "batch_expired", "message": _EXPIRED}
                told = {"id": line, "custom_id": custom_id, "response": None, "error": error}
                bad.append(json.dumps(told).encode())
        # Backwards: the order of the output is nobody's promise, and who relies on it should notice.
        batch["output_file_id"] = self._result(batch, "output", good[::-1])
        batch["error_file_id"] = self._result(batch, "error", bad[::-1])
        batch["request_counts"] = {"total": len(requests), "completed": len(good), "failed": len(bad)}
        batch |= {"status": end, f"{end}_at": int(self._clock.time())}
        self._batches.save(batch)

    def _result(self, batch: Mapping[str, Any], kind: str, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        content = b"\n".join(lines) + b"\n"
        facts = {"object": "file", "bytes": len(content), "created_at": int(self._clock.time()), "status": "processed"}
        facts |= {"filename": f"{batch['id']}_{kind}.jsonl", "purpose": "batch_output", "expires_at": None}
        return str(self._files.add(facts, content)["id"])


_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_TIMES = tuple(
    f"{state}_at"
    for state in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
)
_EXPIRED = "This request could not be executed before the completion window expired."


def _lines(content: bytes) -> Iterable[bytes]:
    return (line for line in content.split(b"\n") if line.strip())


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if not name.startswith("_")}


def _page(newest_last: list[dict[str, Any]], query: str) -> Delivery:
    """Newest first, `limit` at a time, those after the id `after`."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    items = [
        _shown(item)
        for item in reversed(newest_last)
        if item.get("purpose") == asked.get("purpose", item.get("purpose"))
    ]
    ids = [item["id"] for item in items]
    start = ids.index(asked["after"]) + 1 if asked.get("after") in ids else 0
    limit = int(asked.get("limit", 20))
    page = items[start : start + limit]
    told = {"object": "list", "data": page, "has_more": start + limit < len(items)}
    return _json(told | {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None})


def _json(body: Mapping[str, Any]) -> Delivery:
    return Delivery(200, "application/json", (json.dumps(body).encode(),))


def _found(facts: Mapping[str, Any] | None, name: str) -> Delivery:
    return _missing(name) if facts is None else _json(_shown(facts))


def _missing(name: str) -> Delivery:
    return _error(404, f"No such object: {name}", None, param="id")


def _error(status: int, message: str, code: str | None, *, param: str | None = None) -> Delivery:
    body = error_body(message, kind="invalid_request_error", code=code, param=param)
    return Delivery(status, "application/json", (body,))
