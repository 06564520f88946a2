"""`chainops new`: a commented starter."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import typer

from chainops.core.errors import InvalidInput

RAG = """\
# A chain that answers from documents. `chainops check chain.yaml` says whether it can run,
# `chainops ask chain.yaml "..."` asks it, `chainops serve chain.yaml` serves it.
chainops: 1
name: {name}
kind: rag

# Any OpenAI-compatible model: `openai:gpt-4o-mini` with OPENAI_API_KEY (and OPENAI_BASE_URL) set.
# `extractive` needs no key and no network: it answers with sentences of the documents.
models:
  main: {{model: "${{CHAINOPS_MODEL:-extractive}}"}}
  local: {{model: extractive}}

# Paths and globs from this folder: text, Markdown, HTML, PDF, notebooks.
knowledge: {{documents: ["docs/**/*"], retrieve: 20, rerank: 5}}

prompt: file:prompts/{name}.md

# From the outside in: the request passes downwards, the answer upwards.
pipeline:
  # Repeated questions are served from what was answered before; similar ones once it has learned which can be
  # trusted: of those, at most one in a hundred may get another answer than the chain would give.
  - cache: {{max_error_rate: 0.01, ttl: 24h}}
  - fallback: [main, local, {{say: "I can't answer that right now."}}]
"""

CHAT = """\
# A chain that talks. `chainops chat chain.yaml` talks with it, `chainops serve chain.yaml` serves it.
chainops: 1
name: {name}
kind: chat

# Any OpenAI-compatible model: `openai:gpt-4o-mini` with OPENAI_API_KEY (and OPENAI_BASE_URL) set.
# `extractive` needs no key, but it can only quote documents: without any it has little to say.
models:
  main: {{model: "${{CHAINOPS_MODEL:-extractive}}"}}

memory: {{window: 6}}                              # past turns a question is asked with
prompt: file:prompts/{name}.md

pipeline:
  - fallback: [main, {{say: "I can't answer that right now."}}]
"""

DOCUMENT = """\
# Opening hours

The shop is open from Monday to Friday, from nine in the morning until six in the evening.
On Saturdays it closes at one. It is closed on Sundays and public holidays.

# Returns

Goods can be returned within thirty days. Bring the receipt. Refunds are paid within a week.
"""

KINDS = {"rag": RAG, "chat": CHAT}


def new(kind: str, folder: Path) -> None:
    """Write chain.yaml, its prompt and, for rag, one document. Nothing that is there is overwritten."""
    from chainops.spec.build import PROMPTS
    from chainops.spec.chainfile import NAME

    name = folder.resolve().name
    if not NAME.fullmatch(name):
        name = f"my-{kind}"
    prompt = (PROMPTS / f"{kind}.md").read_text(encoding="utf-8").replace(f"chainops-{kind}", name)
    prompt = prompt.replace(f"The prompt of a {kind} chain that declares none.", f"The prompt of {name}.")
    files = {folder / "chain.yaml": KINDS[kind].format(name=name), folder / "prompts" / f"{name}.md": prompt}
    if kind == "rag":
        files[folder / "docs" / "shop.md"] = DOCUMENT
    there = [path for path in files if path.exists()]
    if there:
        raise InvalidInput(str(folder), f"{there[0].name} already there", "a folder without it")
    _write(files)
    chain = folder / "chain.yaml"
    asked = f'chainops ask {chain} "When is the shop open on Saturdays?"' if kind == "rag" else f"chainops chat {chain}"
    typer.echo(f"\nnext:  {asked}")


def _write(files: dict[Path, str]) -> None:
    """All of them or none."""
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError:
        for path in files:
            with suppress(OSError):
                path.unlink()
        raise
    for path in files:
        typer.echo(f"wrote {path}")
