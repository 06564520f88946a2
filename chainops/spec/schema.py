"""The JSON Schema of chain files."""

from __future__ import annotations

from typing import Any

from chainops.spec.chainfile import ChainFile
from chainops.spec.registry import Wrapper, wrapper


def chain_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) for editors: every word, with its meaning where it is documented."""
    schema = ChainFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "chainops chain file"
    entries = []
    for word in Wrapper.words():
        known = wrapper(word)
        assert known is not None
        inner = known.settings.model_json_schema(ref_template="#/$defs/{model}")
        schema.setdefault("$defs", {}).update(inner.pop("$defs", {}))
        accepted: dict[str, Any] = {"anyOf": [inner, {"type": "null"}]}
        if known.alone is not None:
            accepted["anyOf"].append(inner["properties"][known.alone])
        entries.append(
            {
                "type": "object",
                "description": known.says,
                "properties": {word: accepted},
                "required": [word],
                "additionalProperties": False,
            }
        )
    entries.append({"enum": Wrapper.words()})
    schema["properties"]["pipeline"] = {
        "type": "array",
        "description": "Wrappers from the outside in: the request passes them downwards, the answer upwards.",
        "items": {"anyOf": entries},
    }
    # Variables stand for values of any type: ${NAME} or ${NAME:-default}.
    return schema
