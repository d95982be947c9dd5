"""The scorer: uint8 images on the device in, features of every patch or heat maps out."""
