"""Further questions for `semantic_asked`, written after the rule was corrected for the first; four other places."""

from __future__ import annotations

from benchmarks.semantic_asked import Place, Way

WAYS: dict[str, Way] = {
    "arrived": Way(
        ("Which {x} arrived first?", "What {x} arrived first?", "Which {x} was the first to arrive?"),
        (("order", "Which {x} arrived last?"), ("tense", "Which {x} arrives first?"),
         ("focus", "When did the first {x} arrive?"),
         ("thing", "Which {y} arrived first?"), ("quantity", "Which {x} arrived second?")),
    ),
    "lent": Way(
        ("Who lent the {x} to the {p}?", "By whom was the {x} lent to the {p}?", "Which person lent the {p} the {x}?"),
        (("roles", "To whom did the {p} lend the {x}?"), ("roles", "Who was lent the {x} by the {p}?"),
         ("opposite", "Who borrowed the {x} from the {p}?"), ("tense", "Who lends the {x} to the {p}?"),
         ("person", "Who lent the {x} to the {q}?")),
    ),
    "rather": Way(
        ("Should I paint the {x} instead of the {y}?", "Instead of the {y}, should I paint the {x}?",
         "Would it be better to paint the {x} instead of the {y}?"),
        (("order", "Should I paint the {y} instead of the {x}?"), ("relation", "Should I paint the {x} like the {y}?"),
         ("coordination", "Should I paint the {x} and the {y}?"), ("mood", "Could I paint the {x} instead of the {y}?"),
         ("relation", "Should I paint the {x} after the {y}?")),
    ),
    "while": Way(
        ("Can I wash the {x} while the {p} sleeps?", "While the {p} sleeps, can I wash the {x}?",
         "Is it possible to wash the {x} while the {p} sleeps?"),
        (("roles", "Can the {p} wash the {x} while I sleep?"),
         ("condition", "Can I wash the {x} where the {p} sleeps?"),
         ("condition", "Can I wash the {x} until the {p} sleeps?"),
         ("order", "Can I sleep while the {p} washes the {x}?"),
         ("tense", "Can I wash the {x} while the {p} slept?")),
    ),
    "always": Way(
        ("Does the {p} always lock the {x}?", "Is the {x} always locked by the {p}?",
         "Is it always the {p} who locks the {x}?"),
        (("quantity", "Does the {p} sometimes lock the {x}?"), ("quantity", "Does the {p} lock the {x}?"),
         ("negation", "Does the {p} never lock the {x}?"), ("manner", "Does the {p} already lock the {x}?"),
         ("tense", "Did the {p} always lock the {x}?"), ("plural", "Does the {p} always lock the {xs}?")),
    ),
    "owns": Way(
        ("How many {xs} does the {p} own?", "What number of {xs} does the {p} own?",
         "How many {xs} are owned by the {p}?"),
        (("focus", "Which {xs} does the {p} own?"), ("tense", "How many {xs} did the {p} own?"),
         ("thing", "How many {ys} does the {p} own?"), ("mood", "How many {xs} may the {p} own?"),
         ("added", "How many {a} {xs} does the {p} own?")),
    ),
    "lift": Way(
        ("What do I need to lift the {x}?", "What is needed to lift the {x}?", "What do we need to lift the {x}?"),
        (("order", "What do I need the {x} to lift?"), ("focus", "Whom do I need to lift the {x}?"),
         ("focus", "Where do I need to lift the {x}?"), ("mood", "Do I need to lift the {x}?"),
         ("added", "What do I need to lift the {a} {x}?"), ("focus", "Why do I need to lift the {x}?")),
    ),
    "faster": Way(
        ("Does the {p} work faster than the {q}?", "Is it the {p} who works faster than the {q}?",
         "Do you know if the {p} works faster than the {q}?"),
        (("comparison", "Does the {q} work faster than the {p}?"), ("degree", "Does the {p} work as fast as the {q}?"),
         ("comparison", "Does the {p} work slower than the {q}?"), ("relation", "Does the {p} work fast with the {q}?"),
         ("tense", "Did the {p} work faster than the {q}?")),
    ),
    "blame": Way(
        ("Did the {p} blame the {q} for the {x}?", "Was the {q} blamed by the {p} for the {x}?",
         "Was the {q} blamed for the {x} by the {p}?"),
        (("roles", "Did the {q} blame the {p} for the {x}?"), ("roles", "Was the {p} blamed by the {q} for the {x}?"),
         ("word", "Did the {p} thank the {q} for the {x}?"), ("tense", "Will the {p} blame the {q} for the {x}?"),
         ("relation", "Did the {p} blame the {q} near the {x}?")),
    ),
    "without": Way(
        ("Is the {x} valid without the {y}?", "Without the {y}, is the {x} valid?",
         "Do you know if the {x} is valid without the {y}?"),
        (("relation", "Is the {x} valid with the {y}?"), ("order", "Is the {y} valid without the {x}?"),
         ("negation", "Is the {x} invalid without the {y}?"), ("coordination", "Is the {x} or the {y} valid?"),
         ("tense", "Was the {x} valid without the {y}?")),
    ),
    "between": Way(
        ("May I use the {x} between {d} and {e}?", "Between {d} and {e}, may I use the {x}?",
         "Am I allowed to use the {x} between {d} and {e}?"),
        (("relation", "May I use the {x} on {d} and {e}?"), ("mood", "Must I use the {x} between {d} and {e}?"),
         ("person", "May the {p} use the {x} between {d} and {e}?"),
         ("relation", "May I use the {x} before {d} and {e}?"),
         ("coordination", "May I use the {x} on {d} or {e}?")),
    ),
    "into": Way(
        ("Translate the {p}'s note into French.", "Translate the note of the {p} into French.",
         "Please translate the {p}'s note into French."),
        (("relation", "Translate the {p}'s note from French."), ("name", "Translate the {p}'s note into Danish."),
         ("relation", "Translate the note to the {p} into French."),
         ("person", "Translate the {q}'s note into French."),
         ("quantity", "Translate half of the {p}'s note into French."), ("word", "Copy the {p}'s note into French.")),
    ),
    "ready": Way(
        ("Why is the {x} not ready?", "What is the reason the {x} is not ready?",
         "For what reason is the {x} not ready?"),
        (("negation", "Why is the {x} ready?"), ("tense", "Why was the {x} not ready?"),
         ("focus", "When is the {x} not ready?"),
         ("manner", "Why is the {x} not yet ready?"), ("plural", "Why are the {xs} not ready?")),
    ),
    "sneeze": Way(
        ("Does the {x} make the {p} sneeze?", "Is it the {x} that makes the {p} sneeze?",
         "Is the {p} made to sneeze by the {x}?"),
        (("roles", "Does the {p} make the {x} sneeze?"), ("tense", "Did the {x} make the {p} sneeze?"),
         ("word", "Does the {x} hear the {p} sneeze?"), ("thing", "Does the {y} make the {p} sneeze?"),
         ("mood", "Can the {x} make the {p} sneeze?")),
    ),
    "so": Way(
        ("Why are the {xs} so heavy?", "What is the reason that the {xs} are so heavy?",
         "For what reason are the {xs} so heavy?"),
        (("negation", "Why aren't the {xs} so heavy?"), ("tense", "Why were the {xs} so heavy?"),
         ("plural", "Why is the {x} so heavy?"), ("focus", "How heavy are the {xs}?"),
         ("degree", "Why are the {xs} heavier?"),
         ("thing", "Why are the {ys} so heavy?")),
    ),
    "each": Way(
        ("Does each {p} get {n} {xs}?", "Does every {p} get {n} {xs}?",
         "Will you confirm that every {p} gets {n} {xs}?"),
        (("number", "Does each {p} get {m} {xs}?"), ("roles", "Does each {x} get {n} {p}s?"),
         ("quantity", "Does the {p} get {n} {xs}?"), ("quantity", "Does any {p} get {n} {xs}?"),
         ("particle", "Does each {p} get back {n} {xs}?")),
    ),
    "said": Way(
        ("Did the {p} say that the {q} left?", "Is it true that the {p} said that the {q} left?",
         "Did the {p} say the {q} left?"),
        (("roles", "Did the {q} say that the {p} left?"), ("focus", "Did the {p} say when the {q} left?"),
         ("tense", "Did the {p} say that the {q} would leave?"),
         ("negation", "Did the {p} say that the {q} never left?"),
         ("mood", "Should the {p} say that the {q} left?"), ("word", "Did the {p} hear that the {q} left?")),
    ),
    "forget": Way(
        ("Did the {p} forget to close the {x}?", "Has the {p} forgotten to close the {x}?",
         "Is it true that the {p} forgot to close the {x}?"),
        (("tense", "Does the {p} forget to close the {x}?"), ("opposite", "Did the {p} remember to close the {x}?"),
         ("opposite", "Did the {p} forget to open the {x}?"), ("roles", "Did the {p} forget who closed the {x}?"),
         ("person", "Did the {q} forget to close the {x}?"), ("negation", "Did the {p} forget not to close the {x}?")),
    ),
    "extra": Way(
        ("Do I pay extra for more than {n} {xs}?", "For more than {n} {xs}, do I pay extra?",
         "Must one pay extra for more than {n} {xs}?"),
        (("quantity", "Do I pay extra for {n} {xs}?"), ("comparison", "Do I pay extra for fewer than {n} {xs}?"),
         ("order", "Do I pay more than {n} for extra {xs}?"), ("number", "Do I pay extra for more than {m} {xs}?"),
         ("tense", "Did I pay extra for more than {n} {xs}?")),
    ),
    "has": Way(
        ("Does the {p} still have the {x}?", "Is the {x} still with the {p}?",
         "Do you know whether the {p} still has the {x}?"),
        (("manner", "Does the {p} have the {x}?"), ("manner", "Does the {p} also have the {x}?"),
         ("tense", "Did the {p} still have the {x}?"), ("roles", "Does the {x} still have the {p}?"),
         ("mood", "May the {p} still have the {x}?"), ("relation", "Is the {x} still from the {p}?")),
    ),
    "watch": Way(
        ("Who watches the {x} for the {p}?", "By whom is the {x} watched for the {p}?",
         "Which person watches the {x} for the {p}?"),
        (("roles", "For whom does the {p} watch the {x}?"), ("relation", "Who watches the {x} with the {p}?"),
         ("tense", "Who watched the {x} for the {p}?"), ("quantity", "Who watches both {xs} for the {p}?"),
         ("mood", "Who may watch the {x} for the {p}?"), ("head", "Who watches the {x} film for the {p}?")),
    ),
    "under": Way(
        ("What is the {a} {x} under the {y} for?", "What is the purpose of the {a} {x} under the {y}?",
         "Could you tell me what the {a} {x} under the {y} is for?"),
        (("order", "What is the {x} under the {a} {y} for?"), ("order", "What is the {a} {y} under the {x} for?"),
         ("relation", "What is the {a} {x} over the {y} for?"), ("focus", "What is under the {a} {x} for the {y}?"),
         ("tense", "What was the {a} {x} under the {y} for?")),
    ),
}  # fmt: skip

PLACES = {
    "brewery": Place(
        ("brewer", "cooper", "taster", "carter"),
        ("barrel|barrels", "kettle|kettles", "hop sack|hop sacks", "valve|valves", "pump|pumps"),
         ("leaky", "wooden", "heated"),
    ),
    "mountain": Place(
        ("guide", "climber", "ranger", "skier"),
        ("rope|ropes", "tent|tents", "ice axe|ice axes", "cabin|cabins", "sledge|sledges"),
         ("frozen", "striped", "rented"),
    ),
    "school": Place(
        ("teacher", "caretaker", "pupil", "librarian"),
        ("globe|globes", "locker|lockers", "bus ticket|bus tickets", "desk|desks", "piano|pianos"),
         ("scratched", "locked", "tiny"),
    ),
    "studio": Place(
        ("drummer", "producer", "singer", "engineer"),
        ("cable|cables", "mixer|mixers", "demo tape|demo tapes", "drum|drums", "booth|booths"),
         ("vintage", "muted", "broken"),
    ),
}  # fmt: skip
