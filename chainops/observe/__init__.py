"""What leaves a finished request for others to look at: MLflow traces, made off the request's path."""
