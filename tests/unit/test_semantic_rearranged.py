"""The same words in another arrangement: what is known to say nothing passes, all else is another question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.semantic import word_order
from groundplan.economics.semantic.equivalence import compare_words
from groundplan.economics.semantic.reading import Reading, read
from groundplan.economics.semantic.word_order import arrangement_difference


def refused(one: Reading, other: Reading) -> str:
    """The kind of difference that words alone tell; empty: none."""
    found = compare_words(one, other)
    return found if isinstance(found, str) else found.veto


OTHERWISE = [
    ("little word", "Is the pool deep?", "Is the pool very deep?"),
    ("little word", "Is it a copy?", "Is it just a copy?"),
    ("little word", "Can I choose to work?", "Can I choose where to work?"),
    ("little word", "Can I hide the file from him?", "Can I hide the file with him?"),
    ("little word", "The lamp was on. Why does it blink?", "The lamp is on. Why does it blink?"),
    ("little word", "I can drive. When does the course begin?", "I must drive. When does the course begin?"),
    ("little word", "Is this seat free?", "Is that seat free?"),
    ("little word", 'Can I copy "left" over "right"?', 'Can I copy "right" over "left"?'),
    ("form", "Which vet treated the cow?", "Which vet treats the cow?"),
    ("form", "Is the shop closed?", "Is the shop closing?"),
    ("form", "Did the bus come late?", "Did the bus come lately?"),
    ("scope", "Do I get 2 rooms for 5 guests?", "Do I get 5 rooms for 2 guests?"),
    ("scope", "Can the nurse not sign and the doctor read it?", "Can the nurse sign and the doctor not read it?"),
    ("order", "Is the lamp cover broken?", "Is the cover lamp broken?"),
    ("order", "Can only members book the court?", "Can members book only the court?"),
    ("order", "Does the insurance of the car cover the trailer?", "Does the insurance of the trailer cover the car?"),
    ("order", "Do I keep the lamp here and the candle there?", "Do I keep the candle here and the lamp there?"),
    ("order", "Is the letter of the uncle the stamp?", "Is the letter the stamp of the uncle?"),
    ("order", "Is the garden shed key cheap?", "In the garden, is the shed key cheap?"),
    ("voice", "Can the heron be eaten?", "Can the heron eat?"),
    ("sentence", "The dog can bark. The cat can sleep. Why?", "The dog can sleep. The cat can bark. Why?"),
    ("mood", "Does the guard lock the vault?", "Can the guard lock the vault?"),
    ("mood", "Must I sign it?", "Is it signed?"),
    ("mood", "Who signs the lease?", "Who may sign the lease?"),
    ("person", "Can I lend them the key?", "Can I lend you the key?"),
    ("verb", "Do I need a visa?", "Is there a visa?"),
    ("verb", "Do I have a garden?", "Is there a garden?"),
    ("plural", "Is the lamp broken?", "Are the lamps broken?"),
    ("plural", "Is the doctor here?", "Is a doctor here?"),
    ("focus", "Refund for shoes", "Can I get a refund for shoes?"),
    ("relation", "Do I swap the euros for the francs?", "Do I swap the francs for the euros?"),
    ("little word", "Do I carry the pens and the cups?", "Do I carry the pens, the cups?"),
    ("little word", "Could the guard have locked the door?", "Could the guard lock the door?"),
    ("relation", "Can I swap the pens and the cups?", "Can I swap the pens for the cups?"),
    ("relation", "Where is the bag of the pilot?", "Where is the bag for the pilot?"),
    ("relation", "Did the clerk give the judge the robe?", "Did the clerk give the robe for the judge?"),
    ("relation", "Of what is the bowl made?", "What is made of the bowl?"),
    ("form", "Can I wash the sledge while the guide sleeps?", "Can I wash the sledge while the guide slept?"),
    ("focus", "What is needed to lift the piano?", "Where do I need to lift the piano?"),
    ("tense", "Tell me whether the guide has the key?", "Did the guide have the key?"),
    ("tense", "What is the long red rope under the tent for?", "What was the long red rope under the tent for?"),
    ("tense", "Price of the lamp?", "How much did the lamp cost?"),
    ("relation", "Can I come within five days?", "Can I come after five days?"),
]
SAME = [
    ("Can I cancel the order?", "Can the order be cancelled?"),
    ("How do I have the lamp repaired?", "How can the lamp be repaired?"),
    ("In May, is the pool open?", "Is the pool open in May?"),
    ("What is the colour of the tank?", "What is the tank colour?"),
    ("What is the price of the room in Berlin?", "In Berlin, what is the price of the room?"),
    ("Who approves the order of the team?", "By whom is the order of the team approved?"),
    ("How do I reset my password quickly?", "How can I quickly reset my password?"),
    ("Do cats and dogs bite?", "Do dogs and cats bite?"),
    ("Do I get 2 rooms for 5 guests?", "For 5 guests, do I get 2 rooms?"),
    ("How do I cancel a visit?", "How do I cancel visits?"),
    ("Can I come within 5 days?", "Can I come within five days?"),
    ("Which papers do I need?", "Which papers are needed?"),
    ("To whom does the clerk report?", "Who does the clerk report to?"),
    ("Of what is the bowl made?", "What is the bowl made of?"),
    ("Where can I park the car?", "Where do I park the car?"),
]


@pytest.mark.parametrize(("kind", "one", "other"), OTHERWISE)
def test_what_is_arranged_otherwise_is_another_question(kind: str, one: str, other: str) -> None:
    assert refused(read(one), read(other)) == kind
    assert refused(read(other), read(one)) == kind


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_known_to_say_nothing_passes(one: str, other: str) -> None:
    assert refused(read(one), read(other)) == ""
    assert refused(read(other), read(one)) == ""


def test_an_order_within_a_long_letter_is_held_to_each_word() -> None:
    letter = "We have been here for years and know the house. {} Tonight we look through all the papers once more."
    one, other = (
        letter.format(f"Write a note from the {a} to the {b}.") for a, b in (("pilot", "diver"), ("diver", "pilot"))
    )
    assert refused(read(one), read(one)) == "" != refused(read(one), read(other))


def test_each_kind_has_a_trap() -> None:
    assert {word_order.STRAY_KIND, *(kind for kind, _ in word_order._RULES)} <= {kind for kind, _, _ in OTHERWISE}


WORDS = st.lists(
    st.sampled_from(
        ["moved", "move", "the", "a", "guest", "guests", "room", "to", "from", "by", "of", "can", "not", "did", "is",
         "who", "and", "5", "five", "two", "that", "this", "myself", "just", "or", "than", "with", "me", "being",
         '"x y"', "?", ".", ","]
    ), max_size=18,
).map(" ".join)  # fmt: skip


def _itself(text: str) -> list[tuple[int, int]]:
    return [(place, place) for place in range(len(read(text).stems))]


@given(st.text(max_size=120) | WORDS)
def test_no_text_is_arranged_otherwise_than_itself(text: str) -> None:
    assert arrangement_difference(read(text), read(text), _itself(text)) == ""


@given(st.text(max_size=80) | WORDS)
def test_each_word_of_content_has_its_place(text: str) -> None:
    reading = read(text)
    put = reading.clause.arrangement
    assert len(put.segments) == len(put.runs) == len(put.relations) == len(put.voices) == len(reading.stems)
    assert all(0 <= place < len(reading.stems) for places in put.scopes.values() for place in places)
    assert list(put.segments) == sorted(put.segments)


@given(WORDS, WORDS)
def test_what_is_told_does_not_depend_on_the_order(one: str, other: str) -> None:
    assert bool(refused(read(one), read(other))) == bool(refused(read(other), read(one)))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [("???", "!!!", "empty"), ("", " ", "empty"), ("", "", ""), ("\x00", "\x01", "empty"),
     ("How is it?", "Who is it?", "empty"),
     ("Is it?", "is it", ""), ("\N{PARTY POPPER}", "\N{PILE OF POO}", "empty"), ("???", "How do I pay?", "empty")],
)  # fmt: skip
def test_texts_without_content_are_the_same_only_word_for_word(one: str, other: str, kind: str) -> None:
    assert refused(read(one), read(other)) == refused(read(other), read(one)) == kind
