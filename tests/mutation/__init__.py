"""Mutation runs: small faults are planted in the cores, and the unit tests must notice each. Run by `make mutants`.

`mutants` makes the faults, `server` runs tests against them, `cores` names what is mutated and by which tests it is
judged, `report` writes docs/mutants.md. Why this is our own: docs/decisions/0011-own-mutation-runs.md.
"""
