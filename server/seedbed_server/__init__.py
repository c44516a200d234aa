"""The server of Seedbed: ``engine`` turns specs into numbers, ``service`` serves them over gRPC."""
