"""Word lists for the generated training text, and the pseudo-word generator.

The lists only have to be broad enough that the BPE vocabulary covers ordinary
technical English; everything rarer is reached through pseudo-words, which
teach the model to copy words it has never seen.
"""

FIRST_NAMES = """Anna Ben Carla David Elena Felix Grace Hugo Ines Jonas Karin Leo Maria Nils Olga Paul
Rosa Simon Tara Victor Wanda Yusuf Zoe Aisha Bruno Chloe Diego Emma Farid Gina Hassan Irene Jamal
Kenji Lucia Marco Nadia Omar Petra Quinn Ravi Sofia Tomas Uma Vera Walter Xenia Yara Alice Bob
Clara Daniel Eva Frank Greta Henry Ivan Julia Kofi Laura Mohamed Nora Oscar Priya Ruth Sam Tina""".split()

SURNAMES = """Adler Baker Carter Dalton Evans Fischer Garcia Huber Ito Jensen Keller Larsen Moreau Novak
Okafor Patel Rossi Silva Tanaka Ullman Vargas Weber Young Zhang Brandt Costa Dubois Ferrari Green Haas
Kowalski Lindgren Meyer Nguyen Olsen Peters Romano Schmidt Torres Walker""".split()

CITIES = """Paris London Berlin Madrid Rome Vienna Prague Lisbon Oslo Dublin Athens Tokyo Delhi Cairo
Lima Toronto Boston Chicago Denver Seattle Zurich Geneva Munich Hamburg Milan Naples Porto Seville
Warsaw Krakow Budapest Stockholm Helsinki Copenhagen Amsterdam Brussels Nairobi Lagos Accra Seoul
Sydney Melbourne Montreal Havana Bogota Quito Istanbul Ankara Beirut Hanoi Manila Jakarta""".split()

ADJECTIVES = """same other few many several different important possible necessary likely real true false known
unknown own general special separate independent concrete abstract technical resident concurrent consistent
deterministic persistent declared embedded selected required relevant human natural social political economic
small large fast slow quiet loud bright dark simple complex local remote open closed empty
full heavy light strong weak early late short long narrow wide deep shallow clean safe stable active idle
public private shared single double final first second last main minor major new old modern ancient common
rare useful useless cheap expensive hard soft warm cold dry wet fresh plain rich poor rough smooth sharp
flat round square hidden visible static dynamic virtual physical internal external native portable sandboxed
signed trusted secure explicit implicit optional required default custom current previous next separate
whole partial complete correct wrong valid invalid exact average total daily weekly annual regional central
northern southern eastern western wooden metal green blue red yellow white black silver golden popular
famous careful honest patient curious brave gentle proud busy free ready available reliable durable
efficient flexible generic specific linear parallel sequential temporary permanent mutable immutable
readable writable compact verbose minimal maximal upper lower inner outer left right""".split()

NOUNS = """app application architecture software hardware operating platform crate binary byte bit kilobyte gigabyte
megabyte percent second minute hour day week month year time number person people man woman world country
government company community information data text code content language state change level case point
fact way place example decision invariant boundary responsibility implementation instance dependency
environment variable configuration connection protocol endpoint inference generation completion sampling
tokenizer embedding quantization residency eviction admission isolation lifecycle shutdown startup session
tenant priority fairness overhead allocation instruction exception behaviour standard feature detail
section overview introduction summary conclusion note warning research science energy health education
system process thread memory cache buffer queue token model layer engine runtime host guest module
component interface function method value field record table index file folder path disk page block stream
channel socket port request response message event signal timer clock schedule task job worker service server
client user session account profile policy permission capability grant limit quota budget pool slot batch
sequence prompt context window grammar schema format header version release build test bench metric counter
log trace error failure warning report document section chapter paragraph sentence word letter symbol number
list map tree graph node edge root leaf branch key lock door window garden house bridge river lake mountain
forest valley road street market station train bus ship boat harbour island coast farm field school library
museum theatre hospital office factory shop kitchen table chair lamp book letter picture song story game
team player coach teacher student doctor nurse engineer farmer baker driver pilot artist writer singer
painter manager owner customer visitor neighbour friend family child king queen captain sailor soldier
animal dog cat horse bird fish cow sheep tree flower apple bread cheese soup coffee tea water milk sugar
machine motor wheel battery cable sensor screen camera printer phone radio computer chip board circuit
package library kernel driver device accelerator processor core weight tensor matrix vector gradient
container sandbox manifest bundle signature certificate secret password network router gateway proxy
database query transaction snapshot backup restore update upgrade install command option argument flag
parameter setting rule contract agreement plan project goal step stage phase result outcome effect cause
reason problem solution question answer idea design pattern structure boundary surface region area zone
unit part piece copy source target origin history future season winter summer spring autumn morning evening
price cost income tax loan bank money coin order payment invoice delivery product material wood stone glass
paper cloth colour sound noise silence voice language adapter scheduler allocator compiler parser lexer
iterator callback handler listener observer factory registry catalog store daemon supervisor watchdog
heartbeat deadline latency throughput bandwidth pressure temperature distance speed height width length""".split()

VERBS = """load store open close start stop read write send receive create delete update check verify test
build compile link install remove move copy share lock release allocate reserve free limit measure count
report log trace watch control manage schedule queue batch stream parse format encode decode compress
extract merge split sort filter select join match compare replace insert append reset restore resume pause
cancel reject accept allow deny grant revoke request serve handle route forward deliver collect gather
publish record track monitor protect isolate wrap expose hide map index scan search visit cross follow
support connect attach detach enable disable configure prepare plan design paint clean repair cook plant
harvest carry lift push pull turn raise lower cover fill empty improve reduce increase extend shorten
explain describe discuss present teach help join guide call answer ask need use keep hold own hire train""".split()

ADVERBS = """more most very also just even so much too well far almost already perhaps both either alone
quickly slowly safely directly usually often rarely always never only later early together
carefully quietly automatically explicitly currently recently finally mostly partly fully locally remotely
once twice again soon today simply easily exactly nearly""".split()

CONNECTIVES = ["because", "while", "when", "before", "after", "although", "so that", "until", "unless", "since"]
PREPOSITIONS = ["in", "on", "with", "for", "from", "through", "near", "under", "behind", "inside", "across",
                "without", "between", "against", "over", "around", "beside", "within", "beyond", "during"]
OPENERS = """However Therefore Instead Otherwise Moreover Meanwhile Afterwards Still Then Today Here First Second
Usually Likewise Finally Nevertheless""".split()
QUALIFIERS = """at most|at least|as well as|such as|more than|less than|in order to|as soon as|rather than|instead of|up to|according to|
because of|due to|together with|based on|apart from|as long as""".replace("\n", "").split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
COLOURS = "red blue green yellow black white grey orange purple brown silver golden pink".split()
JOBS = """teacher engineer baker doctor farmer nurse pilot painter writer gardener carpenter lawyer librarian
programmer photographer musician chemist plumber tailor driver chef dentist architect journalist""".split()
HOBBIES = """chess painting cycling swimming gardening photography running cooking fishing dancing sailing
reading hiking singing climbing knitting skiing pottery archery tennis""".split()
LANGUAGES = "Rust Python Go Java Swift Kotlin Zig Ruby Erlang Haskell TypeScript Lua Scala".split()
GOODS = """lamps chairs apples books bottles cables pencils candles shirts boxes mugs plates bicycles
batteries blankets clocks mirrors notebooks baskets ropes tiles spoons""".split()
CONDITIONS = "sunny cloudy rainy windy foggy snowy stormy clear humid mild".split()
LABELS = """status code owner priority colour size weight speed price volume mode level region channel target
limit amount address title category length height width depth format version language author label group
team port path branch duration rating score capacity temperature serial origin material supplier""".split()

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl pr sh sk sl st th tr bl ch".split()
_VOWELS = "a e i o u a e i o ai ea ou ee io".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "k", "nd", "rt", "x", "ck", "ng", "sh"]


def pseudo(rng, syllables=None):
    """An invented lower-case word such as 'velmora' or 'drist'."""
    n = syllables or rng.choice((1, 2, 2, 2, 2, 3))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if i == n - 1 or rng.random() < .25 else "")
                   for i in range(n))
    return word if len(word) > 2 else word + rng.choice(_ONSETS) + "o"


def past(verb):
    """The regular past; irregular verbs of the list are spelled out."""
    irregular = {"send": "sent", "read": "read", "write": "written", "build": "built", "hide": "hidden", "hold": "held", "keep": "kept",
                 "teach": "taught", "split": "split", "reset": "reset", "format": "formatted", "cancel": "cancelled", "stop": "stopped",
                 "plan": "planned", "wrap": "wrapped", "map": "mapped", "scan": "scanned", "log": "logged", "grant": "granted"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


def gerund(verb):
    if verb in ("stop", "plan", "wrap", "map", "scan", "log", "split", "reset", "format"):
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb) + "ing"


def third_person(verb):
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def plural(noun):
    return {"child": "children", "sheep": "sheep", "fish": "fish"}.get(noun) or third_person(noun)


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
