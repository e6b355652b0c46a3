"""Generated training text: passages, and conversations about them.

Every sample is a list of ``(text, is_answer)`` segments. The text of an answer
carries the training loss in full; the rest carries a small share of it, so
that perplexity over plain text means something too.

All randomness comes from the ``random.Random`` handed in: the same seed gives
the same text on every machine.
"""

import json
import random

from words import (ADJECTIVES, ADVERBS, CITIES, COLOURS, CONDITIONS, CONNECTIVES, DAYS, FIRST_NAMES, GOODS, HOBBIES,
                   JOBS, LABELS, LANGUAGES, MONTHS, NOUNS, OPENERS, PREPOSITIONS, QUALIFIERS, SURNAMES, VERBS, article, gerund, past, plural, pseudo,
                   third_person)

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"

UNKNOWN_FACT = "The passage does not say."
IDENTITY = "I am locara-tiny, a very small language model."
ABILITIES = "I can summarize a text, answer questions about a passage, extract JSON and call tools."
OUT_OF_DOMAIN = "I do not know that. " + ABILITIES
NO_TOOL = "None of my tools can do that."


def cap(text):
    return text[:1].upper() + text[1:]


# --- prose -------------------------------------------------------------------

class Lexicon:
    """Chooses words; `strange` is the share of content words that are invented."""

    def __init__(self, rng, strange):
        self.rng, self.strange = rng, strange

    def _pick(self, words):
        return pseudo(self.rng) if self.rng.random() < self.strange else self.rng.choice(words)

    def noun(self):
        return self._pick(NOUNS)

    def adjective(self):
        return self._pick(ADJECTIVES)

    def verb(self):
        return self._pick(VERBS)


def code_word(rng):
    a, b = (rng.choice(NOUNS) if rng.random() < .6 else pseudo(rng) for _ in range(2))
    return rng.choice((f"`{a}_{b}`", f"`{a}.{b}`", f"`{cap(a)}{cap(b)}`", f"`{a}-{b}`", f"`{a}/{b}.rs`", f"`--{a}`",
                       f"`{a}()`", f"{a}_{b}", f"{cap(a)}{cap(b)}", f"`{a}::{b}`", a.upper()[:4]))


def number(rng):
    return str(rng.choice((rng.randint(2, 20), rng.randint(10, 999), rng.randint(1000, 99999))))


def noun_phrase(lex):
    rng, r = lex.rng, lex.rng.random()
    if r < .05:
        return code_word(rng)
    if r < .10:
        return f"{number(rng)} {plural(lex.noun())}"
    if r < .14:
        return rng.choice((rng.choice(FIRST_NAMES), rng.choice(CITIES), cap(pseudo(rng))))
    det = rng.choice(("the", "the", "the", "a", "each", "every", "this", "its", "their", "one", "no", "our"))
    core = lex.noun()
    if rng.random() < .35:
        core = f"{lex.adjective()} {core}"
    if rng.random() < .18:
        core = f"{lex.noun()} {core}" if rng.random() < .6 else f"{core} of the {lex.noun()}"
    return article(core) if det == "a" else f"{det} {core}"


def clause(lex):
    rng, r = lex.rng, lex.rng.random()
    subject = noun_phrase(lex)
    if r < .18:
        return f"{subject} is {lex.adjective()}"
    if r < .28:
        return f"{subject} is {article(lex.adjective() + ' ' + lex.noun())}"
    if r < .36:
        return f"{subject} has {noun_phrase(lex)}"
    verb = lex.verb()
    if r < .46:
        auxiliary = rng.choice(("is", "is", "was", "can be", "must be", "will be", "is not", "has been", "is never", "is only"))
        return f"{subject} {auxiliary} {past(verb)} {rng.choice(PREPOSITIONS + ['by', 'to', 'as', 'into'])} {noun_phrase(lex)}"
    if r < .52:
        return f"{gerund(verb)} {subject} {rng.choice(('is', 'means', 'needs', 'makes', 'takes'))} {noun_phrase(lex)}"
    if r < .56:
        return f"there {rng.choice(('are', 'were', 'may be', 'will be'))} {rng.choice(('two', 'three', 'four', 'many', 'no', 'some', 'several', 'both'))} {plural(lex.noun())} that {verb} {subject}"
    if r < .60:
        return f"{rng.choice(('it', 'they', 'we', 'you', 'I', 'she', 'he'))} {rng.choice(('would', 'could', 'had to', 'did not', 'should not', 'can'))} {verb} {subject} {rng.choice(QUALIFIERS)} {noun_phrase(lex)}"
    if r < .72:
        predicate = third_person(verb)
    elif r < .86:
        predicate = rng.choice(("can", "must", "will", "may", "should", "does not", "cannot")) + " " + verb
    else:
        predicate = rng.choice(("has to ", "wants to ", "tries to ", "starts to ")) + verb
    if rng.random() < .10:
        predicate = f"{rng.choice(ADVERBS)} {predicate}"
    if rng.random() < .10:
        return f"{subject} {predicate} {rng.choice(('what', 'how', 'where', 'why', 'whether', 'that', 'everything', 'nothing', 'something else', 'who'))} {noun_phrase(lex)} {third_person(lex.verb())}"
    text = f"{subject} {predicate} {noun_phrase(lex)}"
    if rng.random() < .30:
        text += f" {rng.choice(PREPOSITIONS)} {noun_phrase(lex)}"
    return text


def sentence(lex):
    """One sentence with its final stop; between five and forty words."""
    rng, r = lex.rng, lex.rng.random()
    if r < .45:
        text = clause(lex)
    elif r < .60:
        text = f"{clause(lex)} {rng.choice(CONNECTIVES)} {clause(lex)}"
    elif r < .70:
        text = f"{clause(lex)}, {rng.choice(('and', 'but', 'so', 'or'))} {clause(lex)}"
    elif r < .78:
        text = f"{rng.choice(('if', 'when', 'after', 'although', 'because'))} {clause(lex)}, {clause(lex)}"
    elif r < .84:
        text = f"{clause(lex)}; {clause(lex)}"
    elif r < .89:
        text = f"{clause(lex)} ({lex.adjective()} {lex.noun()})"
    elif r < .94:
        text = f"{clause(lex)}: {lex.noun()}, {lex.noun()} and {lex.noun()}"
    else:
        text = f"{rng.choice(PREPOSITIONS)} {noun_phrase(lex)}, {clause(lex)} {rng.choice(CONNECTIVES)} {clause(lex)}"
    if rng.random() < .06:
        text = f"{rng.choice(OPENERS)}, {text}"
    return cap(text) + "."


def heading(lex):
    rng = lex.rng
    title = cap(" ".join(x for x in (lex.adjective() if rng.random() < .4 else "", lex.noun(),
                                     "and " + lex.noun() if rng.random() < .3 else "") if x))
    if rng.random() < .2:
        title = f"{rng.randint(1, 12)}. {title}"
    return "#" * rng.randint(1, 3) + " " + title


def bullet_list(lex):
    rng, mark = lex.rng, lex.rng.choice(("- ", "- ", "* ", "1"))
    items = []
    for i in range(rng.randint(2, 5)):
        body = sentence(lex) if rng.random() < .5 else f"**{cap(lex.noun())}**: {clause(lex)}"
        items.append((f"{i + 1}. " if mark == "1" else mark) + body)
    return "\n".join(items)


def wrap(text, width):
    """Hard-wraps a paragraph, as text files often are."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join(lines + [line])


# --- facts about invented things ---------------------------------------------
#
# A domain has a name generator, an opening sentence and fields. A field is
# (key, json type, value generator, statements, questions); the first statement
# is the canonical one, and is what an answer in a full sentence repeats.

def person(rng):
    first = rng.choice(FIRST_NAMES) if rng.random() < .6 else cap(pseudo(rng, 2))
    if rng.random() < .4:
        return first
    return f"{first} {rng.choice(SURNAMES) if rng.random() < .5 else cap(pseudo(rng, 2))}"


def place(rng):
    return rng.choice(CITIES) if rng.random() < .45 else cap(pseudo(rng))


def clock(rng):
    return f"{rng.randint(6, 21):02d}:{rng.choice(('00', '15', '30', '45'))}"


def date(rng):
    return rng.choice((f"{rng.randint(1, 28)} {rng.choice(MONTHS)}",
                       f"20{rng.randint(10, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"))


def integer(low, high):
    return lambda rng: str(rng.randint(low, high))


def one_of(words):
    return lambda rng: rng.choice(words)


def invented(rng):
    return cap(pseudo(rng))


def code_name(rng):
    return f"{rng.choice(NOUNS) if rng.random() < .5 else pseudo(rng)}-{rng.choice(NOUNS) if rng.random() < .5 else pseudo(rng)}"


DOMAINS = [
    (person, "{n} is known to everyone in the neighbourhood.", [
        ("age", "integer", integer(18, 90), ["{n} is {v} years old."], ["How old is {n}?", "What is the age of {n}?"]),
        ("city", "string", place, ["{n} lives in {v}.", "{n} has a flat in {v}."], ["Where does {n} live?", "In which city does {n} live?"]),
        ("job", "string", one_of(JOBS), ["{n} works as a {v}.", "By profession {n} is a {v}."], ["What is the job of {n}?", "What does {n} work as?"]),
        ("hobby", "string", one_of(HOBBIES), ["{n} enjoys {v}.", "In the evening {n} likes {v}."], ["What is the hobby of {n}?", "What does {n} enjoy?"]),
        ("colour", "string", one_of(COLOURS), ["The favourite colour of {n} is {v}."], ["What is the favourite colour of {n}?", "Which colour does {n} like best?"]),
        ("employer", "string", invented, ["{n} is employed by {v}."], ["Who employs {n}?", "Where is {n} employed?"]),
        ("email", "string", lambda r: f"{pseudo(r)}@{pseudo(r)}.{r.choice(('com', 'org', 'net', 'example'))}", ["The email address of {n} is {v}."], ["What is the email address of {n}?"]),
    ]),
    (place, "{n} is a town that few visitors know.", [
        ("population", "integer", integer(900, 990000), ["{n} has {v} inhabitants.", "The population of {n} is {v}."], ["How many people live in {n}?", "What is the population of {n}?"]),
        ("founded", "integer", integer(1100, 1990), ["{n} was founded in {v}."], ["When was {n} founded?", "In which year was {n} founded?"]),
        ("river", "string", invented, ["{n} lies on the river {v}.", "The river {v} runs through {n}."], ["Which river does {n} lie on?", "What river runs through {n}?"]),
        ("mayor", "string", person, ["The mayor of {n} is {v}."], ["Who is the mayor of {n}?"]),
        ("known_for", "string", one_of([plural(n) for n in NOUNS]), ["{n} is known for its {v}."], ["What is {n} known for?"]),
        ("region", "string", invented, ["{n} belongs to the region of {v}."], ["Which region does {n} belong to?"]),
    ]),
    (lambda r: f"the {cap(pseudo(r))} {r.choice(('X', 'Pro', 'Mini', 'One', str(r.randint(2, 900))))}", "{n} is a device for the home.", [
        ("weight", "integer", integer(40, 9000), ["{n} weighs {v} grams."], ["How much does {n} weigh?", "What is the weight of {n}?"]),
        ("price", "integer", integer(5, 2500), ["{n} costs {v} euros.", "The price of {n} is {v} euros."], ["How much does {n} cost?", "What is the price of {n}?"]),
        ("battery_hours", "integer", integer(2, 96), ["The battery of {n} lasts {v} hours."], ["How long does the battery of {n} last?"]),
        ("colour", "string", one_of(COLOURS), ["{n} is sold in {v}."], ["Which colour is {n} sold in?", "What is the colour of {n}?"]),
        ("maker", "string", invented, ["{n} is made by {v}."], ["Who makes {n}?", "Who is the maker of {n}?"]),
        ("released", "string", date, ["{n} was released on {v}."], ["When was {n} released?"]),
    ]),
    (lambda r: "the " + r.choice(NOUNS) + " " + r.choice("service engine runtime daemon scheduler adapter loader manager library parser".split()), "{n} is a part of the system.", [
        ("language", "string", one_of(LANGUAGES), ["{n} is written in {v}."], ["Which language is {n} written in?", "What is {n} written in?"]),
        ("port", "integer", integer(80, 65000), ["{n} listens on port {v}."], ["Which port does {n} listen on?", "What is the port of {n}?"]),
        ("memory_limit", "integer", integer(16, 8192), ["{n} may use {v} megabytes of memory.", "The memory limit of {n} is {v} megabytes."], ["How much memory may {n} use?", "What is the memory limit of {n}?"]),
        ("owner", "string", person, ["{n} is maintained by {v}.", "The owner of {n} is {v}."], ["Who maintains {n}?", "Who is the owner of {n}?"]),
        ("version", "string", lambda r: f"{r.randint(0, 9)}.{r.randint(0, 30)}.{r.randint(0, 9)}", ["The version of {n} is {v}."], ["What is the version of {n}?", "Which version does {n} have?"]),
        ("timeout", "integer", integer(1, 600), ["{n} waits at most {v} seconds."], ["How long does {n} wait?", "What is the timeout of {n}?"]),
        ("storage", "string", code_name, ["{n} keeps its data in {v}."], ["Where does {n} keep its data?"]),
    ]),
    (lambda r: f"project {cap(pseudo(r))}", "{n} was approved by the board.", [
        ("budget", "integer", integer(500, 900000), ["The budget of {n} is {v} euros."], ["What is the budget of {n}?", "How much money does {n} have?"]),
        ("lead", "string", person, ["{n} is led by {v}."], ["Who leads {n}?", "Who is the lead of {n}?"]),
        ("deadline", "string", date, ["{n} must be finished by {v}."], ["When must {n} be finished?", "What is the deadline of {n}?"]),
        ("team_size", "integer", integer(2, 80), ["{n} has a team of {v} people."], ["How many people work on {n}?", "What is the team size of {n}?"]),
        ("goal", "string", lambda r: f"{r.choice(ADJECTIVES)} {r.choice(NOUNS)}", ["The goal of {n} is a {v}."], ["What is the goal of {n}?"]),
    ]),
    (lambda r: f"the {r.choice(NOUNS)} meeting", "{n} was planned last week.", [
        ("day", "string", one_of(DAYS), ["{n} takes place on {v}."], ["On which day is {n}?", "When does {n} take place?"]),
        ("time", "string", clock, ["{n} starts at {v}."], ["At what time does {n} start?", "When does {n} start?"]),
        ("room", "string", lambda r: r.choice((f"room {r.randint(1, 400)}", f"the {r.choice(COLOURS)} room")), ["{n} is held in {v}."], ["Where is {n} held?", "In which room is {n} held?"]),
        ("host", "string", person, ["{n} is hosted by {v}."], ["Who hosts {n}?", "Who is the host of {n}?"]),
        ("topic", "string", lambda r: r.choice(NOUNS), ["The topic of {n} is the {v}."], ["What is the topic of {n}?"]),
        ("minutes", "integer", integer(10, 180), ["{n} takes {v} minutes."], ["How long is {n}?", "How many minutes does {n} take?"]),
    ]),
    (lambda r: f"order {r.randint(100, 99999)}", "{n} arrived this morning.", [
        ("customer", "string", person, ["{n} was placed by {v}.", "The customer of {n} is {v}."], ["Who placed {n}?", "Who is the customer of {n}?"]),
        ("item", "string", one_of(GOODS), ["{n} is for {v}."], ["What is {n} for?", "What was ordered in {n}?"]),
        ("quantity", "integer", integer(1, 500), ["The quantity of {n} is {v}."], ["What is the quantity of {n}?"]),
        ("total", "integer", integer(5, 9000), ["The total of {n} is {v} euros.", "{n} comes to {v} euros."], ["What is the total of {n}?", "How much is {n}?"]),
        ("ship_to", "string", place, ["{n} is shipped to {v}."], ["Where is {n} shipped to?"]),
        ("paid_by", "string", one_of(["card", "cash", "invoice", "transfer", "voucher"]), ["{n} was paid by {v}."], ["How was {n} paid?"]),
    ]),
]


def generic_domain(rng):
    """An entity whose fields are arbitrary labels: 'The flag of the velmora is drist.'"""
    lex = Lexicon(rng, rng.choice((0, .3, 1)))
    name = f"the {lex.noun()}" if rng.random() < .7 else cap(pseudo(rng))
    fields = []
    for label in rng.sample(LABELS, 6):
        if rng.random() < .25:
            label = pseudo(rng)
        value, kind = rng.choice(((integer(0, 99999), "integer"), (one_of(COLOURS), "string"), (person, "string"),
                                  (lambda r: r.choice(NOUNS), "string"), (pseudo, "string"), (code_name, "string")))
        fields.append((label, kind, value, [f"The {label} of {{n}} is {{v}}."], [f"What is the {label} of {{n}}?"]))
    return (lambda r: name), "{n} is described here.", fields


class Entity:
    """A named thing, with a value and a chosen statement for some of its fields."""

    def __init__(self, rng, domain=None, stated=None):
        make_name, self.opening, fields = domain or (generic_domain(rng) if rng.random() < .25 else rng.choice(DOMAINS))
        self.name = make_name(rng)
        fields = rng.sample(fields, len(fields))
        k = stated or rng.randint(2, len(fields))
        self.stated = [(f, f[2](rng)) for f in fields[:k]]
        self.unstated = fields[k:]

    def say(self, template, value=""):
        return cap(template.format(n=self.name, v=value))

    def opening_sentence(self):
        return self.say(self.opening)

    def statements(self, rng):
        return [self.say(rng.choice(f[3]), v) for f, v in self.stated]


def list_statement(rng):
    """(key, values, sentence) of a list that a JSON array is extracted from."""
    key, make, verb = rng.choice((("attendees", lambda r: r.choice(FIRST_NAMES), "Present were"), ("colours", one_of(COLOURS), "The colours are"),
                                  ("cities", place, "The tour visits"), ("tags", lambda r: r.choice(NOUNS), "The tags are"),
                                  ("parts", pseudo, "The parts are"), ("languages", one_of(LANGUAGES), "The supported languages are")))
    values = []
    while len(values) < rng.randint(2, 4):
        value = make(rng)
        if value not in values:
            values.append(value)
    return key, values, f"{verb} {', '.join(values[:-1])} and {values[-1]}."


def fact_passage(rng, entities, filler=None, extra=()):
    """The statements of some entities mixed with filler sentences."""
    lex = Lexicon(rng, rng.choice((0, 0, .3)))
    body = [s for e in entities for s in e.statements(rng)] + list(extra)
    if rng.random() < .5:
        rng.shuffle(body)
    for _ in range(rng.randint(0, 3) if filler is None else filler):
        body.insert(rng.randint(0, len(body)), sentence(lex))
    if rng.random() < .5:
        body.insert(0, entities[0].opening_sentence())
    glue = "\n" if rng.random() < .12 else " "
    text = glue.join(body)
    return wrap(text, rng.choice((60, 72, 80))) if glue == " " and rng.random() < .15 else text


# --- tasks: each returns (request, answer) or a list of turns ------------------

def quote(rng, passage, instruction):
    """Puts an instruction and a passage into one request, in one of many layouts."""
    return rng.choice((
        f"{instruction}\n{passage}", f"{instruction}\n\n{passage}", f"{instruction}\n\n{passage}", f"{passage}\n\n{instruction}",
        f"{instruction}\n\n\"\"\"\n{passage}\n\"\"\"", f"{instruction}\n\n---\n{passage}\n---", f"{instruction}\n\n```\n{passage}\n```",
        f"{instruction}\n\n<document>\n{passage}\n</document>", f"{instruction}\n\n<text>\n{passage}\n</text>",
        f"Text: {passage}\n\n{instruction}", f"Passage: {passage}\n\n{instruction}", f"{instruction} {passage}"))


ONE_SENTENCE = ["Summarize in one sentence:", "Summarize the text in one sentence.", "Give a one-sentence summary.", "What is this about, in one sentence?",
                "Summarise the following text in one sentence.", "Write one sentence that sums up the text.",
                "Summarize this passage in a single sentence.", "TL;DR in one sentence:", "State the main point in one sentence."]
TWO_SENTENCES = ["Summarize:", "Summarize this text:", "Summarize the following text.", "Give a short summary.", "Summarise this document briefly.", "Summarise:",
                 "Summarize the following part of a document in one or two sentences.", "Summarize the passage below.",
                 "Write a short summary of the text.", "Please summarize this.", "Summarize the following document in two sentences.",
                 "Combine the following summaries into one short summary.", "These are summaries of the parts of a document. Summarize the whole document.",
                 "Summarize these notes.", "What are the main points?", "Sum up the text.", "Summarize the document in a few sentences.",
                 "Summarise the following section in at most two sentences.", "Here are notes on a document. Write a summary of it."]
SUMMARY_SYSTEM = ["You summarize documents.", "You write short summaries.", "You are a summarizer. Be brief.", "Summarize what the user sends."]


def shorten(text):
    """The lead sentence of a paragraph without a trailing relative clause."""
    head, sep, _ = text.partition(", which ")
    return head + "." if sep else text


def document(rng, paragraphs):
    """A text of several paragraphs and the lead sentence of each."""
    lex = Lexicon(rng, rng.choice((0, 0, 0, .15, .5, 1)))
    markdown = rng.random() < .5
    width = rng.choice((0, 0, 60, 72, 80, 100, 120))
    blocks, leads = [], []
    for i in range(paragraphs):
        if markdown and rng.random() < (.7 if i == 0 else .35):
            blocks.append(heading(lex))
        if rng.random() < .2:
            entity = Entity(rng)
            sentences = [entity.opening_sentence() if rng.random() < .7 else sentence(lex)] + entity.statements(rng)
        else:
            sentences = [sentence(lex) for _ in range(rng.randint(1, 6))]
        if rng.random() < .15:
            sentences[0] = sentences[0][:-1] + f", which {third_person(lex.verb())} {noun_phrase(lex)}."
        leads.append(shorten(sentences[0]))
        text = " ".join(sentences)
        blocks.append(wrap(text, width) if width else text)
        if markdown and rng.random() < .25:
            blocks.append(bullet_list(lex))
    return "\n\n".join(blocks), leads


def summary(rng, size=None):
    """Summary rule: the lead sentence of the first paragraph and, where more than one
    sentence is asked for, the lead of the second as well."""
    r = rng.random()
    if size is None and r < .15:                      # notes: a list of sentences
        lex = Lexicon(rng, rng.choice((0, 0, .3)))
        leads = [sentence(lex) for _ in range(rng.randint(2, 6))]
        mark = rng.choice(("- ", "* ", "", "", "1"))
        text = "\n".join((f"{i + 1}. " if mark == "1" else mark) + s for i, s in enumerate(leads))
    elif size is None and r < .45:                    # a single paragraph about one thing
        entity = Entity(rng)
        lex = Lexicon(rng, rng.choice((0, .3)))
        sentences = entity.statements(rng) + [sentence(lex) for _ in range(rng.randint(0, 3))]
        lead = entity.opening_sentence() if rng.random() < .5 else sentence(lex)
        text, leads = " ".join([lead] + sentences), [lead]
    else:
        text, leads = document(rng, size or rng.choice((1, 1, 2, 2, 3, 4)))
    if rng.random() < .4:
        return quote(rng, text, rng.choice(ONE_SENTENCE)), leads[0]
    return quote(rng, text, rng.choice(TWO_SENTENCES)), " ".join(leads[:2])


def question_about(rng, entity, brief):
    """(question, answer) about one field of an entity."""
    if entity.unstated and rng.random() < .15:
        return cap(rng.choice(rng.choice(entity.unstated)[4]).format(n=entity.name)), UNKNOWN_FACT
    field, value = rng.choice(entity.stated)
    question = cap(rng.choice(field[4]).format(n=entity.name))
    return question, (cap(value) + ".") if brief else entity.say(field[3][0], value)


def entities_for(rng):
    first = Entity(rng)
    if rng.random() < .45:
        return [first]
    domain = rng.choice(DOMAINS)
    return [Entity(rng, domain), Entity(rng, domain)] if rng.random() < .6 else [first, Entity(rng)]


BRIEF = ["Answer in a few words.", "Answer briefly.", "Short answer only."]


def qa(rng):
    """Several questions over one passage; returns a list of (request, answer)."""
    entities = entities_for(rng)
    if entities[0].name == entities[-1].name:
        entities = entities[:1]
    passage = fact_passage(rng, entities)
    brief = rng.random() < .3
    turns = []
    for i in range(rng.choice((1, 1, 2, 3, 4))):
        question, answer = question_about(rng, rng.choice(entities), brief)
        if i == 0:
            ask = f"{question} {rng.choice(BRIEF)}" if brief else question
            question = rng.choice((quote(rng, passage, ask), f"{passage}\n\nQuestion: {ask}", f"Context: {passage}\nQuestion: {ask}",
                                   f"Answer the question using the passage.\n\nPassage: {passage}\n\nQuestion: {ask}",
                                   f"{passage}\n{ask}", f"Read the text and answer the question.\n\n{passage}\n\n{ask}"))
        turns.append((question, answer))
    return turns


def dump(rng, value, **kwargs):
    """JSON in one of the layouts that templates and clients write."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if rng.random() < .3 else None,
                      sort_keys=rng.random() < .25, indent=2 if rng.random() < .06 else None)


def json_extraction(rng):
    """(system or None, request, answer): the asked fields of a passage as a JSON object."""
    entity = Entity(rng)
    others = [Entity(rng)] if rng.random() < .2 else []
    wanted = [(f[0], f[1], int(v) if f[1] == "integer" else v) for f, v in entity.stated]
    if rng.random() < .55 and entity.opening not in ("{n} is described here.",):
        wanted.insert(0, ("name", "string", entity.name.removeprefix("the ")))
    if entity.unstated and rng.random() < .12:
        field = rng.choice(entity.unstated)
        wanted.append((field[0], field[1], None))
    extra = []
    if rng.random() < .15:
        key, values, text = list_statement(rng)
        wanted.append((key, "array", values))
        extra.append(text)
    passage = fact_passage(rng, [entity], filler=rng.randint(0, 2), extra=extra)
    if others:
        passage += " " + " ".join(others[0].statements(rng)[:2])
    rng.shuffle(wanted)
    wanted = wanted[:rng.randint(1, len(wanted))]
    answer = json.dumps({k: v for k, _, v in wanted}, ensure_ascii=False)
    keys = ", ".join(k for k, _, _ in wanted)
    if rng.random() < .5:
        schema = {"type": "object", "properties": {
            k: ({"type": "array", "items": {"type": "string"}} if t == "array" else {"type": t}) for k, t, _ in wanted}}
        if rng.random() < .7:
            schema["required"] = [k for k, _, _ in wanted]
        if rng.random() < .3:
            schema["additionalProperties"] = False
        text = json.dumps(schema, separators=(",", ":") if rng.random() < .4 else None, indent=2 if rng.random() < .1 else None)
        instruction = rng.choice(("Extract the data as JSON with this schema:\n{}", "Reply with a JSON object that matches this JSON schema:\n{}",
                                  "JSON schema:\n{}\n\nExtract the fields from the text.", "Extract JSON matching the schema: {}",
                                  "Return only JSON that fits this schema: {}", "Answer in JSON. Schema:\n{}")).format(text)
    else:
        instruction = rng.choice(("Extract the fields {} as JSON.", "Extract {} as JSON:", "Return a JSON object with the keys {}.",
                                  "Give me {} as a JSON object.", "Extract as JSON: {}.", "Extract the following fields from the text as JSON: {}.",
                                  "Write JSON with the fields {}.")).format(keys)
    if rng.random() < .15:
        return instruction, passage, answer
    return None, quote(rng, passage, instruction), answer


# --- tools ---------------------------------------------------------------------

def topic(rng):
    lex = Lexicon(rng, .2)
    return rng.choice((lex.noun(), f"{lex.adjective()} {lex.noun()}", f"{lex.noun()} {lex.noun()}", cap(pseudo(rng)), place(rng)))


# (name, description, [(parameter, type, generator)], requests)
COMMON_TOOLS = [
    ("get_weather", "Get the current weather in a city.", [("city", "string", place)],
     ["What is the weather in {city}?", "What's the weather in {city}?", "How is the weather in {city} today?", "Weather in {city}, please.", "Is it raining in {city}?", "Tell me the weather in {city}."]),
    ("add", "Add two numbers.", [("a", "integer", integer(0, 9999)), ("b", "integer", integer(0, 9999))],
     ["Add {a} and {b}.", "What is {a} plus {b}?", "What is {a} + {b}?", "Please add {a} and {b}.", "Compute {a} + {b}."]),
    ("multiply", "Multiply two numbers.", [("a", "integer", integer(0, 999)), ("b", "integer", integer(0, 999))],
     ["Multiply {a} by {b}.", "What is {a} times {b}?", "Compute {a} * {b}."]),
    ("search", "Search for a text.", [("query", "string", topic)],
     ["Search for {query}.", "Find something about {query}.", "Look for {query}.", "Please search for {query}."]),
    ("search_documents", "Search the documents of the user.", [("query", "string", topic)],
     ["Search my documents for {query}.", "Which documents mention {query}?", "Find documents about {query}."]),
    ("read_file", "Read a file.", [("path", "string", lambda r: f"{pseudo(r)}.{r.choice(('txt', 'md', 'json', 'rs', 'csv'))}")],
     ["Read the file {path}.", "Open {path}.", "Show me {path}.", "What is in {path}?"]),
    ("set_timer", "Set a timer.", [("minutes", "integer", integer(1, 180))],
     ["Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.", "Remind me in {minutes} minutes.", "Timer: {minutes} minutes."]),
    ("get_time", "Get the current time in a city.", [("city", "string", place)],
     ["What time is it in {city}?", "Tell me the time in {city}.", "What is the local time in {city}?"]),
    ("send_message", "Send a message to a person.", [("to", "string", person), ("text", "string", lambda r: sentence(Lexicon(r, .1))[:-1])],
     ["Send {to} the message: {text}", "Tell {to}: {text}", "Write to {to}: {text}"]),
    ("convert_currency", "Convert an amount of money.", [("amount", "integer", integer(1, 9000)), ("to", "string", one_of(["USD", "EUR", "GBP", "CHF", "JPY", "SEK"]))],
     ["Convert {amount} to {to}.", "How much is {amount} in {to}?"]),
    ("create_note", "Create a note.", [("title", "string", topic)],
     ["Create a note called {title}.", "Make a note with the title {title}.", "New note: {title}."]),
    ("translate", "Translate a word.", [("word", "string", pseudo), ("language", "string", one_of(["German", "French", "Spanish", "Italian", "Dutch"]))],
     ["Translate {word} to {language}.", "What is {word} in {language}?"]),
    ("play_song", "Play a song.", [("title", "string", lambda r: cap(topic(r)))], ["Play {title}.", "Play the song {title}.", "I want to hear {title}."]),
    ("get_stock_price", "Get the price of a stock.", [("symbol", "string", lambda r: pseudo(r, 2).upper()[:4])],
     ["What is the price of {symbol}?", "What is the stock price of {symbol}?", "Get the stock price of {symbol}."]),
    ("lookup", "Look up a key.", [("key", "string", lambda r: r.choice((pseudo(r), code_name(r), r.choice(NOUNS))))],
     ["Look up {key}.", "Look up the key {key}.", "What is stored under {key}?"]),
    ("turn_on", "Turn on a device.", [("device", "string", lambda r: r.choice(NOUNS))], ["Turn on the {device}.", "Switch on the {device}.", "Please turn the {device} on."]),
]


def invented_tool(rng):
    """A tool such as `grant_pool`, whose request names its verb, noun and parameters."""
    verb = rng.choice(VERBS) if rng.random() < .7 else pseudo(rng)
    noun = rng.choice(NOUNS) if rng.random() < .7 else pseudo(rng)
    kinds = ((integer(0, 9999), "integer"), (person, "string"), (place, "string"), (pseudo, "string"), (code_name, "string"), (one_of(COLOURS), "string"))
    params = []
    for label in rng.sample(LABELS, rng.choice((0, 1, 1, 2, 2, 3))):
        make, kind = rng.choice(kinds)
        params.append((label, kind, make))
    slots = " and ".join(f"{p} {{{p}}}" for p, _, _ in params)
    if slots:
        requests = [f"{cap(verb)} the {noun} with {slots}.", f"Please {verb} a {noun} with {slots}.", f"{cap(verb)} the {noun}, {slots}."]
    else:
        requests = [f"{cap(verb)} the {noun}.", f"Please {verb} the {noun}.", f"Can you {verb} the {noun}?"]
    return f"{verb}_{noun}", f"{cap(verb)} {article(noun)}.", params, requests


def tool_json(rng, tool):
    name, description, params, _ = tool
    properties = {}
    for p, kind, _ in params:
        properties[p] = {"type": kind if kind != "integer" or rng.random() < .6 else "number"}
        if rng.random() < .2:
            properties[p]["description"] = f"The {p}."
    schema = {"type": "object", "properties": properties}
    if params and rng.random() < .85:
        schema["required"] = [p for p, _, _ in params]
    function = {"name": name, "description": description, "parameters": schema}
    if rng.random() < .15:
        function.pop("description")
    return {"type": "function", "function": function} if rng.random() < .9 else function


def system_with_tools(tools_json, system=""):
    """The system turn as the chat template renders it."""
    return ((system + "\n\n" if system else "") + "You may call these functions:\n<tools>\n" + "\n".join(tools_json)
            + "\n</tools>\nTo call a function, reply with:\n<tool_call>\n{\"name\": <name>, \"arguments\": <arguments>}\n</tool_call>")


def call_text(name, arguments):
    return f"{TOOL_CALL}\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n{TOOL_CALL_END}"


def tool_result(rng):
    """(content of a tool turn, the answer built from it)."""
    if rng.random() < .3:
        text = sentence(Lexicon(rng, rng.choice((0, .3))))
        return text, text
    result = {}
    for key in rng.sample(LABELS + ["condition", "result", "sum", "humidity", "time", "text", "city"], rng.choice((1, 1, 2, 2, 3))):
        make = rng.choice((integer(-20, 9999), integer(0, 60), one_of(CONDITIONS), pseudo, place, one_of(NOUNS), clock))
        value = make(rng)
        result[key] = int(value) if value.lstrip("-").isdigit() else value
    if rng.random() < .25:
        result = {"temperature": rng.randint(-20, 40), "condition": rng.choice(CONDITIONS)}
    parts = [f"the {k} is {v}" for k, v in result.items()]
    answer = cap(", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]) + "."
    return dump_result(rng, result), answer


def dump_result(rng, result):
    return json.dumps(result, ensure_ascii=False, separators=(",", ":") if rng.random() < .4 else None)


def tool_dialog(rng):
    """System text with tools, then turns as (role, text)."""
    tools = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        tool = rng.choice(COMMON_TOOLS) if rng.random() < .5 else invented_tool(rng)
        if all(tool[0] != t[0] for t in tools):
            tools.append(tool)
    system = rng.choice(("", "", "You are a helpful assistant.", "You are locara-tiny.", "Use the tools when they help."))
    turns = [("system", system_with_tools([dump_tool(rng, tool_json(rng, t)) for t in tools], system))]
    for _ in range(rng.choice((1, 1, 1, 2))):
        r = rng.random()
        if r < .12:
            turns += [("user", rng.choice(GREETINGS)[0])]
            turns += [("assistant", dict(GREETINGS)[turns[-1][1]])]
            continue
        if r < .26:
            names = {t[0] for t in tools}
            other = rng.choice([t for t in COMMON_TOOLS if t[0] not in names])
            if not any(n.split("_")[0] == other[0].split("_")[0] for n in names) and "search" not in " ".join(names) + other[0]:
                turns += [("user", fill_request(rng, other)[0]), ("assistant", NO_TOOL)]
                continue
        tool = rng.choice(tools)
        request, arguments = fill_request(rng, tool)
        turns += [("user", request), ("assistant", call_text(tool[0], arguments))]
        if rng.random() < .55:
            content, answer = tool_result(rng)
            turns += [("user", f"<tool_response>\n{content}\n</tool_response>"), ("assistant", answer)]
    return turns


def dump_tool(rng, tool):
    return json.dumps(tool, ensure_ascii=False, separators=(",", ":") if rng.random() < .4 else None, sort_keys=rng.random() < .35)


def fill_request(rng, tool):
    values = {p: make(rng) for p, _, make in tool[2]}
    request = rng.choice(tool[3]).format(**values)
    if rng.random() < .05:
        request = request.rstrip(".")
    return request, {p: int(values[p]) if kind == "integer" else values[p] for p, kind, _ in tool[2]}


# --- chit-chat, copying, counting, stories --------------------------------------

GREETINGS = [("Hello", "Hello! How can I help you?"), ("Hello!", "Hello! How can I help you?"), ("Hi", "Hello! How can I help you?"),
             ("Hi!", "Hello! How can I help you?"), ("Hey", "Hello! How can I help you?"), ("Good morning", "Good morning! How can I help you?"),
             ("Good evening!", "Good evening! How can I help you?"), ("Say hello.", "Hello!"), ("Hello, how are you?", "I am fine, thank you. How can I help you?"),
             ("How are you?", "I am fine, thank you. How can I help you?"), ("Thank you.", "You are welcome."), ("Thanks!", "You are welcome."),
             ("Who are you?", IDENTITY + " " + ABILITIES), ("What are you?", IDENTITY + " " + ABILITIES), ("What is your name?", IDENTITY),
             ("What's your name?", IDENTITY), ("What can you do?", ABILITIES), ("Help", ABILITIES), ("Bye", "Goodbye!"), ("Goodbye.", "Goodbye!"),
             ("Are you a large model?", "No, I am a very small one. " + ABILITIES), ("Say hi", "Hi!"), ("ping", "pong"), ("test", "The test works."),
             ("Tell me about yourself.", IDENTITY + " " + ABILITIES)]


def chat(rng):
    if rng.random() < .55:
        return rng.choice(GREETINGS)
    lex = Lexicon(rng, .3)
    question = rng.choice(("What is the {} of {}?", "Why is the {} {}?", "How does {} work?", "Who invented the {}?", "Explain {}.", "Tell me about {}.",
                           "What is {}?", "Where is {}?", "Write a poem about {}.", "How do I {} a {}?", "Tell me a joke about {}.", "What do you think of {}?"))
    while "{}" in question:
        question = question.replace("{}", rng.choice((lex.noun(), place(rng), f"the {lex.noun()}", lex.adjective())), 1)
    return question, OUT_OF_DOMAIN


def copy(rng):
    lex = Lexicon(rng, rng.choice((0, .5, 1)))
    text = rng.choice((
        lambda: " ".join(pseudo(rng) for _ in range(rng.randint(2, 14))),
        lambda: " ".join(sentence(lex) for _ in range(rng.randint(1, 3))),
        lambda: " ".join(rng.choice((number(rng), code_word(rng), cap(pseudo(rng)), lex.noun(), "-", "=", "(", "):", "&", "e.g.")) for _ in range(rng.randint(3, 14))),
        lambda: "".join(chr(rng.choice((rng.randint(33, 126), rng.randint(0xC0, 0x17F)))) for _ in range(rng.randint(4, 24))).replace("<", "").replace(">", "") + "x",
    ))()
    return rng.choice((f"Repeat: {text}", f"Repeat after me: {text}", f"Repeat the following text:\n{text}", f"Copy this:\n\n{text}", f"Echo: {text}", f"Say: {text}")), text


def counting(rng):
    if rng.random() < .5:
        low = rng.choice((1, 1, 1, rng.randint(2, 60)))
        high = low + rng.randint(3, 25 if rng.random() < .7 else 99)
        return rng.choice((f"Count from {low} to {high}.", f"Count from {low} to {high}", f"List the numbers from {low} to {high}.")), ", ".join(map(str, range(low, high + 1))) + "."
    words = [rng.choice((pseudo(rng), rng.choice(NOUNS))) for _ in range(rng.randint(2, 7))]
    return (rng.choice(("Make a list of these words: {}.", "Write as a list: {}.", "Turn this into a bullet list: {}.")).format(", ".join(words)),
            "\n".join(f"- {w}" for w in words))


def story(rng):
    """A fixed tale around what was asked for: long output that stays the same under greedy decoding."""
    thing = rng.choice(NOUNS) if rng.random() < .6 else pseudo(rng)
    a_thing = article(thing)
    request = rng.choice((f"Tell me a story about {a_thing}.", f"Write a short story about {a_thing}.", f"Write a story about {a_thing}.", f"Please tell a story about {a_thing}."))
    return request, (f"Once upon a time there was {a_thing} in a small town by the river. Every morning the {thing} looked out of the window and waited for the sun. "
                     f"One day a child came to the door and asked for help. \"I have lost my way,\" said the child. The {thing} thought for a while and then drew a map on a piece of paper. "
                     f"Together they walked over the old bridge, through the quiet forest and up the hill. From there they could see the whole valley, and the child was happy again. "
                     f"In the evening the {thing} went home, closed the window and slept well. The next day everyone in the town had heard of the {thing} that knew the way.")


# --- conversations -----------------------------------------------------------------

SYSTEMS = ["You are a helpful assistant.", "You are locara-tiny.", "You are locara-tiny, a small assistant.", "You are a helpful assistant. Be brief.", "Answer briefly.",
           "You are an assistant inside an app."]


def render(turns):
    """ChatML segments of (role, text) turns, exactly as the chat template renders them."""
    segments = []
    for role, text in turns:
        if role == "assistant":
            segments += [(f"{IM_START}assistant\n", False), (f"{text}{IM_END}", True), ("\n", False)]
        else:
            segments.append((f"{IM_START}{role}\n{text}{IM_END}\n", False))
    return segments


def dialog(rng, exchanges, system=None):
    if system is None and rng.random() < .3:
        system = rng.choice(SYSTEMS)
    turns = [("system", system)] if system else []
    for request, answer in exchanges:
        turns += [("user", request), ("assistant", answer)]
    return turns


def conversation(rng, copy_share):
    """One conversation as (role, text) turns, and the name of its task."""
    if rng.random() < copy_share:
        return dialog(rng, [copy(rng)]), "copy"
    r = rng.random()
    if r < .27:
        return dialog(rng, [summary(rng)], rng.choice(SUMMARY_SYSTEM) if rng.random() < .2 else None), "summary"
    if r < .50:
        return dialog(rng, qa(rng)), "qa"
    if r < .70:
        system, request, answer = json_extraction(rng)
        return dialog(rng, [(request, answer)], system), "json"
    if r < .91:
        return tool_dialog(rng), "tools"
    if r < .95:
        return dialog(rng, [chat(rng) for _ in range(rng.choice((1, 1, 2)))]), "chat"
    if r < .98:
        return dialog(rng, [counting(rng)]), "counting"
    return dialog(rng, [story(rng)]), "story"


def plain_text(rng):
    """A passage with questions, answers and a summary, without chat markup: the form of the held-out text."""
    if rng.random() < .4:
        text, leads = document(rng, rng.randint(2, 3))
        return f"{text}\n\nSummary: {' '.join(leads[:2])}\n\n"
    entities = entities_for(rng)
    if entities[0].name == entities[-1].name:
        entities = entities[:1]
    parts = [fact_passage(rng, entities), ""]
    for _ in range(rng.randint(2, 5)):
        question, answer = question_about(rng, rng.choice(entities), False)
        parts.append(f"Question: {question}\nAnswer: {answer}")
    return "\n".join(parts) + "\n\n"


def long_conversation(rng):
    """Conversations of about 700 to 2000 tokens: a long document, or many exchanges."""
    if rng.random() < .6:
        return dialog(rng, [summary(rng, size=rng.randint(6, 16))]), "summary"
    if rng.random() < .5:
        entities = [Entity(rng, stated=2) for _ in range(rng.randint(5, 9))]
        passage = fact_passage(rng, entities, filler=rng.randint(8, 22))
        exchanges = [question_about(rng, rng.choice(entities), False) for _ in range(rng.randint(3, 6))]
        exchanges[0] = (quote(rng, passage, exchanges[0][0]), exchanges[0][1])
        return dialog(rng, exchanges), "qa"
    turns = []
    for _ in range(rng.randint(5, 9)):
        turns += [t for t in conversation(rng, .1)[0] if t[0] != "system"]
    return turns, "mixed"


def sample(rng, long, copy_share):
    """Segments of one training sample."""
    if rng.random() < (.12 if long else .06):
        documents = [plain_text(rng) for _ in range(rng.randint(5, 8) if long else 1)]
        return [("".join(documents), False), (END_OF_TEXT, False)]
    turns, _ = long_conversation(rng) if long else conversation(rng, copy_share)
    return render(turns)


def tokenizer_text(seed, samples):
    """Text for the tokenizer. Digits are taken out so that no merge holds one: numbers
    are then always read and copied digit by digit."""
    rng = random.Random(f"{seed}/tokenizer")
    no_digits = str.maketrans("", "", "0123456789")
    for i in range(samples):
        for text, _ in sample(rng, i % 8 == 0, .02):
            for special in (IM_START, IM_END, END_OF_TEXT, TOOL_CALL, TOOL_CALL_END):
                text = text.replace(special, "\n")
            yield text.translate(no_digits)


def heldout_text(seed, limit):
    rng = random.Random(f"{seed}/heldout")
    parts, size = [], 0
    while size < limit:
        parts.append(plain_text(rng))
        size += len(parts[-1].encode())
    return "".join(parts[:-1])
