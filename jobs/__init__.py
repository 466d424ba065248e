"""What is trained: the practice pack, one folder a category. Data for `train init`, imported by nothing."""
