"""What stands at the front: links lead somewhere, versions agree, the picture is true."""

import json
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import draw_tale  # noqa: E402

from solutions.bpe import BPETokenizer  # noqa: E402
from solutions.generation import from_pretrained  # noqa: E402

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "tools/README.md",
    "data/README.md",
)
EACH_PAGE = pytest.mark.parametrize("name", PAGES)
PICTURE = ROOT / ".github" / "tale.svg"


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    without_code = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", without_code, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def dead_links(page: str, folder: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        path, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        target = folder / path
        if not (target.exists() if path else True):
            found.append(link)
        elif anchor and anchor not in anchors(
            target.read_text("utf-8") if path else page
        ):
            found.append(link)
    return found


@EACH_PAGE
def test_every_link_leads_to_a_file_and_a_heading(name):
    assert not dead_links(text_of(name), (ROOT / name).parent)


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "a.md").write_text("# Five minutes: a race\n", "utf-8")
    page = "# Top\n[a](a.md) [b](a.md#five-minutes-a-race) [c](#top) [d](https://x.org)"
    assert dead_links(page, tmp_path) == []
    for dead in ("b.md", "a.md#race", "#bottom"):
        assert dead_links(f"{page} [e]({dead})", tmp_path) == [dead]


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_every_tool_of_a_command_exists(name):
    tools = set(re.findall(r"\btools/\w+\.py\b", text_of(name)))
    assert not [tool for tool in tools if not (ROOT / tool).exists()]


def test_versions_agree():
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    released = re.findall(r"^## \[(\d\S*)\] - (\S+)$", text_of("CHANGELOG.md"), re.M)
    citation = text_of("CITATION.cff")
    assert released[0][0] == version
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {released[0][1]}\n" in citation


def test_the_development_container_installs_what_the_tests_need():
    container = json.loads(text_of(".devcontainer/devcontainer.json"))
    assert "pip install -r tests/requirements.txt" in container["postCreateCommand"]
    torch = re.search(r"^torch==\S+", text_of("requirements.txt"), re.M)[0]
    assert f" {torch} " in container["postCreateCommand"]


@cache
def seen():
    """Pieces of the picture's tale, their probabilities, and one head's attention."""
    folder = ROOT / "data" / "tale-gpt"
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    tale = tokenizer.encode(draw_tale.held_out_tale(draw_tale.BEGINS))
    ids = [tokenizer.special_tokens["<|endoftext|>"], *tale]
    probability, attention = draw_tale.read(from_pretrained(folder).eval(), ids)
    return [tokenizer.decode([i]) for i in tale], probability, attention


def test_the_picture_is_small_described_and_drawn_from_the_model():
    assert PICTURE.stat().st_size < 60_000
    described = re.search(r"!\[(.{80,})\]\(\.github/tale\.svg\)", text_of("README.md"))
    assert described
    colors = re.compile(r'fill="#\w+"|stroke-width="[\d.]+"')  # sums differ by machine
    drawn = draw_tale.picture(*seen())
    assert colors.sub("", drawn) == colors.sub("", PICTURE.read_text("utf-8"))


@pytest.mark.parametrize("pronoun, animal", [(" she", " cat"), (" he", " mouse")])
def test_the_head_looks_where_the_readme_says(pronoun, animal):
    pieces, _, attention = seen()
    row = attention[1 + pieces.index(pronoun)]
    assert row.max() > 0.5 and pieces[row.argmax() - 1] == animal
    assert row.sum().item() == pytest.approx(1)


def test_the_tokens_are_as_dark_as_the_readme_says():
    pieces, probability, _ = seen()
    found = dict(zip(pieces, probability.tolist(), strict=True))
    assert found[" sun"] < 0.1 and found[" tired"] < 0.1
    assert found[" said"] > 0.95
    assert draw_tale.color(1.0) == "#ffffff" != draw_tale.color(0.5)
