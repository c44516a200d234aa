"""The service: the contract's RPCs as plain methods, and what binds them to gRPC or to the calling process."""
