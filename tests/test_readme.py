"""The README: its examples run exactly as printed and print what it says; its table is the atlas's own."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
FENCE = r"```{}\n(.*?)```\n"
EXAMPLES = {
    name: (language, code, shown or "")
    for name, language, code, shown in re.findall(
        r"<!-- example: (\w+) -->\n" + FENCE.format("(bash|python)") + f"(?:\n{FENCE.format('')})?", README, re.DOTALL
    )
}
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


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
        exec(compile(code, "README.md", "exec"), {})
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_is_shown(name, tmp_path, cache):
    language, code, shown = EXAMPLES[name]
    assert shown, "an example without its output"
    assert missing(shown, run(language, code, tmp_path, cache)) is None


def test_the_examples_are_these():
    """Every block of Python is one, so that none is printed without being run."""
    assert {"solve", "verify", "sweep", "landscape", "measure"} <= set(EXAMPLES)
    assert len(re.findall(r"^```python", README, re.MULTILINE)) == sum(v[0] == "python" for v in EXAMPLES.values())


def test_a_wrong_line_is_noticed():
    printed = " value   0.671707956928\n regime  etf\n"
    assert missing(" value 0.6717079569\n ...\n regime etf\n", printed) is None
    for wrong in (" value 0.6718\n", " regime shifted\n", " regime etf\n value 0.671707956928\n", " value\n"):
        assert missing(wrong, printed) is not None


def test_table_of_theorems_is_the_atlas(cache):
    """If this fails: put the output of ``ufm atlas --markdown`` between the marks."""
    printed = run("bash", "ufm atlas --markdown", ".", cache)
    table = re.search(r"<!-- theorems -->\n(.*?)<!-- /theorems -->", README, re.DOTALL).group(1)
    assert table.strip() == printed.strip()


def test_pictures_are_there_and_described():
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert pictures
    for alt, path in pictures:
        assert len(alt) > 40
        assert (Path(__file__).parents[1] / path).stat().st_size < 300_000
