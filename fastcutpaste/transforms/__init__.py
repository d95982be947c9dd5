"""What users call: CutPaste, Scar, their baselines and lists of them; images (B, C, H, W) in, augmented ones out."""
