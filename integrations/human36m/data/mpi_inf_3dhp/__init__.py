"""MPI-INF-3DHP: the files that its users have, as clips in Human3.6M's order of joints.

Source: Mehta et al. (3DV 2017). The data is licensed; nothing of it comes with this library.
"""
