"""Does an ensemble of experts around a small story model beat what costs as much without them?"""
