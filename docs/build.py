"""API reference from the docstrings, warnings as errors: ``python docs/build.py [DIR]`` (``pip install '.[docs]'``)."""

import sys
import warnings
from pathlib import Path

import pdoc

import ufm


def build(folder: Path) -> None:
    """Write the pages of every room to ``folder``; any warning of pdoc is an error."""
    for name in ufm.__all__:
        setattr(ufm, name, getattr(ufm, name))  # pdoc reads the module's dictionary, which these lazy names miss
    pdoc.render.configure(docformat="google", search=True, footer_text=f"ufm {ufm.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc("ufm", "ufm.plotting", "ufm.report", "!ufm.cli", "!ufm.__main__", output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/api"))
