"""What operators see of the service: metrics, logs, traces. Never what clients send."""
