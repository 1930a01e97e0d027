"""Types of numpy arrays, said once."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
