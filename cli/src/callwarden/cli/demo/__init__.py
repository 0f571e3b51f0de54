"""`callwarden demo`: a story on real SIP, told live, every step checked.

`director` starts and stops everything, `story` is what happens, `stage` what is shown; `phones` are the independent
user agents, `guesser` the attacker.
"""
