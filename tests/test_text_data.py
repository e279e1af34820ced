"""Chapter 1's module: reading, cleaning, duplicates, split, counts, batches, files."""

import itertools
import math
import random
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from solutions import text_data as td

ROOT = Path(__file__).resolve().parent.parent
quick = settings(deadline=None, max_examples=50)


@pytest.fixture(scope="module")
def tales():
    text = td.clean_text(td.load_text(ROOT / "data" / "long_tales.txt"))
    return td.split_documents(text)


def edited(text, share, rng):
    words = text.split(" ")
    return " ".join(rng.choice(words) if rng.random() < share else w for w in words)


def runs(text, size=9):
    """The shingles as Python strings: the independent reference."""
    text = " ".join(text.lower().split()).ljust(size)
    return {text[i : i + size] for i in range(len(text) - size + 1)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Reading and cleaning


def test_a_loaded_file_is_its_characters_and_nothing_is_lost(tmp_path):
    text = "\ufeffcafé\r\n\u2028🦊\x00\n\n"
    (tmp_path / "t.txt").write_bytes(text.encode("utf-8"))
    assert td.load_text(tmp_path / "t.txt") == text
    assert td.load_text(str(tmp_path / "t.txt")) == text


@pytest.mark.parametrize(
    "data, byte, offset",
    [
        (b"caf\xe9!", "0xe9", 3),  # Latin-1
        (b"\xff\xfet\x00", "0xff", 0),  # UTF-16
        (b"ab\xed\xa0\x80", "0xed", 2),  # a lone surrogate
        (b"abc\xc3", "0xc3", 3),  # cut off in a character
    ],
)
def test_bytes_that_are_not_utf8_are_named_with_file_and_offset(
    tmp_path, data, byte, offset
):
    path = tmp_path / "strange.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"strange.txt.*{byte} at offset {offset};"):
        td.load_text(path)


@pytest.mark.parametrize(
    "dirty, clean",
    [
        ("cafe\u0301", "caf\u00e9"),
        ("\ufefftale", "tale"),
        ("a\r\nb\rc\x85d\u2028e\u2029f\x0bg\x0ch", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\x00b\x1bc\x7fd\x9f", "abcd"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("\ud800x", "x"),
        ("10\u00b2 \ufb01 a\u00a0b \u200d", "10\u00b2 \ufb01 a\u00a0b \u200d"),  # stays
    ],
)
def test_cleaning_unifies_what_looks_alike_and_keeps_what_differs(dirty, clean):
    assert td.clean_text(dirty) == clean


@quick
@given(st.text(st.characters(), min_size=1))
def test_cleaned_text_is_clean_and_stays_as_it_is(text):
    clean = td.clean_text(text)
    assert unicodedata.is_normalized("NFC", clean)
    assert {unicodedata.category(c) for c in clean if c not in "\t\n"}.isdisjoint(
        {"Cc", "Cs", "Zl", "Zp"}
    )
    clean.encode("utf-8")
    assert not clean or td.clean_text(clean) == clean


def test_blank_lines_separate_documents():
    text = "\n\n one\nline two \n \t\n\n\n\ntwo\n\n  \n"
    assert td.split_documents(text) == ["one\nline two", "two"]
    assert td.split_documents("no blank line") == ["no blank line"]


def test_end_of_text_marks_separate_documents_and_blank_lines_then_do_not():
    end = "<|endoftext|>"
    text = f"one\n\nstill one\n{end}\ntwo {end}{end}\n\n{end}three{end}\n"
    assert td.split_documents(text) == ["one\n\nstill one", "two", "three"]
    assert td.split_documents(f"a\n\nb{end}") == ["a\n\nb"]
    assert td.split_documents("a <|end|> b\n\nc") == ["a <|end|> b", "c"]


# Duplicates


@quick
@given(st.text("abAB \n\u00e9🦊", min_size=1), st.text("abAB \n\u00e9🦊", min_size=1))
def test_shingles_and_jaccard_agree_with_sets_of_strings(a, b):
    for size in (1, 3, 9):
        one, two = td.shingles(a, size), td.shingles(b, size)
        assert one.dtype == np.uint64 and (one[:-1] < one[1:]).all()
        exact_a, exact_b = runs(a, size), runs(b, size)
        assert len(one) == len(exact_a)
        exact = len(exact_a & exact_b) / len(exact_a | exact_b)
        assert td.jaccard(one, two) == exact


def test_no_two_shingles_of_the_tales_share_a_number(tales):
    tales = tales[:150]
    exact = set().union(*map(runs, tales))
    assert len(np.unique(np.concatenate(list(map(td.shingles, tales))))) == len(exact)


def test_minhash_errs_no_more_than_theory_says_and_no_more_than_datasketch(tales):
    rng, n = random.Random(5), 120
    ours, theirs, spread = [], [], []
    for i, tale in enumerate(tales[:60]):
        pair = [tale, edited(tale, (0.01, 0.05, 0.2)[i % 3], rng)]
        a, b = map(runs, pair)
        exact = len(a & b) / len(a | b)
        one, two = (td.minhash(td.shingles(text), n) for text in pair)
        ours.append((one == two).mean() - exact)
        sketches = [MinHash(num_perm=n, seed=i), MinHash(num_perm=n, seed=i)]
        for sketch, text in zip(sketches, pair, strict=True):
            sketch.update_batch([run.encode("utf-8") for run in runs(text)])
        theirs.append(sketches[0].jaccard(sketches[1]) - exact)
        spread.append(exact * (1 - exact) / n)
    theory = math.sqrt(np.mean(spread))
    assert np.sqrt(np.mean(np.square(ours))) < 1.4 * theory
    assert np.sqrt(np.mean(np.square(ours))) < 1.5 * np.sqrt(np.mean(np.square(theirs)))
    assert abs(np.mean(ours)) < theory  # no drift to one side


@quick
@given(st.sets(st.integers(0, 2**64 - 1), min_size=1), st.sets(st.integers(0, 99)))
def test_the_signature_of_a_union_is_the_smaller_of_the_signatures(a, b):
    def sign(numbers):
        return td.minhash(np.array(sorted(numbers), dtype=np.uint64), 16)

    assert (sign(a | b) == (np.minimum(sign(a), sign(b)) if b else sign(a))).all()


def test_long_documents_are_hashed_in_blocks_with_the_same_result():
    numbers = np.random.default_rng(1).integers(0, 2**64, 10_000, dtype=np.uint64)
    parts = [td.minhash(part) for part in np.array_split(numbers, 7)]
    assert (td.minhash(numbers) == np.min(parts, axis=0)).all()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_have_as_many_rows_as_the_miss_rate_allows(threshold):
    def missed(r):
        return (1 - threshold**r) ** (120 // r)

    rows = td.rows_per_band(threshold)
    assert 120 % rows == 0 and missed(rows) < 1e-3
    assert all(missed(r) >= 1e-3 for r in range(rows + 1, 121) if 120 % r == 0)


@pytest.fixture(scope="module")
def planted(tales):
    """All tales and 240 edited copies, shuffled, and every pair's exact Jaccard."""
    rng = random.Random(6)
    copies = [edited(rng.choice(tales), 0.12 * rng.random(), rng) for _ in range(240)]
    documents = tales + copies
    rng.shuffle(documents)
    sets, column = list(map(runs, documents)), {}
    columns = [column.setdefault(run, len(column)) for s in sets for run in s]
    rows = np.repeat(np.arange(len(sets)), list(map(len, sets)))
    table = csr_array((np.ones(len(rows)), (rows, columns)))  # documents x shingles
    shared, sizes = (table @ table.T).toarray(), table.sum(axis=1)
    assert shared[3, 9] == len(sets[3] & sets[9])
    return documents, shared / (sizes[:, None] + sizes - shared)


def test_deduplicate_finds_the_planted_copies_and_drops_no_stranger(planted):
    documents, exact = planted
    kept_ids = set(map(id, td.deduplicate(documents)))  # some copies are exact
    kept = [i for i, d in enumerate(documents) if id(d) in kept_ids]
    dropped = sorted(set(range(len(documents))) - set(kept))
    assert len(dropped) > 60

    def likeness(i):  # to the most similar kept document before it
        return max((exact[i, j] for j in kept if j < i), default=0)

    should = [i for i in range(len(documents)) if likeness(i) >= 0.85]
    found = [i for i in should if i in set(dropped)]
    assert len(should) > 40 and len(found) >= 0.99 * len(should)
    assert all(likeness(i) >= 0.8 for i in dropped)  # so none below 0.5 either


def test_deduplicate_agrees_with_datasketch(planted):
    documents, exact = planted
    lsh, sketches = MinHashLSH(num_perm=120, params=(24, 5)), []
    for document in documents[:200]:
        sketch = MinHash(num_perm=120)
        sketch.update_batch([run.encode("utf-8") for run in runs(document)])
        sketches.append(sketch)
    kept = []
    for i, sketch in enumerate(sketches):
        if all(exact[i, j] < 0.8 for j in lsh.query(sketch)):
            lsh.insert(i, sketch)
            kept.append(documents[i])
    assert td.deduplicate(documents[:200]) == kept


def test_strangers_are_hardly_ever_compared(tales, monkeypatch):
    calls, tales, real = [], tales[:200], td.jaccard
    monkeypatch.setattr(td, "jaccard", lambda a, b: calls.append(1) or real(a, b))
    assert td.deduplicate(tales) == tales
    assert len(calls) < 0.001 * math.comb(len(tales), 2)
    assert td.deduplicate([*tales[:9], tales[3]]) == tales[:9] and calls


def test_the_first_of_alike_documents_is_kept_in_order(tales):
    a, b = tales[0], tales[1]
    shouted, spaced = a.upper(), a.replace(" ", "\n  ")
    assert td.deduplicate([b, a, shouted, b, spaced]) == [b, a]
    assert td.deduplicate([shouted, b, a]) == [shouted, b]
    assert td.deduplicate(iter([a, a])) == [a]
    assert td.deduplicate([]) == []
    assert td.deduplicate(["a", "b", "a", "A"]) == ["a", "b"]


def test_only_kept_documents_count_as_models():
    words = [f"w{i:03}" for i in range(200)]
    a, b, c = (" ".join(words[i : i + 160]) for i in (0, 15, 30))
    jac = [
        td.jaccard(td.shingles(x), td.shingles(y)) for x, y in ((a, b), (b, c), (a, c))
    ]
    assert jac[0] >= 0.8 and jac[1] >= 0.8 and jac[2] < 0.8
    assert td.deduplicate([a, b, c]) == [a, c]
    assert td.deduplicate([b, a, c]) == [b]


def test_threshold_one_drops_only_the_same_shingles(tales):
    nearly = tales[0][:-1] + "!"
    assert td.deduplicate([tales[0], nearly, tales[0]], threshold=1) == [
        tales[0],
        nearly,
    ]


def test_tales_hold_no_near_duplicates(tales):
    assert len(tales) >= 250
    assert td.deduplicate(tales, threshold=0.5) == tales


# The split


@quick
@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_a_split_is_a_partition_in_order_of_the_stated_size(n, fraction, seed):
    documents = [f"d{i:03}" for i in range(n)]
    train, val = td.train_val_split(documents, fraction, generator=seeded(seed))
    assert sorted(train + val) == documents
    assert train == sorted(train) and val == sorted(val)
    assert len(val) == min(max(round(fraction * n), 1), n - 1)
    assert (train, val) == td.train_val_split(
        documents, fraction, generator=seeded(seed)
    )


def test_chance_decides_the_split_and_only_the_given_generator_is_used():
    documents, state = [str(i) for i in range(100)], torch.get_rng_state()
    splits = [
        td.train_val_split(documents, 0.1, generator=seeded(s)) for s in range(50)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    drawn = Counter(itertools.chain.from_iterable(val for _, val in splits))
    assert len(drawn) > 90 and max(drawn.values()) < 20


# Characters and counts


@quick
@given(st.text(min_size=1))
def test_characters_survive_the_round_trip(text):
    tokenizer = td.CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(text)) and max(ids) < tokenizer.vocab_size
    assert tokenizer.decode(np.array(ids)) == text
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_ids_follow_code_points_whatever_the_order_of_the_text():
    assert td.CharTokenizer.from_text("cab").encode("abc") == [0, 1, 2]


@quick
@given(st.lists(st.integers(0, 4), min_size=2), st.floats(0.01, 10))
def test_probabilities_are_smoothed_counts(ids, k):
    unigram = td.unigram_probabilities(ids, 5, k=k)
    bigram = td.bigram_probabilities(ids, 5, k=k)
    assert unigram.shape == (5,) and bigram.shape == (5, 5)
    assert unigram.dtype == bigram.dtype == torch.float64
    torch.testing.assert_close(bigram.sum(dim=1), torch.ones(5, dtype=torch.float64))
    ones, twos = Counter(ids), Counter(itertools.pairwise(ids))
    before = Counter(ids[:-1])
    for a in range(5):
        assert unigram[a].item() == pytest.approx((ones[a] + k) / (len(ids) + 5 * k))
        for b in range(5):
            expected = (twos[a, b] + k) / (before[a] + 5 * k)
            assert bigram[a, b].item() == pytest.approx(expected)


def test_of_one_token_everything_is_certain():
    assert td.unigram_probabilities([0, 0], 1).tolist() == [1.0]
    assert td.bigram_probabilities([0, 0], 1).tolist() == [[1.0]]


def test_counting_accepts_token_files_and_small_dtypes():
    ids = np.arange(250, dtype=np.uint8)  # 249 * 250 would overflow
    table = td.bigram_probabilities(ids, 250, k=1e-9)
    assert table[248, 249] > 0.99 and table[0, 1] > 0.99


# Windows and batches


def test_targets_are_the_tokens_that_follow():
    x, y = td.get_batch(list(range(50)), 64, 7, generator=seeded())
    assert x.shape == y.shape == (64, 7) and x.dtype == y.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(7))


def test_every_start_can_be_drawn_the_first_and_the_last_included():
    x, y = td.get_batch(np.arange(10, dtype=np.uint16), 500, 4, generator=seeded())
    assert set(x[:, 0].tolist()) == set(range(6)) and y.max() == 9
    x, y = td.get_batch([5, 6, 7], 3, 2, generator=seeded())  # only one window
    assert x.tolist() == [[5, 6]] * 3 and y.tolist() == [[6, 7]] * 3


def test_batches_repeat_with_the_generator_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    a = td.get_batch(range(100), 8, 5, generator=seeded(3))
    b = td.get_batch(range(100), 8, 5, generator=seeded(3))
    c = td.get_batch(range(100), 8, 5, generator=seeded(4))
    assert torch.equal(a[0], b[0]) and not torch.equal(a[0], c[0])
    assert torch.equal(torch.get_rng_state(), state)


@quick
@given(st.integers(2, 60), st.integers(1, 20))
def test_windows_count_each_target_once_after_the_right_token(n, context_length):
    if n <= context_length:
        return
    x, y = td.windows(list(range(100, 100 + n)), context_length)
    assert x.shape == y.shape == (math.ceil((n - 1) / context_length), context_length)
    counted = y != -100
    assert y[counted].tolist() == list(range(101, 100 + n))
    assert torch.equal(y[counted], x[counted] + 1)


def test_torch_cross_entropy_over_windows_is_the_loss_over_the_text():
    ids = torch.randint(9, (101,), generator=seeded()).tolist()
    logits = td.bigram_probabilities(ids, 9).log()
    x, y = td.windows(ids, 16)
    loss = torch.nn.functional.cross_entropy(logits[x].flatten(0, 1), y.flatten())
    direct = -logits[torch.tensor(ids[:-1]), torch.tensor(ids[1:])].mean()
    torch.testing.assert_close(loss, direct)


# Token files


@pytest.mark.parametrize(
    "ids, dtype",
    [
        ([0], np.uint16),
        ([5, 65_535], np.uint16),
        ([65_536, 1], np.uint32),
        ([2**32 - 1], np.uint32),
    ],
)
def test_tokens_survive_in_the_smallest_type_that_holds_them(tmp_path, ids, dtype):
    path = tmp_path / "a" / "tokens.npy"
    path.parent.mkdir()
    assert td.write_tokens(path, iter(ids)) == len(ids)
    tokens = td.read_tokens(path)
    assert tokens.dtype == dtype and tokens.tolist() == ids
    assert isinstance(tokens, np.memmap) and np.load(path).tolist() == ids
    assert [p.name for p in path.parent.iterdir()] == ["tokens.npy"]


def test_batches_come_from_a_file_as_from_a_list(tmp_path):
    ids = torch.randint(70_000, (3000,), generator=seeded()).tolist()
    td.write_tokens(tmp_path / "t.npy", ids)
    tokens = td.read_tokens(tmp_path / "t.npy")
    for a, b in zip(
        td.get_batch(tokens, 4, 9, generator=seeded()),
        td.get_batch(ids, 4, 9, generator=seeded()),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert torch.equal(td.windows(tokens, 64)[1], td.windows(ids, 64)[1])


@pytest.mark.parametrize("last, width", [(8, 2), (70_000, 4)])
def test_writing_does_not_hold_the_stream_in_memory(tmp_path, last, width):
    n = 4_000_000  # as a list of pointers alone 32 MB
    tracemalloc.start()
    stream = itertools.chain(itertools.repeat(7, n), [last])
    assert td.write_tokens(tmp_path / "t.npy", stream) == n + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert (tmp_path / "t.npy").stat().st_size < width * n + 1000
    assert td.read_tokens(tmp_path / "t.npy")[-2:].tolist() == [7, last]


BLOCKS_OF_ONE_TO_SEVEN = pytest.mark.parametrize("block", [1, 2, 3, 7])


@BLOCKS_OF_ONE_TO_SEVEN
@pytest.mark.parametrize("large", [(), (0,), (1,), (6,), (11,), (3, 9), range(12)])
def test_a_token_file_is_the_one_that_numpy_saves(tmp_path, monkeypatch, block, large):
    """Also when the first id above 65,535 comes after some blocks have been written."""
    monkeypatch.setattr(td, "_BLOCK", block)
    ids = [(65_536 + i if i in large else 65_535 - i) for i in range(12)]
    td.write_tokens(tmp_path / "t.npy", iter(ids))
    np.save(tmp_path / "u.npy", np.array(ids, dtype="<u4" if large else "<u2"))
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "u.npy").read_bytes()


def test_ids_are_written_once_in_the_type_that_stays(tmp_path, monkeypatch):
    def watched(ids):
        for i in ids:
            files = list(tmp_path.iterdir())
            assert [p.name for p in files] == ["t.npy.part"]
            largest.append(files[0].stat().st_size)
            yield i

    largest: list[int] = []
    monkeypatch.setattr(td, "_BLOCK", 5000)
    monkeypatch.setattr(td, "_widen", lambda *_: pytest.fail("rewritten"))
    n = td.write_tokens(tmp_path / "t.npy", watched(range(20_000)))
    assert 0 < max(largest) <= (tmp_path / "t.npy").stat().st_size == 128 + 2 * n
    td.write_tokens(tmp_path / "t.npy", [1])


@pytest.mark.parametrize("n", [1, 9, 10, 99_999, 100_000])
def test_ids_begin_after_128_bytes_however_many_there_are(tmp_path, n):
    td.write_tokens(tmp_path / "t.npy", itertools.repeat(3, n))
    assert (tmp_path / "t.npy").stat().st_size == 128 + 2 * n
    header = {"descr": "<u4", "fortran_order": False, "shape": (10**15 + n,)}
    with open(tmp_path / "h", "wb") as file:  # a header for more than any disk holds
        np.lib.format.write_array_header_1_0(file, header)
    assert (tmp_path / "h").stat().st_size == td._HEADER


def test_a_broken_stream_leaves_the_old_file_and_nothing_else(tmp_path):
    def broken():
        yield from range(10)
        raise RuntimeError("the source broke")

    path = tmp_path / "t.npy"
    td.write_tokens(path, [1, 2, 3])
    with pytest.raises(RuntimeError, match="the source broke"):
        td.write_tokens(path, broken())
    assert td.read_tokens(path).tolist() == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["t.npy"]


def test_a_place_that_cannot_be_written_keeps_no_scraps(tmp_path):
    (tmp_path / "t.npy").mkdir()
    with pytest.raises(OSError):
        td.write_tokens(tmp_path / "t.npy", [1, 2, 3])
    assert [p.name for p in tmp_path.iterdir()] == ["t.npy"]


def test_opening_a_token_file_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="trap.npy' is not a token file"):
        td.read_tokens(tmp_path / "trap.npy")


def saved(folder, data):
    path = folder / "bad.npy"
    path.write_bytes(data) if isinstance(data, bytes) else np.save(path, data)
    return path


def test_files_of_other_kinds_are_named_and_no_dangerous_way_is_advised(tmp_path):
    """nanoGPT's train.bin, an archive, empty and cut files, objects, a text."""
    np.savez(tmp_path / "a.npz", x=np.arange(3, dtype=np.uint16))
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "train.bin")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes(whole_npy(tmp_path)[:90])
    (tmp_path / "long.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\0\0" + b" " * 65535)
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "tale.txt").write_text("Once upon a time", "utf-8")
    names = sorted(p.name for p in tmp_path.iterdir() if p.name != "whole.npy")
    assert len(names) == 7
    for name in names:
        with pytest.raises(ValueError, match=f"{name}' is not a token file") as caught:
            td.read_tokens(tmp_path / name)
        assert "write_tokens" in str(caught.value)
        assert "pickle" not in str(caught.value)


def whole_npy(folder):
    td.write_tokens(folder / "whole.npy", range(1000))
    return (folder / "whole.npy").read_bytes()


# What bad input gets

E_ = np.array([], dtype=np.uint64)
TOKENIZER = td.CharTokenizer.from_text("abc")
BAD = [
    # call given a temporary folder, error, what the message says
    (
        lambda d: td.load_text(saved(d, b"")),
        ValueError,
        "bad.npy' is an empty file; give",
    ),
    (lambda d: td.load_text(d / "none"), FileNotFoundError, "none"),
    (lambda d: td.clean_text(""), ValueError, "text='' is empty; give"),
    (lambda d: td.clean_text(b"a"), TypeError, "text must be a str, got bytes"),
    (lambda d: td.split_documents(""), ValueError, "text='' is empty"),
    (lambda d: td.split_documents(["a"]), TypeError, "text must be a str, got list"),
    (lambda d: td.shingles(""), ValueError, "text='' is empty"),
    (lambda d: td.shingles("a", 0), ValueError, "size=0 must be at least 1"),
    (lambda d: td.jaccard(E_, E_), ValueError, "0 and 0 shingles; give at least one"),
    (lambda d: td.minhash(E_), ValueError, "numbers\\)=0 must be at least 1"),
    (lambda d: td.minhash(np.ones(1, "u8"), 0), ValueError, "n_hashes=0 must be at least 1"),
    (lambda d: td.rows_per_band(0.01), ValueError, "0.01 is too low for 120 hashes"),
    (lambda d: td.deduplicate("one text"), TypeError, "is one text; give a list"),
    (lambda d: td.deduplicate(["a", ""]), ValueError, "text='' is empty"),
    (lambda d: td.deduplicate(["a", 3]), TypeError, "must be a str, got int"),
    (lambda d: td.deduplicate(["a"], threshold=0), ValueError, "threshold=0 must be"),
    (
        lambda d: td.deduplicate(["a"], threshold=1.1),
        ValueError,
        "=1.1 must be above 0",
    ),
    (lambda d: td.deduplicate(["a"], threshold=math.nan), ValueError, "threshold=nan"),
    (
        lambda d: td.train_val_split("ab", 0.5, generator=seeded()),
        TypeError,
        "one text",
    ),
    (
        lambda d: td.train_val_split(["a"], 0.5, generator=seeded()),
        ValueError,
        "documents: 1 cannot be split in two; give at least 2",
    ),
    (
        lambda d: td.train_val_split(["a", "b"], 0, generator=seeded()),
        ValueError,
        "val_fraction=0 must be above 0 and below 1",
    ),
    (
        lambda d: td.train_val_split(["a", "b"], 1.0, generator=seeded()),
        ValueError,
        "val_fraction=1.0 must be",
    ),
    (lambda d: td.CharTokenizer.from_text(""), ValueError, "text='' is empty"),
    (lambda d: TOKENIZER.encode("abxa"), ValueError, "'x' at position 2, .* more text"),
    (lambda d: TOKENIZER.decode([0, 3]), ValueError, r"ids has 3, outside 0\.\.2"),
    (lambda d: TOKENIZER.decode([-1]), ValueError, r"ids has -1, outside 0\.\.2"),
    (lambda d: TOKENIZER.decode([0.5]), TypeError, "float"),
    (
        lambda d: td.unigram_probabilities([0, 1], 2, k=0),
        ValueError,
        "k=0 must be above",
    ),
    (
        lambda d: td.bigram_probabilities([0, 1], 2, k=math.nan),
        ValueError,
        "k=nan must",
    ),
    (lambda d: td.bigram_probabilities([0, 1], 2, k=-1), ValueError, "k=-1 must be"),
    (
        lambda d: td.bigram_probabilities([0, 2], 2),
        ValueError,
        r"ids 0\.\.2, outside 0\.\.1",
    ),
    (
        lambda d: td.unigram_probabilities([-1, 1], 2),
        ValueError,
        r"ids -1\.\.1, outside",
    ),
    (
        lambda d: td.unigram_probabilities([0.5, 1], 2),
        TypeError,
        "float64; give integer",
    ),
    (
        lambda d: td.bigram_probabilities([0], 2),
        ValueError,
        r"\(1,\); give a row of at",
    ),
    (
        lambda d: td.bigram_probabilities([[0, 1]], 2),
        ValueError,
        r"\(1, 2\); give a row",
    ),
    (lambda d: td.bigram_probabilities([0, 1], 0), ValueError, "vocab_size=0 must be"),
    (
        lambda d: td.get_batch([1, 2, 3], 1, 3),
        ValueError,
        "3 ids, too few: give at least 4 ids or shorten context_length=3",
    ),
    (
        lambda d: td.get_batch([1, 2, 3], 0, 2),
        ValueError,
        "batch_size=0 must be at least",
    ),
    (
        lambda d: td.get_batch([1, 2, 3], 1.5, 2),
        TypeError,
        "batch_size=1.5 must be an int",
    ),
    (
        lambda d: td.get_batch([1, 2, 3], 1, 0),
        ValueError,
        "context_length=0 must be at",
    ),
    (lambda d: td.windows([1], 1), ValueError, "1 ids, too few: give at least 2"),
    (
        lambda d: td.windows([1, 2], -1),
        ValueError,
        "context_length=-1 must be at least 1",
    ),
    (lambda d: td.write_tokens(d / "t", []), ValueError, "ids is empty; give at least"),
    (
        lambda d: td.write_tokens(d / "t", [1, -2]),
        ValueError,
        r"ids spans -2\.\.1, outside 0",
    ),
    (
        lambda d: td.write_tokens(d / "t", [9, 2**32]),
        ValueError,
        r"ids spans 9\.\.4294967296, outside 0\.\.4294967295",
    ),
    (lambda d: td.write_tokens(d / "t", [1.5]), TypeError, "float"),
    (
        lambda d: td.read_tokens(saved(d, b"not an array")),
        ValueError,
        "not a token file",
    ),
    (
        lambda d: td.read_tokens(saved(d, b"")),
        ValueError,
        "bad.npy' is not a token file",
    ),
    (
        lambda d: td.read_tokens(saved(d, whole_npy(d)[:500])),
        ValueError,
        "not a token fi",
    ),
    (
        lambda d: td.read_tokens(saved(d, np.ones(3))),
        ValueError,
        "float64 .* write_tokens",
    ),
    (
        lambda d: td.read_tokens(saved(d, np.ones((2, 2), np.uint16))),
        ValueError,
        r"shape \(2, 2\), not a row of ids; write it with write_tokens",
    ),
    (lambda d: td.read_tokens(d / "none"), FileNotFoundError, "none"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input_is_named_with_its_value_and_the_remedy(
    tmp_path, call, error, message
):
    with pytest.raises(error, match=message):
        call(tmp_path)


def test_a_refused_stream_leaves_no_file(tmp_path):
    for ids in ([], [1, -2], [1.5]):
        with pytest.raises((ValueError, TypeError)):
            td.write_tokens(tmp_path / "t.npy", ids)
    assert not list(tmp_path.iterdir())
