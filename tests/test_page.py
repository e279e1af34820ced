"""The page that thinks: in a browser, it computes what `solutions` computes.

Skipped, with the reason, where no Chromium is installed or none can start.
"""

import base64
import json
import re
import runpy
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import regex
import torch
from safetensors.torch import load

import pytest
from solutions.bpe import BPETokenizer, train_bpe
from solutions.generation import (
    from_pretrained,
    generate,
    next_token_distribution,
    window_start,
)
from solutions.gpt import GPT, GPTConfig
from solutions.pretokenization import GPT2_PATTERN
from test_language import broken

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "tale-gpt"
END = 2047
BENCH = runpy.run_path(str(ROOT / "tools" / "page_bench.py"))
tool = runpy.run_path(str(ROOT / "tools" / "page.py"))

TALE = (ROOT / "data" / "tales.txt").read_text("utf-8")[:4000]
PROMPTS = [
    "", " ", "\n", "a", "There was a", "There was a ", "Once upon a time",
    "The fox said, \"I can't.\"\n\n", "It's 12 o'clock, they'll come; we've 3.50",
    "Ein Bär aß zwölf Äpfel.", "東京の猫は眠い", "🐻 and 👩‍👩‍👧, é or e\u0301",
    "Здравствуй, мир", "שלום עולם", "x = {'a': 1}\n\tprint(x)\r\n", "<|endoftext|>",
    "aaaa" * 20, "   spaces   before", TALE[:940], TALE[:1500],
]  # fmt: skip
ODD_TEXTS = [
    "a<|endoftext|>b", "<|endoftext", "\ud800", "x\udc00y\ud83d", "\x1c\x1d\x1e\x1f",
    "a\x85b\u00a0c\u1680d\u2028e\u3000f\ufeffg", "\ufeffmark", "  \ufeff \x85 x\x85\ufeff",
    "\x00\x01\x7f",
    "'s't're've'm'll'd'S", " 's", "1²½Ⅷ٣", "a\u0301b\u200dc", "\r\n\r\n \t x  \n",
    "a" * 3000, "!?" * 300, "".join(map(chr, range(0x250))),
]  # fmt: skip
SETTINGS = [
    {}, {"temperature": 0.0}, {"temperature": 0.7}, {"temperature": 1.9},
    {"top_k": 1}, {"top_k": 5}, {"top_k": 9999}, {"top_p": 0.05}, {"top_p": 0.9},
    {"top_p": 1.0}, {"min_p": 0.1}, {"min_p": 1.0}, {"temperature": 1e-4},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02},
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser, with a window as on a desk."""
    blank = tmp_path_factory.mktemp("blank") / "blank.html"
    blank.write_text("<title>blank</title>", "utf-8")
    try:
        browser = runpy.run_path(str(ROOT / "tools" / "browser.py"))["Browser"]()
    except OSError as error:
        pytest.skip(str(error))
    with browser:
        try:
            browser.open(blank)
        except OSError as error:
            pytest.skip(str(error))
        browser.resize(1280, 900)
        yield browser


@pytest.fixture(scope="module")
def model():
    return from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.load(FOLDER / "tokenizer.json")


@pytest.fixture(scope="module")
def file(model, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    tool["write"](out, tool["build"](model, tokenizer, "tale-gpt"))
    return out


@pytest.fixture
def page(browser, file):
    """The browser with tale-gpt's page in it, and some functions for the tests."""
    if browser.run("location.href") == file.as_uri():
        return browser
    return opened(browser, file)


@pytest.fixture
def fresh(page):
    """The page as it is when it has just been opened."""
    page.run("set('prompt', 'There was a', 'input')")
    page.run("set('seed', 1, 'input')")
    page.run("idle()")
    return page


def opened(browser, file):
    browser.open(file)
    browser.run("course.ready.then(() => 1)")
    browser.run(HELPERS)
    return browser


HELPERS = r"""
globalThis.get = id => document.getElementById(id);
globalThis.set = (id, value, event) => {
  get(id).value = value;
  get(id).dispatchEvent(new Event(event));
};
globalThis.idle = async () => {  // nothing runs, and all of the text has been read
  while (course.tale.running || course.tale.logits === null) {
    await new Promise(done => setTimeout(done, 5));
  }
};
globalThis.sent = numbers => {  // float32 numbers, in base64
  const bytes = new Uint8Array(Float32Array.from(numbers).buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
};
globalThis.logits_of = ids => {  // at all positions of what the model sees
  const { model, KVCache, window_start } = course;
  const seen = ids.slice(window_start(ids.length, model.config.context_length));
  return sent(model.forward(seen, new KVCache(model.config)));
};
1"""


def call(browser, function: str, *arguments):
    """Call a JavaScript function; surrogates arrive as they are."""
    return browser.run(f"({function})({', '.join(map(json.dumps, arguments))})")


def received(numbers: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(numbers)), dtype=torch.float32)


def seen(ids: list[int], context_length: int) -> torch.Tensor:
    return torch.tensor([ids[window_start(len(ids), context_length) :]])


@pytest.mark.parametrize("text", PROMPTS, ids=range(len(PROMPTS)))
def test_the_logits_are_those_of_pytorch_at_every_position(
    page, model, tokenizer, text
):
    ids = [END, *tokenizer.encode_ordinary(text)]
    assert call(page, "text => course.tokenizer.encode_ordinary(text)", text) == ids[1:]
    ours = received(call(page, "logits_of", ids)).view(-1, model.config.vocab_size)
    with torch.no_grad():
        theirs = model(seen(ids, 256))[0]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-3


def test_some_prompts_fill_the_context_and_some_exceed_it(tokenizer):
    lengths = [1 + len(tokenizer.encode_ordinary(text)) for text in PROMPTS]
    assert len(PROMPTS) == 20 and 1 in lengths
    assert any(200 < n <= 256 for n in lengths) and any(n > 384 for n in lengths)


def test_reading_that_another_text_overtakes_is_given_up(page):
    script = (
        "async (a, b) => { const reader = new course.Reader(course.model);"
        "const one = reader.read(a), two = reader.read(b);"
        "return [await one === null, (await two).length]; }"
    )
    assert call(page, script, list(range(100)), [1, 2]) == [True, 2048]


def test_odd_texts_have_the_same_ids_and_come_back(page, tokenizer):
    script = (
        "texts => texts.map(text => { const ids = course.tokenizer.encode_ordinary(text);"
        "return [ids, course.tokenizer.decode(ids) === text.toWellFormed()]; })"
    )
    for text, (ids, back) in zip(ODD_TEXTS, call(page, script, ODD_TEXTS), strict=True):
        assert ids == tokenizer.encode_ordinary(text)
        assert back


def test_every_assigned_character_is_cut_alike(page):
    """Letters, numbers, spaces and the rest: JavaScript's classes are those of `regex`.

    Characters that Unicode has not assigned, as far as Python knows, may differ.
    """
    skipped = {"Cn", "Co", "Cs"}
    points = [i for i in range(0x110000) if unicodedata.category(chr(i)) not in skipped]
    script = (
        "points => { const [pattern] = course.tokenizer.patterns;"
        "return points.map(i => { const c = String.fromCodePoint(i);"
        "const pieces = `a${c}1${c} !  ${c}`.match(pattern);"
        "return pieces.map(piece => [...piece].length).join(''); }); }"
    )
    find = regex.compile(GPT2_PATTERN).findall
    ours = call(page, script, points)
    wrong = [
        hex(i) for i, cut in zip(points, ours, strict=True)
        if cut != "".join(str(len(x)) for x in find(f"a{chr(i)}1{chr(i)} !  {chr(i)}"))
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_distribution_is_that_of_chapter_7(page, settings):
    g = torch.Generator().manual_seed(3)
    rows = [torch.randn(500, generator=g) * 3, torch.tensor([1.0, 3.0, 3.0, -2.0, 3.0])]
    script = (
        "(rows, settings) => rows.map("
        "row => sent(course.next_token_distribution(row, settings)))"
    )
    tables = call(page, script, [row.tolist() for row in rows], settings)
    for row, ours in zip(rows, map(received, tables), strict=True):
        theirs = next_token_distribution(row, **settings)
        if settings.get("top_p", 1.0) == 1.0 or len(row) > 5:  # a sort decides on ties
            assert torch.equal(ours > 0, theirs > 0)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1, 123_456_789, 2**32 - 1])
def test_the_random_numbers_are_those_of_torch(page, seed):
    script = (
        "seed => { const generator = new course.Generator(seed);"
        "return Array.from({length: 1000}, () => generator.uniform()); }"
    )
    theirs = torch.empty(1000, dtype=torch.float64)
    theirs.uniform_(generator=torch.Generator().manual_seed(seed))
    assert call(page, script, seed) == theirs.tolist()


def test_the_page_tells_the_tale_of_its_seed(fresh, model, tokenizer):
    """With its first settings the page writes what tools/generate.py writes."""
    n, seconds = fresh.run(f"({BENCH['TELL']})(12)")
    prompt = [END, *tokenizer.encode_ordinary("There was a")]
    g = torch.Generator().manual_seed(12)
    settings = {"temperature": 0.7, "min_p": 0.1, "stop_ids": [END], "generator": g}
    [ids] = generate(model, [prompt], 400, **settings)
    story = "There was a" + fresh.run("get('story-new').textContent")
    assert story == tokenizer.decode(list(ids)[1:])
    assert n == len(ids) - len(prompt) and seconds > 0
    assert "the end" in fresh.run("get('story-end').textContent")
    assert "per second" in fresh.run("get('status').textContent")
    shown = fresh.run("[...get('tokens').children].map(c => Number(c.dataset.id))")
    assert shown == list(ids)
    assert fresh.problems == []
    fresh.run("get('step').click()")  # nothing comes after the end
    assert fresh.run("course.tale.ids") == list(ids)
    fresh.run("get('reset').click(); idle()")
    assert fresh.run("course.tale.ids") == prompt


def test_what_is_drawn_is_what_the_page_announced(fresh):
    """The marked bar and the stretch under the random number are the next token."""
    for settings in [{}, {"temperature": 0}, {"temperature": 2, "top_p": 0.9}]:
        for name, value in settings.items():
            fresh.run(f"set({name!r}, {value}, 'input')")
        for _ in range(4):
            marked = fresh.run("document.querySelector('#bars .hit td').textContent")
            fresh.run("get('step').click(); idle()")
            chip = fresh.run("get('tokens').lastChild.firstChild.textContent")
            assert chip == marked
    for name, value in [("temperature", 0.7), ("top_p", 1)]:
        fresh.run(f"set({name!r}, {value}, 'input')")


def test_a_setting_that_cuts_a_token_off_is_named(fresh):
    for name, value, words in [("top_k", 0, "cut: top-k"), ("top_p", 0.1, "cut: top-p"),
                               ("min_p", 1, "cut: min-p")]:  # fmt: skip
        before = fresh.run(f"get({name!r}).value")
        fresh.run(f"set({name!r}, {value}, 'input')")
        rows = fresh.run("[...get('bars').tBodies[0].rows].map(row => row.innerText)")
        assert len(rows) == 10 and words in rows[-1] and "cut" not in rows[0]
        assert "1 token can be drawn" in fresh.run("get('rest').textContent")
        fresh.run(f"set({name!r}, {before}, 'input')")


def test_all_heads_show_the_attention_of_the_chosen_token(fresh, model, tokenizer):
    from solutions.attention import attention_weights, causal_mask

    ids = [END, *tokenizer.encode_ordinary("There was a")]
    weights = {}

    def keep(module, inputs):
        q, k, _ = module.split_heads(inputs[0])
        weights[module] = attention_weights(q, k, causal_mask(len(ids)))[0]

    hooks = [b.attention.register_forward_pre_hook(keep) for b in model.blocks]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    fresh.run("document.querySelectorAll('#layers input')[2].click()")
    fresh.run("get('token-2').click()")
    spans = (
        "[...get('heads').children].map(one => "
        "[...one.querySelectorAll('.shaded span')].map(span => span.title))"
    )
    for shown, theirs in zip(fresh.run(spans), weights[model.blocks[2].attention]):
        assert len(shown) == 3  # itself and what comes before it
        for said, weight in zip(shown, theirs[2, :3].tolist(), strict=True):
            assert abs(float(said.strip("<%")) - 100 * weight) <= 0.051
    fresh.run("document.querySelectorAll('#layers input')[4].click()")


def test_it_can_be_driven_by_the_keyboard_alone(fresh):
    active, n_tokens = "document.activeElement.id", "course.tale.ids.length"
    fresh.run("document.activeElement.blur()")
    reached = []
    while "min_p" not in reached and len(reached) < 40:
        fresh.press("Tab")
        reached.append(fresh.run(active))
        if reached[-1] == "step":
            fresh.press("Enter", text="\r")
            fresh.run("idle()")
            fresh.press(" ", text=" ")
            fresh.run("idle()")
            assert fresh.run(n_tokens) == 6
        if reached[-1] == "tokens":
            fresh.press("ArrowLeft")
            assert "position 4." in fresh.run("get('about-token').textContent")
            fresh.press("Home")
            assert "position 0." in fresh.run("get('about-token').textContent")
            fresh.press("Escape")
            assert "position 5." in fresh.run("get('about-token').textContent")
        if reached[-1] == "top_k":
            fresh.press("Home")
            assert "1 token can be drawn" in fresh.run("get('rest').textContent")
            fresh.press("End")
    order = "prompt story step run reset seed new-seed pace tokens top_k top_p"
    found = [reached.index(name) for name in [*order.split(), "min_p"]]
    assert found == sorted(found)
    fresh.run("get('prompt').focus()")
    fresh.press("Enter", modifiers=2)
    fresh.run("idle()")
    assert fresh.run(n_tokens) == 7
    fresh.run("set('pace', 8, 'change')")
    fresh.press("Enter", modifiers=10)
    assert fresh.run("get('run').textContent") == "Stop"
    fresh.press("Escape")
    fresh.run("idle()")
    assert fresh.run("get('run').textContent") == "Run"
    named = (
        "[...document.querySelectorAll('button, input, select, textarea')].filter("
        "one => !one.textContent.trim() && !one.labels?.length).length"
    )
    assert fresh.run(named) == 0


def test_new_text_is_given_to_screen_readers(fresh):
    fresh.run("get('step').click(); idle()")
    new = fresh.run("get('story-new').textContent")
    live = "document.querySelector('[aria-live]')"
    fresh.run("new Promise(done => setTimeout(done, 20))")
    assert new and fresh.run(f"{live}.textContent") == new
    assert fresh.run(f"{live}.getAttribute('aria-live')") == "polite"


def test_a_phone_needs_no_sideways_scrolling(fresh):
    try:
        fresh.resize(360, 740, phone=True)
        text = "x" * 257
        fresh.run(f"set('prompt', {json.dumps(text)}, 'input')")
        fresh.run("idle()")
        fresh.run("document.querySelector('details').open = true")
        fresh.run("get('step').click(); idle()")
        sizes = "[document.documentElement.scrollWidth, innerWidth]"
        width, window = fresh.run(sizes)
        assert window == 360 and width <= window
        note = fresh.run("get('context-note').textContent")
        assert re.search(r"The first [\d,]+ tokens, pale above, no longer fit", note)
    finally:
        fresh.run("document.querySelector('details').open = false")
        fresh.resize(1280, 900)


def test_markup_in_a_text_stays_text(fresh):
    fresh.run("set('prompt', '<b id=bold>x</b><img src=y>', 'input')")
    fresh.run("idle()")
    assert fresh.run("get('bold')") is None
    assert fresh.run("get('story-prompt').textContent") == "<b id=bold>x</b><img src=y>"


def test_the_console_stays_empty_and_the_network_unused(browser, file):
    opened(browser, file)
    browser.run("set('pace', 0, 'change'); set('top_k', 0, 'input')")
    browser.run("get('run').click(); new Promise(done => setTimeout(done, 100))")
    browser.run("get('run').click(); idle()")
    assert browser.run("course.tale.ids.length") > 4
    assert browser.requests == [file.as_uri()]
    assert browser.problems == []
    browser.run(
        "console.error('seen'); setTimeout(() => fetch('https://example.org/'))"
    )
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert any("seen" in one for one in browser.problems)
    assert any("Content Security Policy" in one for one in browser.problems)


OTHERS = {
    "later": {"norm": "rms", "mlp": "swiglu", "positions": "rotary", "bias": False,
              "n_kv_heads": 2, "d_head": 10, "qk_norm": True, "tie_embeddings": False,
              "rope_base": 500.0, "d_mlp": 50},
    "sinusoidal": {"mlp": "relu2", "positions": "sinusoidal", "n_kv_heads": 1,
                   "norm_eps": 1e-2},
    "none": {"positions": "none", "n_kv_heads": 4, "bias": False, "d_mlp": 21},
}  # fmt: skip


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    """A small GPT of another architecture, as far from its start as training leads."""
    g = torch.Generator().manual_seed(0)
    config = GPTConfig(300, 24, 24, 2, 4, **OTHERS[request.param])
    other = GPT(config, generator=g).eval()
    for parameter in other.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=g)
    return other


@pytest.fixture
def other_page(browser, other, tmp_path):
    file = tmp_path / "page.html"
    tool["write"](file, tool["build"](other, train_bpe(TALE, 300), "other"))
    return opened(browser, file)


def test_other_architectures_have_pytorchs_logits(other_page, other):
    for n in (1, 7, 24, 30):
        ids = [i * i % 300 for i in range(n)]
        ours = received(call(other_page, "logits_of", ids)).view(-1, 300)
        with torch.no_grad():
            theirs = other(seen(ids, 24))[0]
        assert (ours - theirs).abs().max() < 1e-3
    assert other_page.problems == []


def test_a_text_that_is_edited_is_read_as_if_it_were_new(other_page, other):
    """What the cache still holds serves on; what was changed is read again."""
    ids = [i * i % 300 for i in range(100)]
    texts = [ids[:5], ids[:20], ids[:10], ids[:10] + ids[30:40], ids[:20] + [7, 8, 9]]
    texts += [ids[:24], ids[:25], ids[:26], ids[:25], ids[:36], ids[:37], ids[1:19]]
    script = (
        "async texts => { const reader = new course.Reader(course.model), all = [];"
        "for (const ids of texts) all.push(sent(await reader.read(ids))); return all; }"
    )
    all_ours = [received(one) for one in call(other_page, script, texts)]
    for text, ours in zip(texts, all_ours, strict=True):
        with torch.no_grad():
            theirs = other(seen(text, 24), last_only=True)[0, -1]
        assert (ours - theirs).abs().max() < 1e-3


STREAMED = [
    {"temperature": 0.7, "min_p": 0.1}, {"temperature": 1.5, "top_k": 40},
    {"top_p": 0.8, "stop_ids": [*range(7)]}, {"temperature": 0.0}, {"n_vocab": 100},
]  # fmt: skip


def test_stream_gives_the_tokens_of_generate_beyond_the_context(other_page, other):
    script = (
        "async (ids, seed, settings) => { const new_ids = [];"
        "const generator = new course.Generator(seed);"
        "const options = {...settings, generator};"
        "for await (const token of course.stream(course.model, ids, 60, options))"
        "  new_ids.push(token);"
        "return new_ids; }"
    )
    for seed, settings in enumerate(STREAMED):
        g = torch.Generator().manual_seed(seed)
        [theirs] = generate(other, [[1, 2, 3]], 60, generator=g, **settings)
        ours = call(other_page, script, [1, 2, 3], seed, settings)
        assert [1, 2, 3, *ours] == list(theirs)


def test_digits_apart_and_equal_letters_are_cut_as_in_python(browser, tmp_path):
    tokenizer = train_bpe("1 12 123 1234, a1b 2c aaa " * 5, 270,
                          pattern=[r"\p{N}", GPT2_PATTERN])  # fmt: skip
    small = GPT(GPTConfig(270, 8, 8, 1, 1))
    file = tmp_path / "page.html"
    tool["write"](file, tool["build"](small, tokenizer, "digits"))
    opened(browser, file)
    text = "In 1234, ½ of 12a3\n 99  bottles, aaaaa"  # (a a)(a a)a, from the left
    assert (b"a", b"a") in tokenizer.merges
    ids = call(browser, "text => course.tokenizer.encode_ordinary(text)", text)
    assert ids == tokenizer.encode_ordinary(text)


def test_without_an_end_token_an_empty_beginning_is_refused(browser, tmp_path):
    tokenizer = train_bpe(TALE, 270)
    small = GPT(GPTConfig(280, 8, 8, 1, 1))  # with ids that no token has
    file = tmp_path / "page.html"
    tool["write"](file, tool["build"](small, tokenizer, "small"))
    opened(browser, file)
    browser.run("set('prompt', '', 'input')")
    assert "Type a word" in browser.run("get('status').textContent")
    style = "getComputedStyle(document.querySelector('.steps')).display"
    assert browser.run(style) == "none"
    browser.run("get('step').click(); get('run').click()")
    assert browser.run("course.tale.ids") == []
    browser.run("set('prompt', 'b', 'input'); idle()")
    assert browser.run(style) != "none"
    browser.run("set('temperature', 2, 'input'); get('step').click(); idle()")
    assert browser.run("course.tale.ids.length") == 2
    assert browser.problems == []


# ------------------------------------------------------------ without any browser


def test_the_page_holds_every_weight_exactly(file, model):
    text = file.read_text("utf-8")
    [held] = re.findall(r'id="weights">([^<]*)<', text)
    weights = load(base64.b64decode(held))
    assert weights.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(weights[name].float(), parameter), name
    assert len(text) < 8e6


def test_weights_that_16_bits_would_change_stay_in_32(tokenizer):
    small = GPT(GPTConfig(300, 8, 8, 1, 1))
    weights = load(tool["weights_of"](small))
    for name, parameter in small.named_parameters():
        assert torch.equal(weights[name].float(), parameter), name


def test_the_page_asks_for_nothing_from_elsewhere(file):
    text = file.read_text("utf-8")
    assert "default-src 'none'" in text and "{{" not in text.split('id="facts"')[0]
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(?!["']?data:)""", text)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which is not fetched


def run_tool(*args, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["page.py", *map(str, args)])
    return tool["main"](), capsys.readouterr()


def test_the_command_writes_the_file_whole(tmp_path, monkeypatch, capsys, file):
    out = tmp_path / "new" / "page.html"
    status, said = run_tool("--out", out, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, [p.name for p in out.parent.iterdir()]) == (0, ["page.html"])
    assert "7.7 MB" in said.out and out.read_text("utf-8") == file.read_text("utf-8")


def test_what_the_page_cannot_run_is_refused_by_name(monkeypatch, tokenizer):
    scaled = GPTConfig(300, 8, 8, 1, 1, positions="rotary", rope_scaling=(8, 1, 4, 8))
    with pytest.raises(ValueError, match=r"rope_scaling=\(8, 1, 4, 8\)"):
        tool["build"](GPT(scaled), tokenizer, "x")
    other = BPETokenizer([], pattern=r"\w+")
    with pytest.raises(ValueError, match=r"pattern='\\\\w\+' of the tokenizer"):
        tool["build"](GPT(GPTConfig(300, 8, 8, 1, 1)), other, "x")
    monkeypatch.setitem(tool["weights_of"].__globals__, "LARGEST", 0.001)
    with pytest.raises(ValueError, match="the weights take 0 MB, and a page holds at"):
        tool["build"](GPT(GPTConfig(300, 8, 8, 1, 1)), tokenizer, "x")


def test_a_folder_without_a_model_is_an_error_in_one_line(
    tmp_path, monkeypatch, capsys
):
    status, said = run_tool("--model", tmp_path / "none", "--out", tmp_path / "x.html",
                            monkeypatch=monkeypatch, capsys=capsys)  # fmt: skip
    assert status == 2 and said.err.startswith("page: --model ")
    assert said.err.count("\n") == 1 and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_the_bench_reports_tokens_per_second_over_20(monkeypatch, capsys):
    class FakeBrowser:
        tales = iter([[150, 3.0], [100, 4.0], [90, 1.0]])

        __enter__ = __exit__ = lambda *_: None
        resize = open = lambda *_: None

        def run(self, expression):
            return next(self.tales) if "seed" in expression else None

    browser = FakeBrowser()
    monkeypatch.setattr(FakeBrowser, "__enter__", lambda self: browser)
    modules = {"browser": {"Browser": lambda: browser},
               "page": {"build": lambda *_: "", "write": lambda *_: None},
               "generate": {"load": lambda _: (None, None)}}  # fmt: skip
    for name, parts in modules.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**parts))
    BENCH["bench_page"](SimpleNamespace(model="x", rounds=3))
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["tokens per second: 50.0 (25.0 .. 90.0)", "PAGE 2.500"]


def test_its_words_are_those_of_the_house():
    for source in sorted((ROOT / "tools" / "page").iterdir()):
        text = source.read_text("utf-8")
        if source.suffix == ".html":
            words = re.sub(r"<[^>]*>", " ", text)
        elif source.suffix == ".css":
            words = " ".join(re.findall(r"/\*.*?\*/", text, re.S))
        else:
            words = " ".join(re.findall(r"//.*|/\*.*?\*/|`[^`]*`|\"[^\"]*\"", text))
            words = words.replace("`", "")
        assert broken(words) == [], source.name
        assert max(map(len, text.splitlines())) <= 400, source.name
