"""DICOM: a scan read from its slices (`series`), outlines written beside them (`export`)."""

from hnlib.dicom.series import NO_SCAN, SLICE_SUFFIXES, is_slice, read_series

__all__ = ["NO_SCAN", "SLICE_SUFFIXES", "is_slice", "read_series"]
