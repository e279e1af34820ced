"""Broken code for the exercises "Find the fault": each function has one faulty line.

A chapter shows the source, runs it, and shows what goes wrong. The reader names the
line and what should stand there, and `mended` makes the function that would then run.
"""

import inspect
import textwrap
from collections.abc import Callable


def mended(function: Callable, old: str, new: str) -> Callable:
    """`function` with `new` for its line `old`; spaces around the lines do not count.

    AssertionError if `old` is not exactly one line of it, or `new` is no Python.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    found = [i for i, line in enumerate(lines) if line.strip() == old.strip()]
    assert found, f"{old.strip()!r} is not a line of {function.__name__}; copy it whole"
    assert len(found) == 1, f"{old.strip()!r} stands in {function.__name__} twice"
    first = lines[found[0]]
    indent = first[: len(first) - len(first.lstrip())]
    lines[found[0]] = textwrap.indent(textwrap.dedent(new.strip("\n")).strip(), indent)
    namespace = dict(function.__globals__)
    try:
        exec("\n".join(lines), namespace)
    except SyntaxError as error:
        raise AssertionError(f"{new.strip()!r} is not Python: {error.msg}") from None
    return namespace[function.__name__]


# Chapter 1


# Chapter 2


# Chapter 3


# Chapter 4


# Chapter 5


# Chapter 6


# Chapter 7
