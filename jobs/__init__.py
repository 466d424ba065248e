"""What is trained: the practice pack, a folder a category. Data for `train init`, not code."""
