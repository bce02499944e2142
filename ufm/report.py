"""A report as pages: Markdown, and one HTML file that opens from disk, loads nothing and follows light and dark."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ufm.atlas import Finding, Report, Trials, save_counterexample
from ufm.atlas._core import CERTIFIED
from ufm.losses import NAMED

__all__ = ["write", "write_trials"]

COLUMNS = ["theorem", "source", "problem (decays W, H, b)", "quantity", "predicted", "measured", "gap", "verdict"]
TRIAL_COLUMNS = [
    "theorem",
    "source",
    "inside",
    "at boundary",
    "outside: claim false",
    "undecided",
    "worst residual / tolerance",
    "worst gap",
    "verdict",
]
QUANTITIES = ["quantity", "predicted", "measured", "tolerance", "residual / tolerance"]


def write(found: Report, folder: str | Path) -> Path:
    """Write ``report.html``, ``report.md`` and in ``specs/`` a file to check each line again.

    Returns:
        The path of the page.

    >>> import jax; jax.config.update("jax_enable_x64", True)
    >>> import tempfile, ufm, ufm.report
    >>> problem = ufm.Problem(3, 4, 2, loss=ufm.losses.CE(), decay=ufm.Decay(0.01, 0.01, 0.01))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = ufm.report.write(ufm.verify(problem, theorem="rediscovering/naive"), folder).read_text()
    >>> "ufm verify --rerun specs/01-rediscovering-naive.json" in page
    True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seed = int(found.meta.get("seed", 0))
    again = [_spec(f, i, folder, seed) for i, f in enumerate(found.findings, 1)]
    parts = [_part(i, f, line) for i, (f, line) in enumerate(zip(found.findings, again, strict=True), 1)]
    page = Page("Theorems, checked", found.summary, found.meta, COLUMNS, rows(found), _figures(found), parts)
    return page.save(folder)


def write_trials(found: Trials, saved: dict[str, str], folder: str | Path) -> Path:
    """The same for a run over random problems; ``saved`` maps a theorem to the file of its counterexample."""
    from ufm.plotting.verdicts import bounded

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for i, t in enumerate(found.trials, 1):
        if t.counterexample is not None and t.theorem.id in saved:
            line = f"ufm verify --rerun {shlex.quote(Path(saved[t.theorem.id]).name)}"
            parts.append(_part(i, t.counterexample, line, "Smallest counterexample"))
    names, verdicts = [t.theorem.id for t in found.trials], [str(t.verdict) for t in found.trials]
    label = "worst residual / tolerance where it holds"
    alt = "One line per theorem: the worst residual among the instances where it holds, all left of 1, the tolerance."
    figures = [(bounded(names, [t.residual for t in found.trials], verdicts, 1.0, label), alt)]
    page = Page(
        "Theorems on random problems", found.summary, found.meta, TRIAL_COLUMNS, trial_rows(found), figures, parts
    )
    return page.save(folder)


def problem_text(problem: Any) -> str:
    """A problem on one line."""
    if hasattr(problem, "gamma"):
        return f"normalised gamma={float(problem.gamma):g} {problem_text(problem.problem)}"
    d = problem.decay
    bias = {"per_class": "", "unified": ", unified b", "none": ", no b"}[problem.bias]
    return (
        f"{problem.loss} K={problem.classes} d={problem.dim} n={problem.per_class}"
        f" ({float(d.W):g}, {float(d.H):g}, {float(d.b):g}){bias}"
    )


def rows(report: Report) -> list[list[str]]:
    """The findings as rows of `COLUMNS`: the headline, or the worst quantity where one disagrees."""
    found = []
    for f in report.findings:
        headline = f.worst if f.worst is not None and f.worst.residual > 1 else next(iter(f.quantities), None)
        numbers = ["", "", ""]
        if headline is not None:
            numbers = [headline.name, f"{headline.predicted:.10g}", f"{headline.measured:.10g}"]
        gap = "" if f.gap is None else f"{f.gap:.0e}"
        mark = "" if f.as_recorded else f"  (recorded: {f.recorded or f.theorem.recorded})"
        found.append([f.theorem.id, f.theorem.source, problem_text(f.problem), *numbers, gap, f.verdict + mark])
    return found


def trial_rows(found: Trials) -> list[list[str]]:
    """The trials as rows of `TRIAL_COLUMNS`."""
    rows = []
    for t in found.trials:
        gap = "" if t.gap is None else f"{t.gap:.0e}"
        mark = "" if t.as_recorded else f"  (recorded: {t.theorem.recorded})"
        numbers = [str(len(t.findings)), str(t.boundary), f"{t.outside}: {t.broken}" if t.outside else "", ""]
        numbers[-1] = str(t.undecided) if t.undecided else ""
        rows.append([t.theorem.id, t.theorem.source, *numbers, f"{t.residual:.0e}", gap, t.verdict + mark])
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in rows]


def _md(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")


def _spec(finding: Finding, number: int, folder: Path, seed: int) -> str:
    """Save what `ufm verify --rerun` reads, and say how to call it in ``folder``."""
    model = finding.model
    if type(model.loss) is not NAMED.get(model.loss.name):
        return "(a loss of your own: state the problem in Python)"
    if model.classifier is not None:
        path = folder / "specs" / f"{number:02d}-classifier.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.asarray(model.classifier))
        counts = model.per_class if isinstance(model.per_class, tuple) else (model.per_class,)
        given = {"theorem": finding.theorem.id, "loss": model.loss, "classes": model.classes, "dim": model.dim}
        given |= {"per-class": ",".join(map(str, counts)), "bias": model.bias, "features": model.features}
        given |= {f"decay-{k.lower()}": repr(float(v)) for k, v in vars(model.decay).items()}
        given |= {"classifier": path.relative_to(folder), "seed": seed}
        return "ufm verify " + " ".join(f"--{k} {shlex.quote(str(v))}" for k, v in given.items())
    path = save_counterexample(finding, folder / "specs", seed)
    path = path.rename(path.with_name(f"{number:02d}-{path.name}"))
    return f"ufm verify --rerun {path.relative_to(folder)}"


def _part(number: int, finding: Finding, again: str, lead: str = "") -> dict[str, Any]:
    """One check in full: what the page and the Markdown both say."""
    f, theorem = finding, finding.theorem
    if f.gap is None:
        certificate = "none needed: the claim does not speak of the global minimum" if f.quantities else ""
    else:
        tight = f.gap <= CERTIFIED * max(1.0, *(abs(q.measured) for q in f.quantities if q.name == "minimum"), 0.0)
        certificate = f"gap {f.gap:.1e} to a lower bound over every (W, H, b)" + ("" if tight else "; not tight")
        for q in f.quantities:
            if q.name == "minimum":
                certificate += f"; value {q.measured:.12g}, lower bound {q.measured - f.gap:.12g}"
    facts = {
        lead or "Problem": problem_text(f.problem) + (f"  [{f.note}]" if f.note else ""),
        "Claim": theorem.statement,
        "Formula": theorem.formula,
        "Hypotheses": theorem.hypotheses,
        "Certificate": certificate,
        "Why": f.reason,
        "Again": again,
    }
    numbers = [
        [q.name, f"{q.predicted:.10g}", f"{q.measured:.10g}", f"{q.tolerance:.0e}", f"{q.residual:.1e}"]
        for q in f.quantities
    ]
    verdict = f"{f.verdict}" + ("" if f.as_recorded else f", recorded: {f.recorded or theorem.recorded}")
    return {
        "title": f"{number}. {theorem.id} ({theorem.source}): {verdict}",
        "open": f.verdict != "holds" or not f.as_recorded,
        "facts": {k: v for k, v in facts.items() if v},
        "numbers": numbers,
    }


def _figures(found: Report) -> list[tuple[Any, str]]:
    from ufm.plotting.verdicts import agreement, bounded

    judged = [(i, f) for i, f in enumerate(found.findings, 1) if f.worst is not None]
    if not judged:
        return []
    names, verdicts = [f"{i}. {f.theorem.id}" for i, f in judged], [str(f.verdict) for _, f in judged]
    residuals = [f.worst.residual for _, f in judged if f.worst is not None]
    figures = [
        (
            bounded(names, residuals, verdicts, 1.0, "worst |measured - predicted| / tolerance"),
            "One line per check: its worst residual in units of the tolerance. "
            + f"{sum(r <= 1 for r in residuals)} of {len(residuals)} checks lie within it.",
        )
    ]
    points = [(q.predicted, q.measured, str(f.verdict)) for _, f in judged for q in f.quantities]
    points = [p for p in points if np.isfinite(p[0]) and np.isfinite(p[1])]
    if points:
        alt = f"{len(points)} measured quantities against their predictions, with the line of equality on top."
        figures.append((agreement(*zip(*points, strict=True)), alt))  # type: ignore[arg-type]
    if any(f.gap is not None for _, f in judged):
        gaps = [None if f.gap is None else max(f.gap, 1e-17) for _, f in judged]
        worst = max(g for g in gaps if g is not None)
        alt = f"One line per check: the certified gap of its solution, at most {worst:.0e}; line at {CERTIFIED:.0e}."
        figures.append((bounded(names, gaps, verdicts, CERTIFIED, "certified gap to the global minimum"), alt))
    return figures


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
    ) -> None:
        self.title, self.summary, self.columns, self.table = title, summary, columns, table
        self.figures, self.parts = figures, parts
        self.made = "Made with " + ", ".join(f"{k} {v}" for k, v in meta.items()) + "."

    def save(self, folder: Path) -> Path:
        """Both files, and the figures that the Markdown shows."""
        for i, (figure, _) in enumerate(self.figures, 1):
            figure.savefig(folder / f"figure-{i}.svg", metadata={"Date": None})
        (folder / "report.md").write_text("\n".join(self.markdown()) + "\n")
        path = folder / "report.html"
        path.write_text(self.html())
        return path

    def markdown(self) -> list[str]:
        """Lines of Markdown."""
        lines = [f"# {self.title}", "", self.summary, "", *markdown(self.columns, self.table), ""]
        for i, (_, alt) in enumerate(self.figures, 1):
            lines += [f"![{alt}](figure-{i}.svg)", ""]
        for part in self.parts:
            lines += [f"## {_md(part['title'])}", ""]
            lines += [f"* {k}: " + (f"`{v}`" if k == "Again" else _md(v)) for k, v in part["facts"].items()]
            lines += ["", *markdown(QUANTITIES, part["numbers"]), ""] if part["numbers"] else [""]
        return [*lines, self.made]

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
        return PAGE.substitute(
            title=escape(self.title),
            summary=escape(self.summary),
            table=_html_table(self.columns, self.table),
            figures="\n".join(figures),
            parts="\n".join(parts),
            made=escape(self.made),
        )


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose rows become blocks on a narrow screen, each cell with its column's name."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = []
    for row in rows:
        kind = next((v for v in ("refuted", "inconclusive", "outside", "holds") if row[-1].startswith(v)), "")
        cells = [f'<td data-name="{escape(c)}">{escape(cell)}</td>' for c, cell in zip(columns, row, strict=True)]
        body.append(f"<tr{f' class={kind}' if kind else ''}>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --page: #fff; --line: #ccc; --wrong: #a33c00; --right: #00588c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --page: #16181b; --line: #44484d; --wrong: #ff9d5c; --right: #7cc4f5; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
tr.holds td:last-child { color: var(--right); }
tr.refuted td:last-child, tr.inconclusive td:last-child { color: var(--wrong); font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } svg { width: 100%; height: auto; } figcaption { font-size: .875rem; }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
code { font-size: .875rem; }
@media (max-width: 44rem) {
  thead { position: absolute; left: -9999px; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { display: grid; grid-template-columns: 9rem 1fr; border: 0; padding: .1rem 0; overflow-wrap: anywhere; }
  td::before { content: attr(data-name); opacity: .75; }
  td:empty { display: none; }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<h2>Verdicts</h2>
$table
<h2>Figures</h2>
<div class="figures">
$figures
</div>
<h2>Each check</h2>
<p>Commands run in this folder.</p>
$parts
<footer><p>$made</p></footer>
</body>
</html>
""")
