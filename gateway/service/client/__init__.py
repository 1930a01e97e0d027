"""The side towards the client: response, error objects, header names, cancellation."""
