"""Optional trackers: the figures of each round, as the consortium holds them anyway, in TensorBoard and MLflow."""
