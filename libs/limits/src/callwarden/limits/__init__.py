"""Counting, pure: rendezvous hashing (`rendezvous`), sliding windows (`windows`), bounded tables (`table`), token
buckets (`bucket`). No clock, no I/O, no dependency: time is an argument, in seconds of a clock that doesn't step back
(`Clock.mono_s`); should it step back all the same, nothing here mints an allowance.
"""
