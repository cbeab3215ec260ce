from .train import Member, Trained, train_together  # noqa: F401
