"""Set the seven chapters as one book: cover, contents, appendices, index, in a PDF.

    python tools/book.py                 # build/book.pdf
    python tools/book.py --out gpt.pdf

The chapters are read as they stand, with their stored outputs. Pandoc converts their
Markdown, and Typst sets the pages, which tools/book.typ describes. Neither needs TeX or
a browser. Hints and answers go to appendices, and the modules of solutions/ follow. A
formula, link, output, or character that does not convert ends the build with an error.
The same chapters give the same bytes; SOURCE_DATE_EPOCH, if set, is the PDF's date.
Install both with `pip install -e ".[book]"`.
"""

import argparse
import base64
import functools
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ["pypandoc", "typst", "matplotlib_fontja"]
MARKDOWN = (
    "commonmark_x-yaml_metadata_block-subscript-superscript-raw_html"
    "-implicit_figures+autolink_bare_uris"
)
LINE = 88  # columns of code that fit the page
DATE = 1_767_225_600  # 2026-01-01, in seconds, unless SOURCE_DATE_EPOCH is set
LONGEST = 60  # lines of one output
MARKER = re.compile(r"# solutions/(\w+)\.py\n")
DEFINED = re.compile(
    r"^(?:@method_of\((\w+)\)\n(?:@\w+\n)*)?(?:def|class) ([A-Za-z]\w*)", re.M
)
NO_TERM = {
    "a", "beyond", "built", "choose", "cuts", "first token", "how", "inside", "it", "judge",
    "learned first", "previous token", "same token", "sources", "the", "what", "which", "you",
}  # set in bold for another reason, or the first word of what is  # fmt: skip
PROSE = r"""
    (?P<skip>(?P<tick>`+).+?(?P=tick)(?!`)|\\\$|\$\$.+?\$\$|\$[^$]+\$
        |^\#.*?$|^\|.*?$|https?://\S+)
    |\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)
    |\*\*(?P<bold>[^*]+)\*\*
    |\b(?P<kind>chapter|exercise)\s(?P<number>[1-9](?:\.\d+)?)\b
"""  # what a link, a term, or a reference may not stand in, and what is one


def fail(message: str) -> None:
    raise SystemExit(f"book.py: {message}")


def quoted(text: str) -> str:
    """`text` as a string of Typst, without the colors of a terminal."""
    text = re.sub(r"\x1b\[[\d;]*m", "", text).replace("\\", "\\\\").replace('"', '\\"')
    codes = re.sub(r"[\x00-\x1f]", lambda match: f"\\u{{{ord(match[0]):x}}}", text)
    return f'"{codes}"'


def typst_block(source: str) -> str:
    return f"\n\n~~~~~~~~~~~~{{=typst}}\n{source}\n~~~~~~~~~~~~\n\n"


def slug(number: int, title: str) -> str:
    return f"c{number}-" + re.sub(r"\W+", "-", title.lower()).strip("-")


# ---- terms, links, and references in the prose


def singular(term: str) -> str:
    return term[:-1] if term.endswith("s") and not term.endswith("ss") else term


def terms_of(texts: list[str]) -> dict[str, str]:
    """What the index lists: singular in lower case -> the term as it is written.

    A term is set in bold where it is explained, and has at most three words and no
    punctuation.
    """
    texts = [re.sub(r"^(```|~~~).*?^\1~*\n", "", t, flags=re.M | re.S) for t in texts]
    prose = re.sub(r"`[^`]+`|\s+", " ", "\n".join(texts))
    terms: dict[str, str] = {}
    for bold in re.findall(r"\*\*([^*]+)\*\*", prose):
        first, *others = bold.lower().split() or [""]
        key, lower = singular(bold.lower()), bold[0].lower() + bold[1:]
        if not re.fullmatch(r"[\w' -]{3,}", bold) or len(others) > 2:
            continue
        if first in NO_TERM or key in NO_TERM:
            continue
        is_name = re.search(rf"[a-z,] (\*\*)?{bold}\b", prose)
        is_name = is_name or bold[1:] != bold[1:].lower()
        terms.setdefault(key, bold if is_name else lower)
    return terms


def formula(tex: str) -> str:
    """On one line, so that none begins with a list's sign, and 1{,}000 without a gap."""
    return tex.replace("\n", " ").replace("{,}", r"\text{,}")


def linked(text: str, number: int, terms: dict[str, str], seen: set[str]) -> str:
    """Markdown of chapter `number` with marks for the index and links in the book."""

    def mark(words: str, main: bool) -> str:
        key = singular(" ".join(words.lower().split()))
        if key not in terms or (key in seen and not main):
            return ""
        seen.add(key)
        main = ", main: true" if main else ""
        return f"`#ix({quoted(terms[key])}{main});`{{=typst}}"

    def replace(match: re.Match) -> str:
        if match["text"]:
            return link(match["text"], match["target"])
        if match["bold"]:
            return match[0] + mark(match["bold"], main=True)
        if match["number"]:
            exact = "." in match["number"]
            label = f"ex-{match['number']}" if exact else f"c{match['number']}"
            here = label == f"c{number}" or exact != (match["kind"].lower() == "exercise")
            return match[0] if here else f"[{match[0]}](#{label})"
        if match["skip"]:
            return formula(match[0]) if match[0].startswith("$") else match[0]
        return match[0] + mark(match[0], main=False)

    def link(words: str, target: str) -> str:
        chapter, _, section = target.partition("#")
        other = re.fullmatch(r"0(\d)_\w+\.ipynb", chapter)
        if target.startswith("http"):
            return f"[{words}]({target})"
        if chapter and not other:
            return words  # a file of the course, which the book does not hold
        to = int(other[1]) if other else number
        return f"[{words}](#{slug(to, section) if section else f'c{to}'})"

    found = "|".join(r"\s".join(map(re.escape, t.split())) for t in sorted(terms, key=len)[::-1])
    pattern = rf"{PROSE}|\b(?:{found})s?\b" if terms else PROSE
    return re.sub(pattern, replace, text, flags=re.M | re.S | re.X | re.I)


# ---- from a notebook to Markdown with blocks of Typst in it


class Chapter:
    """One chapter, taken apart: its Markdown, its hints and answers, its figures."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem[:2])
        self.cells = json.loads(path.read_text("utf-8"))["cells"]
        self.parts: dict[str, list[str]] = {"main": [], "hint": [], "answer": []}
        self.figures: dict[str, bytes] = {}
        self.modules: list[str] = []
        self.title = ""
        self.exercise = ""  # the number of the one that is open
        for i, cell in enumerate(self.cells):
            source = "".join(cell["source"]).rstrip()
            if cell["cell_type"] == "markdown":
                self.add_prose(source if i else opening(source))
            elif cell["cell_type"] == "code":
                self.add_code(source, cell["outputs"], i)
        if self.exercise:
            self.fail(f"exercise {self.exercise} has no answer")

    def fail(self, message: str) -> None:
        fail(f"{self.path.name}: {message}")

    def add_prose(self, source: str) -> None:
        """Lines go to the text, or to the hint or answer that is open around them."""
        fence, inside = "", []
        for line in source.split("\n"):
            here = self.parts[inside[-1] if inside else "main"]
            opened = re.fullmatch(r"<details><summary>(\w+)( hint| \d)?</summary>", line)
            if line.startswith(("```", "~~~")):
                fence = "" if fence else line[:3]
            if fence or line.startswith("```"):
                here.append(line)
            elif opened:
                inside.append(self.begin(opened[1].lower().replace("another", "hint")))
            elif line == "</details>" and inside:
                if inside.pop() == "answer":
                    self.parts["main"].append(typst_block("]"))
                    self.exercise = ""
            elif re.search(r"</?[a-z]+[ />]", re.sub("`[^`]*`", "", line)):
                self.fail(f"HTML does not convert: {line}")
            elif not re.match(r"\[(←|All chapters)", line):
                here.append(self.heading(line))
        if fence or inside:
            self.fail(f"not closed: {(fence or inside[-1])!r} in {source[:60]!r}")
        self.parts["main"].append("\n")

    def begin(self, kind: str) -> str:
        """Begin a hint or an answer of the open exercise in its appendix."""
        if kind not in self.parts or not self.exercise:
            self.fail(f"<details> with {kind!r} outside an exercise")
        heading = f"{{#{kind}-{self.exercise}}}"
        if heading not in "".join(self.parts[kind][-400:]):
            title = f"\n\n### Exercise {self.exercise}: {self.exercise_title} {heading}\n"
            self.parts[kind] += [title, typst_block(f'#back("{self.exercise}")')]
        elif kind == "hint":
            self.parts[kind].append(typst_block("#next-hint"))
        return kind

    def heading(self, line: str) -> str:
        """A heading gets its label, and a bold question under the title its style."""
        level, _, title = line.partition(" ")
        if exercise := re.fullmatch(r"### Exercise (\d\.\d+): (.+)", line):
            if self.exercise:
                self.fail(f"exercise {self.exercise} has no answer")
            self.exercise, self.exercise_title = exercise.groups()
            answers = typst_block(f'#forth("{self.exercise}")')
            label = f"{{#ex-{self.exercise}}}"
            return typst_block("#exercise[") + f"{line} {label}" + answers
        if re.fullmatch("##+", level):
            return f"{line} {{#{slug(self.number, title)}}}"
        if level == "#":
            self.title = re.sub(r"Chapter \d: ", "", title)
            return f"# {self.title} {{#c{self.number}}}"
        return line

    def add_code(self, source: str, outputs: list[dict], cell: int) -> None:
        marker = MARKER.match(source)
        marks = ""
        if marker:
            if marker[1] not in self.modules:
                self.modules.append(marker[1])
            for owner, name in DEFINED.findall(source):
                name = f"{owner}.{name}" if owner else name
                marks += f"#ix({quoted(name)}, main: true, code: true)"
        shown = [self.output(o, f"{cell}-{i}") for i, o in enumerate(outputs)]
        options = f"library: {str(bool(marker)).lower()}, keep: {str(any(shown)).lower()}"
        blocks = f"{marks}#code({quoted(source)}, {options})\n" + "\n".join(shown)
        self.parts["main"].append(typst_block(blocks))

    def output(self, output: dict, name: str) -> str:
        data = output.get("data", {})
        if "image/png" in data:
            return self.figure(data, output.get("metadata", {}), name)
        if output["output_type"] == "error":
            text = "\n".join(output["traceback"])
        elif "text" in output or "text/plain" in data:
            text = "".join(output.get("text") or data["text/plain"])
        else:
            self.fail(f"an output of {list(data)} does not convert")
        if re.match(r"Exercise [\d.]+: open", text):
            return ""  # what the check says in the notebook, before one has begun
        lines = [part for line in text.rstrip().split("\n") for part in wrapped(line)]
        if len(lines) > LONGEST:
            left = len(lines) - LONGEST
            lines = lines[:LONGEST] + [f"[... {left} more lines in the notebook]"]
        return f"#output({quoted(chr(10).join(lines))})"

    def figure(self, data: dict, metadata: dict, name: str) -> str:
        png = base64.b64decode("".join(data["image/png"]))
        name = f"c{self.number}-{name}.png"
        self.figures[name] = png
        about = metadata.get("image/png", {})
        width = about.get("width") or struct.unpack(">I", png[16:20])[0]
        alt = about.get("alt") or "A figure that the code above draws"
        return f"#shot({quoted(name)}, {width}, {quoted(alt)})"


def opening(source: str) -> str:
    """The first cell, with its question and its list of sections as the book has them."""
    question = r"^\*\*([^*]+\?)\*\*$"
    source = re.sub(
        question, lambda m: typst_block(f"#question({quoted(m[1])})"), source, flags=re.M
    )
    return source.partition("**In this chapter:**")[0] + typst_block("#sections()")


def wrapped(line: str) -> list[str]:
    """A line of output in pieces that fit the page; later ones begin with an arrow."""
    pieces, line = [], line.expandtabs(4)
    while len(line) > LINE:
        cut = line.rfind(" ", LINE // 2, LINE) + 1 or LINE
        pieces.append(line[:cut].rstrip())
        line = "↪ " + line[cut:]
    return [*pieces, line]


# ---- the whole


def pandoc(markdown: str, what: str) -> str:
    """Typst for `markdown`; a warning of pandoc is an error here."""
    import pypandoc

    command = [pypandoc.get_pandoc_path(), "--fail-if-warnings", "--wrap=none"]
    command += ["--from", MARKDOWN, "--to", "typst"]
    result = subprocess.run(command, input=markdown, capture_output=True, encoding="utf-8")
    if result.returncode:
        fail(f"{what} does not convert: {result.stderr.strip()}")
    made = result.stdout.replace("#h(0em)", "med")  # what becomes of \\;
    made = re.sub(r"(cases\(.*? )&( .*? )&( )", r"\1& quad\2& quad\3", made)
    prose = re.sub(r"^#(code|output|shot|ix)\(.*", "", made, flags=re.M)
    if lost := re.search(r".*(\\\$|\\\\[a-z]{2}).*", prose):
        fail(f"{what} has a formula that does not convert: {lost[0]}")
    return made


def module_pages(chapters: list[Chapter]) -> str:
    pages = ["= The modules <modules>"]
    for chapter in chapters:
        for name in chapter.modules:
            source = (ROOT / "solutions" / f"{name}.py").read_text("utf-8").rstrip()
            where = f"Written in @c{chapter.number}, as " + f"`solutions/{name}.py`."
            pages.append(f"== {name} <module-{name}>\n{where}\n#listing({quoted(source)})")
    return "\n\n".join(pages)


def book_of(chapters: list[Chapter]) -> str:
    """The book as one text of Typst, which imports book.typ."""
    prose = ["\n".join(c.parts["main"]) for c in chapters]
    terms = terms_of(prose)
    bodies = {"main": [], "hint": [], "answer": []}
    for chapter in chapters:
        seen: set[str] = set()
        for kind, parts in chapter.parts.items():
            own = terms if kind == "main" else {}
            text = linked("\n".join(parts), chapter.number, own, seen)
            if kind != "main":
                text = f"## {chapter.title} {{#{kind}s-{chapter.number}}}\n\n{text}"
            bodies[kind].append(pandoc(text, chapter.path.name))
    return "\n\n".join([
        '#import "book.typ": *', "#show: book", "#cover()", "#contents()", "#about()",
        *bodies["main"], "#show: appendices",
        "= Hints <hints>", *bodies["hint"], "= Answers <answers>", *bodies["answer"],
        module_pages(chapters), "#index()",
    ])  # fmt: skip


def pdf(source: str, figures: dict[str, bytes], keep: Path | None = None) -> bytes:
    """The PDF of a text of Typst; a glyph or a label that is missing is an error."""
    import typst

    fonts = importlib.util.find_spec("matplotlib_fontja").submodule_search_locations[0]
    with tempfile.TemporaryDirectory() as folder:
        template = (ROOT / "tools" / "book.typ").read_bytes()
        files = {"main.typ": source.encode(), "book.typ": template, **figures}
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            made, warnings = typst.compile_with_warnings(
                Path(folder) / "main.typ", font_paths=[Path(fonts) / "fonts"],
                ignore_system_fonts=True, pdf_standards="a-2u",
                timestamp=int(os.environ.get("SOURCE_DATE_EPOCH", DATE)),
            )  # fmt: skip
        except typst.TypstError as error:
            fail(f"{error.message}\n{error.diagnostic}")
    if warnings:
        fail("\n".join(warning.message for warning in warnings))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book.pdf")
    out = parser.parse_args().out
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        fail(f'{", ".join(missing)} not installed; run: pip install -e ".[book]"')
    chapters = [Chapter(p) for p in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))]
    figures = {name: png for c in chapters for name, png in c.figures.items()}
    made = pdf(book_of(chapters), figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_bytes(made)
    part.replace(out)
    print(f"{out}: {len(made):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
