"""Retrieval: embeddings of photos, an index over them, and location from their neighbours.

Import from the modules: `embeddings` (extract, store, load), `index` (FAISS), `density` (equation 1).
"""
