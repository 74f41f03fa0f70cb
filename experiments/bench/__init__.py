"""How fast is it, against something measured in the same run?"""
