"""The pages of a report: well formed, self-contained, complete, and safe with any name."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Finding, Report, Trial, Trials, Verdict, quantity, rerun
from ufm.atlas.hypotheses import Hypothesis
from ufm.report import write, write_trials
from ufm.report.notation import CHECKED, OBJECTIVE, SYMBOLS, TRIED
from ufm.report.tables import COLUMNS, QUANTITIES, TRIAL_COLUMNS
from ufm.statement import from_data

VOID = {"meta", "link", "br", "img", "input", "hr"}
PROBLEM = ufm.Problem(3, 4, 2, ufm.losses.BCE(), ufm.Decay(0.01, 0.01, 0.01))
META = {"ufm": ufm.__version__, "jax": "0.0", "seed": 7, "command": "ufm verify --paper 'a<b'"}


class Reader(HTMLParser):
    """Balanced tags, the cells of each row, and all that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.loads, self.tags, self.ids, self.text = [], [], [], [], [], ""

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def finding(theorem="li2025/2", verdict=Verdict.HOLDS, problem=PROBLEM, **fields):
    numbers = [quantity("minimum", 1.0, 1.0 + 1e-11), quantity("a|b <i>", 2.0, np.inf)]
    values = {"quantities": numbers, "gap": 1e-13, "recorded": verdict, **fields}
    return Finding(THEOREMS[theorem], problem, verdict=verdict, **values)


def read(path):
    page = Reader()
    page.feed(path.read_text())
    page.close()
    assert not page.open
    return page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    named = ufm.losses.custom(lambda z, k: -z[k], name="<b>&")
    fixed = dataclasses.replace(PROBLEM, classifier=np.eye(3, 4))
    verdicts = [finding(verdict=v) for v in Verdict]
    verdicts += [finding(problem=dataclasses.replace(PROBLEM, loss=named)), finding(problem=fixed, gap=None)]
    verdicts += [finding(verdict=Verdict.OUTSIDE, quantities=[], gap=None, reason="needs d >= K & n < 3")]
    report = Report(verdicts, META)
    return report, write(report, tmp_path_factory.mktemp("report"))


def test_page_is_whole_and_loads_nothing(written):
    _, path = written
    page, text = read(path), path.read_text()
    assert page.loads == []
    assert not re.search(r"https?:|url\((?!#)|@import|<script", text)
    assert len(set(page.ids)) == len(page.ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(page.ids)
    figures = [given for tag, given in page.tags if tag == "svg"]
    assert len(figures) == 3
    assert all(given["role"] == "img" and len(given["aria-label"]) > 40 and "viewbox" in given for given in figures)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_every_verdict_is_there_with_what_it_needs(written):
    report, path = written
    page = read(path)
    assert [row[-1] for row in page.rows[1 : 1 + len(report.findings)]] == [str(f.verdict) for f in report.findings]
    for text in (page.text, path.with_name("report.md").read_text()):
        assert report.summary in text
        assert f"ufm {ufm.__version__}, jax 0.0, seed 7" in text
        assert "lower bound" in text
        assert "ufm verify --paper 'a<b'" in text
        assert OBJECTIVE in text.replace("\\|", "|")
        assert text.index("Commands run in this folder.") < text.index("specs/01")
    assert page.text.count("Again") == len(report.findings)


def test_every_metric_number_column_and_symbol_has_its_line(written):
    """Names in the tables and short words of the formulas, against a reader's list of what they stand for."""
    _, path = written
    said = " ".join(SYMBOLS | CHECKED | TRIED).replace(",", " ").replace(";", " ")
    columns = {"predicted", "measured", "certified gap", "residual / tolerance"}
    assert columns <= {*COLUMNS, *QUANTITIES}
    tried = {"inside", "at boundary", "outside: claim false", "undecided"}
    assert tried <= set(TRIAL_COLUMNS)
    metrics = {f"NC{name}" for name in ("1", "2", "3", "2_MEANS", "2_UNCENTRED", "2_MEANS_UNCENTRED")}
    symbols = {"K", "d", "n", "N", "W", "H", "b", "Z", "mu", "p", "q", "a", "mean mode c", "rho", "s", "sigma", "logit"}
    assert [word for word in columns | tried if word not in said.replace("  ", " ")] == []
    assert (metrics | symbols) - {*said.split(), "mean mode c"} == set()
    assert all(line in read(path).text for line in (SYMBOLS | CHECKED).values())


def test_names_are_escaped(written):
    _, path = written
    page = read(path)
    assert not {"b", "i"} & {tag for tag, _ in page.tags}
    assert "<b>&" in page.text
    assert "a|b <i>" in page.text
    lines = path.with_name("report.md").read_text()
    assert "<b>" not in lines
    assert "a\\|b" in lines


def test_lines_are_checked_again_from_their_specs(written):
    """Each saved spec states its own problem, a fixed classifier among its data."""
    _, path = written
    page = read(path)
    spec = re.search(r"--rerun (specs/01-\S+?json)", page.text).group(1)
    nothing = Hypothesis("nothing", lambda p: False)
    again = rerun(path.parent / spec, {"li2025/2": dataclasses.replace(THEOREMS["li2025/2"], hypotheses=nothing)})
    assert again.problem == PROBLEM
    saved = [json.loads(file.read_text())["problem"] for file in sorted((path.parent / "specs").glob("*.json"))]
    fixed = [problem for problem in saved if "classifier" in problem]
    assert len(fixed) == 1
    np.testing.assert_array_equal(from_data(fixed[0]).classifier, np.eye(3, 4))
    assert "a loss of your own" in page.text


def test_trials_have_a_page_too(tmp_path):
    theorem = THEOREMS["li2025/2"]
    trial = Trial(theorem, [finding(), finding(verdict=Verdict.REFUTED)], boundary=1, outside=2, broken=1)
    path = write_trials(Trials([trial], META), {theorem.id: str(tmp_path / "li2025-2.json")}, tmp_path)
    page = read(path)
    assert page.rows[1][:5] == ["li2025/2", theorem.source, "2", "1", "2: 1"]
    assert "ufm verify --rerun li2025-2.json" in page.text
    assert page.loads == []
    assert Path(path).with_name("figure-1.svg").exists()


def test_evidence_of_a_wrong_claim_is_marked(tmp_path):
    """A planted mutation: a verdict that is not the recorded one stands out in table and part."""
    wrong = dataclasses.replace(finding(verdict=Verdict.REFUTED), recorded=Verdict.HOLDS)
    page = read(write(Report([wrong], META), tmp_path))
    assert page.rows[1][-1] == "refuted  (recorded: holds)"
    assert any(tag == "details" and "open" in given for tag, given in page.tags)


def test_what_went_wrong_is_open_and_so_is_its_correction(tmp_path):
    """Nothing else is: neither what lies outside the hypotheses, nor what simply holds, nor another problem."""
    elsewhere = dataclasses.replace(PROBLEM, dim=5)
    cases = {
        ("li2025/2", Verdict.REFUTED, PROBLEM): True,
        ("li2025/2-corrected", Verdict.HOLDS, PROBLEM): True,
        ("li2025/2-corrected", Verdict.HOLDS, elsewhere): False,
        ("li2025/boundary", Verdict.HOLDS, PROBLEM): False,
        ("li2025/eq3", Verdict.OUTSIDE, PROBLEM): False,
        ("li2025/merged", Verdict.INCONCLUSIVE, PROBLEM): True,
    }
    found = [finding(*case) for case in cases]
    found.append(dataclasses.replace(finding("li2025/eq20", Verdict.OUTSIDE), recorded=Verdict.HOLDS))
    page = read(write(Report(found, META), tmp_path))
    assert ["open" in given for tag, given in page.tags if tag == "details"] == [*cases.values(), True]
