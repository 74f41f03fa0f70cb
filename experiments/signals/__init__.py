"""Is there a thicket around a pretrained model of 1-D signals, and only there?"""
