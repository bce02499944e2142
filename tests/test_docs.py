"""The page on extending the package: what it shows as a user writes it runs, and prints what it says."""

import jax
import pytest
from examples import ROOT, all_are_examples, examples_of, missing, run

import ufm

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = examples_of(PAGE)


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
    assert {"loss", "model", "theorem"} <= set(EXAMPLES)
    assert all_are_examples(PAGE)
