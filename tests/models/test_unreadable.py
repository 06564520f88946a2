import json
import sys

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import _convert_message_to_dict

from chainops.models.unreadable import is_unreadable_answer


def raised(work):
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


MODEL = ChatOpenAI(model="m", api_key="sk-none", base_url="http://127.0.0.1:9/v1", max_retries=0)


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": None},
        {"error": {"message": "no"}},
        {"choices": [{}]},
        "<html>",
        {"choices": [{"message": None}]},
    ],
)
def test_what_the_client_cannot_read_is_unreadable(response):
    assert is_unreadable_answer(raised(lambda: MODEL._create_chat_result(response)))


@pytest.mark.parametrize(
    "work",
    [
        lambda: sys.argv[10**6],
        lambda: json.loads("{"),
        lambda: {}["answer"],
        lambda: None.content,
        lambda: JsonOutputParser().invoke(AIMessage("no json here")),
        lambda: MODEL.invoke(123),
        lambda: MODEL.invoke("x", no_such_argument=1),
        lambda: list(MODEL.stream("x", no_such_argument=1)),
        lambda: _convert_message_to_dict("not a message"),
        lambda: AIMessage(content=object()),
    ],
)
def test_a_mistake_in_the_code_is_not(work):
    assert not is_unreadable_answer(raised(work))


def test_an_exception_that_was_never_raised_is_not():
    assert not is_unreadable_answer(IndexError("list index out of range"))


def test_a_failing_callback_of_the_users_is_not():
    def answer():
        return MODEL._create_chat_result({"choices": Exploding()})

    class Exploding(list):
        def __iter__(self):
            raise TypeError("my own mistake")

    assert not is_unreadable_answer(raised(answer))
