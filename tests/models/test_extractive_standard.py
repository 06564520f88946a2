"""LangChain's own suites for chat models, run on the extractive one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from chainops.models.extractive import ExtractiveChatModel

for _name, _test in inspect.getmembers(ChatModelIntegrationTests, inspect.iscoroutinefunction):
    # LangChain leaves its coroutines unmarked and asks for a project-wide asyncio_mode. The mark goes on in place,
    # because the suite checks that none of its tests is overridden.
    if _name.startswith("test_"):
        pytest.mark.asyncio(_test)


class _Extractive:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ExtractiveChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "extractive"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # Without the suite's api_key: it calls no server, and a setting that it does not know is an error.
        return {"temperature": 0, "max_tokens": 100, "timeout": 60, "stop": [], "max_retries": 2}


class TestUnit(_Extractive, ChatModelUnitTests):
    pass


class TestIntegration(_Extractive, ChatModelIntegrationTests):
    pass
