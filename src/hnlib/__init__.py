"""Class imbalance in head-and-neck organ segmentation: measured exactly, trained, compared honestly."""

__version__ = "0.1.0"
