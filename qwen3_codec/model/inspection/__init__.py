"""What a run of any model does, read off as it comes by: what looks along time, what is random, and where."""
