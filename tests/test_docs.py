"""The pages on extending the package and on clusters: what they show runs, and prints what they say."""

import jax
import pytest
from examples import ROOT, all_are_examples, examples_of, missing, run

import ufm

PAGES = [(ROOT / "docs" / name).read_text() for name in ("extending.md", "cluster.md")]
EXAMPLES = {name: example for page in PAGES for name, example in examples_of(page).items()}


@pytest.fixture
def as_a_user():
    """JAX promotes dtypes as it does for users; models known by name are afterwards those of before."""
    kept = dict(ufm.models.NAMED)
    with jax.numpy_dtype_promotion("standard"):
        yield
    ufm.models.NAMED.clear()
    ufm.models.NAMED.update(kept)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("as_a_user")
def test_example_prints_what_is_shown(name, tmp_path):
    language, code, shown = EXAMPLES[name]
    assert shown, "an example without its output"
    assert missing(shown, run(language, code, tmp_path, str(tmp_path / "cache"))) is None


def test_the_examples_are_these():
    assert {"loss", "model", "theorem", "loop"} <= set(EXAMPLES)
    assert all(map(all_are_examples, PAGES))
