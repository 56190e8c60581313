"""Pages from templates, by jinja2: what is filled in is escaped, so that no name of a file or a run becomes markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cycledistill.versions import require


def render(template: Path, **values: Any) -> str:
    """A template, filled in.

    Args:
        template: The template's file; what it includes lies beside it.
        values: What it names. Text is escaped; what is markup already is a ``markupsafe.Markup``.

    Raises:
        ImportError: jinja2 is not installed.
        jinja2.UndefinedError: The template names what is not given.

    Example:
        >>> page = render(Path(__file__).with_name("page.html.jinja"), title="a < b")
    """
    require("jinja2")
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ImportError(f'{error}: pip install "cycledistill[insight]"') from error
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
