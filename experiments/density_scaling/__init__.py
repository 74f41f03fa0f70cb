"""Does the density of solutions around a model grow with the model's size?"""
