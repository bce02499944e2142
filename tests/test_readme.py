"""The README: its examples run exactly as printed and print what it says; its table is the atlas's own."""

import re

import pytest
from examples import ROOT, all_are_examples, examples_of, missing, run

README = (ROOT / "README.md").read_text()
EXAMPLES = examples_of(README)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_is_shown(name, tmp_path, cache):
    language, code, shown = EXAMPLES[name]
    assert shown, "an example without its output"
    assert missing(shown, run(language, code, tmp_path, cache)) is None


def test_the_examples_are_these():
    assert {"solve", "verify", "sweep", "landscape", "measure", "predict"} <= set(EXAMPLES)
    assert all_are_examples(README)


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
        assert (ROOT / path).stat().st_size < 300_000
