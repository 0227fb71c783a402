"""The gRPC services of the local server, and its TLS."""
