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
import importlib.util
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ["pypandoc", "typst", "matplotlib_fontja"]
MARKDOWN = "commonmark_x-yaml_metadata_block-subscript-superscript-raw_html"
NO_TERM = """a beyond built choose cuts first how inside it judge previous same source
    the what which you"""  # words of what is set in bold for another reason
PROSE = r"""
    (?P<skip>(?P<tick>`+).+?(?P=tick)(?!`)|\\\$|\$\$.+?\$\$|\$[^$]+\$
        |^\#.*?$|^\|.*?$|https?://\S+)
    |\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)
    |\*\*(?P<bold>[^*]+)\*\*
    |\bexercise\s(?P<exercise>\d\.\d+)\b|\bchapter\s(?P<chapter>\d)\b
"""  # what a link, a term, or a reference may not stand in, and what is one
REPAIRS = {  # of what pandoc 3.9 makes of a formula
    r"#h\(0em\)": "med",  # \;
    r' upright\(","\) ': '","',  # 1{,}000
    r'("\w+") \\\(': r"\1\\(",  # \operatorname{silu}(z)
    r"\\\| (.+?) \\\|": r"abs(\1)",  # |x|
    r"(cases\(.*? )&( .*? )&( )": r"\1& quad\2& quad\3",
}


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
    for bold in re.findall(r"\*\*([\w' -]{3,})\*\*", prose):
        key, lower = singular(bold.lower()), bold[0].lower() + bold[1:]
        if len(key.split()) > 3 or {*key.split()} & {*NO_TERM.split()}:
            continue
        name = re.search(r"[A-Z]", bold[1:]) or re.search(rf"[a-z,] \**{bold}\b", prose)
        terms.setdefault(key, bold if name else lower)
    return terms


def link(words: str, target: str, number: int) -> str:
    """A link of chapter `number` as the book has it."""
    chapter, _, section = target.partition("#")
    other = re.fullmatch(r"0(\d)_\w+\.ipynb", chapter)
    if chapter and not other:  # a page, or a file that the book does not hold
        return f"[{words}]({target})" if target.startswith("http") else words
    to = int(other[1]) if other else number
    return f"[{words}](#{slug(to, section) if section else f'c{to}'})"


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
            return link(match["text"], match["target"], number)
        if match["exercise"]:
            return f"[{match[0]}](#ex-{match['exercise']})"
        if match["chapter"] and int(match["chapter"]) != number:
            return f"[{match[0]}](#c{match['chapter']})"
        if match["skip"]:
            tex = match[0].replace("\n", " ").replace("{,}", r"\text{,}")
            return tex if match[0].startswith("$") else match[0]
        return match[0] + mark(match["bold"] or match[0], main=bool(match["bold"]))

    longest_first = sorted(map(re.escape, terms), key=len, reverse=True)
    found = "|".join(longest_first).replace(r"\ ", r"\s") or "$^"
    pattern = rf"{PROSE}|\b(?:{found})s?\b"
    return re.sub(pattern, replace, text, flags=re.M | re.S | re.X | re.I)


# ---- from a notebook to Markdown with blocks of Typst in it


class Chapter:
    """One chapter, taken apart: its Markdown, its hints and answers, its figures."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem[:2])
        self.cells = json.loads(path.read_text("utf-8"))["cells"]
        self.parts: dict[str, list[str]] = {"main": [], "hint": [], "answer": []}
        self.figures: dict[str, bytes] = {}
        self.modules: dict[str, None] = {}
        self.title = self.exercise = self.exercise_title = ""  # of the open exercise
        for i, cell in enumerate(self.cells):
            source = "".join(cell["source"]).rstrip()
            if cell["cell_type"] == "markdown":
                self.add_prose(source if i else opening(source))
            elif cell["cell_type"] == "code":
                self.add_code(source, cell, i)
        if self.exercise:
            self.fail(f"exercise {self.exercise} has no answer")

    def fail(self, message: str) -> None:
        fail(f"{self.path.name}: {message}")

    def add_prose(self, source: str) -> None:
        """Lines go to the text, or to the hint or answer that is open around them."""
        inside: list[str] = []
        fences = re.split(r"^```(\w*\n.*?)\n```$", source, flags=re.M | re.S)
        for i, piece in enumerate(fences):
            if i % 2:
                language, _, body = piece.partition("\n")
                block = f"#code({quoted(body)}, lang: {quoted(language or 'text')})"
                self.parts[inside[-1] if inside else "main"].append(typst_block(block))
            else:
                for line in piece.split("\n"):
                    self.add_line(line, inside)
        if inside:
            self.fail(f"<details> of exercise {self.exercise} is not closed")
        self.parts["main"].append("\n")

    def add_line(self, line: str, inside: list[str]) -> None:
        opened = re.fullmatch(r"<details><summary>(\w+)( hint| \d)?</summary>", line)
        if opened:
            inside.append(self.begin(opened[1].lower().replace("another", "hint")))
        elif line == "</details>" and inside:
            if inside.pop() == "answer":
                self.parts["main"].append(typst_block("]"))
                self.exercise = ""
        elif line.startswith("```"):
            self.fail(f"not closed: {line}")
        elif re.search(r"</?[a-z]+[ />]", re.sub("`[^`]*`", "", line)):
            self.fail(f"HTML does not convert: {line}")
        elif not re.match(r"\[(←|All chapters)", line):
            self.parts[inside[-1] if inside else "main"].append(self.heading(line))

    def begin(self, kind: str) -> str:
        """Begin a hint or an answer of the open exercise in its appendix."""
        if kind not in self.parts or not self.exercise:
            self.fail(f"<details> with {kind!r} outside an exercise")
        label = f"{{#{kind}-{self.exercise}}}"
        title = f"\n\n### Exercise {self.exercise}: {self.exercise_title} {label}\n"
        if title not in self.parts[kind]:
            self.parts[kind] += [title, typst_block(f'#back("{self.exercise}")')]
        else:
            self.parts[kind].append(typst_block("#next-hint"))
        return kind

    def heading(self, line: str) -> str:
        """A heading gets its label, and a bold question under the title its style."""
        level, _, title = line.partition(" ")
        if exercise := re.fullmatch(r"### Exercise (\d\.\d+): (.+)", line):
            if self.exercise:
                self.fail(f"exercise {self.exercise} has no answer")
            self.exercise, self.exercise_title = exercise.groups()
            begin = f"{typst_block('#exercise[')}{line} {{#ex-{self.exercise}}}"
            return begin + typst_block(f'#forth("{self.exercise}")')
        if level == "#":
            self.title = re.sub(r"Chapter \d: ", "", title)
            return f"# {self.title} {{#c{self.number}}}"
        is_heading = re.fullmatch("##+", level)
        return f"{line} {{#{slug(self.number, title)}}}" if is_heading else line

    def add_code(self, source: str, cell: dict, number: int) -> None:
        if marker := re.match(r"# solutions/(\w+)\.py\n", source):
            self.modules[marker[1]] = None  # in the order of the first cells
        alt = cell["metadata"].get("alt", "A figure that the code above draws")
        outputs = enumerate(cell["outputs"])
        shown = [self.output(o, f"{number}-{i}.png", alt) for i, o in outputs]
        code = f"#code({quoted(source)}, keep: {str(any(shown)).lower()})"
        self.parts["main"].append(typst_block("\n".join([code, *shown])))

    def output(self, output: dict, name: str, alt: str) -> str:
        data = output.get("data", {})
        if "image/png" in data:
            width = output["metadata"]["image/png"]["width"]  # as on a screen
            return self.figure("".join(data["image/png"]), name, width, alt)
        if "".join(data.get("text/html", "")).startswith("<style>"):
            return ""  # of a page that a browser prints
        text = "".join(output.get("text") or data.get("text/plain", ""))
        text = text or "\n".join(output.get("traceback", []))
        if data and not text:
            self.fail(f"an output of {list(data)} does not convert")
        if re.match(r"Exercise [\d.]+: open", text):
            return ""  # what the check says in the notebook, before one has begun
        return f"#output({quoted(text.rstrip())})"

    def figure(self, png: str, name: str, width: int, alt: str) -> str:
        self.figures[f"{self.number}-{name}"] = base64.b64decode(png)
        return f'#shot("{self.number}-{name}", {width}, {quoted(alt)})'


def opening(source: str) -> str:
    """The first cell, with the book's form of its question and its list of sections."""
    question = typst_block(r'#question("\1")')
    source = re.sub(r"^\*\*([^*]+\?)\*\*$", question, source, flags=re.M)
    return source.partition("**In this chapter:**")[0] + typst_block("#sections()")


# ---- the whole


def pandoc(markdown: str, what: str) -> str:
    """Typst for `markdown`; a warning of pandoc is an error here."""
    import pypandoc

    command = [pypandoc.get_pandoc_path(), "--fail-if-warnings", "--wrap=none"]
    command += [f"--from={MARKDOWN}+autolink_bare_uris", "--to=typst"]
    done = subprocess.run(command, input=markdown, capture_output=True, encoding="utf8")
    if done.returncode:
        fail(f"{what} does not convert: {done.stderr.strip()}")
    made = done.stdout
    for pattern, better in REPAIRS.items():
        made = re.sub(pattern, better, made)
    prose = re.sub(r"^#(code|output|shot|ix)\(.*", "", made, flags=re.M)
    if lost := re.search(r".*(\\\$|\\\\[a-z]{2}|#scale).*", prose):
        fail(f"{what} has a formula that does not convert: {lost[0]}")
    return made


def book_of(chapters: list[Chapter]) -> str:
    """The book as one text of Typst, which imports book.typ."""
    terms = terms_of(["\n".join(chapter.parts["main"]) for chapter in chapters])
    bodies: dict[str, list[str]] = {"main": [], "hint": [], "answer": []}
    modules = []
    for chapter in chapters:
        seen: set[str] = set()
        for kind, parts in chapter.parts.items():
            text = "\n".join(parts)
            if kind != "main":
                text = f"## {chapter.title} {{#{kind}s-{chapter.number}}}\n\n{text}"
            text = linked(text, chapter.number, terms, seen)
            bodies[kind].append(pandoc(text, chapter.path.name))
        for name in chapter.modules:
            source = (ROOT / "solutions" / f"{name}.py").read_text("utf-8").rstrip()
            modules.append(f'#module("{name}", <c{chapter.number}>, {quoted(source)})')
    return "\n\n".join([
        '#import "book.typ": *', "#show: book", "#cover()", "#contents()", "#about()",
        *bodies["main"], "#show: appendices", "= Hints", *bodies["hint"],
        "= Answers", *bodies["answer"], "= The modules", *modules, "#index()",
    ])  # fmt: skip


def pdf(source: str, figures: dict[str, bytes]) -> bytes:
    """The PDF of a text of Typst; a glyph or a label that is missing is an error."""
    import typst

    package = importlib.util.find_spec("matplotlib_fontja").origin
    template = (ROOT / "tools" / "book.typ").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"main.typ": source.encode(), "book.typ": template, **figures}
        for file, content in files.items():
            (folder / file).write_bytes(content)
        try:
            made, warnings = typst.compile_with_warnings(
                folder / "main.typ", font_paths=[Path(package).parent / "fonts"],
                ignore_system_fonts=True, pdf_standards="a-2u",
                # in seconds; without one, the first day of 2026
                timestamp=int(os.environ.get("SOURCE_DATE_EPOCH", 1_767_225_600)),
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
    chapters = [*map(Chapter, sorted((ROOT / "chapters").glob("0?_*.ipynb")))]
    figures = {name: png for c in chapters for name, png in c.figures.items()}
    made = pdf(book_of(chapters), figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_bytes(made)
    part.replace(out)
    print(f"{out}: {len(made):,} bytes")


if __name__ == "__main__":
    main()
