import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainops.prompts.files import PromptFileNotFound, read_prompt, write_prompt
from chainops.prompts.prompt import Prompt, PromptInvalid

FULL = """---
name: python-help
description: "Answers: from the reference"
tags: {owner: docs, reviewed: 2024}
---

[system]
Answer from the context.

Two paragraphs.

[user]
{{history}}
[user]
{{question}}
\\[user]
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "help.md"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_front_matter_and_messages_are_read(file):
    prompt = read_prompt(file(FULL))
    assert prompt.name == "python-help"
    assert prompt.metadata == {"description": "Answers: from the reference", "owner": "docs", "reviewed": "2024"}
    assert prompt.messages == (
        ("system", "Answer from the context.\n\nTwo paragraphs."),
        ("user", "{{history}}"),
        ("user", "{{question}}\n[user]"),
    )
    assert prompt.variables == {"history", "question"}
    assert prompt.version is None


@pytest.mark.parametrize("text", ["Answer {{question}}\n", "\ufeffAnswer {{question}}", "\r\nAnswer {{question}}\r\n"])
def test_plain_text_is_one_user_message_named_after_its_file(file, text):
    prompt = read_prompt(file(text))
    assert (prompt.name, prompt.messages) == ("help", (("user", "Answer {{question}}"),))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("---\nname: x\nbody", 1, "does not end"),
        ("---\nname: [x\n---\nhi", 2, "no YAML"),
        ("---\n- x\n---\nhi", 2, "no mapping"),
        ("---\nname: x\ndescripton: y\n---\nhi", 3, "did you mean 'description'"),
        ("---\nname: 3\n---\nhi", 2, "name is 3"),
        ("---\ntags: [a]\n---\nhi", 2, "tags is"),
        ("---\ntags: {description: a}\n---\nhi", 2, "'description'"),
        ("Hello\n[user]\nhi", 1, "before the first message"),
        ("---\nname: x\n---\n[system]\n\n[user]\nhi", 4, "system message is empty"),
        ("[system]\nhi\n[user]\n", 3, "user message is empty"),
        ("", 1, "user message is empty"),
        ("[user]\nfirst\n\nthen {{ user.name }}", 4, "no Jinja"),
        ("---\nname: x\n---\nfirst\n{% for x in y %}", 5, "no Jinja"),
    ],
)
def test_an_error_names_file_and_line(file, text, line, says):
    with pytest.raises(PromptInvalid, match=says) as caught:
        read_prompt(file(text))
    assert str(caught.value).startswith(f"{file(text)}, line {line}: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"x" * 1_000_001, "more than"), ("---\nname: a b\n---\nx", "a b")],
)
def test_what_is_no_prompt_is_refused_with_its_file(file, content, says):
    with pytest.raises(PromptInvalid, match=says) as caught:
        read_prompt(file(content))
    assert "help.md" in str(caught.value)


def test_a_missing_file_suggests_its_neighbours(file):
    with pytest.raises(PromptFileNotFound, match=r"did you mean help\.md\?") as caught:
        read_prompt(file("x").with_name("halp.md"))
    assert pickle.loads(pickle.dumps(caught.value)).near == ("help.md",)
    with pytest.raises(PromptFileNotFound, match=r"no \.md file is in"):
        read_prompt(file("x").parent / "none" / "x.md")


texts = st.text(alphabet=st.sampled_from("ab[]\\ \n#-:{}") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
lines = st.lists(texts | st.sampled_from(["[user]", "\\[user]", "\\\\[system] ", "---", "{{x}}"]), min_size=1)
messages = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), lines.map("\n".join)), min_size=1)


@given(messages, st.dictionaries(st.sampled_from(["description", "owner", "yes"]), texts))
def test_what_is_written_is_read_back(tmp_path_factory, messages, metadata):
    try:
        prompt = Prompt("a-b_c.1", tuple(messages), metadata=metadata)
    except PromptInvalid:
        return
    path = tmp_path_factory.getbasetemp() / "round" / "trip.md"
    write_prompt(prompt, path)
    again = read_prompt(path)
    assert (again.name, again.messages, again.metadata) == (prompt.name, prompt.messages, prompt.metadata)
    assert [one.name for one in path.parent.iterdir()] == ["trip.md"]
