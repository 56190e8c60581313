"""Models as files."""

from cycledistill.exporter.agreement import Agreement
from cycledistill.exporter.errors import ExportError
from cycledistill.exporter.export import Exported, export
from cycledistill.exporter.quantize import Quantized, quantize

__all__ = ["Agreement", "ExportError", "Exported", "Quantized", "export", "quantize"]
