"""Ground shared by every room: pytree dataclasses, input checks and the float64 scope."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
LONG = 100
"""Characters of a value that a message shows: with the field and what is allowed it stays on one line."""
matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Matrix product at full precision: the float32 default is TF32-like on GPUs, bfloat16 on TPUs."""


class InputError(ValueError):
    """A value that a caller gave is not allowed; the message names field, value and what is.

    >>> import ufm
    >>> ufm.Problem(classes=1)
    Traceback (most recent call last):
        ...
    ufm._base.InputError: classes = 1: must be a whole number >= 2
    """


def require(ok: bool, field: str, value: object, allowed: str) -> None:
    """Raise `InputError` naming ``field``, ``value`` and what is ``allowed`` unless ``ok``."""
    if not ok:
        raise InputError(f"{field} = {shown(value)}: must be {allowed}")


def shown(value: object) -> str:
    """``repr`` of a value in a message: on one line, and cut where it is long.

    >>> shown("a" * 1000)[-5:], len(shown(list(range(1000))))
    ('a ...', 104)
    """
    try:
        text = repr(value).replace("\n", " ")
    except (RecursionError, ValueError):  # nested by the thousands, or an integer of thousands of digits
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= LONG else f"{text[:LONG]} ..."


def require_whole(field: str, value: Any, least: int) -> None:
    """`require` a whole number of at least ``least``; a bool is none."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    require(whole and value >= least, field, value, f"a whole number >= {least}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"one of a, b, c"``, with a suggestion when ``word`` is close to one of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"one of {', '.join(known)}{hint}"


def require_known(field: str, value: Any, known: Iterable[str]) -> None:
    """`require` one of the words ``known``; the message suggests a close one."""
    if value not in known:
        require(False, field, value, suggestion(str(value), known))


def as_key(key: Any, seed: Any = None) -> Any:
    """A JAX key from a ``key`` that is one already or a whole number; ``seed``, if given, is that number.

    A function that draws takes both names: ``key`` for those who split keys, ``seed`` as sweeps and theorems call it.

    Raises:
        InputError: for a number that is no seed, and for both at once (a ``key`` of 0 is the usual default).
    """
    if seed is not None:
        require(isinstance(key, int) and key == 0, "seed", seed, "absent where a key is given")
        key = seed
    if isinstance(key, (int, np.integer)):
        require(bool(0 <= key < 2**63), "seed", int(key), "a whole number in [0, 2^63)")
        return jax.random.key(int(key))
    require(seed is None and hasattr(key, "dtype"), "seed", key, "a whole number in [0, 2^63), or a JAX key as key")
    return key


def read_call(
    text: str, field: str, known: Mapping[str, Iterable[str]], words: Collection[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Read ``name`` or ``name:key=value,...``; ``known`` maps each name to the keys that it takes.

    Values are numbers, but those of the keys ``words`` are kept as they are.
    """
    name, _, rest = text.partition(":")
    require_known(field, name, known)
    keys, values = list(known[name]), dict[str, Any]()
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        allowed = suggestion(key, keys) if keys else f"absent: {name} has no hyper-parameters"
        require(key in keys, f"hyper-parameter of {field} {name}", key, allowed)
        try:
            values[key] = value if key in words else float(value)
        except ValueError:
            raise InputError(f"{key} = {value!r}: must be a number") from None
    return name, values


def write_call(name: str, hyper: Mapping[str, Any], number: Callable[[Any], str] = "{:g}".format) -> str:
    """The opposite of `read_call`; of an array, which no command line takes, the first four numbers.

    >>> write_call("mine", {"margin": 2.0, "weights": np.arange(10.0), "shape": "long"})
    'mine:margin=2,weights=[0 1 2 3 ...],shape=long'
    """

    def shown(value: Any) -> str:
        if isinstance(value, str):
            return value
        numbers = [number(float(x)) for x in np.ravel(value)[:4]]
        if np.ndim(value) == 0:
            return numbers[0]
        return f"[{' '.join(numbers)}{' ...' if np.size(value) > 4 else ''}]"

    values = ",".join(f"{key}={shown(value)}" for key, value in hyper.items())
    return f"{name}:{values}" if values else name


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is being traced by a JAX transformation."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def is_single(x: Any) -> bool:
    """Whether ``x`` is one known number: not traced, no batch, no placeholder of a tree."""
    return isinstance(x, (int, float, np.generic, np.ndarray, jax.Array)) and not is_traced(x) and np.ndim(x) == 0


def shapes(arrays: Mapping[str, Any]) -> str:
    """Names and shapes in words; several matrices of one name are a product.

    >>> shapes({"W": (np.ones((3, 2)), np.ones((2, 4))), "H": np.ones((4, 6)), "b": None})
    'W (3, 2) (2, 4), H (4, 6)'
    """
    leaves = {name: jax.tree.leaves(value) for name, value in arrays.items()}
    return ", ".join(f"{name} {' '.join(str(np.shape(x)) for x in xs)}" for name, xs in leaves.items() if xs)


def require_range(field: str, value: Any, allowed: str, inside: Callable[[np.ndarray], np.ndarray]) -> None:
    """`require` every entry of a number or array to be ``inside``; traced values pass unchecked."""
    if is_traced(value):
        return
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        numbers = np.asarray(np.nan)
    require(bool(np.all(inside(numbers))), field, value, allowed)


def pytree(*, static: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass as a pytree whose ``static`` fields are part of its type.

    Unlike `jax.tree_util.register_dataclass`, rebuilding an instance from leaves does not run
    ``__post_init__``: a gradient with respect to a `Decay` is a `Decay` of any sign, so the checks
    on what a *user* may write belong to the constructor alone.
    """

    def register(cls: type[T]) -> type[T]:
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        dynamic = tuple(n for n in names if n not in static)
        keys = tuple(jax.tree_util.GetAttrKey(n) for n in dynamic)

        def flatten_with_keys(x: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
            children = [(k, getattr(x, n)) for k, n in zip(keys, dynamic, strict=True)]
            return children, tuple(getattr(x, n) for n in static)

        def flatten(x: T) -> tuple[list[Any], tuple[Any, ...]]:
            return [getattr(x, n) for n in dynamic], tuple(getattr(x, n) for n in static)

        def unflatten(meta: tuple[Any, ...], children: Iterable[Any]) -> T:
            x = object.__new__(cls)
            for name, value in zip(dynamic, children, strict=True):
                object.__setattr__(x, name, value)
            for name, value in zip(static, meta, strict=True):
                object.__setattr__(x, name, value)
            return x

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register


def alike(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure and equal leaves.

    >>> alike({"x": np.ones(2)}, {"x": np.ones(2)}), alike({"x": np.ones(2)}, {"x": 1.0})
    (True, False)
    """
    (leaves, structure), (others, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return bool(structure == other) and all(  # type: ignore[operator]
        map(np.array_equal, leaves, others)
    )


def cast(tree: T, dtype: Any) -> T:
    """Every leaf of ``tree`` as an array of ``dtype``."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def quick_to_compile(effort: int) -> dict[str, Any] | None:
    """Options of `jax.jit` for a program that runs for less time than it compiles; None where there are none.

    XLA's older emitters for CPU compile a column's dual bound in 0.1 CPU-seconds instead of 0.3, and the scalar
    reduction in 1.3 instead of 1.8 (effort 1) or in 0.8 for a program that runs twice as long (effort 0). Jaxlib 0.12
    has no older emitters any more.
    """
    wanted = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": effort}
    known = {name: value for name, value in wanted.items() if jax.default_backend() == "cpu" and takes(name, value)}
    return known or None


@functools.cache
def takes(option: str, value: Any) -> bool:
    """Whether XLA has a compile option; asked with a program of nothing, since a version refuses what it has not.

    >>> takes("xla_no_such_option", True)
    False
    """
    try:
        jax.jit(lambda x: x, compiler_options={option: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextlib.contextmanager
def float64_scope() -> Iterator[Any]:
    """The x64 switch on within the block, in this thread alone; gives the host where the device has no float64."""
    with jax.enable_x64(True):
        host = jax.local_devices(backend="cpu")[0] if jax.default_backend() == "tpu" else None
        with jax.default_device(host):
            yield host


def widened(tree: T) -> T:
    """``tree`` with its narrower float arrays in float64, as they are needed in a `float64_scope`; NumPy's."""

    def widen(x: Any) -> Any:
        dtype = getattr(x, "dtype", None)
        narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64
        return np.asarray(x, np.float64) if narrow else x

    return jax.tree.map(widen, tree)


def in_float64(
    function: Callable[..., T], static: tuple[str, ...] = (), *, effort: int | None = None
) -> Callable[..., T]:
    """Evaluate ``function(*trees, **static)`` in float64, whatever the precision of its arguments.

    The x64 switch is set for this call only, and a TPU (no native float64) hands the work to the
    host. Under a transformation the arguments are used as they are. ``effort``: see `quick_to_compile`.
    """

    @functools.cache  # not before the first call, because it asks for JAX's backend
    def compiled() -> Callable[..., T]:
        options = None if effort is None else quick_to_compile(effort)
        return jax.jit(function, static_argnames=static, compiler_options=options)

    @functools.wraps(function)
    def evaluate(*trees: Any, **options: Any) -> T:
        if is_traced(*trees):
            return function(*trees, **options)
        with float64_scope() as host:
            moved = jax.device_put(trees, host) if host else trees
            return compiled()(*cast(moved, jnp.float64), **options)

    return evaluate


def dot(a: Any, b: Any) -> Any:
    """Inner product over all leaves of two trees."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return functools.reduce(jnp.add, (jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST) for x, y in pairs))


def norm(a: Any) -> Any:
    """Euclidean norm over all leaves of a tree."""
    return jnp.sqrt(dot(a, a))


def axpy(alpha: Any, x: Any, y: Any) -> Any:
    """``alpha x + y``, leaf by leaf."""
    return jax.tree.map(lambda u, v: alpha * u + v, x, y)


def operator_norm(A: Any) -> Any:
    """Largest singular value, from the smaller Gram matrix: accurate to rounding for the largest one."""
    rows, columns = A.shape
    gram = matmul(A, A.T) if rows <= columns else matmul(A.T, A)
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], jnp.finfo(A.dtype).tiny))
