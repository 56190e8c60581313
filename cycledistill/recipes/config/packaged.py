"""Recipes that a package brings along, in its folder ``configs``; a file of its own, for it needs no PyYAML."""

from __future__ import annotations

from importlib import resources


def packaged_names(package: str) -> list[str]:
    """Names of the recipes in the folder ``configs`` of ``package``: of its YAML files, without their ending."""
    folder = resources.files(package) / "configs"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
