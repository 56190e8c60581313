"""Files that others made, read so that whatever is wrong with one is said in words that name it, and nothing runs."""
