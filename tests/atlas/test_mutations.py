"""A wrong formula in the code of each theorem is seen: what held is refuted, what was refuted is so no longer.

Only the formula is replaced. The evidence is that of the theorem as it stands, solved once, and no number that the
formula predicts is measured with its help: solvers and theory are two witnesses.
"""

import ast
import dataclasses
import functools
from pathlib import Path

import pytest
from mutations import MUTATIONS

import ufm
from ufm.atlas import THEOREMS, Evidence, Verdict, check

# Primal and dual of one and the same matrix: a proof, without another witness.
PROOFS = {"thrampoulidis2022/svm"}


def test_every_theorem_has_a_wrong_formula():
    assert {m.theorem for m in MUTATIONS} == set(THEOREMS)


@pytest.mark.parametrize("name", [t.id for t in THEOREMS.values() if t.recorded == Verdict.REFUTED])
def test_a_theorem_on_record_as_false_is_seen_on_both_sides(name):
    """It holds on one problem and is refuted on another, and a wrong formula changes either."""
    assert {m.before for m in MUTATIONS if m.theorem == name} == {Verdict.HOLDS, Verdict.REFUTED}


@pytest.fixture(scope="module")
def evidence():
    """One solve per problem."""
    kept = {}
    return lambda problem: kept.setdefault(str(problem), Evidence(problem))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_formula_changes_the_verdict(mutation, evidence, monkeypatch):
    theorem, problem = THEOREMS[mutation.theorem], mutation.problem
    right = check(theorem, problem, evidence(problem))
    assert right.verdict == mutation.before, right.reason
    formula = getattr(mutation.where, mutation.name)
    if mutation.where is theorem:
        theorem = dataclasses.replace(theorem, **{mutation.name: mutation.wrong(formula)})
    else:
        monkeypatch.setattr(mutation.where, mutation.name, functools.partial(mutation.wrong, formula))
    wrong = check(theorem, problem, evidence(problem))
    assert wrong.verdict == mutation.after, wrong.reason
    # Were both sides of a prediction to move, a formula would be its own witness.
    before = {q.name: q for q in right.quantities}
    for q in wrong.quantities:
        known = before.get(q.name, q)
        moved = [abs(a - b) > q.tolerance for a, b in ((q.predicted, known.predicted), (q.measured, known.measured))]
        assert theorem.id in PROOFS or not all(moved), q


def rooms_of(room):
    """The parts of the package that ``room`` imports, directly or through others."""
    package, found, todo = Path(ufm.__file__).parent, set(), {room}
    while todo:
        name = todo.pop()
        found.add(name)
        files = list((package / name).rglob("*.py")) or [package / f"{name}.py"]
        for node in (n for path in files for n in ast.walk(ast.parse(path.read_text()))):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            assert "ufm" not in imported, name  # which is everything
            todo |= {n.split(".")[1] for n in imported if n.startswith("ufm.")} - found
    return found


def test_solvers_and_theory_are_two_witnesses():
    """Neither imports the other, directly or through a third."""
    assert "theory" in rooms_of("landscape")
    assert not {"theory", "atlas"} & rooms_of("solvers")
    assert not {"solvers", "atlas"} & rooms_of("theory")
