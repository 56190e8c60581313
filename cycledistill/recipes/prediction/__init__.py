"""What commands share that predict: pictures and videos a frame after the other, and the files of what is found."""
