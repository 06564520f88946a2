"""Tell an answer nobody could read from a mistake in the code.

A model server that answers `{}` makes its client raise a TypeError, an IndexError or a
JSONDecodeError, and a typing error in a chain raises the same. Only the place differs: where in
the stack it was raised. So look there, and only at places known to read answers; any other
exception stays a bug.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError

_SHAPE_ERRORS = (TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What reading a body of an unexpected shape raises. JSON, Unicode and pydantic errors are ValueErrors."""

_CLIENTS = re.compile(
    r"(openai|anthropic|groq|mistralai|cohere|ollama|httpx2?|google\.genai|langchain_(?!core\b)\w+)(\.|$)"
)
"""Modules of model clients."""

_READING_MODULES = re.compile(r"\.(_streaming|_models|_decoders\.\w+)$")

_READING_FUNCTIONS = re.compile(
    r"_create_chat_result|_format_output|_response_to_result|_make_message_chunk\w*|_create_usage_metadata\w*"
    r"|_convert_dict_to_message|_convert_delta_to_message_chunk|_convert_chunk_to_\w+|_convert_responses_chunk\w*"
    r"|_construct_lc_result\w*|_chat_stream_response_to_\w+|_parse_\w*response\w*|_process_response\w*|_?parse|json"
)


def is_unreadable_answer(error: BaseException) -> bool:
    """Whether an exception was raised while a model's answer was being read."""
    if not isinstance(error, _SHAPE_ERRORS):
        return False
    frames = list(_frames(error))
    if not frames:
        return False
    if _raised_by_core(error, *frames[-1]):
        return True
    ours = [(module, function) for module, function in frames if not module.startswith(("json.", "json", "codecs"))]
    if not ours or not _is_inside(ours[-1][0]):
        return False  # the last step was taken by code that is not the client's
    return any(
        _CLIENTS.match(module) and (_READING_MODULES.search(module) or _READING_FUNCTIONS.fullmatch(function))
        for module, function in frames
    )


def what_was_wrong(error: BaseException) -> str | None:
    """What such an exception means, where its own words do not tell; else None."""
    if isinstance(error, JSONDecodeError):
        return f"the body is not JSON ({error})"
    if isinstance(error, IndexError):
        return "the answer holds no choice"
    if "No generation chunks" in str(error):
        return "the stream holds no chunk"
    return None


def _is_inside(module: str) -> bool:
    return bool(_CLIENTS.match(module)) or module.startswith(("langchain_core.messages", "langchain_core.outputs"))


def _raised_by_core(error: BaseException, module: str, function: str) -> bool:
    """LangChain's base class takes the first of no generations, or saw no chunk at all."""
    if module != "langchain_core.language_models.chat_models":
        return False
    is_empty_list = isinstance(error, IndexError) and function in {"invoke", "ainvoke", "generate", "agenerate"}
    return is_empty_list or (isinstance(error, ValueError) and "No generation chunks" in str(error))


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Module and function of each step from where it was caught to where it was raised."""
    trace = error.__traceback__
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_frame.f_code.co_name
        trace = trace.tb_next
