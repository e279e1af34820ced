"""Helpers for the chapters: checks that answer at once, and classes that grow.

`with exercise("4.2"): assert ...` stands below an exercise, and `@method_of(GPT)` above
a function that a later cell adds to a class. `set_up_page()` stands in the first cell.
"""

import traceback
from collections.abc import Callable

import matplotlib.pyplot as plt
from cycler import cycler
from IPython import get_ipython
from IPython.display import display

COLORS = [  # told apart by color-blind readers, too (Okabe and Ito 2008)
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#F0E442",
]  # fmt: skip
PRINT_STYLE = """\
<style>
@media print {
  pre {
    font-size: 10.5px !important; white-space: pre-wrap !important;
    overflow-wrap: anywhere;
  }
  h1, h2, h3, h4 { break-after: avoid; }
  img { max-width: 100%; height: auto; }
}
</style>"""


class exercise:
    """Runs the asserts of an exercise and prints the result; no error stops the run.

    The result is open (NotImplementedError), right, or not right yet, with the assert's
    message.
    """

    def __init__(self, number: str) -> None:
        self.number, self.outcome = number, None

    def __enter__(self) -> "exercise":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        name = f"Exercise {self.number}"
        if kind is None:
            self.outcome = "right"
            print(f"{name}: right, well done.")
        elif issubclass(kind, NotImplementedError):
            self.outcome = "open"
            print(f"{name}: open. Replace the `raise NotImplementedError` above.")
        elif issubclass(kind, AssertionError):
            self.outcome = "wrong"
            print(f"{name}: not right yet. {error or _failed_line(trace)}")
        elif issubclass(kind, Exception):
            self.outcome = "wrong"
            where = _failed_line(trace)
            print(f"{name}: stopped by {kind.__name__}: {error}\n  at: {where}")
        else:
            return False
        return True


def _failed_line(trace) -> str:
    """The source line at which the check or the answer stopped."""
    return traceback.extract_tb(trace)[-1].line or "a line of your answer"


def method_of(cls: type) -> Callable:
    """Add the decorated function (or property) to `cls` under its own name.

    tools/export.py writes it into the class itself. It cannot call `super()`.
    """

    def add(member):
        function = member.fget if isinstance(member, property) else member
        setattr(cls, function.__name__, member)
        return member

    return add


def set_up_page() -> None:
    """Sharp figures of 6 x 3.5 inches, and code that wraps where a chapter is printed."""
    plt.rcParams["figure.figsize"] = (6, 3.5)
    plt.rcParams["axes.prop_cycle"] = cycler(color=COLORS)  # "C0", "C1", ...
    if get_ipython() is None:  # plain Python has no page
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("retina")  # 200 dots per inch, shown at the same size
    display({"text/html": PRINT_STYLE, "text/plain": ""}, raw=True)
