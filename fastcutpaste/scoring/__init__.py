"""A trained network and normal images in; a detector out, which turns images into scores, heat maps and decisions."""
