"""What usually decides an answer: numbers, negation, dates, names, identifiers, directions.

Two questions may look alike to an embedding and still want different answers because one word differs ("before"
and "after", "2019" and "2020"). Rules for English, without a model: the same text always gives the same facts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chainops.text.vocabulary import (
    ABBREVIATED,
    CUES,
    MEASURES,
    NUMBER_WORDS,
    OPPOSITES,
    PREFIXES,
    SCALES,
    TIME_WORDS,
    UNITS,
    YEAR_AFTER,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. All strings are lower case and in one normal form, so that sets can be compared."""

    numbers: frozenset[str]
    """Plain decimals: "1,000", "1k" and "one thousand" are all `1000`; years are among them."""
    units: frozenset[str]
    """`%` and currency codes (`usd`), apart from their numbers: "$5" is `5` and `usd`."""
    negations: int
    """How many words negate ("not", "n't", "never", "without", "unable" ...)."""
    times: frozenset[str]
    """Months (`month 3`), weekdays (`friday`), clock times (`14:30`), dates, years after "in", `tomorrow`."""
    directions: frozenset[str]
    """Sides of known opposites, such as `time+` for "before" and `time-` for "after"."""
    names: frozenset[str]
    """Words written with a capital inside a sentence, and words in capitals."""
    identifiers: frozenset[str]
    """E-mail and web addresses, versions, and words with digits; hyphens dropped (`gpt4`)."""
    quoted: frozenset[str]
    """What stands between quotation marks or backquotes, at most 80 characters."""
    words: frozenset[str]
    """Every word, to see whether a name of the other text stands here in small letters."""

    @property
    def is_negated(self) -> bool:
        """Whether an odd number of words negate: two of them usually cancel out."""
        return self.negations % 2 == 1


@dataclass(frozen=True, slots=True)
class Differences:
    """How many facts stand in only one of two texts, by kind."""

    numbers: int
    units: int
    negation: int
    """1 where one text is negated and the other is not."""
    times: int
    names: int
    identifiers: int
    quoted: int
    opposed: int
    """Opposite directions ("before" against "after") and opposite prefixes ("lock" against "unlock")."""

    @property
    def total(self) -> int:
        """All of them but quotations: another wording of a quotation is common and says little."""
        return self.numbers + self.units + self.negation + self.times + self.names + self.identifiers + self.opposed


def facts(text: str) -> Facts:
    """Read the facts of a text. Linear in its length; some 15 µs for a question of twelve words."""
    found = _Reading()
    text = text.replace("’", "'")
    if _SIGN.search(text):
        text = found.special(text)
    quoted = frozenset(_join(match) for match in _QUOTED.findall(text)) if _QUOTE.search(text) else frozenset()
    found.plain(_WORD.findall(text))
    return Facts(
        numbers=frozenset(found.numbers),
        units=frozenset(found.units),
        negations=found.negations,
        times=frozenset(found.times),
        directions=frozenset(found.directions),
        names=frozenset(found.names),
        identifiers=frozenset(found.identifiers),
        quoted=quoted,
        words=frozenset(found.words),
    )


def differences(a: Facts, b: Facts) -> Differences:
    """Count what only one of the two says. A name counts only where the other text lacks the word in any case."""
    return Differences(
        # "one" is a number or a pronoun: beside a "1" in the other text it is the number
        numbers=len((a.numbers ^ b.numbers) - ({"1"} if "one" in a.words or "one" in b.words else set())),
        units=len(a.units ^ b.units),
        negation=int(a.is_negated != b.is_negated),
        times=len(a.times ^ b.times),
        names=len(a.names - b.words) + len(b.names - a.words),
        identifiers=len(a.identifiers ^ b.identifiers),
        quoted=len(a.quoted ^ b.quoted),
        opposed=_opposed(a, b),
    )


_SIGN = re.compile(r"\d|@|www\.|://")
_GOES_ON = re.compile(r"(?:[ap]\.?m\b|%)", re.IGNORECASE)
_QUOTE = re.compile(r"[\"“`]")
_QUOTED = re.compile(r"\"([^\"\n]{1,80})\"|“([^”\n]{1,80})”|`([^`\n]{1,80})`")
# A word, or the mark that ends a sentence: what follows such a mark may have a capital without being a name.
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|[.!?:\n\"“]")
_SPECIAL = re.compile(
    r"(?P<address>\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}|(?:https?://|www\.)[^\s<>\"']{1,400})"
    r"|(?P<date>\b\d{4}-\d\d?-\d\d?\b|\b\d\d?[/.]\d\d?[/.]\d{2,4}\b)"
    r"|(?P<hour>\b[012]?\d)(?::(?P<minute>[0-5]\d))(?::[0-5]\d)?\s?(?P<half>[ap]\.?m\b)?"
    r"|(?P<hour12>\b[01]?\d)\s?(?P<half12>[ap]\.?m)\b"
    r"|(?P<version>\bv?\d{1,9}(?:\.\d{1,9}){2,9}\b|\bv\d{1,9}(?:\.\d{1,9})?\b)"
    r"|(?P<mixed>\b(?=\w*[^\W\d_])(?!\d+(?:st|nd|rd|th|k|m|bn|x|s|kg|g|mg|km|cm|mm|ml|l|lbs?|gb|mb|tb|h|hrs?|min)\b)"
    r"(?:[^\W\d_]+-?\d|\d+[^\W\d_])[\w-]*)"
    r"|(?:(?P<currency>[$€£¥])\s?)?(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<scale>k|m|bn)?(?P<unit>\s?%)?",
    re.IGNORECASE,
)
_TELLING = frozenset().union(CUES, OPPOSITES, TIME_WORDS, UNITS, NUMBER_WORDS)
"""Few words of a question are among these: the others are looked up once and not five times."""
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")
_CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy"}


def _join(groups: tuple[str, ...]) -> str:
    return "".join(groups).strip().lower()


class _Reading:
    """One pass over one text."""

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self.units: set[str] = set()
        self.times: set[str] = set()
        self.directions: set[str] = set()
        self.names: set[str] = set()
        self.identifiers: set[str] = set()
        self.words: set[str] = set()
        self.negations = 0
        self.before = ""

    def special(self, text: str) -> str:
        """Take out everything written with digits or as an address; what is left is words."""
        pieces = text.split(" ")
        for at, piece in enumerate(pieces):
            if _SIGN.search(piece):
                if at + 1 < len(pieces) and _GOES_ON.match(pieces[at + 1]):  # "3 pm", "5 %"
                    piece, pieces[at + 1] = f"{piece} {pieces[at + 1]}", ""  # noqa: PLW2901
                self.before = pieces[at - 1] if at else ""
                pieces[at] = _SPECIAL.sub(self._take, piece)
        return " ".join(pieces)

    def _take(self, match: re.Match[str]) -> str:
        kind = match.lastgroup
        if match["number"] is not None:
            return self._take_number(match)
        if match["address"] is not None:
            self.identifiers.add(match["address"].rstrip(".,;:!?)").lower())
        elif match["date"] is not None:
            self.times.add(re.sub(r"\b0(?=\d)", "", match["date"]).replace(".", "/"))
        elif match["hour"] is not None or match["hour12"] is not None:
            self._take_clock(match)
        else:
            self.identifiers.add(match[kind].lower().replace("-", "") if kind else "")
        return " x "  # something stood here: the next word does not begin a sentence

    def _take_number(self, match: re.Match[str]) -> str:
        value = _plain(match["number"])
        if match["scale"]:
            value = _plain(str(float(value) * SCALES[match["scale"].lower()]))
        self.numbers.add(value)
        if match["currency"]:
            self.units.add(_CURRENCIES[match["currency"]])
        elif match["unit"]:
            self.units.add("%")
        elif _YEAR.fullmatch(match["number"]) and self.before.lower() in YEAR_AFTER:
            self.times.add(value)
        return " x "

    def _take_clock(self, match: re.Match[str]) -> None:
        hour = int(match["hour"] or match["hour12"])
        half = (match["half"] or match["half12"] or "").lower()
        if half.startswith("p") and hour < 12:
            hour += 12
        elif half.startswith("a") and hour == 12:
            hour = 0
        self.times.add(f"{hour}:{match['minute'] or '00'}")

    def plain(self, marks: list[str]) -> None:
        """Read words and sentence marks in order."""
        is_first, capitals, letters = True, 0, 0
        lowered: list[str] = []
        for mark in marks:
            if not mark[0].isalpha():
                is_first = True
                continue
            word = mark.lower()
            if mark is not word and mark != word and not is_first and len(mark) > 1:
                capitals += 1
                self._capital(mark, word)
            elif len(mark) > 1 and not is_first:
                letters += 1
            elif len(mark) > 1 and mark.isupper() and word not in CUES:
                self.names.add(word)
            is_first = False
            lowered.append(word)
        if capitals > 2 and capitals > 2 * letters:  # A Title, or SHOUTING: capitals say nothing there
            self.names.clear()
        self._read(lowered)

    def _capital(self, mark: str, word: str) -> None:
        word = word.removesuffix("'s")
        if word in ABBREVIATED:
            self.times.add(ABBREVIATED[word])
        elif word not in TIME_WORDS and word not in CUES and "'" not in mark:
            self.names.add(word)

    def _read(self, words: list[str]) -> None:
        kept = self.words
        for at, word in enumerate(words):
            word = word.removesuffix("'s")  # noqa: PLW2901
            kept.add(word)
            if word in _TELLING or word.endswith("n't"):
                self._telling(words, at, word)

    def _telling(self, words: list[str], at: int, word: str) -> None:
        if word in CUES or word.endswith("n't"):
            self.negations += 1
        if word in OPPOSITES:
            self.directions.update(OPPOSITES[word])
        if word in TIME_WORDS:
            self.times.add(TIME_WORDS[word])
        if word in UNITS:
            self.units.add(UNITS[word])
        if word in NUMBER_WORDS and (at == 0 or words[at - 1] not in NUMBER_WORDS):
            self._number_word(words, at)

    def _number_word(self, words: list[str], at: int) -> None:
        """A number in words from here on ("two hundred and five"), unless it is "one" as a pronoun."""
        total, current, stop = 0, 0, at
        for stop in range(at, len(words) + 1):
            value = NUMBER_WORDS.get(words[stop]) if stop < len(words) else None
            if value is None:
                break
            if value == 100:
                current = max(current, 1) * 100
            elif value > 100:
                total, current = total + max(current, 1) * value, 0
            else:
                current += value
        after = words[stop] if stop < len(words) else ""
        if words[at] != "one" or stop - at > 1 or after in MEASURES:
            self.numbers.add(str(total + current))


def _plain(number: str) -> str:
    """Normal form: "1,000.50" gives "1000.5"."""
    number = number.replace(",", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


def _opposed(a: Facts, b: Facts) -> int:
    flipped = {side[:-1] + ("-" if side[-1] == "+" else "+") for side in a.directions - b.directions}
    count = len(flipped & (b.directions - a.directions))
    only_a, only_b = a.words - b.words, b.words - a.words
    for one, other in ((only_a, only_b), (only_b, only_a)):
        for word in one:
            if word.startswith(PREFIXES):
                count += sum(word.startswith(prefix) and word[len(prefix) :] in other for prefix in PREFIXES)
    return count
