"""``ufm atlas``: the theorems, listed."""

from __future__ import annotations

import click

from ufm.cli._common import JSON_OPTION, options, print_json, table, use_jax

FIELDS = ("id", "source", "statement", "formula", "hypotheses", "recorded")


@click.command("atlas")
@click.option("--paper", help="only the theorems of one paper: the part of an id before its slash")
@click.option("--markdown", "as_markdown", is_flag=True, help="the table of the README")
@options([JSON_OPTION])
def command(paper: str | None, as_markdown: bool, as_json: bool) -> None:
    """List the theorems: id, source, hypotheses, claim and the verdict on record."""
    use_jax()
    from ufm._base import require_known
    from ufm.atlas import PAPERS

    if paper is not None:
        require_known("paper", paper, PAPERS)
    theorems = [t for name, group in PAPERS.items() if paper in (None, name) for t in group]
    listed = [{name: str(getattr(t, name)) for name in FIELDS} for t in theorems]
    if as_json:
        print_json({"theorems": listed})
    elif as_markdown:
        from ufm.report.tables import markdown

        shown = ("id", "source", "hypotheses", "recorded")
        cells = [[entry[name] for name in shown] for entry in listed]
        click.echo("\n".join(markdown(["theorem", "source", "hypotheses", "verdict"], cells)))
    else:
        table("", list(FIELDS), [list(entry.values()) for entry in listed])
