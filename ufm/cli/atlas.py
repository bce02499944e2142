"""``ufm atlas``: the theorems, listed."""

from __future__ import annotations

import click

from ufm.cli._common import JSON_OPTION, options, print_json, table, use_jax

FIELDS = ("id", "source", "statement", "formula", "hypotheses", "recorded")


@click.command("atlas")
@click.option("--paper", help="only the theorems of one paper: zhu2021, zhou2022, mse, li2025, binary")
@options([JSON_OPTION])
def command(paper: str | None, as_json: bool) -> None:
    """List the theorems: id, source, hypotheses, claim and the verdict on record."""
    use_jax()
    from ufm._base import nearest, require
    from ufm.atlas import PAPERS

    if paper is not None:
        require(paper in PAPERS, "paper", paper, nearest(paper, PAPERS))
    theorems = [t for name, group in PAPERS.items() if paper in (None, name) for t in group]
    listed = [{name: getattr(t, name) for name in FIELDS} for t in theorems]
    if as_json:
        print_json({"theorems": listed})
    else:
        table("", list(FIELDS), [[str(entry[name]) for name in FIELDS] for entry in listed])
