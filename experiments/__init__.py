"""Questions with measured answers: one folder, one question; `bench` is for speed.

`common` is what they share.
"""
