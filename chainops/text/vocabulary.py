"""Word lists that `facts` reads by: English negation, opposites, months, weekdays, number words."""

from __future__ import annotations

_CUES = (
    "no not never without neither nor none nobody nothing nowhere cannot cant dont doesnt didnt wont isnt arent wasnt "
    "werent havent hasnt hadnt wouldnt couldnt shouldnt unable fails failed failing refuses refused lacks lacking "
    "except hardly barely"
)
CUES = frozenset(_CUES.split())
"""Words that negate, apart from those that end in "n't"."""

PREFIXES = ("un", "dis", "non", "in", "im", "de")
"""What turns a word into its opposite, when the other text has it without ("lock", "unlock")."""

_AXES = {
    "time": ("before earlier previously prior", "after later afterwards following"),
    "place": ("above over top upper up north", "below under bottom lower down south"),
    "side": ("left west", "right east"),
    "amount": (
        "more increase increased increases increasing raise higher gain most maximum max highest largest biggest plus",
        "less fewer decrease decreased decreases decreasing reduce lower loss least minimum min lowest smallest minus",
    ),
    "size": ("big large long tall great", "small little short tiny"),
    "speed": ("fast faster quick quickly", "slow slower slowly"),
    "age": ("new newest young latest modern", "old oldest older earliest ancient"),
    "switch": ("on enable enabled activate start started begin", "off disable disabled deactivate stop stopped end"),
    "door": ("open opening opened unlock", "close closing closed lock block"),
    "stock": ("add added adding insert include top-up", "remove removed removing delete exclude cancel"),
    "flow": ("into import deposit receive received incoming input", "from export withdraw send sent outgoing output"),
    "trade": ("buy buying bought purchase borrow", "sell selling sold lend"),
    "turn": ("next tomorrow upcoming", "last previous yesterday past"),
    "rank": ("first", "last"),
    "accept": ("accept accepted approve approved allow allowed", "reject rejected decline declined deny forbid denied"),
    "outcome": ("win won pass succeed success", "lose lost fail failure"),
    "quality": ("good better best pros advantages benefits", "bad worse worst cons disadvantages drawbacks risks"),
    "sex": ("male man men he boy father husband", "female woman women she girl mother wife"),
    "inside": ("inside within indoor internal", "outside outdoor external"),
    "heat": ("hot warm", "cold cool"),
    "origin": ("domestic", "international foreign abroad overseas"),
    "height": ("high higher tall", "low lower"),
    "safety": ("safe secure", "dangerous unsafe risky"),
    "truth": ("true correct right", "false incorrect wrong"),
    "access": ("public", "private"),
    "sign": ("positive", "negative"),
    "pole": ("northern", "southern"),
    "coast": ("eastern", "western"),
    "ease": ("easy simple", "difficult hard complex"),
    "price": ("cheap inexpensive", "expensive costly"),
    "wealth": ("rich", "poor"),
    "hour": ("early", "late"),
    "count": ("many", "few"),
    "company": ("with", "without"),
    "likeness": ("same identical", "different"),
    "presence": ("present", "absent"),
    "chance": ("possible", "impossible"),
    "law": ("legal", "illegal"),
    "health": ("healthy", "sick ill"),
    "strength": ("strong stronger", "weak weaker"),
    "width": ("wide", "narrow"),
    "depth": ("thick", "thin"),
    "weight": ("heavy", "light"),
    "fill": ("full", "empty"),
    "water": ("wet", "dry"),
    "dirt": ("clean", "dirty"),
    "daylight": ("day morning", "night evening"),
    "season": ("summer", "winter"),
    "line": ("online", "offline"),
    "hand": ("manual", "automatic"),
    "duty": ("required mandatory compulsory", "optional voluntary"),
    "guilt": ("guilty", "innocent"),
    "life": ("alive living", "dead"),
    "rank of size": ("major", "minor"),
    "reach": ("local", "global"),
    "progress": ("improve improves improved", "worsen worsens worsened"),
    "effect": (
        "promote promotes stimulate stimulates induces activates enhances",
        "inhibit inhibits suppress suppresses prevents reduces impairs",
    ),
    "care": ("protect protects", "harm harms"),
    "stance": ("support supports agree", "oppose opposes disagree"),
    "motion": ("rise rises gain expand", "fall falls loss shrink"),
    "link": ("attach connect", "detach disconnect"),
    "session": ("login", "logout"),
    "account": ("credit", "debit"),
    "transfer": ("upload", "download"),
    "trip": ("arrive", "depart"),
    "job": ("employer", "employee"),
    "school": ("teacher", "student"),
    "family": ("parent", "child"),
    "stream": ("upstream", "downstream"),
    "parity": ("even", "odd"),
}


def _sides() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for axis, (plus, minus) in _AXES.items():
        for sign, words in (("+", plus), ("-", minus)):
            for word in words.split():
                found[word] = (*found.get(word, ()), axis + sign)
    return found


OPPOSITES = _sides()
"""Word → its sides, each an axis and a sign. Two texts are opposed where one has `+` and the other `-` of an axis."""

_MONTH_NAMES = "january february march april may june july august september october november december"
_DAY_NAMES = "monday tuesday wednesday thursday friday saturday sunday"
_MONTHS, _DAYS = _MONTH_NAMES.split(), _DAY_NAMES.split()
_MOMENTS = "today tonight tomorrow yesterday midnight noon weekend"

TIME_WORDS = (
    {month: f"month {number}" for number, month in enumerate(_MONTHS, 1) if month not in ("march", "may")}
    | {day: day for day in _DAYS}
    | {f"{day}s": day for day in _DAYS}
    | {day: day for day in _MOMENTS.split()}
)
"""Words that are a time wherever they stand."""

ABBREVIATED = (
    {month[:3]: f"month {number}" for number, month in enumerate(_MONTHS, 1)}
    | {"sept": "month 9", "march": "month 3"}
    | {day[:3]: day for day in _DAYS}
    | {"tues": "tuesday", "thur": "thursday", "thurs": "thursday"}
)
"""Words that are a time only with a capital inside a sentence ("in May", not "it may")."""

_BEFORE_YEAR = "in since by until till before after during year of from between and to early late circa around"
YEAR_AFTER = frozenset((*_BEFORE_YEAR.split(), *_MONTHS, *(month[:3] for month in _MONTHS)))
"""After one of these, a number of four digits is a year."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = (
    {word: value for value, word in enumerate(_ONES.split())}
    | {word: value for value, word in zip(range(20, 100, 10), _TENS.split(), strict=True)}
    | {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
)

SCALES = {"k": 1e3, "m": 1e6, "bn": 1e9}

_MEASURES = (
    "second seconds minute minutes hour hours day days week weeks month months year years percent dollar dollars euro "
    "euros pound pounds mile miles inch foot time times person people kg km gram grams litre liter cup cups"
)
MEASURES = frozenset(_MEASURES.split())
"""After one of these words "one" is the number, not the pronoun ("one day", not "that one")."""

UNITS = {
    "percent": "%", "dollar": "usd", "dollars": "usd", "usd": "usd", "euro": "eur", "euros": "eur", "eur": "eur",
    "gbp": "gbp", "yen": "jpy", "jpy": "jpy", "chf": "chf", "rupees": "inr", "inr": "inr",
}  # fmt: skip
"""Units that are written as words; "pound" is left out, since it is also a weight."""
