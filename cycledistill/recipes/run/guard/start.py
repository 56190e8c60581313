"""Where a run begins: in a folder of its own, or at the checkpoint that it is to go on from."""

from __future__ import annotations

from pathlib import Path

from cycledistill.files import check_writable
from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.weights.checkpoint import CheckpointStore, find_checkpoint


def find_start(output: str, store: CheckpointStore, resume: str | None, writes: bool) -> Path | None:
    """The checkpoint to go on from, if any; the process that ``writes`` finds that the log can be written.

    Its folder is there: the lock (`guard.lock`) makes it, and takes it away again where a run is refused.
    """
    try:
        if writes:
            check_writable(Path(output) / "log.jsonl")
    except OSError as error:
        raise RecipeError(f"run.output={output!r} cannot be written to: {error}") from error
    checkpoint = store.last() if resume == "auto" else find_checkpoint(resume) if resume else None
    if not resume and store.last():
        raise RecipeError(f"{output} holds a run already: pass --resume auto to go on, or another --output.")
    if checkpoint and any(path.name > checkpoint.name for path in store.complete()):
        # the new checkpoints would be the older ones, and dropped first
        raise RecipeError(f"{output} holds checkpoints after {checkpoint.name}: go on from there in another --output.")
    return checkpoint
