"""Datasets: from whatever an artist sends to one array of pictures, each file accounted for."""
