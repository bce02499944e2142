"""One battery for every model: what `ufm.models.Model` promises, on random problems, whatever the model."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm import Decay, Problem, losses, models
from ufm._base import axpy, dot
from ufm.statement import from_data, to_data
from ufm.theory import certify

K, D, COUNTS = 3, 4, (3, 2, 1)
MODELS = {
    "linear": models.Linear(),
    "nonnegative": models.Nonnegative(),
    "fixed": models.FixedClassifier(np.random.default_rng(7).normal(size=(K, D))),
    "spheres": models.Spheres(2.5),
    "deep": models.Deep(layers=3, widths=(5, 4)),
    "deep-relu": models.Deep(layers=2, activation="relu"),
}
DEEP = ("deep", "deep-relu")
CASES = [(name, features) for name in MODELS for features in ("per_sample", "per_class")]


def problem_of(name, features="per_class", **options):
    options = {"loss": losses.BCE(), "bias": "per_class", "decay": Decay(0.02, 0.03, 0.1)} | options
    return Problem(K, D, COUNTS, features=features, model=MODELS[name], **options)


def point_of(problem, seed=0):
    return problem.init(jax.random.key(seed), 1.5)


def interior(problem, seed=0):
    """A point off the bounds of the model, where it has any: both ways along a line are open."""
    x = point_of(problem, seed)
    return models.Params(x.W, x.H + 0.5, x.b) if problem.model.bounded else x


def test_the_battery_covers_every_named_model():
    assert set(models.NAMED) <= set(MODELS)


@pytest.mark.parametrize(("name", "features"), CASES)
@pytest.mark.parametrize("loaded", [False, True])
def test_objective_is_its_definition(name, features, loaded):
    """Sum of shares times losses, plus penalties, in NumPy from logits C F + b + offset."""
    weights, offset = (np.array([0.5, 0.2, 0.4]), np.array([0.1, -0.2, 0.3])) if loaded else (None, None)
    problem = problem_of(name, features, weights=weights, offset=offset)
    x = point_of(problem)
    C, F = (np.asarray(part) for part in problem.model.layers(x))
    counts = np.array(COUNTS)
    shares = counts / counts.sum() if weights is None else weights
    Z = C @ F + np.asarray(x.b)[:, None] + (0.0 if offset is None else offset[:, None])
    total = 0.0
    for column, k in enumerate(problem.labels):
        of_column = shares[k] / (counts[k] if features == "per_sample" else 1)
        signs = np.where(np.arange(K) == k, -1.0, 1.0)
        total += of_column * np.sum(np.logaddexp(0.0, signs * Z[:, column]))
    total += 0.5 * 0.1 * np.sum(np.asarray(x.b) ** 2)
    if name != "spheres":
        m = np.ones(6) if features == "per_sample" else counts
        matrices = x.W if name in DEEP else [C]
        total += 0.5 * 0.02 * sum(np.sum(np.asarray(W) ** 2) for W in matrices)
        total += 0.5 * 0.03 * np.sum(m * np.sum(np.asarray(x.H) ** 2, axis=0))
    np.testing.assert_allclose(float(problem.objective(x)), total, rtol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_in_solver_coordinates_are_differences(name):
    """Slope <grad, xi> and curvature <xi, Hess xi> along the retraction, which is of second order."""
    problem = problem_of(name)

    @jax.jit
    def everything():
        space = problem.model.coordinates(problem, interior(problem))
        point = space.inward(interior(problem))
        toward = space.inward(interior(problem, 1))
        near = space.retract(point, jax.tree.map(lambda t, p: 1e-3 * (t - p), toward, point))
        xi = jax.tree.map(lambda a, b: a - b, near, point)

        def along(t):
            return problem.objective(space.outward(space.retract(point, axpy(t, xi, jax.tree.map(jnp.zeros_like, xi)))))

        values = jax.vmap(along)(jnp.array([-0.3, 0.0, 0.3]))
        _, gradient = space.value_and_gradient(point)
        back = space.outward(space.retract(point, xi))
        return values, dot(gradient, xi), dot(xi, space.hessian(point)(xi)), back

    (left, middle, right), slope, curvature, back = everything()
    np.testing.assert_allclose(slope, (right - left) / 0.6, rtol=1e-5)
    np.testing.assert_allclose(curvature, (right - 2 * middle + left) / 0.09, rtol=1e-3)
    for moved, onto in zip(jax.tree.leaves(back), jax.tree.leaves(problem.model.onto(back)), strict=True):
        np.testing.assert_allclose(moved, onto, rtol=1e-14)  # a retraction stays in the model


@pytest.mark.parametrize("name", MODELS)
def test_plain_hessian_is_the_change_of_the_gradient(name):
    problem = problem_of(name)
    x, v = point_of(problem), point_of(problem, 1)
    gradient = jax.grad(problem.objective)
    step = 1e-5
    ahead, behind = (gradient(axpy(sign * step, v, x)) for sign in (1.0, -1.0))
    for product, a, b in zip(*map(jax.tree.leaves, (problem.hessian(x)(v), ahead, behind)), strict=True):
        np.testing.assert_allclose(product, (a - b) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_fenchel_young(name):
    """<V, X> <= R(X) + R*(V) on random pairs, V scaled into the domain; X made by points of the model.

    Of a deep model's R* only what concerns X with R(X) below the value of a point is known: X of that point is one.
    """
    problem = problem_of(name)
    rng = np.random.default_rng(3)
    for seed in range(20):
        x = point_of(problem, seed)
        V = jnp.asarray(rng.normal(size=(K, problem.columns)) * 10.0 ** rng.uniform(-2, 1))
        V = V * problem.model.dual_scale(problem, V)
        star, _ = problem.model.conjugate(problem, V, x)
        pairing = -float(jnp.sum(V * problem.scores(x)))  # the conjugate is taken at -V
        assert pairing <= float(problem.model.penalty(problem, x)) + float(star) + 1e-12


@pytest.mark.parametrize(("name", "features"), CASES)
@pytest.mark.parametrize("bias", ["per_class", "unified", "none"])
def test_a_bound_is_below_every_value(name, features, bias):
    problem = problem_of(name, features, bias=bias, weights=np.array([0.5, 0.2, 0.4]), offset=0.3)
    values = [float(problem.objective(point_of(problem, seed))) for seed in range(8)]
    for seed in range(4):
        assert certify(problem, point_of(problem, seed)).lower_bound <= min(values)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DEEP])
def test_the_certificate_closes_at_the_solution(name):
    """Unequal shares, an offset, unequal counts: convex in the lift, so the solver's end is certified."""
    problem = problem_of(name, "per_sample", weights=np.array([0.5, 0.2, 0.4]), offset=np.array([0.1, -0.2, 0.3]))
    solution = ufm.solve(problem)
    assert solution.converged
    assert certify(problem, solution.params).gap < 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_what_a_point_is_projected_onto_is_itself(name):
    problem = problem_of(name)
    x = point_of(problem)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(problem.model.onto(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.parametrize("name", MODELS)
def test_data_state_the_problem_again(name):
    problem = problem_of(name, weights=np.array([0.5, 0.2, 0.4]), offset=-1 / 3)
    again = from_data(json.loads(json.dumps(to_data(problem))))
    assert jax.tree.structure(again) == jax.tree.structure(problem)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(problem), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_a_lane_of_a_sweep_is_a_solve(name):
    problem = problem_of(name)
    found = ufm.sweep(problem, {"decay.b": [0.1, 0.2]})
    for i, decay_b in enumerate([0.1, 0.2]):
        alone = ufm.solve(dataclasses.replace(problem, decay=Decay(0.02, 0.03, decay_b)))
        np.testing.assert_allclose(found["value"][i], alone.value, rtol=1e-12)
        assert found["gap"][i] < (np.inf if name in DEEP else 1e-10)  # no tight bound for BCE


@pytest.mark.parametrize("eliminate", [True, False])
def test_a_lane_measures_what_a_solve_measures(eliminate):
    """Unequal counts, a feature per sample: eliminated or not, every number is that of the full problem."""
    problem = Problem(3, 4, (4, 2, 1), losses.BCE(), Decay(0.02, 0.03, 0.1))
    found = ufm.sweep(problem, {"seed": [0]}, eliminate=eliminate)
    solution = ufm.solve(problem, 0, eliminate=eliminate)
    x = solution.params
    collapse = ufm.metrics.collapse(x.W, x.H, problem.labels, x.b)
    scores = ufm.metrics.scores(x.W, x.H, problem.labels)
    for name, expected in {
        "value": solution.value,
        "bias": x.b.mean(),
        "positive": scores["positive"]["mean"],
        "negative_max": scores["negative"]["max"],
        **{name: getattr(collapse, name) for name in ("nc2", "nc3", "nc4")},
        "evaluations": solution.evaluations,
    }.items():
        np.testing.assert_allclose(found[name][0], expected, rtol=1e-9, err_msg=name)


@models.pytree()
@dataclasses.dataclass(frozen=True)
class Bare(models.Model):
    """The least that a model is: layers and a penalty."""

    name = "bare"

    def layers(self, params):
        return params.W, params.H

    def penalty(self, problem, params):
        return models.Linear().penalty(problem, params)


def test_a_model_without_a_conjugate_is_solved_and_swept_without_a_bound():
    problem = Problem(K, D, COUNTS, losses.BCE(), Decay(0.02, 0.03, 0.1), features="per_class", model=Bare())
    plain = ufm.solve(problem_of("linear"))
    solution = ufm.solve(problem)
    np.testing.assert_allclose(solution.value, plain.value, rtol=1e-12)
    assert certify(problem, solution.params).lower_bound == -np.inf
    found = ufm.sweep(problem, {"decay.b": [0.1]})
    np.testing.assert_allclose(found["value"], [plain.value], rtol=1e-12)
    assert found["lower_bound"][0] == -np.inf


def test_weights_and_offset_are_leaves():
    """An axis of a sweep, and nothing is compiled again for another value."""
    problem = problem_of("linear", weights=np.array([0.5, 0.25, 0.25]), offset=0.0)
    names = ufm.sweep(problem, {"offset": [0.0, 0.5], "weights": [[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]})
    assert names["value"].shape == (2, 2)
    assert (names["gap"] < 1e-10).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": [0.5, 0.5]}, ["weights.shape", "(2,)", "(3,)"]),
        ({"weights": [0.5, 0.5, -0.1]}, ["weights", "-0.1", ">= 0"]),
        ({"weights": [0.0, 0.0, 0.0]}, ["weights", "not all zero"]),
        ({"weights": [1.0, np.nan, 1.0]}, ["weights", "nan", "finite"]),
        ({"offset": np.inf}, ["offset", "inf", "finite"]),
        ({"offset": [1.0, 2.0]}, ["offset.shape", "(2,)"]),
        ({"model": "linear"}, ["model", "'linear'", "ufm.models.Linear()"]),
        ({"model": models.Spheres(2.0), "classifier": np.eye(3, 4)}, ["model", "spheres", "classifier"]),
        ({"model": models.FixedClassifier(np.eye(2))}, ["classifier.shape", "(2, 2)", "(3, 4)"]),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ufm.InputError) as caught:
        Problem(3, 4, 2, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spheres:radius=2", ["radius", "gamma"]),
        ("spheres", ["spheres", "gamma", "spheres:gamma=8"]),
        ("sphere", ["sphere", "did you mean 'spheres'"]),
        ("spheres:gamma=-1", ["gamma", "-1", "> 0"]),
    ],
)
def test_refused_models_by_name(text, words):
    with pytest.raises(ufm.InputError) as caught:
        models.parse(text)
    for word in words:
        assert word in str(caught.value)
