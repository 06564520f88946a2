"""The words of a chain file. What they mean is in `build.py`."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, Tag, ValidationError, field_validator, model_validator

from chainops.core.caller import Exposed
from chainops.core.settings import Settings
from chainops.memory.component import MemorySettings
from chainops.models.providers import ModelSettings
from chainops.spec.errors import Problem, listed, nearest, shown, shown_words
from chainops.spec.registry import Wrapper, wrapper
from chainops.spec.yaml import Path_, Source

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _listed_alone(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _model_alone(value: Any) -> Any:
    """`main: extractive` means `main: {model: extractive}`."""
    return {"model": value} if isinstance(value, str) else value


_ModelAlone = str | ModelSettings


class KnowledgeSettings(Settings):
    """Where answers come from."""

    documents: Annotated[tuple[str, ...], BeforeValidator(_listed_alone, json_schema_input_type=str | list[str])]
    """Paths and globs, from the folder of the chain file: text, Markdown, HTML, PDF, notebooks."""
    retrieve: int = Field(default=20, ge=1, le=1000)
    """How many passages are looked at."""
    rerank: int = Field(default=5, ge=1, le=100)
    """How many of them the model reads."""
    token_budget: int = Field(default=2000, ge=50)
    """The most tokens the passages may take up in the prompt."""
    passage_tokens: int = Field(default=200, ge=20, le=2000)
    """How long a passage is, about."""


class PipelineEntry:
    """One wrapper of the pipeline: its word and what is said of it."""

    def __init__(self, word: str, settings: Any) -> None:
        self.word, self.settings = word, settings

    def __repr__(self) -> str:
        return f"{self.word}: {self.settings!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PipelineEntry) and (self.word, self.settings) == (other.word, other.settings)

    __hash__ = None  # type: ignore[assignment]


class ChainFile(Settings):
    """Everything a chain file may say."""

    chainops: Literal[1]
    """Version of this format."""
    name: str
    """Names the chain in traces, routes and its index: letters, digits, dot, dash, underscore."""
    kind: Literal["rag", "chat"]
    """`rag` answers from documents; `chat` talks, and remembers the session."""
    description: str = ""
    prompt: str | None = None
    """`file:prompts/x.md`, `prompts:/name@alias` or `prompts:/name/3` (MLflow's registry); none: the kind's own."""
    models: dict[str, Annotated[ModelSettings, BeforeValidator(_model_alone, json_schema_input_type=_ModelAlone)]] = (
        Field(min_length=1)
    )
    """By the name the pipeline calls them; the first is used where nothing else is said."""
    embeddings: str = "minilm"
    knowledge: KnowledgeSettings | None = None
    memory: MemorySettings | None = None
    pipeline: tuple[Any, ...] = ()
    """Wrappers from the outside in: the request passes them downwards, the answer upwards."""
    store: str | None = None
    """`postgresql://...`, `sqlite:///...`, or a path from the file's folder; none: `.chainops/chainops.db` beside the
    file, or under CHAINOPS_HOME."""
    mlflow: str | None = None
    """Tracking URI for prompts and traces; none: MLFLOW_TRACKING_URI, else `.chainops/mlflow.db`."""
    traces: Literal["auto", "on", "off"] = "auto"
    """`auto`: traces are written when MLflow is installed and CHAINOPS_TRACES is not `off`."""
    expose: tuple[Exposed, ...] = ("status", "sources")
    """What clients of the served chain see of an answer beside its text: status, sources, data, report."""
    max_question_chars: int = Field(default=20_000, ge=1)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("expected up to 100 letters, digits, dots, dashes and underscores")
        return name

    @field_validator("store", "mlflow")
    @classmethod
    def _has_no_password(cls, url: str | None) -> str | None:
        if url and re.match(r"[a-z+0-9]+://[^/@]*:[^/@]+@", url):
            raise ValueError(
                "expected a URL without a password: PostgreSQL reads PGPASSWORD or ~/.pgpass, MLflow its own variables"
            )
        return url

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ChainFile:
        if self.kind == "rag" and self.knowledge is None:
            raise ValueError("expected `knowledge: {documents: [...]}`, because kind is rag")
        if self.kind == "chat" and self.knowledge is not None:
            raise ValueError("expected kind: rag, or no `knowledge`: a chat does not read documents")
        return self

    def words(self) -> dict[str, Any]:
        """What was said, as plain JSON, without what was left to its default."""
        told = self.model_dump(mode="json", exclude_unset=True, exclude={"pipeline"})
        if self.pipeline:
            told["pipeline"] = [
                {each.word: each.settings.model_dump(mode="json", exclude_unset=True)} for each in self.pipeline
            ]
        return told

    def digest(self) -> str:
        """sha256 of everything said and defaulted: changes when the chain's meaning may."""
        told = self.model_dump(mode="json", exclude={"pipeline", "description"})
        told["pipeline"] = [{each.word: each.settings.model_dump(mode="json")} for each in self.pipeline]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def understand(source: Source, base: Path | None = None, files: Sequence[Path] = ()) -> ChainFile:
    """The declared chain, or every problem with its place.

    Args:
        base: The folder that paths are relative to; None: whether the files it names are there is not looked at.
        files: The chain file itself, after those that lead to it as a route: none of them can be a route of it.

    Raises:
        ChainFileError: With all problems found.
    """
    problems: list[Problem] = []
    words = dict(source.value)
    entries = words.pop("pipeline", None)
    pipeline = _pipeline(entries, source, problems)
    declared: ChainFile | None = _validated(ChainFile, words, (), source, problems)
    if declared is not None:
        problems += _unknown_models(declared, pipeline, source)
    problems += _lonely(pipeline, entries, source)
    if base is not None:
        problems += _unusable_files(pipeline, source, base, files)
    if problems:
        raise source.error(sorted(problems, key=lambda each: (each.line or 0, each.column or 0)))
    assert declared is not None
    return declared.model_copy(update={"pipeline": tuple(pipeline.values())})


_Pipeline = Mapping[int, PipelineEntry]
"""What is understood, by its position among all that is said."""


def _pipeline(entries: Any, source: Source, problems: list[Problem]) -> _Pipeline:
    if entries is None:
        return {}
    if not isinstance(entries, list):
        problems.append(_problem(source, ("pipeline",), shown(entries), "a list of wrappers, such as `- cache: {}`"))
        return {}
    understood: dict[int, PipelineEntry] = {}
    for position, entry in enumerate(entries):
        path: Path_ = ("pipeline", position)
        if isinstance(entry, str):
            entry = {entry: {}}  # noqa: PLW2901 (`- cache` means `- cache: {}`)
        if not isinstance(entry, Mapping) or len(entry) != 1:
            problems.append(_problem(source, path, shown(entry), "one wrapper, such as `cache: {ttl: 24h}`"))
            continue
        word, said = next(iter(entry.items()))
        known: Wrapper | None = wrapper(word)
        if known is None:
            words = Wrapper.words()
            problems.append(
                _problem(source, (*path, word), repr(word), f"one of {listed(words)}", nearest(word, words))
            )
            continue
        prepared = known.prepared({} if said is None else said)
        settings = _validated(known.settings, prepared, (*path, word), source, problems)
        if settings is not None:
            understood[position] = PipelineEntry(word, settings)
    return understood


def _unknown_models(declared: ChainFile, pipeline: _Pipeline, source: Source) -> list[Problem]:
    problems = []
    for position, entry in pipeline.items():
        for where, name in wrapper(entry.word).models_named(entry.settings):  # type: ignore[union-attr]
            if name not in declared.models:
                path = _as_written(source, ("pipeline", position, entry.word), where)
                expected = f"one of the models declared above: {listed(declared.models)}"
                problems.append(_problem(source, path, repr(name), expected, nearest(name, declared.models)))
    return problems


def _lonely(pipeline: _Pipeline, entries: Any, source: Source) -> Iterable[Problem]:
    """What wrappers say that means nothing without another wrapper, where that one is not there: one that is there
    with a mistake in it will be.
    """
    said = [each for each in entries if isinstance(each, str | Mapping)] if isinstance(entries, list) else []
    there = set[str]().union(*({each} if isinstance(each, str) else each for each in said))
    for position, entry in pipeline.items():
        for where, word in wrapper(entry.word).wrappers_named(entry.settings):  # type: ignore[union-attr]
            if word not in there:
                path = _as_written(source, ("pipeline", position, entry.word), where)
                yield _problem(source, path, f"`{where[-1]}` without a {word}", f"`{word}` in the pipeline")


def _as_written(source: Source, path: Path_, where: Path_) -> Path_:
    """The place of a word inside the settings that stand at `path`, as the file has it."""
    for part in where:
        if not source.marks or (*path, part) in source.marks:  # a shorthand leaves a word out
            path = (*path, part)
    return path


def _unusable_files(pipeline: _Pipeline, source: Source, base: Path, files: Sequence[Path]) -> Iterable[Problem]:
    """Files that wrappers name and that cannot be read: they are told where they are named."""
    for position, entry in pipeline.items():
        known = wrapper(entry.word)
        assert known is not None
        chains, others = list(known.chains_named(entry.settings)), list(known.files_named(entry.settings))
        for where, name in (*chains, *others):
            at = _as_written(source, ("pipeline", position, entry.word), where)
            if why := _why_unreadable(base / name):
                kind = "a chain file" if (where, name) in chains else "a file"
                expected = f"{kind}, by its path from {base.resolve()}"
                yield _problem(source, at, f"{name!r}, {why}", expected, _file_like(base, name))
            elif (where, name) in chains and (place := (base / name).resolve()) in files:
                way = " → ".join(each.name for each in (*files, place))
                yield _problem(source, at, f"a circle: {way}", "routes that lead to other chains")


def _why_unreadable(path: Path) -> str | None:
    """Why there is no file to read at `path`; None when there is one."""
    try:
        return "a folder" if stat.S_ISDIR(path.stat().st_mode) else None
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a NUL in the name
        return str(error)


def _file_like(base: Path, name: str) -> str | None:
    """A file of the same folder and kind whose name is most like it."""
    wanted = Path(name)
    try:
        stems = [each.stem for each in (base / wanted.parent).iterdir() if each.suffix == wanted.suffix]
    except (OSError, ValueError):
        return None
    like = nearest(wanted.stem, stems)
    return None if like is None else (wanted.parent / f"{like}{wanted.suffix}").as_posix()


def _validated(model: type[BaseModel], value: Any, at: Path_, source: Source, problems: list[Problem]) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        told = [_told(model, value, each, at, source) for each in error.errors(include_input=False)]
        misspelt = {f"no {each.nearest!r}" for each in told if each.nearest}  # `sya` for `say` is one mistake, not two
        problems += _joined(each for each in told if each.found not in misspelt)
        return None


def _joined(problems: Iterable[Problem]) -> list[Problem]:
    """One problem for one word, where several things would have been right: pydantic tells one for each of them."""
    told: dict[Any, Problem] = {}
    for each in problems:
        word = each.expected if each.is_rule else None, each.key, each.found
        if (other := told.get(word)) is None:
            told[word] = each
        elif each.expected != other.expected:
            expected = f"{other.expected}, or {each.expected}"
            told[word] = replace(other, expected=expected, nearest=other.nearest or each.nearest)
    return list(told.values())


def _told(model: type[BaseModel], value: Any, error: Any, at: Path_, source: Source) -> Problem:
    """A pydantic error in the words of the file."""
    told: Path_ = ()  # the way to the word, as the file has it
    inside = value
    fields: type[BaseModel] | None = model
    kinds: dict[str, type[BaseModel]] = {}
    for part in error["loc"]:  # pydantic names union members and aliases on the way; the file does not
        if isinstance(inside, Mapping) and part in inside:
            if part != error["loc"][-1]:
                fields, kinds = _model_of(fields, part)
        elif part in kinds:
            fields = kinds[part]
            continue
        elif not (isinstance(inside, list | tuple) and isinstance(part, int) and part < len(inside)):
            continue
        inside = inside[part]
        if not source.marks or (*at, *told, part) in source.marks:  # a shorthand leaves a word out
            told = (*told, part)
    kind, found = error["type"], shown(inside)
    if error["loc"] and error["loc"][-1] == "[key]":
        found = shown(error["loc"][-2])
    if not {"keys", "key_env"}.isdisjoint(told):  # names of variables; what is none may be the key itself
        found = "***"
    if kind == "extra_forbidden":
        options = list(kinds.values()) if fields in kinds.values() else [fields] if fields else []
        words = [field.alias or name for each in options for name, field in each.model_fields.items()]
        word = str(told[-1]) if told else "?"
        return _problem(source, (*at, *told), repr(word), f"one of {listed(words)}", nearest(word, words))
    if kind == "missing":
        missing = str(error["loc"][-1])
        return _problem(source, (*at, *told), f"no {missing!r}", f"`{missing}: ...`")
    expected = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        like = nearest(inside, words) if isinstance(inside, str) else None
        return _problem(source, (*at, *told), found, expected, like)
    if kind == "value_error":
        rule = expected.removeprefix("expected ")
        if at and not told and isinstance(inside, Mapping):  # a rule about all that is said of a wrapper
            found = shown_words(inside)
        return replace(_problem(source, (*at, *told), found, rule), is_rule=rule == expected)
    known = [fields, *kinds.values(), _model_of(fields, error["loc"][-1])[0] if error["loc"] else None]
    return _problem(source, (*at, *told), found, _kind_expected(error, known) or expected)


def _kind_expected(error: Any, known: Iterable[type[BaseModel] | None]) -> str | None:
    """What pydantic expects, without its names of Python types; None where it says so itself."""
    kind, facts = error["type"], error.get("ctx", {})
    if kind in ("tuple_type", "list_type", "set_type", "frozen_set_type"):
        return "a list"
    if kind == "too_short":
        return f"at least {facts['min_length']} in it"
    if kind == "dict_type":
        return "a mapping, such as `{name: ...}`"
    if kind in ("model_type", "model_attributes_type"):
        settings = next((each for each in known if each is not None and each.__name__ == facts["class_name"]), None)
        needed = {} if settings is None else settings.model_fields
        word = next(
            (field.alias or name for name, field in needed.items() if field.is_required()), next(iter(needed), "name")
        )
        return f"a mapping, such as `{{{word}: ...}}`"
    return None


def _model_of(model: type[BaseModel] | None, word: Any) -> tuple[type[BaseModel] | None, dict[str, type[BaseModel]]]:
    """The settings class behind a field, looking through dicts, tuples and `| None`; and those of a union by tag."""
    if model is None or word not in model.model_fields:
        return model, {}
    found: list[type[BaseModel]] = []
    kinds: dict[str, type[BaseModel]] = {}
    waiting: list[tuple[Any, str | None]] = [(model.model_fields[word].annotation, None)]
    while waiting:
        each, tag = waiting.pop(0)
        if typing.get_origin(each) is None and isinstance(each, type) and issubclass(each, BaseModel):
            found.append(each)
            if tag is not None:
                kinds[tag] = each
            continue
        tags = [said.tag for said in getattr(each, "__metadata__", ()) if isinstance(said, Tag)]
        waiting += [(inner, tags[0] if tags else tag) for inner in typing.get_args(each)]
    return (found[0] if found else None), kinds


def _problem(source: Source, path: Path_, found: str, expected: str, like: str | None = None) -> Problem:
    line, column = source.at(path)
    return Problem(key=".".join(map(str, path)), found=found, expected=expected, line=line, column=column, nearest=like)
