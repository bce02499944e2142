"""Numerical probes of the landscape: Hessians, eigenvalues, critical points, slices, rates."""
