"""tools/bench.py: every report with tiny settings, and recipes that break a rule."""

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import decoding_bench  # noqa: E402
import forwards  # noqa: E402
import race  # noqa: E402
import steps  # noqa: E402

from solutions.generation import save_pretrained  # noqa: E402
from solutions.gpt import GPT, GPTConfig  # noqa: E402

NANOGPT = '''
from dataclasses import dataclass
import torch
from torch import nn
@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool
class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("number of parameters")
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
    def forward(self, ids, targets):
        logits = self.table(ids)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss
    def configure_optimizers(self, decay, rate, betas, kind):
        return torch.optim.AdamW(self.parameters(), lr=rate, betas=betas)
'''
TINY = '''
import torch
from torch import nn
from types import SimpleNamespace
from solutions.text_data import CharTokenizer, get_batch
class Model(nn.Module):
    def __init__(self, V):
        super().__init__()
        self.table, self.config = nn.Embedding(V, V), SimpleNamespace(context_length=8)
    def forward(self, ids):
        return self.table(ids)
def build(text, seed):
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer, Model(tokenizer.vocab_size)
def make_step(model, tokens, seed):
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    def step(done):
        assert 0 <= done < 1
        x, y = get_batch(tokens, 4, 8)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return step
'''


@pytest.fixture
def bench(monkeypatch, capsys):
    """Runs tools/bench.py in this process: (exit status, stdout, stderr)."""

    def run(*args) -> tuple[int, str, str]:
        path = str(ROOT / "tools" / "bench.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(path, run_name="__main__")
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def written(tmp_path):
    """Writes a file of this name and text, and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture
def few(written):
    """Sixty tales: enough for a held-out part longer than any window."""
    tales = (ROOT / "data" / "tales.txt").read_text("utf-8").split("\n\n")[:60]
    return written("few.txt", "\n\n".join(tales))


@pytest.fixture
def tiny_recipes(written, monkeypatch):
    """The tiny recipe in place of the two that take part in every race."""
    for name in ("plain", "course"):
        path = written(f"recipes/{name}.py", TINY)
    monkeypatch.setattr(race, "RECIPES", path.parent)


def last_ratio(said: str) -> tuple[str, float]:
    line = said.splitlines()[-1]
    name, ratio = re.fullmatch(r"([A-Z0-9_]+) (\d+\.\d+)", line).groups()
    return name, float(ratio)


def test_step_compares_with_nanogpt(bench, written):
    folder = written("model.py", NANOGPT).parent
    status, said, _ = bench(
        "step", "--nanogpt", folder, "--sizes", "tiny", "--rounds", 2, "--precision",
        "bf16",
    )  # fmt: skip
    assert status == 0 and "number of parameters" not in said
    assert [line.split()[0] for line in said.splitlines()[-2:]] == [
        "STEP_TINY", "STEP_TINY_BF16",
    ]  # fmt: skip
    assert last_ratio(said)[1] > 0


def test_model_compares_a_pass_with_two_peers(bench, written):
    pytest.importorskip("transformers")
    folder = written("model.py", NANOGPT).parent
    status, said, _ = bench(
        "model", "--nanogpt", folder, "--sizes", "tiny", "--rounds", 2
    )  # fmt: skip
    assert status == 0 and last_ratio(said)[1] > 0
    found = re.findall(r"^MODEL_TINY_(\w+) \d+\.\d+$", said, re.M)
    assert {"FORWARD", "FORWARD_HF", "BOTH", "BOTH_HF"} <= set(found)


def test_all_models_of_a_pass_start_at_the_loss_of_knowing_nothing(written):
    pytest.importorskip("transformers")
    nanogpt = steps.load_nanogpt(str(written("model.py", NANOGPT).parent))
    made = forwards.contenders(steps.SIZES["1M"], nanogpt)
    made.pop("nanoGPT")  # the tests' own is another
    losses = {name: loss().item() for name, (_, loss) in made.items()}
    assert losses == pytest.approx(dict.fromkeys(losses, math.log(65)), abs=0.2)


@pytest.mark.parametrize("arguments", [[], ["--nanogpt", "no/such/folder"]])
def test_step_says_that_nanogpt_is_missing(bench, arguments):
    status, _, said = bench("step", "--sizes", "tiny", *arguments)
    assert status == 2 and "nanoGPT" in said and said.count("\n") == 1


SHORT = "--size tiny --prompt 4 --new 6 --shipped-new 5 --positions 2 20".split()
SHORT += "--megabytes 1 --vocabulary 300 --rounds 2".split()


@pytest.fixture
def shipped(tmp_path):
    """A small model folder in place of the one that the course ships."""
    model = GPT(GPTConfig(70, 16, 12, 1, 2), generator=torch.Generator().manual_seed(1))
    save_pretrained(model, tmp_path / "shipped")
    return tmp_path / "shipped"


def test_generate_prints_the_whole_table(bench, shipped):
    pytest.importorskip("transformers")
    status, said, told = bench("generate", *SHORT, "--shipped", shipped)
    assert status == 0, told
    assert last_ratio(said)[0] == "GENERATE" and last_ratio(said)[1] > 0
    found = dict(re.findall(r"^GENERATE_(\w+) (\d+\.\d+)$", said, re.M))
    assert list(found) == [
        "TINY_1", "TINY_8", "SHIPPED_1", "SHIPPED_8", "OF_LIMIT", "LATE_OVER_EARLY",
    ]  # fmt: skip
    assert float(found["TINY_1"]) == last_ratio(said)[1]
    assert said.count("ours, bfloat16") == 4 and "GB/s read" in said
    for name, batch, new in ("tiny", 8, 6), ("shipped", 1, 5):
        n = batch * new
        assert f"{name}, batch {batch}: {new} tokens after 4; {n} of {n} equal" in said
    assert all(f"  {name} " in said for name in decoding_bench.DRAWING)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--new", 61], "--size tiny has 64"),
        (["--positions", 2, 56], "--size tiny has 64"),
        (["--positions", 1, 20], "at least 2"),
        (["--shipped-new", 13], "the 16 of --shipped"),
        (["--shipped", "no/such/folder"], "no/such/folder"),
    ],
)
def test_generate_says_what_does_not_fit(bench, shipped, arguments, message):
    pytest.importorskip("transformers")
    status, said, told = bench("generate", *SHORT, "--shipped", shipped, *arguments)
    assert status == 2 and message in told and told.count("\n") == 1 and not said


def test_both_sides_generate_equal_tokens_of_the_number_asked_for():
    pytest.importorskip("transformers")
    ours, theirs = decoding_bench.random_weights(decoding_bench.SIZES["tiny"])
    theirs.generation_config.eos_token_id = 0  # as of a model that knows an end
    with torch.no_grad():
        ours.tokens.weight[0] *= 9
        theirs.get_input_embeddings().weight[0] *= 9
    ids = torch.tensor([[5, 6, 7], [7, 8, 9]])
    made = decoding_bench.our_generate(ours, ids, 20)()
    assert made.shape == (2, 23) and (made == 0).any()
    peer = decoding_bench.hugging_face_generate(theirs, ids, 20)()
    assert torch.equal(made, peer)


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_reads_each_weight_once_but_of_tables_a_row(tied):
    V, C, D = 70, 16, 12
    model = GPT(GPTConfig(V, C, D, 2, 2, tie_embeddings=tied))
    matrices = sum(p.numel() for p in model.blocks.parameters()) + 2 * D  # and a norm
    assert decoding_bench.bytes_per_token(model) == 4 * (matrices + V * D)
    half = decoding_bench.bytes_per_token(model.bfloat16())
    assert half == 2 * (matrices + V * D)


def test_both_sides_of_a_step_have_the_same_shape():
    for name, size in steps.SIZES.items():
        x, y = size.new_batch()
        assert x.shape == (size.batch, size.model.context_length) == y.shape
        assert torch.equal(x[:, 1:], y[:, :-1]), name


def test_contenders_take_turns_and_the_first_round_is_left_out():
    called = []
    contenders = {n: lambda n=n: called.append(n) for n in "ab"}
    took = steps.take_turns(contenders, rounds=2, turn=3)
    assert called == list("aaabbb" * 3) and [len(t) for t in took.values()] == [2, 2]


def test_the_ladder_is_a_table_and_a_file(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "can_compile", lambda: False)
    path = tmp_path / "studies" / "ladder.csv"
    status, said, _ = bench("ladder", "--sizes", "tiny", "--rounds", 2, "--csv", path)
    assert status == 0 and last_ratio(said)[0] == "LADDER_TINY"
    comment, names, *rows = path.read_text("utf-8").splitlines()
    assert comment.startswith("# python tools/bench.py ladder") and "threads" in comment
    assert names == "size,rung,milliseconds,tokens_per_second" and len(rows) == 6
    assert rows[0].startswith("tiny,as first written,")


def test_every_rung_makes_the_same_step():
    size = steps.SIZES["tiny"]
    batch = size.new_batch()
    made = steps.rungs(size, batch, compiled=False)
    first = made.pop("as first written")()
    for name, step in made.items():
        loss = step()
        loss = loss if isinstance(loss, float) else loss[0].item()
        assert loss == pytest.approx(first, abs=2e-2 if "bfloat16" in name else 1e-5)


def test_train_gives_every_recipe_as_many_seconds(bench, few, tiny_recipes):
    status, said, _ = bench("train", "--text", few, "--steps", 40, "--seeds", 1, 2)
    assert status == 0 and last_ratio(said)[0] == "TRAIN"
    row = r"^ +(\d+)  (plain|course) +([\d,]+) +[\d.]+ +[\d.]+$"
    rows = re.findall(row, said, re.M)
    assert [row[:2] for row in rows] == [
        ("1", "plain"), ("1", "course"), ("2", "plain"), ("2", "course"),
    ]  # fmt: skip
    assert rows[0][2] == rows[2][2] == "40"


def test_speedrun_ranks_a_readers_own_recipe(bench, few, written, tiny_recipes):
    own = written("own.py", TINY.replace("lr=10.0", "lr=0.0"))
    status, said, _ = bench(
        "speedrun", "--text", few, "--recipe", own, "--seconds", 0.2, "--seeds", 1
    )
    assert status == 0 and "| own |" in said
    name, ratio = last_ratio(said)
    assert name == "SPEEDRUN" and ratio > 1  # it has learned nothing


@pytest.mark.parametrize("name", ["plain", "course"])
def test_the_recipes_learn(name, few):
    recipe = race.load_recipe(ROOT / "tools" / "recipes" / f"{name}.py")
    corpus = race.split_tales(few)
    bits = [race.run_recipe(name, recipe, corpus, 1, steps=n)[0] for n in (1, 3)]
    assert bits[1] < bits[0]


def test_plain_is_the_public_recipe():
    recipe = race.load_recipe(ROOT / "tools" / "recipes" / "plain.py")
    tokenizer, model = recipe.build("abcdefgh", 1)
    c = model.config
    assert (c.vocab_size, c.context_length, c.d_model, c.n_layers, c.n_heads) == (
        8, 64, 128, 4, 4,
    )  # fmt: skip
    assert not c.bias and c.dropout == 0 and model.head.weight is model.tokens.weight
    assert all(type(m) is not race.nn.Dropout or m.p == 0 for m in model.modules())


def test_the_tales_are_split_as_in_chapter_6():
    corpus = race.split_tales(ROOT / "data" / "tales.txt")
    n = [part.count(race.END) for part in (corpus.train, corpus.held_out)]
    assert n == [7848, 872]
    assert corpus.n_bytes == len(corpus.held_out.replace(race.END, ""))  # ASCII


def test_a_file_is_cut_at_nine_tenths(written):
    corpus = race.split_file(written("x.txt", "abcdefghi\u00e9" * 3))
    assert len(corpus.train) == 27 and corpus.held_out == "hi\u00e9"
    assert corpus.n_bytes == 4


def test_untrained_characters_cost_what_they_must(few, written):
    """V equally likely characters: log2 V bits for each, over the bytes."""
    uniform = TINY.replace("nn.Embedding(V, V)", "nn.Embedding.from_pretrained("
                           "torch.zeros(V, V), freeze=False)")  # fmt: skip
    recipe = race.load_recipe(written("uniform.py", uniform.replace("10.0", "0.0")))
    corpus = race.split_tales(few)
    bits, _, _ = race.run_recipe("uniform", recipe, corpus, 1, steps=1)
    V, n = len(set(corpus.train)), len(corpus.held_out)
    expected = torch.tensor(V).log2().item() * n / corpus.n_bytes
    assert bits == pytest.approx(expected, rel=1e-5)


LOOKS_AHEAD = "return self.table(ids.roll(-1, 1))"
OTHER_ROWS = "return self.table(ids) + self.table(ids).mean((0, 1))"
REMEMBERS = "self.table.weight.data.add_(torch.rand(1)); return self.table(ids)"
UNITES = "return self.table(ids).flatten(0, 1)"
FORWARD = "return self.table(ids)\n"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("def build", "def construct", "has no function build"),
        ("def make_step", "def other", "has no function make_step"),
        (FORWARD, LOOKS_AHEAD + "\n", "may only use the ids before it"),
        (FORWARD, OTHER_ROWS + "\n", "may only use the ids before it"),
        (FORWARD, REMEMBERS + "\n", "other logits"),
        (FORWARD, UNITES + "\n", "not (B, T, V)"),
        ("from_text(text)", "from_text(text[:9])", "fails on the held-out text"),
        ("return tokenizer,", "tokenizer.decode = str; return tokenizer,",
         "does not give the held-out text back"),
        ("context_length=8", "context_length=10**6", "too few"),
        ("assert 0 <=", "import time; time.sleep(2.4); assert 0 <=",
         "make steps shorter"),
    ],
)  # fmt: skip
def test_a_recipe_that_breaks_a_rule_is_told_so(
    bench, few, written, tiny_recipes, old, new, message
):
    assert old in TINY
    own = written("own.py", TINY.replace(old, new))
    status, _, said = bench(
        "speedrun", "--text", few, "--recipe", own, "--seconds", 0.05, "--seeds", 1
    )
    assert status == 2 and message in said and said.count("\n") == 1


def test_a_recipe_that_is_not_there_is_named(bench, few):
    status, _, said = bench("speedrun", "--text", few, "--recipe", "no/such.py")
    assert status == 2 and "no/such.py" in said


def test_an_error_in_a_recipe_keeps_its_traceback(written, few):
    broken = TINY.replace("optimizer.step()", "raise ValueError('mine')")
    own = written("own.py", broken)
    recipe, corpus = race.load_recipe(own), race.split_tales(few)
    with pytest.raises(RuntimeError, match="recipe own") as caught:
        race.run_recipe("own", recipe, corpus, 1, seconds=0.1)
    assert str(caught.value.__cause__) == "mine"


def test_what_building_takes_beyond_the_free_time_is_taken_off(
    written, few, monkeypatch
):
    monkeypatch.setattr(race, "FREE", -5.0)
    recipe, corpus = race.load_recipe(written("own.py", TINY)), race.split_tales(few)
    with pytest.raises(ValueError, match="no time is left"):
        race.run_recipe("own", recipe, corpus, 1, seconds=1.0)


@pytest.mark.parametrize(
    "arguments, name",
    [
        (["bpe", "--vocab-size", "300", "280", "--rounds", "1"], "BPE"),
        (["dedup", "--documents", "20", "40", "--rounds", "1"], "DEDUP"),
    ],
)
def test_the_older_reports_end_with_a_ratio_too(bench, few, arguments, name):
    pytest.importorskip("tokenizers" if name == "BPE" else "datasketch")
    status, said, _ = bench(arguments[0], few, *arguments[1:])
    assert status == 0 and last_ratio(said)[0] == name


NAMES = "bpe dedup model step ladder train speedrun generate".split()


def test_the_command_line_names_its_reports():
    command = [sys.executable, str(ROOT / "tools" / "bench.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in said for name in NAMES)
