"""The checker refuses every change of a proof, and shares nothing with the prover."""

import ast
import copy
import hashlib
import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import ufm
from ufm.atlas import THEOREMS, Verdict, proof_file, refute
from ufm.atlas._exhibits import PROBLEMS, UNPROVED
from ufm.losses import BCE, CE, MSE, Focal, LabelSmoothing, Logistic
from ufm.proof import checker
from ufm.proof import losses as prover_losses
from ufm.proof import models as prover_models
from ufm.proof.losses import OfBinary
from ufm.proof.models import ModelForm, OfProducts

SOURCE = Path(checker.__file__)
FREE = ("about", "statement", "words", "theorem", "versions", "digest")
"""Fields that are words: nothing follows from them, and the digest alone holds them."""
MOST = 130
"""Fields changed in one proof, drawn where there are more."""


def documents():
    """A proof for each loss, model and kind of claim, with every optional field used somewhere."""
    decay, free = ufm.Decay(0.01, 0.02, 0.05), ufm.Decay(0.01, 0.02, 0.0)
    fields = {"weights": np.array([0.3, 0.2, 0.5]), "offset": np.array([0.1, -0.2, 0.3])}
    fixed = ufm.models.FixedClassifier(np.random.default_rng(0).normal(size=(3, 4)))
    point = ufm.Problem(3, 4, (3, 2, 2), CE(), features="per_class").init(0, 0.7)
    pair = ufm.Problem(2, 3, (3, 2), Logistic(), decay, "unified", features="per_class")
    for loss in (CE(), BCE(), Focal(2.0), LabelSmoothing(0.1), MSE(2.0, 3.0)):
        problem = ufm.Problem(3, 4, (3, 2, 2), loss, decay, features="per_class", **fields)
        yield loss.name, ufm.proof.prove(problem, point)
    yield "undecayed", ufm.proof.prove(ufm.Problem(3, 4, (3, 2, 2), CE(), free, features="per_class"), point)
    yield "logistic", ufm.proof.prove(pair, pair.init(0))
    for name, model in (("fixed", fixed), ("spheres", ufm.models.Spheres(3.0))):
        yield (
            name,
            ufm.proof.prove(ufm.Problem(3, 4, (3, 2, 2), BCE(), decay, features="per_class", model=model), point),
        )
    shifted = ufm.Problem(4, 5, 2, BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    yield "centered", refute(THEOREMS["li2025/2"], shifted)
    for theorem in PROBLEMS:
        yield theorem, refute(THEOREMS[theorem], PROBLEMS[theorem])


@pytest.fixture(scope="module")
def proofs():
    return {name: json.loads(json.dumps(proof.document)) for name, proof in documents()}


def digested(document):
    """The document with the digest that fits it."""
    rest = {key: x for key, x in document.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return {**rest, "digest": digest}


def refused(document):
    try:
        checker.check(document)
    except checker.Refused:
        return True
    return False


def leaves(value, path=()):
    """Paths of all leaves, and of what is empty."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, x in items:
            yield from leaves(x, (*path, key))
    else:
        yield path


def changed(document, path, change):
    """A copy in which the field at ``path`` is what ``change`` makes of it."""
    new = copy.deepcopy(document)
    here = new
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = change(here[path[-1]])
    return new


def other(value):
    """Another value of the same kind: a number a thousandth away, the next decimal, the next word."""
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        x = float.fromhex(value)
        return (x * 1.001 if x else 1e-3).hex()
    if isinstance(value, str):
        words = ["ce", "bce", "linear", "spheres", "per_class", "unified", "centered", "origin"]
        try:
            return str(Decimal(value) + Decimal(1).scaleb(Decimal(value).as_tuple().exponent))
        except ArithmeticError:
            return words[(words.index(value) + 1) % len(words)] if value in words else "nothing"
    return value + 1 if isinstance(value, int) else ["0x1p0"]


NAMES = ["ce", "bce", "focal", "ls", "mse", "undecayed", "logistic", "fixed", "spheres", "centered", *PROBLEMS]


@pytest.mark.parametrize("name", NAMES)
def test_every_change_of_a_field_is_refused(proofs, name):
    document = proofs[name]
    assert checker.check(document)
    paths = list(leaves(document))
    numbers = [p for p in paths if len(p) > 3]
    drawn = random.Random(0).sample(numbers, min(len(numbers), MOST if len(numbers) < 800 else 12))
    missed = []
    for path in [p for p in paths if len(p) <= 3] + drawn:
        mutant = changed(document, path, other)
        assert refused(mutant), f"{path}: the digest does not hold it"
        # Whoever changes a field can make the digest fit; then the numbers must refuse.
        if not set(path) & set(FREE) and not refused(digested(mutant)):
            missed.append(path)
    unused = {"focal-landscape-global": "b", "contrastive-focal": "b", "spheres": "WH", "normalised": "WH"}
    allowed = {("problem", "decay", x) for x in unused.get(name.split("/")[-1], "")}
    allowed |= {("problem", "offset", 1)} if name == "logistic" else set()  # of the idle neuron
    allowed |= {("dual", key) for key in ("rows", "columns")}  # shares within a norm that need not be tight
    assert [p for p in missed if p not in allowed and p[:2] not in allowed] == []


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("zhou")])  # slow: 24 classes
@pytest.mark.parametrize("bound", ["lower", "upper"])
@pytest.mark.parametrize("step", [1, -1])
def test_one_unit_in_the_last_digit_is_refused(proofs, name, bound, step):
    """In both directions: a bound must be the one that follows."""

    def moved(text):
        return str(Decimal(text) + Decimal(step).scaleb(Decimal(text).as_tuple().exponent))

    assert refused(digested(changed(proofs[name], (bound,), moved)))


BAD = {
    "NaN": (("point", "H", 0, 0), "nan"),
    "infinity": (("point", "H", 0, 0), "inf"),
    "a float": (("point", "H", 0, 0), 0.5),
    "decimal": (("point", "H", 0, 0), "0.5"),
    "swapped": (("point", "W"), lambda rows: rows[::-1]),
    "short": (("point", "W"), lambda rows: rows[:-1]),
    "transposed": (("dual", "V"), lambda rows: [list(row) for row in zip(*rows, strict=True)]),
    "format": (("format",), 2),
    "no format": (("format",), None),
    "unknown loss": (("problem", "loss", "name"), "hinge"),
    "negative decay": (("problem", "decay", "W"), "-0x1p-6"),
    "no decay": (("problem", "decay", "H"), "0x0p0"),
    "true": (("problem", "dim"), True),
    "no digits": (("lower",), "0."),
    "exponent": (("lower",), "5e-1"),
    "a lie": (("lower",), "0.9"),
    "NaN bound": (("upper",), "NaN"),
    "claim": (("refutes", "claim"), "scalar"),
    "by": (("refutes", "by"), "0.5"),
    "negative": (("refutes", "by"), "-0.1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused(proofs, case):
    path, value = BAD[case]
    document = proofs["ce" if case == "transposed" else "centered"]
    mutant = changed(document, path, value if callable(value) else lambda _: value)
    with pytest.raises(checker.Refused):
        checker.check(digested(mutant))


@pytest.mark.parametrize("key", ["format", "problem", "point", "dual", "lower", "upper", "refutes", "digest"])
def test_missing_fields_are_refused(proofs, key):
    rest = {k: v for k, v in proofs["centered"].items() if k != key}
    with pytest.raises(checker.Refused):
        checker.check(rest if key == "digest" else digested(rest))


def larger(function):
    """One part in a thousand more."""
    return lambda *arguments: function(*arguments) * 1001 / 1000


def beyond(function):
    """An assertion that always passes."""
    return lambda *arguments: None


FORMULAS = {
    "binary entropy": (OfBinary, "conjugate", larger),
    "entropy": (prover_losses, "xlogx", larger),
    "binary loss": (OfBinary, "value", larger),
    "penalty": (ModelForm, "penalty", larger),
    "scores": (ModelForm, "scores", larger),
    "norm": (prover_models, "below", beyond),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_wrong_prover_is_caught(formula, monkeypatch):
    """A mutation in a formula of the prover: what it then writes is refused."""
    problem = ufm.Problem(4, 5, 2, BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    point = ufm.theory.minimizer(problem).params
    assert not refused(ufm.proof.prove(problem, point).document)
    where, name, mutation = FORMULAS[formula]
    monkeypatch.setattr(where, name, mutation(getattr(where, name)))
    if formula == "norm":  # nothing is scaled, and nothing looked at
        monkeypatch.setattr(OfProducts, "scale", lambda self, V: 2.0)
    assert refused(ufm.proof.prove(problem, point).document)


@pytest.mark.parametrize("name", ["value", "conjugate", "objective", "bound"])
def test_a_wrong_checker_refuses_what_is_right(name, monkeypatch):
    """Two programs that share nothing agree to the last of sixteen digits, or one of them is wrong."""
    problem = ufm.Problem(4, 5, 2, BCE(), ufm.Decay(5e-3, 1e-3, 0.5))
    document = ufm.proof.prove(problem, ufm.theory.minimizer(problem).params).document
    monkeypatch.setattr(checker.Problem, name, larger(getattr(checker.Problem, name)))
    assert refused(document)


def test_a_claim_that_is_true_is_not_refuted():
    """Where the ETF is the minimizer nobody refutes the theorem."""
    problem = ufm.Problem(4, 5, 2, BCE(), ufm.Decay(5e-3, 1e-3, 1e-4))
    with pytest.raises(ufm.proof.balls.Unproved, match="li2025/2 is not refuted"):
        refute(THEOREMS["li2025/2"], problem)


def test_the_checker_stands_alone():
    """At most 250 lines; python-flint and the standard library; runs as a file, away from the package."""
    text = SOURCE.read_text()
    assert len(text.splitlines()) <= 250
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
    assert modules - set(sys.stdlib_module_names) == {"flint"}


@pytest.mark.parametrize("theorem", PROBLEMS)
def test_shipped_proofs_are_proofs_and_what_the_prover_writes(theorem):
    """The files that come with the package, checked; the prover makes them again."""
    shipped = json.loads(proof_file(theorem).read_text())
    assert f"refutes {theorem} by" in checker.check(shipped)
    assert shipped["refutes"]["by"] == refute(THEOREMS[theorem], PROBLEMS[theorem]).document["refutes"]["by"]
    assert THEOREMS[theorem].applies(PROBLEMS[theorem])


def test_every_refuted_theorem_ships_its_proof():
    refuted = {t.id for t in THEOREMS.values() if t.recorded == Verdict.REFUTED}
    assert refuted == {*PROBLEMS, *UNPROVED}
    assert not {*PROBLEMS} & {*UNPROVED}


@pytest.mark.parametrize("command", [["-I", str(SOURCE)], ["-m", "ufm.proof.checker"]])
def test_as_a_program(command, tmp_path):
    """By itself, with nothing of the package in reach, and as a module; exit status and streams."""
    good, bad = proof_file("li2025/2"), tmp_path / "bad.json"
    bad.write_text(good.read_text().replace("1.0946792", "1.0946793"))

    def run(*files):
        words, place = [sys.executable, *command, *files], SOURCE.parents[2]
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=place)

    done = run(good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("proved: 0.6717079569277")
    for wrong in ((bad,), (tmp_path / "none.json",), ()):
        assert run(*wrong).returncode == 1
        assert run(*wrong).stderr.startswith("refused: ")


@pytest.mark.parametrize(("module", "others"), [("ufm.proof.checker", "jax numpy"), ("ufm.atlas", "flint")])
def test_neither_loads_what_it_does_not_need(module, others):
    """The checker without JAX, the atlas without python-flint."""
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in {others.split()}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=SOURCE.parents[2]).returncode == 0
