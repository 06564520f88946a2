"""Prompts in MLflow's registry: versions that never change, and aliases that say which one is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.core.extras import require
from chainops.prompts.prompt import Prompt
from chainops.prompts.records import PromptNotFound, PromptVersion

T = TypeVar("T")

ANSWER_S = 3
"""How long a server may take to show that it is there, in seconds."""
CALL_S = 20.0
"""How long a registry call may take once it has, in seconds."""
_DIGEST = "chainops.digest"
_RESERVED = "latest"
_LOOKED_AT = 50
"""Newest versions whose aliases an error message names: each is a call of its own."""


class PromptRegistry:
    """MLflow's prompt registry at one address; whatever address MLflow itself is set to stays as it is.

    Every call reads the registry: MLflow's cache, in which a moved alias stays stale for a
    minute in other processes, is not used (a load takes about 5 ms on SQLite).

    Args:
        tracking_uri: `sqlite:///file.db` (made by the first push), `http(s)://...`, or another one MLflow takes.

    Raises:
        MissingExtra: by every method, when MLflow is not installed.
        StoreUnavailable: by every method, when the registry cannot be reached; after 20 s at most.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._kept: Any = None

    def __repr__(self) -> str:
        return f"PromptRegistry({self.place!r})"

    @property
    def place(self) -> str:
        """The address, without a password it may hold."""
        password = urlsplit(self._uri).password
        return self._uri.replace(password, "***") if password else self._uri

    def push(self, prompt: Prompt, *, alias: str | None = None, message: str | None = None) -> Prompt:
        """Register a prompt, unless a version with the same messages exists: then that one is it.

        Args:
            alias: Set to the version, new or not.
            message: What changed, as in a commit.

        Returns:
            The prompt as the registry now has it, with its version.
        """
        client = self._client()
        _check_alias(alias)
        same = [int(one.version) for one in self._found(client, prompt.name) if _digest(one) == prompt.digest]
        if same:
            version = max(same)
            self._update_metadata(client, prompt, version)
        else:
            version = self._register(client, prompt, message)
        if alias is not None:
            self._call(partial(client.set_prompt_alias, prompt.name, alias, version))
        return self.load(prompt.name, version=version)

    def load(self, name: str, *, version: int | None = None, alias: str | None = None) -> Prompt:
        """Read one version, named by its number or by an alias; exactly one of the two is given.

        Raises:
            PromptNotFound: it is not there.
            PromptInvalid: it is no prompt chainops can use, such as a Jinja template.
        """
        if (version is None) == (alias is None):
            raise InvalidInput("prompt", f"version={version!r}, alias={alias!r}", "exactly one of version and alias")
        asked = alias if version is None else version
        if not self._exists():
            raise PromptNotFound(name, asked, self.place)
        client = self._client()
        if alias is not None and alias != _RESERVED:
            found = self._call(partial(client.get_prompt_version_by_alias, name, alias), may_miss=True)
        else:
            found = self._call(partial(client.get_prompt_version, name, str(asked)), may_miss=True)
        if found is None:
            raise self._missing(client, name, asked)
        return _prompt(found)

    def versions(self, name: str) -> tuple[PromptVersion, ...]:
        """A prompt's history, oldest first.

        Raises:
            PromptNotFound: there is no such prompt.
        """
        client = self._client() if self._exists() else None
        found = [] if client is None else self._found(client, name)
        if not found:
            raise PromptNotFound(name, None, self.place)
        return tuple(
            PromptVersion(
                version=int(one.version),
                aliases=self._aliases(client, name, one),
                digest=_digest(one),
                message=one.commit_message,
                created_at=(one.creation_timestamp or 0) / 1000,
            )
            for one in found
        )

    def promote(self, name: str, version: int, alias: str) -> Prompt:
        """Point an alias at a version; rolling back is the same with an older one.

        Raises:
            PromptNotFound: there is no such version.
        """
        _check_alias(alias)
        prompt = self.load(name, version=version)
        client = self._client()
        self._call(partial(client.set_prompt_alias, name, alias, version))
        return prompt

    def _register(self, client: Any, prompt: Prompt, message: str | None) -> int:
        alone = len(prompt.messages) == 1 and prompt.messages[0][0] == "user"
        template: Any = prompt.messages[0][1]
        if not alone:
            template = [{"role": role, "content": text} for role, text in prompt.messages]
        tags = {**prompt.metadata, _DIGEST: prompt.digest}

        def register() -> Any:
            return client.register_prompt(prompt.name, template, commit_message=message, tags=tags)

        # Of several first registrations at once all but one fail in MLflow; the name exists then, so once more does it.
        made: Any = self._call(register, may_exist=True) or self._call(register)
        return int(made.version)

    def _update_metadata(self, client: Any, prompt: Prompt, version: int) -> None:
        """The description and the tags of a version may change; its messages may not."""
        known = self.load(prompt.name, version=version).metadata
        for key, value in prompt.metadata.items():
            if known.get(key) != value:
                self._call(partial(client.set_prompt_version_tag, prompt.name, version, key, value))

    def _found(self, client: Any, name: str) -> list[Any]:
        """All versions as MLflow has them, oldest first; none if there is no such prompt."""
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self._call(partial(client.search_prompt_versions, name, page_token=token), may_miss=True)
            found += page or []
            token = None if page is None else page.token
            if not token:
                return sorted(found, key=lambda one: int(one.version))

    def _aliases(self, client: Any, name: str, found: Any) -> tuple[str, ...]:
        # A listing leaves aliases out; asking for the one version does not.
        full = self._call(partial(client.get_prompt_version, name, str(found.version)), may_miss=True)
        return () if full is None else tuple(sorted(full.aliases))

    def _missing(self, client: Any, name: str, asked: int | str | None) -> PromptNotFound:
        found = self._found(client, name)
        aliases = [
            (alias, int(one.version)) for one in found[-_LOOKED_AT:] for alias in self._aliases(client, name, one)
        ]
        versions = tuple(int(one.version) for one in found)
        return PromptNotFound(name, asked, self.place, versions=versions, aliases=tuple(aliases))

    def _exists(self) -> bool:
        """Whether there is anything to ask: looking for a prompt must not make a database."""
        file = _sqlite_file(self._uri)
        return file is None or file.exists()

    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
        tracking = require("mlflow.tracking", extra="mlflow")
        client = self._kept  # which a call that fails in another thread may take away
        if client is None:
            if (file := _sqlite_file(self._uri)) is not None:
                self._make_folder(file.parent)
            self._check_server()
            client = self._call(lambda: tracking.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri))
            self._kept = client
        return client

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(self.place, f"its folder cannot be made: {error}", "name another place") from error

    def _check_server(self) -> None:
        """A short question first: MLflow's own calls take minutes to give up on a server that is away."""
        if not self._uri.startswith(("http://", "https://")):
            return
        rest = require("mlflow.utils.rest_utils", extra="mlflow")
        credentials = require("mlflow.tracking._tracking_service.utils", extra="mlflow").get_default_host_creds
        self._call(
            lambda: rest.http_request(
                credentials(self._uri), "/health", "GET", timeout=ANSWER_S, max_retries=0, raise_on_status=False
            )
        )

    def _call(self, work: Callable[[], T], *, may_miss: bool = False, may_exist: bool = False) -> T | None:
        """Do one registry call, in bounded time.

        Returns:
            None: what is asked for is not there (with `may_miss`), or is there already (with `may_exist`).
        """
        error_type = require("mlflow.exceptions", extra="mlflow").MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return work() if self._uri.startswith("sqlite:") else _bounded(work, self.place)
        except error_type as error:
            code = getattr(error, "error_code", "")
            if may_miss and code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}:
                return None
            if may_exist and code in {"RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"} and "exist" in str(error):
                return None
            if code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                raise InvalidInput(f"{self.place}: prompt registry", str(error)[:300], "what MLflow accepts") from error
            self._kept = None  # next time ask first whether the server is there
            raise StoreUnavailable(self.place, _short(error, self._uri), "start it or correct the address") from error
        except SQLAlchemyError as error:  # a file that is no database gets through MLflow as it is
            raise StoreUnavailable(self.place, _short(error, self._uri), "see whether the file is MLflow's") from error


def _bounded(work: Callable[[], T], place: str) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that waits
            failures.append(error)

    # A thread of its own rather than a pool's: one that hangs must not keep the program from ending.
    thread = threading.Thread(target=run, name="chainops-prompts", daemon=True)
    thread.start()
    thread.join(CALL_S)
    if failures:
        raise failures[0]
    if not results:
        raise StoreUnavailable(place, f"no answer within {CALL_S:g} s", "see whether the MLflow server is well")
    return results[0]


def _prompt(found: Any) -> Prompt:
    roles = {"human": "user", "ai": "assistant"}
    if isinstance(found.template, str):
        messages: tuple[tuple[str, str], ...] = (("user", found.template),)
    else:
        messages = tuple((roles.get(one["role"], one["role"]), str(one["content"])) for one in found.template)
    return Prompt(
        name=found.name,
        messages=messages,
        version=int(found.version),
        source=f"prompts:/{found.name}/{found.version}",
        metadata={key: value for key, value in found.tags.items() if not key.startswith(("chainops.", "mlflow."))},
    )


def _digest(found: Any) -> str | None:
    # Computed, not read from our tag: tags can be edited, the messages cannot.
    try:
        return _prompt(found).digest
    except ValueError:
        return None


def _check_alias(alias: str | None) -> None:
    if alias is None:
        return
    is_version_like = alias.lower().startswith("v") and alias[1:].isdigit()
    if alias.lower() == _RESERVED or is_version_like or not alias.replace("-", "").replace("_", "").isalnum():
        raise InvalidInput(
            "alias", repr(alias), "letters, digits, '-' and '_'; 'latest' and 'v1', 'v2', ... are MLflow's"
        )


def _short(error: Exception, uri: str) -> str:
    password = urlsplit(uri).password
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (text.replace(password, "***") if password else text)[:200]


def _sqlite_file(uri: str) -> Path | None:
    prefix = "sqlite:///"
    path = uri[len(prefix) :].partition("?")[0] if uri.startswith(prefix) else ""
    return Path(path) if path and path != ":memory:" else None
