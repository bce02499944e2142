"""Losses taken block by block equal those whose logits are held whole, and hold less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ufm import Decay, Problem, blocks, losses


@pytest.fixture
def small_blocks(monkeypatch):
    """12 logits a block, none held whole."""
    monkeypatch.setattr(blocks, "HELD", 0)
    monkeypatch.setattr(blocks, "BLOCK", 12)


@pytest.mark.parametrize(
    ("loss", "bias"),
    [(losses.CE(), "per_class"), (losses.BCE(), "unified"), (losses.Focal(gamma=2.0), "none")],
    ids=str,
)
def test_value_gradient_and_product(small_blocks, monkeypatch, loss, bias):
    problem = Problem(4, 5, (1, 4, 3, 6), loss, Decay(0.02, 0.03, 0.05), bias=bias)  # 14 columns in blocks of 3
    params, direction = (problem.init(jax.random.key(i)) for i in (0, 1))
    of_hyper = jax.grad(lambda p: p.objective(params), allow_int=True)

    def everything():
        return (
            jax.value_and_grad(problem.objective)(params),
            problem.hessian(params)(direction),
            of_hyper(problem.astype(jnp.float64)),
        )

    blocked = everything()
    monkeypatch.setattr(blocks, "HELD", 10**9)
    whole = everything()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), blocked, whole)


def test_a_block_left_out_is_seen(small_blocks, monkeypatch):
    problem = Problem(4, 5, 4, losses.CE())
    params = problem.init(jax.random.key(0))
    whole = float(problem.objective(params))
    monkeypatch.setattr(blocks, "_fold", lambda visit, total, classes, columns: visit(0, columns // 2, total))
    assert abs(float(problem.objective(params)) - whole) > 1e-2


def test_memory_of_the_compiled_program():
    """Ten thousand classes, 20,000 samples: whole logits take 800 MB, the blocked program a fraction of that."""
    problem = Problem(10_000, 16, 2, losses.CE())
    shapes = jax.eval_shape(lambda: problem.init(jax.random.key(0), dtype=jnp.float32))
    for function, points in (
        (jax.value_and_grad(problem.objective), (shapes,)),
        (lambda params, direction: problem.hessian(params)(direction), (shapes, shapes)),
    ):
        program = jax.jit(function).lower(*points).compile()
        assert program.memory_analysis().temp_size_in_bytes < 10_000 * 20_000 * 4 / 10
