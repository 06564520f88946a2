import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from chainops.core.errors import InvalidInput
from chainops.prompts.prompt import Prompt, PromptInvalid, PromptVariables

CHAT = Prompt(
    "help",
    (("system", 'Answer as {"json": 1} from {{ context }}.'), ("user", "{{history}}"), ("user", "{{question}}")),
)


def test_values_are_put_in_once_and_never_read_for_variables():
    system, user = CHAT.render(context="{{question}} {x}", history=[], question="{{context}}")
    assert system.content == 'Answer as {"json": 1} from {{question}} {x}.'
    assert user.content == "{{context}}"


def test_history_becomes_messages_where_it_stands_alone():
    past = [{"role": "user", "text": "hi"}, {"role": "assistant", "text": "hello {{question}}"}]
    messages = CHAT.render(context="", history=past, question="and now?")
    assert [(type(one), one.content) for one in messages[1:]] == [
        (HumanMessage, "hi"),
        (AIMessage, "hello {{question}}"),
        (HumanMessage, "and now?"),
    ]
    assert isinstance(messages[0], SystemMessage)


def test_history_may_be_text_too():
    assert CHAT.render(context="", history="we spoke", question="?")[1].content == "we spoke"


def test_a_list_of_history_inside_other_text_is_refused():
    with pytest.raises(InvalidInput, match="history"):
        Prompt("x", (("user", "Before: {{history}}"),)).render(history=[])


@pytest.mark.parametrize("turn", [{"role": "tool", "text": "x"}, {"role": "user"}, "text", {"role": "user", "text": 3}])
def test_a_turn_of_another_shape_is_refused(turn):
    with pytest.raises(InvalidInput, match="'role'"):
        CHAT.render(context="", history=[turn], question="?")


def test_missing_and_extra_values_are_named_together():
    with pytest.raises(PromptVariables, match="no value for context, history and no place for topic") as caught:
        CHAT.render(question="?", topic="x")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.missing, again.extra) == (("context", "history"), ("topic",))


def test_langchain_gets_the_same_messages_with_literal_braces_kept():
    values = {"context": "{c} {{d}}", "history": [HumanMessage("hi")], "question": "{q}"}
    assert CHAT.to_langchain().invoke(values).to_messages() == CHAT.render(**values)


@given(st.text(alphabet="{}ab \n\"'\\", max_size=30), st.text(max_size=20))
def test_langchain_and_render_agree_on_every_text(text, value):
    try:
        prompt = Prompt("x", (("user", f"{text}{{{{v}}}}{text}"),))
    except PromptInvalid:
        return
    assert prompt.to_langchain().invoke({"v": value}).to_messages() == prompt.render(v=value)


@pytest.mark.parametrize(
    "template",
    ["{{ user.name }}", "{{ x | upper }}", "{% if x %}", "{{x-y}}", '{{"a": 1}}', "{{", "{{ü}}", "{{1x}}", "{{{{x}}}}"],
)
def test_what_is_no_plain_variable_is_refused(template):
    with pytest.raises(PromptInvalid, match="no Jinja"):
        Prompt("x", (("user", template),))


@pytest.mark.parametrize(
    ("name", "messages", "says"),
    [
        ("a b", (("user", "x"),), "'a b' is no prompt name"),
        ("a/b", (("user", "x"),), "no prompt name"),
        ("a", (), "no message"),
        ("a", (("human", "x"),), "role 'human'; use one of system, user, assistant"),
        ("a", (("system", "x"), ("user", " \n ")), r"message 2 \(user\) is empty"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(name, messages, says):
    with pytest.raises(PromptInvalid, match=says):
        Prompt(name, messages)


def test_digest_depends_on_messages_alone_and_not_on_line_ends_or_blank_lines_around():
    one = Prompt("a", (("user", "x\r\ny\n\n"),), version=1, metadata={"description": "d"})
    other = Prompt("b", (("user", "\nx\ny"),), source="file:b.md")
    assert one.digest == other.digest
    assert one.digest != Prompt("a", (("system", "x\ny"),)).digest
