"""A file of a model on the Hugging Face hub, or of the cache of earlier downloads, in one try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

_ANSWERS = (EntryNotFoundError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)
"""What is so, however often one asks."""


def download(name: str, file: str, *, token: str | bool | None = None, **options: Any) -> Path:
    """The file, where the hub answers at once; else where the cache has it.

    The hub's own library asks again and again where the network is down and the cache has nothing: six times, of a
    minute each where nothing comes back. A name that was mistyped would be told of after minutes.

    Args:
        name: The repository.
        file: Its file.
        token: Of a user who may read it.
        **options: Of `huggingface_hub.hf_hub_download`: ``revision``, ``cache_dir``, ``force_download``,
            ``local_files_only``.

    Raises:
        LocalEntryNotFoundError: The hub does not answer, and the file is not in the cache, or not to be taken from it.
        huggingface_hub.errors: Of a repository, a revision or a file that there is not, or of a name that none has.
    """
    if not options.get("local_files_only"):
        try:
            get_hf_file_metadata(hf_hub_url(name, file, revision=options.get("revision")), token=token)
        except _ANSWERS:
            raise
        except Exception as error:  # the HTTP library's own, which one depends on the version
            if options.get("force_download"):
                raise LocalEntryNotFoundError(f"{file} was to be downloaded anew") from error
            try:
                return _fetch(name, file, token, {**options, "local_files_only": True})
            except LocalEntryNotFoundError as absent:
                raise absent from error
    return _fetch(name, file, token, options)


def _fetch(name: str, file: str, token: str | bool | None, options: dict[str, Any]) -> Path:
    return Path(hf_hub_download(repo_id=name, filename=file, token=token, **options))
