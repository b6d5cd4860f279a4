"""Does it agree? Against the one-shot model, for any graph whose states pair by name, and from elsewhere."""
