"""Passages, and sentences that cite them: some that the passage supports, some that it does not. Written by hand.

Supported sentences are nearly in the passage's words, in other words, or in quite different words. Unsupported ones
have another number, the opposite, or something that the passage leaves open or says of another thing. Data only.
"""

from __future__ import annotations

from dataclasses import dataclass

SAID = ("words", "reworded", "far")
NOT_SAID = ("number", "opposite", "left open")


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence that cites a passage; `supported`: the passage says it. `kind`: one of `SAID` or `NOT_SAID`."""

    passage: int
    sentence: str
    supported: bool
    kind: str


_SET = (
    (
        "Employees have 25 days of paid leave in a calendar year. Up to five days may be carried over until the "
        "end of March. Leave is requested in the staff portal at least two weeks ahead and approved by the team "
        "lead.",
        (
            "Employees have 25 days of paid leave in a calendar year.",
            "You can take up to five unused days with you until the end of March.",
            "Your team lead has to agree before you go on holiday.",
        ),
        (
            "Employees have 30 days of paid leave in a calendar year.",
            "Leave does not have to be approved by the team lead.",
            "Unused leave is paid out in December.",
        ),
    ),
    (
        "Travel by train is booked in second class. First class is allowed for journeys of more than four hours. "
        "Flights within the country are refused unless the journey by train takes longer than six hours.",
        (
            "Journeys of more than four hours may be booked in first class.",
            "Trains are booked in second class as a rule.",
            "Domestic flying is turned down unless the railway needs over six hours.",
        ),
        (
            "Journeys of more than two hours may be booked in first class.",
            "First class is never allowed.",
            "A taxi from the airport is reimbursed.",
        ),
    ),
    (
        "Expense reports are handed in within 30 days of the journey. Receipts are needed for amounts above 20 "
        "EUR. Finance pays approved reports with the next salary.",
        (
            "Expense reports are handed in within 30 days.",
            "You need a receipt for anything above 20 EUR.",
            "The money arrives together with your next pay.",
        ),
        (
            "You need a receipt for anything above 50 EUR.",
            "Expense reports may be handed in after more than 30 days.",
            "Alcohol is not reimbursed.",
        ),
    ),
    (
        "Laptops are replaced every four years. A lost device is reported to the service desk at once, by phone, "
        "so that it can be locked. Private software must not be installed.",
        (
            "A lost device is reported to the service desk at once by phone.",
            "A laptop gets replaced every four years.",
            "If your computer goes missing, call the help desk straight away.",
        ),
        (
            "Laptops are replaced every two years.",
            "Private software may be installed.",
            "Lost devices are paid for by the employee.",
        ),
    ),
    (
        "The incident manager informs the authority within 72 hours of learning of a breach of personal data. "
        "Customers are informed without delay where the breach puts them at high risk.",
        (
            "The authority is informed within 72 hours of learning of a breach.",
            "Where a breach puts customers at high risk, they are informed without delay.",
            "Three days is the limit for telling the regulator about leaked personal data.",
        ),
        (
            "The authority is informed within 24 hours of learning of a breach.",
            "Customers are informed after the breach is repaired, not before.",
            "The incident manager is appointed by the board.",
        ),
    ),
    (
        "The pump is stopped before the filter is opened. The pressure gauge must show 0 bar. The filter is "
        "changed every 500 hours of operation, or earlier if the pressure drop is above 1.2 bar.",
        (
            "Stop the pump before you open the filter.",
            "The filter is changed every 500 hours of operation.",
            "Make sure that there is no pressure left on the gauge.",
        ),
        (
            "The filter is changed every 1000 hours of operation.",
            "The filter is opened before the pump is stopped.",
            "The pump is lubricated every week.",
        ),
    ),
    (
        "Deliveries are accepted from Monday to Friday between 7 and 15 o'clock. Goods for the cold store are "
        "checked for temperature on arrival; frozen goods above -15 degrees are rejected.",
        (
            "Frozen goods above -15 degrees are rejected.",
            "You can deliver from Monday to Friday between 7 and 15 o'clock.",
            "Chilled goods have their temperature measured when they come in.",
        ),
        (
            "Frozen goods above -10 degrees are rejected.",
            "Deliveries are accepted on Saturday as well.",
            "Drivers have to wear safety shoes in the yard.",
        ),
    ),
    (
        "Customers may return goods within 30 days of delivery. Opened software and made-to-measure goods cannot "
        "be returned. The refund is made to the original means of payment within ten working days.",
        (
            "Customers may return goods within 30 days of delivery.",
            "Software that was opened cannot be returned.",
            "The money goes back the way it was paid, in at most ten working days.",
        ),
        (
            "Customers may return goods within 14 days of delivery.",
            "Made-to-measure goods can be returned.",
            "The customer pays for the return parcel.",
        ),
    ),
    (
        "A contract above 50,000 EUR is signed by two directors. Below that, the head of the department signs "
        "alone. Contracts that run for longer than three years are looked at by the legal department first.",
        (
            "Two directors sign a contract above 50,000 EUR.",
            "Below 50,000 EUR, the head of the department signs alone.",
            "The lawyers see agreements first that bind us for longer than three years.",
        ),
        (
            "Two directors sign a contract above 100,000 EUR.",
            "The head of the department never signs alone.",
            "Contracts are kept for ten years.",
        ),
    ),
    (
        "The building is open from 6 to 22 o'clock. Visitors are registered at the reception and are accompanied "
        "at all times. In case of an alarm everybody leaves by the nearest staircase; lifts must not be used.",
        (
            "Visitors are registered at the reception.",
            "During an alarm you must not use the lifts.",
            "Guests never walk around by themselves.",
        ),
        (
            "The building is open from 8 to 22 o'clock.",
            "Visitors may walk around without being accompanied.",
            "The reception speaks English and French.",
        ),
    ),
    (
        "Passwords have at least 14 characters and are not changed at fixed times. A second factor is required "
        "for access from outside. After ten failed attempts an account is locked for 15 minutes.",
        (
            "Passwords have at least 14 characters.",
            "From outside you need a second factor.",
            "Too many wrong tries shut you out for a quarter of an hour.",
        ),
        (
            "Passwords have at least 8 characters.",
            "Passwords are changed at fixed times.",
            "The second factor is a hardware key.",
        ),
    ),
    (
        "Sick leave is reported to the team lead on the first day before 9 o'clock. From the fourth day a "
        "certificate of a doctor is needed. Pay continues for six weeks.",
        (
            "From the fourth day you need a certificate of a doctor.",
            "Report sick to your team lead on the first day before 9 o'clock.",
            "For one and a half months you go on receiving your salary.",
        ),
        (
            "From the second day you need a certificate of a doctor.",
            "A certificate of a doctor is not needed.",
            "Sick children are cared for at home with full pay.",
        ),
    ),
    (
        "Training of up to 1,500 EUR a year is approved by the team lead. Whoever leaves within a year of a "
        "course that cost more pays back half of its price.",
        (
            "The team lead approves training of up to 1,500 EUR a year.",
            "Whoever leaves within a year pays back half of the price of a more expensive course.",
            "Your direct superior decides about smaller courses.",
        ),
        (
            "The team lead approves training of up to 2,500 EUR a year.",
            "Nobody has to pay back the price of a course.",
            "Language courses take place on Tuesdays.",
        ),
    ),
    (
        "The service answers 99.5 percent of requests within 800 milliseconds, measured over a month. Planned "
        "maintenance is announced five days ahead and does not count.",
        (
            "Planned maintenance is announced five days ahead.",
            "The service answers 99.5 percent of requests within 800 milliseconds.",
            "Announced downtime is left out of the figure.",
        ),
        (
            "The service answers 99.9 percent of requests within 800 milliseconds.",
            "Planned maintenance counts.",
            "Customers receive a credit for each hour of downtime.",
        ),
    ),
    (
        "Invoices are paid within 14 days with a discount of 2 percent, or within 30 days net. Reminders cost 5 "
        "EUR from the second one on. Objections are raised in writing within eight weeks.",
        (
            "Invoices are paid within 30 days net.",
            "If you pay within 14 days you get a discount of 2 percent.",
            "The first reminder is free of charge.",
        ),
        (
            "If you pay within 14 days you get a discount of 3 percent.",
            "Objections are raised by phone, not in writing.",
            "Invoices are sent by post.",
        ),
    ),
    (
        "Working from home is possible on up to three days a week where the task allows it. Confidential papers "
        "stay in the office. Working from abroad needs the consent of the HR department beforehand.",
        (
            "Working from home is possible on up to three days a week.",
            "Confidential papers have to stay in the office.",
            "Ask HR first if you want to do your job from another country.",
        ),
        (
            "Working from home is possible on up to five days a week.",
            "Confidential papers may be taken home.",
            "The company pays for the desk at home.",
        ),
    ),
    (
        "Machine 7 makes 240 parts an hour at a scrap rate of 1.8 percent. It is serviced by the maintenance team"
        " in the night shift. Operators need the instruction of level two.",
        (
            "Machine 7 makes 240 parts an hour.",
            "The maintenance team services it in the night shift.",
            "Not quite two in a hundred pieces are thrown away.",
        ),
        (
            "Machine 7 makes 340 parts an hour.",
            "Operators need no instruction.",
            "Machine 7 was bought in Italy.",
        ),
    ),
    (
        "A complaint is acknowledged within one working day and answered within ten. If it concerns safety, the "
        "quality manager is informed at once and sales of the batch are stopped.",
        (
            "A complaint is acknowledged within one working day.",
            "If it concerns safety, sales of the batch are stopped.",
            "The quality manager hears immediately about anything dangerous.",
        ),
        (
            "A complaint is acknowledged within five working days.",
            "Sales of the batch go on if the complaint concerns safety.",
            "Complaints are collected in a yearly report.",
        ),
    ),
    (
        "Notice is given in writing. The period is four weeks in the first two years, and three months after "
        "that. During the probation of six months it is two weeks.",
        (
            "The period of notice is four weeks in the first two years.",
            "Notice has to be given in writing.",
            "In the trial period either side can end it with a fortnight's warning.",
        ),
        (
            "The period of notice is six weeks in the first two years.",
            "Notice may be given orally.",
            "Whoever gives notice hands in their car on the same day.",
        ),
    ),
    (
        "Backups are made every night and kept for 35 days. Restoring is tried out once a quarter. The copies are"
        " encrypted and stored in another data centre.",
        (
            "Backups are kept for 35 days.",
            "The copies are encrypted and stored in another data centre.",
            "Four times a year somebody checks that lost data can be brought back.",
        ),
        (
            "Backups are kept for 90 days.",
            "The copies are not encrypted.",
            "The backup team is on call at weekends.",
        ),
    ),
)  # fmt: skip

PASSAGES = tuple(passage for passage, _, _ in _SET)
CLAIMS = tuple(
    Claim(at, sentence, supported, kind)
    for at, (_, said, unsaid) in enumerate(_SET)
    for sentences, kinds, supported in ((said, SAID, True), (unsaid, NOT_SAID, False))
    for sentence, kind in zip(sentences, kinds, strict=True)
)
