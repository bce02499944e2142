"""Examples of a page: a block marked ``<!-- example: NAME -->`` runs as printed and prints the block that follows."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = r"```{}\n(.*?)```\n"
EXAMPLE = re.compile(
    r"<!-- example: (\w+) -->\n" + FENCE.format("(bash|python)") + f"(?:\n{FENCE.format('')})?", re.DOTALL
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def examples_of(page):
    """Language, code and what is shown below it, by name."""
    return {name: (language, code, shown or "") for name, language, code, shown in EXAMPLE.findall(page)}


def all_are_examples(page):
    """Whether every block of Python is an example, so that none is printed without being run."""
    python = sum(language == "python" for language, *_ in examples_of(page).values())
    return len(re.findall(r"^```python", page, re.MULTILINE)) == python


def run(language, code, folder, cache):
    """What an example prints."""
    if language == "bash":
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        env["UFM_COMPILE_CACHE"] = cache
        command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.chdir(folder):
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    return stream.getvalue()


def same(shown, line):
    """Whether two lines agree in their words exactly and in their numbers to five digits."""
    a, b = (re.sub(r"─+", "", text).split() for text in (shown, line))
    if [NUMBER.sub("#", w) for w in a] != [NUMBER.sub("#", w) for w in b]:
        return False
    pairs = zip(NUMBER.findall(" ".join(a)), NUMBER.findall(" ".join(b)), strict=True)
    return all(float(y) == pytest.approx(float(x), rel=1e-5, abs=1e-9) for x, y in pairs)


def missing(shown, printed):
    """The first line shown that is not printed, in order; ``...`` stands for any lines."""
    lines = iter(printed.splitlines())
    for wanted in shown.splitlines():
        if wanted.strip() not in ("", "...") and not any(same(wanted, line) for line in lines):
            return wanted
    return None
