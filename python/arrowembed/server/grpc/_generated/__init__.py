"""Made from proto/arrowembed/v1/embedding.proto by `make proto`."""
