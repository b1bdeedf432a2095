"""How a model is trained, one folder a method; its train.py has `Config` and `train`."""
