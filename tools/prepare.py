"""From a corpus of any size to token files: clean, deduplicate, split, encode.

    python tools/prepare.py data/corpora/shakespeare.jsonl --out data/prepared/s
    python tools/prepare.py crawl/*.warc.gz --filter gopher --out data/prepared/web
    python tools/prepare.py hub:roneneldan/TinyStories --out data/prepared/stories

The corpus is text, JSON lines or Parquet with a "text" each, Common Crawl's WARC files,
or a data set of the Hugging Face hub. A text's documents lie between <|endoftext|>
marks, as in TinyStories, or, in a text without any, between blank lines. In JSON lines
such a mark ends a document too. The stages are datatrove pipelines: on this machine's
cores, as Slurm jobs, or on a Ray cluster. The corpus is cut into parts, each the work
of one task, so memory does not grow with it, and the result does not depend on who does
which task, or on when. Started again after a crash, the tool does only the rest.
Result: tokenizer.json, train.npy, val.npy (for chapter 1's read_tokens; with
--tokens-per-shard several files each, which tools/shards.py reads as one row) and
prepare.json. tools/pretrain.py takes the folder as its corpus.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache, lru_cache, partial
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

import multiprocess
import numpy as np
from datatrove.data import Document
from datatrove.executor import (
    LocalPipelineExecutor,
    RayPipelineExecutor,
    SlurmPipelineExecutor,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.word_tokenizers import WhitespaceTokenizer
from tqdm import tqdm

from solutions.bpe import GPT2_PATTERN, BPETokenizer, count_pretokens, learn_merges
from solutions.text_data import clean_text, jaccard, minhash, rows_per_band, shingles

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))  # also when this is not started as a script
from corpora import END, HUB, files_of, parts_of, read  # noqa: E402
from downloads import resolve  # noqa: E402
from shards import TokenShards, shard_name  # noqa: E402

N_HASHES = 90  # enough for rows_per_band at 0.8: 18 buckets of 5
SIDES = ("train", "val")
Documents = Iterable[Document]


# ------------------------------------------------------------------ datatrove's steps


class Words(WhitespaceTokenizer):
    """Words and marks for the filters; datatrove's own for English needs spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text)


def filters(names: list[str], language: str | None) -> list:
    """Those of datatrove that are asked for, in their order."""
    chosen = [LanguageFilter([language])] if language else []
    for name in names:
        if name == "gopher":
            chosen += [
                GopherRepetitionFilter(language=Words()),
                GopherQualityFilter(language=Words()),
            ]
        else:
            chosen.append(C4QualityFilter(language=Words()))
    return chosen


def clean(documents: Documents, rank: int, world_size: int) -> Iterator[Document]:
    """Chapter 1's cleaning; a document that is then empty goes."""
    for document in documents:
        if document.text:
            document.text = clean_text(document.text).strip()
        if document.text:
            yield document


def store(
    work: Path, documents: Documents, rank: int, world_size: int
) -> Iterator[Document]:
    """Write the documents, and where each begins, so that `compare` can pick any."""
    starts = []
    with open(work / "clean" / f"{rank:05}.jsonl", "wb") as file:
        for document in documents:
            starts.append(file.tell())
            file.write(json.dumps(document.text, ensure_ascii=False).encode() + b"\n")
            yield document
    np.array(starts, dtype=np.int64).tofile(work / "clean" / f"{rank:05}.starts")


class Signatures(MinhashDedupSignature):
    """datatrove's files of signatures, from chapter 1's shingles and hashes.

    The hashes of a bucket are one number, below the 2**61 - 1 that datatrove allows.
    """

    def get_shingles(self, text: str) -> np.ndarray:
        return shingles(text)

    def get_signature(self, numbers: np.ndarray) -> list[list[int]]:
        hashes = minhash(numbers, N_HASHES).astype(np.uint64)
        hashes = hashes.reshape(self.config.num_buckets, -1)
        draw = np.random.default_rng(1)
        weights = draw.integers(1, 2**63, hashes.shape[1], dtype=np.uint64) * 2 + 1
        return ((hashes * weights).sum(axis=1) >> 4).reshape(-1, 1).tolist()


def text_of(work: Path, rank: int, number: int) -> str:
    """One document of a part, found by its position: the others are not read."""
    with open(work / "clean" / f"{rank:05}.starts", "rb") as file:
        file.seek(8 * number)
        start = int.from_bytes(file.read(8), sys.byteorder)
    with open(work / "clean" / f"{rank:05}.jsonl", "rb") as file:
        file.seek(start)
        return json.loads(file.readline())


def compare(work: Path, threshold: float, _, rank: int, world_size: int) -> None:
    """Of the pairs that share a bucket, keep those that are alike.

    A pair belongs to the part of its later document. datatrove takes every such pair
    for duplicates, though of those with a similarity of 0.5 nearly half share a bucket.
    """
    pairs = [np.empty((0, 4), dtype="<u4")]  # part and number, part and number
    for file in sorted((work / "pairs").glob("*.dups")):
        found = np.fromfile(file, dtype="<u4").reshape(-1, 4)
        pairs.append(found[found[:, 2] == rank])
    alike, last, numbers = [], None, None
    for pair in np.unique(np.concatenate(pairs)[:, [2, 3, 0, 1]], axis=0).tolist():
        if pair[1] != last:
            last, numbers = pair[1], shingles(text_of(work, rank, pair[1]))
        if jaccard(numbers, shingles(text_of(work, *pair[2:]))) >= threshold:
            alike.append(pair[2:] + pair[:2])
    np.array(alike, dtype="<u4").tofile(work / "alike" / f"{rank:05}.dups")


def stored(work: Path, _, rank: int, world_size: int) -> Iterator[Document]:
    """The documents that `store` has written."""
    with open(work / "clean" / f"{rank:05}.jsonl", "rb") as file:
        for line in file:
            yield Document(json.loads(line), id="")


hashed = create_hash_func(HashConfig(precision=64, hash_fc="sha1"))


def side(text: str, args: argparse.Namespace) -> str:
    """Where a document belongs: its hash and the seed decide."""
    share = hashed(f"{args.seed} {text}") / 2**64
    return "val" if share < args.val_fraction else "train"


def count(
    args: argparse.Namespace, documents: Documents, rank: int, world_size: int
) -> None:
    """How often each pre-token occurs in the part's training documents, for as many
    parts, evenly spread, as the tokenizer learns from."""
    size = sum(f.stat().st_size for f in (args.work / "clean").glob("*.jsonl"))
    wanted = max(1, int(world_size * args.tokenizer_mb * 1e6 / max(size, 1)))
    wanted = min(wanted, world_size)
    chosen = {int(i) for i in np.linspace(0, world_size - 1, wanted)}
    if rank not in chosen:
        return
    texts = (d.text for d in documents if side(d.text, args) == "train")
    counts = count_pretokens(texts, GPT2_PATTERN)
    text = json.dumps({token.decode(): n for token, n in counts.items()})
    (args.work / "counts" / f"{rank:05}.json").write_text(text, "utf-8")


def learn(args: argparse.Namespace, _, rank: int, world_size: int) -> None:
    """Train the tokenizer on all counts together."""
    counts: Counter = Counter()
    for file in sorted((args.work / "counts").glob("*.json")):
        for token, n in json.loads(file.read_text("utf-8")).items():
            counts[token.encode()] += n
    if not counts:
        raise ValueError(f"corpus {args.corpus[0]}: no training document is left")
    merges = learn_merges(counts, args.vocab_size - 257)
    BPETokenizer(merges, special_tokens=[END]).save(args.work / "tokenizer.json")


# A worker keeps its tokenizer, whose cache is warm after the first part.
load_tokenizer = lru_cache(maxsize=1)(BPETokenizer.load)


def token_type(tokenizer: BPETokenizer) -> str:
    return "<u2" if tokenizer.n_vocab <= 2**16 else "<u4"


def encode(
    args: argparse.Namespace, documents: Documents, rank: int, world_size: int
) -> None:
    """The part's tokens by side, as bare numbers, END's after each document."""
    tokenizer = load_tokenizer(args.work / "tokenizer.json")
    end, dtype = [tokenizer.special_tokens[END]], token_type(tokenizer)
    names = [args.work / "tokens" / f"{name}-{rank:05}" for name in SIDES]
    with open(names[0], "wb") as train, open(names[1], "wb") as val:
        for document in documents:
            ids = tokenizer.encode_ordinary(document.text) + end
            file = train if side(document.text, args) == "train" else val
            file.write(np.array(ids, dtype).tobytes())


def whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file, then give it its name."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    write(part)
    os.replace(part, path)


def join(args: argparse.Namespace, name: str) -> int:
    """Token files from those of the parts: one, or several of --tokens-per-shard each;
    returns the number of tokens."""
    dtype = token_type(load_tokenizer(args.work / "tokenizer.json"))
    files = sorted((args.work / "tokens").glob(f"{name}-*"))
    files = [np.memmap(f, dtype, mode="r") for f in files if f.stat().st_size]
    if not files:
        raise ValueError(
            f"no document fell to the side {name!r}; change --val-fraction"
        )
    tokens = TokenShards(files)
    limit = args.tokens_per_shard or len(tokens)
    for i, start in enumerate(range(0, len(tokens), limit)):
        end = min(start + limit, len(tokens))
        file = shard_name(name, i) if args.tokens_per_shard else f"{name}.npy"
        whole(args.out / file, partial(copy_tokens, tokens, start, end))
    return len(tokens)


def copy_tokens(tokens: TokenShards, start: int, end: int, path: Path) -> None:
    """Write tokens[start:end] as a token file, a piece at a time."""
    about = {"descr": tokens.dtype.str, "fortran_order": False, "shape": (end - start,)}
    with open(path, "wb") as file:  # a memory map would hold the whole file
        np.lib.format.write_array_header_1_0(file, about)
        for first in range(start, end, 1 << 22):
            file.write(tokens[first : min(first + (1 << 22), end)].tobytes())


def finish(args: argparse.Namespace, _, rank: int, world_size: int) -> None:
    """Join the parts, and write what was done."""
    starts = (args.work / "clean").glob("*.starts")
    removed = (args.work / "remove").glob("*.remove")
    summary = {
        "documents": sum(file.stat().st_size // 8 for file in starts),
        "duplicates": sum(file.stat().st_size // 4 for file in removed),
        "tokens": {name: join(args, name) for name in SIDES},
    }
    shutil.copyfile(args.work / "tokenizer.json", args.out / "tokenizer.json")
    text = json.dumps(settings(args) | summary, indent=1) + "\n"
    whole(args.out / "prepare.json", lambda p: p.write_text(text, "utf-8"))


# ---------------------------------------------------------------------------- the run


def stages(args: argparse.Namespace) -> list[tuple[str, list, int]]:
    """Name, datatrove pipeline and number of tasks of each stage."""
    parts, work = parts_of(args.corpus, int(args.shard_mb * 1e6)), args.work
    n, rows = len(parts), rows_per_band(args.threshold, N_HASHES)
    config = MinhashConfig(
        num_buckets=N_HASHES // rows,
        hashes_per_bucket=1,
        hash_config=HashConfig(hash_fc="sha1"),
    )
    folder = {name: str(work / name) for name in ("sigs", "pairs", "alike", "remove")}
    reading = [partial(read, parts), clean, *filters(args.filter, args.language)]
    signatures = Signatures(folder["sigs"], config, Words())
    pairs = MinhashDedupBuckets(folder["sigs"], folder["pairs"], config=config,
                                lines_to_buffer=1000)  # fmt: skip
    one_file = MinhashConfig(num_buckets=1)  # that is, any number of files
    cluster = MinhashDedupCluster(folder["alike"], folder["remove"], one_file)
    kept = [partial(stored, work), MinhashDedupFilter(folder["remove"])]
    return [
        ("clean", [*reading, partial(store, work), signatures], n),
        ("buckets", [pairs], config.num_buckets),
        ("compare", [partial(compare, work, args.threshold)], n),
        ("cluster", [cluster], 1),
        ("count", [*kept, partial(count, args)], n),
        ("learn", [partial(learn, args)], 1),
        ("encode", [*kept, partial(encode, args)], n),
        ("finish", [partial(finish, args)], 1),
    ]


def end_with_parent() -> None:
    parent = multiprocess.parent_process()
    if parent is not None:
        parent.join()
        for child in multiprocessing.active_children():  # trafilatura's
            child.kill()
        os._exit(1)


def begin_worker() -> None:
    """Let a worker end with the run, or after kill -9 it would go on writing beside the
    next; and let it open a file of each part at once."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    sysconfig.get_path = cache(sysconfig.get_path)  # 36 of them for each task's log
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        wanted = most if 0 < most < 8192 else 8192  # below 0 is no limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def run_task(stage: LocalPipelineExecutor, rank: int) -> None:
    """One task, without datatrove's log on the screen: it is in the work folder."""
    with contextlib.redirect_stderr(io.StringIO()):
        deepcopy(stage)._run_for_rank(rank)


def import_path() -> str:
    """PYTHONPATH for other processes, with this folder and the course's."""
    known = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(TOOLS), str(TOOLS.parent), known]).rstrip(os.pathsep)


def worker_context():
    """Workers fork from a process that has imported this module, or, on Windows, import
    it themselves. That process finds it by PYTHONPATH alone."""
    os.environ["PYTHONPATH"] = import_path()
    if "forkserver" not in multiprocess.get_all_start_methods():
        return multiprocess.get_context("spawn")
    context = multiprocess.get_context("forkserver")
    context.set_forkserver_preload(["prepare"])
    return context


def run_here(args: argparse.Namespace) -> None:
    """All stages in one pool of processes.

    LocalPipelineExecutor.run would start a new pool for each, whose workers import
    torch again, and a process that outlives a killed run.
    """
    begin_worker()
    with contextlib.ExitStack() as stack:
        run = map
        if args.workers != 1:
            pool = worker_context().Pool(args.workers or os.cpu_count(), begin_worker)
            run = stack.enter_context(pool).imap_unordered
        for name, steps, tasks in stages(args):
            stage = LocalPipelineExecutor(
                steps, tasks, logging_dir=str(args.work / "logs" / name)
            )
            left = stage.get_incomplete_ranks()
            bar = tqdm(run(partial(run_task, stage), left), name, total=tasks,
                       initial=tasks - len(left), unit="part", leave=False)  # fmt: skip
            for _ in bar:
                pass


def run_on_ray(args: argparse.Namespace) -> None:
    """One stage after the other on the cluster that Ray knows, or on this machine."""
    try:
        import ray
    except ImportError:
        raise ValueError("--executor ray needs `pip install ray`") from None
    variables = {"PYTHONPATH": import_path()}
    ray.init(runtime_env={"env_vars": variables}, log_to_driver=False)
    for name, steps, tasks in stages(args):
        folder = str(args.work / "logs" / name)
        stage = RayPipelineExecutor(
            steps, tasks, args.workers or -1, logging_dir=folder, mem_per_cpu_gb=1
        )
        stage.run()
        if failed := len(stage.get_incomplete_ranks()):
            raise ValueError(f"{failed} tasks failed; the reason is in {folder}/logs")


def run_on_slurm(args: argparse.Namespace) -> None:
    """Submit an array of jobs for each stage, which waits for the one before."""
    path = Path(sys.executable).parent
    last = None
    command = f'export PATH="{path}:$PATH" PYTHONPATH="{import_path()}"'
    for name, steps, tasks in stages(args):
        last = SlurmPipelineExecutor(
            steps, tasks, args.time, args.partition, workers=args.workers or -1,
            job_name=f"prepare-{name}", logging_dir=str(args.work / "logs" / name),
            env_command=command, depends=last, qos=None,
        )  # fmt: skip
    last.run()


def settings(args: argparse.Namespace) -> dict:
    """What the result depends on: all options but those that say who does the work."""
    others = ("workers", "out", "work", "executor", "time", "partition")
    return {k: v for k, v in vars(args).items() if k not in others}


def begin(args: argparse.Namespace) -> None:
    """Make the work folder, or go on in it if it is of the same settings."""
    record = args.work / "settings.json"
    if record.exists() and json.loads(record.read_text("utf-8")) != settings(args):
        raise ValueError(f"{args.out} was begun with other settings; use another --out")
    for name in ("clean", "alike", "remove", "counts", "tokens"):
        (args.work / name).mkdir(parents=True, exist_ok=True)
    whole(record, lambda p: p.write_text(json.dumps(settings(args)), "utf-8"))


def options(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("corpus", nargs="+", help=f"files, or folders of them: .txt, "
                   f"documents between {END} marks or, without any, blank lines; "
                   '.jsonl or .parquet, a document in each "text"; .warc.gz, web pages;'
                   f" or {HUB}OWNER/NAME[:CONFIGURATION][@REVISION]")  # fmt: skip
    p.add_argument("--out", type=Path, required=True, help="the folder to write")
    p.add_argument("--vocab-size", type=int, default=4096)
    p.add_argument("--threshold", type=float, default=0.8, help="of near duplicates")
    p.add_argument("--val-fraction", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=1, help="of the split")
    p.add_argument("--filter", action="append", choices=("gopher", "c4"), default=[],
                   help="drop bad pages by the rules of Gopher or C4")  # fmt: skip
    p.add_argument("--language", help="drop other languages than this (en, ...); needs "
                   "fasttext-numpy2-wheel, fasteners, once a network")  # fmt: skip
    p.add_argument("--shard-mb", type=float, default=8.0, help="of a task's part")
    p.add_argument(
        "--tokenizer-mb", type=float, default=100.0, help="text it learns from"
    )
    p.add_argument(
        "--tokens-per-shard", type=int, default=0, help="cut the token files; 0: do not"
    )
    p.add_argument("--workers", type=int, help="tasks at a time; default: one for each "
                   "core here, all on a cluster")  # fmt: skip
    p.add_argument("--executor", choices=("local", "slurm", "ray"), default="local",
                   help="who does the tasks; ray needs `pip install ray`")  # fmt: skip
    p.add_argument("--time", default="04:00:00", help="Slurm's limit for a task")
    p.add_argument("--partition", help="Slurm's, where the tasks go")
    return p.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """ValueError for an option that cannot be meant."""
    checks = [
        ("shard-mb", args.shard_mb > 0, "above 0"),
        ("tokenizer-mb", args.tokenizer_mb > 0, "above 0"),
        ("tokens-per-shard", args.tokens_per_shard >= 0, "at least 0"),
        ("workers", args.workers is None or args.workers >= 1, "at least 1"),
        ("val-fraction", 0 < args.val_fraction < 1, "above 0 and below 1"),
        ("threshold", 0 < args.threshold <= 1, "above 0 and at most 1"),
        ("vocab-size", 256 < args.vocab_size <= 10**6, "257 to 1000000"),
        ("partition", args.partition or args.executor != "slurm", "given for slurm"),
    ]
    for name, good, right in checks:
        if not good:
            value = getattr(args, name.replace("-", "_"))
            raise ValueError(f"--{name} {value} must be {right}")


def pinned(corpus: list[str]) -> list[str]:
    """The corpus, where a hub data set stands at the commit that it has now."""
    if not corpus[0].startswith(HUB) or re.search("@[0-9a-f]{40}$", corpus[0]):
        return corpus
    name, _, revision = corpus[0].partition("@")
    commit = resolve(name.split(":")[1], revision or "main")
    return [f"{name}@{commit}", *corpus[1:]]


def prepare(args: argparse.Namespace) -> str:
    """Do what is left to do; says what there is."""
    args.out = args.out.resolve()
    args.work, args.corpus = args.out / "work", pinned(args.corpus)
    if any(Path(name).resolve() in args.out.parents for name in args.corpus):
        raise ValueError(f"--out {args.out} lies in the corpus; use another --out")
    is_hub = args.corpus[0].startswith(HUB)
    files = [] if is_hub else files_of(args.corpus)
    args.bytes = sum(file.stat().st_size for file in files)
    about = args.out / "prepare.json"
    if about.exists():
        if not settings(args).items() <= json.loads(about.read_text("utf-8")).items():
            raise ValueError(
                f"{args.out} holds another corpus, or one prepared with other "
                "settings; use another --out"
            )
        shutil.rmtree(args.work, ignore_errors=True)  # Slurm's jobs left it
        return f"{args.out} is complete; remove it to prepare it again"
    begin(args)
    {"local": run_here, "slurm": run_on_slurm, "ray": run_on_ray}[args.executor](args)
    if args.executor == "slurm":
        return f"submitted; when the last job has ended, {args.out} is complete"
    done = json.loads(about.read_text("utf-8"))
    shutil.rmtree(args.work)
    return (
        f"{args.out}: {done['documents']:,} documents, {done['duplicates']:,} "
        f"duplicates dropped, {done['tokens']['train']:,} + {done['tokens']['val']:,} "
        "tokens"
    )


def main(argv: list[str] | None = None) -> int:
    args = options(argv)
    try:
        check(args)
        print(prepare(args))
    except (ValueError, OSError, ImportError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    import prepare as module  # under this name the workers find its steps, too

    sys.exit(module.main())
