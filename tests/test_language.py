"""The words of the house: American spelling, and one term for one thing.

Held over what people read: the Markdown of the chapters and READMEs, and the comments,
docstrings and help texts of all code. Code, formulas, links and quoted samples are left
out. To mend a failure, write what the table says.
"""

import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from held import held

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((held() / "chapters").glob("[0-9][0-9]_*.ipynb"))
SPACE = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}
# From Python 3.12 on, an f-string is several tokens.
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
QUOTES = re.compile('^[a-zA-Z]*("""|"|\')|("""|"|\')$')
FOLDERS = ("chapters", "solutions", "tests", "tools")
READMES = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md",
    "data/tale-gpt/README.md", "solutions/README.md", "tools/README.md",
)  # fmt: skip

# American English writes these with s, too; so it does whatever ends in -wise.
WITH_S = (
    "advertise advise appraise arise braise bruise chastise compromise comprise "
    "concise crise cruise demise denoise despise devise disguise enterprise excise "
    "exercise expertise franchise guise imprecise improvise incise kaiser merchandise "
    "noise paradise poise practise praise precise premise promise raise reprise "
    "revise sunrise supervise surmise surprise televise tortoise turquoise unsupervise "
    "valise"
)
STEMS = "|".join(word.removesuffix("r")[:-1] for word in WITH_S.split())
ENDS = r"(e[drs]?|ers|ing|ingly|able|ations?)\b"
OUR = "arm|behavi|col|endeav|fav|flav|harb|hon|hum|lab|neighb|od|rig|rum|sav|vap|vig"
ONE_L = "cancel|channel|dial|fuel|label|level|marvel|model|pencil|signal|total|travel"
FINE = (  # the word in these is no position
    "in place|in-place|in the first place|take place|takes place|taken place|"
    "taking place|took place|decimal place|decimal places"
)
PLACE = r"places?\b" + "".join(rf"(?<!\b{words})" for words in FINE.split("|"))
COUNTED = (
    "(bits?|nats|tokens|bytes|characters|words|documents|samples|parameters|weights|"
    "numbers|flops|operations|multiplications|steps|(milli)?seconds|[kmgt]b|ms)"
)
EACH = (
    "(byte|character|token|word|document|step|layer|head|row|position|parameter|weight|"
    r"number|second|minute|hour|day)\b(?! (stands|takes|time)\b)"
)

RULES = [  # (expression, from a word's start on; what to write; a bad sentence)
    (rf"(?!({STEMS}|\w*wis){ENDS})[a-z]{{2,}}is{ENDS}", "-ize",
     "The tokeniser normalises what was memorised."),
    (r"(anal|paral|catal)ys(e|ed|er|ers|ing)\b", "-yze", "We analyse it."),
    (rf"[a-z]*({OUR})our", "-or", "It favours the nearest neighbours."),
    (r"(calibre|centre|fibre|litre|lustre|metre|sombre|theatre)[ds]?\b", "-er",
     "The data are centred."),
    (rf"[a-z]*({ONE_L})l(ed|er|ers|ing)\b", "a single l", "Unlabelled data."),
    (r"(dreamt|leant|learnt|smelt|spelt|spilt|spoilt)\b", "learned, spelled, ...",
     "What was learnt first comes first."),
    (r"(defence|licence|offence|pretence)s?\b", "license, defense, ...",
     "The licence is MIT."),
    (r"practis(e[ds]?|ing)\b", "practice", "Practise it."),
    (r"(judge|acknowledge)ments?\b", "judgment, acknowledgment", "A judgement."),
    (r"artefacts?\b", "artifact", "An artefact of rounding."),
    (r"(ana|cata)logues?\b", "analog, catalog", "The catalogue of errors."),
    (r"programmes?\b", "program", "The programme ends."),
    (r"grey\w*", "gray", "The greyish line."),
    (r"towards\b", "toward", "Towards the end."),
    (r"(amongst|whilst)\b", "among, while", "One amongst many."),
    (r"(encyclopaed|manoeuv)\w*", "encyclopedia, maneuver", "An encyclopaedia."),
    (r"(maths|per cent)\b", "math, percent", "School maths."),
    (r"(enrol|fulfil|instal)(s|ment|ments)?\b", "enroll, fulfill, ...",
     "It must fulfil this."),
    (PLACE, "position (in place, takes place and decimal places are fine)",
     "The token at this place, and in other places."),
    (rf"{COUNTED} an? {EACH}", "per", "At 1.8 bits a byte."),
    (r"(first|start|starting) weights\b", "initialization, initial weights",
     "The first weights are small."),
    (r"(an?|each|its|no|the|this) bends?\b", "activation", "Each layer has a bend."),
    (r"pasts\b|(long|short)(er|est)? past\b", "context", "Longer pasts are rare."),
    (r"drawers?\b", "bucket", "Both fall into one drawer."),
    (r"locality sensitive\b", "locality-sensitive", "Locality sensitive hashing."),
    (r"(lm|language[ -]model(ing)?|output|prediction) heads?\b", "output layer",
     "The language-model head."),
    (r"pre ?token(s|ize[drs]?|izers|izing|ization)?\b", "pre-token",
     "A pretoken is never split."),
    (r"special (characters|marks?|symbols?|words?)\b", "special token",
     "Special symbols have ids of their own."),
    (r"feed ?forward\b", "feed-forward", "A feedforward network."),
    (r"look-ups?\b", "lookup", "A table look-up."),
    (r"(kv|key/value)[ -]caches?\b", "key-value cache", "With a KV cache."),
]  # fmt: skip
# All in one, with one group for each rule: most texts break none, and are read once.
GROUPS = ["(" + re.sub(r"\((?!\?)", "(?:", rule) + ")" for rule, *_ in RULES]
ANY = re.compile(rf"\b(?:{'|'.join(GROUPS)})")


def broken(text: str) -> list[str]:
    """What in a text breaks a rule, and what to write; words may run over lines."""
    text = " ".join(without_code(text).lower().split())
    return [
        f"{text[max(0, m.start() - 30) : m.end() + 30]!r}: {RULES[m.lastindex - 1][1]}"
        for m in ANY.finditer(text)
    ]


def without_code(text: str) -> str:
    """Names of files, and what stands between backticks, are no words."""
    return re.sub(r"(`+).+?\1|[\w./-]+\.(py|ipynb)\b", " _ ", text, flags=re.S)


def prose_of_code(source: str) -> Iterator[str]:
    """The docstrings, help texts and comments of Python code."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    block, last = [], 0
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, alone = token.start[0], token.line.lstrip()[0] == "#"
            if not alone or row != last + 1:  # else the comment above goes on
                yield "\n".join(block)
                block = []
            block.append(token.string.lstrip("#"))
            last = row if alone else 0
    yield "\n".join(block)
    tokens = [t for t in tokens if t.type not in SPACE]
    begins, text, depth = True, None, 0  # text: of an argument `help`, so far
    for i, token in enumerate(tokens):
        if begins and token.type == tokenize.STRING:  # a statement of its own
            yield QUOTES.sub("", token.string)
        begins = token.type == tokenize.NEWLINE
        if token.string == "=" and tokens[i - 1].string in ("help", "epilog"):
            text, depth = "", 0
        elif text is not None and token.type in STRINGS:
            text += re.sub(r"\{[^{}]*\}", " _ ", QUOTES.sub("", token.string))
        elif text is not None:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(token.string, 0)
            if depth < 0 or depth == 0 and token.string == ",":
                yield text
                text = None


def prose_of_markdown(text: str) -> Iterator[str]:
    """The words of a page, and those of the Python code in it."""
    for code in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        yield from prose_of_code(code)
    text = re.sub(r"^```.*?^```|^### Sample.*", " _ ", text, flags=re.M | re.S)
    text = without_code(re.sub(r"^>.*", " _ ", text, flags=re.M))
    formulas_and_links = r"(?<!\\)(\$\$?).+?\1|\]\(.*?\)|https?:\S+|</?\w+>"
    yield re.sub(formulas_and_links, " _ ", text, flags=re.S).replace("*", "")


def prose_of_chapter(path: Path) -> Iterator[tuple[str, str]]:
    """(cell, text) for each piece of a notebook."""
    for i, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
        read = prose_of_markdown if cell["cell_type"] == "markdown" else prose_of_code
        for text in read("".join(cell["source"])):
            yield f"cell {i}", text


def assert_kept(pieces: Iterable[tuple[str, str]], n_words: int) -> None:
    """pieces: (where, text); n_words: so many at least, or the words were not found."""
    pieces = list(pieces)
    assert sum(len(text.split()) for _, text in pieces) > n_words
    faults = [f"{where}: {fault}" for where, text in pieces for fault in broken(text)]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_to_the_words_of_the_house(path):
    assert_kept(prose_of_chapter(path), n_words=5_000)


@pytest.mark.parametrize("folder", FOLDERS)
def test_comments_docstrings_and_help_texts_keep_to_them(folder):
    root = ROOT if folder == "tests" else held()
    pieces = [
        (f"{path.relative_to(root)}", text)
        for path in sorted((root / folder).rglob("*.py"))
        for text in prose_of_code(path.read_text("utf-8"))
    ]
    assert_kept(pieces, n_words=100)


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_and_the_card_keep_to_them(name):
    text = (ROOT / name).read_text("utf-8")
    assert_kept(((name, text) for text in prose_of_markdown(text)), n_words=300)


@pytest.mark.parametrize("rule", RULES, ids=[sentence for *_, sentence in RULES])
def test_each_rule_is_broken_by_its_sentence(rule):
    _, remedy, sentence = rule
    lines = "\n".join(sentence.split())  # one word on each line
    comment = "".join(f"# {word}\n" for word in sentence.split())
    for pieces in [
        prose_of_code(f'def f():\n    """{sentence}"""'),
        prose_of_code(f"x = 1\n{comment}"),
        prose_of_code(f"x = 1  # {sentence}"),
        prose_of_code(f"p.add_argument('--x', help=f'{{x}}' '{sentence}')"),
        prose_of_markdown(lines),
        prose_of_markdown(f"```python\n{comment}```"),
    ]:
        faults = [fault for text in pieces for fault in broken(text)]
        assert any(fault.endswith(f": {remedy}") for fault in faults)


@pytest.mark.parametrize(
    "text",
    [
        "Otherwise it is precise, an exercise in raising noise; likewise unsupervised",
        "Copied in place, which takes place at two decimal places; placed, replaced.",
        "Bits per byte: the bytes that a token holds. It reads weights a second time.",
        "Disabled, and the crises are analyses of hours; the curve bends.",
        "Code as `place`, `normalise(x)` or `colour`, and $grey = 2 $, and a place.py.",
        "[A link](towards.md) to https://example.org/licence, a name: TokenisedText",
        "> It was a grey place, said the sample.",
        "```\ngrey places\n```",
    ],
)
def test_good_words_code_and_quotations_break_no_rule(text):
    assert not [fault for piece in prose_of_markdown(text) for fault in broken(piece)]
