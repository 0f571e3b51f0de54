"""Runs benchmarks and writes docs/benchmarks.md: `python -m benchmarks [NAME …]`."""

import argparse
import asyncio
import importlib

from benchmarks.report import save

# Each is a module with `async def run() -> list[Table]`.
NAMES = ["calls", "stream", "edge", "admission", "administration", "lists", "policies", "realms", "enumeration"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; default: all")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name}: there are {', '.join(NAMES)}")
        tables = asyncio.run(importlib.import_module(f"benchmarks.{name}").run())
        save(name, tables)
        for table in tables:
            print(table.to_markdown(), flush=True)


if __name__ == "__main__":
    main()
