"""How a graph gets fewer bits: 8 by its wrapper's own products, 16 by a converter."""
