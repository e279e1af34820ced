"""`pytest tests --package mine`: the tests that guard solutions/, on your own package.

Each file of tests runs in a process of its own, in which only the modules that it is
about are entirely yours: what is still blank there is skipped, "not written yet". All
other modules are yours as far as they are written (tools/learner.py).
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from learner import is_blank, to_write  # noqa: E402

TESTS = {  # in the order of the chapters
    "text_data": ["text_data"],
    "bpe": ["pretokenization", "tokenizer_json", "bpe"],
    "embeddings": ["embeddings"],
    "attention": ["attention"],
    "gpt": ["gpt"],
    "pretraining": ["optimization", "linear", "checkpoint", "pretraining"],
    "pretrained": ["pretrained"],
    "decoding": ["decoding"],
    "generation": ["generation"],
}
LIMIT = 300  # seconds for one test
NOT_WRITTEN = re.compile(r"not written yet: ([\w.]+)")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--package", metavar="FOLDER", help="test your own package, as from blank.py"
    )
    parser.addoption(
        "--package-report", metavar="FILE", help="also write the table, as JSON"
    )


def skip_if_not_written(error: Exception) -> None:
    """pytest.skip for what a blank function raised, here or in another process."""
    found = NOT_WRITTEN.search("".join(traceback.format_exception(error)))
    if found:
        pytest.skip(found[0])


def run_tests(name: str, folder: Path, extra: list[str]) -> dict[str, list]:
    """Outcome -> its tests, each as (fact, reason), of one file of tests."""
    environment = os.environ | {
        "COURSE_PACKAGE": str(folder), "COURSE_TESTED": ",".join(TESTS[name]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/test_{name}.py", "-q"]
        command += ["-o", "addopts=", "--tb=short", f"--junitxml={report}", *extra]
        command += ["-p", "no:nbval", "-p", "no:xdist"]  # seconds to load, no use here
        command += ["-o", f"faulthandler_timeout={LIMIT}"]  # says where it hangs
        command += ["-o", "faulthandler_exit_on_timeout=true"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if not report.exists():
            said = f"the run broke off, status {done.returncode}: "
            return {"wrong": [(f"test_{name}.py", said + (done.stdout + done.stderr))]}
        return outcomes(xml.parse(report).getroot())


def outcomes(report: xml.Element) -> dict[str, list]:
    found = {"right": [], "wrong": [], "to do": []}
    for case in report.iter("testcase"):
        fact = case.get("name", "").removeprefix("test_").replace("_", " ")
        problem = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if problem:
            found["wrong"].append((fact, problem[0]))
        elif skipped is None:
            found["right"].append((fact, ""))
        elif NOT_WRITTEN.search(skipped.get("message", "")):
            found["to do"].append((fact, skipped.get("message")))
    return found


def explained(fact: str, problem: xml.Element | str) -> str:
    """What a failed test is about, what it found, and where."""
    if isinstance(problem, str):
        return f"  {fact}\n      {problem.strip()[:200]} ... {problem.strip()[-600:]}"
    text = problem.text or problem.get("message") or ""
    lines = re.findall(r"^E +(\S.*)", text, re.M)[:4] or text.splitlines()[:4]
    positions = re.findall(r"^(\S+\.py:\d+)", text, re.M)
    where = f"  ({' <- '.join(reversed(positions[-3:]))})" if positions else ""
    return f"  {fact}{where}\n" + "\n".join(f"      {line}" for line in lines)


def by_fact(wrong: list[tuple]) -> list[tuple]:
    """One of the failures of each test, and how many more cases of it fail."""
    groups = {}
    for fact, problem in wrong:
        groups.setdefault(fact.split("[")[0], []).append((fact, problem))
    found = []
    for cases in groups.values():
        fact, problem = cases[0]
        more = f" and {len(cases) - 1} more of its cases" if cases[1:] else ""
        found.append((fact + more, problem))
    return found


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """What a module consists of; nothing if it is missing or is no Python."""
    try:
        return to_write(ast.parse(path.read_text("utf-8")))
    except (FileNotFoundError, SyntaxError):
        return {}


def rows(folder: Path, results: dict[str, dict[str, list]]) -> list[dict]:
    """One per module: module, written, functions, right, wrong, to do.

    The tests of a chapter stand in the row of its last module. In the other rows, and
    for tests that have not ended, the last three are None.
    """
    found = []
    for name, modules in TESTS.items():
        for module in modules:
            own = functions(folder / f"{module}.py")
            needed = functions(ROOT / "solutions" / f"{module}.py")
            done = sum(n in own and not is_blank(own[n]) for n in needed)
            row = {"module": module, "written": done, "functions": len(needed)}
            tested = module == modules[-1] and name in results
            for kind in ("right", "wrong", "to do"):
                row[kind] = len(results[name].get(kind, [])) if tested else None
            found.append(row)
    return found


def table(folder: Path, results: dict[str, dict[str, list]]) -> str:
    """What `rows` says, to be read."""
    lines = [f"{'module':16} {'written':>9} {'right':>7} {'wrong':>7} {'to do':>7}"]
    for row in rows(folder, results):
        done = f"{row['written']}/{row['functions']}"
        line = f"{row['module']:16} {done:>9}"
        if row["right"] is not None:
            line += "".join(f" {row[kind]:7}" for kind in ("right", "wrong", "to do"))
        lines.append(line)
    return "\n".join(lines)


def write_report(file: Path, folder: Path, results: dict[str, dict[str, list]]) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(rows(folder, results), indent=1) + "\n", "utf-8")
    new.replace(file)


def next_to_write(folder: Path, chosen: list[str]) -> str:
    """The first function of what is tested that is still blank, and its promise."""
    for module in [module for name in chosen for module in TESTS[name]]:
        path = folder / f"{module}.py"
        try:
            own = to_write(ast.parse(path.read_text("utf-8"))) if path.exists() else {}
        except SyntaxError as error:
            return f"Mend first: {path}:{error.lineno} is not Python: {error.msg}"
        for name, given in functions(ROOT / "solutions" / f"{module}.py").items():
            if name not in own or is_blank(own[name]):
                line = f":{own[name].lineno}" if name in own else ""
                promise = (ast.get_docstring(given) or "").split("\n\n")[0]
                return f"Write next: {name} in {path}{line}\n  {promise}"
    return "Everything that was tested is written."


def report(folder: Path, chosen: list[str], extra: list[str], file: Path | None) -> int:
    """Runs the tests, two files at a time, and prints what they say. Returns 0 or 1.

    file: gets the table as JSON, and again after each file of tests.
    """
    results = {}
    with ThreadPoolExecutor(2) as pool:
        futures = {pool.submit(run_tests, n, folder, extra): n for n in chosen}
        for future in as_completed(futures):
            name = futures[future]
            results[name] = future.result()
            print(f"{name}: {len(results[name].get('wrong', []))} wrong", flush=True)
            if file:
                write_report(file, folder, results)
    for name in chosen:
        found = results[name]
        if found.get("wrong"):
            print(f"\nWrong in {name}:")
            groups = by_fact(found["wrong"])
            for fact, problem in groups[:8]:
                print(explained(fact, problem))
            if groups[8:]:
                print(f"  ... and {len(groups) - 8} more")
    print(f"\n{table(folder, results)}\n")
    wrong = [name for name in chosen if results[name].get("wrong")]
    if wrong:
        print(f"Mend first what is wrong in {wrong[0]}.")
    print(next_to_write(folder, chosen))
    return int(bool(wrong))


def main(config: pytest.Config) -> int:
    """What `pytest --package` does instead of running the tests itself."""
    folder = (config.invocation_params.dir / config.option.package).resolve()
    if not folder.is_dir():
        raise pytest.UsageError(
            f"--package {config.option.package}: no such folder; "
            f"make it with `python tools/blank.py {config.option.package}`"
        )
    named = [Path(arg.split("::")[0]).stem.removeprefix("test_") for arg in config.args]
    chosen = [name for name in TESTS if name in named] or list(TESTS)
    extra = ["-k", config.option.keyword] if config.option.keyword else []
    file = config.option.package_report
    file = config.invocation_params.dir / file if file else None
    return report(folder, chosen, extra, file)
