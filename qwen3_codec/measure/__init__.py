"""What it costs: each design beside the others, all of a checkpoint on one page, streams on a server."""
