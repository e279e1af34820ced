"""How fast the page that thinks writes, in a browser: a report of tools/bench.py."""

import argparse
import statistics
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = 20  # tokens per second, faster than anybody reads
TELL = """async seed => {
  const get = id => document.getElementById(id);
  const tale = course.tale;
  const idle = async () => {
    while (tale.running || tale.logits === null) {
      await new Promise(done => setTimeout(done, 5));
    }
  };
  get("seed").value = seed;
  get("pace").value = 0;
  get("reset").click();
  await idle();
  const [before, start] = [tale.ids.length, performance.now()];
  get("run").click();
  await idle();
  return [tale.ids.length - before, (performance.now() - start) / 1000];
}"""


def add_page(commands) -> None:
    p = commands.add_parser("page", help="the page of tools/page.py, in a browser")
    p.add_argument("--model", default=str(ROOT / "data" / "tale-gpt"), help="a folder")
    p.add_argument(
        "--rounds", type=int, default=5, help="tales, each with its own seed"
    )


def bench_page(args: argparse.Namespace) -> None:
    """Let the page tell tales at full speed, with all that it draws meanwhile."""
    from browser import Browser
    from generate import load
    from page import build, write

    model, tokenizer = load(Path(args.model))
    rates = []
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        file = Path(folder) / "page.html"
        write(file, build(model, tokenizer, Path(args.model).name))
        browser.resize(1280, 900)
        browser.open(file)
        browser.run("course.ready.then(() => 1)")
        for seed in range(1, args.rounds + 1):
            n, took = browser.run(f"({TELL})({seed})")
            rates.append(n / took)
            print(f"seed {seed}: {n:4} tokens, {rates[-1]:6.1f} per second", flush=True)
    low, high = min(rates), max(rates)
    middle = statistics.median(rates)
    print(f"tokens per second: {middle:.1f} ({low:.1f} .. {high:.1f})")
    print(f"PAGE {middle / WANTED:.3f}", flush=True)
