"""Images (B, 3, H, W) in; features, maps of features and the classes of a pretext task out."""
