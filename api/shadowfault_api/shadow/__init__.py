"""The shadow write, off the request: queue, deadline, circuit breaker, record of the outcome."""
