"""Run the notebooks of the site and write them back with what they print and draw.

    python docs/notebooks/execute.py                        # all of them
    python docs/notebooks/execute.py docs/notebooks/classifier.ipynb

The site shows what is stored in them and runs nothing; ``tests/test_notebooks.py`` runs them and compares. They are
written in one form, whoever runs them: no counters, times, ids of chance or versions, so that a difference in git is a
difference of the notebook.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from cycledistill.files import atomic_write

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}
KERNEL = {
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "1",  # small tensors: one thread is faster, and what is stored does not hang on cores
}


def notebooks() -> list[Path]:
    """The notebooks of the site."""
    return sorted(HERE.glob("*.ipynb"))


def execute(path: Path, timeout: int = 600) -> NotebookNode:
    """What a notebook gives where it is run offline, from its first cell to its last, in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raises.
        nbclient.exceptions.CellTimeoutError: A cell takes more than ``timeout`` seconds.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=timeout, record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute(env={**os.environ, **KERNEL})
    return notebook


def stable(notebook: NotebookNode) -> NotebookNode:
    """The notebook in its one form: cells numbered in order, the pieces of a stream joined, nothing of this machine.

    What goes to stderr is left out: warnings there name folders, and progress bars times.
    """
    kept = nbformat.v4.new_notebook(metadata=METADATA)
    for number, cell in enumerate(notebook.cells):
        tags = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        fresh = nbformat.NotebookNode(id=f"cell-{number:02}", cell_type=cell.cell_type, metadata=tags)
        fresh.source = cell.source
        if cell.cell_type == "code":
            fresh.update(execution_count=None, outputs=_joined(cell.outputs))
        kept.cells.append(fresh)
    return kept


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in (each for each in outputs if each.get("name") != "stderr"):
        before = joined[-1] if joined else None
        if before is not None and output.output_type == "stream" and output.get("name") == before.get("name"):
            before.text += output.text
        else:
            output = nbformat.from_dict({key: value for key, value in output.items() if key != "metadata"})
            if output.output_type != "stream":
                output.metadata = {}
            if "execution_count" in output:
                output.execution_count = None
            joined.append(output)
    return joined


def text_of(notebook: NotebookNode) -> str:
    """A notebook as it is stored."""
    return nbformat.writes(notebook) + "\n"


def main(paths: Sequence[str]) -> None:
    """Run these notebooks, or all, and store each whole or not at all."""
    for path in map(Path, paths) if paths else notebooks():
        content = text_of(stable(execute(path)))
        atomic_write(path, lambda file, content=content: file.write_text(content, encoding="utf-8"))
        print(f"{path}: {len(content) // 1024} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
