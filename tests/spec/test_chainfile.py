from __future__ import annotations

import copy
import pickle

import pytest

from chainops.spec.chainfile import understand
from chainops.spec.errors import ChainFileError, shown, shown_words
from chainops.spec.schema import chain_schema
from chainops.spec.yaml import Source, parse

GOOD = """\
chainops: 1
name: help
kind: rag
models:
  small: {model: "openai:gpt-4o-mini", timeout_s: 10}
  local: {model: extractive}
knowledge: {documents: "docs/*.md"}
pipeline:
  - cache: {threshold: 0.9, ttl: 24h}
  - fallback: [small, local, {say: sorry}]
"""


def problems(text: str):
    with pytest.raises(ChainFileError) as caught:
        understand(parse(text, "chain.yaml", {}))
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
    return caught.value.problems


def test_a_good_file_is_understood():
    declared = understand(parse(GOOD, "f", {}))
    cache, fallback = declared.pipeline
    assert (cache.word, cache.settings.ttl, fallback.settings.routes[2].say) == ("cache", 86_400.0, "sorry")
    assert declared.knowledge.documents == ("docs/*.md",)


def test_what_was_said_can_be_written_and_read_again():
    declared = understand(parse(GOOD, "f", {}))
    again = understand(Source("again", declared.words()))
    assert again == declared
    assert again.digest() == declared.digest()
    assert understand(parse(GOOD.replace("0.9", "0.8"), "f", {})).digest() != declared.digest()


@pytest.mark.parametrize(
    ("old", "new", "at", "key", "expected", "nearest"),
    [
        ("timeout_s: 10", "timeut_s: 10", "timeut_s", "models.small.timeut_s", "timeout_s", "timeout_s"),
        ("threshold: 0.9", "treshold: 0.9", "treshold", "pipeline.0.cache.treshold", "ttl", "threshold"),
        ("threshold: 0.9", "threshold: 9", "threshold", "pipeline.0.cache.threshold", "less than or equal to 1", None),
        ("- cache:", "- cahe:", "cahe", "pipeline.0.cahe", "cache", "cache"),
        ("kind: rag", "kind: rga", "kind", "kind", "'rag' or 'chat'", "rag"),
        ("[small, local", "[smal, local", "smal,", "pipeline.1.fallback.0", "small", "small"),
        ("chainops: 1", "chainops: 2", "chainops", "chainops", "1", None),
        ("name: help", "name: a/b", "name", "name", "letters", None),
        ("ttl: 24h", "ttl: soon", "ttl", "pipeline.0.cache.ttl", "24h", None),
        ("extractive", "extractiv", "model: extractiv", "models.local.model", "extractive", None),
        ('knowledge: {documents: "docs/*.md"}\n', "", "chainops", "", "knowledge", None),
        ("{say: sorry}", "{sya: sorry}", "sya", "pipeline.1.fallback.2.sya", "say", "say"),
    ],
)
def test_a_mistake_is_named_with_line_column_and_nearest_word(old, new, at, key, expected, nearest):
    text = GOOD.replace(old, new)
    before = text[: text.index(at)]
    told = problems(text)[0]
    assert (told.line, told.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert told.key == key
    assert expected in told.expected
    assert told.nearest == nearest


@pytest.mark.parametrize(
    ("entry", "found", "expected"),
    [
        ("deadline: soon", "'soon'", "seconds"),
        ("limits: {}", "{}", "at least one of requests_per_minute"),
        ("limits: 5", "5", "a mapping, such as `{requests_per_minute: ...}`"),
        ("cache: {max_error_rate: 0.1, threshold: 0.9}", "{max_error_rate: 0.1, threshold: 0.9}", "not both"),
        ("route: {by: weight, weights: {small: 0}}", "{by: weight, weights: {small: 0}}", "a weight above 0"),
        ("breaker: {open_s: 10, most_open_s: 5}", "{open_s: 10, most_open_s: 5}", "at least open_s"),
        ("deadline: {within_s: 5, shares: {attempt: 2}}", "{within_s: 5, shares: {attempt: 2}}", "up to 1"),
        ("deadline: {within_s: 5, shares: {cook: 0.5}}", "'cook'", "'retrieve', 'rerank' or 'attempt'"),
        ("fallback: []", "[]", "at least 1 in it"),
        ("fallback: 5", "5", "a list"),
        ("fallback: [small, 3]", "3", "a mapping, such as `{say: ...}`"),
        ("retry: [{password: hunter2}]", "[{password: ***}]", "a mapping, such as `{attempts: ...}`"),
        ("hedge: small", "'small'", "a mapping, such as `{model: ...}`"),
        ("hedge: {model: small, after: soon}", "'soon'", "'p95', or seconds, or a number with a unit such as 250ms"),
        ("hedge: {model: small, after: -1}", "-1", "'p95', or greater than 0"),
        ("fallback: [small, {stale_cache: true}]", "`stale_cache` without a cache", "`cache` in the pipeline"),
    ],
)
def test_a_mistake_says_what_was_found_and_what_would_be_right(entry, found, expected):
    (told,) = problems(GOOD[: GOOD.index("pipeline:")] + f"pipeline:\n  - {entry}\n")
    assert told.found == found
    assert expected in told.expected


def test_two_ways_to_be_right_are_told_with_the_nearest_word_of_both():
    (told,) = problems(GOOD.replace("- cache: {threshold: 0.9, ttl: 24h}", "- hedge: {model: small, after: p96}"))
    assert (told.line, told.column, told.key) == (9, 27, "pipeline.0.hedge.after")
    assert told.nearest == "p95"
    assert "did you mean 'p95'?" in str(told)


@pytest.mark.parametrize(
    ("routes", "line", "column", "key"),
    [
        ("[small, {stale_cache: true}]", 9, 24, "pipeline.0.fallback.1.stale_cache"),
        ("{routes: [small, {stale_cache: true}]}", 9, 33, "pipeline.0.fallback.routes.1.stale_cache"),
    ],
)
def test_a_route_into_a_cache_that_is_not_there_is_told_where_it_is_named(routes, line, column, key):
    text = GOOD[: GOOD.index("  - cache")] + f"  - fallback: {routes}\n"
    (told,) = problems(text)
    assert (told.line, told.column, told.key) == (line, column, key)
    assert str(told).endswith("found `stale_cache` without a cache; expected `cache` in the pipeline")
    assert understand(parse(text + "  - cache\n", "f", {}))


def test_what_does_not_fit_its_kind_is_told_with_the_words_that_are_there():
    (told,) = problems(GOOD.replace('knowledge: {documents: "docs/*.md"}\n', ""))
    assert told.found.startswith("these words: chainops, name")


def test_what_stands_under_names_of_secrets_is_not_shown():
    told = shown_words({"api_key": "hunter2", "auth": {"password": {"now": "hunter2"}}, "tokens": 5, "by": "a" * 99})
    assert told.startswith("{api_key: ***, auth: {password: {now: ***}}, tokens: 5, by: aaa")
    assert len(told) == 80
    assert shown_words({"url": "redis://u:hun@ter2@h", "none": None, "on": [True]}) == (
        "{url: redis://***@h, none: null, on: [true]}"
    )
    assert shown_words({"password": 1234, "headers": {"Authorization": "Bearer hunter2"}, "max_tokens": 9}) == (
        "{password: ***, headers: {Authorization: ***}, max_tokens: 9}"
    )
    assert shown([{"keys": ["hunter2", 3]}, {"say": "one\ntwo"}]) == r"[{keys: [***, 3]}, {say: 'one\ntwo'}]"


@pytest.mark.parametrize("word", ["keys: hunter2", "keys: [hunter2 x]", "keys: [hunter2, 5]", "key_env: hunter2 x"])
def test_what_stands_where_the_name_of_a_key_should_is_not_shown(word):
    (told, *_) = problems(GOOD.replace("timeout_s: 10", word))
    assert told.key.startswith("models.small.key")
    assert "hunter2" not in str(told)


def test_one_wrapper_s_mistake_neither_moves_nor_adds_those_of_the_others():
    text = GOOD.replace("threshold", "treshold").replace("[small, local", "[{stale_cache: true}, smal")
    assert [(each.line, each.column, each.key) for each in problems(text)] == [
        (9, 13, "pipeline.0.cache.treshold"),
        (10, 37, "pipeline.1.fallback.1"),
    ]


@pytest.mark.parametrize("pipeline", ["5", "cache", "{cache: {}}", "[5]", "[[[a]]]", "[~]", "[{fallback: [small]}, 5]"])
def test_what_is_no_pipeline_is_one_mistake(pipeline):
    (told,) = problems(GOOD[: GOOD.index("pipeline:")] + f"pipeline: {pipeline}\n")
    assert told.line == 8


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    told = problems(
        GOOD.replace("kind: rag", "kind: x").replace("timeout_s: 10", "timeout_s: -1").replace("cache:", "cash:")
    )
    assert [each.line for each in told] == [3, 5, 9]


def test_a_key_in_the_wrong_place_is_not_repeated_in_the_error():
    for bad in (
        "api_key: sk-abcdefgh12345678",
        "key_env: sk-abcdefgh12345678",
        "parameters: {api_key: sk-abcdefgh12345678}",
    ):
        told = problems(GOOD.replace("timeout_s: 10", bad))
        assert "abcdefgh" not in str(told)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    told = problems(GOOD + "store: postgresql://me:hunter2@db/x\n")
    assert "hunter2" not in str(told)
    assert "PGPASSWORD" in str(told)


def test_a_shorthand_is_accepted_for_a_wrapper_without_words():
    declared = understand(parse(GOOD.replace("- cache: {threshold: 0.9, ttl: 24h}", "- cache"), "f", {}))
    assert declared.pipeline[0].settings.bound == 0.01


def test_the_schema_knows_every_word_and_accepts_the_good_file():
    import jsonschema

    schema = chain_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    said = parse(GOOD, "f", {}).value
    jsonschema.validate(said, schema)
    wrong = copy.deepcopy(said)
    wrong["pipeline"][0] = {"cahe": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_a_plugin_joins_only_when_it_is_installed(tmp_path, monkeypatch):
    from chainops.spec import registry

    (tmp_path / "loud.py").write_text(
        "from langchain_core.runnables import RunnableLambda\n"
        "from chainops.core.settings import Settings\n"
        "from chainops.spec.registry import Wrapper\n"
        "class Loud(Settings):\n    mark: str = '!'\n"
        "LOUD = Wrapper('loud', Loud, lambda settings, site, rest: rest(), 'says it louder')\n"
    )
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chainops.wrappers]\nloud = loud:LOUD\n")
    text = GOOD.replace("- cache:", "- loud: {mark: '?'}\n  - cache:")
    assert problems(text)[0].nearest is None
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._plugins.cache_clear()
    try:
        assert understand(parse(text, "f", {})).pipeline[0].settings.mark == "?"
    finally:
        registry._plugins.cache_clear()
