from __future__ import annotations

import json

import numpy as np
import pytest

from chainops.core.caller import Caller
from chainops.routing.meaning import Meaning
from chainops.routing.records import Asking


def ask(chooser, question):
    return chooser.choose(Asking(question, Caller(), chooser.prepare(question)))


@pytest.fixture
def make(embedder, examples):
    def make(*, embedder=embedder, examples=examples, **options):
        return Meaning(lambda: embedder, examples, **options)

    return make


def test_a_question_goes_where_its_words_are_and_the_example_is_quoted(make):
    choice = ask(make(), "the app crashes every day")
    assert choice.route == "tech"
    assert '"the app crashes"' in choice.why
    assert "cosine" in choice.why
    assert set(choice.runners_up) == {"billing"}


def test_a_question_like_nothing_goes_nowhere_and_the_reason_says_what_came_first(make):
    choice = ask(make(false_rejects=0.2), "zebras graze quietly far away")
    assert choice.route is None
    assert "below" in choice.why
    json.dumps([choice.score, choice.runners_up, choice.facts])


def test_a_question_like_an_example_of_none_goes_nowhere(make, examples):
    chooser = make(examples=examples | {None: ("tell me a joke", "sing a song", "a joke please")})
    choice = ask(chooser, "tell me a good joke")
    assert choice.route is None
    assert "belongs to no route" in choice.why
    assert "none" not in chooser.names


def test_the_fit_is_kept_and_made_anew_only_when_examples_or_embedder_change(make, tmp_path, embedder, examples):
    path = tmp_path / "state" / "r.npz"
    assert make(path=path).fitted().is_new
    embedder.embedded.clear()
    again = make(path=path)
    assert not again.fitted().is_new
    assert not embedder.embedded
    assert ask(again, "the app crashes").route == "tech"
    assert make(path=path, examples=examples | {"sales": ("buy more", "an offer")}).fitted().is_new
    assert make(path=path).fitted().is_new  # the file held the other examples' fit
    other = type(embedder)(digest="words-2")
    assert make(path=path, embedder=other).fitted().is_new


def test_what_was_validated_is_read_back_as_it_was(make, tmp_path):
    path = tmp_path / "r.npz"
    assert make(path=path).fitted().validation == make(path=path).fitted().validation


@pytest.mark.parametrize("damage", [b"", b"nonsense", None], ids=["empty", "garbled", "cut"])
def test_a_broken_file_is_made_anew(make, tmp_path, damage):
    path = tmp_path / "r.npz"
    make(path=path).fitted()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert make(path=path).fitted().is_new
    assert not make(path=path).fitted().is_new


def test_nothing_pickled_is_ever_read(make, tmp_path):
    path = tmp_path / "r.npz"
    chooser = make(path=path)
    told = np.array([object()], dtype=object)
    np.savez(path, digest=np.array(chooser.digest), validation=told, groups=told)
    assert chooser.fitted().is_new


def test_a_place_that_cannot_be_written_is_told_and_routes_all_the_same(make, tmp_path):
    (tmp_path / "file").write_text("no folder")
    chooser = make(path=tmp_path / "file" / "r.npz")
    choice = ask(chooser, "the app crashes")
    assert choice.route == "tech"
    assert "cannot be written" in choice.facts["fit_not_kept"]


def test_the_real_model_tells_meaning_from_words():
    from chainops.models.embeddings import embedder

    chooser = Meaning(
        lambda: embedder("minilm"),
        {
            "billing": ("My invoice is wrong", "I want my money back", "Why was my card charged twice?"),
            "tech": ("The app crashes when it starts", "I cannot log in", "The page stays blank"),
            "travel": ("Which documents do I need to enter Japan?", "Book a flight to Rome", "Is my hotel near it?"),
        },
    )
    assert ask(chooser, "You took the amount from my account two times").route == "billing"
    assert ask(chooser, "It freezes as soon as I open it").route == "tech"
    assert ask(chooser, "Do I need a visa for Canada?").route == "travel"
    assert ask(chooser, "How long do lentils have to boil?").route is None
