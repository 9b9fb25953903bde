"""How two questions are put: what is asked for, who does what, and when, is told where all words of content agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.semantic import grammar_differences
from groundplan.economics.semantic.equivalence import WordComparison, compare_words
from groundplan.economics.semantic.grammar_differences import grammar_difference
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.reading import read, stem
from groundplan.economics.semantic.spelling import misspelling_places, normalize_spelling

OTHERWISE = [
    ("focus", "How do I renew the permit?", "When do I renew the permit?"),
    ("focus", "How do I renew the permit?", "Can I renew the permit?"),
    ("focus", "What is the permit?", "Where is the permit?"),
    ("focus", "Which rooms are booked?", "How many rooms are booked?"),
    ("focus", "What can I bring?", "Why can I bring?"),
    ("focus", "Which laptops are covered?", "Are laptops covered?"),
    ("mood", "Can I park here?", "Must I park here?"),
    ("mood", "Who can approve the order?", "Who must approve the order?"),
    ("mood", "Should I take the pill?", "Am I allowed to take the pill?"),
    ("tense", "Did you ship the parcel?", "Do you ship the parcel?"),
    ("tense", "Who was the director?", "Who is the director?"),
    ("tense", "Is the shop open?", "Was the shop open?"),
    ("person", "Can I see the file?", "Can she see the file?"),
    ("person", "What is my address?", "What is your address?"),
    ("person", "Can I send you the form?", "Can you send me the form?"),
    ("roles", "Can a tenant visit a landlady?", "Can a landlady visit a tenant?"),
    ("roles", "Can a tenant visit a landlady?", "Can a tenant be visited by a landlady?"),
    ("roles", "Who pays the firm?", "Who is paid by the firm?"),
    ("person", "Who contacts me?", "Whom do I contact?"),
    ("order", "Do we have insurance for the room cover?", "Does our insurance cover the room?"),
    ("relation", "Can I pay the card?", "Can I pay with the card?"),
    ("relation", "Can over 5 people come?", "Can 5 people come?"),
    ("relation", "Is it open before June?", "Is it open in June?"),
    ("verb", "Do I have a visa?", "Do I need a visa?"),
    ("mood", "Can I have a desk?", "Do I have a desk?"),
    ("mood", "Must I stand closer than allowed?", "May I stand closer than allowed?"),
    ("person", "Is there a desk for me?", "Is there a desk for you?"),
    ("person", "Is this his desk?", "Is this her desk?"),
    ("person", "Can they see my desk?", "Can I see their desk?"),
    ("person", "What if I am late?", "What if you are late?"),
    ("person", "What do I tell the team?", "What does the team tell me?"),
    ("quantity", "Is the flat very expensive?", "Is the flat too expensive?"),
    ("quantity", "Can I work here?", "Can I work there?"),
    ("quantity", "Can I also work?", "Can I work?"),
    ("quantity", "Do I pay before or after?", "Do I pay after?"),
    ("relation", "Is the form in the desk?", "Is the form on the desk?"),
    ("relation", "Can I talk to the manager?", "Can I talk about the manager?"),
    ("relation", "Can I buy the shop?", "Can I buy from the shop?"),
    ("relation", "Can I check in a bag?", "Can I check a bag?"),
    ("relation", "Who is the laptop for?", "Who is the laptop from?"),
    ("relation", "Can I cancel the order within a day?", "Can I cancel the order for a day?"),
    ("particle", "How do I get up?", "How do I get in?"),
    ("tense", "Who collects the parcel?", "Who has collected the parcel?"),
    ("mood", "Who collects the parcel?", "Who will collect the parcel?"),
    ("tense", "By whom is the parcel collected?", "By whom was the parcel collected?"),
    ("tense", "What are the steps to collect it?", "How did I collect it?"),
    ("tense", "What is the reason that I have to collect it?", "Why did I have to collect it?"),
    ("person", "When can I collect the parcel?", "When can they collect the parcel?"),
    ("person", "She left. Must I sign it?", "She left. Must she sign it?"),
    ("roles", "Can a courier refuse a guest?", "Can a guest refuse a courier?"),
    ("roles", "Does the courier help the guest?", "Does the guest help the courier?"),
    ("plural", "Can a work permit be paused during the day?", "Is it permitted to pause work permits during the day?"),
    ("order", "Where can I park the rented car?", "Where can I park the car rented?"),
    ("order", "Must I name the second heir?", "Must I name the heir second?"),
    ("order", "Where is the guest house?", "Where is the house guest?"),
    ("order", "Who is the head of the team?", "Who is the team of the head?"),
    ("relation", "When does the train to Berlin leave?", "When does the train in Berlin leave?"),
    ("relation", "What is the flight from the island?", "What is the flight to the island?"),
    ("relation", "Must I pay within 5 days?", "Must I pay after 5 days?"),
    ("relation", "Can I travel despite the strike?", "Can I travel because of the strike?"),
    ("particle", "How do I set off the alarm?", "How do I set the alarm?"),
    ("particle", "Is the price broken through?", "Is the price broken in?"),
    ("verb", "How do I use the key?", "How do I get the key?"),
    ("quantity", "Can I cancel the order?", "Can I cancel all the order?"),
    ("quantity", "Where is the monitor?", "Where is the second monitor?"),
    ("degree", "Is the train cheaper?", "Is the train cheap?"),
    ("quantity", "Is the room too small?", "Is the room small?"),
    ("coordination", "Do I need a visa and a passport?", "Do I need a visa or a passport?"),
    ("plural", "Can I bring a guest?", "May I bring guests?"),
    ("doer", "Where is the trainee?", "Where is the training?"),
    ("doer", "Is the inspector free?", "Is the inspection free?"),
]
SAME = [
    ("How do I renew the permit?", "What is the way to renew the permit?"),
    ("How do I renew the permit?", "Could you tell me how to renew the permit?"),
    ("Is it possible to renew the permit?", "Can the permit be renewed?"),
    ("Must I renew the permit?", "Do I have to renew the permit?"),
    ("Why do I have to sign?", "What is the reason that I have to sign?"),
    ("When can I collect the key?", "At what time can the key be collected?"),
    ("Who approves the order?", "By whom is the order approved?"),
    ("How many days does the delivery take?", "How long does the delivery take?"),
    ("Did you ship the parcel?", "Was the parcel shipped?"),
    ("What is the reason my parcel was refused?", "Why was my parcel refused?"),
    ("Can a tenant visit a landlady?", "Can a landlady be visited by a tenant?"),
    ("Is water damage covered by the warranty?", "Does the warranty cover water damage?"),
    ("Which rules apply to the permit?", "What are the rules for the permit?"),
    ("Where is the Berlin office?", "Where is the office in Berlin?"),
    ("What is the colour of the tank?", "What is the tank colour?"),
    ("Do you give a refund?", "Can I get a refund?"),
    ("Is the trainer the one who trains?", "Is the trainer the one who trains?"),
    ("Who inspects the lift?", "Who is the inspector of the lift?"),
    ("Do I order it?", "Is it ordered by me?"),
    ("I cant log in, why?", "Why can't I log in?"),
    ("How do I switch on the lamp?", "How do I switch the lamp on?"),
]


@pytest.mark.parametrize(("kind", "one", "other"), OTHERWISE)
def test_what_is_put_otherwise_is_another_question(kind: str, one: str, other: str) -> None:
    assert grammar_difference(read(one), read(other)) == kind
    assert grammar_difference(read(other), read(one)) == kind


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_wordings_of_a_question_are_put_alike(one: str, other: str) -> None:
    assert grammar_difference(read(one), read(other)) == ""
    assert grammar_difference(read(other), read(one)) == ""


def test_each_kind_has_a_trap() -> None:
    assert {kind for kind, _, _ in OTHERWISE} == {kind for kind, _ in grammar_differences._GUARDS}


@pytest.mark.parametrize(
    "text",
    ["hi, will you tell me if the pool is open?", "Hello, could you please help me", "so can you tell me", "if may"],
)
def test_a_greeting_before_what_is_polite_is_read(text: str) -> None:
    assert read(text).clause.focus in ("polar", "")


WORDS = st.lists(
    st.sampled_from(
        ["move", "the", "a", "guest", "guests", "to", "from", "by", "of", "can", "must", "did", "is", "who", "how",
         "what", "trainer", "training", "trainee", "cheap", "cheaper", "and", "or", "he", "my", "your", "up", "get",
         "5", "days", "only", "?", ".", ",", "hi", "will you tell me", "if", "may", "Could you tell me"]
    ), max_size=16,
).map(" ".join)  # fmt: skip


@given(st.text(max_size=120) | WORDS, st.text(max_size=120) | WORDS)
def test_what_is_told_does_not_depend_on_the_order_and_no_text_differs_from_itself(one: str, other: str) -> None:
    assert grammar_difference(read(one), read(one)) == ""
    assert bool(grammar_difference(read(one), read(other))) == bool(grammar_difference(read(other), read(one)))


@pytest.mark.parametrize(
    "text",
    [
        "Bagaimana cara mengatur ulang kata sandi saya", "Miten vaihdan salasanani", "Jak zresetować hasło do poczty",
        "Wie setze ich mein Passwort zurück?", "Hoe wijzig ik mijn wachtwoord?", "Şifremi nasıl sıfırlarım?",
        "Como redefinir a minha senha?", "パスワードを変更する方法", "Как сменить пароль?",
        "Ninawezaje kubadilisha nenosiri",
        "Làm thế nào để đổi mật khẩu", "Hvordan endrer jeg passordet mitt?", "Cum îmi schimb parola de la cont",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_never_the_same(text: str) -> None:
    assert veto(read(text), read(text)) == "language"
    assert veto(read(text), read("How do I change my password?")) == "language"


@pytest.mark.parametrize(
    "text",
    ["Reset password", "How do I say guten Morgen in German?", "Can my son use the El Paso office?",
     "refund period shoes",
     "Where is the Rue de la Paix?", "What is the OS of the server?"],
)  # fmt: skip
def test_english_is_read(text: str) -> None:
    assert veto(read(text), read(text)) == ""


@pytest.mark.parametrize(
    "words",
    ["colour color", "organise organize", "organisation organization", "cancelled canceled cancel", "licence license",
     "travelling traveling", "centre center", "analyse analyze", "instalments installment", "neighbour neighbor",
     "catalogue catalog", "labelled labeled label"],
)  # fmt: skip
def test_a_word_has_one_stem_in_any_spelling(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


@pytest.mark.parametrize("word", ["advise", "promise", "exercise", "hour", "four", "tour", "noise", "all", "precise"])
def test_what_is_spelled_in_one_way_stays(word: str) -> None:
    assert normalize_spelling(word) == word


def test_a_lost_apostrophe_loses_no_negation() -> None:
    for text in ("I cant log in", "The app doesnt start", "Is it sold w/o a case?", "Why isnt it open"):
        assert read(text).negations == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("address", "adress", True), ("receive", "recieve", True), ("comittee", "committee", True),
     ("form", "from", False), ("permit", "hermit", False),
     ("contact", "contract", False), ("address", "address", False)],
)  # fmt: skip
def test_a_slip_is_one_word_with_letters_that_changed_places_or_are_doubled(one: str, other: str, same: bool) -> None:
    known = {"address", "receive", "committee", "form", "permit", "contact", "contract"}.__contains__
    assert list(misspelling_places([one], [other], known)) == [(0, 0)] * same
    assert list(misspelling_places([other], [one], known)) == [(0, 0)] * same


def test_of_two_known_words_none_is_a_slip_of_the_other() -> None:
    assert not list(misspelling_places(["casual"], ["causal"], lambda _: True))
    assert not list(misspelling_places(["casual"], ["causal"], lambda _: False))


TELLS = "The page at the end of each long report tells every reader {} rows the pump has written to disk."


@pytest.mark.parametrize(
    ("one", "other", "otherwise"),
    [
        ("what", "what time the", True), ("how", "how many", True), ("what", "what number of", True),
        ("how many", "what number of", False), ("how many", "the number of", False), ("how many", "how many", False),
        ("when the", "what time the", False), ("in which place the", "where the", False),
        ("what reason the", "why the", False), ("how often the", "with which frequency the", False),
    ],
)  # fmt: skip
def test_what_a_statement_says_that_somebody_asks_is_said_in_the_other(one: str, other: str, otherwise: bool) -> None:
    a, b = (read(TELLS.format(each)) for each in (one, other))
    for found in (compare_words(a, b), compare_words(b, a)):
        assert found == "focus" if otherwise else isinstance(found, WordComparison) and not found.strict
