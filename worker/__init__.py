"""The RQ worker: dataset preparation, training and, later, long renders."""
