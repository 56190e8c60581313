"""Sphinx: the guides and the reference as a site. ``python -m sphinx -W docs site`` builds it, without the network."""

import sys
from pathlib import Path

import cycledistill

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "extensions"))

project = "cycledistill"
author = "The cycledistill contributors"
copyright = f"2026, {author}"
release = version = cycledistill.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "constructors",
    "elsewhere",
    "phone",
    "records",
    "rerun",
    "sources",
    "spellings",
]
exclude_patterns = ["site"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = f"cycledistill {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_heading_anchors = 3  # guides link to headings of each other
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "off"  # pages show what is stored; tests/test_notebooks.py runs the notebooks
copybutton_exclude = ".linenos, .gp, .go"

default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports = ["onnxruntime", "matplotlib"]
napoleon_use_ivar = True
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", str(HERE / "inventories" / "python.inv")),
    "torch": ("https://docs.pytorch.org/docs/stable/", str(HERE / "inventories" / "torch.inv")),
    "numpy": ("https://numpy.org/doc/stable/", str(HERE / "inventories" / "numpy.inv")),
}
