import pytest

from chainops.core.errors import InvalidInput
from chainops.prompts.files import PromptFileNotFound
from chainops.prompts.prompt import Prompt
from chainops.prompts.records import PromptNotFound
from chainops.prompts.references import load_prompt
from chainops.prompts.registry import PromptRegistry


def test_a_file_is_found_beside_the_chain_file(tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "help.md").write_text("Answer {{question}}")
    assert load_prompt("file:prompts/help.md", base=tmp_path).name == "help"
    with pytest.raises(PromptFileNotFound, match=r"did you mean help\.md"):
        load_prompt("file:prompts/hepl.md", base=tmp_path)


def test_a_version_and_an_alias_are_found_in_the_registry(uri, tmp_path):
    PromptRegistry(uri).push(Prompt("help.v2", (("user", "{{question}}"),)), alias="production")
    by_alias = load_prompt("prompts:/help.v2@production", base=tmp_path, tracking_uri=uri)
    assert by_alias == load_prompt("prompts:/help.v2/1", base=tmp_path, tracking_uri=uri)
    assert by_alias.version == 1


def test_the_default_registry_is_at_home_beside_the_chain_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CHAINOPS_HOME", raising=False)
    with pytest.raises(PromptNotFound) as caught:
        load_prompt("prompts:/help/1", base=tmp_path)
    assert caught.value.place == f"sqlite:///{tmp_path}/.chainops/mlflow.db"


@pytest.mark.parametrize(
    "reference",
    ["help.md", "file:", "prompts:/help", "prompts:/help@", "prompts:/help/0", "prompts:/a/b/1", "prompts:help/1"],
)
def test_another_form_is_refused_with_those_that_work(reference, tmp_path):
    with pytest.raises(InvalidInput, match=r"prompts:/NAME@ALIAS, prompts:/NAME/VERSION, or file:PATH\.md"):
        load_prompt(reference, base=tmp_path)
