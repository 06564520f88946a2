"""An answer taken apart into statements, and what small words change between two of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from chainops.cache.compare import is_label, label, plain
from chainops.text.facts import Facts, facts
from chainops.text.sentences import sentences
from chainops.text.tokens import STOP_WORDS, stem, tokens
from chainops.text.vocabulary import MEASURES, NUMBER_WORDS, OPPOSITES

LONGEST_STATEMENT = 400
"""Words. Longer ones (lists without an end, logs) have to be equal."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence, list item or block of code."""

    text: str
    is_code: bool
    tokens: tuple[str, ...]
    words: tuple[str, ...]
    """Stems of content words in order, numbers apart: facts compare those."""
    digits: tuple[str, ...]
    facts: Facts


_CITED = re.compile(r"\s*(?:\[\d{1,2}\])+(?=[\s.,;:!?]|$)")
_VALUED = re.compile(r"(?:\b(?:is|are|was|be|gives|returns|equals|to)|[=:(,])$")
_DECORATION = re.compile(
    r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+|[*_]{1,3}(?=[\w\"“])|(?<=[\w.,:;!?\"”])[*_]{1,3}|^#{1,6}\s", re.MULTILINE
)
_OPENING = re.compile(
    r"^\s*(?:(?:sure(?: thing)?|certainly|of course|absolutely|great question)[!.]\s+)?"
    r"(?:here(?:'s| is| are)\b[^.!?:\n]{0,80}:\s+)?",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"\s(?:i )?(?:hope (?:this|that) helps|let me know if [^.!?\n]{0,80}|feel free to ask[^.!?\n]{0,60}"
    r"|is there anything else[^.!?\n]{0,60})[.!?]*\s*$",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"^(yes|no)\b[,.!;:]?\s*", re.IGNORECASE)


def statements(text: str) -> list[Statement]:
    """What an answer says, without greetings, citation marks, list signs and emphasis."""
    spoken = _CLOSING.sub("", _OPENING.sub("", text.replace("’", "'"), count=1), count=1)
    found = []
    for span in sentences(spoken):
        raw = spoken[span.start : span.end]
        said = plain(raw if span.kind == "code" else _DECORATION.sub("", _CITED.sub(_cited, raw)))
        if any(letter.isalnum() for letter in said):
            found.append(_statement(said, is_code=span.kind == "code"))
    return found


def _cited(mark: re.Match[str]) -> str:
    """Nothing, unless what looks like a citation is a value: "the list is [1]"."""
    before = mark.string[max(0, mark.start() - 12) : mark.start()].rstrip()
    return mark.group() if _VALUED.search(before) else ""


def _statement(said: str, *, is_code: bool) -> Statement:
    opener = _YES_NO.match(said)
    read = said[opener.end() :] if opener else said  # "No, it is not": one negation, not two
    every = tokens(read)
    words = [word for word in content(every) if not word[0].isdigit()]
    return Statement(
        text=said,
        is_code=is_code,
        tokens=tuple(every),
        words=tuple(stem(word) for word in words),
        digits=tuple(word for word in every if word[0].isdigit()),
        facts=facts(read),
    )


def polarity(said: str) -> str | None:
    opener = _YES_NO.match(said)
    return opener[1].lower() if opener else None


def content(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in STOP_WORDS and "'" not in word and word not in _SPELT]


_SPELT = frozenset({"cannot", *NUMBER_WORDS})


# --- words ---------------------------------------------------------------------------------------


def changes(one: tuple[str, ...], other: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    if max(len(one), len(other)) > LONGEST_STATEMENT:
        return
    for kind, start, end, first, last in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind != "equal":
            yield one[start:end], other[first:last]


def left_over(words: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple((Counter(words) - Counter(others)).elements())


def added(changed: Sequence[tuple[Sequence[str], Sequence[str]]]) -> tuple[str, ...]:
    """Stems of content words that only one of two statements has, with nothing in their place and not elsewhere."""
    gone = Counter(stem(word) for mine, theirs in changed if not theirs for word in content(mine))
    come = Counter(stem(word) for mine, theirs in changed if not mine for word in content(theirs))
    return tuple(((gone - come) + (come - gone)).elements())


_GROUPS = {
    "all": "all every each always any",
    "some": "some few several sometimes occasionally rarely",
    "most": "most mostly usually",
    "may": "can could may might",
    "must": "must should shall",
    "only": "only solely except unless",
    "or": "or",
    "if": "if",
}
_WEIGHT = {word: group for group, words in _GROUPS.items() for word in words.split()}
_BINDING = frozenset({"only", "or", "if"})
"""These change what is said even where nothing stands in their place."""


_CONTRARY = """
high tall|low; safe secure|dangerous unsafe risky; true correct right|false incorrect wrong; public|private;
positive|negative; northern|southern; eastern|western; easy simple|difficult hard complex; cheap inexpensive|expensive
costly; rich wealthy|poor; early|late; many|few; with|without; same identical|different; present|absent; legal|illegal;
strong stronger|weak weaker; wide|narrow; thick|thin; heavy|light; full|empty; wet|dry; clean|dirty; day|night;
summer|winter; morning|evening; online|offline; manual|automatic; required mandatory compulsory|optional voluntary;
guilty|innocent; alive living|dead; major|minor; local|global; common frequent|rare; natural|artificial synthetic;
improve improves improved|worsen worsens worsened; rise rises rose|fall falls fell; expand expands|shrink shrinks;
promote promotes stimulate stimulates induce induces activate activates activation enhance enhances|inhibit inhibits
inhibition suppress suppresses suppressed prevent prevents reduce reduces reduced impair impairs;
increase increases increased|reduce reduces reduced lowers; protect protects|harm harms damage damages;
support supports|oppose opposes; agree agrees|disagree disagrees; attach|detach; connect|disconnect; credit|debit;
upload|download; arrive|depart; employer|employee; singular|plural; even|odd; always|never; often|seldom rarely;
everything|nothing; everyone everybody|nobody; urban|rural; friend|enemy; war|peace; love|hate; victory|defeat
"""
_CONTRASTS = [tuple(frozenset(side.split()) for side in pair.split("|")) for pair in _CONTRARY.split(";")]
"""Opposites that facts do not know: what one word of an answer turns around."""


def weighed(mine: Sequence[str], theirs: Sequence[str]) -> str | None:
    """What one small word changes: all for some, must for may, only, or an opposite."""
    one, other = ({_WEIGHT[word] for word in words if word in _WEIGHT} for words in (mine, theirs))
    if (one and other and one != other) or (one ^ other) & _BINDING:
        return f"{' '.join(sorted(one)) or 'nothing'} is not {' '.join(sorted(other)) or 'nothing'}"
    measures = [{stem(word) for word in words if word in MEASURES} for words in (mine, theirs)]
    if all(measures) and measures[0] != measures[1]:
        return "the units differ"
    sides = {side[:-1] + ("-" if side[-1] == "+" else "+") for word in mine for side in OPPOSITES.get(word, ())}
    is_turned = any(side in sides for word in theirs for side in OPPOSITES.get(word, ()))
    if is_turned or _are_contrary(mine, theirs) or _are_contrary(theirs, mine):
        return f"{' '.join(mine)!r} is the opposite of {' '.join(theirs)!r}"
    return None


def _are_contrary(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    return any(not one.isdisjoint(mine) and not other.isdisjoint(theirs) for one, other in _CONTRASTS)


def same_digits(one: Statement, other: Statement) -> bool:
    """Facts are sets; here a number counts as often as it stands. Where one is written in words, facts decide alone."""
    return len(one.digits) != len(other.digits) or sorted(one.digits) == sorted(other.digits)


def same_order(one: Statement, other: Statement) -> bool:
    """Whether the same words follow each other alike, or a phrase went to the front ("In 1999, ...")."""
    if one.digits != other.digits and len(one.digits) == len(other.digits) and len(set(one.digits)) > 1:
        return False
    twice = other.words * 2
    return any(twice[at : at + len(one.words)] == one.words for at in range(len(other.words) or 1))


# Content words that may stand around an answer without adding to it, besides the question's own.
FRAME = frozenset(
    map(stem, ("answer", "correct", "right", "called", "named", "known", "simply", "actually", "basically"))
)
JOINS = re.compile(r"\b(?:and|or|both|also|but|except|only)\b|,", re.IGNORECASE)


# --- stated results --------------------------------------------------------------------------------

_RESULT = re.compile(
    r"(?:^|\n)\s*####\s*(?P<mark>[^\n]{1,60})|\\boxed\{(?P<box>[^{}\n]{1,60})\}"
    r"|\b(?:final |correct )?answer(?: is|:)\s*:?\s*(?P<said>[^\n]{1,60})",
    re.IGNORECASE,
)


def conclusion(text: str) -> str | None:
    """The result that an answer states as such at its end ("#### 42", "The answer is B."), as a label; or None."""
    tail = text[-200:].rstrip()
    found = list(_RESULT.finditer(tail))
    if not found or found[-1].end() < len(tail) - 2:
        return None
    said = next(filter(None, found[-1].groups())).strip()
    numbers = facts(said).numbers
    if len(numbers) == 1:
        return next(iter(numbers))
    return label(said) if is_label(said) and not numbers else None


def results(a: str, b: str, last_a: Statement, last_b: Statement) -> tuple[str | None, str | None]:
    """What each states as its result. Where only one does, and it is a number: the other's last sentence's number."""
    one, other = conclusion(a), conclusion(b)
    if one and not other and one[0].isdigit():
        other = _one_number(last_b)
    if other and not one and other[0].isdigit():
        one = _one_number(last_a)
    return one, other


def _one_number(said: Statement) -> str | None:
    """The only number of a sentence, or of what it says after the last "="."""
    _, equals, after = said.text.rpartition("=")
    numbers = facts(after).numbers if equals else said.facts.numbers
    return next(iter(numbers)) if len(numbers) == 1 else None
