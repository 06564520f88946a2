"""One FastAPI app for any number of chains."""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import WithJsonSchema

from chainops.core.caller import STATE_KEY, Caller
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.extras import require
from chainops.serve.served import Served, http_status, retry_after, told
from chainops.spec.chain import Chain, load

Question = Annotated[
    Any,  # judged by the chain, whose refusals say what is wrong
    WithJsonSchema(
        {
            "type": "string",
            "title": "Question",
            "description": 'A question, or {"question": "...", "history": [{"role": "user", "text": "..."}]}.',
        }
    ),
]
"""What a served chain takes. The playground draws a form for a string, and none at all for a choice of types."""


def create_app(chains: Sequence[Chain]) -> Any:
    """A FastAPI app with `/NAME/invoke`, `batch`, `stream`, `stream_events`, `playground` for each chain.

    What a client says about itself is ignored; it sees what the chain file's `expose` allows. Errors
    become their HTTP status with one line, or the last chunk of a stream; never a traceback.

    Raises:
        MissingExtra: LangServe or FastAPI is not installed.
        InvalidInput: Two chains have the same name.
    """
    fastapi = require("fastapi", extra="serve")
    responses = require("fastapi.responses", extra="serve")
    langserve = require("langserve", extra="serve")
    names = [chain.declared.name for chain in chains]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput("chains", f"{name!r} twice", "each chain under a name of its own")
    app = fastapi.FastAPI(title="chainops", description=f"Chains: {', '.join(names)}")
    for chain in chains:
        langserve.add_routes(
            app,
            _served(chain),
            path=f"/{chain.declared.name}",
            config_keys=(),
            enabled_endpoints=(
                "invoke",
                "batch",
                "stream",
                "stream_events",
                "stream_log",
                "playground",
                "input_schema",
                "output_schema",
                "config_schema",
            ),
        )

    async def refuse(_: Any, error: ChainopsError) -> Any:
        return responses.JSONResponse(told(error), status_code=http_status(error), headers=retry_after(error))

    app.add_exception_handler(ChainopsError, refuse)

    @app.get("/health")  # type: ignore[untyped-decorator, unused-ignore]
    def health() -> dict[str, Any]:
        return {"status": "ok", "chains": names}

    return app


def _served(chain: Chain) -> Served:
    """The chain for clients. Who asks is bound to it: LangServe drops what a request brings on some routes."""
    seen = Caller(expose=frozenset(chain.declared.expose))
    return Served(
        bound=chain,
        custom_input_type=Question,
        config={"configurable": {STATE_KEY: seen}},
        shows_all="report" in chain.declared.expose,
    )


def run(paths: Sequence[Path], *, host: str, port: int) -> None:
    """Load, index and serve until interrupted. Says where, once it can be reached."""
    uvicorn = require("uvicorn", extra="serve")
    chains = [load(path) for path in paths]
    app = create_app(chains)
    for chain in chains:
        for event in chain.site.ready(chain) if chain.declared.knowledge is not None else ():
            for skipped in getattr(event, "skipped", ()):
                print(f"skipped {skipped}", file=sys.stderr, flush=True)  # noqa: T201
    listening = _listen(host, port)
    shown, bound = listening.getsockname()[:2]
    for chain in chains:
        print(f"{chain.declared.name}: http://{shown}:{bound}/{chain.declared.name}/playground/", flush=True)  # noqa: T201
    warnings.filterwarnings("ignore", message="astream_log is deprecated")  # LangServe's playground lives on it
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Bound here, so that a taken port is one clear error and port 0 can be named."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # from here on clients wait instead of being refused
    except OSError as error:
        listening.close()
        raise InvalidInput("address", f"{host}:{port} ({error.strerror})", "a free one; --port 0 picks it") from error
    return listening
