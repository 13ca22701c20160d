"""What anyone's labelled scans are like, and what to train on them: one page, from a folder.

`open_labelled` finds the cases, `measure` computes what the page says, `page` writes it; `commands` holds `hnlib
report`. Nothing is trained. This file imports none of them, so that the command line starts fast.
"""
