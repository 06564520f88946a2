"""Questions by rule: the same one in other words, or another one in nearly the same words. Not a benchmark itself.

Data sets of intents hold few questions that read alike and want different answers; real streams hold many.
"""

from __future__ import annotations

import re

import numpy as np

from chainops.text.tokens import STOP_WORDS

OPENINGS = ("Can you tell me ", "Please tell me: ", "I would like to know, ", "Does anyone know ", "Hi, ", "")
SAME = (
    (r"^how do i\b", "how can I"), (r"^how can i\b", "what is the best way to"), (r"^what is\b", "what's"),
    (r"^what are\b", "which are"), (r"^why (is|are|do|does|did)\b", r"what is the reason \1"),
    (r"^when did\b", "in which year did"), (r"^who\b", "which person"), (r"^where\b", "in which place"),
    (r"\bbegan\b", "started"), (r"\bbig\b", "large"), (r"\blarge\b", "big"), (r"\bfind\b", "discover"),
    (r"\bmake\b", "create"), (r"\bget\b", "obtain"), (r"\bneed\b", "require"), (r"\bimportant\b", "significant"),
    (r"\bhelp\b", "assist"), (r"\bshow\b", "demonstrate"), (r"\bincreases?\b", "raises"), (r"\bmany\b", "a lot of"),
    (r"\bcaused\b", "brought about"), (r"\bpeople\b", "persons"), (r"\bcalled\b", "named"), (r"\btype\b", "kind"),
    (r"\buses?\b", "employs"), (r"\bbuy\b", "purchase"), (r"\blocated\b", "situated"), (r"\bdied\b", "passed away"),
    (r"\bbuilt\b", "constructed"), (r"\bcountry\b", "nation"),
)  # fmt: skip
QUALIFIERS = (
    "in India", "for beginners", "in 2016", "without money", "for children", "at night", "in Germany", "on a Mac",
    "before 1900", "for women", "online", "in the UK", "in winter", "for a small company", "after the war",
    "near London",
)  # fmt: skip
OPPOSITES = (
    ("before", "after"), ("more", "less"), ("first", "last"), ("increase", "decrease"), ("largest", "smallest"),
    ("highest", "lowest"), ("with", "without"), ("high", "low"), ("good", "bad"), ("north", "south"),
    ("east", "west"), ("start", "end"), ("positive", "negative"), ("men", "women"), ("best", "worst"),
    ("minimum", "maximum"), ("most", "least"),
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{3,}")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_VERB = re.compile(r"\b(is|are|was|were|do|does|did|can|will|has)\b")

Rng = np.random.Generator


def same(text: str, rng: Rng) -> str:
    """Another wording of the same question."""
    out = text
    for at in rng.permutation(len(SAME)):
        if rng.random() < 0.6:
            out = re.sub(SAME[at][0], SAME[at][1], out, count=1, flags=re.IGNORECASE)
    if rng.random() < 0.35:
        out = OPENINGS[rng.integers(len(OPENINGS))] + out[:1].lower() + out[1:]
    if rng.random() < 0.3:
        out = re.sub(r"\b(the|a|an)\b ", "", out, flags=re.IGNORECASE)
    if rng.random() < 0.3:
        out = out.lower().rstrip("?.")
    if rng.random() < 0.2:
        out = _mistyped(out, rng)
    ending = re.match(r"(.+?) (in|during|for|of|at|on) ([^?]+)\?$", out)
    if ending and rng.random() < 0.2:
        out = f"{ending[2].capitalize()} {ending[3]}, {ending[1][:1].lower()}{ending[1][1:]}?"
    return out if out != text else "So, " + text


def other(text: str, rng: Rng, words: list[str], names: list[str]) -> str:
    """Another question in nearly the same words."""
    kind = rng.random()
    numbers = re.findall(r"\b\d+\b", text)
    if numbers and kind < 0.5:
        number = numbers[rng.integers(len(numbers))]
        return re.sub(rf"\b{number}\b", str(int(number) + int(rng.integers(1, 10))), text, count=1)
    if kind < 0.25 and (turned := _turned(text)):
        return turned
    if kind < 0.35 and (verb := _VERB.search(text)):
        return f"{text[: verb.end()]} not{text[verb.end() :]}"
    named, plain = list(_NAME.finditer(text)), _plain_words(text)
    if named and names and 0.55 <= kind < 0.8:
        return _replaced(text, named[rng.integers(len(named))], names[rng.integers(len(names))])
    if plain and kind >= 0.55:
        return _replaced(text, plain[rng.integers(len(plain))], words[rng.integers(len(words))])
    end = "?" if text.rstrip().endswith("?") else ""
    return f"{text.rstrip('?. ')} {QUALIFIERS[rng.integers(len(QUALIFIERS))]}{end}"


def stream(base: list[str], rng: Rng) -> list[tuple[str, str]]:
    """Each question with some twins: 45% have another question in nearly the same words, 25% another wording."""
    words = sorted({found.group() for text in base for found in _plain_words(text)})
    names = sorted({name for text in base for name in _NAME.findall(text)})
    rows: dict[str, str] = {}
    for number, text in enumerate(base):
        family = [(text, f"{number}")]
        while rng.random() < 0.45 and len(family) < 5:
            family.append((other(family[rng.integers(len(family))][0], rng, words, names), f"{number}.{len(family)}"))
        family += [(same(each, rng), label) for each, label in family if rng.random() < 0.25]
        for each, label in family:
            rows.setdefault(each, label)
    return list(rows.items())


def _plain_words(text: str) -> list[re.Match[str]]:
    return [m for m in _WORD.finditer(text) if m.group().islower() and m.group() not in STOP_WORDS]


def _replaced(text: str, place: re.Match[str], word: str) -> str:
    return text[: place.start()] + word + text[place.end() :]


def _mistyped(text: str, rng: Rng) -> str:
    places = list(_WORD.finditer(text))
    if not places:
        return text
    place = places[rng.integers(len(places))]
    word, at = place.group(), int(rng.integers(1, len(place.group()) - 1))
    return _replaced(text, place, word[:at] + word[at + 1] + word[at] + word[at + 2 :])


def _turned(text: str) -> str | None:
    for pair in OPPOSITES:
        for one, opposite in (pair, pair[::-1]):
            if re.search(rf"\b{one}\b", text):
                return re.sub(rf"\b{one}\b", opposite, text, count=1)
    return None
