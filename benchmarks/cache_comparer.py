"""How often the answer comparer errs, and the detector of personal data.

    python benchmarks/cache_comparer.py --data DIR [--limit 100] [--thresholds]

DIR (or CHAINOPS_BENCH_DATA) holds `halueval_general/`, `xquad_en/`, `routellm_gsm8k/`, `scifact/`, `sts16_qq/`,
`llmbar/`, and for personal data `presidio_pii/`, `banking77/`, `clinc150/`: gzipped JSON lines named `dev.jsonl.gz`.
What is absent is named and not measured.

Pairs of answers come with a truth that no one had to judge (two solutions with the same final number, a claim and one
that the same study contradicts), with human grades (question pairs), or are made from real answers by a rule that
keeps what they say or changes it. Half of them, by a hash of their text, chose the thresholds; the other half is the
table. False same: counted as the same and is not, which breaks a cache's error bound. False different costs hits.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chainops.cache.compare import Auto, Comparer, Reply
from chainops.cache.prose import Limits, Prose
from chainops.models.embeddings import embedder
from chainops.text.personal import personal


@dataclass(frozen=True)
class Pair:
    kind: str
    question: str
    a: str
    b: str
    same: bool

    @property
    def is_for_choosing(self) -> bool:
        """Whether it may be looked at when thresholds are chosen. By the first text: edits of one stay together."""
        return hashlib.sha256(self.a.encode()).digest()[0] % 2 == 0


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# --- edits by rule: each gives a changed text, or None where it does not apply ---------------------

_MONTHS = "January February March April May June July August September October November December"
MONTHS = _MONTHS.split()
OPPOSITE = [
    ("increase", "decrease"), ("before", "after"), ("always", "never"), ("more", "less"), ("high", "low"),
    ("effective", "ineffective"), ("safe", "dangerous"), ("true", "false"), ("cheap", "expensive"),
    ("easy", "difficult"), ("public", "private"), ("early", "late"), ("first", "last"), ("positive", "negative"),
    ("largest", "smallest"), ("hot", "cold"), ("open", "closed"), ("best", "worst"), ("improve", "worsen"),
    ("many", "few"), ("include", "exclude"), ("east", "west"), ("northern", "southern"), ("rich", "poor"),
    ("strong", "weak"), ("new", "old"), ("possible", "impossible"), ("buy", "sell"), ("ancient", "modern"),
    ("famous", "unknown"), ("beautiful", "ugly"), ("urban", "rural"), ("love", "hate"), ("success", "failure"),
    ("advantage", "drawback"), ("above", "below"), ("internal", "external"), ("quickly", "slowly"),
    ("victory", "defeat"), ("war", "peace"), ("major", "minor"), ("win", "lose"), ("natural", "artificial"),
    ("with", "without"), ("different", "identical"), ("large", "tiny"), ("long", "short"), ("common", "rare"),
]  # fmt: skip
SYNONYMS = [
    ("big", "large"), ("help", "assist"), ("buy", "purchase"), ("show", "demonstrate"), ("use", "utilize"),
    ("need", "require"), ("for example", "for instance"), ("such as", "like"), ("many", "numerous"),
    ("important", "crucial"), ("improve", "enhance"), ("choose", "select"), ("quickly", "rapidly"),
    ("however", "nevertheless"), ("in order to", "to"), ("often", "frequently"), ("start", "begin"),
    ("get", "obtain"), ("large", "big"), ("create", "make"), ("various", "different"), ("begin", "start"),
    ("because", "since"), ("famous", "well-known"), ("mainly", "mostly"),
    ("ensure", "make sure"), ("provide", "give"), ("allow", "let"), ("reduce", "lower"), ("whole", "entire"),
]  # fmt: skip
CONTRACTED = [
    ("do not", "don't"), ("does not", "doesn't"), ("did not", "didn't"), ("is not", "isn't"), ("are not", "aren't"),
    ("cannot", "can't"), ("it is", "it's"), ("It is", "It's"), ("you are", "you're"), ("I am", "I'm"),
    ("was not", "wasn't"), ("will not", "won't"), ("they are", "they're"), ("that is", "that's"), ("I have", "I've"),
]  # fmt: skip
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve"
SMALL = _SMALL.split()
_FILLER = "about their there these those which where while would could should other being since whose"
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")
_VERB = re.compile(r"\b(is|are|was|were|can|will|should|could|would|must|may)\b(?! not|n't)")


def number_changed(text, rng, other):
    found = list(re.finditer(r"(?<![\w.,\[])\d{1,6}(?![\w,.]*\d|[.)]\s)", text))
    if not found:
        return None
    at = rng.choice(found)
    return text[: at.start()] + str(int(at.group()) + rng.choice([1, 2, 3, 10])) + text[at.end() :]


def date_moved(text, rng, other):
    found = list(re.finditer(r"\b(?:" + "|".join(MONTHS) + r")\b|\b(?:1[6-9]|20)\d\d\b", text))
    found = [each for each in found if each.group() not in ("May", "March")]
    if not found:
        return None
    at = rng.choice(found)
    old = at.group()
    new = str(int(old) + rng.choice([-7, -1, 1, 4])) if old.isdigit() else rng.choice([m for m in MONTHS if m != old])
    return text[: at.start()] + new + text[at.end() :]


def name_swapped(text, rng, other):
    found, names = list(_NAME.finditer(text)), [name for name in _NAME.findall(other) if name not in text]
    if not found or not names:
        return None
    at = rng.choice(found)
    return text[: at.start()] + rng.choice(names) + text[at.end() :]


def roles_swapped(text, rng, other):
    for sentence in re.split(r"(?<=[.!?])\s", text):
        found = list(_NAME.finditer(sentence))
        for one, two in itertools.pairwise(found):
            between = sentence[one.end() : two.start()].split()
            if one.group() != two.group() and len(between) > 1 and not {"and", "or", ","} & set(between):
                kept = sentence[one.end() : two.start()]
                new = sentence[: one.start()] + two.group() + kept + one.group() + sentence[two.end() :]
                return text.replace(sentence, new)
    return None


def negation_inserted(text, rng, other):
    found = list(_VERB.finditer(text))
    if not found:
        return None
    at = rng.choice(found)
    return text[: at.end()] + " not" + text[at.end() :]


def opposite_said(text, rng, other):
    pairs = [*OPPOSITE, *((b, a) for a, b in OPPOSITE)]
    found = [(each, new) for old, new in pairs for each in re.finditer(rf"\b{old}\b", text)]
    if not found:
        return None
    at, new = rng.choice(found)
    return text[: at.start()] + new + text[at.end() :]


def word_replaced(text, rng, other):
    found = list(re.finditer(r"(?<= )[a-z]{5,}\b", text))
    words = [word for word in re.findall(r"(?<= )[a-z]{5,}\b", other) if word not in text]
    said = {a for a, _ in SYNONYMS} | {b for _, b in SYNONYMS}
    filler = _FILLER.split()
    found = [each for each in found if each.group() not in said and each.group() not in filler]
    words = [word for word in words if word not in said and word not in filler]
    if not found or not words:
        return None
    at = rng.choice(found)
    return text[: at.start()] + rng.choice(words) + text[at.end() :]


def restricted(text, rng, other):
    """A condition that was not there."""
    at = text.rfind(".")
    said = [
        "for members",
        "only in summer",
        "if you pay a fee",
        "except at weekends",
        "on some devices",
        "with a permit",
    ]
    return None if at < 30 or not text[at - 1].isalpha() else f"{text[:at]} {rng.choice(said)}{text[at:]}"


def contracted(text, rng, other):
    new = text
    for long, short in CONTRACTED:
        new = re.sub(rf"\b{long}\b", short, new)
    if new == text:
        for long, short in CONTRACTED:
            new = re.sub(rf"\b{short}\b", long, new)
    return new if new != text else None


def synonyms(text, rng, other):
    new, used = text, 0
    for old, other_word in SYNONYMS:
        if used < 4 and re.search(rf"\b{old}\b", new) and re.search(rf"\b{old}\b", text):
            new, used = re.sub(rf"\b{old}\b", other_word, new, count=1), used + 1
    return new if new != text else None


def number_written(text, rng, other):
    new = re.sub(r"(?<![\w.,:/$-])(\d{1,2})(?= [a-z])", lambda m: SMALL[int(m[1])] if int(m[1]) < 13 else m[0], text)
    new = re.sub(r"(?<![\w.,])([1-9]\d{4,5})(?![\w.,]*\d)", lambda m: f"{int(m[1]):,}", new)
    return new if new != text else None


def greeted(text, rng, other):
    return (
        rng.choice(["Sure! ", "Certainly! Here is the answer:\n\n", "Of course.\n\n"]) + text + "\n\nI hope this helps!"
    )


def decorated(text, rng, other):
    sentences = [each for each in re.split(r"(?<=[.!?])\s+", text) if each]
    if len(sentences) < 2 or "\n" in text:
        return None
    return "\n".join(f"- **{each.split()[0]}** {each.partition(' ')[2]}" for each in sentences)


def reordered(text, rng, other):
    sentences = [each for each in re.split(r"(?<=[.!?])\s+", text) if each]
    if len(sentences) < 3 or re.search(r"\n|\b[1-9]\.\s", text):
        return None
    at = rng.randrange(1, len(sentences) - 1)
    sentences[at], sentences[at + 1] = sentences[at + 1], sentences[at]
    return " ".join(sentences)


def fronted(text, rng, other):
    found = re.search(
        r"(?:^|(?<=[.!?] ))([A-Z][^.!?\n]{20,120}) ((?:in|on|during|since) [^,.!?\n]{3,30})\.(?=\s|$)", text
    )
    if not found:
        return None
    first = found[1].split()[0]
    told = (
        found[1]
        if first not in ("The", "It", "A", "This", "There", "They", "These")
        else found[1][0].lower() + found[1][1:]
    )
    return f"{text[: found.start()]}{found[2][0].upper()}{found[2][1:]}, {told}.{text[found.end() :]}"


def reworded(text, rng, other):
    """Several of the harmless ones at once."""
    new = text
    for edit in (contracted, synonyms, number_written, fronted):
        new = edit(new, rng, other) or new
    return greeted(new, rng, other) if new != text else None


CHANGES = [number_changed, date_moved, name_swapped, roles_swapped, negation_inserted, opposite_said, word_replaced,
           restricted]  # fmt: skip
KEEPS = [contracted, synonyms, number_written, greeted, decorated, reordered, fronted, reworded]


# --- pairs -----------------------------------------------------------------------------------------


def edited_pairs(name: str, texts: list[tuple[str, str]], rng: random.Random, limit: int) -> list[Pair]:
    pairs = []
    for edit in [*CHANGES, *KEEPS]:
        made = 0
        for at, (question, text) in enumerate(texts):
            new = edit(text, rng, texts[(at * 7 + 13) % len(texts)][1])
            if new is not None and new != text:
                pairs.append(Pair(f"{name}: {edit.__name__.replace('_', ' ')}", question, text, new, edit in KEEPS))
                made += 1
            if made >= limit:
                break
    return pairs


def halueval(folder: Path, rng, limit) -> list[Pair]:
    told = [(r["query"], r["response"]) for r in rows(folder / "dev.jsonl.gz") if not r["hallucination"]]
    return edited_pairs("answers", [each for each in told if 60 < len(each[1]) < 900], rng, limit)


def xquad(folder: Path, rng, limit) -> list[Pair]:
    passages = {r["id"]: r["text"] for r in rows(folder / "passages.jsonl.gz")}
    asked = rows(folder / "dev.jsonl.gz")
    pairs, sentences = [], []
    by_passage = collections.defaultdict(list)
    for row in asked:
        by_passage[row["passage"]].append(row)
        text = passages[row["passage"]]
        start = max(text.rfind(". ", 0, row["answer_start"][0]) + 2, 0) if ". " in text[: row["answer_start"][0]] else 0
        end = text.find(". ", row["answer_start"][0] + len(row["answers"][0]))
        sentences.append((row["query"], text[start : end + 1 if end >= 0 else len(text)].strip()))
    frames = ["{}.", "The answer is {}.", "It is {}.", '"{}"', "The correct answer is: {}", "**{}**"]
    for row in asked:
        answer = row["answers"][0]
        others = [each["answers"][0] for each in by_passage[row["passage"]]]
        others = [each for each in others if each.lower() not in answer.lower() and answer.lower() not in each.lower()]
        if others:
            pairs.append(Pair("spans: another answer of the passage", row["query"], answer, rng.choice(others), False))
            framed = rng.choice(frames[1:]).format(rng.choice(others))
            pairs.append(Pair("spans: another answer, in a sentence", row["query"], answer, framed, False))
        pairs.append(Pair("spans: in another frame", row["query"], answer, rng.choice(frames).format(answer), True))
    near = [
        Pair("sentences of one passage", q, one, two, False)
        for (q, one), (_, two) in itertools.pairwise(sentences)
        if one != two and one not in two and two not in one
    ]
    return [
        *rng.sample(pairs, min(len(pairs), 3 * limit)),
        *near[:limit],
        *edited_pairs("sentence", list(dict(sentences).items()), rng, limit),
    ]


def _last_number(text: str) -> float | None:
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "")) if found else None


def gsm8k(folder: Path, rng, limit) -> list[Pair]:
    pairs = []
    for row in rows(folder / "dev.jsonl.gz"):
        if row["weak"] + row["strong"] == 0:
            continue  # both wrong: the same or not, nobody knows
        same = row["weak"] == row["strong"]
        if not same and _last_number(row["weak_response"]) == _last_number(row["strong_response"]):
            continue  # graded as text there: "4" right and "4.00" wrong
        kind = f"two models' solutions, {'same' if same else 'another'} result"
        pairs.append(Pair(kind, row["prompt"], row["weak_response"], row["strong_response"], same))
    return pairs


def scifact(folder: Path, rng, limit) -> list[Pair]:
    by_study = collections.defaultdict(list)
    for row in rows(folder / "dev.jsonl.gz"):
        for study, (side, _) in row["evidence"].items():
            by_study[study].append((side, row["query"]))
    found = {(a, b) for told in by_study.values() for s, a in told for t, b in told if s == "SUPPORT" and t != s}
    return [
        Pair("claims of one study, one contradicted", "What does the study show?", a, b, False)
        for a, b in sorted(found)
    ]


def sts(folder: Path, rng, limit) -> list[Pair]:
    told = rows(folder / "dev.jsonl.gz")
    return [
        Pair(f"graded pairs, {'same' if r['score'] >= 4 else 'not the same'}", "", r["a"], r["b"], r["score"] >= 4)
        for r in told
        if r["score"] >= 4 or r["score"] <= 2
    ]


def llmbar(folder: Path, rng, limit) -> list[Pair]:
    return [
        Pair("a right and a wrong answer", r["input"], r["output_1"], r["output_2"], False)
        for r in rows(folder / "dev.jsonl.gz")
    ]


SOURCES = {"halueval_general": halueval, "xquad_en": xquad, "routellm_gsm8k": gsm8k, "scifact": scifact,
           "sts16_qq": sts, "llmbar": llmbar}  # fmt: skip


def all_pairs(data: Path, limit: int) -> list[Pair]:
    pairs: list[Pair] = []
    for name, read in SOURCES.items():
        if not (data / name / "dev.jsonl.gz").exists():
            print(f"not measured: {name} is not in {data}")
            continue
        pairs += read(data / name, random.Random(7), limit)
    return pairs


# --- the comparer's table ----------------------------------------------------------------------------


def interval(wrong: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a rate."""
    if not n:
        return 0.0, 1.0
    z, rate = 1.959964, wrong / n
    middle, wide = rate + z * z / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, (middle - wide) / (1 + z * z / n)), min(1.0, (middle + wide) / (1 + z * z / n))


def told(wrong: int, n: int) -> str:
    low, high = interval(wrong, n)
    return f"{wrong:5d} of {n:5d}  {wrong / max(n, 1):6.1%}  ({low:.1%} to {high:.1%})"


class Remembered:
    """Embeds each text once: thresholds are tried on the same ones."""

    def __init__(self) -> None:
        self.model, self.rows = embedder("minilm"), {}

    def __call__(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        for at in range(0, len(new), 64):
            self.rows |= zip(new[at : at + 64], self.model.embed(new[at : at + 64]), strict=True)
        return np.array([self.rows[text] for text in texts])


def errors(comparer: Comparer, pairs: list[Pair]) -> dict[str, tuple[bool, int, int]]:
    """Per kind: whether its pairs are the same, how many verdicts are wrong, and of how many."""
    found: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    is_same = {pair.kind: pair.same for pair in pairs}
    for pair in pairs:
        verdict = comparer.same(pair.question, Reply(pair.a), Reply(pair.b))
        found[pair.kind][0] += verdict.same != pair.same
        found[pair.kind][1] += 1
    return {kind: (is_same[kind], *counts) for kind, counts in found.items()}


def summed(table: dict[str, tuple[bool, int, int]], same: bool, kinds: str = "") -> tuple[int, int]:
    picked = [row for kind, row in table.items() if row[0] == same and re.search(kinds, kind)]
    return sum(row[1] for row in picked), sum(row[2] for row in picked)


BY_PEOPLE = "^(?:two models|claims|graded|a right)"
"""Kinds whose texts were written apart from each other, not made from one another by rule."""


def compare(pairs: list[Pair]) -> dict[str, object]:
    comparer = Auto(Prose(Remembered()))
    started = time.perf_counter()
    table = errors(comparer, pairs)
    each_ms = (time.perf_counter() - started) / max(len(pairs), 1) * 1000
    result: dict[str, object] = {"pairs": len(pairs), "ms_per_pair": round(each_ms, 1)}
    for same, title in ((False, "false same: not the same, called the same"), (True, "false different")):
        print(f"\n{title:60s}    wrong            rate    95% interval")
        for kind in sorted(kind for kind, row in table.items() if row[0] == same):
            print(f"  {kind:58s} {told(*table[kind][1:])}")
        for name, kinds in (("written apart", BY_PEOPLE), ("all", "")):
            wrong, n = summed(table, same, kinds)
            print(f"  {name.upper():58s} {told(wrong, n)}")
            key = f"false_{'different' if same else 'same'}_{name.replace(' ', '_')}"
            result[key] = {"wrong": wrong, "n": n, "interval": [round(each, 4) for each in interval(wrong, n)]}
    print(f"\n{each_ms:.1f} ms per pair, embedding included, each text embedded once")
    return result


def try_thresholds(pairs: list[Pair]) -> None:
    """The half that is for choosing: what one limit at a time costs."""
    embed = Remembered()
    print("limits                                   false same      false different")
    for name, values in (("exchanged", (0.4, 0.45, 0.5, 0.55, 0.6)), ("near", (0.65, 0.75, 0.85)),
                         ("altered", (0.5, 0.6, 0.7)), ("missing", (0.0, 0.1, 0.2, 0.3))):  # fmt: skip
        for value in values:
            table = errors(Auto(Prose(embed, limits=Limits(**{name: value}))), pairs)
            rates = [wrong / max(n, 1) for wrong, n in (summed(table, False), summed(table, True))]
            print(f"{name:>20s} {value:4.2f}                 {rates[0]:6.2%}          {rates[1]:6.2%}")


# --- personal data -----------------------------------------------------------------------------------

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "US_SSN": "ssn",
    "IP_ADDRESS": "ip", "US_DRIVER_LICENSE": "driver_license",
}  # fmt: skip
PLAIN = [("banking77", "train", "text"), ("clinc150", "train", "text"), ("xquad_en", "passages", "text"),
         ("routellm_gsm8k", "dev", "strong_response"), ("halueval_general", "dev", "response"),
         ("scifact", "corpus", "text")]  # fmt: skip


def find_personal(data: Path) -> dict[str, object]:
    result: dict[str, object] = {}
    path = data / "presidio_pii" / "dev.jsonl.gz"
    if path.exists():
        found, there, right, alarms = collections.Counter(), collections.Counter(), 0, 0
        for row in rows(path):
            spans = [span for span in row["spans"] if span["type"] in KINDS]
            marked = personal(row["text"])
            for span in spans:
                there[span["type"]] += 1
                found[span["type"]] += any(m.start < span["end"] and span["start"] < m.end for m in marked)
            is_right = [any(m.start < span["end"] and span["start"] < m.end for span in spans) for m in marked]
            right, alarms = right + sum(is_right), alarms + len(is_right) - sum(is_right)
        print(f"\n{'personal data (Presidio, synthetic)':60s}    found            recall  95% interval")
        for kind in there:
            print(f"  {kind:58s} {told(found[kind], there[kind])}")
        print(f"  {'found, and of one of these kinds':58s} {told(right, right + alarms)}")
        result |= {
            "recall": {KINDS[kind]: [found[kind], there[kind]] for kind in there},
            "precision": [right, right + alarms],
        }
    else:
        print(f"not measured: presidio_pii is not in {data}")
    print(f"\n{'texts with an alarm (some do hold addresses of authors)':60s}    alarms           rate    95% interval")
    for name, part, field in PLAIN:
        path = data / name / f"{part}.jsonl.gz"
        if not path.exists():
            print(f"not measured: {path.name} of {name} is not in {data}")
            continue
        texts = [row[field] for row in rows(path)]
        alarmed = sum(bool(personal(text)) for text in texts)
        print(f"  {name + ' ' + part:58s} {told(alarmed, len(texts))}")
        result[f"alarms_{name}"] = [alarmed, len(texts)]
    plain = "How do I reset the password of my account when I am travelling abroad?"
    started = time.perf_counter()
    for _ in range(20_000):
        personal(plain)
    result["us_without_digits"] = round((time.perf_counter() - started) / 20_000 * 1e6, 2)
    print(f"a question without digits: {result['us_without_digits']} µs")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CHAINOPS_BENCH_DATA"))
    parser.add_argument("--limit", type=int, default=100, help="pairs of each rule")
    parser.add_argument("--thresholds", action="store_true", help="try limits on the half for choosing, then stop")
    options = parser.parse_args()
    if options.data is None:
        print("nothing measured: name a folder of data sets with --data or CHAINOPS_BENCH_DATA")
        print(json.dumps({"benchmark": "cache_comparer"}))
        return
    data = Path(options.data)
    pairs = all_pairs(data, options.limit)
    if options.thresholds:
        try_thresholds([pair for pair in pairs if pair.is_for_choosing])
        return
    result = {"benchmark": "cache_comparer"} | compare([pair for pair in pairs if not pair.is_for_choosing])
    print(json.dumps(result | find_personal(data)))


if __name__ == "__main__":
    main()
