"""Rows of data files → disjoint train and test parts."""
