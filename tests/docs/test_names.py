"""Links of README and the guides lead somewhere; paths and names in them are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, GUIDES, PAGES, ROOT, anchors, lost_paths, unknown_names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r' src="([^"]+)"', text)
    for target in targets:
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_names_of_the_package_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (lost_paths(page, text), unknown_names(text)) == ([], [])


def test_a_path_or_a_name_that_has_gone_is_found() -> None:
    page = ROOT / "docs" / "lifting.md"
    text = (
        "`integrations/human36m/cameras.py`, `metrics.py`, `data/{clips,gone}.py`, `data/`, `cameras.py`, `tests/core`"
    )
    assert lost_paths(page, text) == ["integrations/human36m/cameras.py", "metrics.py", "data/gone.py", "tests/core"]
    text = "`cycledistill.at_exit`, `cycledistill.multiview_start.start_from_coco`, `cycledistill.cost.gone(model)`"
    assert unknown_names(text) == ["cycledistill.multiview_start.start_from_coco", "cycledistill.cost.gone"]
