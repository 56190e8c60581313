"""Pictures of any depth in RGB, beside what OpenCV reads of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cycledistill.recipes.reading.pixels import to_rgb

cv2 = pytest.importorskip("cv2")

RAMP = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_of_grey_are_what_opencv_reads(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        found = np.asarray(to_rgb(image))
        assert np.asarray(image.convert("RGB")).mean() > 250  # as Pillow makes it: white
    expected = cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_COLOR)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1


def test_eight_bits_are_pillows() -> None:
    for mode in ("RGB", "L", "P", "CMYK", "1", "LA", "RGBA"):
        image = Image.fromarray((RAMP >> 8).astype(np.uint8)).convert(mode)
        assert np.array_equal(to_rgb(image), image.convert("RGB"))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_range_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"mode '[FI]', whose numbers have no known range: convert it to 8 bits"):
        to_rgb(Image.fromarray(RAMP.astype(kind)))
