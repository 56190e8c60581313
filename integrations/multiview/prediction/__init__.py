"""From the pictures of several cameras to 3D poses."""
