"""Whether an answer to a question about numbers looks right: by its own arithmetic.

Nothing is solved here. It is looked at whether the answer's equations hold, whether it comes to a final number and
which, and whether it used what the question gave. Weights and what they were trained on are in `arithmetic.json`.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from functools import cache
from pathlib import Path
from typing import Any

NUMBERS = Path(__file__).with_name("arithmetic.json")
_MAX_CHARS = 20_000

_EQUATION = re.compile(r"([\d.,$()+\-*/x×÷% ]{3,80})=\s?\$?(-?\d[\d,]*(?:\.\d+)?)")
_OPERATION = re.compile(r"\d\s?%?\s?[-+*/]\s?\$?\(?\s?\d")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FINAL = (
    re.compile(r"####\s?\$?(-?\d[\d,]*(?:\.\d+)?)"),
    re.compile(r"\\boxed\{\s?\\?\$?(-?\d[\d,]*(?:\.\d+)?)"),
    re.compile(r"\banswer(?: is|:)\s?\$?(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE),
)
_DOUBT = re.compile(r"\b(?:cannot|can't|unclear|not enough|impossible|assum\w+|let's|however|mistake|wait|sorry)\b")
_LONG_DECIMAL = re.compile(r"\d\.\d{3}")
_SIGNS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def is_arithmetic(answer: str) -> bool:
    """Whether there is any arithmetic to judge: an equation, or a number marked as final."""
    text = answer[:_MAX_CHARS]
    return any(each.search(text) for each in _FINAL[:2]) or any(
        _OPERATION.search(left.translate(_PLAIN)) for left, _ in _EQUATION.findall(text)
    )


def features(question: str, answer: str) -> dict[str, float]:
    """What can be checked of an answer, by name."""
    text = answer[:_MAX_CHARS]
    marked, inside = _final(text)
    final = final_number(text)
    body = text.partition("####")[0]
    right, wrong = equations(body)
    given = {_plain(each) for each in _NUMBER.findall(question[:_MAX_CHARS])}
    used = {_plain(each) for each in inside}
    is_last = marked is not None and bool(inside) and final is not None and abs(_plain(inside[-1]) - final) < 1e-6
    return {
        "a final number is marked": float(marked is not None),
        "it is the last one reached": float(is_last),
        "it is whole": float(final is not None and final.is_integer()),
        "equations that hold": math.log1p(right),
        "equations that do not hold": math.log1p(wrong),
        "any that does not hold": float(wrong > 0),
        "share of the question's numbers used": len(given & used) / len(given) if given else 1.0,
        "numbers in the question": math.log1p(len(given)),
        "numbers in the answer": math.log1p(len(used)),
        "length": math.log1p(len(text.split())),
        "lines": math.log1p(text.count("\n")),
        "long decimals": float(bool(_LONG_DECIMAL.search(body))),
        "words of doubt": float(bool(_DOUBT.search(text.lower()))),
    }


def final_number(answer: str) -> float | None:
    """The number marked as the answer's result, else its last one; None without numbers."""
    marked, inside = _final(answer[:_MAX_CHARS])
    return _plain(marked) if marked is not None else (_plain(inside[-1]) if inside else None)


def _final(text: str) -> tuple[str | None, list[str]]:
    """The number marked as final, and all numbers before the mark."""
    marked = next((found[-1] for each in _FINAL if (found := each.findall(text))), None)
    return marked, _NUMBER.findall(text.partition("####")[0])


def likelihood(question: str, answer: str) -> tuple[float, dict[str, float]]:
    """How likely the answer is right, 0..1, as trained; and what each feature adds to its log odds."""
    weights = _shipped()
    found = features(question, answer)
    parts = {name: weight * (found[name] - weights["means"][name]) for name, weight in weights["features"].items()}
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, weights["offset"] + math.fsum(parts.values()))))), parts


def equations(text: str) -> tuple[int, int]:
    """How many of a text's equations hold, and how many do not, to 1% of rounding."""
    right = wrong = 0
    for left, said in _EQUATION.findall(text):
        value = value_of(left)
        if value is None:
            continue
        holds = abs(value - _plain(said)) <= 0.011 * max(1.0, abs(value))
        right, wrong = right + holds, wrong + (not holds)
    return right, wrong


_PLAIN = str.maketrans({"x": "*", "×": "*", "÷": "/", "$": " ", ",": ""})


def value_of(expression: str) -> float | None:
    """The value of sums, products and brackets of numbers; None for anything else. At most 80 characters."""
    plain = expression.translate(_PLAIN).strip()
    if len(plain) > 80 or not _OPERATION.search(plain) or "**" in plain or "//" in plain:
        return None
    try:
        return _value(ast.parse(plain.replace("%", "/100"), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return float(_SIGNS[type(node.op)](_value(node.left), _value(node.right)))
    raise ValueError("no arithmetic")


def _plain(number: str) -> float:
    return float(number.replace(",", "") or 0)


@cache
def _shipped() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(NUMBERS.read_text("utf-8"))
    return told
