"""Keep only what does not change from run to run in the chapters.

Outputs, tags, cell ids and the texts that describe figures ("alt" in a cell's metadata)
stay, and execution counts become 1..n. Time stamps, kernel names and editor state go,
and tracebacks lose the frames in files, with their paths. Adjacent pieces of one output
stream are joined, and only the last state of a progress bar stays. A figure keeps the
256 colors that fit it best, which makes it a third as large. With --check nothing is
written, and the exit status is 1 if a chapter is not tidy. The list of sections at the
end of a chapter's first cell is made from its headings.
"""

import argparse
import re
import sys
import textwrap
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
    },
    "language_info": {  # as JupyterLab writes it, so opening a chapter changes nothing
        "codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py",
        "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3", "version": "3.11.7",
    },
}  # fmt: skip


def in_file(frame: str) -> bool:
    """Whether this part of a traceback is about a file, not a cell of the notebook."""
    return re.sub(r"\x1b\[[\d;]*m", "", frame).startswith("File ")


CONTENTS = re.compile(r"\n\n\*\*In this chapter:\*\*[^\0]*")


def contents(notebook: nbformat.NotebookNode) -> str:
    """A line with a link to each section; JupyterLab puts hyphens for spaces."""
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    without_code = re.sub(r"```.*?```", "", "\n".join(prose), flags=re.S)
    headings = re.findall(r"^## (.+?)\s*$", without_code, re.M)
    links = [f"[{h.replace(' ', '~')}](#{h.replace(' ', '-')})" for h in headings]
    listed = f"**In this chapter:** {'~· '.join(links)}"
    lines = textwrap.wrap(listed, 100, break_long_words=False, break_on_hyphens=False)
    return "\n\n" + "\n".join(lines).replace("~", " ")


def with_few_colors(png: str) -> str:
    """The picture, in base64, with a palette of 256 colors."""
    picture = Image.open(BytesIO(b64decode(png)))
    if picture.mode == "P":  # has a palette already
        return png
    dots, file = picture.info.get("dpi"), BytesIO()
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE  # rare colors, too
    small = picture.convert("RGB").quantize(256, method, dither=dither)
    small.save(file, "png", optimize=True, dpi=dots)
    return b64encode(file.getvalue()).decode("ascii")


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Tidy in place."""
    first = notebook.cells[0]
    if first.cell_type == "markdown" and first.source.startswith("# "):
        first.source = CONTENTS.sub("", first.source) + contents(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)  # the first with cell ids
    count = 0
    for cell in notebook.cells:
        kept = {k: v for k, v in cell.metadata.items() if k in ("alt", "tags") and v}
        cell.metadata = nbformat.from_dict(kept)
        cell.pop("attachments", None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        outputs = []
        for output in cell.outputs:
            last = outputs[-1] if outputs else {}
            if output.output_type == "stream" and output.name == last.get("name"):
                last["text"] += output.text
                continue
            if "execution_count" in output:
                output.execution_count = count
            if "traceback" in output:
                output.traceback = [f for f in output.traceback if not in_file(f)]
            if "metadata" in output:
                size = output.metadata.get("image/png")  # on the screen
                kept = {"image/png": size} if size else {}
                output.metadata = nbformat.from_dict(kept)
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = with_few_colors(output.data["image/png"])
            outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":  # "\r" returns to the line's start
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
        cell.outputs = outputs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    check, status = parser.parse_args().check, 0
    for path in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")):
        before = path.read_text("utf-8")
        notebook = nbformat.reads(before, as_version=4)
        tidy(notebook)
        after = nbformat.writes(notebook) + "\n"
        if before != after and check:
            print(f"chapters/{path.name} is not tidy: run python tools/tidy.py")
            status = 1
        elif before != after:
            path.write_text(after, "utf-8", newline="\n")
            print(f"tidied chapters/{path.name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
