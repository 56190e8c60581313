"""A folder with a published model, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published model; copy it to change it."""
    from tests.coco.models.hub.published import small  # without the hub's library the tests are skipped, not this file

    folder = tmp_path_factory.mktemp("published") / "sdpose"
    small().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "sdpose"))
