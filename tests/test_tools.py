"""The command lines, but for tools/pretrain.py: a model folder speaks, texts are plain."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from solutions.bpe import BPETokenizer
from solutions.generation import from_pretrained

ROOT = Path(__file__).resolve().parent.parent
TALE_GPT = ROOT / "data" / "tale-gpt"
END = "<|endoftext|>"


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs tools/<name>.py in this process: (exit status, stdout, stderr)."""

    def run(name: str, *args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


def test_generate_speaks_as_a_command():
    command = [sys.executable, str(ROOT / "tools" / "generate.py"), "There was a"]
    result = subprocess.run(
        [*command, "--seed", "1", "--length", "30"], capture_output=True, check=True
    )
    assert result.stdout.decode("utf-8").startswith("There was a")
    assert len(result.stdout.split()) > 8


def test_a_seed_tells_the_same_story_and_another_seed_another(tool):
    arguments = ["generate", "One winter", "--length", "40", "--seed"]
    first, second, other = (tool(*arguments, seed) for seed in ("1", "1", "2"))
    assert first == second != other and first[0] == 0


def test_generate_prints_every_byte_of_what_stream_yields(tool):
    status, said, _ = tool(
        "generate", "A \u00e9 fox", "--temperature", "0", "--length", "20"
    )
    assert status == 0 and said.startswith("A \u00e9 fox")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["x", "--temperature", "-1"], "temperature=-1.0"),
        (["x", "--temperature", "nan"], "temperature=nan"),
        (["x", "--top-k", "0"], "top_k=0"),
        (["x", "--top-p", "1.5"], "top_p=1.5"),
        (["x", "--length", "-3"], "--length -3"),
        (["x", "--model", "no/such/folder"], "no/such/folder"),
        (["word " * 3000], "context_length="),
    ],
)
def test_generate_says_what_is_wrong(tool, arguments, message):
    status, _, said = tool("generate", *arguments)
    assert status == 2 and message in said.splitlines()[-1]
    assert len([line for line in said.splitlines() if "loading" not in line]) == 1


def test_the_bundled_model_is_small_and_its_card_complete():
    assert sum(p.stat().st_size for p in TALE_GPT.iterdir()) <= 6_000_000
    card = (TALE_GPT / "README.md").read_text("utf-8")
    assert "CC0" in card and card.count("### Sample") == 3
    parameters = from_pretrained(TALE_GPT).n_parameters()
    assert f"{parameters:,} parameters" in card


def test_the_stated_bits_per_byte_are_the_models():
    pretrain = runpy.run_path(str(ROOT / "tools" / "pretrain.py"))
    card = (TALE_GPT / "README.md").read_text("utf-8")
    stated = float(re.search(r"\*\*([\d.]+) bits per byte\*\*", card)[1])
    seed = int(re.search(r"\(seed (\d+)\)", card)[1])
    tokenizer = BPETokenizer.load(TALE_GPT / "tokenizer.json")
    _, documents = pretrain["split_corpus"](ROOT / "data" / "tales.txt", 0.1, seed)
    tokens = pretrain["encode_documents"](tokenizer, documents)
    measured = pretrain["held_out_bits"](from_pretrained(TALE_GPT), tokens, tokenizer)
    assert measured == pytest.approx(stated, abs=2e-3)


def test_the_tales_are_plain_and_no_two_alike(tool):
    status, said, _ = tool("check_tales", ROOT / "data" / "tales.txt")
    assert status == 0, said
    assert said.count("held") == 8 and "BROKEN" not in said
    size = (ROOT / "data" / "tales.txt").stat().st_size
    assert size >= 5_000_000 and f"{size:,} bytes" in said


TALE = (
    "Tom had a red ball. He threw it up high, and it did not come down again. "
    'It was in the tree. "I will help you," said the bird. She pushed the ball, '
    "and it fell down. Tom was very happy. He gave the bird some bread, and they "
    "ate it on the grass. Then they played with the ball until it was dark."
)


@pytest.mark.parametrize(
    "tales, rule",
    [
        ([TALE.split(". It")[0]], "50 to 190 words"),
        ([TALE + "\n" + TALE + "\n" + TALE], "50 to 190 words"),
        ([TALE + " A caf\u00e9!"], "ASCII"),
        ([TALE.replace('bird. She', 'bird. "She')], "quotation marks"),
        ([TALE, TALE.replace("Tom", "Jim").replace("red", "blue")], "more alike"),
        ([TALE, TALE], "more alike"),
    ],
)  # fmt: skip
def test_check_tales_finds_what_breaks_a_rule(tool, tmp_path, tales, rule):
    path = tmp_path / "tales.txt"
    path.write_text("\n\n".join(tales), "utf-8")
    status, said, _ = tool("check_tales", path)
    broken = [line for line in said.splitlines() if line.startswith("BROKEN")]
    assert status == 1 and any(rule in line for line in broken), said


def test_check_tales_measures_what_it_says():
    check = runpy.run_path(str(ROOT / "tools" / "check_tales.py"))
    assert check["words_of"]("Tom's dog can't.") == ["tom's", "dog", "can't"]
    tale = 'A cat sat. "I am cold," it said.\n"Then come in!" said Tom.'
    assert check["sentences_of"](tale) == {
        "A cat sat.", 'I am cold," it said.', "Then come in!", "said Tom.",
    }  # fmt: skip
    found = {rule: figure for rule, figure, _ in check["rules"]([TALE] * 3 + ["x " * 60])}
    openings = next(figure for rule, figure in found.items() if "open" in rule)
    assert openings == "75.00%"
    once = next(figure for rule, figure in found.items() if "one tale only" in rule)
    assert once == f"{60 / (60 + 3 * len(check['words_of'](TALE))):.3%}"


def test_check_tales_names_a_file_that_is_missing(tool, tmp_path):
    status, _, said = tool("check_tales", tmp_path / "none.txt")
    assert status == 2 and "none.txt" in said


@pytest.mark.parametrize("name", ["tales.txt", "rich_tales.txt", "long_tales.txt"])
def test_the_texts_are_clean_and_their_statistics_true(name):
    from solutions.text_data import clean_text, load_text, split_documents

    text = load_text(ROOT / "data" / name)
    assert clean_text(text) == text and text.isascii()
    readme = (ROOT / "data" / "README.md").read_text("utf-8")
    section = readme[readme.index(f"## {name}") :]
    assert f"{len(split_documents(text)):,} tales" in section
    assert f"{len(text.encode('utf-8')):,} bytes" in section


def test_the_bundled_model_reads_as_it_was_trained():
    """The tokenizer in the folder belongs to the model: no id is out of range."""
    model = from_pretrained(TALE_GPT)
    tokenizer = BPETokenizer.load(TALE_GPT / "tokenizer.json")
    assert tokenizer.n_vocab == model.config.vocab_size
    ids = [tokenizer.special_tokens[END], *tokenizer.encode("There was a fox.")]
    assert torch.isfinite(model(torch.tensor([ids]))).all()
