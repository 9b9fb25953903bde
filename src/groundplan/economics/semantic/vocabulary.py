"""Words that decide whether two sentences can mean the same: data, English and the commonest of a few other languages.

Other words are compared by similarity alone; a longer list only makes the cache more careful.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP = _words(
    """a an the this that these those of to in on at by for with from as into onto about over under through is are was
    were be been being am do does did done have has had having will would shall should can could may might must and or
    but if then so than too very just also there here it its i me my mine we us our you your yours he him his she her
    they them their what which who whom whose when where why how please could kindly tell know want like need get let
    whether where's who's when's why's i've i'll we'll we're we've we'd you're you've you'll they're that's it'll let's
    's 'm 're 've 'll 'd s re ve ll d m way ways possible able out up down off it's i'd i'm what's how's there's some
    any give help explain show question wondering wonder hi hello hey thanks thank quick exactly
    actually really"""
)
"""Words that carry no content of their own, politeness included."""

NEGATIONS = _words(
    """not no never none nothing nobody nowhere neither nor without cannot can't don't doesn't didn't isn't aren't
    wasn't weren't won't wouldn't shouldn't couldn't mustn't hasn't haven't hadn't except excluding unless lacks lack
    lacking fail fails failed unable impossible false incorrect refuse refuses hardly barely non unsuccessful
    forbidden prohibited banned disallowed
    nicht kein keine keinen nie ohne pas jamais sans sin nunca"""
)
NOTHINGS = _words("none nothing nobody nowhere neither nor without except excluding unless free-of")
"""Negations of a noun, counted apart from `not`, which negates a sentence."""
DENIALS = _words(
    """prevent prevents prevented preventing avoid avoids avoided avoiding remove removes removed removing omit omits
    omitted omitting exclude excludes excluded skip skips skipped skipping ignore ignores ignored agnostic stop stops
    stopped stopping suppress suppresses prohibit prohibits disallow disallows deny denies denied disable disables
    disabled disabling avert averts averted averting eliminate eliminates eliminated eliminating"""
)
"""Verbs that deny what follows: one more of them on one side reverses the meaning as `not` does."""
NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis", "de", "mis", "anti")

NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000, "million": 1000000,
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "once": 1, "twice": 2, "thrice": 3, "double": 2, "triple": 3, "half": 0.5, "quarter": 0.25,
    "dozen": 12, "dozens": 12, "hundreds": 100, "thousands": 1000, "millions": 1000000, "single": 1, "couple": 2,
    "both": 2,
}  # fmt: skip
VAGUE_NUMBERS = frozenset({"one", "first", "second", "single", "once", "both", "couple"})
"""Number words also used without counting; compared only where the other text has another number."""

TIMES = _words(
    """january february march april may june july august september october november december jan feb mar apr jun jul
    aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun
    today yesterday tomorrow tonight morning afternoon evening night noon midnight weekend weekends weekday weekdays
    last next upcoming annually yearly monthly weekly daily hourly quarterly annual spring summer autumn winter
    christmas easter decade century ago"""
)
"""`may` and `march` count only with a capital; see `reading`."""
TIME_NAMES = {"yearly": "year", "annually": "year", "annual": "year", "tonight": "night", "weekends": "weekend",
              "weekdays": "weekday", "upcoming": "next", "sept": "sep"}  # fmt: skip
UNITS = _words(
    """kg kilogram kilograms kilo kilos g gram grams lb lbs pound pounds oz ounce ounces ton tons tonne tonnes km
    kilometer kilometers kilometre kilometres m meter meters metre metres cm mm mile miles yard yards foot feet inch
    inches liter liters litre litres ml gallon gallons pint pints celsius fahrenheit kelvin degree degrees usd eur gbp
    jpy chf cad aud inr dollar dollars euro euros sterling yen franc francs rupee rupees cents cent percent percentage
    second seconds minute minutes hour hours day days weeks months years ms gb mb kb tb gigabyte gigabytes megabyte
    megabytes terabyte terabytes kilobyte kilobytes gib mib tokens watt watts kw kwh volt volts amp amps hz mhz ghz
    mph kmh psi bar pascal acre acres hectare hectares calories calorie kcal joule joules mbps gbps bit bits byte
    bytes"""
)
UNIT_NAMES = {
    "kilogram": "kg", "kilograms": "kg", "kilo": "kg", "kilos": "kg", "gram": "g", "grams": "g", "pound": "lb",
    "pounds": "lb", "lbs": "lb", "ounce": "oz", "ounces": "oz", "kilometer": "km", "kilometers": "km",
    "kilometre": "km", "kilometres": "km", "meter": "m", "meters": "m", "metre": "m", "metres": "m", "miles": "mile",
    "yards": "yard", "feet": "foot", "inches": "inch", "liter": "l", "liters": "l", "litre": "l", "litres": "l",
    "gallons": "gallon", "dollar": "usd", "dollars": "usd", "$": "usd", "euro": "eur", "euros": "eur", "€": "eur",
    "sterling": "gbp", "£": "gbp", "yen": "jpy", "¥": "jpy", "francs": "chf", "franc": "chf", "cents": "cent",
    "%": "percent", "percentage": "percent", "seconds": "second", "sec": "second", "secs": "second", "minutes":
    "minute", "min": "minute", "mins": "minute", "hours": "hour", "hrs": "hour", "hr": "hour", "days": "day", "weeks":
    "week", "months": "month", "years": "year", "gigabyte": "gb", "gigabytes": "gb", "megabyte": "mb", "megabytes":
    "mb", "terabyte": "tb", "terabytes": "tb", "kilobyte": "kb", "kilobytes": "kb", "degrees": "degree", "tons":
    "ton", "tonnes": "tonne", "bytes": "byte", "bits": "bit", "watts": "watt", "volts": "volt",
}  # fmt: skip

OPPOSITES = [
    ("enable", "disable"), ("activate", "deactivate"), ("install", "uninstall"), ("install", "remove"),
    ("add", "remove"), ("add", "delete"), ("create", "delete"), ("create", "remove"), ("open", "close"),
    ("start", "stop"), ("begin", "end"), ("start", "end"), ("buy", "sell"), ("purchase", "sell"), ("buy", "return"),
    ("increase", "decrease"), ("increase", "reduce"), ("raise", "lower"), ("raise", "reduce"), ("grow", "shrink"),
    ("maximum", "minimum"), ("max", "min"), ("maximise", "minimise"), ("maximize", "minimize"), ("most", "least"),
    ("more", "less"), ("more", "fewer"), ("high", "low"), ("highest", "lowest"), ("higher", "lower"),
    ("large", "small"), ("largest", "smallest"), ("larger", "smaller"), ("big", "small"), ("biggest", "smallest"),
    ("long", "short"), ("longest", "shortest"), ("longer", "shorter"), ("fast", "slow"), ("faster", "slower"),
    ("fastest", "slowest"), ("old", "new"), ("oldest", "newest"), ("old", "young"), ("older", "younger"),
    ("early", "late"), ("earliest", "latest"), ("earlier", "later"), ("before", "after"), ("first", "last"),
    ("last", "next"), ("previous", "next"), ("past", "future"), ("upload", "download"), ("import", "export"),
    ("push", "pull"), ("send", "receive"), ("encrypt", "decrypt"), ("lock", "unlock"), ("block", "unblock"),
    ("subscribe", "unsubscribe"), ("login", "logout"), ("connect", "disconnect"), ("attach", "detach"),
    ("allow", "forbid"), ("allow", "deny"), ("allow", "prevent"), ("allow", "block"), ("permit", "forbid"),
    ("accept", "reject"), ("accept", "decline"), ("approve", "reject"), ("approve", "deny"), ("win", "lose"),
    ("pass", "fail"), ("succeed", "fail"), ("success", "failure"), ("true", "false"), ("valid", "invalid"),
    ("legal", "illegal"), ("safe", "dangerous"), ("safe", "unsafe"), ("cheap", "expensive"), ("cheapest", "dearest"),
    ("cheaper", "dearer"), ("advantage", "disadvantage"), ("advantages", "disadvantages"), ("pros", "cons"),
    ("benefit", "drawback"), ("benefits", "risks"), ("benefits", "drawbacks"), ("good", "bad"), ("best", "worst"),
    ("better", "worse"), ("hot", "cold"), ("warm", "cool"), ("heat", "cool"), ("left", "right"), ("up", "down"),
    ("above", "below"), ("over", "under"), ("inside", "outside"), ("internal", "external"), ("input", "output"),
    ("public", "private"), ("on", "off"), ("in", "out"), ("with", "without"), ("include", "exclude"),
    ("including", "excluding"), ("always", "never"), ("all", "none"), ("all", "some"), ("every", "some"),
    ("always", "sometimes"), ("everyone", "nobody"), ("gain", "loss"), ("profit", "loss"), ("credit", "debit"),
    ("lend", "borrow"), ("arrive", "depart"), ("arrival", "departure"), ("hire", "fire"),
    ("hire", "dismiss"), ("join", "leave"), ("enter", "exit"), ("entry", "exit"), ("ascending", "descending"),
    ("male", "female"), ("man", "woman"), ("men", "women"), ("father", "mother"), ("husband", "wife"),
    ("mandatory", "optional"), ("required", "optional"), ("compulsory", "voluntary"), ("manual", "automatic"),
    ("manually", "automatically"), ("horizontal", "vertical"), ("row", "column"), ("rows", "columns"),
    ("read", "write"), ("encode", "decode"), ("compress", "decompress"), ("serialize", "deserialize"),
    ("merge", "split"), ("join", "split"), ("single", "multiple"), ("singular", "plural"), ("win", "loss"),
    ("employer", "employee"), ("buyer", "seller"), ("sender", "recipient"), ("tenant", "landlord"),
    ("teacher", "student"), ("doctor", "patient"), ("parent", "child"), ("lender", "borrower"), ("client", "server"),
    ("import", "remove"), ("show", "hide"), ("expand", "collapse"), ("zoom", "shrink"), ("mute", "unmute"),
    ("freeze", "unfreeze"), ("upgrade", "downgrade"), ("domestic", "international"), ("national", "international"),
    ("local", "remote"), ("online", "offline"), ("paid", "free"), ("paid", "unpaid"), ("full-time", "part-time"),
    ("temporary", "permanent"), ("gross", "net"), ("inbound", "outbound"), ("incoming", "outgoing"),
    ("deposit", "withdraw"), ("withdrawal", "deposit"), ("refund", "charge"), ("cancel", "renew"),
    ("cancel", "book"), ("extend", "shorten"), ("pause", "resume"), ("mount", "unmount"), ("push", "pop"),
    ("sync", "async"), ("synchronous", "asynchronous"), ("static", "dynamic"), ("mutable", "immutable"),
    ("minimum", "average"), ("maximum", "average"), ("mean", "median"), ("sum", "difference"), ("multiply", "divide"),
    ("at-least", "at-most"), ("cause", "prevent"), ("causes", "prevents"), ("strong", "weak"), ("hard", "easy"),
    ("hard", "soft"), ("wet", "dry"), ("full", "empty"), ("near", "far"), ("deep", "shallow"), ("wide", "narrow"),
    ("thick", "thin"), ("rich", "poor"), ("front", "back"), ("top", "bottom"), ("north", "south"), ("east", "west"),
    ("day", "night"), ("summer", "winter"), ("sunrise", "sunset"), ("morning", "evening"), ("odd", "even"),
    ("positive", "negative"), ("plus", "minus"), ("primary", "secondary"), ("active", "inactive"),
    ("visible", "hidden"), ("present", "absent"), ("known", "unknown"), ("complete", "incomplete"),
    ("finite", "infinite"), ("direct", "indirect"), ("legal", "unlawful"), ("formal", "informal"),
    ("augment", "decrease"), ("augment", "reduce"), ("improve", "worsen"), ("improve", "reduce"),
    ("load", "download"), ("load", "export"), ("load", "save"), ("once", "before"),
    ("less", "over"), ("less", "above"),
    ("more", "under"), ("more", "below"), ("fewer", "over"), ("fewer", "above"), ("up-to", "above"),
    ("activate", "disable"), ("enable", "deactivate"), ("allowed", "forbidden"), ("allow", "forbidden"),
    ("permitted", "forbidden"), ("allowed", "prohibited"), ("permitted", "prohibited"), ("switch", "disable"),
    ("full", "partial"), ("complete", "partial"), ("cheap", "dear"), ("cancel", "keep"), ("delete", "restore"),
    ("hide", "display"), ("remember", "forget"), ("find", "lose"), ("save", "discard"), ("save", "delete"),
    ("send", "get"), ("sell", "get"), ("earn", "pay"), ("earn", "spend"), ("save", "spend"), ("own", "rent"),
    ("buy", "rent"), ("ask", "answer"), ("question", "answer"), ("cause", "cure"), ("symptom", "treatment"),
    ("creation", "deletion"), ("take", "reject"), ("take", "refuse"), ("accept", "refuse"), ("take", "decline"),
    ("symptom", "cause"), ("prevent", "treat"), ("arrival", "leaving"), ("hot", "cool"),
]  # fmt: skip

QUANTIFIERS = {
    "all": "all", "every": "all", "each": "all", "entire": "all", "whole": "all", "any": "", "some": "some",
    "few": "few", "several": "some", "many": "", "only": "only", "solely": "only", "exclusively": "only",
    "merely": "only", "at-least": "least", "minimum": "least", "at-most": "most", "maximum": "most", "up-to": "most",
    "most": "majority", "always": "always", "sometimes": "sometimes", "usually": "usually", "never": "never",
}  # fmt: skip
ASKS = {
    "who": "who", "whom": "who", "whose": "whose", "when": "when", "where": "where", "why": "why",
    "how-many": "count", "how-much": "amount", "how-long": "duration", "how-often": "rate", "how-old": "age",
    "how-far": "distance", "how": "how",
}  # fmt: skip
OBLIGATIONS = {
    "must": "must", "required": "must", "mandatory": "must", "obliged": "must", "have-to": "must", "optional":
    "may", "should": "should", "recommended": "should", "forbidden": "never", "prohibited": "never",
}  # fmt: skip

NOT_ENGLISH = _words(
    """der das ist sind und wie kann ich nicht ein eine einen für mit mein meine wann wo zu den dem auf wir haben welche
    welcher wer warum viele lange wird werden le les est sont et comment que quoi puis je puis-je pas une pour avec mon
    quand où des du nous vous mes quel quelle pourquoi combien el los las es son cómo qué puedo por para con cuándo
    dónde cuál cuánto il gli sono di cosa posso quando dove quale het zijn van hoe wat kan ik niet een voor mijn wanneer
    waar os são como não uma onde qual jest są jak mogę nie gdzie kiedy och hur vad är jag inte när"""
)
"""Function words that are no English words: one of them on one side alone is another language."""

LANGUAGES = {
    "en": "the is are of and to what how do does can for with my you which when where in on it this i we have not",
    "de": "der die das ist sind und wie was kann ich nicht ein eine für mit mein wann wo zu den dem auf es wir haben",
    "fr": "le la les est sont et de comment que quoi puis je ne pas un une pour avec mon quand où des du nous vous mes",
    "es": "el la los las es son y de cómo qué puedo no un una para con mi cuándo dónde que en mis se cual cuál por",
    "it": "il lo gli è sono e di come cosa posso non un una per con mio quando dove che mi del della quale",
    "nl": "de het is zijn en van hoe wat kan ik niet een voor met mijn wanneer waar op te wij hebben mijn",
    "pt": "o os é são e de como que posso não um uma para com meu quando onde do da em qual as minha",
    "pl": "jest są i jak co mogę nie dla z mój kiedy gdzie na do w czy się moje",
    "sv": "är och hur vad kan jag inte en ett för med min när var på till det som mitt",
}

FILLERS = _words(
    """yes sure okay ok such thus while either via within along well per each every because due however
    alternatively though although together hence therefore additionally moreover furthermore addition apart besides
    already simply certain corresponding respective respectively specific specifically particular particularly given
    provided following above mentioned various"""
)
"""Words that join or emphasise, and name no thing that could stand for another."""

IMPLIED = _words(
    """place places person people someone somebody time times date day days period reason reasons cause number amount
    much allow allowed permitted entitled able right possible available availability needed necessary required
    requirement obligatory compulsory have take takes get receive find found use used using apply applies work works
    happen happens done exist exists steps step process procedure kind type sort name thing things now currently
    there"""
)
"""Words that a question word or an auxiliary verb implies: *place* with `where`, *person* with `who`, *reason* with
`why`, *allowed* with `may`, *needed* with `must`."""
NAMING = _words(
    """place places person people time times date day days period reason cause number amount work use process procedure
    type name thing things step steps right"""
)
"""Those of them that change the meaning of the word behind them: a *day* pass, a *work* laptop."""
EMPTY = _words(
    """easily quickly directly fully completely entirely properly correctly successfully effectively efficiently
    basically generally typically normally overall own main actual current exact exactly precise precisely proper
    relevant appropriate suitable straightforward convenient conveniently quite rather essentially nearly approximately
    roughly ever still again else containing contains contained including includes namely based specified specifies
    called involving involves"""
)
"""Words of degree, manner and precision, and joining words: they do not change what a question asks for."""
FRAMING = _words(
    """information info details detail advice question questions asking wondering curious interested looking trying
    hoping sorry bother appreciate appreciated guidance learn understand clarify clarification inform briefly urgently
    urgent regards advance kind best cheers team folks guys dear assist assistance hint hints tip tips idea"""
)
"""Words of polite phrases; only before everything else, or behind it."""
