"""Classifiers on frozen features: kNN and SVM."""
