"""Files and folders in, uint8 batches (B, 3, H, W) on the device out; real textures with planted defects besides."""
