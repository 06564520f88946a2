"""OpenAI's batch API: what a chat model would ask, as files and batches there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import IO, Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import Field

from chainops.core.errors import InvalidInput
from chainops.core.settings import Settings
from chainops.models.failures import Failure, ModelUnavailable, classify, wrap

ENDPOINT = "/v1/chat/completions"
RUN_KEY, PART_KEY = "chainops_run", "chainops_part"
"""What a batch is found by again, in its metadata."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
AGAIN = "ask it again with --retry-errors"
TRIES = 5
"""How often a call to the provider is made that fails for a reason that may pass."""
_SKEW_S = 86_400
"""How far the provider's clock and ours may differ, in seconds: further back a lost batch is not looked for."""
_NOT_IN_BATCHES = ("stream", "stream_options", "extra_headers", "extra_query", "timeout")

Result = TypeVar("Result")


class OpenAIBatch(Settings):
    """How the batch API is used."""

    rows_per_batch: int = Field(default=50_000, ge=1, le=50_000)
    """OpenAI's limit is the default."""
    bytes_per_batch: int = Field(default=100_000_000, ge=1)
    """Of one file of requests; OpenAI takes 200 MB."""
    poll_first_s: float = Field(default=5.0, gt=0)
    """The first look at a batch, in seconds; each later one waits half as long again."""
    poll_max_s: float = Field(default=60.0, gt=0)
    timeout_s: float = Field(default=600.0, gt=0)
    """For one upload or download."""
    price_share: float = Field(default=0.5, ge=0)
    """What a call costs there, as a part of what the price table says: OpenAI asks half."""


class LineFailed(Exception):
    """What became of one request, as an SDK would have raised it."""

    def __init__(self, status_code: int, body: dict[str, Any]) -> None:
        self.status_code, self.body = status_code, body
        super().__init__(str(body)[:200])


class OpenAIApi:
    """The calls that a run makes. Each is repeated where that may help, and none makes a second batch of one part.

    Args:
        model: `openai:name`, for errors.
        chat: The chat model whose requests are sent.
        run: Names this run in the files and batches there.
    """

    def __init__(self, model: str, chat: Any, settings: OpenAIBatch, run: str) -> None:
        self._model, self._chat, self._settings, self._run = model, chat, settings, run
        self._client = chat.root_async_client.with_options(timeout=settings.timeout_s, max_retries=0)

    # Requests and answers

    def request(self, custom_id: str, messages: list[BaseMessage]) -> dict[str, Any]:
        """A line of a file of requests: what the chat model would send.

        Raises:
            InvalidInput: It would not ask for a chat completion.
        """
        body: dict[str, Any] = self._chat._get_request_payload(messages)
        if "messages" not in body:
            raise InvalidInput("model", f"{self._model}, which needs the Responses API", "one of chat completions")
        body |= body.pop("extra_body", None) or {}
        body = {name: each for name, each in body.items() if name not in _NOT_IN_BATCHES}
        return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}

    def message(self, line: dict[str, Any]) -> AIMessage:
        """What the model said, from a line of a file of results.

        Raises:
            ModelFailed: It said nothing; why, in the words of the provider.
        """
        response = line.get("response") or {}
        body, status = response.get("body") or {}, response.get("status_code")
        if status == 200 and body.get("choices"):
            result = self._chat._create_chat_result(body)
            told: AIMessage = result.generations[0].message
            facts = {**(result.llm_output or {}), **(result.generations[0].generation_info or {})}
            told.response_metadata = {**facts, **told.response_metadata}
            return told
        if status is not None and status >= 300:
            raise wrap(LineFailed(status, body), self._model)
        error = line.get("error") or {}
        detail = str(error.get("message") or "")[:200]
        failure = Failure("retryable", str(error.get("code") or "no answer"), detail=detail)
        raise ModelUnavailable(self._model, failure, next_move=AGAIN)

    def lost(self, batch: Any) -> ModelUnavailable:
        """Why a row has no result at all."""
        said = [] if batch.errors is None else [each.message for each in batch.errors.data or []]
        failure = Failure("retryable", f"batch {batch.status}", detail="; ".join(filter(None, said))[:200])
        return ModelUnavailable(self._model, failure, next_move=AGAIN)

    # Files and batches

    async def upload(self, part: int, file: IO[bytes]) -> str:
        """Gives the file's id there."""

        async def upload() -> Any:
            file.seek(0)
            return await self._client.files.create(file=(self._file_name(part), file), purpose="batch")

        return str((await self._patiently(upload)).id)

    async def submit(self, part: int, file_id: str, since: float) -> str:
        """Let the provider begin. Gives the batch's id there.

        Args:
            since: When the part was made: an earlier batch cannot be its.
        """

        async def create() -> Any:
            batch = await self._client.batches.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={RUN_KEY: self._run, PART_KEY: str(part)},
            )
            return batch.id

        # After a failure nobody knows whether it was made: look, before making another.
        return str(await self._patiently(create, found=partial(self._look_for_batch, part, since)))

    async def find_batch(self, part: int, since: float) -> str | None:
        """The id of a part's batch, if it was made."""
        return await self._patiently(partial(self._look_for_batch, part, since))

    async def find_file(self, part: int, since: float) -> str | None:
        """The id of a part's file, if it was uploaded."""
        return await self._patiently(partial(self._look_for_file, part, since))

    async def batch(self, batch_id: str) -> Any:
        """A batch as it is by now."""
        return await self._patiently(partial(self._client.batches.retrieve, batch_id))

    async def download(self, batch: Any, into: IO[bytes]) -> None:
        """Append the results and the errors of a batch."""
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            await self._patiently(partial(self._download, file_id, into))

    async def _download(self, file_id: str, into: IO[bytes]) -> None:
        """Append a file's content: whole, or not at all."""
        start = into.seek(0, 2)
        try:
            async with self._client.files.with_streaming_response.content(file_id) as response:
                async for data in response.iter_bytes():
                    into.write(data)
        except BaseException:
            into.truncate(start)
            raise
        if into.tell() > start:
            into.write(b"\n")  # in case its last line has no end

    async def _look_for_batch(self, part: int, since: float) -> str | None:
        async for batch in self._client.batches.list(limit=100):  # newest first
            if batch.created_at < since - _SKEW_S:
                return None
            told = batch.metadata or {}
            if told.get(RUN_KEY) == self._run and told.get(PART_KEY) == str(part):
                return str(batch.id)
        return None

    async def _look_for_file(self, part: int, since: float) -> str | None:
        async for file in self._client.files.list(purpose="batch", order="desc"):
            if file.created_at < since - _SKEW_S:
                return None
            if file.filename == self._file_name(part):
                return str(file.id)
        return None

    def _file_name(self, part: int) -> str:
        return f"chainops-{self._run}-{part}.jsonl"

    async def _patiently(
        self, call: Callable[[], Awaitable[Result]], *, found: Callable[[], Awaitable[Result | None]] | None = None
    ) -> Result:
        """Call the provider, again where that may help.

        Args:
            found: Looks whether a call that failed was done all the same.

        Raises:
            ModelFailed: It cannot be helped; running the same again takes up from here.
        """
        tries = 0
        while True:
            try:
                if tries and found is not None and (made := await found()) is not None:
                    return made
                return await call()
            except Exception as error:
                failure, tries = classify(error), tries + 1
                if failure.kind != "retryable" or tries == TRIES:
                    raise wrap(error, self._model) from error
                wait_s = max(self._settings.poll_first_s * 2 ** (tries - 1), failure.retry_after_s or 0.0)
            await asyncio.sleep(min(wait_s, self._settings.poll_max_s))
