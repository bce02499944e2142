"""API reference from the docstrings, warnings as errors: ``python docs/build.py [DIR]`` (``pip install '.[docs]'``)."""

import contextlib
import sys
import warnings
from pathlib import Path

import pdoc

import ufm


def build(folder: Path) -> None:
    """Write the pages of every room of the installed package to ``folder``; any warning is an error."""
    for room in (ufm, ufm.proof):
        for name in room.__all__:
            setattr(room, name, getattr(room, name))  # pdoc reads the module's dictionary, which these lazy names miss
    pdoc.render.configure(docformat="google", search=True, footer_text=f"ufm {ufm.__version__}")
    folder.mkdir(parents=True, exist_ok=True)
    # In a clone pdoc would ask whether "ufm" is the installed package or the folder beside it: work where none is.
    with warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("error")
        pdoc.pdoc("ufm", "ufm.plotting", "ufm.report", "!ufm.cli", "!ufm.__main__", output_directory=Path.cwd())


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    build(target)
    print(f"API reference: {target / 'index.html'}")
