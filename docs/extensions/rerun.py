"""``python -m sphinx -D rerun_examples=all docs site``: run the examples of the gallery again, then build the site.

Each writes its picture and its numbers over the committed ones in ``docs/figures``: look at the difference before you
commit it. Names of examples, separated by commas, run these alone. A quarter of an hour of a CPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cycledistill.files import atomic_write

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
EXAMPLES = ("imagenet_deit", "coco_sdpose", "human36m_hot")


def command(name: str, output: str) -> list[str]:
    """How an example is run to draw its figure anew."""
    script, picture = ROOT / "examples" / f"{name}.py", FIGURES / f"{name}.png"
    return [sys.executable, str(script), "--output", output, "--figure", str(picture)]


def wanted(names: str) -> list[str]:
    """The examples that the option names.

    Raises:
        ValueError: One of them is none.
    """
    found = list(EXAMPLES) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    if unknown := set(found) - set(EXAMPLES):
        raise ValueError(f"rerun_examples={names}: {', '.join(sorted(unknown))} is none of {', '.join(EXAMPLES)}")
    return found


def run(app: Sphinx) -> None:
    """Sphinx's ``builder-inited``."""
    for name in wanted(app.config.rerun_examples):
        with tempfile.TemporaryDirectory() as output:
            subprocess.run(command(name, output), check=True)
            numbers = (Path(output) / "results.json").read_text(encoding="utf-8")
            atomic_write(FIGURES / f"{name}.json", lambda file, text=numbers: file.write_text(text, encoding="utf-8"))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_config_value("rerun_examples", "", "", [str])
    app.connect("builder-inited", run)
    return {"parallel_read_safe": True}
