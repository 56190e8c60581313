"""What `gpu.py` is made of: forms a call is timed in, jobs, records, and tables of them."""
