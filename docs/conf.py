"""Sphinx: the guides and the reference as a site. ``sphinx-build -W docs site`` builds it."""

import cycledistill

project = "cycledistill"
author = "The cycledistill contributors"
release = version = cycledistill.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"cycledistill {release}"
exclude_patterns = ["site"]

myst_heading_anchors = 3  # guides link to headings of each other
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # pages show what is stored; tests/test_notebooks.py runs the notebooks
default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports = ["onnxruntime", "matplotlib"]
napoleon_use_ivar = True
