"""Counting, pure: rendezvous hashing (`rendezvous`), sliding windows (`windows`), bounded tables (`table`), a token
bucket (`bucket`), limits shared by several counters (`shards`). No clock, no I/O and no dependency: time is an argument
in monotonic seconds (`Clock.mono_s`). If the clock steps back all the same, nothing here grants anything extra.
"""
