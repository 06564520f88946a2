import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from chainops.core.errors import InvalidInput, StoreUnavailable
from chainops.prompts.prompt import Prompt, PromptInvalid
from chainops.prompts.records import PromptNotFound
from chainops.prompts.registry import PromptRegistry

CHAT = Prompt("help", (("system", "Be brief."), ("user", "{{question}}")), metadata={"description": "d"})
TEXT = Prompt("help", (("user", "Only {{question}}"),))


def client_of(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def registry(uri):
    return PromptRegistry(uri)


@pytest.mark.parametrize("prompt", [CHAT, TEXT])
def test_what_is_pushed_is_loaded_by_version_and_by_alias(registry, prompt):
    pushed = registry.push(prompt, alias="production", message="first")
    assert (pushed.version, pushed.source, pushed.messages) == (1, "prompts:/help/1", prompt.messages)
    assert registry.load("help", version=1) == registry.load("help", alias="production") == pushed
    assert pushed.metadata == prompt.metadata
    assert pushed.digest == prompt.digest


def test_the_same_messages_make_no_new_version_whatever_their_description(registry):
    registry.push(CHAT, message="first")
    again = registry.push(Prompt("help", CHAT.messages, metadata={"description": "better"}))
    assert (again.version, again.metadata["description"]) == (1, "better")
    registry.push(TEXT)
    assert registry.push(CHAT, alias="production").version == 1
    assert [one.version for one in registry.versions("help")] == [1, 2]


def test_history_tells_versions_aliases_messages_and_digests(registry):
    registry.push(CHAT, message="first")
    registry.push(TEXT, alias="production", message="second")
    first, second = registry.versions("help")
    assert (first.aliases, first.message, first.digest) == ((), "first", CHAT.digest)
    assert (second.aliases, second.message, second.digest) == (("production",), "second", TEXT.digest)
    assert first.created_at <= second.created_at


def test_promoting_moves_the_alias_and_another_registry_sees_it_at_once(registry, uri):
    registry.push(CHAT, alias="production")
    registry.push(TEXT)
    other = PromptRegistry(uri)
    assert other.load("help", alias="production").version == 1
    assert registry.promote("help", 2, "production").version == 2
    assert other.load("help", alias="production").version == 2
    registry.promote("help", 1, "production")
    assert other.load("help", alias="production").version == 1


def test_what_is_missing_names_what_is_there(registry):
    registry.push(CHAT, alias="production")
    for ask in ({"version": 7}, {"alias": "staging"}):
        with pytest.raises(PromptNotFound, match="versions 1 and aliases: production → 1") as caught:
            registry.load("help", **ask)
        assert pickle.loads(pickle.dumps(caught.value)).aliases == (("production", 1),)
    with pytest.raises(PromptNotFound, match=r"no prompt 'halp' \(alias 'production'\); push it first"):
        registry.load("halp", alias="production")
    with pytest.raises(PromptNotFound, match="no prompt 'halp'"):
        registry.versions("halp")
    with pytest.raises(PromptNotFound, match="no version 2"):
        registry.promote("help", 2, "production")


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "a b", ""])
def test_an_alias_mlflow_keeps_for_itself_is_refused(registry, alias):
    with pytest.raises(InvalidInput, match="alias"):
        registry.push(CHAT, alias=alias)
    with pytest.raises(PromptNotFound):
        registry.versions("help")


def test_version_and_alias_are_not_both_given(registry):
    with pytest.raises(InvalidInput, match="exactly one"):
        registry.load("help")
    with pytest.raises(InvalidInput, match="exactly one"):
        registry.load("help", version=1, alias="x")


def test_a_prompt_registered_elsewhere_is_read_and_a_jinja_one_is_refused(registry, uri):
    client = client_of(uri)
    client.register_prompt("theirs", [{"role": "human", "content": "Hi {{ name }}"}])
    client.register_prompt("theirs", "{% if name %}Hi {{ name.first }}{% endif %}")
    assert registry.load("theirs", version=1).messages == (("user", "Hi {{ name }}"),)
    with pytest.raises(PromptInvalid, match="prompts:/theirs/2"):
        registry.load("theirs", version=2)
    assert registry.versions("theirs")[1].digest is None
    assert registry.push(Prompt("theirs", (("user", "Hi {{ name }}"),))).version == 1


def test_first_registrations_at_the_same_time_all_succeed(uri):
    prompts = [Prompt("help", (("user", f"Answer {number} {{{{question}}}}"),)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        pushed = list(pool.map(lambda prompt: PromptRegistry(uri).push(prompt), prompts))
    assert [one.digest for one in pushed] == [one.digest for one in prompts]
    assert sorted(one.version for one in pushed) == list(range(1, 9))


def test_the_address_mlflow_is_set_to_stays_as_it_is(registry):
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    registry.push(CHAT)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before


def test_looking_for_a_prompt_makes_no_database(tmp_path):
    registry = PromptRegistry(f"sqlite:///{tmp_path}/state/mlflow.db")
    with pytest.raises(PromptNotFound, match="push it first"):
        registry.load("help", version=1)
    with pytest.raises(PromptNotFound):
        registry.versions("help")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["gone", "hanging"])
def test_a_server_that_does_not_answer_is_one_clear_error_without_its_password(place, request):
    registry = PromptRegistry(request.getfixturevalue(place))
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1") as caught:
        registry.load("help", version=1)
    assert caught.value.retryable
    assert "hush" not in str(caught.value) + repr(registry)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is a text file, long enough to be looked at " * 20)
    with pytest.raises(StoreUnavailable, match=r"mlflow\.db"):
        PromptRegistry(f"sqlite:///{tmp_path}/mlflow.db").push(CHAT)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreUnavailable, match="folder cannot be made"):
        PromptRegistry(f"sqlite:///{tmp_path}/state/mlflow.db").push(CHAT)


def test_a_call_that_fails_in_another_thread_takes_nobodys_client_away(uri):
    class Losing(PromptRegistry):
        """After every second look at the client that is kept, a call of another thread fails."""

        kept, looks = None, 0

        @property
        def _kept(self):
            found = self.kept
            self.looks += found is not None
            if self.looks % 2 == 0:
                self.kept = None
            return found

        @_kept.setter
        def _kept(self, client):
            self.kept = client

    registry = Losing(uri)
    registry.push(CHAT)
    assert registry.load("help", version=1).messages == CHAT.messages
