"""Plot the logs of tools/pretrain.py: losses, learning rates and gradients.

    python tools/plot_run.py data/runs/tales data/runs/faster --out plot.png

Each run is a model folder with its log.jsonl, or such a file. An unfinished run is
drawn up to its last row. The dotted lines are the losses that counting tokens and pairs
of tokens reaches on the first run's held-out text.
"""

import argparse
import sys
from pathlib import Path

import solutions  # noqa: F401  before torch, so that its idle threads sleep

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when not a script
from runs import read_log  # noqa: E402

AXES = {"steps": "steps", "tokens": "tokens seen", "hours": "hours of training"}


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("runs", nargs="+", metavar="RUN", help="a model folder, or a log")
    p.add_argument("--out", required=True, help="the picture: .png, .svg or .pdf")
    p.add_argument("--x", choices=list(AXES), default="steps")
    return p.parse_args()


def read_run(place: str) -> tuple[str, list[dict]]:
    """The name of a run and its rows."""
    path = Path(place)
    if path.is_dir():
        path = path / "log.jsonl"
    rows = read_log(path)
    if not rows or "baselines" not in rows[0]:
        raise ValueError(f"{path} is not a log of tools/pretrain.py, or has no rows")
    return path.resolve().parent.name, rows


def column(rows: list[dict], name: str, x: str) -> tuple[list, list]:
    """x and y in the rows that have the column, without what was not a number."""
    rows_with = [r for r in rows if r.get(name) is not None]
    per_step = rows[0]["tokens_per_step"]
    places = {
        "steps": lambda r: r["step"],
        "tokens": lambda r: r["step"] * per_step,
        "hours": lambda r: r["seconds"] / 3600,
    }
    return [places[x](r) for r in rows_with], [r[name] for r in rows_with]


def draw(runs: list[tuple[str, list[dict]]], x: str, out: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
    for i, (name, rows) in enumerate(runs):
        color = f"C{i}"
        loss.plot(*column(rows, "train_loss", x), color=color, alpha=0.35, lw=1)
        loss.plot(*column(rows, "val_loss", x), "o-", color=color, ms=3, label=name)
        rate.plot(*column(rows, "lr", x), color=color)
        norm.plot(*column(rows, "grad_norm", x), color=color, lw=1)
    for name, value in runs[0][1][0]["baselines"].items():
        loss.axhline(value, color="gray", ls=":", lw=1)
        loss.annotate(name, (1, value), xycoords=("axes fraction", "data"), fontsize=8)
    loss.set_ylabel("loss in nats per token\n(pale: training, dots: held out)")
    rate.set_ylabel("learning rate")
    norm.set_ylabel("gradient norm")
    norm.set_yscale("log")
    norm.set_xlabel(AXES[x])
    loss.legend()
    figure.savefig(out, dpi=120)


def main() -> int:
    args = options()
    try:
        draw([read_run(place) for place in args.runs], args.x, args.out)
    except ModuleNotFoundError as error:
        print(f"plot_run: needs the package {error.name}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"plot_run: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
