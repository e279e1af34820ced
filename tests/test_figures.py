"""Every figure is sharp and described in words, and chapters can be printed."""

import runpy
import struct
from base64 import b64decode

import nbformat
import pytest
from bs4 import BeautifulSoup
from held import held
from nbconvert import HTMLExporter

CHAPTERS = sorted((held() / "chapters").glob("[0-9][0-9]_*.ipynb"))
EACH_CHAPTER = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def figures(cell) -> list:
    outputs = cell.get("outputs", [])
    return [output for output in outputs if "image/png" in output.get("data", {})]


@EACH_CHAPTER
def test_a_figure_has_two_dots_for_each_one_on_the_screen(path):
    found = [o for c in nbformat.read(path, as_version=4).cells for o in figures(c)]
    for output in found:
        png = b64decode(output.data["image/png"])
        width, height = struct.unpack(">II", png[16:24])
        shown = output.metadata["image/png"]
        assert (width // 2, height // 2) == (shown["width"], shown["height"])
        (dots,) = struct.unpack(">I", png[png.index(b"pHYs") + 4 :][:4])  # per meter
        assert 199 < dots * 0.0254 < 201


def test_every_figure_is_described_and_no_two_alike():
    described = []
    for path in CHAPTERS:
        for cell in nbformat.read(path, as_version=4).cells:
            alt, count = cell.metadata.get("alt"), len(figures(cell))
            assert (alt is not None) == (count > 0), cell.source
            assert count <= 1, f"one description for {count} figures: {cell.source}"
            if count:
                described.append(alt)
    for alt in described:
        assert 80 <= len(alt) <= 300 and alt[0].isupper() and alt[-1] == ".", alt
        assert not alt.startswith(("A plot", "A figure", "The figure")), alt
    assert len(set(described)) == len(described) > 80


@pytest.fixture
def page(request):
    """Set-up and two figures of chapter 4 as a web page, by a template of nbconvert."""
    path = next(path for path in CHAPTERS if path.stem == "04_attention")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [code[0], *list(filter(figures, code))[:2]]
    text, _ = HTMLExporter(template_name=request.param).from_notebook_node(notebook)
    return notebook, BeautifulSoup(text, "html.parser")


@pytest.mark.parametrize("page", ["classic"], indirect=True)
def test_a_web_page_tells_what_is_in_its_figures(page):
    notebook, soup = page
    texts = [image["alt"] for image in soup.find_all("img")]
    assert texts == [cell.metadata["alt"] for cell in notebook.cells[1:]]


@pytest.mark.parametrize("page", ["classic", "lab"], indirect=True)
def test_a_web_page_wraps_code_where_it_is_printed(page):
    helpers = runpy.run_path(str(held() / "chapters" / "exercise.py"))
    style = helpers["PRINT_STYLE"]
    assert "@media print" in style and "white-space: pre-wrap" in style
    assert style in [str(found) for found in page[1].find_all("style")]
