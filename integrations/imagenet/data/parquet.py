"""Image sets in Parquet files, read as a timm ``Reader``.

Layout (the one Hugging Face ``datasets`` writes): a column ``image`` with ``bytes`` and ``path``, a column ``label`` of
class numbers, and the class names, if any, in the schema's ``huggingface`` metadata.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.data.readers.reader import Reader

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PARQUET, Kind, reading
from cycledistill.recipes.reading.texts import parse_json

IN_MEMORY_LIMIT = 16 << 30  # bytes


def find_parquet(folder: Path, split: str) -> list[Path]:
    """The files of a split: ``split.parquet`` or ``split-*.parquet``, in the folder or in its ``data/``."""
    for place in (folder, folder / "data"):
        found = sorted(place.glob(f"{split}.parquet")) or sorted(place.glob(f"{split}-*.parquet"))
        if found:
            return found
    return []


class ParquetReader(Reader):
    """Images and labels of some Parquet files, held in memory as the compressed bytes they are.

    Each process of a multi-GPU run holds its own copy; loader workers share it. Sets above 16 GiB are refused:
    ``data.dataset=hfds/FOLDER`` reads the same files memory-mapped through Hugging Face ``datasets``.

    Args:
        files: The Parquet files of one split.

    Raises:
        DataError: pyarrow is missing, a file is not Parquet, lacks the columns, or holds empty images.
    """

    def __init__(self, files: Sequence[Path]):
        super().__init__()
        try:
            import pyarrow as pa
            import pyarrow.compute as pc
            import pyarrow.parquet as pq
        except ImportError as error:
            raise DataError("Parquet image sets need pyarrow: pip install cycledistill[imagenet].") from error
        size = sum(file.stat().st_size for file in files)
        if size > IN_MEMORY_LIMIT:
            raise DataError(
                f"{files[0].parent} holds {size / 2**30:.0f} GiB of Parquet, too much to keep in memory: "
                f"pass data.dataset=hfds/{files[0].parent}, which memory-maps it."
            )
        tables = []
        for file in files:
            with reading(file, PARQUET, DataError):
                _check_columns(file, pq.read_schema(file))
                tables.append(pq.read_table(file, columns=["image", "label"]))
                empty = pc.sum(pc.or_(pc.is_null(tables[-1]["label"]), pc.is_null(tables[-1]["image"]))).as_py()
            if empty:
                raise DataError(f"{file}: {empty} rows have no image or no label; both are expected in each.")
        self.files = list(files)
        with reading(
            f"{files[0].parent}: {len(files)} files of one split", Kind("tables of one form are expected"), DataError
        ):
            self.table = pa.concat_tables(tables)
        self.labels: list[int] = self.table["label"].to_pylist()
        self.class_to_idx = {name: index for index, name in enumerate(_label_names(self.table.schema.metadata))}
        low, high = min(self.labels, default=0), max(self.labels, default=0)
        if low < 0 or (self.class_to_idx and high >= len(self.class_to_idx)):
            raise DataError(
                f"{files[0]}: labels run from {low} to {high}, expected 0 to "
                f"{len(self.class_to_idx) - 1 if self.class_to_idx else 'the number of classes - 1'}."
            )

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        data = self.table["image"][index]["bytes"].as_py()
        if not data:
            raise OSError("the row holds no image bytes")
        return io.BytesIO(data), self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name = self.table["image"][index]["path"].as_py() or f"row {index}"
        return f"{name} (row {index} of {self.files[0].name if len(self.files) == 1 else self.files[0].parent})"


def _check_columns(file: Path, schema: Any) -> None:
    import pyarrow as pa

    missing = {"image", "label"} - set(schema.names)
    if missing:
        raise DataError(f"{file} lacks the column(s) {sorted(missing)}: expected image{{bytes,path}} and label.")
    image, label = schema.field("image").type, schema.field("label").type
    if not pa.types.is_struct(image) or {"bytes", "path"} - {image.field(i).name for i in range(image.num_fields)}:
        raise DataError(f"{file}: column 'image' is {image}, expected a struct of bytes and path.")
    if not any(check(image.field("bytes").type) for check in (pa.types.is_binary, pa.types.is_large_binary)):
        raise DataError(f"{file}: 'image.bytes' is {image.field('bytes').type}, expected bytes.")
    if not pa.types.is_integer(label):
        raise DataError(f"{file}: column 'label' is {label}, expected whole numbers.")


def _label_names(metadata: dict[bytes, bytes] | None) -> list[str]:
    try:
        said = parse_json((metadata or {})[b"huggingface"], "the column names", DataError)
        names = said["info"]["features"]["label"]["names"]
    except (DataError, KeyError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
