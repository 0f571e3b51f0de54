"""Tests that need a program which pip can't bring say so, and are skipped with the line that brings it."""

import shutil

import pytest

# Program → Debian package, where the names differ.
PACKAGES = {"sipp": "sip-tester", "rtpengine": "ngcp-rtpengine-daemon", "nft": "nftables"}


def needs_program(name: str, package: str = "") -> pytest.MarkDecorator:
    """`@needs_program("sipp")`: skipped where the program is not in PATH, naming the Debian package to install."""
    package = package or PACKAGES.get(name, name)
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}: apt-get install {package}")
