"""`chainops check`: everything that can be known without asking a question."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer
from langchain_core.messages.ai import UsageMetadata

from chainops.core.errors import ChainopsError
from chainops.spec.chain import Chain, load
from chainops.spec.errors import ChainFileError


def check(path: Path, *, as_json: bool) -> bool:
    """Print what is wrong, and what is only odd. True when the chain can be run."""
    problems, notes = [], []
    try:
        chain = load(path)
    except ChainFileError as error:
        inside = "" if Path(error.place).resolve() == path.resolve() else f"{error.place}: "  # a chain that is a route
        problems = [f"{inside}{each}" for each in error.problems]
    except ChainopsError as error:
        problems = [str(error)]
    else:
        unread, changed = _documents(chain)
        problems = [*_models(chain), *unread]
        notes = [*changed, *_keys(chain), *_prompt(chain), *_order(chain), *_prices(chain), *_traces(chain)]
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


def _keys(chain: Chain) -> list[str]:
    """Keys of models with several that are not there: the others do their work."""
    return [
        f"models.{name}: {variable} is not set; its other keys are used"
        for name, settings in chain.declared.models.items()
        for variable in settings.keys or ()
        if not os.environ.get(variable, "").strip()
    ]


def _documents(chain: Chain) -> tuple[list[str], list[str]]:
    """Reads every document: what makes the chain unable to answer, and what is only worth knowing."""
    if chain.declared.knowledge is None:
        return [], []
    from chainops.knowledge.documents import EmptyCorpus
    from chainops.knowledge.loaders import load as load_documents

    corpus = load_documents(list(chain.declared.knowledge.documents), chain.site.base)
    try:
        digests = {document.id: document.digest for document in corpus}
    except EmptyCorpus as error:
        return [f"knowledge.documents: {error}"], []
    notes = [f"not read: {problem}" for problem in corpus.problems]
    indexed = chain.site.knowledge().document_digests()
    if indexed and indexed != digests:
        changed = sum(indexed.get(name) != digest for name, digest in digests.items())
        gone = len(indexed.keys() - digests.keys())
        notes.append(f"{changed} documents changed and {gone} went since they were indexed: `chainops index` them")
    return [], notes


def _prompt(chain: Chain) -> list[str]:
    """Places of the prompt that only the caller can fill."""
    known = {"question", "history"} | ({"context"} if chain.declared.knowledge is not None else set())
    odd = sorted(chain.site.prompt.variables - known)
    asked = ", ".join(f'"{name}": ...' for name in odd)
    return [f'the prompt has places that each caller must fill: {{"question": ..., {asked}}}'] if odd else []


def _order(chain: Chain) -> list[str]:
    """Wrappers that stand where they make no sense."""
    words = [entry.word for entry in chain.declared.pipeline]
    notes = []
    if "cache" in words and "fallback" in words and words.index("cache") > words.index("fallback"):
        notes.append("a cache inside a fallback is asked once for each model tried; put it before the fallback")
    if "fallback" in words:
        outside = [word for word in words[: words.index("fallback")] if word in _PER_ROUTE]
        told = "before the fallback is for all its routes together; put it after, for each by itself"
        notes += [f"{word!r} {told}" for word in outside]
    notes += [f"{word!r} stands twice in the pipeline" for word in sorted(set(words)) if words.count(word) > 1]
    return notes


_PER_ROUTE = ("breaker", "retry")


def _prices(chain: Chain) -> list[str]:
    """Models that a budget in USD will not let be asked."""
    from chainops.core.caller import Caller
    from chainops.resilience.budgets.policy import BudgetSettings, limits_usd

    budgets = [each.settings for each in chain.declared.pipeline if isinstance(each.settings, BudgetSettings)]
    nobody = Caller()
    if not any(limits_usd(each, nobody) and each.unknown_price_usd_per_million_tokens is None for each in budgets):
        return []
    costs = {name: model.cost(_ONE_TOKEN) for name, model in chain.site.models.items()}
    return [
        f"models.{name} is not asked under a budget in USD: its price is {cost.source}"
        for name, cost in costs.items()
        if cost.usd is None
    ]


_ONE_TOKEN: UsageMetadata = {"input_tokens": 1, "output_tokens": 0, "total_tokens": 1}


def _traces(chain: Chain) -> list[str]:
    if chain.declared.traces != "off" and os.environ.get("CHAINOPS_TRACES") != "off" and chain.site.tracer is None:
        return ["no traces are written: MLflow is not installed; pip install 'chainops[mlflow]', or set `traces: off`"]
    uri = chain.site.tracking_uri
    if not uri.startswith(("sqlite:", "http:", "https:", "postgresql")) and not os.environ.get("MLFLOW_TRACKING_URI"):
        return [f"mlflow: {uri} is not a database or a server"]
    return []
