"""Pages of documentation: what they show as a user writes it runs, and prints what they say."""

import jax
import pytest
from examples import ROOT, all_are_examples, examples_of, missing, run

import ufm

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("extending", "proofs", "cluster", "conjecture")}
EXAMPLES = {(page, name): example for page, text in PAGES.items() for name, example in examples_of(text).items()}


@pytest.fixture
def as_a_user():
    """JAX promotes dtypes as it does for users; models known by name are afterwards those of before."""
    kept = dict(ufm.models.NAMED)
    with jax.numpy_dtype_promotion("standard"):
        yield
    ufm.models.NAMED.clear()
    ufm.models.NAMED.update(kept)


@pytest.mark.parametrize(("page", "name"), EXAMPLES)
@pytest.mark.usefixtures("as_a_user")
def test_example_prints_what_is_shown(page, name, tmp_path):
    language, code, shown = EXAMPLES[page, name]
    assert shown, "an example without its output"
    assert missing(shown, run(language, code, tmp_path, str(tmp_path / "cache"))) is None


def test_the_examples_are_these():
    assert {name for page, name in EXAMPLES if page == "extending"} >= {"loss", "model", "theorem"}
    assert {name for page, name in EXAMPLES if page == "proofs"} >= {"prove", "shell", "critical", "threshold"}
    assert {name for page, name in EXAMPLES if page == "conjecture"} == {"claim", "command", "inequality"}
    assert "loop" in {name for page, name in EXAMPLES if page == "cluster"}
    assert all(map(all_are_examples, PAGES.values()))
