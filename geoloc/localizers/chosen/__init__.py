"""Localizers by neighbour, alone or with classes, whose parameters are chosen on the validation split."""
