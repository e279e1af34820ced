"""tools/prepare.py: the same token files, however the work is cut, shared or broken off."""

import json
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from solutions.bpe import BPETokenizer
from solutions.text_data import clean_text, deduplicate, read_tokens, split_documents

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "prepare.py"
END = "<|endoftext|>"
RESULT = ("train.npy", "val.npy", "tokenizer.json")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """150 tales, among them 30 edited copies: some near duplicates, some too changed."""
    draw = random.Random(0)
    text = (ROOT / "data" / "long_tales.txt").read_text("utf-8")
    tales = split_documents(text)[:120]
    for tale in draw.sample(tales, 30):
        words = tale.split(" ")
        for i in draw.sample(range(len(words)), draw.choice([0, 2, 5, 40])):
            words[i] = draw.choice(words)
        tales.insert(draw.randrange(len(tales)), " ".join(words))
    return tales


@pytest.fixture(scope="module")
def corpus(documents, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "tales.txt"
    path.write_bytes("\r\n \r\n".join(documents).encode("utf-8"))
    return path


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Runs the tool in this process: (exit status, stdout, last line of stderr)."""

    def run(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(TOOL), run_name="__main__")
        out, err = capsys.readouterr()
        return exit_.value.code, out, (err.splitlines() or [""])[-1]

    return run


ONE = ["--workers", 1, "--vocab-size", 400, "--val-fraction", 0.2, "--shard-mb", 0.02]


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULT]


@pytest.fixture
def reference(prepare, corpus, tmp_path) -> list[bytes]:
    assert prepare(corpus, "--out", tmp_path / "reference", *ONE)[0] == 0
    return contents(tmp_path / "reference")


def test_the_files_hold_the_deduplicated_documents(prepare, corpus, documents, tmp_path):
    assert prepare(corpus, "--out", tmp_path / "a", *ONE)[0] == 0
    tokenizer = BPETokenizer.load(tmp_path / "a" / "tokenizer.json")
    kept = deduplicate(documents)
    assert 120 <= len(kept) < len(documents)
    sides = {}
    for side in ("train", "val"):
        text = tokenizer.decode(read_tokens(tmp_path / "a" / f"{side}.npy").tolist())
        sides[side] = text.split("<|endoftext|>")[:-1]
        assert sides[side] == [d for d in kept if d in set(sides[side])]  # their order
    assert sorted(sides["train"] + sides["val"]) == sorted(kept)
    assert 0.1 < len(sides["val"]) / len(kept) < 0.3
    assert not (tmp_path / "a" / "work").exists()
    told = json.loads((tmp_path / "a" / "prepare.json").read_text("utf-8"))
    assert told["duplicates"] == len(documents) - len(kept)


@pytest.mark.parametrize("shard_mb", [0.0007, 0.1, 9])
def test_the_cut_into_shards_changes_nothing(
    prepare, corpus, reference, tmp_path, shard_mb
):
    if shard_mb < 0.001:  # shards shorter than a document: many are empty
        short = tmp_path / "short.txt"
        short.write_bytes(corpus.read_bytes()[:30_000])
        corpus = short
        assert prepare(corpus, "--out", tmp_path / "r", *ONE)[0] == 0
        reference = contents(tmp_path / "r")
    assert prepare(corpus, "--out", tmp_path / "b", *ONE, "--shard-mb", shard_mb)[0] == 0
    assert contents(tmp_path / "b") == reference


def test_json_lines_give_the_same_as_text(
    prepare, documents, corpus, reference, tmp_path
):
    lines = [json.dumps({"text": d}) + "\n" for d in documents]
    path = tmp_path / "tales.jsonl"
    path.write_text("".join(lines), "utf-8")
    assert prepare(path, "--out", tmp_path / "c", *ONE)[0] == 0
    assert contents(tmp_path / "c") == reference


def told(folder: Path) -> list[str]:
    """The documents of both sides, sorted."""
    tokenizer, found = BPETokenizer.load(folder / "tokenizer.json"), []
    for side in ("train", "val"):
        ids = read_tokens(folder / f"{side}.npy").tolist()
        end = tokenizer.special_tokens[END]
        while ids:
            found.append(tokenizer.decode(ids[: ids.index(end)]))
            ids = ids[ids.index(end) + 1 :]
    return sorted(found)


@pytest.mark.parametrize("shard_mb", [0.0003, 0.002, 9])
@pytest.mark.parametrize("between", [f"\n{END}\n", END, f"\r\n\r\n{END}\r\n\r\n"])
def test_end_of_text_marks_separate_stories_of_many_paragraphs(
    prepare, documents, tmp_path, between, shard_mb
):
    """The layout of TinyStories, and marks within a line; wherever the shards begin."""
    stories = [d.replace(". ", ".\n\n", 2) for d in deduplicate(documents)[:25]]
    path = tmp_path / "stories.txt"
    path.write_bytes((between.join(stories) + between).encode("utf-8"))
    out = tmp_path / "p"
    assert prepare(path, "--out", out, *ONE, "--shard-mb", shard_mb)[0] == 0
    assert told(out) == sorted(stories)
    assert told(out) == sorted(split_documents(clean_text(path.read_text("utf-8"))))


def test_a_mark_across_two_blocks_is_seen(tmp_path):
    has_marks = runpy.run_path(str(TOOL))["has_marks"]
    for place in (0, (1 << 24) - 13, (1 << 24) - 7, (1 << 24) - 1, 1 << 24):
        (tmp_path / "a.txt").write_bytes(b"x" * place + END.encode())
        assert has_marks(tmp_path / "a.txt")
        (tmp_path / "a.txt").write_bytes(b"x" * place + END.encode()[:-1])
        assert not has_marks(tmp_path / "a.txt")


def test_a_mark_in_a_json_line_ends_a_document(prepare, documents, tmp_path):
    stories, path = deduplicate(documents)[:24], tmp_path / "s.jsonl"
    texts = [a + END + b + END for a, b in zip(stories[::2], stories[1::2])]
    path.write_text("\n".join(json.dumps({"text": t}) for t in texts), "utf-8")
    assert prepare(path, "--out", tmp_path / "p", *ONE)[0] == 0
    assert told(tmp_path / "p") == sorted(stories)


def test_byte_order_marks_are_left_out(prepare, documents, corpus, reference, tmp_path):
    """As Windows programs write them, also where two such files were put together."""
    lines = [json.dumps({"text": d}).encode() + b"\r\n" for d in documents]
    mark, half = b"\xef\xbb\xbf", len(lines) // 2
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"".join([mark, *lines[:half], mark, *lines[half:], mark]))
    assert prepare(path, "--out", tmp_path / "j", *ONE)[0] == 0
    assert contents(tmp_path / "j") == reference
    path = tmp_path / "c.txt"
    path.write_bytes(mark + corpus.read_bytes())
    assert prepare(path, "--out", tmp_path / "t", *ONE)[0] == 0
    assert contents(tmp_path / "t") == reference


def test_a_killed_run_goes_on_with_other_workers_and_redoes_nothing(
    corpus, reference, tmp_path
):
    out = tmp_path / "killed"
    command = [sys.executable, str(TOOL), str(corpus), "--out", str(out), *map(str, ONE)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("work/keys-*.npy"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    finished = {p: p.stat().st_mtime_ns for p in out.glob("work/keys-0*.npy")}
    assert finished, "the run ended before it could be killed"
    first = min(finished)
    seen = np.load(first)
    np.save(first, seen)  # a mark: a run that redid this shard would change it again
    marked = first.stat().st_mtime_ns
    script = f"""
import runpy, shutil, sys
shutil.rmtree = lambda path: None  # keep the intermediate files for this test to see
sys.argv = {command[1:]!r}
if __name__ == "__main__":
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert contents(out) == reference
    assert first.stat().st_mtime_ns == marked


def test_two_workers_give_what_one_gives(corpus, reference, tmp_path):
    command = [sys.executable, str(TOOL), str(corpus), "--out", str(tmp_path / "two")]
    subprocess.run([*command, *map(str, ONE), "--workers", "2"], check=True)
    assert contents(tmp_path / "two") == reference


@pytest.mark.parametrize(
    "content, name, extra, message",
    [
        (b"", "a.txt", [], "is empty"),
        (b"good\n\nb\xffd\n", "a.txt", [], "a.txt is not UTF-8 at byte 7"),
        (b'{"text": "x"}\n{"no": 1}\n', "a.jsonl", [], 'no JSON with a "text" at byte 14'),
        (b"go<|endoftext|>\n\nb\xffd\n", "a.txt", [], "a.txt is not UTF-8 at byte 18"),
        (b"x\n\ny\n", "a.txt", ["--val-fraction", 2], "--val-fraction 2.0"),
        (b"x\n\ny\n", "a.txt", ["--shard-mb", 0], "--shard-mb 0.0"),
        (b"x\n", "a.txt", [], "--val-fraction"),
    ],
)
def test_bad_input_is_named(prepare, tmp_path, content, name, extra, message):
    (tmp_path / name).write_bytes(content)
    status, _, said = prepare(tmp_path / name, "--out", tmp_path / "d", *ONE, *extra)
    assert status == 2 and message in said
    assert not (tmp_path / "d" / "prepare.json").exists()


def test_other_settings_do_not_mix_with_a_begun_run(prepare, tmp_path):
    (tmp_path / "a.txt").write_text("x\n", "utf-8")
    assert prepare(tmp_path / "a.txt", "--out", tmp_path / "e", *ONE)[0] == 2
    arguments = [*ONE, "--seed", 7]
    status, _, said = prepare(tmp_path / "a.txt", "--out", tmp_path / "e", *arguments)
    assert status == 2 and "other settings" in said
