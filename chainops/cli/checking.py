"""`chainops check`: everything that can be known without asking a question."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from chainops.core.errors import ChainopsError
from chainops.spec.chain import Chain, load
from chainops.spec.errors import ChainFileError


def check(path: Path, *, as_json: bool) -> bool:
    """Print what is wrong, and what is only odd. True when the chain can be run."""
    problems, notes = [], []
    try:
        chain = load(path)
    except ChainFileError as error:
        problems = [str(each) for each in error.problems]
    except ChainopsError as error:
        problems = [str(error)]
    else:
        problems, notes = _models(chain), [*_documents(chain), *_order(chain), *_traces(chain)]
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems, "notes": notes}, ensure_ascii=False))
        return not problems
    for problem in problems:
        typer.echo(f"{path}: {problem}", err=True)
    for note in notes:
        typer.echo(f"note: {note}")
    if not problems:
        from chainops.spec.show import chain_text

        typer.echo(f"{path}: ok\n{chain_text(chain)}")
    return not problems


def _models(chain: Chain) -> list[str]:
    """Models that cannot be opened: no key, no package."""
    problems = []
    for name, model in chain.site.models.items():
        try:
            model.chat()
        except ChainopsError as error:
            problems.append(f"models.{name}: {error}")
    return problems


def _documents(chain: Chain) -> list[str]:
    if chain.declared.knowledge is None:
        return []
    from chainops.knowledge.loaders import load as load_documents

    corpus = load_documents(list(chain.declared.knowledge.documents), chain.site.base)
    return [] if len(corpus) else [f"no document matches {', '.join(chain.declared.knowledge.documents)}"]


def _order(chain: Chain) -> list[str]:
    """Wrappers that stand where they make no sense."""
    words = [entry.word for entry in chain.declared.pipeline]
    notes = []
    if "cache" in words and "fallback" in words and words.index("cache") > words.index("fallback"):
        notes.append("a cache inside a fallback is asked once for each model tried; put it before the fallback")
    notes += [f"{word!r} stands twice in the pipeline" for word in sorted(set(words)) if words.count(word) > 1]
    return notes


def _traces(chain: Chain) -> list[str]:
    if chain.declared.traces != "off" and chain.site.tracer is None:
        return ["no traces are written: MLflow is not installed; pip install 'chainops[mlflow]', or set `traces: off`"]
    uri = chain.site.tracking_uri
    if not uri.startswith(("sqlite:", "http:", "https:", "postgresql")) and not os.environ.get("MLFLOW_TRACKING_URI"):
        return [f"mlflow: {uri} is not a database or a server"]
    return []
