"""Models as files."""

from cycledistill.exporter.errors import ExportError
from cycledistill.exporter.export import Exported, export

__all__ = ["ExportError", "Exported", "export"]
