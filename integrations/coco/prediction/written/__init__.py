"""The files of predictions: tables and JSON, keypoints for lifting, pictures and videos, and the folder of them."""
