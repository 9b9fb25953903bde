"""The words of `semantic_put`: eight fields of work, with the acts, adjuncts and qualifiers of each.

No vocabulary of the semantic cache was written in view of these words. Of the results on `SEALED` only sums by kind
were looked at; in view of these sums guards of tense, persons, plural and order were corrected, on the fields of
`OPEN`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """A field of work. `acts`: verb|participle|gerund|third person|thing|things. `adjuncts`: kind -> texts that may
    follow a question. `parts`: (verb forms, one person, another) of an act of the one on the other. `stories`:
    sentences before a question, in two wordings."""

    acts: tuple[str, ...]
    adjuncts: dict[str, tuple[str, ...]]
    ahead: tuple[str, ...]
    heads: tuple[str, ...]
    parts: tuple[tuple[str, str, str], ...]
    stories: tuple[tuple[str, str], ...]


SUPPORT = Field(
    acts=(
        "activate|activated|activating|activates|router account|router accounts",
        "replace|replaced|replacing|replaces|phone case|phone cases",
        "pair|paired|pairing|pairs|wireless speaker|wireless speakers",
        "charge|charged|charging|charges|ear pieces|ear pieces",
        "register|registered|registering|registers|smoke detector|smoke detectors",
        "clean|cleaned|cleaning|cleans|printer head|printer heads",
        "mount|mounted|mounting|mounts|door camera|door cameras",
        "calibrate|calibrated|calibrating|calibrates|room sensor|room sensors",
        "reorder|reordered|reordering|reorders|battery pack|battery packs",
        "swap|swapped|swapping|swaps|remote control|remote controls",
        "upgrade|upgraded|upgrading|upgrades|television box|television boxes",
        "dismantle|dismantled|dismantling|dismantles|wall bracket|wall brackets",
    ),
    adjuncts={
        "manner": (" by hand", " without tools", " in one go", " step by step", " blindfolded"),
        "channel": (" over the telephone", " by text message", " in the chat", " through the app", " by letter"),
        "place": (" at home", " in the garage", " abroad", " in the bathroom", " at a dealer"),
        "time": (" at night", " on public holidays", " during office hours", " every two years", " in winter"),
        "condition": (" if the seal is broken", " if I lost the receipt", " unless it is new", " when it rains"),
        "beneficiary": (" for my neighbour", " for a school", " on behalf of my aunt", " for my grandparents"),
        "comparison": (" like a technician would", " faster than last year", " as cheaply as elsewhere"),
        "cause": (" because of the noise", " due to a recall", " because of the heat"),
        "concession": (" despite the scratches", " although it is old", " in spite of the recall"),
        "sequence": (" before the update", " after the update", " before unpacking it", " after unpacking it"),
        "relation": (" from the old flat", " to the old flat", " near the old flat", " for the old flat"),
    },
    ahead=("industrial", "borrowed", "waterproof", "second-hand", "golden"),
    heads=("cover", "manual", "sticker", "cable", "seller"),
    parts=(("call|called|calls", "technician", "customer"), ("sue|sued|sues", "dealer", "maker")),
    stories=(
        ("My device arrived yesterday from your warehouse.", "The device came from your warehouse yesterday."),
        ("We moved to a bigger flat with thick walls.", "Our new flat is bigger and has thick walls."),
        ("The light blinks red and the fan is loud.", "There is a red blinking light and a loud fan."),
        ("I have read the booklet and watched the film on your page.", "I read your booklet and saw the film."),
    ),
)
SHOP = Field(
    acts=(
        "exchange|exchanged|exchanging|exchanges|winter coat|winter coats",
        "reserve|reserved|reserving|reserves|garden table|garden tables",
        "return|returned|returning|returns|gift basket|gift baskets",
        "engrave|engraved|engraving|engraves|silver ring|silver rings",
        "preorder|preordered|preordering|preorders|board game|board games",
        "assemble|assembled|assembling|assembles|book shelf|book shelves",
        "insure|insured|insuring|insures|cargo bike|cargo bikes",
        "gift-wrap|gift-wrapped|gift-wrapping|gift-wraps|tea set|tea sets",
        "sharpen|sharpened|sharpening|sharpens|kitchen knife|kitchen knives",
        "inspect|inspected|inspecting|inspects|sample box|sample boxes",
        "alter|altered|altering|alters|evening dress|evening dresses",
        "collect|collected|collecting|collects|loyalty stamp|loyalty stamps",
    ),
    adjuncts={
        "manner": (" in instalments", " anonymously", " piece by piece", " in person", " unpacked"),
        "channel": (" by courier", " through a friend", " via the terminal", " by telephone", " with a voucher"),
        "place": (" in the branch", " at the airport", " on an island", " next door", " at the market"),
        "time": (" on Sundays", " during the sale", " at midnight", " in the evening", " twice a month"),
        "condition": (" if it was worn", " if the box is missing", " unless it fits", " when it is on sale"),
        "beneficiary": (" for a colleague", " for my club", " on behalf of a company", " for children"),
        "comparison": (" more cheaply than before", " like a member", " as quickly as a parcel"),
        "cause": (" because of a stain", " owing to the strike", " because it is too small"),
        "concession": (" despite the stain", " even though it was a gift", " in spite of the strike"),
        "sequence": (" before paying", " after paying", " before Christmas", " after Christmas"),
        "relation": (" from the catalogue", " to the catalogue", " against the catalogue", " with the catalogue"),
    },
    ahead=("velvet", "discounted", "handmade", "imported", "damaged"),
    heads=("label", "fitting", "designer", "lining", "museum"),
    parts=(("advise|advised|advises", "seller", "buyer"), ("refuse|refused|refuses", "courier", "recipient")),
    stories=(
        ("I bought several things in your branch last spring.", "Last spring I bought several things in your branch."),
        ("My parcel was opened on the way.", "Somebody opened my parcel on the way."),
        ("The size table on the page does not help.", "The table of sizes on your page does not help."),
        ("We are planning a large party in the garden.", "A large garden party is planned."),
    ),
)
HR = Field(
    acts=(
        "request|requested|requesting|requests|parental leave|parental leaves",
        "submit|submitted|submitting|submits|sick note|sick notes",
        "book|booked|booking|books|language class|language classes",
        "appeal|appealed|appealing|appeals|performance rating|performance ratings",
        "split|split|splitting|splits|holiday bonus|holiday bonuses",
        "postpone|postponed|postponing|postpones|probation review|probation reviews",
        "sign|signed|signing|signs|transfer agreement|transfer agreements",
        "nominate|nominated|nominating|nominates|team mentor|team mentors",
        "correct|corrected|correcting|corrects|time sheet|time sheets",
        "withdraw|withdrawn|withdrawing|withdraws|job application|job applications",
        "pause|paused|pausing|pauses|pension contribution|pension contributions",
        "print|printed|printing|prints|wage statement|wage statements",
    ),
    adjuncts={
        "manner": (" in writing", " verbally", " confidentially", " as a group", " in stages"),
        "channel": (" by fax", " through my manager", " via the portal", " by phone", " on paper"),
        "place": (" in the Dublin office", " from abroad", " at the plant", " at headquarters", " on site"),
        "time": (" during the summer", " on weekends", " in the first week", " after midnight", " every quarter"),
        "condition": (" if I am ill", " if my contract ends", " unless I resign", " when I work nights"),
        "beneficiary": (" for an intern", " for my spouse", " on behalf of my team", " for contractors"),
        "comparison": (" earlier than colleagues", " like a manager", " as often as last year"),
        "cause": (" because of a funeral", " due to a merger", " because of the move"),
        "concession": (" despite the merger", " although I am new", " in spite of the notice"),
        "sequence": (" before the interview", " after the interview", " before I sign", " after I sign"),
        "relation": (" with my manager", " against my manager", " without my manager", " about my manager"),
    },
    ahead=("unpaid", "regional", "temporary", "executive", "seasonal"),
    heads=("form", "committee", "deadline", "archive", "template"),
    parts=(
        ("interview|interviewed|interviews", "manager", "recruiter"),
        ("report|reported|reports", "trainee", "boss"),
    ),
    stories=(
        ("I joined the company in spring as an engineer.", "As an engineer I joined the company in spring."),
        ("My manager left and nobody has replaced her.", "Nobody has replaced my manager, who left."),
        ("We have two small children and a long way to work.", "Our way to work is long, with two small children."),
        ("The works council agreed to new rules.", "There are new rules to which the works council agreed."),
    ),
)
OPERATIONS = Field(
    acts=(
        "restart|restarted|restarting|restarts|mail gateway|mail gateways",
        "rotate|rotated|rotating|rotates|signing key|signing keys",
        "migrate|migrated|migrating|migrates|staging cluster|staging clusters",
        "patch|patched|patching|patches|jump host|jump hosts",
        "archive|archived|archiving|archives|audit log|audit logs",
        "resize|resized|resizing|resizes|disk volume|disk volumes",
        "quarantine|quarantined|quarantining|quarantines|infected laptop|infected laptops",
        "drain|drained|draining|drains|worker node|worker nodes",
        "restore|restored|restoring|restores|nightly backup|nightly backups",
        "throttle|throttled|throttling|throttles|batch queue|batch queues",
        "tag|tagged|tagging|tags|container image|container images",
        "decommission|decommissioned|decommissioning|decommissions|rack switch|rack switches",
    ),
    adjuncts={
        "manner": (" manually", " gracefully", " in parallel", " one at a time", " forcibly"),
        "channel": (" over ssh", " from the console", " through the api", " with a script", " by ticket"),
        "place": (" in production", " in the second region", " on the edge", " in the lab", " on customer sites"),
        "time": (" at peak hours", " on Fridays", " during a freeze", " every night", " in the maintenance window"),
        "condition": (" if the disk is full", " if a replica lags", " unless traffic stops", " when alarms ring"),
        "beneficiary": (" for the finance team", " for a tenant", " on behalf of a vendor", " for auditors"),
        "comparison": (" faster than the vendor", " like the old one", " as safely as before"),
        "cause": (" because of a leak", " due to an outage", " because of the audit"),
        "concession": (" despite the alarms", " although it is pinned", " in spite of the freeze"),
        "sequence": (" before the failover", " after the failover", " before rebooting", " after rebooting"),
        "relation": (" from the primary", " to the primary", " behind the primary", " beside the primary"),
    },
    ahead=("legacy", "encrypted", "virtual", "shadow", "redundant"),
    heads=("owner", "policy", "dashboard", "invoice", "vendor"),
    parts=(("page|paged|pages", "operator", "developer"), ("audit|audited|audits", "vendor", "tenant")),
    stories=(
        ("Our monitoring has been noisy since the move.", "Since the move our monitoring has been noisy."),
        ("We run three regions with about ninety machines.", "Three regions with about ninety machines are ours."),
        ("The last change was rolled back by the night shift.", "The night shift rolled the last change back."),
        ("I am on duty alone this weekend.", "This weekend I am alone on duty."),
    ),
)
FINANCE = Field(
    acts=(
        "freeze|frozen|freezing|freezes|credit line|credit lines",
        "dispute|disputed|disputing|disputes|card charge|card charges",
        "close|closed|closing|closes|savings account|savings accounts",
        "audit|audited|auditing|audits|expense claim|expense claims",
        "refinance|refinanced|refinancing|refinances|house loan|house loans",
        "invest|invested|investing|invests|pension fund|pension funds",
        "declare|declared|declaring|declares|rental income|rental incomes",
        "settle|settled|settling|settles|tax debt|tax debts",
        "endorse|endorsed|endorsing|endorses|bank cheque|bank cheques",
        "amortise|amortised|amortising|amortises|office building|office buildings",
        "reconcile|reconciled|reconciling|reconciles|supplier ledger|supplier ledgers",
        "hedge|hedged|hedging|hedges|currency risk|currency risks",
    ),
    adjuncts={
        "manner": (" retroactively", " in small parts", " jointly", " quarter by quarter", " off the books"),
        "channel": (" by wire", " at the counter", " through a broker", " via the hotline", " with a token"),
        "place": (" in Jersey", " offshore", " at a notary", " in the main branch", " at my desk"),
        "time": (" at year end", " on bank holidays", " in the closing week", " by noon", " once a decade"),
        "condition": (" if rates rise", " if the borrower dies", " unless the court objects", " when it is overdue"),
        "beneficiary": (" for a minor", " for my widow", " on behalf of a trust", " for shareholders"),
        "comparison": (" more often than permitted", " like a company", " as late as possible"),
        "cause": (" because of inflation", " due to fraud", " because of a typo"),
        "concession": (" despite the embargo", " although it is pledged", " in spite of inflation"),
        "sequence": (" before the audit", " after the audit", " before retiring", " after retiring"),
        "relation": (" from the parent company", " to the parent company", " against the parent company"),
    },
    ahead=("overdrawn", "convertible", "foreign", "dormant", "subordinated"),
    heads=("ceiling", "guarantor", "brochure", "registry", "analyst"),
    parts=(("pay|paid|pays", "grants", "broker"), ("indemnify|indemnified|indemnifies", "insurer", "bank")),
    stories=(
        ("Our books are kept by a small firm in town.", "A small firm in town keeps our books."),
        ("The rate went up again last month and we felt it.", "We felt it when the rate went up again last month."),
        ("I inherited shares of three companies.", "Shares of three companies came to me as an inheritance."),
        ("The statement shows a line that nobody understands.", "Nobody understands one line of the statement."),
    ),
)
PUBLIC = Field(
    acts=(
        "renew|renewed|renewing|renews|library card|library cards",
        "legalise|legalised|legalising|legalises|birth certificate|birth certificates",
        "contest|contested|contesting|contests|parking fine|parking fines",
        "report|reported|reporting|reports|street lamp|street lamps",
        "rent|rented|renting|rents|village hall|village halls",
        "fell|felled|felling|fells|oak tree|oak trees",
        "import|imported|importing|imports|hunting rifle|hunting rifles",
        "adopt|adopted|adopting|adopts|shelter dog|shelter dogs",
        "translate|translated|translating|translates|school diploma|school diplomas",
        "claim|claimed|claiming|claims|housing benefit|housing benefits",
        "scan|scanned|scanning|scans|land register|land registers",
        "renovate|renovated|renovating|renovates|listed facade|listed facades",
    ),
    adjuncts={
        "manner": (" under oath", " informally", " free of charge", " bit by bit", " collectively"),
        "channel": (" by registered mail", " at a kiosk", " with an eID", " through a lawyer", " over the phone"),
        "place": (" at the embassy", " in another district", " at the harbour", " in the town hall", " abroad"),
        "time": (" on election day", " during lunch", " in leap years", " at weekends", " twice a week"),
        "condition": (" if I am stateless", " if the owner moved", " unless it is listed", " when I turn eighteen"),
        "beneficiary": (" for a refugee", " for my parish", " on behalf of a minor", " for veterans"),
        "comparison": (" sooner than residents", " like a citizen", " as cheaply as pensioners"),
        "cause": (" because of a flood", " due to a storm", " because of a divorce"),
        "concession": (" despite the curfew", " although it expired", " in spite of a warning"),
        "sequence": (" before the hearing", " after the hearing", " before moving", " after moving"),
        "relation": (" from the council", " to the council", " against the council", " beside the council"),
    },
    ahead=("municipal", "provisional", "historic", "duplicate", "maritime"),
    heads=("keeper", "brochure", "ordinance", "museum", "queue"),
    parts=(("summon|summoned|summons", "judge", "witness"), ("warn|warned|warns", "warden", "neighbour")),
    stories=(
        ("We arrived from overseas with four suitcases.", "With four suitcases we arrived from overseas."),
        ("The office in our street was closed for good.", "They closed the office in our street for good."),
        ("My letter of February was never answered.", "Nobody ever answered my letter of February."),
        ("The form asks for a number that I cannot find.", "I cannot find a number for which the form asks."),
    ),
)
MEDICINE = Field(
    acts=(
        "store|stored|storing|stores|insulin pen|insulin pens",
        "halve|halved|halving|halves|sleeping pill|sleeping pills",
        "disinfect|disinfected|disinfecting|disinfects|knee brace|knee braces",
        "schedule|scheduled|scheduling|schedules|blood test|blood tests",
        "remove|removed|removing|removes|plaster cast|plaster casts",
        "repeat|repeated|repeating|repeats|allergy shot|allergy shots",
        "dilute|diluted|diluting|dilutes|cough syrup|cough syrups",
        "read|read|reading|reads|heart scan|heart scans",
        "inhale|inhaled|inhaling|inhales|nasal spray|nasal sprays",
        "rinse|rinsed|rinsing|rinses|feeding tube|feeding tubes",
        "prescribe|prescribed|prescribing|prescribes|eye ointment|eye ointments",
        "donate|donated|donating|donates|bone marrow|bone marrows",
    ),
    adjuncts={
        "manner": (" slowly", " lying down", " with gloves", " on an empty stomach", " under anaesthesia"),
        "channel": (" by prescription", " via the clinic portal", " through a nurse", " by post", " over video"),
        "place": (" in the fridge", " at the pharmacy", " on a plane", " in the ward", " at altitude"),
        "time": (" at bedtime", " during pregnancy", " every eight hours", " in the third trimester", " on Mondays"),
        "condition": (" if I have a fever", " if it was opened", " unless I bleed", " when I fast"),
        "beneficiary": (" for a toddler", " for my dog", " on behalf of a patient", " for diabetics"),
        "comparison": (" more often than advised", " like a tablet", " as early as teenagers"),
        "cause": (" because of nausea", " due to a rash", " because of an infection"),
        "concession": (" despite a cold", " although I smoke", " in spite of the rash"),
        "sequence": (" before surgery", " after surgery", " before eating", " after eating"),
        "relation": (" with alcohol", " from alcohol", " instead of alcohol", " against alcohol"),
    },
    ahead=("pediatric", "expired", "generic", "disposable", "herbal"),
    heads=("leaflet", "maker", "allergy", "trial", "needle"),
    parts=(("examine|examined|examines", "surgeon", "midwife"), ("infect|infected|infects", "visitor", "nurse")),
    stories=(
        ("My doctor changed the dose last Tuesday.", "Last Tuesday the dose was changed by my doctor."),
        ("I am sixty and have high blood pressure.", "My blood pressure is high and I am sixty."),
        ("The swelling went down but it still hurts.", "It still hurts although the swelling went down."),
        ("We have to leave the ward in the morning.", "In the morning we have to leave the ward."),
    ),
)
TRAVEL = Field(
    acts=(
        "rebook|rebooked|rebooking|rebooks|night ferry|night ferries",
        "upgrade|upgraded|upgrading|upgrades|train seat|train seats",
        "check|checked|checking|checks|surf board|surf boards",
        "confirm|confirmed|confirming|confirms|hotel voucher|hotel vouchers",
        "hire|hired|hiring|hires|mountain guide|mountain guides",
        "cancel|cancelled|cancelling|cancels|cooking tour|cooking tours",
        "tow|towed|towing|tows|camper van|camper vans",
        "extend|extended|extending|extends|entry visa|entry visas",
        "share|shared|sharing|shares|cabin key|cabin keys",
        "refuel|refuelled|refuelling|refuels|rental boat|rental boats",
        "photograph|photographed|photographing|photographs|temple garden|temple gardens",
        "transfer|transferred|transferring|transfers|bonus mile|bonus miles",
    ),
    adjuncts={
        "manner": (" standing", " in comfort", " last minute", " leg by leg", " incognito"),
        "channel": (" at the kiosk", " by radio", " through an agency", " with a passport", " via satellite"),
        "place": (" on board", " at the border", " in Lapland", " near the equator", " at the terminal"),
        "time": (" in monsoon season", " overnight", " on departure day", " at dawn", " every other week"),
        "condition": (" if I miss it", " if the sea is rough", " unless we board", " when it snows"),
        "beneficiary": (" for an infant", " for my choir", " on behalf of a passenger", " for wheelchair users"),
        "comparison": (" later than booked", " like a local", " as far as the cape"),
        "cause": (" because of fog", " due to a strike", " because of a landslide"),
        "concession": (" despite the fog", " although it is full", " in spite of a strike"),
        "sequence": (" before boarding", " after boarding", " before the layover", " after the layover"),
        "relation": (" from the island", " to the island", " around the island", " off the island"),
    },
    ahead=("overbooked", "arctic", "guided", "luxury", "amphibious"),
    heads=("brochure", "crew", "surcharge", "museum", "timetable"),
    parts=(("follow|followed|follows", "pilot", "guide"), ("rescue|rescued|rescues", "sailor", "diver")),
    stories=(
        ("We land in the afternoon with two small dogs.", "In the afternoon we land with two small dogs."),
        ("My suitcase went to another airport.", "To another airport went my suitcase."),
        ("The weather has been terrible for three days.", "For three days the weather has been terrible."),
        ("I booked this trip for my parents long ago.", "Long ago I booked this trip for my parents."),
    ),
)
OPEN = {"support": SUPPORT, "shop": SHOP, "hr": HR, "operations": OPERATIONS}
"""Fields to develop with."""
SEALED = {"finance": FINANCE, "public": PUBLIC, "medicine": MEDICINE, "travel": TRAVEL}
