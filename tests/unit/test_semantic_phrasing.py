"""Questions that are put in one of the usual ways come to the one that is most usual, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.semantic.phrasing import MAX_LENGTH, read_question, usual_phrasing

SAME = [
    ("How do I reset my password?", [
        "What are the steps to reset my password?", "what's the best way to reset my password",
        "I want to reset my password. How do I do that?", "What do I need to do in order to reset my password?",
        "Hi, could you tell me how I can reset my password, please?", "How to reset my password",
        "What is the process for resetting my password?",
    ]),
    ("Can I bring my dog to the office?", [
        "Is it OK to bring my dog to the office?", "Am I allowed to bring my dog to the office?",
        "Is there a way to bring my dog to the office?", "Do you know if I can bring my dog to the office?",
    ]),
    ("Do I have to pay customs duties?", [
        "Must I pay customs duties?", "Am I required to pay customs duties?", "Will I need to pay customs duties?",
    ]),
    ("Is there free trial?", ["Do you offer a free trial?", "Is a free trial available?", "Is there a free trial?"]),
    ("What is the price of the premium plan?", [
        "How much does the premium plan cost?", "How much is the premium plan?", "What does the premium plan cost?",
        "Could you tell me how much the premium plan costs?", "price of the premium plan",
    ]),
    ("What is the price of a permit in Chile?", ["How much does a permit cost in Chile?"]),
    ("What is the late fee?", ["How much is the late fee?", "How high is the late fee?"]),
    ("How long does delivery take?", [
        "What is the delivery time?", "How many days will it take for my order to arrive?",
    ]),
    ("How long is the warranty for laptops?", [
        "What is the warranty period for laptops?", "How long is the warranty on laptops?",
    ]),
    ("When is the office open?", ["What are the office opening hours?", "At what times is the office open?"]),
    ("What payment methods do you accept?", ["Which payment methods are accepted?"]),
    ("What languages do the app support?", ["Which languages are supported by the app?"]),
    ("What is the refund policy?", ["What's your policy on refunds?", "Can you explain your refund policy?"]),
    ("Who approves travel expenses?", ["Who is responsible for approving travel expenses?"]),
    ("What should I do if my card is stolen?", [
        "My card was stolen, what should I do?", "What do I do when my card gets stolen?",
    ]),
    ("Why was my payment declined?", ["What is the reason my payment was declined?"]),
    ("How do I change my billing address?", ["How can I update the billing address on my account?"]),
    ("How many employees are there in the company?", [
        "What is the number of employees in the company?", "How many employees does the company have?",
    ]),
]  # fmt: skip
APART = [
    ("How do I reset my password?", "Can I reset my password?"),
    ("How do I reset my password?", "How do we reset my password?"),
    ("Can I return it with a receipt?", "Do I have to return it with a receipt?"),
    ("How many points do I have?", "How many points do I get?"),
    ("How high is the building?", "What is the building?"),
    ("What is the closing time?", "How long does closing take?"),
    ("What happens if I miss a payment?", "What should I do if I miss a payment?"),
    ("How long does delivery take?", "When does delivery take place?"),
    ("What should I do if my phone was updated?", "What should I do if my phone is updated?"),
    ("Where can I find my invoice?", "Where can I pay my invoice?"),
]
UNTOUCHED = [
    "How do I reset my password? And how long does it take?",
    "How do I reset my password; it is lost",
    "Summarise this letter: how can I reset my password",
    "Wie kann ich mein Passwort zurücksetzen?",
    "What is the best way to reach İzmir?",  # some letters change their length with their case
    "What is the capital of France?",
    "The refund policy of 2024 was withdrawn.",
    "How do I " + "really " * MAX_LENGTH + "reset it?",
    "",
    " \n",
]


@pytest.mark.parametrize(("put", "other"), [(put, other) for put, others in SAME for other in others])
def test_ways_to_ask_come_to_the_one_that_is_most_usual(put: str, other: str) -> None:
    assert usual_phrasing(other).lower() == put.lower()


@pytest.mark.parametrize("put", [put for put, _ in SAME])
def test_what_is_usual_stays(put: str) -> None:
    assert usual_phrasing(put).lower() == put.lower()


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_asks_for_something_else_is_not_brought_together(one: str, other: str) -> None:
    assert usual_phrasing(one).lower() != usual_phrasing(other).lower()


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_is_no_such_question_as_a_whole_stays_as_it_is(text: str) -> None:
    assert usual_phrasing(text) == text


def test_what_stands_in_a_frame_stays_as_it_was_written() -> None:
    assert usual_phrasing("What is the best way to connect to api.ACME.example from Oslo?") == (
        "How do I connect to api.ACME.example from Oslo?"
    )


def test_a_question_is_read_and_embedded_as_it_is_usual() -> None:
    found = read_question("Is it possible to export my data?")
    assert found.text == "Can I export my data?"
    assert [found.text[begin:end] for begin, end in found.spans] == ["export", "data"]


@given(st.text(max_size=80), st.sampled_from([each for put, others in SAME for each in (put, *others)]))
def test_any_text_is_read_and_put_once(text: str, frame: str) -> None:
    for each in (text, f"{frame[:-1]} {text}", f"{text} {frame}"):
        put = usual_phrasing(each)
        assert usual_phrasing(put).lower() == put.lower()
        read_question(each)
