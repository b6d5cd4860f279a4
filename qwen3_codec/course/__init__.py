"""The walkthrough's own code: traps, exercises, figures and widgets, and the lab in a browser."""
