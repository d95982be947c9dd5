"""The op against what else does its work: uint8 images in, normalized 3-way batches out."""
