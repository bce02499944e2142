"""What the symbols, quantities and columns of a report mean, for a reader who has the page alone."""

from __future__ import annotations

OBJECTIVE = (
    "minimize f(W, H, b) = 1/N sum_i loss(W h_i + b, y_i)"
    " + decay_W/2 ||W||^2 + decay_H/2 ||H||^2 + decay_b/2 ||b||^2 over W, H and b"
)
"""What every claim is restated for; papers differ in the factors 1/2 and 1/N and in the sign of b."""
SYMBOLS = {
    "K, d, n, N": "classes, feature dimension, samples per class (n_k where they differ), samples in all",
    "W, H, b": "classifier (K, d) with rows w_k; free features (d, N) with columns h_i; bias: K numbers, one or none",
    "Z = W H + b": "logits (K, N); scores are W H alone: positive at the true class, negative elsewhere",
    "mu": "sqrt(n decay_W decay_H), the price of collapse in a balanced problem",
    "p, q": "logit of the true class and of every other class at a symmetric minimizer",
    "a": "p - q; all class scores together are a (I - 11'/K) + (c/K) 11'",
    "mean mode c": "size of what all rows of W share; 0 at a simplex ETF, W = H = 0 where a is 0 too",
    "rho, s": "||W||^2 and sqrt(decay_W/(n decay_H))",
    "sigma, logit": "sigma(x) = 1/(1 + e^-x) and its inverse log x/(1 - x)",
    "alpha; gamma; kappa, beta": "of label smoothing; of focal loss, or scale of normalized logits; of squared error",
    "grad_Z, ||.||_op, ||.||_*": "gradient of the mean loss in Z; largest singular value; sum of the singular values",
    "NC1": "within-class over between-class variability of the features; every NC is 0 at collapse to a simplex ETF",
    "NC2, NC2_MEANS": "distance of the centered rows of W, or class means, from a simplex ETF, Gram matrices of norm 1",
    "NC2_UNCENTRED, NC2_MEANS_UNCENTRED": "the same without centering: a mean mode shows here",
    "NC3": "distance of classifier times class means from that of aligned ones (self-duality)",
}
CHECKED = {
    "predicted, measured": "what the claim's formula says, and what was found at a solution computed without it",
    "certified gap": "how far the solution can lie above the global minimum: its value minus a proven lower bound",
    "residual / tolerance": "|measured - predicted| in units of the tolerance: above 1 they disagree",
    "holds, refuted": "all quantities agree at a certified minimizer; one does not, or a point lies below the claim's",
    "outside hypotheses, inconclusive": "the claim says nothing of this problem; no certificate tight enough to judge",
}
TRIED = {
    "inside, at boundary": "random problems that satisfy the hypotheses, and how many of them nearly do not",
    "outside: claim false": "random problems that do not satisfy them: on how many of those the claim fails",
    "undecided": "inside, without a certificate tight enough to judge",
}
