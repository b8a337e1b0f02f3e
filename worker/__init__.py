"""The RQ worker: dataset preparation, training and long drawing."""
