"""The book: a PDF that holds all of every chapter, or no PDF."""

import base64
import ctypes
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from held import held

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import book  # noqa: E402

pypdfium2 = pytest.importorskip("pypdfium2", reason="reads the PDF")

MISSING = [name for name in book.NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
IMAGE = pypdfium2.raw.FPDF_PAGEOBJ_IMAGE

APPENDICES = ["A Hints", "B Answers", "C The modules", "Index"]
MARGIN, HANGING = 75, 6  # points; a hyphen or a space at a line's end may hang out


def build(course: Path, out: Path, *flags: str, **environment: str):
    command = [
        sys.executable,
        *flags,
        str(course / "tools" / "book.py"),
        "--out",
        str(out),
    ]
    environment = os.environ | {"PYTHONUTF8": "1"} | environment
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment
    )


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    """The whole book, built once."""
    out = tmp_path_factory.mktemp("book") / "book.pdf"
    done = build(held(), out)
    assert done.returncode == 0, done.stderr
    return pypdfium2.PdfDocument(out)


@pytest.fixture(scope="module")
def pages(pdf) -> list[str]:
    """The text of every page, without its running head and its number."""
    middle = {"bottom": 70, "top": pdf[0].get_height() - 70}
    return [page.get_textpage().get_text_bounded(**middle) for page in pdf]


@pytest.fixture(scope="module")
def images(pdf) -> list[tuple[int, tuple, int]]:
    """(number of the page, from 1, box in points, width in pixels) of every image."""
    return [
        (number, image.get_bounds(), image.get_px_size()[0])
        for number, page in enumerate(pdf, 1)
        for image in page.get_objects(filter=[IMAGE], max_depth=3)
    ]


@pytest.fixture(scope="module")
def outline(pdf) -> list[tuple[int, str, int]]:
    """(level, title, number of the page, from 0) of every entry."""
    return [(b.level, b.get_title(), b.get_dest().get_index()) for b in pdf.get_toc()]


def notebooks() -> list[list[dict]]:
    paths = sorted((held() / "chapters").glob("[0-9][0-9]_*.ipynb"))
    return [json.loads(path.read_text("utf-8"))["cells"] for path in paths]


def prose(cells: list[dict]) -> str:
    """The Markdown of a chapter, without code and without what goes to an appendix."""
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    text = re.sub(r"```.*?```", "", "\n\n".join(texts), flags=re.S)
    for _ in range(2):  # a second hint stands within the first
        text = re.sub(r"<details>((?!<details>).)*?</details>", "", text, flags=re.S)
    return text


def figures() -> list[tuple[bytes, dict]]:
    return [
        (base64.b64decode("".join(o["data"]["image/png"])), o["metadata"])
        for cells in notebooks() for cell in cells for o in cell.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]  # fmt: skip


def letters(text: str) -> str:
    """Only the letters and digits: no matter how lines are broken and quotes curled."""
    return re.sub(r"[\W_]+", "", text.replace("\ufb01", "fi").replace("\ufb02", "fl"))


def chapter_pages(outline, pages, number: int) -> str:
    starts = [page for level, _, page in outline if level == 0]
    return letters("".join(pages[starts[number] : starts[number + 1]]))


def test_it_has_the_length_of_a_book(pdf):
    assert 400 < len(pdf) < 700


def test_the_outline_has_every_chapter_section_and_exercise(outline):
    wanted = [(0, "About this book")]
    for number, cells in enumerate(notebooks(), 1):
        sections = 0
        for heading in re.findall(r"^(#+) (.+?)\s*$", prose(cells), re.M):
            level, title = len(heading[0]) - 1, re.sub(r"^Chapter \d: ", "", heading[1])
            sections += level == 1
            signs = [f"{number} ", f"{number}.{sections} ", ""]
            wanted.append((level, signs[level] + title.replace("`", "")))
    found = [(level, title.replace("’", "'")) for level, title, _ in outline]
    assert found[: len(wanted)] == wanted
    assert [title for level, title in found[len(wanted) :] if level == 0] == APPENDICES
    modules = {p.stem for p in (held() / "solutions").glob("[a-z]*.py")}
    assert modules == {
        title.split()[1] for _, title in found if re.match(r"C\.\d", title)
    }


def goals_of_links(pdf, page) -> list[int]:
    """The page, from 0, that each link of `page` leads to; -1 if it leads nowhere."""
    goals, start, link = [], ctypes.c_int(0), pypdfium2.raw.FPDF_LINK()
    while pypdfium2.raw.FPDFLink_Enumerate(page, start, link):
        goal = pypdfium2.raw.FPDFLink_GetDest(pdf, link)
        goals.append(pypdfium2.raw.FPDFDest_GetDestPageIndex(pdf, goal))
    return goals


def test_links_lead_to_chapters_sections_and_exercises(pdf, outline):
    goals = [goals_of_links(pdf, page) for page in pdf]
    assert min(min(page, default=0) for page in goals) >= 0
    wanted = [page for level, _, page in outline if level < 2]
    first_chapter = next(page for _, title, page in outline if title[:2] == "1 ")
    assert set(wanted) == {
        page for pages in goals[: first_chapter - 1] for page in pages
    }
    exercises = [page for _, title, page in outline if title.startswith("Exercise ")]
    assert set(exercises) <= {page for pages in goals[first_chapter:] for page in pages}


def test_every_figure_is_in_it(images):
    assert len(images) == len(figures()) > 50


def test_figures_are_sharp(images):
    for _, (left, _, right, _), pixels in images:
        assert pixels / ((right - left) / 72) >= 150


def test_nothing_stands_in_the_margin(pdf, images):
    boxes = [(number, box) for number, box, _ in images]
    for number, page in enumerate(pdf, 1):
        text = page.get_textpage()
        boxes += [(number, text.get_rect(i)) for i in range(text.count_rects())]
    width, height = pdf[0].get_size()
    for number, (left, bottom, right, top) in boxes:
        if number > 1:  # the cover
            assert MARGIN - 2 < left and right < width - MARGIN + HANGING, number
            assert 40 < bottom and top < height - 40, number


@pytest.mark.parametrize("number", range(1, 8))
def test_the_first_and_the_last_sentence_of_a_chapter_are_in_it(number, outline, pages):
    text = chapter_pages(outline, pages, number)
    paragraphs = [
        re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", paragraph)
        for paragraph in re.split(r"\n\s*\n", prose(notebooks()[number - 1]))
        if paragraph.strip() and not re.match(r"#|\[←|\[All|\*\*In this", paragraph)
    ]
    for paragraph in (paragraphs[0], paragraphs[-1]):
        assert letters(paragraph.replace("$", "")) in text, paragraph


def test_every_line_of_code_is_in_it(outline, pages):
    for number, cells in enumerate(notebooks(), 1):
        text = chapter_pages(outline, pages, number)
        for cell in cells:
            if cell["cell_type"] == "code":
                lines = "".join(cell["source"]).splitlines()
                lines = [letters(line) for line in lines if line.isascii()]
                assert not [line for line in lines if line not in text]


def test_exercises_hints_and_answers_name_each_others_pages(pages):
    text = "\n".join(f"<{n}>{page}" for n, page in enumerate(pages, 1))
    exercises = re.findall(
        r"^### Exercise ([\d.]+)", "\n".join(map(prose, notebooks())), re.M
    )
    assert len(exercises) >= 40
    for number in exercises:
        title = rf"Exercise {re.escape(number)}: "
        found = re.search(
            title + r"[^<]*?Hints on page\s(\d+), answer on page\s(\d+)", text
        )
        at = [n for n, page in enumerate(pages, 1) if re.search(title, page)]
        hint, answer = map(int, found.groups())
        assert {hint, answer} < set(at), number
        for page in (hint, answer):
            back = re.search(
                title + r"[^<]*?The exercise is on page\s(\d+)", pages[page - 1]
            )
            assert int(back[1]) == at[0] < hint < answer, number


def test_the_index_leads_to_the_terms(outline, pages):
    start = outline[-1][2]
    index = "\n".join(pages[start:])
    entries = re.findall(r"^([\w' .-]+?)\s+(\d+(?:, \d+)*)\s*$", index, re.M)
    terms = {name: [*map(int, numbers.split(", "))] for name, numbers in entries}
    assert len(terms) > 200
    for name in (
        "perplexity",
        "causal",
        "beam search",
        "byte-pair encoding",
        "train_bpe",
    ):
        for page in terms[name]:
            assert letters(name).lower() in letters(pages[page - 1]).lower(), (
                name,
                page,
            )


# ---- small courses


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "source": text}


def code(source: str, *outputs: dict) -> dict:
    cell = {"cell_type": "code", "source": source, "outputs": [*outputs]}
    return cell | {"metadata": {}}


def printed(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def course(folder: Path, *cells: dict) -> Path:
    """A course of one chapter, with the tool."""
    for name in ("chapters", "solutions", "tools"):
        (folder / name).mkdir(parents=True)
    for name in ("book.py", "book.typ"):
        shutil.copy(held() / "tools" / name, folder / "tools" / name)
    cells = [
        markdown("# Chapter 1: One\n\n**Why?**\n\n**In this chapter:** [A](#A)"),
        *cells,
    ]
    (folder / "chapters" / "01_one.ipynb").write_text(
        json.dumps({"cells": cells}), "utf-8"
    )
    return folder


GOOD = [
    markdown("## A\n\nA **term** and $x^2$, as in [A](#A), or [home](../README.md)."),
    code("print(1)", printed("1 \x1b[31mred\x1b[39m\n")),
    markdown(
        "### Exercise 1.1: add\n\nAdd.\n\n<details><summary>Hint</summary>\n\n"
        "Use `+`.\n</details>\n\n<details><summary>Answer</summary>\n\n"
        "```python\na + b\n```\n</details>"
    ),
]


def test_the_same_course_gives_the_same_bytes(tmp_path):
    made = []
    for seed, date in [("1", "0"), ("2", "0"), ("2", "86400")]:
        here = course(tmp_path / f"{seed}-{date}", *GOOD)
        out = here / "deep" / "book.pdf"
        done = build(here, out, PYTHONHASHSEED=seed, SOURCE_DATE_EPOCH=date)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in out.parent.iterdir()] == ["book.pdf"]
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]


TABLE = {
    "output_type": "display_data",
    "data": {"text/html": "<b>x</b>"},
    "metadata": {},
}


@pytest.mark.parametrize("cell, reason", [
    (markdown(r"So $\mystery{x}$ holds."), "mystery"),
    (markdown("So $a b $5 is."), "a formula that does not convert"),
    (markdown(r"So $\Bigl(x\Bigr)$ holds."), "a formula that does not convert"),
    (markdown("See [there](#No-such-section)."), "no-such-section"),
    (markdown("As chapter 5 says."), "<c5>"),
    (markdown("A <b>bold</b> word."), "HTML does not convert"),
    (markdown("<details><summary>Aside</summary>\n\nx\n</details>"), "'aside' outside"),
    (markdown("### Exercise 1.2: open\n\nDo it."), "exercise 1.2 has no answer"),
    (markdown("```\nnever closed"), "not closed"),
    (code("draw()", printed("\N{ELEPHANT}")), "could not be displayed"),
    (code("show()", TABLE), "an output of ['text/html'] does not convert"),
])  # fmt: skip
def test_what_does_not_convert_is_refused(cell, reason, tmp_path):
    done = build(course(tmp_path / "course", *GOOD, cell), tmp_path / "book.pdf")
    assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert not (tmp_path / "book.pdf").exists()


def test_a_figure_keeps_its_size_and_its_description():
    chapter = object.__new__(book.Chapter)
    chapter.number, chapter.figures = 1, {}
    png = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 1200, 700)
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": "<Figure>"}
    about = {"image/png": {"width": 600, "height": 350}}
    made = chapter.output({"data": data, "metadata": about}, "a", 'a "fox"')
    assert ", 600, " in made and r"a \"fox\"" in made
    assert chapter.figures == {"1-a": png}


def test_long_output_is_wrapped_and_cut_with_a_word(tmp_path):
    long = "word " * 50 + "x" * 200
    many = "".join(f"line {i}\n" for i in range(100))
    cells = [*GOOD, code("a()", printed(long)), code("b()", printed(many))]
    done = build(course(tmp_path / "course", *cells), tmp_path / "book.pdf")
    assert done.returncode == 0, done.stderr
    document = pypdfium2.PdfDocument(tmp_path / "book.pdf")
    pages = [page.get_textpage() for page in document]
    text = "".join(page.get_text_range() for page in pages)
    assert letters(long) in letters(text)
    assert "line 59" in text and "line 60" not in text and "40 more lines" in text
    right = [page.get_rect(i)[2] for page in pages for i in range(page.count_rects())]
    assert max(right) < document[0].get_width() - MARGIN + HANGING


def test_without_the_extra_it_says_what_to_install(tmp_path):
    done = build(held(), tmp_path / "book.pdf", "-S")  # without any package
    assert done.returncode == 1 and 'pip install -e ".[book]"' in done.stderr
    assert "Traceback" not in done.stderr
