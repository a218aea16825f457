"""Sphinx builds the pages: `make docs` writes them to build/docs, without a network.

Its source folder is the repository, so a README is a page as it stands, and links work in both.
Sphinx has Markdown and notebooks by MyST, docstrings by autodoc, and a search from a file.
"""

import algorithmic_efficiency

project = 'algoeff'
author = 'its contributors'
copyright = f'{author}, Apache-2.0'
release = version = algorithmic_efficiency.__version__

root_doc = 'docs/index'
include_patterns = [
  '*.md',
  'docs/*.md',
  'docs/notebooks/*.ipynb',
  'docker/README.md',
  'examples/*/README.md',
  'organizers/README.md',
  'scoring/README.md',
  'submissions/*/*/README.md',
  'tests/README.md',
  'tests/benchmarks/README.md',
  'tests/benchmarks/*/README.md',
  'workloads/*/README.md',
  'workloads/*/calibration/*.md',
]
exclude_patterns = ['.*', 'build', 'demo', 'runs', 'data', '*.egg-info']  # folders not to look into
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']

nb_execution_mode = 'off'  # `make notebooks` has run them
suppress_warnings = ['mystnb.unknown_mime_type']  # a chart is there as a picture, too
myst_heading_anchors = 3
default_role = 'literal'  # docstrings have code in single backticks
napoleon_use_ivar = True  # documented fields are no members of their own
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'

html_theme = 'furo'
html_title = 'algoeff'
html_static_path = ['_static']
html_css_files = ['pages.css']
html_extra_path = ['_root']  # index.html, which leads to the first page
html_copy_source = False
html_show_sphinx = False
