"""Where a stream is looked at: figures, one stream under chosen settings, and the interactive lab."""
