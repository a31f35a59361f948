"""Names for the arrays the core works on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.uint64]  # elements of Z_2^64
Bytes = NDArray[np.uint8]
Array = NDArray[Any]
Shape = tuple[int, ...]
