"""Does selection in rounds find the true best experts for a tenth of the work?"""
