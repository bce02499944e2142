"""Every example in a docstring runs and says what it prints."""

import doctest
import importlib
import pkgutil

import pytest

import ufm

MODULES = [name for _, name, _ in pkgutil.walk_packages(ufm.__path__, "ufm.") if name != "ufm.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
