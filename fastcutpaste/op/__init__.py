"""Draw → place → paste: images (B, C, H, W) and random numbers in, images with patches and their masks out.

One op with three ways to paste: slices on a CPU, kernels on a GPU, torch's own operations where a CPU compiles.
"""
