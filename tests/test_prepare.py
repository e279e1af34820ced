"""tools/prepare.py: the same files, however the work is cut, shared or broken off."""

import io
import json
import os
import random
import re
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest
from test_fetch_corpus import (  # noqa: F401  serve is a fixture
    HUB_ID,
    STORIES,
    little_hub,
    serve,
)

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "prepare.py"
sys.path.insert(0, str(ROOT / "tools"))
import corpora  # noqa: E402
import prepare as tool  # noqa: E402

from solutions.bpe import BPETokenizer  # noqa: E402
from solutions.text_data import (  # noqa: E402
    clean_text,
    deduplicate,
    jaccard,
    read_tokens,
    shingles,
    split_documents,
)

END = "<|endoftext|>"
RESULT = ("train.npy", "val.npy", "tokenizer.json")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """150 tales, 30 of them edited copies: some near duplicates, some too changed."""
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
def prepare(capsys):
    """Runs the tool in this process: exit status, stdout, stderr but for progress."""

    def run(*args) -> tuple[int, str, str]:
        status = tool.main([str(arg) for arg in args])
        out, errors = capsys.readouterr()
        return status, out, re.sub(r"[^\n]*\r", "", errors)

    return run


ONE = ["--workers", 1, "--vocab-size", 400, "--val-fraction", 0.2, "--shard-mb", 0.15]


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULT]


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory) -> list[bytes]:
    out = tmp_path_factory.mktemp("reference") / "r"
    assert tool.main([str(corpus), "--out", str(out), *map(str, ONE)]) == 0
    return contents(out)


def clusters(documents: list[str], threshold: float) -> list[set[str]]:
    """Groups of documents of which each is alike to another one, by comparing all."""
    sets, group = [shingles(d) for d in documents], list(range(len(documents)))
    for i, j in combinations(range(len(documents)), 2):
        if group[i] != group[j] and jaccard(sets[i], sets[j]) >= threshold:
            old, new = group[j], group[i]
            group = [new if g == old else g for g in group]
    return [{d for d, g in zip(documents, group) if g == i} for i in set(group)]


def sides(folder: Path) -> dict[str, list[str]]:
    """The documents of each side, in the order of the tokens; END is after each."""
    tokenizer, found = BPETokenizer.load(folder / "tokenizer.json"), {}
    for side in ("train", "val"):
        text = tokenizer.decode(read_tokens(folder / f"{side}.npy").tolist())
        assert text.endswith(END)
        found[side] = text.split(END)[:-1]
    return found


def test_one_document_of_each_cluster_is_kept_and_goes_to_one_side(
    prepare, corpus, documents, tmp_path
):
    status, said, _ = prepare(corpus, "--out", tmp_path / "a", *ONE)
    found = sides(tmp_path / "a")
    kept = found["train"] + found["val"]
    groups = clusters(documents, 0.8)
    assert status == 0 and 120 <= len(groups) < len(documents) - 10
    assert all(len(group & set(kept)) == 1 for group in groups)
    assert len(kept) == len(groups) and f"{len(documents):,} documents" in said
    for texts in found.values():
        assert texts == sorted(texts, key=documents.index)  # their order
    assert 0.1 < len(found["val"]) / len(kept) < 0.3
    assert not (tmp_path / "a" / "work").exists()
    told = json.loads((tmp_path / "a" / "prepare.json").read_text("utf-8"))
    assert told["duplicates"] == len(documents) - len(kept)


@pytest.mark.parametrize("shard_mb", [0.04, 9])
def test_the_cut_into_parts_changes_nothing(
    prepare, corpus, reference, tmp_path, shard_mb
):
    assert (
        prepare(corpus, "--out", tmp_path / "b", *ONE, "--shard-mb", shard_mb)[0] == 0
    )
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
    return sorted(sum(sides(folder).values(), []))


def read_in_parts(path: Path, part_bytes: int) -> list[str]:
    parts = corpora.parts_of([str(path)], part_bytes)
    read = (corpora.read(parts, None, i, len(parts)) for i in range(len(parts)))
    return [d.text for documents in read for d in documents if d.text]


@pytest.mark.parametrize("between", [f"\n{END}\n", END, f"\r\n\r\n{END}\r\n\r\n"])
def test_end_of_text_marks_separate_stories_of_many_paragraphs(
    prepare, documents, tmp_path, between
):
    """The layout of TinyStories, and marks within a line; wherever the parts begin."""
    stories = [d.replace(". ", ".\n\n", 2) for d in deduplicate(documents[:25])]
    path = tmp_path / "stories.txt"
    path.write_bytes((between.join(stories) + between).encode("utf-8"))
    assert stories == split_documents(clean_text(path.read_text("utf-8")))
    for part_bytes in (97, 300, 2000, 10**9):
        assert read_in_parts(path, part_bytes) == stories
    if between == END:
        out = tmp_path / "p"
        assert prepare(path, "--out", out, *ONE, "--shard-mb", 0.01)[0] == 0
        assert told(out) == sorted(stories)


def test_parts_of_any_size_hold_every_document_once(documents, tmp_path):
    for name, lines in (("a.txt", documents), ("a.jsonl", map(json.dumps, (
            {"text": d} for d in documents)))):  # fmt: skip
        path = tmp_path / name
        path.write_bytes("\r\n \r\n".join(lines).encode("utf-8"))
        for part_bytes in (3000, 10**9):
            assert read_in_parts(path, part_bytes) == documents
        short = documents[:12]
        path.write_bytes(path.read_bytes()[: len("".join(short).encode()) // 2])
        if name == "a.txt":  # parts shorter than a document: many are empty
            whole = read_in_parts(path, 10**9)
            assert all(read_in_parts(path, n) == whole for n in (61, 700))


def test_a_mark_across_two_blocks_is_seen(tmp_path):
    for position in (0, (1 << 24) - 13, (1 << 24) - 7, (1 << 24) - 1, 1 << 24):
        (tmp_path / "a.txt").write_bytes(b"x" * position + END.encode())
        assert corpora.has_marks(tmp_path / "a.txt")
        (tmp_path / "a.txt").write_bytes(b"x" * position + END.encode()[:-1])
        assert not corpora.has_marks(tmp_path / "a.txt")


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


def command(*args) -> list[str]:
    return [sys.executable, str(TOOL), *map(str, args)]


def test_a_killed_run_goes_on_and_redoes_nothing(corpus, reference, tmp_path):
    """Two workers, killed with the run, then one."""
    out, done = tmp_path / "killed", "work/logs/clean/completions/*"
    arguments = [corpus, "--out", out, *ONE, "--shard-mb", 0.03]
    run = command(*arguments, "--workers", 2)
    process = subprocess.Popen(run, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob(done))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    finished = {p.name for p in out.glob(done)}
    assert 3 <= len(finished) < 10, "the run ended before it could be killed"
    marked = [out / "work" / "clean" / f"{name}.starts" for name in finished]
    for path in marked:
        os.utime(path, (0, 0))  # a run that redid this part would change it
    record, seen = tool.finish, []
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(tool, "finish", lambda *args: seen.extend(
        path.stat().st_mtime for path in marked) or record(*args))  # fmt: skip
    assert tool.main([*map(str, arguments)]) == 0
    monkeypatch.undo()
    assert contents(out) == reference and seen == [0] * len(finished)


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_give_what_one_gives(
    prepare, corpus, reference, tmp_path, workers
):
    arguments = [corpus, "--out", tmp_path / "w", *ONE, "--shard-mb", 0.05]
    status, said, errors = prepare(*arguments, "--workers", workers)
    assert contents(tmp_path / "w") == reference
    assert (status, errors) == (0, "") and said.count("\n") == 1


def test_duplicates_are_found_across_files_of_all_kinds(prepare, documents, tmp_path):
    import pyarrow
    import pyarrow.parquet

    stories = deduplicate(documents)[:60]
    folder = tmp_path / "files"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("\n\n".join(stories[:30]), "utf-8")
    lines = [json.dumps({"text": story + " So."}) for story in stories[20:45]]
    (folder / "more" / "b.jsonl").write_text("\n".join(lines), "utf-8")
    table = pyarrow.table({"url": ["u"] * 20, "text": stories[40:]})
    pyarrow.parquet.write_table(table, folder / "c.parquet")
    assert prepare(folder, "--out", tmp_path / "d", *ONE)[0] == 0
    found = [text.removesuffix(" So.") for text in told(tmp_path / "d")]
    assert sorted(found) == sorted(stories)


def test_a_data_set_of_the_hub_is_read_at_one_commit(serve, tmp_path):
    commit, out = "0123456789" * 4, tmp_path / "h"
    address, seen = serve(little_hub(commit))
    run = command(f"hub:{HUB_ID}@main", "--out", out, *ONE)
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
    environment |= {"no_proxy": "127.0.0.1"}
    done = subprocess.run(run, env=os.environ | environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"arning" not in done.stderr
    assert told(out) == sorted(STORIES)
    assert not any("resolve/main" in path for path, _ in seen)
    about = json.loads((out / "prepare.json").read_text("utf-8"))
    assert about["corpus"] == [f"hub:{HUB_ID}@{commit}"]


# ---- web pages


PAGE = """<html><head><title>{0}</title><script>var menu = "{0}";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/all">All tales</a></li></ul></nav>
<article><h1>Tale {0}</h1><p>{1}</p></article>
<footer><p>Copyright. <a href="/c">Cookies</a></p></footer></body></html>"""


def write_warc(path: Path, pages: dict[str, bytes], kind: str = "text/html") -> None:
    """A small crawl: a response for each page, and a robots.txt at the end."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with open(path, "wb") as file:
        writer = WARCWriter(file, gzip=path.suffix == ".gz")
        pages = pages | {"http://a.example/robots.txt": b"User-agent: *"}
        for url, body in pages.items():
            mime = kind if url.endswith("l") else "text/plain"
            headers = [("Content-Type", mime), ("Content-Length", str(len(body)))]
            headers = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
            about = {"WARC-Identified-Payload-Type": mime}
            record = writer.create_warc_record(
                url, "response", io.BytesIO(body), http_headers=headers,
                warc_headers_dict=about,
            )  # fmt: skip
            writer.write_record(record)


def test_the_text_of_web_pages_is_extracted(prepare, documents, tmp_path):
    pytest.importorskip("magic", reason="needs libmagic", exc_type=ImportError)
    stories = deduplicate(documents)[:24]
    urls = [f"http://a.example/{i}.html" for i in range(24)]
    bodies = [PAGE.format(i, s).encode() for i, s in enumerate(stories)]
    bodies[3] = bodies[3].decode().replace("</p>", " Caf\xe9.</p>", 1).encode("latin-1")
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for part, name in ((slice(12), "a.warc.gz"), (slice(10, 24), "b.warc")):
        write_warc(crawl / name, dict(zip(urls[part], bodies[part])))
    (crawl / "c.txt").write_text("\n\n".join(stories[:2]), "utf-8")
    assert prepare(crawl, "--out", tmp_path / "out", *ONE)[0] == 0
    status, _, said = prepare(crawl, "--out", crawl / "out", *ONE)
    assert status == 2 and "lies in the corpus" in said
    found = told(tmp_path / "out")
    assert len(found) == 24
    for story in stories:
        start = " ".join(story.split())[:200]
        (text,) = [text for text in found if start in " ".join(text.split())]
        assert "Cookies" not in text and "menu" not in text and "<" not in text
    assert any("Caf\xe9." in text for text in found)


def test_filters_drop_bad_pages(prepare, documents, tmp_path):
    stories = deduplicate(documents)[:24]
    bad = ["Buy now! " * 80, "word " * 20, stories[1] + " { lorem ipsum"]
    path = tmp_path / "w.jsonl"
    lines = [json.dumps({"text": text}) for text in [*stories, *bad]]
    path.write_text("\n".join(lines), "utf-8")
    for names, gone in ((["gopher"], bad[:2]), (["gopher", "c4"], bad)):
        flags = [flag for name in names for flag in ("--filter", name)]
        out = tmp_path / "-".join(names)
        assert prepare(path, "--out", out, *ONE, "--threshold", 1, *flags)[0] == 0
        assert not set(told(out)) & set(gone)
        assert len(told(out)) >= 18
    status, _, said = prepare(path, "--out", tmp_path / "l", *ONE, "--language", "en")
    assert status == 2 and "LanguageFilter" in said and len(said.splitlines()) == 1


# ---- what cannot be done


@pytest.mark.parametrize(
    "content, name, extra, message",
    [
        (b"", "a.txt", [], "a.txt is empty"),
        (b"good\n\nb\xffd\n", "a.txt", [], "a.txt is not UTF-8 at byte 7"),
        (
            b'{"text": "x"}\n{"no": 1}\n',
            "a.jsonl",
            [],
            'no JSON with a "text" at byte 14',
        ),
        (b"go<|endoftext|>\n\nb\xffd\n", "a.txt", [], "a.txt is not UTF-8 at byte 18"),
        (b"PAR1 and no more", "a.parquet", [], "a.parquet cannot be read: "),
        (b"not zipped", "a.warc.gz", [], "a.warc.gz cannot be read: "),
        (b"x\n\ny\n", "a.doc", [], "a.doc is none of .txt, .jsonl"),
        (b"x\n\ny\n", "a.txt", ["--val-fraction", 2], "--val-fraction 2.0"),
        (b"x\n\ny\n", "a.txt", ["--shard-mb", 0], "--shard-mb 0.0"),
        (b"x\n", "a.txt", [], "--val-fraction"),
        (b"x\n", "a.txt", ["--executor", "slurm"], "--partition None must be given"),
    ],
)
def test_bad_input_is_named(prepare, tmp_path, content, name, extra, message):
    (tmp_path / name).write_bytes(content)
    status, _, said = prepare(tmp_path / name, "--out", tmp_path / "d", *ONE, *extra)
    assert status == 2 and message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "d" / "prepare.json").exists()


def test_a_parquet_file_without_texts_is_refused(prepare, tmp_path):
    import pyarrow
    import pyarrow.parquet

    for columns, message in [({"text": ["a", None]}, 'row 1: "text" is None'),
                             ({"words": ["a"]}, 'row 0: "text" is None')]:  # fmt: skip
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        out = tmp_path / next(iter(columns))
        status, _, said = prepare(tmp_path / "a.parquet", "--out", out, *ONE)
        assert status == 2 and f"a.parquet cannot be read: {message}" in said


def test_other_settings_do_not_mix_with_a_begun_run(prepare, tmp_path):
    (tmp_path / "a.txt").write_text("x\n", "utf-8")
    assert prepare(tmp_path / "a.txt", "--out", tmp_path / "e", *ONE)[0] == 2
    arguments = [*ONE, "--seed", 7]
    status, _, said = prepare(tmp_path / "a.txt", "--out", tmp_path / "e", *arguments)
    assert status == 2 and "other settings" in said


# ---- elsewhere


def test_without_ray_it_says_how_to_get_it(prepare, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, said = prepare(
        corpus, "--out", tmp_path / "r", "--executor", "ray", *ONE
    )
    assert status == 2 and said == "prepare: --executor ray needs `pip install ray`\n"


@pytest.mark.skipif(os.name == "nt", reason="the sbatch of the test is a shell script")
def test_slurm_gets_a_chain_of_job_arrays(prepare, corpus, tmp_path, monkeypatch):
    """A sbatch of the test keeps what it is given and numbers the jobs."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!/bin/sh\nn=$(ls {tmp_path}/bin | wc -l)\n"
        f'for last; do :; done\n(echo "$@"; cat "$last") > {tmp_path}/bin/job-$n\n'
        "echo Submitted batch job $n\n",
        "utf-8",
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    flags = ["--executor", "slurm", "--partition", "cpu", *ONE, "--workers", 7]
    status, said, _ = prepare(corpus, "--out", tmp_path / "o", *flags)
    assert status == 0 and "submitted" in said
    jobs = sorted(sbatch.parent.glob("job-*"), key=lambda p: int(p.name[4:]))
    jobs = [job.read_text("utf-8") for job in jobs]
    jobs = [job for job in jobs if "launch_pickled_pipeline" in job]
    names = re.findall("--job-name=prepare-(.*)", "".join(jobs))
    stages = "clean buckets compare cluster count learn encode finish"
    assert names == stages.split()
    assert "#SBATCH --partition=cpu" in jobs[0] and "--array=0-" in jobs[0]
    assert "%7" in jobs[0] and "--dependency" not in jobs[0].split("\n")[0]
    for job in jobs[1:]:
        assert "--dependency=afterok:" in job.split("\n")[0]
