"""Small pictures, and Parquet files of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = 24


def picture(label: int, number: int) -> bytes:
    """A JPEG whose brightness tells its class."""
    rng = np.random.default_rng([label, number])
    pixels = rng.integers(0, 120, (SIZE, SIZE, 3)) + 120 * label
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_parquet(file: Path, images: list[bytes], labels: list[int], names: list[str] | None) -> None:
    rows = [{"bytes": data, "path": f"picture{i}.jpg"} for i, data in enumerate(images)]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, image_type), "label": pa.array(labels, pa.int64())})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)
