"""tools/judge.py: what it measures is so, and its card says no more than that."""

import json
import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from solutions.bpe import train_bpe
from solutions.generation import generate, save_pretrained
from solutions.gpt import GPT, GPTConfig
from solutions.text_data import split_documents, train_val_split

ROOT = Path(__file__).resolve().parent.parent
END = "<|endoftext|>"
sys.path.insert(0, str(ROOT / "tools"))
import judge  # noqa: E402

SMALL = ["--number", "10", "--length", "12"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty plain tales, and four of each other kind."""
    folder = tmp_path_factory.mktemp("data")
    for name, n in ("tales", 60), ("rich_tales", 4), ("long_tales", 4):
        tales = (ROOT / "data" / f"{name}.txt").read_text("utf-8").split("\n\n")[:n]
        (folder / f"{name}.txt").write_text("\n\n".join(tales), "utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(data):
    text = (data / "tales.txt").read_text("utf-8")
    return train_bpe(text, 400, special_tokens=[END])


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model of random weights, in a folder."""
    dice = torch.Generator().manual_seed(1)
    model = GPT(GPTConfig(400, 32, 16, 1, 2), generator=dice)
    save_pretrained(model, tmp_path / "small", tokenizer)
    return tmp_path / "small"


@pytest.fixture
def tool(monkeypatch, capsys, folder, data):
    """Runs tools/judge.py in this process: (exit status, stdout, stderr)."""

    def run(*args) -> tuple[int, str, str]:
        given = [folder, "--data", data, *SMALL, *args]
        monkeypatch.setattr(sys, "argv", ["judge.py", *map(str, given)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(ROOT / "tools" / "judge.py"), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


# -------------------------------------------------------------------- what is measured


def test_knowing_nothing_costs_log2_of_the_vocabulary(tokenizer, data):
    """Uniform predictions: each token but the first, ends included, over the bytes that
    these tokens stand for."""
    model = GPT(GPTConfig(400, 32, 16, 1, 2))
    with torch.no_grad():
        model.tokens.weight.zero_()  # the output layer's too
    documents = judge.read_tales(data).held_out
    ids = [tokenizer.encode(d) for d in documents]
    held = judge.held_out_bits(model, tokenizer, documents)
    assert held["tales"] == len(documents) == 6
    assert held["tokens"] == sum(map(len, ids)) + 6
    assert held["bytes"] == sum(len(d) for d in documents)  # ASCII
    first = len(tokenizer.decode_bytes(ids[0][:1]))
    expected = math.log2(400) * (held["tokens"] - 1) / (held["bytes"] - first)
    assert held["bits"] == pytest.approx(expected, rel=1e-6)


def test_the_held_out_tales_are_chapter_6s():
    tales = judge.read_tales(ROOT / "data")
    plain = split_documents((ROOT / "data" / "tales.txt").read_text("utf-8"))
    split = torch.Generator().manual_seed(1)
    training, held_out = train_val_split(plain, 0.1, generator=split)
    assert tales.held_out == held_out and len(held_out) == 872
    assert tales.training[: len(training)] == training
    assert len(tales.training) == 7848 + 3120 + 412
    assert not set(tales.held_out) & set(tales.training)


def longest_by_trying_all(ids, documents, end):
    """Compare every run with every position of every document."""
    source = [i for d in documents for i in [*d, end]]
    best = 0, 0
    for start in range(len(ids)):
        for stop in range(start + 1, len(ids) + 1):
            n, run = stop - start, ids[start:stop]
            there = any(source[i : i + n] == run for i in range(len(source) - n + 1))
            if there and n > best[1]:
                best = start, n
    return best


def test_the_longest_copied_run_is_found():
    dice = torch.Generator().manual_seed(1)
    for _ in range(30):
        documents = torch.randint(4, (3, 12), generator=dice).tolist()
        ids = torch.randint(4, (9,), generator=dice).tolist()
        found = judge.Copies(documents, 4).longest(ids)
        assert found == longest_by_trying_all(ids, documents, 4)
    copies = judge.Copies([[1, 2], [3, 5]], 0)
    assert copies.longest([9]) == (0, 0) and copies.longest([]) == (0, 0)
    assert copies.longest([2, 3]) == (0, 1)  # no run goes over the end of a document


def test_distinct_3_is_1_without_repetition_and_small_in_a_loop():
    assert judge.distinct(list(range(9))) == 1
    assert judge.distinct(list("abababab")) == 2 / 6
    assert judge.distinct([1, 2]) == 1  # no run of three: nothing repeats


def test_words_copies_and_distinct_3_of_texts(tokenizer):
    training = ["The cat sat on the mat.", "A dog ran."]
    measure = judge.Judge(tokenizer, training).measure
    own = measure(["The dog flewed. It sat on the mat.", "A dog ran. A catt"], [1, 0])
    # Known: the, dog, sat, on, the, mat, a, dog, ran, a; the last word may be cut.
    assert own["examples"] == ["flewed", "it"]
    assert own["new_words"] == pytest.approx(2 / 12)
    assert own["copied"] == " sat on the mat." and own["where"] == 0
    n = len(tokenizer.encode(" sat on the mat."))
    m = judge.Copies([tokenizer.encode("A dog ran.")], 0).longest(
        tokenizer.encode("A dog ran. A catt")
    )[1]
    assert own["longest"] == n and own["mean"] == own["median"] == (n + m) / 2
    assert measure(["A dog flewed"], [0])["new_words"] == 0  # perhaps "flewed up"
    assert measure(["A dog flewed."], [0])["new_words"] == pytest.approx(1 / 3)
    copy = measure(training, [1, 1])
    assert copy["new_words"] == 0 and copy["distinct"] == 1
    assert copy["longest"] == len(tokenizer.encode(training[0]))


def test_samples_are_those_of_the_seeds(tool, folder, tokenizer, tmp_path):
    path = tmp_path / "samples.json"
    status, _, told = tool("--samples", path)
    assert status == 0, told
    samples = json.loads(path.read_text("utf-8"))["samples"]
    assert [s["seed"] for s in samples] == list(range(1, 11))
    model = judge.from_pretrained(folder)
    end = tokenizer.special_tokens[END]
    for sample in samples[:3]:
        dice = torch.Generator().manual_seed(sample["seed"])
        ids = generate(model, [[end]], 12, temperature=0.7, min_p=0.1, stop_ids=[end],
                       generator=dice)[0]  # fmt: skip
        assert sample["text"] == tokenizer.decode(ids[1:])
        assert sample["ended"] == (len(ids) < 13)


# ---------------------------------------------------------------------------- readers


def verdicts(path: Path, rows: list[str], columns: str = "seed,grammatical,thread"):
    path.write_text("\n".join([columns, *rows]) + "\n", "utf-8")
    return path


def test_one_readers_shares_are_plain_shares(tmp_path):
    path = verdicts(tmp_path / "a.csv", ["1,1,0", "2,1,0", "3,0,1", "4,1,0"])
    found = judge.weigh(judge.read_verdicts([path], 10))
    assert (found["readers"], found["read"]) == (1, 4)
    assert (found["grammatical"], found["thread"]) == (0.75, 0.25)
    assert found["grammatical_agreement"] is None


@pytest.mark.parametrize("form", ["two files", "a column", "rows again"])
def test_several_readers_may_share_a_file_or_not(tmp_path, form):
    first, second = ["1,1,1", "2,0,1"], ["1,1,0", "2,1,1"]
    if form == "two files":
        paths = [verdicts(tmp_path / "a.csv", first)]
        paths += [verdicts(tmp_path / "b.csv", second)]
    elif form == "a column":
        rows = [f"{row},anna" for row in first] + [f"{row},ben" for row in second]
        columns = "seed,grammatical,thread,reader"
        paths = [verdicts(tmp_path / "both.csv", rows, columns)]
    else:
        paths = [verdicts(tmp_path / "both.csv", first + second)]
    found = judge.weigh(judge.read_verdicts(paths, 10))
    assert (found["readers"], found["read"]) == (2, 2)
    assert (found["grammatical"], found["thread"]) == (0.75, 0.75)
    assert found["grammatical_agreement"] == found["thread_agreement"] == 0.5


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed,grammatical\n1,1\n", "seed,grammatical,thread"),
        ("", "seed,grammatical,thread"),
        ("seed,grammatical,thread\n1,yes,0\n", "line 2"),
        ("seed,grammatical,thread\n1,1,1\n11,1,0\n", "line 3: seed '11'"),
        ("seed,grammatical,thread\n,1,0\n", "line 2: seed ''"),
        ("seed,grammatical,thread\n1,1\n", "must be 0 or 1"),
        ("seed,grammatical,thread,reader\n1,1,1,a\n1,1,1,a\n", "a has judged seed 1"),
        ("seed,grammatical,thread\n1,\xff,\x00\n", "line 2"),
    ],
)
def test_a_table_of_verdicts_that_is_wrong_is_told_where(tmp_path, text, message):
    path = tmp_path / "verdicts.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        judge.read_verdicts([path], 10)


def test_readers_verdicts_come_to_the_card(tool, folder, tmp_path):
    samples = tmp_path / "samples.json"
    assert tool("--samples", samples)[0] == 0
    before = samples.read_bytes()
    rows = [f"{seed},1,{seed % 2}" for seed in range(1, 11)]
    paths = [verdicts(tmp_path / f"{name}.csv", rows) for name in ("anna", "ben")]
    given = ["--samples", samples, "--verdicts", *paths, "--card", "--recipe", "none"]
    status, said, told = tool(*given)
    assert status == 0, told
    card = (folder / "README.md").read_text("utf-8")
    sentence = (
        "All 10 samples were read by 2 readers. Every sentence is grammatical "
        "in **100%**, and the story keeps its thread in **50%**."
    )
    assert sentence in said and sentence in card
    assert "agree on its grammar in 100%" in card
    assert samples.read_bytes() == before


# --------------------------------------------------------------------------- the card


def test_the_card_says_what_was_measured(tool, folder, data, tokenizer):
    status, said, told = tool("--card", "--recipe", "not at all: 9.9 bits per byte")
    assert status == 0, told
    card = (folder / "README.md").read_text("utf-8")
    model = judge.from_pretrained(folder)
    held = judge.held_out_bits(model, tokenizer, judge.read_tales(data).held_out)
    # What chapter 7 and the tests of the bundled model look for:
    assert re.search(r"([\d.]+) bits per byte", card)[1] == f"{held['bits']:.3f}"
    assert re.search(r"\(seed (\d+)\)", card)[1] == "1"
    assert f"{model.n_parameters():,} parameters" in card and "CC0" in card
    assert card.startswith("# small\n") and card.count("### Sample") == 10
    assert "No reader has judged" in card and "so its bytes do not count" in card
    n = (folder / "model.safetensors").stat().st_size
    assert f"the weights take {n:,} bytes" in card
    assert card.endswith("\n") and not card.endswith("\n\n")
    facts = said[: said.index("\n\nwritten: ")]
    assert facts in card


def test_without_card_nothing_is_written(tool, folder):
    before = sorted(folder.iterdir())
    status, said, _ = tool()
    assert status == 0 and "bits per byte" in said
    assert sorted(folder.iterdir()) == before


def test_the_card_replaces_a_card_and_nothing_else(tool, folder):
    assert tool("--card", "--recipe", "first")[0] == 0
    assert tool("--card", "--recipe", "second")[0] == 0
    readme = folder / "README.md"
    assert "Recipe: second" in readme.read_text("utf-8")
    readme.write_text("my own notes", "utf-8")
    status, said, told = tool("--card", "--recipe", "third")
    assert status == 2 and "no model's card" in told and not said
    assert readme.read_text("utf-8") == "my own notes"


@pytest.mark.parametrize(
    "name, content, shown",
    [
        ("train.json", {"steps": 9}, '`{"steps": 9}` (`train.json`)'),
        (
            "run.json", {"tool": "x.py", "tokens": [1], "options": {"lr": 0.1}},
            '`{"tool": "x.py", "lr": 0.1}` (`run.json`)',
        ),
    ],
)  # fmt: skip
def test_the_recipe_is_found_in_the_runs_folder(tool, folder, name, content, shown):
    (folder / name).write_text(json.dumps(content), "utf-8")
    assert tool("--card")[0] == 0
    assert f"- Recipe: {shown}\n" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--number", "9"], "--number 9"),
        (["--length", "0"], "--length 0"),
        (["--card"], "--recipe"),
        (["--verdicts", "x.csv"], "--samples"),
        (["--data", "no/such"], "no/such"),
        (["--verdicts", "no.csv", "--samples", "s.json"], "no.csv"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(tool, arguments, message):
    status, said, told = tool(*arguments)
    assert status == 2 and message in told and told.count("\n") == 1 and not said


def test_samples_of_another_model_are_refused(tool, folder, tmp_path, tokenizer):
    path = tmp_path / "samples.json"
    assert tool("--samples", path)[0] == 0
    before = path.read_bytes()
    status, _, told = tool("--samples", path, "--length", "13")
    assert status == 2 and "length 12, not 13" in told
    save_pretrained(GPT(GPTConfig(400, 32, 16, 1, 2)), folder, tokenizer)
    status, _, told = tool("--samples", path)
    assert status == 2 and "is of weights" in told and path.read_bytes() == before
    path.write_text("my own file", "utf-8")
    status, _, told = tool("--samples", path)
    assert status == 2 and "no file of samples" in told
    assert path.read_text("utf-8") == "my own file"


def test_verdicts_need_the_samples_that_were_read(tool, tmp_path):
    path = verdicts(tmp_path / "a.csv", ["1,1,1"])
    status, _, told = tool("--verdicts", path, "--samples", tmp_path / "none.json")
    assert status == 2 and "none.json" in told


def test_a_folder_without_a_model_is_named(tool, folder):
    (folder / "model.safetensors").unlink()
    status, _, told = tool()
    assert status == 2 and str(folder) in told and told.count("\n") == 1
