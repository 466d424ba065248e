"""Write the data: people with diabetes, and how far the illness went within a year.

`data/train.npz` holds `x`, float32 [332, 10], and `y`, float32 [332]; `heldout.npz` the same for
110 other people.

Source: `load_diabetes()` of scikit-learn, in its own units: 442 people (Efron et al., 2004).
"""

from pathlib import Path

from sklearn.datasets import load_diabetes

from jobs.preparing import chance, parted, write

x, y = load_diabetes(return_X_y=True, scaled=False)
x, y = x.astype("float32"), y.astype("float32")
train, held_out = parted(chance(), len(x), 110)
write(
    Path(__file__).parent,
    {"x": x[train], "y": y[train]},
    {"x": x[held_out], "y": y[held_out]},
)
