"""One page of a report, written as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ufm.report.notation import OBJECTIVE
from ufm.report.tables import QUANTITIES, escaped, markdown

TEMPLATE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
NUMBERS = ("predicted", "measured", "certified gap", "tolerance", "residual / tolerance")
"""Columns whose cells are never broken."""


class Page:
    """Title, table, figures and parts, written twice."""

    def __init__(
        self,
        title: str,
        summary: str,
        meta: dict[str, Any],
        columns: Sequence[str],
        table: list[list[str]],
        figures: list[tuple[Any, str]],
        parts: list[dict[str, Any]],
        notation: Mapping[str, str],
    ) -> None:
        self.title, self.summary, self.columns, self.table = title, summary, columns, table
        self.figures, self.parts, self.notation = figures, parts, notation
        self.command = str(meta.get("command", ""))
        self.made = "Made with " + ", ".join(f"{k} {v}" for k, v in meta.items() if k != "command") + "."

    def save(self, folder: Path) -> Path:
        """Both files, and the figures that the Markdown shows."""
        for i, (figure, _) in enumerate(self.figures, 1):
            figure.savefig(folder / f"figure-{i}.svg", metadata={"Date": None})
        (folder / "report.md").write_text("\n".join(self.markdown()) + "\n", encoding="utf-8")
        path = folder / "report.html"
        path.write_text(self.html(), encoding="utf-8")
        return path

    def markdown(self) -> list[str]:
        """Lines of Markdown."""
        lines = [f"# {self.title}", "", self.summary, "", *markdown(self.columns, self.table), ""]
        lines += ["## Notation", "", escaped(OBJECTIVE), ""]
        lines += [*(f"* `{k}`: {escaped(v)}" for k, v in self.notation.items()), ""]
        for i, (_, alt) in enumerate(self.figures, 1):
            lines += [f"![{alt}](figure-{i}.svg)", ""]
        lines += ["Commands run in this folder.", ""] if self.parts else []
        for part in self.parts:
            lines += [f"## {escaped(part['title'])}", ""]
            lines += [f"* {k}: " + (f"`{v}`" if k == "Again" else escaped(v)) for k, v in part["facts"].items()]
            lines += ["", *markdown(QUANTITIES, part["numbers"]), ""] if part["numbers"] else [""]
        return [*lines, *([f"`{self.command}`", ""] if self.command else []), self.made]

    def html(self) -> str:
        """The page."""
        from ufm.plotting.verdicts import inline_svg

        figures = [
            f"<figure>{inline_svg(figure, f'f{i}', alt)}<figcaption>{escape(alt)}</figcaption></figure>"
            for i, (figure, alt) in enumerate(self.figures, 1)
        ]
        parts = []
        for part in self.parts:
            facts = "".join(
                f"<dt>{escape(k)}</dt><dd>{f'<code>{escape(v)}</code>' if k == 'Again' else escape(v)}</dd>"
                for k, v in part["facts"].items()
            )
            numbers = _html_table(QUANTITIES, part["numbers"]) if part["numbers"] else ""
            summary = f"<summary>{escape(part['title'])}</summary>"
            parts.append(f"<details{' open' if part['open'] else ''}>{summary}<dl>{facts}</dl>{numbers}</details>")
        return TEMPLATE.substitute(
            title=escape(self.title),
            summary=escape(self.summary),
            table=_html_table(self.columns, self.table),
            objective=escape(OBJECTIVE),
            notation="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.notation.items()),
            figures="\n".join(figures),
            parts="\n".join(parts),
            command=f"<p><code>{escape(self.command)}</code></p>" if self.command else "",
            made=escape(self.made),
        )


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose rows become blocks on a narrow screen, each cell with its column's name."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = []
    for row in rows:
        kind = next((v for v in ("refuted", "inconclusive", "outside", "holds") if row[-1].startswith(v)), "")
        cells = [
            f'<td data-name="{escape(c)}"' + ' class="number"' * (c in NUMBERS) + f">{escape(cell)}</td>"
            for c, cell in zip(columns, row, strict=True)
        ]
        body.append(f"<tr{f' class={kind}' if kind else ''}>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
