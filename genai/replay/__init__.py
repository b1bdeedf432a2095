"""How a text came about: recorded while it is drawn, as a page and as an animation."""
