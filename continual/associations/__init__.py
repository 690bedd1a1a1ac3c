"""Which examples each task makes a model forget, each task learned alone from the same start; what unseen ones would.

After Jin & Ren 2025 (2406.14026).
"""
