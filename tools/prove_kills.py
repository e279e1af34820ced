"""Kill a training run again and again, and show that it ends as if undisturbed.

    python tools/prove_kills.py                  # 20 kills, about four minutes
    python tools/prove_kills.py --kills 5 --seed 7

A small run of tools/pretrain.py is started, killed (SIGKILL, as by `kill -9`) at random
moments, and started again with the same command until it ends. Some of the moments are
chosen to fall into the writing of a checkpoint or into an evaluation. Then the run's
files are compared, byte by byte, with those of a run that nobody disturbed. The exit
status is 0 if they are equal.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = (
    "--vocab-size 320 --context-length 64 --d-model 64 --layers 2 --heads 2 "
    "--dropout 0.1 --batch-size 8 --steps {steps} --checkpoint-every 7 "
    "--eval-every 11 --log-every 1 --sample-tokens 20"
)
COMPARED = ("model.safetensors", "config.json", "tokenizer.json", "README.md")
MOMENTS = ("any time", "saving", "evaluating")


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--steps", type=int, default=700, help="steps of the run")
    p.add_argument("--tales", type=int, default=60, help="train on the first so many")
    p.add_argument("--seed", type=int, default=1, help="seed of the moments")
    args = p.parse_args()
    for name in ("kills", "steps"):
        if getattr(args, name) < 1:
            p.error(f"--{name} {getattr(args, name)} must be at least 1")
    return args


def start(corpus: Path, out: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tools" / "pretrain.py"), str(corpus)]
    with open(out.with_suffix(".log"), "ab") as noise:
        return subprocess.Popen(
            [*command, "--out", str(out), *RUN.format(steps=steps).split()],
            stdout=noise, stderr=noise,
        )  # fmt: skip


def last_row(out: Path) -> dict:
    """The newest row of the run's log; a row that is being written does not count."""
    try:
        lines = (out / "log.jsonl").read_text("utf-8").splitlines()
    except OSError:
        return {"step": 0}
    for line in reversed(lines):
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue
    return {"step": 0}


def is_saving(out: Path) -> bool:
    return (out / "checkpoint" / "checkpoint.safetensors.part").exists()


def is_evaluating(out: Path) -> bool:
    """Whether the steps up to an evaluation are done, and the evaluation is not."""
    row = last_row(out)
    return "train_loss" in row and row["step"] % 11 == 0


def kill_once(process: subprocess.Popen, out: Path, moment: str, wait: float) -> bool:
    """Let it train for `wait` seconds, wait for the moment, and kill it; False if the
    run ended first. "any time" counts from the start, which takes about two seconds."""
    before, born = last_row(out)["step"], time.monotonic()
    aim, begun = {"saving": is_saving, "evaluating": is_evaluating}, None
    while process.poll() is None:
        now = time.monotonic()
        if begun is None and (last_row(out)["step"] != before or now - born > 30):
            begun = now  # it trains: from here the wait counts
        random_moment = moment == "any time" and now - born > 1 + 2 * wait
        chosen = begun is not None and now - begun > wait and moment in aim
        if random_moment or chosen and aim[moment](out):
            process.kill()
            process.wait()
            return True
        time.sleep(0.0005)
    return False


def checkpoint_step(out: Path) -> int:
    from solutions.checkpoint import has_checkpoint, read_checkpoint

    place = out / "checkpoint"
    return read_checkpoint(place)["step"] if has_checkpoint(place) else 0


def all_kills(args, corpus: Path, out: Path, longest: float) -> int:
    """Start and kill, each time after up to `longest` seconds of training. Then start
    once more and let it end; return the number of kills."""
    draw, kills = random.Random(args.seed), 0
    print(" kill  moment      lived   last row of the log       checkpoint at step")
    while kills < args.kills:
        moment = MOMENTS[0] if kills % 2 == 0 else MOMENTS[1 + kills // 2 % 2]
        born = time.monotonic()
        process = start(corpus, out, args.steps)
        if not kill_once(process, out, moment, draw.uniform(0, longest)):
            if process.returncode:
                raise RuntimeError(out.with_suffix(".log").read_text("utf-8")[-2000:])
            print("the run has ended: give it more --steps", flush=True)
            break
        kills, row = kills + 1, last_row(out)
        half = " (half a file left)" if is_saving(out) else ""
        shown = f"{row['step']} ({'held out' if 'val_loss' in row else 'step'})"
        print(
            f"{kills:5}  {moment:10}  {time.monotonic() - born:4.1f} s   {shown:24}  "
            f"{checkpoint_step(out)}{half}",
            flush=True,
        )
    if start(corpus, out, args.steps).wait():
        raise RuntimeError(out.with_suffix(".log").read_text("utf-8")[-2000:])
    return kills


def losses(out: Path) -> list[dict]:
    """The log without its first row and without what a clock has measured."""
    lines = (out / "log.jsonl").read_text("utf-8").splitlines()[1:]
    clock = ("seconds", "tokens_per_s", "mfu")
    rows = map(json.loads, lines)
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def main() -> int:
    args = options()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "tales.txt"
        tales = (ROOT / "data" / "tales.txt").read_text("utf-8").split("\n\n")
        corpus.write_text("\n\n".join(tales[: args.tales]), "utf-8")
        outs = [Path(folder) / name / "model" for name in ("unbroken", "killed")]
        for out in outs:
            out.parent.mkdir()
        began = time.monotonic()
        if start(corpus, outs[0], args.steps).wait():
            print(outs[0].with_suffix(".log").read_text("utf-8")[-2000:])
            return 2
        print(f"unbroken: {args.steps} steps in {time.monotonic() - began:.0f} s\n")
        longest = 1.4 * last_row(outs[0])["seconds"] / args.kills
        kills = all_kills(args, corpus, outs[1], longest)
        equal = {n: (outs[0] / n).read_bytes() == (outs[1] / n).read_bytes()
                 for n in COMPARED}  # fmt: skip
        equal["losses in log.jsonl"] = losses(outs[0]) == losses(outs[1])
    print()
    for name, same in equal.items():
        print(f"{name:20} {'equal' if same else 'DIFFERENT'}")
    print(f"{kills} kills, {time.monotonic() - began:.0f} s")
    return 0 if all(equal.values()) and kills == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
