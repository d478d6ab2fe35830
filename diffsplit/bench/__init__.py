"""Benchmarks that anyone can rerun: solvers × tasks × images × seeds, kept in one file."""
