"""The command lines: a model folder speaks, texts are plain."""

import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from solutions.bpe import BPETokenizer, train_bpe
from solutions.generation import from_pretrained, generate, save_pretrained
from solutions.gpt import GPT, GPTConfig
from solutions.pretraining import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
TALE_GPT = ROOT / "data" / "tale-gpt"
END = "<|endoftext|>"
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX's signals and files")


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs tools/<name>.py in this process: (exit status, stdout, stderr)."""

    def run(name: str, *args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as exit_:
                runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        finally:
            signal.signal(signal.SIGINT, before)
        return exit_.value.code, *capsys.readouterr()

    return run


RING = "\u00e9\U0001f98a!"  # seven bytes, no two alike


@torch.no_grad()
def ring_model(follows: dict[int, int]) -> GPT:
    """After each id it is sure of the one that `follows`: 257 ids, no attention."""
    model = GPT(GPTConfig(257, 64, 257, 1, 1, tie_embeddings=False))
    for p in model.parameters():
        p.zero_()
    model.norm.weight.fill_(1.0)
    model.tokens.weight.copy_(torch.eye(257))
    for before, after in follows.items():
        model.head.weight[after, before] = 10.0
    return model


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """A model that says RING again and again, and a story's end after a "?"."""
    folder = tmp_path_factory.mktemp("ring")
    data = RING.encode("utf-8")
    follows = dict(zip(data, data[1:] + data[:1], strict=True)) | {ord("?"): 256}
    tokenizer = BPETokenizer([], special_tokens=[END])
    save_pretrained(ring_model(follows), folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def babble(tmp_path_factory):
    """A model of random weights, which writes any bytes, characters or not."""
    folder = tmp_path_factory.mktemp("babble")
    dice = torch.Generator().manual_seed(0)
    model = GPT(GPTConfig(257, 64, 16, 1, 2), generator=dice)
    save_pretrained(model, folder, BPETokenizer([], special_tokens=[END]))
    return folder


def environment(**more: str) -> dict[str, str]:
    """Python's own buffering, whatever the tests themselves run with."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | more


def command(*args, **settings) -> subprocess.CompletedProcess:
    """tools/generate.py in a process of its own; bytes out."""
    line = [sys.executable, str(ROOT / "tools" / "generate.py"), *map(str, args)]
    usual = {"capture_output": True, "stdin": subprocess.DEVNULL, "env": environment()}
    settings = usual | settings
    if "input" in settings:
        del settings["stdin"]
    return subprocess.run(line, **settings)


def only_sentence(said: str) -> str:
    """The one line on standard error besides what is always told."""
    lines = [line for line in said.splitlines() if line.startswith("generate: ")]
    others = [line for line in said.splitlines() if line not in lines]
    assert len(lines) == 1, said
    assert all(re.match(r"loading |seed |unfinished", line) for line in others), said
    return lines[0]


def test_generate_speaks_as_a_command():
    result = command("There was a", "--seed", "1", "--length", "30", check=True)
    assert result.stdout.decode("utf-8").startswith("There was a")
    assert len(result.stdout.split()) > 8


def test_a_seed_tells_the_same_story_and_another_seed_another(tool):
    arguments = ["generate", "One winter", "--length", "40", "--seed"]
    first, second, other = (tool(*arguments, seed) for seed in ("1", "1", "2"))
    assert first == second != other and first[0] == 0


def test_a_drawn_seed_is_told_and_tells_the_story_again(tool, babble):
    arguments = ["generate", "x", "--length", "30", "--model", babble]
    _, first, told = tool(*arguments)
    seed = re.search(r"^seed (\d+)$", told, re.M)[1]
    assert tool(*arguments, "--seed", seed)[1] == first
    assert tool(*arguments)[1] != first


def expected(folder: Path, prompt: str, n: int, seed: int, **settings) -> str:
    """What `generate` and the tokenizer make of it."""
    model = from_pretrained(folder)
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    end = [tokenizer.special_tokens[END]]
    ids = end + tokenizer.encode(prompt)
    dice = torch.Generator().manual_seed(seed)
    rows = generate(model, [ids], n, stop_ids=end, generator=dice, **settings)
    return prompt + tokenizer.decode(rows[0][len(ids) :])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.5, "top_p": 1.0, "top_k": 40},
        {"temperature": 1.2, "top_p": 1.0, "min_p": 0.5},
        {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 3.0},
    ],
)
def test_generate_prints_what_the_library_generates(tool, babble, options):
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    arguments = ["A \u00e9 fox", "--length", "60", "--seed", "3", "--model", babble]
    status, said, _ = tool("generate", *arguments, *given)
    settings = {"temperature": 0.7, "min_p": 0.1} | options
    assert status == 0
    assert said == expected(babble, "A \u00e9 fox", 60, 3, **settings) + "\n"


def test_generate_computes_in_sixteen_bits_if_asked(tool, babble, monkeypatch):
    seen, plain = [], torch.nn.Module.bfloat16
    monkeypatch.setattr(
        torch.nn.Module, "bfloat16", lambda self: seen.append(plain(self)) or self
    )
    status, said, _ = tool("generate", "A", "--seed", "3", "--model", babble, "--bfloat16")
    assert status == 0 and said.startswith("A")
    assert [m.head.weight.dtype for m in seen] == [torch.bfloat16]


def test_what_is_streamed_are_whole_characters(tool, ring, monkeypatch):
    written = []

    class Recorder(io.StringIO):
        def write(self, text):
            written.append(text)

    monkeypatch.setattr(sys, "stdout", Recorder())
    tool("generate", "!", "--length", "11", "--seed", "1", "--model", ring)
    pieces = [text for text in written if text]
    # Eleven bytes: a ring of seven, then two and half a fox, which is shown last.
    assert pieces == ["!", *RING, "\u00e9", "\ufffd", "\n"]


def test_a_terminal_gets_no_control_characters(tool, babble, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen, arguments = Terminal(), ["x", "--length", "80", "--model", babble]
    arguments += ["--seed", "3", "--temperature", "2"]
    whole = tool("generate", *arguments)[1]
    assert not set(whole) <= set(filter(str.isprintable, whole)) | {"\n"}
    monkeypatch.setattr(sys, "stdout", screen)
    assert tool("generate", *arguments)[0] == 0
    shown = screen.getvalue()
    assert len(shown) == len(whole)
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_the_prompt_may_come_from_a_file(tool, ring, tmp_path):
    path = tmp_path / "beginning.txt"
    path.write_bytes("\ufeffA fox\r\nor two!\r\n".encode())
    arguments = ["--length", "3", "--seed", "1", "--model", ring]
    status, said, _ = tool("generate", "--file", path, *arguments)
    assert status == 0 and said == "A fox\nor two!\u00e9\ufffd\n"


@pytest.mark.parametrize("arguments", [[], ["--file", "-"]])
def test_the_prompt_may_come_from_standard_input(ring, arguments):
    given = [*arguments, "--length", "6", "--seed", "1", "--model", ring]
    result = command(*given, input="caf\u00e9!\n".encode())
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("utf-8") == "caf\u00e9!" + RING[:2] + "\n"


def test_without_any_prompt_it_tells_a_story_from_the_beginning(babble):
    result = command("--length", "9", "--seed", "1", "--model", babble)
    assert result.returncode == 0
    told = expected(babble, "", 9, 1, temperature=0.7, min_p=0.1)
    assert result.stdout.decode("utf-8") == told + "\n"


def test_it_asks_for_one_beginning_after_another(ring):
    arguments = ["--interactive", "--length", "2", "--seed", "5", "--model", ring]
    lines = ["a!", "\u00e9" * 99, "b!", "", "never read!"]
    result = command(*arguments, input="\n".join(lines).encode())
    assert result.returncode == 0
    assert result.stdout.decode("utf-8") == "a!\u00e9\nb!\u00e9\n"
    told = result.stderr.decode("utf-8")
    assert "context_length=64" in only_sentence(told)  # and it asks again
    assert re.findall(r"^seed (\d+)$", told, re.M) == ["5", "6"]


def test_json_says_how_a_text_came_about(tool, ring, babble):
    arguments = ["--json", "--length", "9", "--seed", "5", "--min-p", "0.2"]
    status, said, _ = tool("generate", "y?", "--model", ring, *arguments)
    assert status == 0 and json.loads(said) == {
        "prompt": "y?", "text": "", "tokens": 0, "seed": 5, "stopped": "end",
        "model": str(ring), "settings": {
            "temperature": 0.7, "top_k": None, "top_p": None, "min_p": 0.2,
            "repetition_penalty": None, "length": 9,
        },
    }  # fmt: skip
    _, said, _ = tool("generate", "x!", "--model", ring, *arguments)
    row = json.loads(said)
    assert row["text"] == RING + "\u00e9"
    assert (row["tokens"], row["stopped"]) == (9, "length")


def test_many_texts_have_a_seed_each(tool, babble):
    arguments = ["generate", "x", "--length", "12", "--model", babble]
    _, said, _ = tool(*arguments, "--seed", "7", "--number", "3", "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert [row["seed"] for row in rows] == [7, 8, 9]
    plain = [tool(*arguments, "--seed", seed)[1] for seed in "789"]
    assert ["x" + row["text"] + "\n" for row in rows] == plain
    _, together, told = tool(*arguments, "--seed", "7", "--number", "3")
    assert together == "\n".join(plain)
    assert re.findall(r"^seed (\d+)$", told, re.M) == ["7", "8", "9"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["x", "--temperature", "-1"], "temperature=-1.0"),
        (["x", "--temperature", "nan"], "temperature=nan"),
        (["x", "--top-k", "0"], "top_k=0"),
        (["x", "--top-p", "1.5"], "top_p=1.5"),
        (["x", "--min-p", "2"], "min_p=2.0"),
        (["x", "--repetition-penalty", "0"], "repetition_penalty=0.0"),
        (["x", "--length", "-3"], "--length -3"),
        (["x", "--number", "0"], "--number 0"),
        (["x", "--seed", str(2**64)], f"--seed {2**64}"),
        (["x", "--seed", str(-(2**63) - 1)], "-2**63 to 2**64 - 1"),
        (["x", "--seed", str(2**64 - 1), "--number", "2"], "-2**63 to 2**64 - 1"),
        (["x", "--model", "no/such/folder"], "no/such/folder does not exist"),
        (["x", "--model", str(ROOT / "README.md")], "is a file"),
        (["x", "--file", "y"], "exclude each other"),
        (["x", "--interactive"], "exclude each other"),
        (["--file", "no/such/file"], "no/such/file"),
        (["--file", str(TALE_GPT / "model.safetensors")], "is not UTF-8"),
        (["word " * 3000], "context_length="),
    ],
)
def test_generate_says_what_is_wrong(tool, arguments, message):
    status, said, told = tool("generate", *arguments)
    assert status == 2 and said == "" and message in only_sentence(told)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63)])
def test_the_first_and_the_last_seed_work(tool, babble, seed):
    status, said, _ = tool("generate", "x", f"--seed={seed}", "--model", babble)
    assert status == 0 and len(said) > 2


def test_the_name_of_a_special_token_in_a_prompt_is_text(tool, babble):
    prompt = f"a {END} b"
    status, said, _ = tool("generate", prompt, "--length", "4", "--model", babble)
    assert status == 0 and said.startswith(prompt) and len(said) > len(prompt) + 1


def test_rows_that_pad_the_vocabulary_are_never_drawn(tool, tmp_path):
    tokenizer = train_bpe("hello hello", 1000)
    V = tokenizer.n_vocab
    model = GPT(GPTConfig(V + 64, 16, 16, 1, 2))
    with torch.no_grad():
        model.tokens.weight[V:] *= 50  # they would win
    save_pretrained(model, tmp_path, tokenizer)
    arguments = ["hello", "--length", "60", "--temperature", "1", "--model", tmp_path]
    status, said, told = tool("generate", *arguments)
    assert status == 0 and len(said) > 60, told


def test_an_id_that_stands_for_nothing_prints_nothing(tool, tmp_path):
    """A vocabulary with a gap: 256 to 299 are no tokens."""
    vocab = {i: bytes([i]) for i in range(256)} | {300: END.encode()}
    tokenizer = BPETokenizer([], special_tokens=[END], vocab=vocab)
    tokenizer.save(tmp_path / "tokenizer.json")
    save_pretrained(GPT(GPTConfig(301, 16, 16, 1, 2)), tmp_path)
    status, said, told = tool("generate", "x", "--length", "200", "--model", tmp_path)
    assert status == 0 and said.startswith("x"), told


# ------------------------------------------------------------- unfinished runs


@pytest.mark.parametrize("place", ["", "checkpoint"])
def test_it_speaks_from_the_checkpoint_of_an_unfinished_run(tool, tmp_path, place):
    tokenizer = BPETokenizer([], special_tokens=[END])
    tokenizer.save(tmp_path / "tokenizer.json")
    model, tokens = GPT(GPTConfig(257, 16, 16, 1, 2)), list(range(257)) * 2
    config = TrainConfig(steps=9, batch_size=2, warmup_steps=1)
    done = iter(range(99))
    train(
        model, tokens, tokens, config, checkpoint=tmp_path / place, progress=False,
        stop=lambda: next(done) == 3,
    )  # fmt: skip
    arguments = ["x", "--length", "20", "--seed", "4", "--model", tmp_path]
    status, said, told = tool("generate", *arguments)
    assert status == 0, told
    step = int(re.search(r"unfinished run, after step (\d+)", told)[1])
    assert 0 < step < 9
    finished = tmp_path / "finished"
    save_pretrained(model, finished, tokenizer)
    arguments[-1] = finished
    assert tool("generate", *arguments)[1] == said
    (tmp_path / "tokenizer.json").unlink()
    status, said, told = tool("generate", "x", "--model", tmp_path / place)
    assert status == 2 and not said and "no tokenizer.json" in only_sentence(told)


def test_a_damaged_checkpoint_is_passed_over(tool, tmp_path):
    BPETokenizer([], special_tokens=[END]).save(tmp_path / "tokenizer.json")
    config = TrainConfig(steps=4, batch_size=2, warmup_steps=1, checkpoint_every=2)
    model, tokens = GPT(GPTConfig(257, 16, 16, 1, 2)), list(range(257)) * 2
    train(model, tokens, tokens, config, checkpoint=tmp_path, progress=False)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half")
    status, said, told = tool("generate", "x", "--length", "5", "--model", tmp_path)
    assert status == 0 and said.startswith("x")
    assert "going on from step" in told and "Warning" not in told


def other_checkpoint(folder: Path) -> None:
    model = torch.nn.Linear(2, 2)
    from solutions.checkpoint import save_checkpoint

    save_checkpoint(folder, model, torch.optim.SGD(model.parameters()), 1)
    BPETokenizer([]).save(folder / "tokenizer.json")


def too_many_tokens(folder: Path) -> None:
    save_pretrained(GPT(GPTConfig(257, 16, 16, 1, 2)), folder)
    BPETokenizer([], special_tokens=[END, "<|x|>"]).save(folder / "tokenizer.json")


def without_tokenizer(folder: Path) -> None:
    save_pretrained(GPT(GPTConfig(257, 16, 16, 1, 2)), folder)


def without_weights(folder: Path) -> None:
    without_tokenizer(folder)
    (folder / "model.safetensors").unlink()


def cut_off(folder: Path) -> None:
    too_many_tokens(folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-9])


def other_architecture(folder: Path) -> None:
    too_many_tokens(folder)
    (folder / "config.json").write_text('{"model_type": "mamba"}', "utf-8")


def run_without_checkpoint(folder: Path) -> None:
    (folder / "run.json").write_text("{}", "utf-8")


def prepared_corpus(folder: Path) -> None:
    (folder / "train-00000.npy").touch()
    (folder / "tokenizer.json").touch()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda folder: None, "give a folder that has one"),
        (other_checkpoint, "not of this course's GPT"),
        (too_many_tokens, "do not belong together"),
        (without_tokenizer, "has no tokenizer.json"),
        (without_weights, "no model.safetensors"),
        (cut_off, "damaged"),
        (other_architecture, "mamba"),
        (run_without_checkpoint, "has saved nothing yet"),
        (prepared_corpus, "prepared corpus"),
    ],
)
def test_a_folder_that_cannot_speak_gets_a_sentence(tool, tmp_path, make, message):
    make(tmp_path)
    status, said, told = tool("generate", "x", "--model", tmp_path)
    assert status == 2 and not said and message in only_sentence(told)


# ------------------------------------------------------ pipes, signals, encodings


def started(*args) -> subprocess.Popen:
    line = [sys.executable, str(ROOT / "tools" / "generate.py"), *map(str, args)]
    pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    return subprocess.Popen(line, env=environment(), **pipes)


def test_a_closed_pipe_ends_it_quietly(ring):
    process = started("!", "--length", "100000", "--seed", "1", "--model", ring)
    assert process.stdout.read(20).startswith(b"!")
    process.stdout.close()
    said = process.stderr.read().decode("utf-8")
    assert process.wait(60) in (0, 141)
    assert said.splitlines() == [f"loading {ring} ..."]
    process.stdin.close()
    process.stderr.close()


@POSIX
@pytest.mark.parametrize("when", ["loading", "speaking", "asking"])
def test_ctrl_c_ends_it_quietly(ring, when):
    prompt = ["--interactive"] if when == "asking" else ["!", "--length", "100000"]
    process = started(*prompt, "--seed", "1", "--model", ring)
    told = process.stderr.readline()
    if when == "asking":
        process.stdin.write(b"!\n")
        process.stdin.flush()
    if when != "loading":
        assert process.stdout.read(4)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (told + said).decode().splitlines()[:1] == [f"loading {ring} ..."]
    assert not re.search(b"Error|Traceback|Interrupt", said)


@POSIX
def test_a_full_disk_is_said_in_a_sentence(ring):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        result = command("!", "--model", ring, stdout=full, stderr=subprocess.PIPE,
                         capture_output=False)  # fmt: skip
    told = result.stderr.decode("utf-8")
    assert result.returncode == 2 and "could not be written" in only_sentence(told)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_an_output_that_is_not_utf8_loses_characters_and_not_the_text(ring, arguments):
    codepage = environment(PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    given = ["!", "--length", "7", "--seed", "1", "--model", ring, *arguments]
    result = command(*given, env=codepage)
    assert result.returncode == 0
    if arguments:
        assert json.loads(result.stdout)["text"] == RING
    else:
        assert result.stdout.split() == [b"!\xe9?!"]


def test_help_and_errors_of_typing_do_not_wait_for_torch():
    script = (
        "import sys, runpy\n"
        "sys.argv = ['generate.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('tools/generate.py', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    for arguments, status in (["--help"], 0), (["x", "--length", "-1"], 2):
        line = [sys.executable, "-c", script, *arguments]
        result = subprocess.run(line, capture_output=True, cwd=ROOT)
        assert result.returncode == status, result.stderr


# --------------------------------------------------------------- the shipped model


def test_the_bundled_model_is_small_and_its_card_complete():
    assert sum(p.stat().st_size for p in TALE_GPT.iterdir()) <= 6_000_000
    card = (TALE_GPT / "README.md").read_text("utf-8")
    assert "CC0" in card and card.count("### Sample") == 10
    parameters = from_pretrained(TALE_GPT).n_parameters()
    assert f"{parameters:,} parameters" in card


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
