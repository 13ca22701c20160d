"""Anyone's predictions: folders of label maps against a reference, and against each other.

What `hnlib evaluate` and `hnlib compare` do, for a program to call: `measure` holds the functions, `page` draws what
they return, `folders` says how files and names are found. The label maps may come from any tool; an output folder of
nnU-Net serves as it is. This file imports none of them, so that the command line starts fast.
"""
