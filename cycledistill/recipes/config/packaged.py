"""Recipes that a package brings along, in its folder ``configs``; a file of its own, for it needs no PyYAML."""

from __future__ import annotations

from importlib import resources


def packaged_names(package: str) -> list[str]:
    """Names of the YAML files in the folder ``configs`` of ``package``.

    Example:
        >>> "sdpose_s_v1.yaml" in packaged_names("cycledistill.integrations.coco")
        True
    """
    folder = resources.files(package) / "configs"
    return sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
