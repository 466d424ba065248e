"""Runs shown and kept by others: TensorBoard and MLflow."""
