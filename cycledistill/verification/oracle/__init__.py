"""What claims are held against: the plain model, its blocks listed or called by hand, attention as it is computed."""
