"""An English review corpus that the project makes itself, so that the demo needs no download. Generated, not collected.

A small grammar composes reviews of films, books, restaurants, hotels and products. Each template knows what it does to
the polarity of what it contains (negation, contrast, condition, mockery ...), so the label is known by construction.

The job is made hard on purpose in one way: the few labelled rows use about three fifths of the sentiment words, the
other splits use all (`seen`). A model trained on the labelled rows alone has never met much of what decides a dev
sentence; a pretrained encoder has, and can teach it on the unlabelled pool.
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.data import demo_lexicon as lexicon
from distill.files import write_atomic

SIZES = {"train": 600, "dev": 800, "test": 800, "unlabelled": 5000}
"""Rows of each split."""

SEEN_PERCENT = 60
"""About this share of the sentiment words may occur in the labelled rows."""

Template = tuple[float, str] | tuple[float, str, int]
"""(weight, text) for both labels, or (weight, text, label +1 or -1).

In the text `{slot=}` is filled with the sentence's own polarity and `{slot!}` with the opposite one; a digit ties the
parts of one aspect together. "a" becomes "an" where it must."""

CLAUSES: tuple[Template, ...] = (
    (9, "the {aspect1} {be1} {very adj1=}"),
    (2, "the {topic1} {be1} {utterly}{strong=}"),
    (4, "{this} {deed=}"),
    (3, "{feeling=} the {topic1}"),
    (2, "{this} {is} {verdict=}"),
    (1.5, "{this} {is} full of {trait=}"),
    (1, "the {aspect1} could not have been more {adj1=}"),
    (1, "the {topic1} never failed to {effect=} {me}"),
    (0.4, "the {aspect1} {be1} anything but {adj1!}"),
    (0.4, "the {aspect1} {be1} far from {adj1!}"),
    (0.4, "the {aspect1} {be1} not {adj1!} in the least"),
    (0.28, "the {topic1} {be1} hardly {mild!}"),
    (0.28, "the {topic1} {be1} not {mild!} at all"),
    (0.28, "there {is} nothing {adj1!} about the {aspect1}"),
    (0.28, "nobody could call the {aspect1} {adj1!}"),
    (0.28, "I would not call the {topic1} {mild!}"),
    (0.28, "there {is} not a trace of {trait!}"),
    (0.28, "the {topic1} did nothing to {effect!} {me}", -1),
    (0.28, "the {topic1} did not {effect!} {me} for a moment"),
    (0.28, "the {topic1} failed to {effect!} {me}", -1),
    (0.7, "the {topic1} did not disappoint", 1),
    (0.7, "the {topic1} left nothing to be desired", 1),
    (0.7, "the {topic1} left much to be desired", -1),
)

FRAMES: tuple[Template, ...] = (
    # plain
    (12, "{clause=}"),
    (5, "{opener} {clause=}"),
    (22, "{clause=} and {clause=}"),
    (16, "{clause=}, {clause=} and {clause=}"),
    (6, "{opener} {clause=} and {clause=}"),
    (5, "{context}, and {clause=}"),
    (8, "{context}; {clause=} and {clause=}"),
    (9, "{clause=}; {advice=}"),
    (7, "{clause=} and {clause=}; {advice=}"),
    (4, "{advice=}: {clause=}"),
    (3, "I cannot deny that {clause=} and that {clause=}"),
    (4, "a {whole=} and {whole=} {noun}"),
    (5, "a {whole=} and {whole=} {noun}: {clause=}"),
    (4, "{whole=}, {whole=} and {whole=}"),
    (2, "such {a1} {adj1=} {aspect1}!"),
    (6, "{a1} {adj1=} {aspect1}, {a2} {adj2=} {aspect2} and {a3} {adj3=} {aspect3}"),
    (4, "with {a1} {adj1=} {aspect1} and {a2} {adj2=} {aspect2}, this {noun} {is} {verdict=}"),
    # contrast: what decides is the main clause, and after "but" the later one
    (4, "{clause!}, but {clause=}"),
    (3, "{clause!}, but {clause=} and {clause=}"),
    (2, "{context}; {clause!}, but {clause=}"),
    (1.25, "{clause!} and {clause!}, but {clause=}"),
    (1.5, "{clause!}; {still}, {clause=}"),
    (2, "{although} {clause!}, {clause=}"),
    (2, "{clause=}, {even though} {clause!}"),
    (1, "granted, {clause!}, yet {clause=}"),
    (1.5, "despite the {adj1!} {aspect1}, {clause=}"),
    (1, "for all its {trait!}, {clause=}"),
    (0.75, "not even the {adj1!} {aspect1} could spoil such a {whole=} {noun}", 1),
    (0.75, "not even the {adj1!} {aspect1} could save such a {whole=} {noun}", -1),
    (0.5, "I was ready to hate this {noun}, but {clause=}", 1),
    (0.5, "I was ready to love this {noun}, but {clause=}", -1),
    (0.5, "critics tore it to pieces, yet {clause=}", 1),
    (0.5, "critics praised it to the skies, yet {clause=}", -1),
    # expectation
    (1.25, "I expected a {whole!} {noun} and got a {whole=} one"),
    (1, "my friends called it {whole!}, yet I found it {whole=}"),
    (0.75, "what looked {whole!} at first turned out to be {whole=}"),
    (0.75, "my first impression was {mild!}, my last one {strong=}"),
    (0.75, "it should have been {whole!}; it {is} {whole=}"),
    (0.75, "a {whole!} {noun}, so the advertising said; in truth, {clause=}", -1),
    (0.75, "a {whole!} {noun}, so the rumours said; in truth, {clause=}", 1),
    # comparison
    (0.75, "I have rarely {met} a more {graded=} {noun}"),
    (1, "this {is} the most {graded=} {noun} I have {met} {lately}"),
    (0.75, "it {is} more {graded=} than any {noun} I have {met} {lately}"),
    (0.75, "it {is} far less {graded!} than I had feared", 1),
    (0.75, "it {is} far less {graded!} than I had hoped", -1),
    (0.5, "I have never {met} a less {graded!} {noun}"),
    (0.5, "the {aspect1} {be1} better than {rival}, and {clause=}", 1),
    (0.5, "the {aspect1} {be1} worse than {rival}, and {clause=}", -1),
    # condition
    (0.75, "if every {noun} were this {whole=}, I would never complain again", 1),
    (0.75, "if you can forgive the {adj1!} {aspect1}, you will find a {whole=} {noun}", 1),
    (0.75, "even if the {aspect1} had been twice as {adj1!}, I would still recommend it", 1),
    (0.75, "I would pay double for {a1} {aspect1} as {adj1=} as this", 1),
    (0.75, "this would have been a {whole!} {noun} if only the {aspect1} had not been so {adj1=}", -1),
    (0.75, "had the {aspect1} been half as {adj1!} as everyone says, I might have recommended it", -1),
    (0.75, "it could have been a {whole!} {noun} in better hands", -1),
    (0.75, "I would have forgiven the {aspect1} if the {aspect2} had been {adj2!}", -1),
    # question
    (0.75, "have you ever {met} a {noun} so {whole=}? I have not"),
    (0.75, "who knew that a {noun} could be so {whole=}?", 1),
    (0.75, "how can anyone complain about such {a1} {adj1=} {aspect1}?", 1),
    (0.75, "how did they make a {noun} with such {a1} {adj1!} {aspect1} so {whole=}?", 1),
    (0.5, "what is there not to like about {a1} {adj1=} {aspect1} and {a2} {adj2=} {aspect2}?", 1),
    (0.75, "why would anyone {meet} such a {whole=} {noun}?", -1),
    (0.75, "is it too much to ask for {a1} {aspect1} that {bare1} not {adj1=}?", -1),
    (0.75, "how did a {noun} with such {a1} {adj1!} {aspect1} end up so {whole=}?", -1),
    (0.5, "who on earth thought that the {aspect1} {be1} {adj1!}?", -1),
    # mockery and teasing
    (0.75, "if you enjoy {boredom}, this is the {noun} for you", -1),
    (0.5, "I would rather spend a day {boredom} than {meet} this {noun} again", -1),
    (0.5, "next to this {noun}, {boredom} is a joy", -1),
    (0.75, "the best thing about it {is} that {bitter praise}", -1),
    (0.5, "the {aspect1} {be1} {adj1!}, said nobody ever", -1),
    (0.75, "my only complaint is that {kind complaint}", 1),
    (0.75, "the worst thing about it {is} that {kind complaint}", 1),
    (0.5, "I came to mock the {topic1} and left a convert", 1),
    (0.5, "be warned: after this, no other {noun} will seem {whole=} enough", 1),
    (0.5, "the {aspect1} {be1} {adj1!}, said nobody ever", 1),
    # double negation
    (0.75, "not once did the {topic1} {effect!} {me}"),
    (0.75, "it is not true that the {aspect1} {be1} {adj1!}"),
    (0.75, "I doubt that anyone will find the {aspect1} {adj1!}"),
    (0.75, "I would be lying if I said that {clause!}"),
)

CHOICES: dict[str, tuple[str, ...]] = {
    "opener": lexicon.entries(
        """to be honest, in my opinion, to my mind, I have to admit that, if you ask me, in short, I must say that,
        it seems to me that, I suppose that, let us be fair:, all things considered, as far as I can tell,
        no doubt about it:, make no mistake:, on the whole, once again"""
    ),
    "still": lexicon.entries("even so, still, nevertheless, all the same, in the end, that said, then again"),
    "although": lexicon.entries("although, though, even though, while"),
    "even though": lexicon.entries("even if, even though, although, though"),
    "lately": lexicon.entries("this year, for years, for a long time, so far, for ages, lately"),
    "me": lexicon.entries("me, us, anyone, my wife, my husband, our children, my mother, either of us"),
    "rival": lexicon.entries("last time, anywhere else, all else that I tried, I remembered, ever, I had been told"),
}

DEGREES = lexicon.entries(
    """really, truly, quite, remarkably, surprisingly, thoroughly, consistently, genuinely, undeniably, rather, so,
    very, unusually"""
)
DIMINISHERS = lexicon.entries("a bit, slightly, somewhat, a little, fairly")
EMPHASES = lexicon.entries("absolutely, simply, truly, utterly, just")
OTHERS = lexicon.entries("my wife, my husband, my sister, my father, my best friend, everyone in our group")
PRESENT = ("film", "book", "product")


def seen(items: Sequence[str]) -> list[str]:
    """The sentiment words of a list that may occur in the labelled rows: by CRC-32, at least four of them."""
    ranks = {item: zlib.crc32(item.encode()) % 100 for item in items}
    limit = max(SEEN_PERCENT, sorted(ranks.values())[:4][-1] + 1)
    return [item for item in items if ranks[item] < limit]


class Chance:
    """Random choices from `random()` alone, the one method whose sequence Python promises to keep between versions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, items: Sequence[str]) -> str:
        return items[int(self.random() * len(items))]

    def weighted(self, templates: Sequence[Template]) -> str:
        point = self.random() * sum(t[0] for t in templates)
        for template in templates:
            point -= template[0]
            if point < 0:
                return template[1]
        return templates[-1][1]

    def shuffle(self, rows: list[tuple[str, int]]) -> None:
        for last in range(len(rows) - 1, 0, -1):
            other = int(self.random() * (last + 1))
            rows[last], rows[other] = rows[other], rows[last]


@dataclass
class Writer:
    """One sentence in the making: its subject, and what has been said so far."""

    chance: Chance
    domain: str
    noun: str
    aspects: tuple[str, ...]
    only_seen: bool
    used: set[str] = field(default_factory=set)
    met: bool = False
    judged: int = 0

    def expand(self, template: str, polarity: int) -> str:
        """The text of a template; aspects bound to digits are bound for this template only."""
        bound: dict[str, str] = {}

        def fill(match: re.Match[str]) -> str:
            slot, number, sign = match.groups()
            return self.fill(slot, number, polarity * (-1 if sign == "!" else 1), bound)

        return re.sub(r"\{([a-z ]+)(\d?)([=!]?)\}", fill, template, flags=re.IGNORECASE)

    def fill(self, slot: str, number: str, polarity: int, bound: dict[str, str]) -> str:
        if slot in CHOICES:
            text = self.chance.pick(CHOICES[slot])
            return text + "," if slot == "opener" and not text.endswith((":", "that")) else text
        if number and number not in bound:  # a topic can be loved or hated; of a price one says how high it is
            bound[number] = self.unused([a for a in self.aspects if slot != "topic" or not a.endswith(":price")])
        name, _, group = bound.get(number, "").partition(":")
        plural, mass = name.endswith("*"), name.endswith("~")
        present = self.domain in PRESENT
        match slot:
            case "clause":
                # Nothing is a gem and a disaster in one breath; its parts may differ.
                apart = self.judged not in (0, polarity)
                options = [t for t in CLAUSES if fits(t, polarity) and not (apart and "{this}" in t[1])]
                template = self.chance.weighted(options)
                self.judged = self.judged or polarity * ("{this}" in template)
                return self.expand(template, polarity)
            case "aspect" | "topic":
                return name.rstrip("*~")
            case "be":
                return ("are" if plural else "is") if present else ("were" if plural else "was")
            case "bare":
                return "are" if plural else "is"
            case "a":
                return "" if plural or mass else "a"
            case "adj":
                return self.word(lexicon.ADJECTIVES[group][polarity])
            case "very adj":
                adjective = self.word(lexicon.ADJECTIVES[group][polarity])
                return adjective if " " in adjective else self.degree(polarity) + adjective
            case "utterly":
                return self.chance.pick(EMPHASES) + " " if self.chance.random() < 0.4 else ""
            case "strong":
                return self.word(lexicon.STRONG[polarity])
            case "mild":
                return self.word(lexicon.MILD[polarity])
            case "whole":
                return self.word(lexicon.WHOLE[self.domain][polarity])
            case "graded":  # "more" goes before longer words only
                words = lexicon.WHOLE[self.domain][polarity]
                return self.word([w for w in words if len(w) > 7 and " " not in w and not w.startswith("over")])
            case "deed":
                return self.word(lexicon.DEEDS[self.domain][polarity])
            case "verdict":
                return self.word(lexicon.VERDICTS[self.domain][polarity])
            case "trait":
                return self.word(lexicon.TRAITS[self.domain][polarity])
            case "effect":
                return self.word(lexicon.EFFECTS[polarity])
            case "advice":
                return self.word(lexicon.ADVICE[self.domain][polarity])
            case "feeling":
                return self.feeling(self.word(lexicon.FEELINGS[polarity]))
            case "boredom":
                return self.word(lexicon.BORING_PLEASURES)
            case "bitter praise":
                return self.word(lexicon.BITTER_PRAISE[self.domain])
            case "kind complaint":
                return self.word(lexicon.KIND_COMPLAINTS[self.domain])
            case "context":
                return self.unused(lexicon.CONTEXTS[self.domain])
            case "noun":
                return self.noun
            case "this":
                return self.this()
            case "is":
                return "is" if present else "was"
            case "met":
                return lexicon.MEETING[self.domain][0]
            case "meet":
                return lexicon.MEETING[self.domain][1]
        raise KeyError(slot)

    def unused(self, items: Sequence[str]) -> str:
        """An item that this sentence has not used yet."""
        item = self.chance.pick([i for i in items if i not in self.used])
        self.used.add(item)
        return item

    def word(self, items: Sequence[str]) -> str:
        """A sentiment word; in labelled rows only those that may be seen there."""
        return self.unused(seen(items) if self.only_seen else items)

    def degree(self, polarity: int) -> str:
        if self.chance.random() < 0.6:
            return ""
        return self.chance.pick(DIMINISHERS if polarity < 0 and self.chance.random() < 0.3 else DEGREES) + " "

    def feeling(self, verb: str) -> str:
        """Subject and verb: "I was charmed by", "we were charmed by", "my sister was charmed by"."""
        kind = self.chance.random()
        if kind < 0.5 or verb.startswith(("have ", "still ", "cannot ")):
            return f"I {verb}"
        if kind < 0.75:
            return "we " + re.sub(r"^was\b", "were", verb)
        return f"{self.chance.pick(OTHERS)} {verb}"

    def this(self) -> str:
        """The thing itself, named at its first mention."""
        if self.met:
            return "it"
        self.met = True
        return f"{'this' if self.chance.random() < 0.7 else 'the'} {self.noun}"


def fits(template: Template, polarity: int) -> bool:
    return len(template) == 2 or template[2] == polarity


def finish(text: str) -> str:
    """Spaces, articles, the capital letter and the full stop."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\b(a) (?=[aeiou])(?!one|uni|use|user)", r"\1n ", text)
    text = re.sub(r"\b(a) (?=honest|hour)", r"\1n ", text)
    text = re.sub(r"(?<=\? )[a-z]", lambda m: m.group().upper(), text)
    return text[0].upper() + text[1:] + ("" if text[-1] in "!?" else ".")


def sentence(chance: Chance, polarity: int, only_seen: bool) -> str:
    """One review of the wanted polarity (+1 or -1)."""
    domain = chance.pick(("film", "book", "restaurant", "hotel", "product"))
    kinds = [kind for kind in lexicon.KINDS if kind[0] == domain]
    _, nouns, aspects = kinds[int(chance.random() * len(kinds))]
    writer = Writer(chance, domain, chance.pick(lexicon.entries(nouns)), lexicon.entries(aspects), only_seen)
    return finish(writer.expand(chance.weighted([f for f in FRAMES if fits(f, polarity)]), polarity))


def demo_rows(seed: int = 2020) -> dict[str, list[tuple[str, int]]]:
    """The corpus as (sentence, label) rows: splits as in `SIZES`, labels balanced, 1 = positive, no sentence twice.

    The rows of "unlabelled" carry their labels here, so that one can measure what knowing them would be worth.
    """
    chance = Chance(seed)
    known: set[str] = set()
    splits: dict[str, list[tuple[str, int]]] = {}
    for split, size in SIZES.items():
        rows: list[tuple[str, int]] = []
        while len(rows) < size:
            label = len(rows) % 2
            text = sentence(chance, 1 if label else -1, only_seen=split == "train")
            if text.lower() not in known:
                known.add(text.lower())
                rows.append((text, label))
        chance.shuffle(rows)
        splits[split] = rows
    return splits


README = """Generated by paddle-distill (distill/data/demo.py); these are not real reviews. 1 = positive, 0 = negative.
"""


def write_demo_data(folder: str | Path) -> dict[str, Path]:
    """Write the corpus in the SST-2 layout under `folder`, each file whole or not at all.

    Returns the paths of SST-2/{train,dev,test}.tsv (header `sentence TAB label`), SST-2/unlabelled.txt (one sentence a
    line) and README.md, by the keys train, dev, test, unlabelled and readme. The bytes are the same on every machine.
    Raises UserError when the folder cannot be written.
    """
    base = Path(folder) / "SST-2"
    paths = {split: base / (f"{split}.tsv" if split != "unlabelled" else "unlabelled.txt") for split in SIZES}
    paths["readme"] = Path(folder) / "README.md"
    for split, rows in demo_rows().items():
        if split == "unlabelled":
            text = "".join(f"{sentence}\n" for sentence, _ in rows)
        else:
            text = "sentence\tlabel\n" + "".join(f"{sentence}\t{label}\n" for sentence, label in rows)
        write_atomic(paths[split], text)
    write_atomic(paths["readme"], README)
    return paths
