"""Generated clips for poor classes: how many, from which prompts, made by which model, and how far to be trusted."""
