"""How often a router abstains where it should: on nonsense, and on languages missing from its training set.

Imported by `routing.py`. Decisions are by the words alone, as without an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.model import Router

OTHER_LANGUAGES = (
    "Wie lange darf ein Arbeitnehmer nach einer Kündigung noch im Betrieb bleiben, und wer entscheidet darüber?",
    "Welche der folgenden Aussagen über die Zellteilung ist richtig, und warum sind die anderen falsch?",
    "Ein Zug fährt um acht Uhr los und braucht für die Strecke drei Stunden. Wann kommt er in München an?",
    "Erkläre mir bitte Schritt für Schritt, wie man eine quadratische Gleichung löst.",
    "Bitte fasse den folgenden Vertrag zusammen und nenne alle Fristen, die wir einhalten müssen.",
    "Quels sont les délais pour contester une décision de l'administration devant le tribunal ?",
    "Expliquez pourquoi la lumière du soleil paraît blanche et le ciel bleu pendant la journée.",
    "Un magasin vend trois pommes pour deux euros. Combien coûtent douze pommes et cinq poires ?",
    "Rédige une réponse polie à un client qui demande le remboursement de sa commande.",
    "Laquelle des propositions suivantes décrit le mieux le fonctionnement du cœur humain ?",
    "¿Cuáles son las causas principales de la Primera Guerra Mundial y qué países participaron?",
    "Explica con tus propias palabras cómo funciona un motor eléctrico de corriente continua.",
    "Si María tiene quince caramelos y regala la tercera parte, ¿cuántos le quedan?",
    "Escribe un correo breve para avisar al equipo de que la reunión se aplaza hasta el jueves.",
    "Hur mycket skatt betalar man på en vinst när man säljer sin bostad i Sverige?",
    "Vilket av följande påståenden om fotosyntes är riktigt?",
    "Jakie dokumenty są potrzebne, aby zarejestrować samochód sprowadzony z zagranicy?",
    "Quali sono le differenze tra un contratto a tempo determinato e uno a tempo indeterminato?",
    "Hoeveel dagen vakantie heeft een werknemer recht op volgens de wet?",
    "Какие из следующих утверждений о клетке верны?",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def nonsense_prompts(count: int = 200, words: int = 25, seed: int = 0) -> list[str]:
    """Prompts of random letters, in words of usual length."""
    rng = Random(seed)
    return [" ".join("".join(rng.choices(_LETTERS, k=rng.randint(3, 10))) for _ in range(words)) for _ in range(count)]


def abstention_rate(router: Router, prompts: Sequence[str]) -> float:
    """The share of prompts on which the router is not sure."""
    return round(sum(not predict(router, prompt).sure for prompt in prompts) / len(prompts), 4)


def abstention_rates(router: Router) -> dict[str, float]:
    return {
        "abstained_on_nonsense": abstention_rate(router, nonsense_prompts()),
        "abstained_on_other_languages": abstention_rate(router, OTHER_LANGUAGES),
    }
