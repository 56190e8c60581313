"""A user's 2D keypoints: files of them, what is missing or implausible in them, and what a model is given of them."""
