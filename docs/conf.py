"""Sphinx over the whole repository, so that READMEs and pages under docs/ link to each other as they do in a checkout.

Run by `make docs`, strictly. What is built loads nothing from elsewhere: the theme brings its own style and no fonts.
Why Sphinx: docs/decisions/0010.
"""

project = "Callwarden"
author = "The Callwarden authors"
project_copyright = "2026, The Callwarden authors"

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**.md",
    "cli/README.md",
    "deploy/helm/callwarden/README.md",
    "operators/*/README.md",
    "services/*/README.md",
    "libs/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "**/node_modules"]

extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nitpicky = True
# `console` and `sh` blocks hold what a terminal shows, which is not always valid shell.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "Callwarden"
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ["_site"]
html_theme_options = {"footer_icons": []}
