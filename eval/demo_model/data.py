"""Task data for the demo model: a seeded random source comes in, (task, row, answer) examples go out.

Two tasks, the ones of the prompt files shipped in `llmbatch/demo/prompts`. What is held out is decided by a hash of
the number or of the sentence, so training and the shipped corpus cannot drift apart: each asks `is_held_out`.
"""

import hashlib
import json
import random
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEMO = Path(__file__).resolve().parents[2] / "llmbatch" / "demo"

NUMBERS, ORDERS = "translate-number", "extract-order"
LANGUAGES = ("French", "German", "Spanish")
LARGEST = 9999


class Example(NamedTuple):
    """One row of a task and the only answer that counts as right."""

    task: str
    row: dict[str, str]
    answer: str
    key: str
    """What the split hashes: the number, or the sentence."""


def is_held_out(key: str) -> bool:
    """Whether the number or sentence `key` is kept from training: one in ten is."""
    return hashlib.sha256(key.encode()).digest()[0] < 26


def number_is_held_out(number: int) -> bool:
    """As `is_held_out`, but the words that every other number is built from are always trained on."""
    return number > 20 and number % 100 != 0 and is_held_out(str(number))


# ---- numbers in four languages


def english(number: int, *, british: bool = False) -> str:
    """Spell 0-9999; `british` puts "and" before the last two digits."""
    if number < 20:
        return _ENGLISH_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _ENGLISH_TENS[tens] + (f"-{_ENGLISH_SMALL[ones]}" if ones else "")
    thousands, below = divmod(number, 1000)
    hundreds, last = divmod(below, 100)
    words = []
    if thousands:
        words += [_ENGLISH_SMALL[thousands], "thousand"]
    if hundreds:
        words += [_ENGLISH_SMALL[hundreds], "hundred"]
    if last:
        words += (["and"] if british else []) + [english(last)]
    return " ".join(words)


def french(number: int) -> str:
    """Spell 0-9999 in the traditional spelling (hyphens below one hundred only, none around "et")."""
    if number < 17:
        return _FRENCH_SMALL[number]
    if number < 20:
        return f"dix-{_FRENCH_SMALL[number - 10]}"
    if number < 80:
        # Seventy has no word of its own: it counts on from sixty.
        tens = min(number // 10, 6)
        rest = number - tens * 10
        if rest == 0:
            return _FRENCH_TENS[tens]
        return _FRENCH_TENS[tens] + (f" et {french(rest)}" if rest in (1, 11) else f"-{french(rest)}")
    if number < 100:
        return "quatre-vingts" if number == 80 else f"quatre-vingt-{french(number - 80)}"
    if number < 1000:
        hundreds, last = divmod(number, 100)
        if hundreds == 1:
            return f"cent {french(last)}" if last else "cent"
        return f"{french(hundreds)} cent {french(last)}" if last else f"{french(hundreds)} cents"
    thousands, below = divmod(number, 1000)
    head = "mille" if thousands == 1 else f"{french(thousands)} mille"
    return f"{head} {french(below)}" if below else head


def german(number: int) -> str:
    """Spell 0-9999 as one word."""
    if number == 0:
        return "null"
    thousands, below = divmod(number, 1000)
    hundreds, last = divmod(below, 100)
    word = ""
    if thousands:
        word += f"{_GERMAN_SMALL[thousands]}tausend"
    if hundreds:
        word += f"{_GERMAN_SMALL[hundreds]}hundert"
    if last == 1:
        return f"{word}eins"  # "ein" stands only before another part of the word
    if last == 0:
        return word
    if last < 20:
        return word + _GERMAN_SMALL[last]
    tens, ones = divmod(last, 10)
    return word + (f"{_GERMAN_SMALL[ones]}und" if ones else "") + _GERMAN_TENS[tens]


def spanish(number: int) -> str:
    """Spell 0-9999."""
    if number < 30:
        return _SPANISH_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _SPANISH_TENS[tens] + (f" y {_SPANISH_SMALL[ones]}" if ones else "")
    if number == 100:
        return "cien"
    if number < 1000:
        hundreds, last = divmod(number, 100)
        return _SPANISH_HUNDREDS[hundreds] + (f" {spanish(last)}" if last else "")
    thousands, below = divmod(number, 1000)
    head = "mil" if thousands == 1 else f"{spanish(thousands)} mil"
    return f"{head} {spanish(below)}" if below else head


def _words(text: str) -> list[str]:
    return text.split()


_ENGLISH_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ENGLISH_TENS = _words("- - twenty thirty forty fifty sixty seventy eighty ninety")
_FRENCH_SMALL = _words("zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize")
_FRENCH_TENS = _words("- - vingt trente quarante cinquante soixante")
_GERMAN_SMALL = _words(
    "- ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
_GERMAN_TENS = _words("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_SPANISH_SMALL = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
_SPANISH_TENS = _words("- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_SPANISH_HUNDREDS = _words(
    "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)

_SPELL = {"French": french, "German": german, "Spanish": spanish}


def number_example(rng: random.Random, *, held_out: bool) -> Example:
    """A number in one of the languages, from the training or the held-out side of the split."""
    while True:
        # Uniform over 0-9999 would hardly ever show a short number.
        number = rng.randrange(rng.choices((100, 1000, LARGEST + 1), (1, 2, 7))[0])
        if number_is_held_out(number) == held_out:
            break
    language = rng.choice(LANGUAGES)
    text = english(number, british=rng.random() < 0.4)
    return Example(NUMBERS, {"text": text, "language": language}, _SPELL[language](number), str(number))


# ---- orders

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CUSTOMERS = _words(
    "Anna Omar Priya Lukas Chen Maria Tomás Ines Jonas Fatima Erik Sofia Hugo Leila Pedro Yuki Nadia Oscar Greta Ivan "
    "Zoé Karim Elena Felix Hannah Mateo Olga Ravi Clara Samuel Aiko Bruno Dana Emil Farid Gloria Henrik Irma Jakob "
    "Kofi Lena Milan Nora Otto Paula Quentin Rosa Stefan Tara Ugo Vera Walter Xenia Yasmin Zara Amina Björn Carlos "
    "Doris Ewa"
)
_SURNAMES = _words(
    "Weber Costa Novak Rossi Lindqvist Okafor Tanaka Müller Dubois Silva Haddad Park Jensen Kowalski Moreau Singh"
)
_COMPANIES = ("Nordwind", "Café Luna", "Hotel Astoria", "Blue Harbor", "Atelier Roux", "Studio Nine", "Casa Verde")
_CITIES = [
    *_words(
        "Berlin Paris Madrid Lyon Vienna Oslo Lisbon Rome Prague Dublin Zürich Munich Hamburg Porto Milan Athens "
        "Helsinki Warsaw Geneva Bergen Ghent Seville Turin Graz Bilbao Antwerp Cologne Nice Valencia Malmö"
    ),
    *("New York", "San Sebastián", "The Hague", "Den Bosch"),
]
_ADJECTIVES = _words(
    "blue red green black white small large wooden glass metal round folding heavy light cotton leather silver yellow "
    "old new"
)
_NOUNS = (
    "lamp lamps, chair chairs, table tables, box boxes, mug mugs, notebook notebooks, shelf shelves, bottle bottles, "
    "desk desks, pencil pencils, bag bags, clock clocks, mirror mirrors, blanket blankets, towel towels, "
    "candle candles, plate plates, knife knives, basket baskets, bench benches, pillow pillows, poster posters, "
    "ladder ladders, brush brushes, bicycle bicycles, keyboard keyboards, umbrella umbrellas, jacket jackets, "
    "kettle kettles, drawer drawers, vase vases, curtain curtains"
)
_NOUN_FORMS = [tuple(pair.split()) for pair in _NOUNS.split(", ")]
_SYLLABLES = _words(
    "ba be bi bo da de do fa fe ga ge go ka ke ki ko la le li lo ma me mi mo na ne no pa pe ra re ri ro sa se si ta te "
    "ti to va ve vi za zo"
)

_VERBS = ("ordered", "bought", "wants", "needs", "would like", "has ordered", "is asking for", "requested")
_LABELS = ("Order from {c}: {q}{tail}.", "Customer {c}: {q}{tail}.", "New order for {c}, {q}{tail}.")
_REQUESTS = (
    "Please send {q} to {c}{place_in}{day}.",
    "Please ship {q}{place_to}{day}, customer {c}.",
    "Can you deliver {q}{place_to}{day}? Thanks, {c}",
    "I need {q}{place_in}{day}. Regards, {c}",
    "Hi, this is {c}, I would like {q}{tail}.",
)


def order_example(rng: random.Random, *, held_out: bool, invent: float = 0.15) -> Example:
    """An order in one sentence, from one side of the split.

    `invent` is the share of customers and cities made up on the spot. A model that only saw names from a list would
    recite the list; invented ones make it copy what the sentence says.
    """
    while True:
        sentence, order = _order(rng, invent)
        if is_held_out(sentence) == held_out:
            return Example(ORDERS, {"text": sentence}, json.dumps(order, ensure_ascii=False), sentence)


def _order(rng: random.Random, invent: float) -> tuple[str, dict[str, Any]]:
    customer = _customer(rng, invent)
    quantity, amount, plural = _quantity(rng)
    item = rng.choice(_NOUN_FORMS)[plural]
    if rng.random() < 0.6:
        item = f"{rng.choice(_ADJECTIVES)} {item}"
    if amount == "a" and item[0] in "aeiou":
        amount = "an"
    city = _invented(rng) if rng.random() < invent else rng.choice(_CITIES)
    day = rng.choice(DAYS)
    has_city, has_day = rng.random() < 0.7, rng.random() < 0.7
    day_phrase = f" {rng.choice(('on', 'by', 'on', 'before', 'next', 'this'))} {day}" if has_day else ""
    place_to = f" to {city}" if has_city else ""
    place_in = f" in {city}" if has_city else ""
    places = f" {rng.choice(('for', 'in'))} {city}" if has_city else ""
    tail = places + day_phrase if rng.random() < 0.7 else day_phrase + places
    goods = f"{amount} {item}"

    kind = rng.random()
    if kind < 0.4:
        sentence = f"{customer} {rng.choice(_VERBS)} {goods}{tail}."
    elif kind < 0.5:
        lead = f"On {day}, " if has_day else ""
        sentence = f"{lead}{customer} {rng.choice(_VERBS)} {goods}{places}."
    elif kind < 0.6:
        was = "were" if plural else "was"
        sentence = f"{goods[0].upper()}{goods[1:]} {was} ordered by {customer}{tail}."
    elif kind < 0.7:
        parts = [f"customer {customer}", f"city {city}" if has_city else "", f"day {day}" if has_day else ""]
        parts = [part for part in parts if part]
        rng.shuffle(parts)
        sentence = f"Order: {goods}, {', '.join(parts)}."
    else:
        form = rng.choice(_LABELS + _REQUESTS)
        sentence = form.format(c=customer, q=goods, tail=tail, place_in=place_in, place_to=place_to, day=day_phrase)
    return sentence, {
        "customer": customer,
        "item": item,
        "quantity": quantity,
        "city": city if has_city else None,
        "day": day if has_day else None,
    }


def _customer(rng: random.Random, invent: float) -> str:
    if rng.random() < invent:
        return _invented(rng)
    if rng.random() < 0.1:
        return rng.choice(_COMPANIES)
    name = rng.choice(_CUSTOMERS)
    return f"{name} {rng.choice(_SURNAMES)}" if rng.random() < 0.25 else name


def _invented(rng: random.Random) -> str:
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3))).capitalize() + rng.choice(("", "n", "s", "r"))


def _quantity(rng: random.Random) -> tuple[int, str, bool]:
    """The quantity, how the sentence says it, and whether the noun is plural."""
    kind = rng.random()
    if kind < 0.08:
        return 1, rng.choice(("a", "one", "1")), False
    if kind < 0.14:
        dozens = rng.randint(1, 3)
        return dozens * 12, "a dozen" if dozens == 1 else f"{english(dozens)} dozen", True
    if kind < 0.17:
        return 2, "a pair of", True
    if kind < 0.55:
        quantity = rng.choice((rng.randint(2, 12), rng.randint(2, 99)))
        return quantity, english(quantity), True
    quantity = rng.choice((rng.randint(2, 20), rng.randint(2, 99), rng.randint(100, 500)))
    return quantity, str(quantity), True


# ---- the form the model sees


@cache
def _prompt(task: str) -> list[dict[str, str]]:
    document = yaml.safe_load((DEMO / "prompts" / f"{task}.yaml").read_text(encoding="utf-8"))
    messages: list[dict[str, str]] = document["messages"]
    return messages


def schema(task: str) -> dict[str, Any] | None:
    """The JSON schema of the shipped prompt, or None for plain text."""
    document = yaml.safe_load((DEMO / "prompts" / f"{task}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] | None = document.get("output", {}).get("schema")
    return found


def messages(example: Example) -> list[dict[str, str]]:
    """The chat that the shipped prompt file makes of the row; read from that file, so that the two cannot differ."""
    chat = []
    for message in _prompt(example.task):
        content = message["content"]
        for name, value in example.row.items():
            content = content.replace("{{ " + name + " }}", value)
        chat.append({"role": message["role"], "content": content})
    return chat
