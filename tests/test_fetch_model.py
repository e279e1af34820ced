"""tools/fetch_model.py against a hub on this machine, which holds models made here."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_fetch_corpus import (  # noqa: F401  serve is a fixture
    BODY,
    NOWHERE,
    SHA256,
    half,
    serve,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import fetch_model  # noqa: E402
from fetch_model import Failure, download  # noqa: E402

from solutions.bpe import BPETokenizer, train_bpe  # noqa: E402
from solutions.gpt import GPT, GPTConfig  # noqa: E402
from solutions.pretrained import from_pretrained, save_pretrained  # noqa: E402

ID, COMMIT = "someone/little", "0123456789" * 4
LATER = {"norm": "rms", "mlp": "swiglu", "positions": "rotary", "bias": False}


@pytest.fixture(autouse=True)
def no_waiting_and_no_proxy(monkeypatch):
    monkeypatch.setattr(fetch_model, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def model(tmp_path) -> dict[str, bytes]:
    """The files of a model, by name."""
    text = "the cat and the hat and the bat " * 9
    tokenizer = train_bpe(text, 270, special_tokens=["<|endoftext|>"])
    config = GPTConfig(tokenizer.n_vocab, 32, 24, 2, 2, **LATER)
    folder = tmp_path / "original"
    save_pretrained(GPT(config), folder, tokenizer)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return files | {"README.md": b"# little\n", "pytorch_model.bin": b"\x80\x04boom"}


def in_pieces(files: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    """The same model with its weights in two files and an index."""
    from safetensors.torch import save

    path = tmp_path / "original" / "model.safetensors"
    names = sorted(tensors := load_file(path))
    index, pieces = {}, {}
    for i, part in enumerate((names[:5], names[5:]), 1):
        piece = f"model-0000{i}-of-00002.safetensors"
        pieces[piece] = save({name: tensors[name] for name in part})
        index |= dict.fromkeys(part, piece)
    text = json.dumps({"metadata": {}, "weight_map": index})
    rest = {name: data for name, data in files.items() if name != path.name}
    return rest | pieces | {"model.safetensors.index.json": text.encode()}


def hub(files: dict[str, bytes], revision: str = "main", **changes) -> dict:
    """Answers of a hub that has one model."""
    siblings = []
    for name, data in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"rfilename": name, "size": len(data), "blobId": blob}
        if name.endswith((".safetensors", ".bin", "tokenizer.json")):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
        siblings.append(entry)
    info = {"id": ID, "sha": COMMIT, "gated": False, "siblings": siblings} | changes
    body = json.dumps(info).encode()

    def answer(handler):
        handler.reply(body, Content_Type="application/json")

    answers = {f"/{ID}/resolve/{COMMIT}/{name}": data for name, data in files.items()}
    api = f"/api/models/{ID}"
    return answers | {api: answer, f"{api}/revision/{revision}": answer}


def fetch(address: str, tmp_path: Path, *more: str) -> int:
    out = ["--out", str(tmp_path / "models"), "--endpoint", address]
    return fetch_model.main([ID, *out, *more])


def only_sentence(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fetch_model: "), lines
    return lines[0]


def asked(seen) -> list[str]:
    """The files that were asked for so far."""
    return [path.split("/")[-1] for path, _ in seen if "/resolve/" in path]


def test_a_download_is_whole_or_absent(serve, tmp_path):
    address, seen = serve({"/a": BODY})
    download(address + "/a", tmp_path / "a", SHA256)
    assert (tmp_path / "a").read_bytes() == BODY
    download(address + "/a", tmp_path / "a", SHA256)
    assert len(seen) == 1  # the second call found it in place


def test_a_wrong_hash_leaves_nothing(serve, tmp_path):
    address, _ = serve({"/a": BODY + b"!"})
    with pytest.raises(Failure, match=f"not {SHA256}: removed"):
        download(address + "/a", tmp_path / "a", SHA256)
    assert not list(tmp_path.iterdir())


def test_a_cut_connection_is_resumed(serve, tmp_path):
    first = iter([half, half])
    address, seen = serve(
        {"/a": lambda h: next(first, lambda h: h.reply_range(BODY))(h)}
    )
    download(address + "/a", tmp_path / "a", SHA256)
    assert (tmp_path / "a").read_bytes() == BODY
    ranges = [wanted for _, wanted in seen]
    assert ranges == [None, "bytes=128000-", "bytes=192000-"]


def test_a_server_that_goes_away_leaves_a_part_to_continue(serve, tmp_path):
    address, _ = serve({"/a": half})
    with pytest.raises(Failure, match="connection ended after 224000 of 256000 bytes"):
        download(address + "/a", tmp_path / "a", SHA256)
    with pytest.raises(Failure, match="refused"):
        download(NOWHERE + "/a", tmp_path / "a", SHA256)
    assert [p.name for p in tmp_path.iterdir()] == ["a.part"]
    address, seen = serve({"/a": BODY})
    download(address + "/a", tmp_path / "a", SHA256)
    assert (tmp_path / "a").read_bytes() == BODY and seen == [("/a", "bytes=224000-")]


@pytest.mark.parametrize("part", [BODY, BODY + b"too long", b"another beginning"])
def test_a_part_that_cannot_be_continued_does_no_harm(serve, tmp_path, part):
    address, _ = serve({"/a": BODY, "/whole": lambda h: h.reply(BODY)})
    (tmp_path / "a.part").write_bytes(part)
    if part.startswith(b"another"):
        with pytest.raises(Failure, match="removed"):
            download(address + "/a", tmp_path / "a", SHA256)
        (tmp_path / "a.part").write_bytes(part)
        download(address + "/whole", tmp_path / "a", SHA256)  # knows no ranges
    else:
        download(address + "/a", tmp_path / "a", SHA256)
    assert (tmp_path / "a").read_bytes() == BODY


def test_without_a_hash_an_old_part_is_not_trusted(serve, tmp_path):
    address, seen = serve({"/a": BODY})
    (tmp_path / "a.part").write_bytes(b"old")
    download(address + "/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY and seen == [("/a", None)]


@pytest.mark.parametrize("code, tries", [(404, 1), (403, 1), (503, 3)])
def test_only_what_may_pass_is_tried_again(serve, tmp_path, code, tries):
    address, seen = serve({"/a": lambda handler: handler.reply(code=code)})
    with pytest.raises(Failure, match=f"/a cannot be fetched: HTTP Error {code}"):
        download(address + "/a", tmp_path / "a", SHA256)
    assert len(seen) == tries and not list(tmp_path.iterdir())


def test_a_model_comes_whole_and_speaks(serve, model, tmp_path, capsys):
    address, seen = serve(hub(model))
    assert fetch(address, tmp_path) == 0
    folder = tmp_path / "models" / "little"
    said = capsys.readouterr().out
    assert f"{ID} at {COMMIT}" in said
    assert re.search(rf"tools/generate.py .* --model {re.escape(str(folder))}", said)
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    record = json.loads(found.pop("source.json"))
    wanted = {name: data for name, data in model.items() if name[-4:] != ".bin"}
    assert found == wanted and asked(seen)[0] == "config.json"
    assert record["revision"] == COMMIT and record["source"].endswith(ID)
    original = from_pretrained(tmp_path / "original")
    ids = torch.arange(20)[None]
    assert torch.equal(from_pretrained(folder)(ids), original(ids))
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["little"]


def test_weights_in_pieces_come_all(serve, model, tmp_path, capsys):
    address, _ = serve(hub(in_pieces(model, tmp_path)))
    assert fetch(address, tmp_path) == 0
    folder = tmp_path / "models" / "little"
    assert len([*folder.glob("model-*.safetensors")]) == 2
    original = from_pretrained(tmp_path / "original")
    ids = torch.arange(20)[None]
    assert torch.equal(from_pretrained(folder)(ids), original(ids))


def test_what_is_there_is_not_asked_for_again(serve, model, tmp_path, capsys):
    address, _ = serve(hub(model))
    assert fetch(address, tmp_path) == 0
    assert fetch(NOWHERE, tmp_path) == 0  # no network is needed
    assert "let it speak" in capsys.readouterr().out
    weights = tmp_path / "models" / "little" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert fetch(address, tmp_path) == 2
    assert "model.safetensors is damaged: remove" in only_sentence(capsys)


def test_a_folder_of_another_origin_is_not_replaced(serve, model, tmp_path, capsys):
    mine = tmp_path / "models" / "little" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    address, seen = serve(hub(model))
    assert fetch(address, tmp_path) == 2
    assert "name another --out" in only_sentence(capsys)
    assert mine.read_text() == "mine" and not seen


def test_a_broken_download_is_continued(serve, model, tmp_path, capsys):
    answers, weights = hub(model), model["model.safetensors"]
    path = f"/{ID}/resolve/{COMMIT}/model.safetensors"

    def half(handler):
        handler.reply(weights[: len(weights) // 2], length=len(weights))

    address, _ = serve(answers | {path: half})
    assert fetch(address, tmp_path) == 2
    assert "connection ended" in only_sentence(capsys)
    folder = tmp_path / "models"
    assert [file.name for file in folder.iterdir()] == ["little.part"]
    address, seen = serve(answers)
    assert fetch(address, tmp_path) == 0
    assert asked(seen) == ["model.safetensors"]
    assert [rest for path, rest in seen if "resolve" in path] == [
        f"bytes={len(weights) // 2}-"
    ]
    assert (folder / "little" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_the_listed_one_is_removed(
    serve, model, tmp_path, capsys, name
):  # fmt: skip
    answers = hub(model)
    answers[f"/{ID}/resolve/{COMMIT}/{name}"] = model[name][:-1] + b" "
    address, _ = serve(answers)
    assert fetch(address, tmp_path) == 2
    assert name in (sentence := only_sentence(capsys)) and "removed" in sentence
    assert not (tmp_path / "models" / "little").exists()
    assert not (tmp_path / "models" / "little.part" / name).exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "mistral"}, "model_type='mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
    ],
)
def test_other_architectures_are_refused_before_their_weights_come(
    serve, model, tmp_path, capsys, changes, message
):  # fmt: skip
    raw = json.loads(model["config.json"]) | changes
    model["config.json"] = json.dumps(raw).encode()
    address, seen = serve(hub(model))
    assert fetch(address, tmp_path) == 2
    sentence = only_sentence(capsys)
    assert message in sentence and ID in sentence
    assert asked(seen) == ["config.json"]


def test_models_without_safetensors_are_refused(serve, model, tmp_path, capsys):
    del model["model.safetensors"]
    address, seen = serve(hub(model))
    assert fetch(address, tmp_path) == 2
    assert "no model.safetensors, and other formats can run code" in only_sentence(
        capsys
    )
    assert asked(seen) == ["config.json"]


def test_gated_models_and_missing_ones_get_a_sentence(serve, model, tmp_path, capsys):
    address, _ = serve(hub(model, gated="manual"))
    assert fetch(address, tmp_path) == 2
    assert "given only to those who sign in" in only_sentence(capsys)
    lost = {"": "RepoNotFound", "/revision/v9": "RevisionNotFound"}
    answers = {
        f"/api/models/{ID}{end}": lambda h, c=code: h.reply(code=404, X_Error_Code=c)
        for end, code in lost.items()
    }
    address, _ = serve(answers)
    assert fetch(address, tmp_path) == 2
    assert f"no open model {ID}: check the spelling" in only_sentence(capsys)
    assert fetch(address, tmp_path, "--revision", "v9") == 2
    assert "no revision 'v9'" in only_sentence(capsys)
    assert not (tmp_path / "models").exists()


def test_revisions_lie_side_by_side(serve, model, tmp_path, capsys):
    answers = hub(model, revision="refs%2Fpr%2F1") | hub(model, revision="v2")
    address, _ = serve(answers)
    assert fetch(address, tmp_path) == 0
    for revision in ("v2", "refs/pr/1"):
        assert fetch(address, tmp_path, "--revision", revision) == 0
    names = sorted(folder.name for folder in (tmp_path / "models").iterdir())
    assert names == ["little", "little@refs-pr-1", "little@v2"]


def test_a_disk_that_is_too_small_is_noticed_first(
    serve, model, tmp_path, capsys, monkeypatch
):  # fmt: skip
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch_model.shutil, "disk_usage", lambda path: usage)
    address, seen = serve(hub(model))
    assert fetch(address, tmp_path) == 2
    assert "make room, or name another disk with --out" in only_sentence(capsys)
    assert asked(seen) == ["config.json"]


def test_a_tokenizer_that_is_not_ours_is_said_plainly(serve, model, tmp_path, capsys):
    raw = json.loads(model["tokenizer.json"])
    raw["pre_tokenizer"]["pretokenizers"].insert(
        0, {"type": "Digits", "individual_digits": True}
    )
    model["tokenizer.json"] = json.dumps(raw).encode()
    address, _ = serve(hub(model))
    status = fetch(address, tmp_path)
    said = capsys.readouterr().out
    folder = tmp_path / "models" / "little"
    try:
        BPETokenizer.load(folder / "tokenizer.json")
    except ValueError:
        assert "the weights load" in said and "BPETokenizer cannot read" in said
        assert "let it speak" not in said
    else:
        assert "let it speak" in said
    assert status == 0 and from_pretrained(folder)


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}]
)
@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m", "Qwen/Qwen3-0.6B"])
def test_without_a_network_there_is_one_sentence(tmp_path, name, environment):
    tool = ROOT / "tools" / "fetch_model.py"
    command = [sys.executable, tool, name, "--out", tmp_path / "models"]
    environment = {"HF_ENDPOINT": NOWHERE, **environment}
    env = {**os.environ, **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch("fetch_model: .+ --endpoint, or copy .+ --model\n", done.stderr)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["llama"], "none of gpt2, smollm2-135m, and no OWNER/NAME"),
        (["../etc"], "no OWNER/NAME"),
        (["a/b", "--revision", "../x"], "no branch, tag or commit"),
        (["a/b", "--endpoint", "localhost"], "must begin with https://"),
    ],
)
def test_a_bad_command_line_is_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        fetch_model.main([*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_known_models_are_pinned_to_commits():
    for model, commit in fetch_model.MODELS.values():
        assert re.fullmatch("[0-9a-f]{40}", commit) and "/" in model
